"""The nature run: years of SPEEDY's weather on pressure levels, in one Zarr store.

Twin experiments take it as the truth, and train on years that they are not judged by. The run can
be killed at any time: the same command goes on from the last checkpoint, to the same numbers.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xappa.errors import ArgumentError, DataError
from xappa.osse.labels import INTERVAL, on_pressure, on_sigma
from xappa.osse.speedy import Speedy, SpeedyState
from xappa.osse.store import append, cut, load, save, seal
from xappa.progress import progress_bar

__all__ = ["LEVELS", "NATIVE", "nature_run"]

#: hPa
LEVELS = (100.0, 250.0, 500.0, 700.0, 850.0, 925.0)
#: Group of the store that holds states on the model's own levels.
NATIVE = "native"
# hPa: the highest model level lies at a fortieth of the surface pressure
_HIGHEST, _LOWEST = 30.0, 1100.0
_STEP = np.timedelta64(INTERVAL, "h")


@dataclass(frozen=True)
class _Plan:
    """What a run computes; checked, in plain numbers. All of it but `stop` is kept on resuming."""

    start: str
    stop: str
    spin_up: int
    seed: int
    levels: tuple[float, ...]
    native: int
    segment: int
    chunk: int

    @property
    def fixed(self) -> dict[str, Any]:
        """The settings, as JSON returns them, without the end."""
        settings = json.loads(json.dumps(asdict(self)))
        del settings["stop"]
        return dict(settings)


def nature_run(
    path: str | Path,
    *,
    years: int | None = None,
    stop: Any = None,
    start: Any = "2001-01-01",
    spin_up: Any = "90D",
    seed: int = 0,
    levels: Sequence[float] = LEVELS,
    native: Any = None,
    segment: Any = "30D",
    progress: bool | None = None,
) -> xr.Dataset:
    """Run SPEEDY, and write its states every 6 hours.

    The store grows by a segment at a time, together with a checkpoint beside it
    (``<path>.checkpoint``). Where both exist, the run goes on; with a later end, it is extended.

    Parameters
    ----------
    path
        Zarr store to write.
    years
        How many years to write, from `start`; this or `stop`.
    stop
        First time that is not written.
    start
        First time that is written.
    spin_up
        Time from rest to `start`, which is not written: at least 6 hours, better three months.
    seed
        Of the perturbation of the state of rest.
    levels
        Pressures in hPa, from 30 to 1100; (L,).
    native
        Interval at which states on the model's own levels are written too, into the group
        ``native`` of the store, such as ``"1D"``; None for never.
    segment
        Time between checkpoints. It changes no number.
    progress
        Whether to show a bar; None follows the option.

    Returns
    -------
    Dataset
        The store, opened: ``u``, ``v``, ``t``, ``q``, ``z`` (time, level, latitude, longitude);
        ``sp``, ``msl``, ``pr`` (time, latitude, longitude); ``orog``, ``lsm`` (latitude,
        longitude).

    Raises
    ------
    ArgumentError
        If an argument is out of range, or the end lies before the start.
    DataError
        If there is a store without a checkpoint at `path`, the checkpoint is of other settings,
        or the model's state is not finite any more.
    MissingDependencyError
        If ``jcm`` is not installed; the extra ``osse`` brings it.
    """
    path = Path(path)
    plan = _plan(years, stop, start, spin_up, seed, levels, native, segment)
    checkpoint = path.with_name(path.name + ".checkpoint")
    if path.exists() and not checkpoint.is_file():
        raise DataError(
            "there is something else already",
            where=str(path),
            expected="nothing, or a nature run with its checkpoint beside it",
            remedy=f"choose another path, or restore {checkpoint.name}",
        )
    model = Speedy()
    if checkpoint.is_file():
        state, written = load(checkpoint, model, plan.fixed | {"source": model.source})
        cut(path, {None: written[0], NATIVE: written[1]})
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        origin = np.datetime64(plan.start, "s") - np.timedelta64(plan.spin_up, "h")
        state, written = model.initial(plan.seed, origin), [0, 0]
    _run(path, checkpoint, model, plan, state, written, progress)
    opened: xr.Dataset = xr.open_zarr(path)
    return opened


def _run(
    path: Path,
    checkpoint: Path,
    model: Speedy,
    plan: _Plan,
    state: SpeedyState,
    written: list[int],
    progress: bool | None,
) -> None:
    """Step from segment to segment until the end."""
    start, stop = np.datetime64(plan.start, "s"), np.datetime64(plan.stop, "s")
    bar = progress_bar(progress, "nature run")
    segments = range(_segments(state.time, start, stop, plan.segment))
    for _ in segments if bar is None else bar(segments):
        spinning = state.time < start
        remaining = int(((start if spinning else stop) - state.time) / _STEP)
        fields: list[dict[str, Any]] = []
        times: list[np.datetime64] = []
        for _ in range(min(remaining, plan.segment // INTERVAL)):
            if not spinning:
                fields.append(model.fields(state))
                times.append(state.time)
            state = model.step(state)
        _check(model, state)
        if fields:
            written = _write(path, model, plan, fields, times, written)
        save(checkpoint, state, plan.fixed | {"source": model.source}, written)


def _segments(now: np.datetime64, start: np.datetime64, stop: np.datetime64, hours: int) -> int:
    """Return how many segments remain; one ends where the spin-up does."""
    spin = max(start - now, np.timedelta64(0, "s"))
    rest = max(stop - max(now, start), np.timedelta64(0, "s"))
    length = np.timedelta64(hours, "h")
    return sum(-int(-part // length) for part in (spin, rest))


def _write(
    path: Path,
    model: Speedy,
    plan: _Plan,
    fields: list[dict[str, Any]],
    times: list[np.datetime64],
    written: list[int],
) -> list[int]:
    """Write the states of a segment; return how many times the groups hold then."""
    stacked = {name: np.stack([each[name] for each in fields]) for name in fields[0]}
    ds = on_pressure(stacked, times, model.geometry, plan.levels).assign_attrs(_about(model, plan))
    append(path, ds, group=None, chunk=plan.chunk, since=plan.start)
    start = np.datetime64(plan.start, "s")
    kept = [
        k
        for k, time in enumerate(times)
        if plan.native and not (time - start) % np.timedelta64(plan.native, "h")
    ]
    if kept:
        some = {name: values[kept] for name, values in stacked.items()}
        ds = on_sigma(some, np.asarray(times)[kept], model.geometry)
        ds = ds.assign_attrs(_about(model, plan))
        append(path, ds, group=NATIVE, chunk=plan.chunk, since=plan.start)
    seal(path, [None, NATIVE])
    return [written[0] + len(times), written[1] + len(kept)]


def _about(model: Speedy, plan: _Plan) -> dict[str, str]:
    """Return the global attributes."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "Conventions": "CF-1.11",
        "title": "nature run of SPEEDY",
        "source": model.source,
        "references": "https://doi.org/10.1007/s00382-002-0268-2",
        "comment": "boundary conditions are a climatology, and the sun is that of the daily mean:"
        " years differ by chance alone, and hours of the day not at all",
        "seed": str(plan.seed),
        "settings": json.dumps(plan.fixed | {"time_step": model.time_step}, sort_keys=True),
        "history": f"{now} xappa {version('xappa')}: nature_run",
    }


def _check(model: Speedy, state: SpeedyState) -> None:
    bad = [name for name, values in model.fields(state).items() if not np.all(np.isfinite(values))]
    if bad:
        raise DataError(
            "the model's state is not finite any more",
            where=str(state.time),
            got=f"NaN in {', '.join(bad)}",
            remedy="start again with another seed",
        )


def _plan(
    years: int | None,
    stop: Any,
    start: Any,
    spin_up: Any,
    seed: int,
    levels: Sequence[float],
    native: Any,
    segment: Any,
) -> _Plan:
    """Return the arguments, checked."""
    if (years is None) == (stop is None):
        raise ArgumentError("how long to run?", where="years, stop", expected="one of the two")
    first = _time("start", start)
    last = first + pd.DateOffset(years=years) if stop is None else _time("stop", stop)
    if last <= first or (last - first) % pd.Timedelta(hours=INTERVAL):
        raise ArgumentError(
            "the end of the run does not fit its start",
            where="years" if stop is None else "stop",
            expected=f"a multiple of {INTERVAL} hours after {first}",
            got=str(last),
        )
    pressures = tuple(float(level) for level in levels)
    if not pressures or not all(_HIGHEST <= level <= _LOWEST for level in pressures):
        raise ArgumentError(
            "the model has no air there",
            where="levels",
            expected=f"pressures from {_HIGHEST:g} to {_LOWEST:g} hPa",
            got=list(pressures),
        )
    hours = _hours("segment", segment)
    return _Plan(
        start=first.isoformat(),
        stop=last.isoformat(),
        spin_up=_hours("spin_up", spin_up),
        seed=int(seed),
        levels=pressures,
        native=0 if native is None else _hours("native", native),
        segment=hours,
        # a third of a segment, if that is a whole number of times
        chunk=hours // INTERVAL // 3 if not hours // INTERVAL % 3 else hours // INTERVAL,
    )


def _time(name: str, value: Any) -> pd.Timestamp:
    try:
        time = pd.Timestamp(value)
    except (TypeError, ValueError) as error:
        raise ArgumentError("no time", where=name, expected="a date", got=value) from error
    if time is pd.NaT or time.tzinfo is not None or time != time.floor("s"):
        raise ArgumentError(
            "no time of the model", where=name, expected="whole seconds, no time zone", got=value
        )
    return time


def _hours(name: str, value: Any) -> int:
    try:
        delta = pd.Timedelta(value)
    except (TypeError, ValueError) as error:
        raise ArgumentError("no time span", where=name, expected="such as '30D'", got=value) from (
            error
        )
    hours, rest = divmod(delta, pd.Timedelta(hours=1))
    if rest or hours <= 0 or hours % INTERVAL:
        raise ArgumentError(
            "the model's states are not kept at such times",
            where=name,
            expected=f"a positive multiple of {INTERVAL} hours",
            got=value,
        )
    return int(hours)
