"""`cycle`: sequential filtering, one analysis after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import Layout, unpack
from xappa.cf import timedelta_seconds
from xappa.diffusion.noise import seed_of
from xappa.errors import (
    ArgumentError,
    MembersError,
    NoObservationsWarning,
    TimeStepError,
    raise_all,
    warn,
)
from xappa.models.base import Model, Prior
from xappa.models.catalogue import prior_of, remember
from xappa.models.settings import Guidance
from xappa.observe import ObservationOperator, ObservationSpec, Status, read_observations
from xappa.observe.checks import timeless_errors
from xappa.progress import progress_bar
from xappa.tasks.arguments import check_correlated, check_overlap, check_sampling
from xappa.tasks.assimilate import Settings
from xappa.tasks.carry import Carry, carry_of
from xappa.tasks.expected import with_predictors
from xappa.tasks.labels import count, finish, warn_of_guesses
from xappa.tasks.posterior import Posterior, check_exact
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
    method: str | None = None,
    error: Any = None,
    sampler: Any = None,
    guidance: Guidance | None = None,
    quality_control: QualityControl | None = None,
    inflation: float = 1.0,
    progress: bool | None = None,
) -> Iterator[xr.Dataset]:
    """Assimilate observations sequentially, yielding one analysis for each step.

    Each analysis is drawn from the distribution of the states in (time - step, time] given all
    observations from ``start`` up to that time.

    With a Gaussian prior, what is carried from one cycle to the next is the exact distribution of
    the last states' components, so that nothing is lost by cycling: the last state of a cycle is
    that of an analysis of the whole period. (Only the residual that the EOFs leave is not carried:
    an observation between two analyses takes its error for new.)

    With a learned prior, a cycle sees the observations of a whole blanket, and of those before it
    what the ensemble of the cycle that ended there says of one state: a mean and variances, see
    `xappa.models.appa.carry`.

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
        As for ``assimilate``; the bar counts the cycles. A learned prior needs two members or more.
    quality_control
        As for ``assimilate``; with a Gaussian prior the background of a cycle is the forecast from
        the one before. Biases of platforms are estimated in each cycle anew.
    inflation
        With a learned prior: factor of the standard deviation of what is carried.

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
        If ``members`` is not positive, or one with a learned prior.
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
    model = prior_of(model)
    times, stride = _times(model, start, stop, step)
    layout = Layout.of(times, model.spec)
    seconds = np.asarray(layout.times)
    carry = carry_of(model, seconds, _positive(inflation))
    specs = read_observations(obs, model.spec, error=error)
    numbers = member_numbers(members, layout)
    specs = with_predictors(specs, model, Window.of(layout, model))
    warn_of_guesses(times, layout, model, specs)
    method = method or model.default_method
    settings = Settings(method, numbers, seed, sampler, guidance or Guidance())
    _check_prior(model, settings)
    if not any(_count_between(spec, seconds) for spec in specs):
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
    if model.has_networks:
        facts["inflation"] = inflation
    bar = progress_bar(progress, "cycle")
    check_correlated(method, specs)
    raise_all(timeless_errors(specs, seconds), "the observations do not fit the trajectory")
    cycles = _Cycles(model, carry, specs, seconds, stride, settings, quality_control)
    return _labelled(cycles, times, facts, bar)


def _times(model: Prior, start: Any, stop: Any, step: Any) -> tuple[xr.Dataset, int]:
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


def _positive(inflation: Any) -> float:
    if isinstance(inflation, (bool, str)) or not np.isreal(inflation) or not 0 < inflation < np.inf:
        raise ArgumentError(
            "the inflation is no positive number",
            where="inflation=",
            expected="a number such as 1.1",
            got=repr(inflation),
        )
    return float(inflation)


def _check_prior(model: Prior, settings: Settings) -> None:
    """Check what a kind of prior asks of the settings."""
    if not model.has_networks:
        return
    check_overlap(settings.guidance, model)
    if settings.method == "exact":
        check_exact(model, ObservationOperator.build([], model.spec, None))
    if len(settings.members) < 2:
        raise MembersError(
            "one member does not tell what its error is",
            where="members=",
            expected="2 or more with a learned prior; 10 or more are better",
            got=len(settings.members),
        )


@dataclass(frozen=True, eq=False)
class _Cycles:
    """What is to be cycled."""

    model: Prior
    carry: Carry
    specs: Sequence[ObservationSpec]
    seconds: np.ndarray
    stride: int
    settings: Settings
    control: QualityControl | None = None

    @property
    def ends(self) -> range:
        """The last state of each cycle."""
        return range(0, len(self.seconds), self.stride)

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray, ObservationOperator]]:
        """Yield the states of each cycle that are new, and packed analyses of them."""
        done, settings = 0, self.settings
        for end in self.ends:
            posterior, first = self.posterior(end)
            draws = posterior.draw(
                settings.method,
                settings.members,
                settings.seed,
                settings.sampler,
                settings.guidance,
                purpose=f"cycle {end}" if self.model.has_networks else "sampler",
            )
            new = range(done - first, end + 1 - first)
            states = posterior.decode(draws, settings.members, new, settings.seed)
            yield slice(done, end + 1), states, posterior.operator
            self.carry.keep(draws, end)
            done = end + 1

    def posterior(self, end: int) -> tuple[Posterior, int]:
        """Return the posterior of the cycle that ends with a state, and its first state."""
        first, seen = self.carry.begin(end)
        window = slice(first, end + 1)
        # Observations up to the state that is known were used by what is known of it.
        used_until = self.seconds[seen] if seen >= 0 else -np.inf
        fresh = [_between(spec, used_until, self.seconds[end]) for spec in self.specs]

        def given(specs: Sequence[ObservationSpec]) -> Posterior:
            return self.carry.posterior(specs, window)

        posterior = given(fresh if self.control is None else controlled(fresh, given, self.control))
        if not self.model.has_networks:
            check_exact(self.model, posterior.operator)
        return posterior, first


def _labelled(
    cycles: _Cycles,
    template: xr.Dataset,
    facts: Mapping[str, Any],
    bar: Callable[[Any], Any] | None,
) -> Iterator[xr.Dataset]:
    model, settings = cycles.model, cycles.settings
    ends = cycles.ends
    for _, (new, states, operator) in zip(ends if bar is None else bar(ends), cycles, strict=True):
        layout = Layout.of(template.isel(time=new), model.spec)
        dims = ("member", "time", "channel", "latitude", "longitude")
        out = unpack(xr.DataArray(states, dims=dims), layout)
        yield finish(
            out,
            layout,
            model,
            "cycle",
            model_resolved_by="argument",
            method=settings.method,
            seed=settings.seed,
            members=len(settings.members),
            observations=count(operator),
            **facts,
        )


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
