"""ERA5 2 m temperature over the British Isles: xappa against the usual references.

Trains on 1-24 March 2019, tests on 25-31 March: 20 random stations, σ = 0.5 K, several networks.

    python ci/benchmarks/era5_uk.py            # the table of scores
    python ci/benchmarks/era5_uk.py --gaps     # distance of each method from the exact posterior

The references are written here in plain NumPy, without anything of xappa but its bilinear weights.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from markdown import markdown
from scipy.interpolate import RBFInterpolator

import xappa
from xappa.bridge import describe

SIGMA = 0.5
STATIONS, HELD_OUT = 20, 10
MEMBERS = 64
#: Reverse diffusion is paid by the member; so few of them blur the mean by 3 %.
MEMBERS_MMPS = 16
TRAIN, TEST = slice("2019-03-01", "2019-03-24"), slice("2019-03-25", "2019-03-31")


def data() -> tuple[xr.Dataset, xr.Dataset]:
    ds = xappa.tutorial.open_dataset("era5-uk").load()
    return ds.sel(time=TRAIN), ds.sel(time=TEST)


def fit(train: xr.Dataset, blanket: int) -> Any:
    auto = {"localisation": "auto", "inflation": "auto", "shrinkage": "auto"}
    return xappa.fit_gaussian(train, blanket=blanket, **auto)


class Reference:
    """Hourly climatology, and what can be made of it without a model of time."""

    def __init__(self, train: xr.Dataset, test: xr.Dataset) -> None:
        spec, _ = describe(test)
        self.grid = spec.grid
        x = train.t2m.values.reshape(len(train.time), -1).astype(float)
        hour = train.time.dt.hour.values
        self.hourly = np.stack([x[hour == h].mean(0) for h in range(24)])
        self.clim = self.hourly[test.time.dt.hour.values]
        self.anomalies = x - self.hourly[hour]
        self.covariance = self.anomalies.T @ self.anomalies / (len(x) - 24)
        self.like = test.t2m
        lat, lon = np.meshgrid(self.grid.latitude, self.grid.longitude, indexing="ij")
        self.points = _plane(lat.ravel(), lon.ravel())

    def weights(self, obs: xr.DataArray) -> np.ndarray:
        index, weight, _ = self.grid.interpolate(obs.latitude.values, obs.longitude.values)
        h = np.zeros((obs.sizes["station"], self.grid.size))
        np.add.at(h, (np.arange(len(h))[:, None], index), weight)
        return h

    def label(self, x: np.ndarray) -> xr.DataArray:
        """Label fields of shape ([member,] time, point)."""
        x = x.reshape(*x.shape[:-1], *self.grid.shape)
        if x.ndim == 4:
            return self.like.expand_dims(member=np.arange(len(x))).copy(data=x)
        return self.like.copy(data=x)

    def climatology(self, obs: xr.DataArray) -> xr.DataArray:
        draws = np.linalg.cholesky(self.covariance + 1e-8 * np.eye(self.grid.size))
        white = np.random.default_rng(0).standard_normal((MEMBERS, len(self.clim), len(draws)))
        return self.label(self.clim + white @ draws.T)

    def rbf(self, obs: xr.DataArray) -> xr.DataArray:
        h = self.weights(obs)
        where = _plane(obs.latitude.values, obs.longitude.values)
        departures = obs.values - self.clim @ h.T
        fields = [
            RBFInterpolator(where, d, kernel="linear", smoothing=1.0)(self.points)
            for d in departures
        ]
        return self.label(self.clim + np.stack(fields))

    def oi(self, obs: xr.DataArray) -> xr.DataArray:
        """Optimal interpolation of each hour by itself, sampled from its own posterior."""
        h = self.weights(obs)
        bh = self.covariance @ h.T
        s = h @ bh + SIGMA**2 * np.eye(len(h))
        gain = np.linalg.solve(s, bh.T).T
        mean = self.clim + (obs.values - self.clim @ h.T) @ gain.T
        posterior = self.covariance - gain @ bh.T
        root = np.linalg.cholesky((posterior + posterior.T) / 2 + 1e-6 * np.eye(len(posterior)))
        white = np.random.default_rng(1).standard_normal((MEMBERS, len(mean), len(root)))
        white -= white.mean(axis=0)  # so that the ensemble mean is the analysis itself
        return self.label(mean + white @ root.T)


def _plane(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    return np.stack([latitude, longitude * np.cos(np.radians(54.0))], axis=1)


def days(test: xr.Dataset) -> Iterator[xr.Dataset]:
    for _, day in test.groupby("time.date"):
        yield day


def xappa_method(model: Any, test: xr.Dataset, **settings: Any) -> Callable[..., xr.DataArray]:
    settings = {"members": MEMBERS, "seed": 0, **settings}

    def run(obs: xr.DataArray) -> xr.DataArray:
        parts = [day.appa.assimilate(obs, model, **settings).t2m for day in days(test)]
        return xr.concat(parts, "time", join="exact")

    return run


def scores(field: xr.DataArray, test: xr.Dataset, held_out: Any) -> dict[str, float]:
    truth = test.t2m
    ensemble = "member" in field.dims
    row = {
        "RMSE": float(xappa.verify.rmse(field, truth)),
        "CRPS": float(xappa.verify.crps(field, truth)),
        "spread-skill": float(xappa.verify.spread_skill(field, truth)) if ensemble else np.nan,
    }
    row["CRPS held-out"] = float(
        xappa.verify.crps(held_out(field.to_dataset()), held_out(test), weights=None)
    )
    return row


def table(networks: int, only: list[str] | None, blanket: int) -> pd.DataFrame:
    train, test = data()
    start = time.perf_counter()
    model = fit(train, blanket)
    print(f"fit with cross-validation: {time.perf_counter() - start:.1f} s\n{model}\n")
    reference = Reference(train, test)
    methods: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
        "climatology": reference.climatology,
        "RBF interpolation": reference.rbf,
        "per-time OI": reference.oi,
        "xappa exact": xappa_method(model, test),
        "xappa mmps": xappa_method(model, test, method="mmps", members=MEMBERS_MMPS),
    }
    rows = []
    for seed in range(networks):
        stations = xappa.observe.random_stations(
            test, STATIONS + HELD_OUT, variable="t2m", error=SIGMA, seed=seed
        )
        obs = test.appa.observe(stations.isel(station=slice(STATIONS)), seed=seed)
        held_out = test.appa.operator(stations.isel(station=slice(STATIONS, None)))
        for name, method in methods.items():
            if only and name not in only:
                continue
            start = time.perf_counter()
            found = scores(method(obs), test, held_out)
            seconds = time.perf_counter() - start
            rows.append({"network": seed, "method": name, **found, "seconds": seconds})
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def print_table(frame: pd.DataFrame) -> None:
    order = list(dict.fromkeys(frame.method))
    mean = frame.drop(columns="network").groupby("method").mean().loc[order]
    mean.insert(0, "networks", frame.groupby("method").size())
    oi = frame[frame.method == "per-time OI"].set_index("network").RMSE
    ratio = (
        frame.set_index("network")
        .groupby("method")
        .RMSE.apply(lambda rmse: float(rmse.mean() / oi.loc[rmse.index].mean()))
    )
    mean.insert(2, "RMSE / OI", ratio)
    print("\nmean over networks")
    print(markdown(mean))
    print("\nRMSE by network")
    print(markdown(frame.pivot(index="method", columns="network", values="RMSE").loc[order]))


def gaps(pairs: int, blanket: int) -> pd.DataFrame:
    """Compare the methods with the exact posterior on one day of one network.

    Antithetic pairs of initial noise give the mean of a deterministic sampler without
    Monte-Carlo error, as it is affine in the noise; spreads are compared over all members.
    """
    from gaps import compare

    train, test = data()
    model = fit(train, blanket)
    day = next(days(test))
    stations = xappa.observe.random_stations(day, STATIONS, variable="t2m", error=SIGMA, seed=0)
    return compare(model, day, day.appa.observe(stations, seed=0), pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of the methods to run")
    parser.add_argument("--gaps", action="store_true")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of members, for the gaps")
    parser.add_argument("--blanket", type=int, default=4)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", xappa.errors.GuessWarning)
    xappa.set_options(progress=False)
    if arguments.gaps:
        print(markdown(gaps(arguments.pairs, arguments.blanket)))
    else:
        print_table(table(arguments.networks, arguments.only, arguments.blanket))


if __name__ == "__main__":
    main()
