"""The main job with what comes with xappa: observe a day, assimilate it, forecast the next.

The truth is a run of SPEEDY in a year that the model did not learn from. Prints a table of scores
and the timings; writes an analysis (NetCDF) and a figure (PNG).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr
from report import heading, print_timings, timed

import xappa

#: Analysed is the first day of the sample; stations that are kept for verification.
STATES, KEPT = 5, 20
#: Of third order with few steps, and one Krylov iteration: the defaults take ten times as long.
FAST = {"sampler": xappa.Sampler("multistep", 16), "guidance": xappa.Guidance(iterations=1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), metavar="FOLDER")
    parser.add_argument("--members", type=int, default=8)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    truth = xappa.tutorial.open_dataset("speedy-t31").rename(level="pressure").load()
    network = xappa.tutorial.open_dataset("speedy-t31-network")
    with timed("open the model"):
        model = xappa.open_model("speedy-t31")
    heading("The model that comes with xappa")
    print(model)

    # Radiosondes with the errors of SPEEDY-LETKF; some are kept for verification.
    day = truth.isel(time=slice(STATES))  # what follows is for the forecast to tell
    soundings = day.appa.observe(network, seed=0).sel(time=day.time)
    obs, held_out = soundings.isel(station=slice(KEPT, None)), soundings.isel(station=slice(KEPT))
    window = model.template(day.time[0], day.time[-1])  # states without values
    heading(f"What {obs.sizes['station']} stations observe")
    print(window.appa.operator(obs))

    with timed(f"assimilate one day, {arguments.members} members"):
        analysis = window.appa.assimilate(obs, model, members=arguments.members, seed=0, **FAST)
    with timed("forecast one day"):
        forecast = analysis.appa.forecast(model, lead="24h", seed=0, sampler=FAST["sampler"])

    heading("Scores against the truth, in the variables' units")
    print(scores(model, analysis, forecast, truth).to_string(float_format="{:.3g}".format))
    heading(f"Scores at {KEPT} stations that were not assimilated")
    print(held_out_scores(analysis, held_out, truth).to_string(float_format="{:.3g}".format))

    with timed("write, open again and plot"):
        path = arguments.output / "analysis.nc"
        analysis.to_netcdf(path)
        with xr.open_dataset(path) as saved:
            xr.testing.assert_identical(saved.load(), analysis)
        picture = arguments.output / "analysis.png"
        figure(analysis, truth, obs).savefig(picture, dpi=150)

    print_timings()
    print(f"\n{path}\n{picture}")


def scores(
    model: xappa.models.base.Model, analysis: xr.Dataset, forecast: xr.Dataset, truth: xr.Dataset
) -> pd.DataFrame:
    """Return scores by variable: of the analysis, and of the forecast at its end."""
    last = forecast.isel(time=[-1])
    mean = {name: model.statistics[f"{name}_mean"] for name in analysis.data_vars}
    climatology = xr.Dataset(mean).expand_dims(time=analysis.time)
    names = ("rmse", "crps", "spread_skill")
    found = {"climatology": climatology, "analysis": analysis, "forecast, +24 h": last}
    return pd.concat(
        xappa.verify.table({name: ds}, truth.sel(time=ds.time), scores=names)
        for name, ds in found.items()
    )


def held_out_scores(analysis: xr.Dataset, held_out: xr.Dataset, truth: xr.Dataset) -> pd.DataFrame:
    """Return scores of the equivalents at stations that were not assimilated, against the truth."""
    at_stations = truth.appa.operator(held_out)
    equivalents = {"analysis": at_stations(analysis)}
    names = ("rmse", "crps", "spread_skill")
    return xappa.verify.table(equivalents, at_stations(truth), scores=names, weights=None)


def figure(analysis: xr.Dataset, truth: xr.Dataset, obs: xr.Dataset) -> plt.Figure:
    """Draw the jets of analysis and truth, the spread, the error, and the rank histogram."""
    plt.rcParams.update({"font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold"})
    fig, axes = plt.subplots(2, 2, figsize=(13, 7.4), layout="constrained")
    when = analysis.time[STATES // 2]
    wind = analysis.u.sel(time=when, pressure=250)
    true = truth.u.sel(time=when, pressure=250)
    bar = {"label": "eastward wind [m s-1]", "shrink": 0.9, "pad": 0.02}
    mean = wind.mean("member", keep_attrs=True)
    mean.plot.pcolormesh(ax=axes[0, 0], cmap="RdBu_r", vmin=-60, vmax=60, cbar_kwargs=bar)
    axes[0, 0].set_title("")
    lines = axes[0, 0].contour(
        true.longitude, true.latitude, true, levels=[-20, 20, 40, 60], colors="black", linewidths=1
    )
    axes[0, 0].clabel(lines, fontsize=7)
    axes[0, 0].set_title("Wind at 250 hPa: analysis mean, and the truth (lines)", loc="left")
    xappa.plot.spread_map(wind, ax=axes[0, 1])
    seen = {"s": 9, "c": "white", "edgecolors": "black", "linewidths": 0.6, "zorder": 5}
    axes[0, 1].scatter(obs.longitude % 360, obs.latitude, **seen)
    axes[0, 1].set_title("Its spread, and the stations", loc="left")
    error = abs(mean - true).assign_attrs(mean.attrs)
    bar["label"] = "absolute error [m s-1]"
    error.plot.pcolormesh(ax=axes[1, 0], cmap="magma_r", vmin=0, vmax=10, cbar_kwargs=bar)
    axes[1, 0].set_title("")
    axes[1, 0].set_title("Error of the mean", loc="left")
    for ax in (axes[0, 0], axes[0, 1], axes[1, 0]):
        ax.contour(truth.longitude, truth.latitude, truth.lsm, [0.5], colors="grey", linewidths=0.6)
        ax.set(xlabel="", ylabel="")
    ranks = xappa.verify.rank_histogram(analysis.u, truth.u.sel(time=analysis.time))
    xappa.plot.rank_histogram(ranks, ax=axes[1, 1])
    axes[1, 1].set_title("Rank histogram, all levels", loc="left")
    return fig


if __name__ == "__main__":
    main()
