"""The main job on real ERA5: fit a prior, observe a later day at 20 stations, assimilate, score.

Prints a table of scores and the timings; writes an analysis (NetCDF) and a figure (PNG).
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from report import heading, print_timings, timed
from scipy.interpolate import RBFInterpolator

import xappa


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), metavar="FOLDER")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    # What xappa recognises in the data, and what it guesses, is printed here; no need to warn too.
    warnings.simplefilter("ignore", xappa.errors.GuessWarning)
    ds = open_data()
    heading("The data")
    print(ds.appa)
    train, day = ds.sel(time=slice("2019-03-01", "2019-03-24")), ds.sel(time="2019-03-28")

    heading("The prior, fitted to 1-24 March and tuned within them")
    with timed("fit the prior"):
        model = xappa.fit_gaussian(train, localisation="auto", inflation="auto", shrinkage="auto")
    print(model)

    # 30 random stations with errors of 0.5 K; ten of them are kept for verification.
    network = xappa.observe.random_stations(day, 30, variable="t2m", error=0.5, seed=0)
    stations = day.appa.observe(network, seed=0)
    obs, held_out = stations.isel(station=slice(20)), stations.isel(station=slice(20, 30))
    heading("The observations of 28 March")
    print(day.appa.operator(obs))

    with timed("assimilate one day, 16 members"):
        analysis = day.appa.assimilate(obs, model, members=16, seed=0)

    forecasts = {
        "climatology": climatology(train, day),
        "RBF interpolation": interpolation(train, day, obs),
        "xappa, exact": analysis,
    }
    heading("Scores")
    print(scores(forecasts, day, held_out).round(3).to_string())

    with timed("write, open again and plot"):
        path = save(analysis, output / "analysis.nc")
        figure(analysis, train, day, obs, held_out).savefig(output / "analysis.png", dpi=150)

    print_timings()
    print(f"\n{path}\n{output / 'analysis.png'}")


def open_data() -> xr.Dataset:
    """Return ERA5 2 m temperature, or synthetic weather where it cannot be had."""
    try:
        return xappa.tutorial.open_dataset("era5-uk")
    except xappa.errors.DataError as error:
        print(f"{error}\n\nERA5 is not at hand: the demo goes on with SYNTHETIC weather.")
        return xappa.testing.weather(744, 33, 49, start="2019-03-01", step_hours=1)


def climatology(train: xr.Dataset, day: xr.Dataset) -> xr.Dataset:
    """Return an ensemble that knows no observation: the training days, one member each."""
    days = train.reset_coords(drop=True).groupby("time.dayofyear")
    return xr.concat([states.assign_coords(time=day.time) for _, states in days], dim="member")


def interpolation(train: xr.Dataset, day: xr.Dataset, obs: xr.DataArray) -> xr.Dataset:
    """Return the hourly climatology plus anomalies interpolated from the stations, by time."""
    mean = train.t2m.groupby("time.hour").mean().sel(hour=day.time.dt.hour)
    anomalies = obs - mean.interp(latitude=obs.latitude, longitude=obs.longitude)
    stations = np.stack([obs.latitude, obs.longitude], axis=-1)
    points = np.stack(np.meshgrid(mean.latitude, mean.longitude, indexing="ij"), axis=-1)
    anomalies = anomalies.transpose("station", "time")
    interpolate = RBFInterpolator(stations, anomalies, kernel="linear", smoothing=1)
    fields = interpolate(points.reshape(-1, 2)).T.reshape(mean.shape)
    return day.assign(t2m=day.t2m.copy(data=mean + fields))


def scores(
    forecasts: dict[str, xr.Dataset], day: xr.Dataset, held_out: xr.DataArray
) -> pd.DataFrame:
    """Return scores on the full grid, and at stations that were not assimilated."""
    fields = {name: forecast.t2m for name, forecast in forecasts.items()}
    table = xappa.verify.table(fields, day.t2m, scores=("rmse", "crps", "spread_skill"))
    at_stations = day.appa.operator(held_out)
    equivalents = {name: at_stations(forecast) for name, forecast in forecasts.items()}
    table["crps, held-out stations"] = xappa.verify.table(
        equivalents, at_stations(day), scores=("crps",), weights=None
    )
    return table


def save(analysis: xr.Dataset, path: Path) -> Path:
    """Write the analysis, and make sure that it comes back as it was."""
    analysis.to_netcdf(path)
    with xr.open_dataset(path) as saved:
        xr.testing.assert_identical(saved.t2m.load(), analysis.t2m)
        heading("The analysis, opened from its file")
        print(saved.appa)
        for key in ("xappa_method", "xappa_seed", "xappa_members", "xappa_observations"):
            print(f"    {key} = {saved.attrs[key]}")
    return path


def figure(
    analysis: xr.Dataset,
    train: xr.Dataset,
    day: xr.Dataset,
    obs: xr.DataArray,
    held_out: xr.DataArray,
) -> plt.Figure:
    """Draw the analysis at noon, its spread, a held-out station, and the rank histogram."""
    plt.rcParams.update({"font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold"})
    fig = plt.figure(figsize=(12, 9.6), layout="constrained")
    top, bottom = fig.subfigures(2, 1, height_ratios=(1.75, 1))
    left, right = top.subplots(1, 2, sharey=True)
    below, beside = bottom.subplots(1, 2, width_ratios=(1.9, 1))

    noon = analysis.t2m.sel(time="2019-03-28T12")
    mean = noon.mean("member", keep_attrs=True) - 273.15
    bar = {"label": "2 m temperature [°C]", "shrink": 0.9, "pad": 0.03}
    mean.plot.pcolormesh(ax=left, cmap="RdYlBu_r", cbar_kwargs=bar, rasterized=True)
    left.set(title="", xlabel="", ylabel="", aspect=1 / np.cos(np.radians(54)))
    left.set_title("Analysis mean, 28 March 2019 12 UTC", loc="left")

    xappa.plot.spread_map(noon, ax=right)
    right.set_title("Ensemble spread, 28 March 2019 12 UTC", loc="left")
    for ax in (left, right):
        outline_land(ax, train)
        black = {"s": 20, "c": "black", "edgecolors": "white", "zorder": 5}
        white = {"s": 24, "c": "white", "edgecolors": "black", "zorder": 5}
        ax.scatter(obs.longitude, obs.latitude, label="assimilated", **white)
        ax.scatter(held_out.longitude, held_out.latitude, marker="s", label="held out", **black)
    left.xaxis.set_major_formatter(right.xaxis.get_major_formatter())
    left.yaxis.set_major_formatter(right.yaxis.get_major_formatter())
    left.legend(loc="lower right", ncols=2, fontsize="small", framealpha=0.9)

    one = held_out.isel(station=4)
    at_station = day.appa.operator(one)
    fan = {"truth": at_station(day), "obs": one, "error": 0.5}
    xappa.plot.station_fan(at_station(analysis), **fan, ax=below)
    below.set_title(f"Held-out station, {one.latitude:.1f}°N {one.longitude:.1f}°E", loc="left")
    below.set_ylabel("2 m temperature [K]")
    below.legend(loc="upper left", fontsize="small", frameon=False)

    ranks = xappa.verify.rank_histogram(analysis.t2m, day.t2m)
    xappa.plot.rank_histogram(ranks, ax=beside)
    beside.set_title("Rank histogram", loc="left")
    return fig


def outline_land(ax: plt.Axes, train: xr.Dataset) -> None:
    """Sketch the coast without a map at hand: over land days are warmer than nights."""
    hourly = train.t2m.groupby("time.hour").mean()
    diurnal_range = hourly.max("hour") - hourly.min("hour")
    lines = {"levels": [1.3], "colors": "black", "linewidths": 0.7, "alpha": 0.6}
    ax.contour(train.longitude, train.latitude, diurnal_range, **lines)


if __name__ == "__main__":
    main()
