"""Cycles of the filter and the smoother with the perfect model."""

from __future__ import annotations

import time as clock
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import xarray as xr
from letkf import Local, Observed, Tapers, apply, relax, transform
from networks import select
from perfect import Ensemble, Perfect
from twin import Experiment

import xappa  # noqa: F401

__all__ = ["Cycle", "cycles", "initial", "observed"]


@dataclass
class Cycle:
    """What a cycle yields.

    Parameters
    ----------
    time
        Valid time of the analysis.
    background, analysis
        The ensemble before and after the observations.
    smoothed
        The analysis of `lag` cycles before, given the observations since; None at first.
    seconds
        What took how long.
    """

    time: pd.Timestamp
    background: Ensemble
    analysis: Ensemble
    smoothed: Ensemble | None
    seconds: dict[str, float] = field(default_factory=dict)


def initial(perfect: Perfect, nature: str, experiment: Experiment) -> Ensemble:
    """Return members that are states of the training years around the first date."""
    states = xr.open_zarr(nature, group="native")
    start = experiment.times[0]
    years = range(int(experiment.train[0]), int(experiment.train[1]) + 1)
    dates = [
        start.replace(year=year) + pd.Timedelta(days=shift) for shift in (0, 5) for year in years
    ]
    some = states.sel(time=dates[: experiment.members]).load()
    return perfect.start(some.rename(time="member"), start)


def observed(members: xr.Dataset, obs: Sequence[xr.Dataset]) -> Observed:
    """Compare observations with members (member, time, ...) by xappa's own operator."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("y", "hx", "r", "lat", "lon", "s")}
    ground = members.sp.mean("member").isel(time=0)
    equivalents = members.appa.operator(list(obs))(members)
    for network, parts in zip(obs, equivalents, strict=True):
        sites = {name: network[name].variable for name in ("latitude", "longitude")}
        below = ground.sel(sites, method="nearest").drop_vars([*sites, "time"])
        for name in (name for name in network.data_vars if not name.endswith("_error_std")):
            values = network[name]
            used = values.notnull().values

            def flat(da: xr.DataArray, like: xr.DataArray = values, used: np.ndarray = used):
                return da.broadcast_like(like).transpose(*like.dims).values[used]

            hx = parts[name].transpose("member", *values.dims).values[:, used]
            sigma = (
                network.air_pressure / below if "air_pressure" in values.dims else 1 + 0 * values
            )
            found["y"].append(values.values[used])
            found["hx"].append(hx.astype(np.float64))
            found["r"].append(flat(network[f"{name}_error_std"]))
            found["lat"].append(flat(network.latitude))
            found["lon"].append(flat(network.longitude))
            found["s"].append(np.minimum(flat(sigma), 1.0))
    hx, r = np.concatenate(found["hx"], axis=1), np.concatenate(found["r"])
    mean = hx.mean(0)
    return Observed(
        (np.concatenate(found["y"]) - mean) / r,
        (hx - mean) / r,
        *(np.concatenate(found[name]) for name in ("lat", "lon", "s")),
    )


def cycles(
    perfect: Perfect,
    start: Ensemble,
    obs: Sequence[xr.Dataset],
    times: pd.DatetimeIndex,
    experiment: Experiment,
    local: Local,
    *,
    smooth: bool = True,
) -> Iterator[Cycle]:
    """Assimilate and forecast in turn.

    Parameters
    ----------
    perfect, start
        The model, and its ensemble at the first time.
    obs
        Observations of the whole period; none for a free run.
    times
        Of the analyses, every six hours.
    experiment, local
        Settings.
    smooth
        Whether to run the smoother too.
    """
    geometry = perfect.geometry
    tapers = Tapers(geometry.latitude, geometry.longitude, geometry.sigma, local)
    behind: deque[Ensemble] = deque(maxlen=experiment.lag + 1)
    background = start
    for time in times:
        seconds, began = {}, clock.perf_counter()
        given = select(list(obs), time, time)
        analysis = background
        if given:
            members = perfect.on_pressure(background, experiment.levels)
            near = observed(members, given)
            seconds["operator"], began = clock.perf_counter() - began, clock.perf_counter()
            weights = transform(near, tapers)
            exact = apply(weights, background.fields)
            relaxed = relax(exact, background.fields, local.relaxation)
            analysis = replace(background, fields=relaxed)
            seconds["analysis"], began = clock.perf_counter() - began, clock.perf_counter()
            if smooth:
                for k, earlier in enumerate(behind):
                    behind[k] = replace(earlier, fields=apply(weights, earlier.fields))
        behind.append(analysis)
        full = smooth and len(behind) == behind.maxlen
        seconds["smoother"], began = clock.perf_counter() - began, clock.perf_counter()
        yield Cycle(time, background, analysis, behind[0] if full else None, seconds)
        began = clock.perf_counter()
        background = perfect.forecast(analysis)
        seconds["model"] = clock.perf_counter() - began
