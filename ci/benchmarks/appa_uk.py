"""A small Appa on ERA5 2 m temperature over the British Isles: how its analyses saturate, and why.

Trains as `docs/tutorials/appa.md` does (1-24 March 2019), or opens what an earlier run trained. The
last state of windows that end at several times of 25-31 March is scored, by the number of observed
states; 20 stations with errors of 0.5 K see every state. The Gaussian prior sees the same.

    python ci/benchmarks/appa_uk.py --model FOLDER              # RMSE and CRPS by length of window
    python ci/benchmarks/appa_uk.py --model FOLDER --limits     # what limits them, at one length
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from markdown import markdown

import xappa
from xappa.verify import crps, rmse, spread

TRAIN, TEST = slice("2019-03-01", "2019-03-24"), slice("2019-03-25", "2019-03-31")
SIZES = xappa.AppaTraining(
    hid_channels=(16, 32, 64, 96), channels=96, blocks=3, autoencoder_steps=700, denoiser_steps=1400
)
SIGMA, STATIONS = 0.5, 20
INFLATION = 1.3  # of both priors
LENGTHS = (1, 2, 4, 8, 16, 24, 48, 72)


def data() -> xr.Dataset:
    """Return the month, with what CF wants of the height."""
    ds = xappa.tutorial.open_dataset("era5-uk").load()
    ds["t2m"].attrs["standard_name"] = "air_temperature"
    return ds.assign_coords(height=((), 2.0, {"standard_name": "height", "units": "m"}))


def trained(ds: xr.Dataset, folder: Path) -> Any:
    """Open the model in a folder, or train it and save it there."""
    if not folder.exists():
        xappa.train(ds.sel(time=TRAIN), SIZES, seed=0, name="appa-uk").save(folder)
    return xappa.open_model(folder).inflated(INFLATION)


def windows(ds: xr.Dataset, length: int, ends: int) -> Iterable[xr.Dataset]:
    """Windows of one length whose last states are spread over the test days and the hours."""
    test = ds.sel(time=TEST)
    last = np.linspace(max(LENGTHS) - 1, test.sizes["time"] - 1, ends).round().astype(int)
    return [test.isel(time=slice(end - length + 1, end + 1)) for end in last]


def scores(ds: xr.Dataset, length: int, ends: int, sigma: float, **call: Any) -> dict[str, float]:
    """Scores of the last states of windows, pooled."""
    network = xappa.observe.random_stations(ds, STATIONS, variable="t2m", error=sigma, seed=0)
    ensembles, truths = [], []
    for window in windows(ds, length, ends):
        obs = window.appa.observe(network, seed=0)
        ensemble = window.appa.assimilate(obs, seed=0, progress=False, **call)
        ensembles.append(ensemble.t2m.isel(time=-1))
        truths.append(window.t2m.isel(time=-1))
    return pooled(xr.concat(ensembles, "time"), xr.concat(truths, "time"))


def pooled(ensemble: xr.DataArray, truth: xr.DataArray) -> dict[str, float]:
    return {
        "RMSE (K)": float(rmse(ensemble, truth)),
        "CRPS (K)": float(crps(ensemble, truth)),
        "spread (K)": float(spread(ensemble)),
    }


def saturation(
    ds: xr.Dataset,
    priors: dict[str, Any],
    ends: int,
    members: int,
    lengths: Iterable[int],
    **call: Any,
) -> pd.DataFrame:
    rows = []
    for length in lengths:
        row: dict[str, Any] = {"observed states": length}
        for name, prior in priors.items():
            found = scores(ds, length, ends, SIGMA, model=prior, members=members, **call)
            row |= {f"{name}: {score}": value for score, value in found.items()}
        rows.append(row)
        print(row, flush=True)
    return pd.DataFrame(rows)


def limits(
    ds: xr.Dataset, priors: dict[str, Any], ends: int, members: int, length: int
) -> pd.DataFrame:
    learned, gaussian = priors["Appa"], priors["Gaussian"]
    states = list(windows(ds, 1, ends))
    truth = xr.concat([state.t2m for state in states], "time")
    coded = [state.appa.encode(learned).appa.decode(learned).t2m for state in states]
    lost = xr.concat(coded, "time")
    rows = [{"what": "autoencoder alone", "RMSE (K)": float(rmse(lost, truth))}]
    print(rows[-1], flush=True)
    few = {"members": members, "sampler": xappa.Sampler("multistep", 16, {"order": 3})}
    cases: dict[str, tuple[float, dict[str, Any]]] = {
        "as it is": (SIGMA, {}),
        "errors of 0.1 K": (0.1, {}),
        "1 Krylov iteration": (SIGMA, {"guidance": xappa.Guidance(iterations=1)}),
        "6 Krylov iterations": (SIGMA, {"guidance": xappa.Guidance(iterations=6)}),
        "guided on the trajectory": (SIGMA, {"guidance": xappa.Guidance(scope="trajectory")}),
    }
    for name, (sigma, call) in cases.items():
        found = scores(ds, length, ends, sigma, model=learned, **few, **call)
        rows.append({"what": name, **found})
        print(rows[-1], flush=True)
    for sigma in (SIGMA, 0.1):
        found = scores(ds, length, ends, sigma, model=gaussian, **few)
        rows.append({"what": f"Gaussian prior, errors of {sigma} K", **found})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--limits", action="store_true")
    parser.add_argument("--length", type=int, default=8)
    parser.add_argument("--ends", type=int, default=6)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--fast", action="store_true", help="16 steps, 1 Krylov iteration")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    ds = data()
    train = ds.sel(time=TRAIN)
    priors = {
        "Appa": trained(ds, arguments.model),
        "Gaussian": xappa.fit_gaussian(
            train, localisation="1100 km", inflation=INFLATION, shrinkage=0.2
        ),
    }
    if arguments.limits:
        table = limits(ds, priors, arguments.ends, arguments.members, arguments.length)
    else:
        call: dict[str, Any] = {}
        if arguments.fast:
            call = {
                "sampler": xappa.Sampler("multistep", 16, {"order": 3}),
                "guidance": xappa.Guidance(iterations=1),
            }
        table = saturation(ds, priors, arguments.ends, arguments.members, arguments.lengths, **call)
    print(markdown(table, digits=2))


if __name__ == "__main__":
    main()
