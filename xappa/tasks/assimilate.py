"""`assimilate`: observations and a prior to a labelled ensemble drawn from the posterior."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import Layout, find_orography, pack, unpack
from xappa.diffusion.noise import seed_of
from xappa.diffusion.sampling import Sampler
from xappa.errors import ArgumentError, GuessWarning, NoObservationsWarning, warn
from xappa.models.base import Model, Prior
from xappa.models.catalogue import remember, resolve
from xappa.models.posterior import Draws
from xappa.models.settings import Guidance
from xappa.observe import ObservationOperator, Status, read_observations
from xappa.progress import progress_bar
from xappa.tasks.arguments import check_correlated, check_overlap, check_sampling, describe_settings
from xappa.tasks.background import describe_error, mean_state, relative_error
from xappa.tasks.departures import observation_space
from xappa.tasks.doubts import warn_of_departures
from xappa.tasks.expected import expected_equivalents, with_predictors
from xappa.tasks.labels import count, finish, warn_of_guesses
from xappa.tasks.lazy import decode_lazily, is_lazy, time_chunks
from xappa.tasks.posterior import Posterior, check_exact, posterior_given, posterior_of
from xappa.tasks.quality import QualityControl, controlled
from xappa.tasks.window import Window, member_numbers

__all__ = ["assimilate"]


@dataclass(frozen=True, eq=False)
class Settings:
    """How the posterior is drawn: what besides the data determines the numbers."""

    method: str
    members: Sequence[int]
    seed: int
    sampler: Any
    guidance: Guidance

    def describe(self) -> dict[str, Any]:
        """Return the settings in a form that JSON can hold."""
        if self.method == "exact":
            return {"square_root": self.guidance.square_root}
        return describe_settings(self.sampler, self.guidance)


def assimilate(
    ds: xr.Dataset,
    obs: Any,
    model: Model | str | Path | None = None,
    *,
    members: int | None = None,
    seed: int | None = None,
    method: str | None = None,
    error: Any = None,
    background_error: Any = None,
    background_error_scale: float | Mapping[str, float] | None = None,
    sampler: Sampler | Callable[[Any], Any] | None = None,
    guidance: Guidance | None = None,
    quality_control: QualityControl | None = None,
    departures: str | Path | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Draw an ensemble from the posterior of the state given observations.

    Parameters
    ----------
    ds
        Gives the window (its times), the grid and the labels. Its values are the background, used
        only with ``background_error`` or ``background_error_scale``; otherwise they may be NaN. A
        realization dimension makes it a background ensemble, whose mean is the background.
        Dask-backed data stay lazy.
    obs
        Observations: a DataArray, a Dataset, or a list or dict of them; their CF metadata define
        the observation operator. Observations up to one blanket before or after the window count.
    model
        The prior: a model, its name, or a bundle's path. None resolves as
        `xappa.models.catalogue.resolve` says.
    members
        Size of the ensemble; by default that of a background ensemble, else 16.
    seed
        Seed of all random numbers; None draws one. Member k is the same numbers whatever the
        number of members, the chunks or the batch.
    method
        ``"exact"`` (closed form, of a Gaussian prior and its default), or reverse diffusion guided
        by ``"mmps"`` (the default of a learned prior, and of observations that are not linear in
        the state), ``"jfps"``, ``"sda"`` or ``"dps"``.
    error
        Standard deviation of the observation errors, in the observations' units, where the
        metadata do not say it: a number, DataArray, or dict by name.
    background_error
        Standard deviation of the background's error, in the variable's units: a number (for one
        variable), DataArray, or Dataset or dict by variable. The error is correlated as the prior.
    background_error_scale
        The same in multiples of the climatological standard deviation.
    sampler
        How the reverse diffusion is integrated: a `xappa.Sampler`, or a function from an azula
        denoiser to an azula sampler. For ``"dps"``, which changes the steps themselves, only
        ``xappa.Sampler("ddpm", ...)``.
    guidance
        Further settings, a `xappa.Guidance`.
    quality_control
        A `xappa.QualityControl`, which rejects observations that do not agree with the others and
        with the prior, or weighs them down; None trusts all. With a lazy Dataset they are compared
        with the prior without its background.
    departures
        Where to write a NetCDF file of what ``ens.appa.departures(obs)`` returns: H(x), O−B, O−A,
        and what became of each observation. Not of a lazy Dataset, which is not computed here.
    progress
        Whether to show a progress bar; None follows ``xappa.set_options(progress=...)``.

    Returns
    -------
    xarray.Dataset
        The variables of ``ds`` that the model knows, with a dimension ``member`` in front (or the
        realization dimension of ``ds``, where it was); coordinates, attributes, units, dtypes and
        time encoding are those of ``ds``. Attributes say what would reproduce it.

    Raises
    ------
    ArgumentError
        If ``method``, ``sampler`` or ``guidance`` is not known, errors are correlated in a way that
        the method cannot treat, or ``departures`` cannot be written.
    MembersError
        If ``members`` is not positive or contradicts a background ensemble.
    NoModelError
        If no model was given and none could be resolved.
    HandshakeError, UnitsError, CoordinateError
        If ``ds`` does not fit the model, or its metadata cannot be understood.
    ObservationTypeError, UnknownQuantityError, UnitsError, ErrorCovarianceError
        If the observations cannot be understood. Several problems come as an ExceptionGroup.
    BackgroundError
        If a background error was given and the background is missing or incomplete.

    Warns
    -----
    DepartureWarning
        If observations are far from anything that the prior knows, as wrong units make them.
    NoObservationsWarning
        If no observation can be used: the result is the prior.
    GuessWarning
        If something was guessed from incomplete metadata.

    References
    ----------
    Rozet et al. (2024), arXiv:2405.13712; Andry et al. (2025), arXiv:2504.18720.

    Examples
    --------
    >>> import xappa
    >>> ds = xappa.testing.weather(times=60)
    >>> model = xappa.fit_gaussian(ds, modes=6)
    >>> network = xappa.observe.random_stations(ds, 5, variable="t2m", error=0.5, seed=0)
    >>> obs = ds.appa.observe(network, seed=0)
    >>> ens = ds.isel(time=slice(8)).appa.assimilate(obs, model, members=3, seed=0)
    >>> ens.t2m.dims
    ('member', 'time', 'latitude', 'longitude')
    """
    sampler, seed = check_sampling(method, sampler, guidance), seed_of(seed)
    if departures is not None and not _can_write(Path(departures)):
        raise ArgumentError(
            "departures cannot be written there",
            where="departures=",
            expected="a file in a folder that exists and may be written to",
            got=str(departures),
            remedy="name a file, and make its folder first",
        )
    if departures is not None and is_lazy(ds):
        raise ArgumentError(
            "departures of a lazy analysis cannot be written before it is computed",
            where="departures=",
            expected="a Dataset in memory",
            got="a Dataset of dask arrays",
            remedy="ens.compute(), then ens.appa.departures(obs).to_netcdf(path)",
        )
    model, how = resolve(model, ds)
    layout = Layout.of(ds, model.spec)
    numbers = member_numbers(members, layout)
    specs = read_observations(
        obs, model.spec, error=error, altitude=find_orography(ds, model.spec.grid)
    )
    warn_of_guesses(ds, layout, model, specs)
    window = Window.of(layout, model, specs)
    relative = relative_error(model, layout, background_error, background_error_scale)
    background = None if relative is None else mean_state(pack(ds, model.spec, layout))
    given = None if background is None or is_lazy(ds) else background.values
    specs = with_predictors(specs, model, window, given)
    if quality_control is not None:
        known = None if given is None else relative
        check = partial(posterior_given, model, window, given, known)
        specs = controlled(specs, check, quality_control)
    operator = ObservationOperator.build(specs, model.spec, window.operator_times)
    if not operator.n_used:
        warn(_no_observations(operator), NoObservationsWarning)
    method = _method(method, model, operator)
    settings = Settings(method, numbers, seed, sampler, guidance or Guidance())
    if method == "exact":
        check_exact(model, operator)
    if model.has_networks:
        check_overlap(settings.guidance, model)
    warn_of_departures(model, operator, window.seconds)
    if is_lazy(ds):
        chunks = time_chunks(ds, layout)
        packed = _draw_lazily(model, operator, window, background, relative, settings, chunks)
    else:
        states = None if background is None else background.values
        packed = _draw(
            model,
            operator,
            window,
            states,
            relative,
            settings,
            progress=progress_bar(progress, "assimilate") if method != "exact" else None,
        )
    dims = ("member", "time", "channel", "latitude", "longitude")
    out = unpack(xr.DataArray(packed, dims=dims), layout)
    remember(model)
    done = finish(
        out,
        layout,
        model,
        "assimilate",
        model_resolved_by=how,
        method=method,
        seed=settings.seed,
        members=len(numbers),
        settings=settings.describe(),
        observations=count(operator),
        quality_control=None if quality_control is None else asdict(quality_control),
        background_error=describe_error(background_error),
        background_error_scale=describe_error(background_error_scale),
    )
    if departures is not None:
        expected = expected_equivalents(specs, model, window) if given is None else None
        compared = observation_space(operator, done, None if given is None else ds, expected)
        compared.to_netcdf(departures)
    return done


def _can_write(path: Path) -> bool:
    return os.access(path.absolute().parent, os.W_OK) and not path.is_dir()


def _method(method: str | None, model: Prior, operator: ObservationOperator) -> str:
    """Return the method asked for, or the model's own that can treat the operator."""
    if method is not None:
        check_correlated(method, operator.specs)
        return method
    if model.default_method != "exact" or operator.is_linear:
        return model.default_method
    curved = ", ".join(b.spec.name for b in operator.blocks if not b.is_linear)
    warn(f"{curved}: not linear in the state, so that method='mmps' is taken", GuessWarning)
    return "mmps"


def _draw(
    model: Prior,
    operator: ObservationOperator,
    window: Window,
    background: np.ndarray | None,
    relative: np.ndarray | None,
    settings: Settings,
    progress: Callable[[Any], Any] | None = None,
) -> np.ndarray:
    """Draw packed states (B, T, channel, latitude, longitude) at the Dataset's times."""
    posterior = posterior_of(model, operator, window, background, relative)
    draws = posterior.draw(
        settings.method,
        settings.members,
        settings.seed,
        settings.sampler,
        settings.guidance,
        progress,
    )
    inside = range(*window.inside.indices(len(window.seconds)))
    return posterior.decode(draws, settings.members, inside, settings.seed)


def _draw_lazily(
    model: Prior,
    operator: ObservationOperator,
    window: Window,
    background: xr.DataArray | None,
    relative: np.ndarray | None,
    settings: Settings,
    chunks: Sequence[int],
) -> Any:
    """Do as `_draw` with dask: one task draws the components, one for each block decodes."""

    def sample(states: np.ndarray | None) -> tuple[Posterior, Draws]:
        posterior = posterior_of(model, operator, window, states, relative)
        return posterior, posterior.draw(
            settings.method, settings.members, settings.seed, settings.sampler, settings.guidance
        )

    def decode(drawn: tuple[Posterior, Draws], states: slice) -> np.ndarray:
        posterior, draws = drawn
        times = range(window.first + states.start, window.first + states.stop)
        return posterior.decode(draws, settings.members, times, settings.seed)

    token = (
        model,
        operator,
        window.seconds,
        relative,
        settings.describe(),
        settings.seed,
        settings.method,
        list(settings.members),
    )
    shape = (len(settings.members), window.size, *model.spec.shape)
    data = None if background is None else background.data
    return decode_lazily(sample, decode, data, token, shape, chunks)


def _no_observations(operator: ObservationOperator) -> str:
    if not operator.n_observations:
        return "there are no observations: the result is the prior"
    reasons: dict[str, int] = {}
    for by_status in operator.counts().values():
        for status, n in by_status.items():
            if n and status != Status.USED:
                reasons[status.reason] = reasons.get(status.reason, 0) + n
    listed = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
    return f"no observation can be used ({listed}): the result is the prior"
