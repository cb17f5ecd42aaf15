"""`forecast`: what follows the last states of a Dataset, by the prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import Layout, pack, unpack
from xappa.cf import from_seconds, timedelta_seconds
from xappa.diffusion.noise import seed_of
from xappa.diffusion.sampling import Sampler
from xappa.errors import ArgumentError, CoordinateError, TimeStepError
from xappa.models.appa.forecast import continued
from xappa.models.appa.model import AppaModel
from xappa.models.base import Model, Prior
from xappa.models.catalogue import remember, resolve
from xappa.models.forecast import continued as gaussian_continued
from xappa.models.forecast import decoded as gaussian_decoded
from xappa.models.forecast import past_latents
from xappa.models.gaussian import GaussianModel
from xappa.models.settings import Guidance
from xappa.progress import progress_bar
from xappa.tasks.arguments import cannot, check_overlap, check_sampling, describe_settings
from xappa.tasks.encode import holds_latents, read_latents, with_units_of
from xappa.tasks.labels import finish, warn_of_guesses
from xappa.tasks.lazy import decode_lazily, is_lazy, time_chunks
from xappa.tasks.window import in_calendar, member_numbers

__all__ = ["forecast"]


def forecast(
    ds: xr.Dataset,
    model: Model | str | Path | None = None,
    *,
    lead: Any,
    members: int | None = None,
    seed: int | None = None,
    preds_per_step: int | None = None,
    sampler: Sampler | Callable[[Any], Any] | None = None,
    guidance: Guidance | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Draw an ensemble of what follows, given the last states of a Dataset.

    Parameters
    ----------
    ds
        States, or latents that `encode` returned; the last K - 1 of them, at most, are conditioned
        upon. With a realization dimension each member is continued by itself. Dask-backed data stay
        lazy.
    model
        The prior; None resolves as `xappa.models.catalogue.resolve` says.
    lead
        How far: a multiple of the model's time step (``"3D"``, a timedelta, seconds).
    members
        Size of the ensemble, by default the members of ``ds``, else 16; a multiple of the members
        of ``ds`` continues each of them several times.
    seed
        Seed; None draws one, which is recorded.
    preds_per_step
        With a learned prior: states drawn at once, given those before them; half a blanket by
        default. As many as the forecast has are drawn all at once.
    sampler, guidance, progress
        With a learned prior: as for ``assimilate``.

    Returns
    -------
    xarray.Dataset
        The variables of ``ds`` after its last time, with valid time as the time dimension, and the
        coordinates ``init_time`` (forecast_reference_time) and ``lead_time`` (forecast_period).

    Raises
    ------
    TimeStepError
        If ``lead`` is not a positive multiple of the model's time step, or the model has none.
    ArgumentError
        If ``preds_per_step`` is no positive integer.
    DataError
        If the last state is missing, or the latents are those of another model.
    NoModelError, HandshakeError, MembersError
        As for ``assimilate``.
    """
    sampler = check_sampling(None, sampler, guidance)
    model, how = resolve(model, ds)
    encoded = holds_latents(ds)
    if encoded:
        layout, last = read_latents(ds, model, "forecast")
    else:
        layout = Layout.of(ds, model.spec)
        last = None
    steps = _steps(lead, model)
    numbers = member_numbers(members, layout, multiple=True)
    if not encoded:
        warn_of_guesses(ds, layout, model)
    seed = seed_of(seed)
    if layout.times is None:
        raise CoordinateError(
            "a forecast starts at a time, and the Dataset has none",
            where="time",
            expected="a coordinate with standard_name 'time'",
            remedy="ds.assign_coords(time=...)",
        )
    bar = None if is_lazy(ds) else progress_bar(progress, "forecast")
    how_to = _How(numbers, seed, preds_per_step, sampler, guidance or Guidance(), bar)
    way = _way(model, layout.n_times, how_to)
    last = pack(ds, model.spec, layout).data if last is None else last
    chunks = time_chunks(ds, layout) if is_lazy(ds) else None
    states = _states(last, encoded, in_calendar(layout, model), model, steps, way, how_to, chunks)
    ahead = layout.times[-1] + float(model.spec.time_step or 0) * np.arange(1, steps + 1)
    later = layout.with_times(ahead)
    dims = ("member", "time", "channel", "latitude", "longitude")
    out = unpack(xr.DataArray(states, dims=dims), later)
    out = _with_lead(out, later, layout.times[-1], ahead)
    remember(model)
    out = finish(
        out,
        later,
        model,
        "forecast",
        model_resolved_by=how,
        seed=seed,
        members=len(numbers),
        lead=str(lead),
        states_before=min(way.kept, layout.n_times),
        **way.settings,
    )
    return with_units_of(ds, out) if encoded else out


def _steps(lead: Any, model: Prior) -> int:
    step = model.spec.time_step
    if step is None:
        raise TimeStepError(
            "the model has no time step, so that it cannot forecast",
            where="model.spec.time_step",
            remedy="fit the model to a regular series of states",
        )
    seconds = timedelta_seconds(lead)
    steps = round(seconds / step)
    if steps < 1 or abs(steps * step - seconds) > 1:
        raise TimeStepError(
            "the lead time is not a positive multiple of the model's time step",
            where="lead=",
            expected=f"a multiple of {step:g} s",
            got=f"{lead} ({seconds:g} s)",
            remedy=_nearest(seconds, step),
        )
    return steps


def _nearest(seconds: float, step: float) -> str:
    """Return which leads are near one that cannot be had."""
    below, above = (
        max(1, n) * step for n in (math.floor(seconds / step), math.ceil(seconds / step))
    )
    leads = [str(np.timedelta64(round(lead), "s").astype(object)) for lead in {below, above}]
    return "choose " + " or ".join(sorted(leads)) + " (h:mm:ss)"


@dataclass(frozen=True)
class _How:
    """What the user asked for."""

    members: Sequence[int]
    seed: int
    preds_per_step: int | None
    sampler: Any
    guidance: Guidance
    bar: Callable[[Any], Any] | None


@dataclass(frozen=True)
class _Way:
    """How a kind of model goes on.

    Parameters
    ----------
    kept
        States that are conditioned upon.
    encode
        Maps packed states ([member,] n, channel, latitude, longitude) and their times to latents
        (B, n, L) of all members.
    draw
        Maps latents of all members, their times and the times ahead to latents ahead.
    decode
        Maps latents and their times to packed states.
    settings
        What of the user's settings determines the numbers.
    """

    kept: int
    encode: Callable[[np.ndarray, np.ndarray], np.ndarray]
    draw: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray, np.ndarray], np.ndarray]
    settings: dict[str, Any]


def _way(model: Prior, n_times: int, how: _How) -> _Way:
    members, seed = how.members, how.seed
    if isinstance(model, GaussianModel):
        return _Way(
            max(1, min(model.process.order, n_times)),
            lambda states, seconds: past_latents(model, states, seconds, members, seed),
            lambda past, seconds, ahead: gaussian_continued(model, past, ahead, members, seed),
            lambda latents, ahead: gaussian_decoded(model, latents, ahead, members, seed),
            {},
        )
    if not isinstance(model, AppaModel):
        raise cannot(model, "forecast")
    check_overlap(how.guidance, model)
    if model.blanket < 2:
        raise ArgumentError(
            "the model knows single states, which say nothing of what follows them",
            where="model.blanket",
            expected="blankets of 2 states or more",
            got=model.blanket,
            remedy="take a model that was trained on longer blankets",
        )
    at_once = _at_once(how.preds_per_step, model)

    def encode(states: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        return _of_all(model.encode_array(states, seconds), members)

    def draw(past: np.ndarray, seconds: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        return continued(
            model,
            past,
            seconds,
            ahead,
            members,
            seed,
            at_once=at_once,
            sampler=how.sampler,
            guidance=how.guidance,
            progress=how.bar,
        )

    settings = {
        "preds_per_step": at_once,
        "settings": describe_settings(how.sampler, how.guidance),
    }
    return _Way(max(1, min(n_times, model.blanket - 1)), encode, draw, model.decode_array, settings)


def _of_all(latents: np.ndarray, members: Sequence[int]) -> np.ndarray:
    """Give each member the latents ([member,] n, L) that it goes on from: shape (B, n, L)."""
    own = latents.reshape(-1, *latents.shape[-2:])
    return own[[k % len(own) for k in range(len(members))]]


def _at_once(preds_per_step: int | None, model: Prior) -> int:
    if preds_per_step is None:
        return max(1, model.blanket // 2)
    if isinstance(preds_per_step, bool) or not isinstance(preds_per_step, (int, np.integer)):
        preds_per_step = 0
    if preds_per_step < 1:
        raise ArgumentError(
            "preds_per_step is no positive integer",
            where="preds_per_step=",
            expected="1 or more, or None for half a blanket",
            got=repr(preds_per_step),
            remedy="leave it out",
        )
    return int(preds_per_step)


def _states(
    last: Any,
    encoded: bool,
    seconds: np.ndarray,
    model: Prior,
    steps: int,
    way: _Way,
    how: _How,
    chunks: Sequence[int] | None,
) -> Any:
    """Return packed states (B, steps, channel, latitude, longitude), lazy if there are chunks.

    ``last`` are packed states ([member,] T, ...), or latents if ``encoded``, at ``seconds``.
    """
    axis = last.ndim - (2 if encoded else 4)
    last = last[(slice(None),) * axis + (slice(-way.kept, None),)]
    seconds = seconds[-way.kept :]
    ahead = seconds[-1] + float(model.spec.time_step or 0) * np.arange(1, steps + 1)

    def sample(values: np.ndarray) -> np.ndarray:
        past = _of_all(values, how.members) if encoded else way.encode(values, seconds)
        return way.draw(past, seconds, ahead)

    def decode(latents: np.ndarray, picked: slice) -> np.ndarray:
        return way.decode(latents[:, picked], ahead[picked])

    if chunks is None:
        return decode(sample(np.asarray(last)), slice(None))
    size = max(chunks)
    blocks = [min(size, steps - start) for start in range(0, steps, size)]
    token = ("forecast", model, seconds, ahead, list(how.members), how.seed, way.settings)
    shape = (len(how.members), steps, *model.spec.shape)
    return decode_lazily(sample, decode, last, token, shape, blocks)


def _with_lead(out: xr.Dataset, layout: Layout, start: float, ahead: np.ndarray) -> xr.Dataset:
    time = layout.roles.time
    init = from_seconds(np.array([start]), layout.calendar)[0]
    lead = np.round((ahead - start) * 1e9).astype("timedelta64[ns]")
    clash = [
        name
        for name, coord in out.coords.items()
        if coord.attrs.get("standard_name") in ("forecast_reference_time", "forecast_period")
        and name != time
    ]
    return out.drop_vars(clash).assign_coords(
        init_time=((), init, {"standard_name": "forecast_reference_time"}),
        lead_time=(time, lead, {"standard_name": "forecast_period"}),
    )
