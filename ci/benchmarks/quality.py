"""What corrupted observations cost on ERA5-UK, and how much of it is recovered.

20 stations with errors of 0.5 K on 25-31 March 2019, corrupted by instrument biases (1 K), errors
that correlate in time (0.7 K, 6 h) and 5 % gross outliers of 8 to 20 K. RMSE of the exact analysis
of the week, of the clean observations, of the corrupted ones as they are, and with what is known
told. The week is one window, so that biases are estimated from all of it.

    python ci/benchmarks/quality.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from era5_uk import data
from markdown import markdown

import xappa

SIGMA, BIAS, CORRELATED, HOURS, GROSS = 0.5, 1.0, 0.7, 6.0, 0.05


def corrupted(obs: xr.DataArray, seed: int) -> xr.DataArray:
    """Add biases, correlated errors and outliers to observations (time, station)."""
    rng = np.random.default_rng(seed)
    times, stations = obs.sizes["time"], obs.sizes["station"]
    bias = BIAS * rng.standard_normal(stations)
    rho = np.exp(-1 / HOURS)
    series = np.empty((times, stations))
    series[0] = rng.standard_normal(stations)
    for t in range(1, times):
        series[t] = rho * series[t - 1] + np.sqrt(1 - rho**2) * rng.standard_normal(stations)
    gross = rng.choice([-1, 1], series.shape) * rng.uniform(8, 20, series.shape)
    gross *= rng.uniform(size=series.shape) < GROSS
    return (obs + bias + CORRELATED * series + gross).transpose(*obs.dims).assign_attrs(obs.attrs)


def rmse(test: xr.Dataset, obs: xr.DataArray, model: Any, **call: Any) -> float:
    analysis = test.appa.assimilate(obs, model, members=32, seed=0, **call)
    return float(xappa.verify.rmse(analysis.t2m, test.t2m))


def table(seeds: int) -> pd.DataFrame:
    train, test = data()
    # The prior of the tutorial. The one that cross-validation chooses (a shrinkage of 0.8) forgets
    # within hours, and takes the persistent weather of a week for a bias.
    model = xappa.fit_gaussian(train, localisation="1100 km", inflation=1.3, shrinkage=0.2)
    control = xappa.QualityControl
    known = {
        "bias_error_std": BIAS,
        "correlated_error_std": CORRELATED,
        "error_correlation_time": f"{HOURS:g}h",
    }
    rows: dict[str, list[float]] = {}
    for seed in range(seeds):
        network = xappa.observe.random_stations(test, 20, variable="t2m", error=SIGMA, seed=seed)
        clean = test.appa.observe(network, seed=seed)
        clean = clean.drop_vars("error_std").assign_attrs(error_std=SIGMA)
        bad = corrupted(clean, seed)
        told = bad.assign_attrs(known)
        cases = {
            "clean": (clean, {}),
            "corrupted, as it is": (bad, {}),
            "quality control": (bad, {"quality_control": control()}),
            "bias and correlation told": (told, {}),
            "told, quality control": (told, {"quality_control": control()}),
            "told, quality control, Huber": (
                told,
                {"quality_control": control(likelihood="huber", huber=2.5)},
            ),
            "told, quality control, Student-t": (
                told,
                {"quality_control": control(likelihood="student-t", freedom=8.0)},
            ),
        }
        for name, (obs, call) in cases.items():
            rows.setdefault(name, []).append(rmse(test, obs, model, **call))
            print(seed, name, round(rows[name][-1], 3), flush=True)
    frame = pd.DataFrame({"RMSE (K)": {name: float(np.mean(v)) for name, v in rows.items()}})
    clean, plain = frame["RMSE (K)"].iloc[:2]
    frame["recovered (%)"] = 100 * (plain - frame["RMSE (K)"]) / (plain - clean)
    frame.index.name = "observations"
    return frame


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    warnings.simplefilter("ignore")
    print(markdown(table(parser.parse_args().seeds), digits=2))


if __name__ == "__main__":
    main()
