"""`cycle`: sequential filtering, one analysis after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from xappa.bridge import Layout, unpack
from xappa.cf import timedelta_seconds
from xappa.diffusion.markov import GaussianTrajectory, Initial
from xappa.diffusion.noise import seed_of
from xappa.errors import NoObservationsWarning, TimeStepError, raise_all, warn
from xappa.models.base import Model
from xappa.models.catalogue import open_model, remember
from xappa.models.gaussian import GaussianModel
from xappa.models.posterior import GaussianPosterior, Residual
from xappa.models.settings import Guidance
from xappa.observe import ObservationOperator, ObservationSpec, Status, read_observations
from xappa.observe.checks import timeless_errors
from xappa.progress import progress_bar
from xappa.tasks.arguments import check_correlated, check_sampling, gaussian_model
from xappa.tasks.assimilate import Settings
from xappa.tasks.expected import with_predictors
from xappa.tasks.labels import count, finish, warn_of_guesses
from xappa.tasks.posterior import check_exact
from xappa.tasks.quality import QualityControl, controlled
from xappa.tasks.window import Window, member_numbers

__all__ = ["cycle"]


def cycle(
    model: Model | str | Path,
    obs: Any,
    *,
    start: Any,
    stop: Any,
    step: Any,
    members: int | None = None,
    seed: int | None = None,
    method: str = "exact",
    error: Any = None,
    sampler: Any = None,
    guidance: Guidance | None = None,
    quality_control: QualityControl | None = None,
    progress: bool | None = None,
) -> Iterator[xr.Dataset]:
    """Assimilate observations sequentially, yielding one analysis for each step.

    Each analysis is drawn from the distribution of the states in (time - step, time] given all
    observations from ``start`` up to that time. What is carried from one cycle to the next is the
    exact Gaussian distribution of the last states' components, so that nothing is lost by cycling:
    the last state of a cycle is that of an analysis of the whole period. (Only the residual that
    the EOFs leave is not carried: an observation between two analyses takes its error for new.)

    Parameters
    ----------
    model
        The prior.
    obs
        Observations of the whole period, as for ``assimilate``.
    start, stop
        Valid times of the first state and the last state; the first analysis is of ``start``
        alone, and the last one is the last whole step up to ``stop``.
    step
        Time between analyses, a multiple of the model's time step.
    members, seed, method, error, sampler, guidance, progress
        As for ``assimilate``; the bar counts the cycles.
    quality_control
        As for ``assimilate``; the background of a cycle is the forecast from the one before.
        Biases of platforms are estimated in each cycle anew.

    Yields
    ------
    xarray.Dataset
        The analysis of one cycle, on the model's grid.

    Raises
    ------
    TimeStepError
        If ``step`` is not a multiple of the model's time step, or ``stop`` is before ``start``.
    ArgumentError
        If ``start`` or ``stop`` is no time, or another argument is not known.
    MembersError
        If ``members`` is not positive.
    OperatorError
        If an observation is not linear in the state.

    Warns
    -----
    NoObservationsWarning
        If no observation lies between ``start`` and ``stop``: the analyses are the prior.

    Examples
    --------
    >>> import xappa
    >>> ds = xappa.testing.weather(times=60)
    >>> model = xappa.fit_gaussian(ds, modes=6)
    >>> network = xappa.observe.random_stations(ds, 5, variable="t2m", error=0.5, seed=0)
    >>> obs = ds.appa.observe(network, seed=0)
    >>> analyses = xappa.cycle(
    ...     model, obs, start="2001-01-01", stop="2001-01-02", step="12h", members=2, seed=0
    ... )
    >>> [analysis.sizes["time"] for analysis in analyses]
    [1, 2, 2]
    """
    sampler, seed = check_sampling(method, sampler, guidance), seed_of(seed)
    if not isinstance(model, Model):
        model = open_model(model)
    gaussian = gaussian_model(model)
    times, stride = _times(gaussian, start, stop, step)
    specs = read_observations(obs, model.spec, error=error)
    numbers = member_numbers(members, Layout.of(times, model.spec))
    layout = Layout.of(times, model.spec)
    specs = with_predictors(specs, model, Window.of(layout, model))
    warn_of_guesses(times, layout, model, specs)
    settings = Settings(method, numbers, seed, sampler, guidance or Guidance())
    if not any(_count_between(spec, np.asarray(layout.times)) for spec in specs):
        warn(
            f"no observation can be used between {start} and {stop}: the analyses are the prior",
            NoObservationsWarning,
        )
    remember(model)
    facts: dict[str, Any] = {
        "start": str(start),
        "step": str(step),
        "settings": settings.describe(),
        "quality_control": None if quality_control is None else asdict(quality_control),
    }
    bar = progress_bar(progress, "cycle")
    seconds = np.asarray(layout.times)
    check_correlated(method, specs)
    raise_all(timeless_errors(specs, seconds), "the observations do not fit the trajectory")
    posteriors = filtered(gaussian, specs, seconds, stride, quality_control)
    return _cycles(gaussian, posteriors, times, stride, settings, facts, bar)


def _times(model: GaussianModel, start: Any, stop: Any, step: Any) -> tuple[xr.Dataset, int]:
    interval = timedelta_seconds(step)
    own = model.spec.time_step
    stride = 0 if own is None else round(interval / own)
    if own is None or stride < 1 or abs(stride * own - interval) > 1:
        raise TimeStepError(
            "the cycle's step is not a positive multiple of the model's time step",
            where="step=",
            expected=f"a multiple of {own or 0:g} s",
            got=f"{step}",
        )
    return model.template(start, stop), stride


def _cycles(
    model: GaussianModel,
    posteriors: Iterator[tuple[GaussianPosterior, int]],
    template: xr.Dataset,
    stride: int,
    settings: Settings,
    facts: Mapping[str, Any],
    bar: Callable[[Any], Any] | None,
) -> Iterator[xr.Dataset]:
    numbers, seed = settings.members, settings.seed
    done = 0
    ends = range(0, template.sizes["time"], stride)
    for _, (posterior, known) in zip(ends if bar is None else bar(ends), posteriors, strict=False):
        end = done + len(posterior.seconds) - known
        layout = Layout.of(template.isel(time=slice(done, end)), model.spec)
        draws = posterior.draw(settings.method, numbers, seed, settings.sampler, settings.guidance)
        states = posterior.decode(draws, numbers, range(known, len(posterior.seconds)), seed)
        dims = ("member", "time", "channel", "latitude", "longitude")
        out = unpack(xr.DataArray(states, dims=dims), layout)
        yield finish(
            out,
            layout,
            model,
            "cycle",
            model_resolved_by="argument",
            method=settings.method,
            seed=seed,
            members=len(numbers),
            observations=count(posterior.operator),
            **facts,
        )
        done = end


def filtered(
    model: GaussianModel,
    specs: Sequence[ObservationSpec],
    seconds: np.ndarray,
    stride: int,
    control: QualityControl | None = None,
) -> Iterator[tuple[GaussianPosterior, int]]:
    """Yield the posterior of each cycle, given the last states of the one before.

    Parameters
    ----------
    model
        The prior.
    specs
        Observations of the whole period.
    seconds
        Valid times of its states, shape (T,).
    stride
        States from one analysis to the next.
    control
        How the observations of a cycle are checked against the forecast from the one before.

    Yields
    ------
    posterior, known
        Of the cycle's trajectory, whose first ``known`` states belong to the cycle before.
    """
    initial: Initial | None = None
    done = 0
    for end in range(0, len(seconds), stride):
        known = 0 if initial is None else initial.mean.shape[0]
        window = seconds[done - known : end + 1]
        # Observations up to the last analysis were used by it.
        used_until = seconds[done - 1] if done else -np.inf
        fresh = [_between(spec, used_until, window[-1]) for spec in specs]
        prior = model.process.trajectory(len(window), initial)

        def given(
            specs: Sequence[ObservationSpec],
            window: np.ndarray = window,
            prior: GaussianTrajectory = prior,
        ) -> GaussianPosterior:
            operator = ObservationOperator.build(specs, model.spec, window)
            return GaussianPosterior(model, operator, window, prior, Residual(model.residual))

        posterior = given(fresh if control is None else controlled(fresh, given, control))
        check_exact(model, posterior.operator)
        yield posterior, known
        initial = _carry(posterior, min(max(1, model.process.order), len(window)))
        done = end + 1


def _count_between(spec: ObservationSpec, times: np.ndarray) -> int:
    """Count the usable observations between the first and the last of the times."""
    inside = (spec.time >= times[0] - 0.5) & (spec.time <= times[-1] + 0.5)
    return int((inside & (spec.status == Status.USED)).sum())


def _between(spec: ObservationSpec, after: float, until: float) -> ObservationSpec:
    """Set aside the observations of other cycles."""
    status = spec.status.copy()
    other = (spec.time <= after + 0.5) | (spec.time > until + 0.5)
    status[other & (status == Status.USED)] = Status.OUTSIDE_WINDOW
    return replace(spec, status=status)


def _carry(posterior: GaussianPosterior, states: int) -> Initial:
    """Return the exact distribution of the last states given all observations so far."""
    exact = posterior.exact
    last = slice(posterior.prior.length - states, posterior.prior.length)
    covariance = exact.covariance(last)
    return Initial(exact.mean[0, last], torch.linalg.inv(covariance))
