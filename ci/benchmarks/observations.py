"""How long a million observations take, and how far regridding is from ESMF's.

python ci/benchmarks/observations.py
XAPPA_ESMF_FIXTURES=... python ci/benchmarks/observations.py --esmf
"""

from __future__ import annotations

import argparse
import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from markdown import markdown

from xappa.bridge import StateSpec, VariableSpec
from xappa.grid import Grid
from xappa.observe import ObservationOperator, read_observations
from xappa.regrid import Places, Regridder

N, CHANNELS = 1_000_000, 71
GRID = Grid(np.linspace(90, -90, 721), np.arange(0, 360, 0.25))
EPOCH = np.datetime64("2020-01-01", "ns")


def state(channels: int) -> StateSpec:
    variables = (VariableSpec(f"c{k}", f"quantity_{k}", None, "K", None) for k in range(channels))
    return StateSpec(tuple(variables), GRID, 3600.0, "proleptic_gregorian")


def places(rng: np.random.Generator, n: int) -> dict[str, Any]:
    return {
        "latitude": ("obs", np.degrees(np.arcsin(rng.uniform(-1, 1, n)))),
        "longitude": ("obs", rng.uniform(0, 360, n)),
    }


def array(rng: np.random.Generator, n: int, name: str, hours: float) -> xr.DataArray:
    time = EPOCH + (rng.uniform(0, 3600 * hours, n) * 1e9).astype("timedelta64[ns]")
    coords = {**places(rng, n), "time": ("obs", time)}
    attrs = {"units": "K", "error_std": 1.0}
    return xr.DataArray(rng.normal(280, 5, n), coords, "obs", name, attrs)


def timed(function: Callable[[], Any], runs: int = 1) -> tuple[Any, float]:
    best = np.inf
    for _ in range(runs):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return result, best


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def build(obs: Any, spec: StateSpec, times: int) -> ObservationOperator:
    seconds = float(EPOCH.astype("datetime64[s]").astype(int)) + 3600.0 * np.arange(times)
    return ObservationOperator.build(read_observations(obs, spec), spec, seconds)


def forward_and_adjoint(function: Callable[[Any], Any], x: Any) -> tuple[float, float]:
    y, there = timed(lambda: function(x), 3)
    weights = torch.ones_like(y)
    _, back = timed(lambda: torch.autograd.grad(y, x, weights, retain_graph=True), 3)
    return there, back


def speeds() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    obs = array(rng, N, "c0", 5.0)
    operator, seconds = timed(lambda: build(obs, state(1), 6))
    rows.append(["build, 1e6 points in space and time", seconds, peak()])
    parts = [array(rng, N // CHANNELS, f"c{k}", 0.0) for k in range(CHANNELS)]
    operator, seconds = timed(lambda: build(parts, state(CHANNELS), 1))
    rows.append([f"build, the same number in {CHANNELS} arrays", seconds, peak()])
    x = torch.randn(1, CHANNELS, *GRID.shape, requires_grad=True)
    there, back = forward_and_adjoint(operator.apply, x)
    rows.append(["apply to a state of 71 channels", there, peak()])
    rows.append(["its adjoint", back, peak()])
    where = places(rng, N)
    at = Places(where["latitude"][1], where["longitude"][1])
    regridder, seconds = timed(lambda: Regridder.build(GRID, at))
    rows.append(["weights, 1e6 places", seconds, peak()])
    there, back = forward_and_adjoint(regridder.operator(), x[0])
    rows.append(["all 71 channels at each of 1e6 places", there, peak()])
    rows.append(["its adjoint", back, peak()])
    return pd.DataFrame(rows, columns=["what", "s", "peak GiB so far"]).set_index("what")


def esmf() -> pd.DataFrame:
    folder = Path(os.environ.get("XAPPA_ESMF_FIXTURES", "../shared/fixtures/esmf"))
    rows = {}
    for path in sorted(folder.glob("*__*.nc")):
        ds = xr.open_dataset(path)
        field, theirs = ds.source_field.values, ds.regridded.values
        scale = np.ptp(field)
        method = path.stem.partition("__")[2]
        read = Regridder.open(path)
        exact = np.nanmax(np.abs((read.weights @ field.ravel()).reshape(theirs.shape) - theirs))
        built = np.nan
        if method in ("bilinear", "conservative") and (
            method == "bilinear" or isinstance(read.target, Grid)
        ):
            own = Regridder.build(read.source, read.target, method)
            mine = (own.weights @ field.ravel()).reshape(theirs.shape)
            both = np.isfinite(theirs) & (own.coverage > 0.999)
            built = np.abs(mine - theirs)[both].max() / scale
        rows[path.stem] = [exact / scale, built]
    columns = ["its weights, read", "weights of our own"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("file")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--esmf", action="store_true")
    warnings.simplefilter("ignore")
    if parser.parse_args().esmf:
        print(_scientific(esmf()))
    else:
        print(markdown(speeds(), digits=2))


def _scientific(frame: pd.DataFrame) -> str:
    return markdown(frame.map(lambda value: "–" if np.isnan(value) else f"{value:.1e}"))


if __name__ == "__main__":
    main()
