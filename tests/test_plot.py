"""Plots: what is drawn, and how it is labelled."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xappa import errors, plot

matplotlib = pytest.importorskip("matplotlib", reason="the extra plot is not installed")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ensemble():
    """Eight members of 2 m temperature over a small region, one time."""
    rng = np.random.default_rng(0)
    coords = {
        "member": ("member", np.arange(8), {"standard_name": "realization"}),
        "latitude": ("latitude", np.linspace(58, 50, 17), {"units": "degrees_north"}),
        "longitude": ("longitude", np.linspace(-10, 2, 25), {"units": "degrees_east"}),
        "time": ((), np.datetime64("2019-03-25T12:00", "ns"), {"standard_name": "time"}),
    }
    attrs = {"long_name": "2 metre temperature", "units": "K"}
    values = 280.0 + rng.normal(size=(8, 17, 25))
    return xr.DataArray(values, coords, ("member", "latitude", "longitude"), "t2m", attrs)


@pytest.fixture
def series():
    """Sixteen members at one station over a day."""
    rng = np.random.default_rng(1)
    coords = {
        "time": (
            "time",
            pd.date_range("2019-03-25", periods=25, freq="h"),
            {"standard_name": "time"},
        ),
        "station": ((), "UK07", {"cf_role": "timeseries_id"}),
        "latitude": ((), 51.5, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ((), 359.9, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    attrs = {"long_name": "2 metre temperature", "units": "K"}
    values = 280.0 + rng.normal(size=(16, 25)).cumsum(axis=1)
    return xr.DataArray(values, coords, ("member", "time"), "t2m", attrs)


def test_increment_is_symmetric_about_zero_and_labelled(ensemble):
    background = ensemble.mean("member") - 2.0
    ax = plot.increment_map(ensemble, background)
    mesh = ax.collections[0]
    np.testing.assert_allclose(mesh.get_array().compressed(), 2.0)
    assert mesh.norm.vmin == pytest.approx(-mesh.norm.vmax)
    assert ax.get_title(loc="left") == "2 metre temperature · 2019-03-25 12:00"
    assert mesh.colorbar.ax.get_ylabel() == "analysis increment [K]"


def test_no_increment_is_drawn_too(ensemble):
    mesh = plot.increment_map(ensemble, ensemble).collections[0]
    assert (mesh.norm.vmin, mesh.norm.vmax) == (-1.0, 1.0)


def test_spread_is_the_standard_deviation_over_members(ensemble):
    ax = plot.spread_map(ensemble.transpose("longitude", "member", "latitude"), vmax=2.0)
    expected = ensemble.values.std(axis=0, ddof=1)
    np.testing.assert_allclose(ax.collections[0].get_array(), expected)
    assert ax.collections[0].norm.vmax == 2.0
    assert ax.collections[0].colorbar.ax.get_ylabel() == "ensemble spread [K]"


def test_maps_have_degrees_and_the_proportions_of_their_latitude(ensemble):
    ax = plot.spread_map(ensemble)
    assert ax.get_aspect() == pytest.approx(1 / np.cos(np.deg2rad(54.0)))
    ax.figure.canvas.draw()
    labels = {tick.get_text() for tick in ax.get_xticklabels() + ax.get_yticklabels()}
    assert {"10°W", "0°", "50°N"} <= labels


def test_given_axes_are_used_and_stations_marked(ensemble):
    _, ax = plt.subplots()
    stations = xr.DataArray(
        [1.0, 2.0],
        {"lat": ("station", [51.0, 53.0]), "lon": ("station", [-3.0, 0.0])},
        ("station",),
    )
    assert plot.spread_map(ensemble, ax=ax, stations=stations) is ax
    np.testing.assert_allclose(ax.collections[1].get_offsets(), [[-3.0, 51.0], [0.0, 53.0]])


def test_projection(ensemble):
    crs = pytest.importorskip("cartopy.crs", reason="cartopy is not installed")
    ax = plot.spread_map(ensemble, projection=crs.LambertConformal(-4.0, 54.0))
    assert ax.projection == crs.LambertConformal(-4.0, 54.0)
    ax.figure.canvas.draw()
    with pytest.raises(errors.ArgumentError, match="exclude each other"):
        plot.spread_map(ensemble, ax=ax, projection=crs.PlateCarree())


def test_a_map_needs_one_field(ensemble):
    two = xr.concat([ensemble, ensemble], dim="step")
    with pytest.raises(errors.ArgumentError, match="cannot be drawn"):
        plot.spread_map(two)
    with pytest.raises(errors.CoordinateError, match="member"):
        plot.spread_map(ensemble[0].drop_vars("member"))


def test_rank_histogram():
    values = [0.1, 0.2, 0.3, 0.4]
    histogram = xr.DataArray(values, {"rank": [1, 2, 3, 4]}, dims="rank", name="t2m")
    ax = plot.rank_histogram(histogram, pairs=100)
    bars = ax.containers[0]
    np.testing.assert_allclose([bar.get_height() for bar in bars], values)
    calibrated = next(line for line in ax.lines if line.get_label() == "calibrated")
    assert calibrated.get_ydata()[0] == pytest.approx(0.25)
    # 95 % of a binomial proportion lie within 1.96 standard deviations.
    assert ax.lines[1].get_ydata()[0] == pytest.approx(0.25 + 1.96 * np.sqrt(0.25 * 0.75 / 100))
    with pytest.raises(errors.ArgumentError, match="expected: the dimension 'rank' alone"):
        plot.rank_histogram(histogram.expand_dims("time"))
    plot.rank_histogram(histogram.to_dataset())
    with pytest.raises(errors.ArgumentError, match=r"as in histogram\['t2m'\] or histogram.t2m"):
        plot.rank_histogram(histogram.to_dataset().assign(u=histogram))


def test_an_ensemble_is_no_rank_histogram(ensemble):
    for wrong in (ensemble, ensemble.to_dataset()):
        with pytest.raises(errors.ArgumentError, match=r"xappa\.verify\.rank_histogram\(ens"):
            plot.rank_histogram(wrong)


def test_station_fan(series):
    obs = series.mean("member").isel(time=slice(0, None, 6))
    ax = plot.station_fan(series, obs=obs, error=0.5, truth=series[0])
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.median(series, axis=0))
    assert ax.get_title(loc="left") == "station UK07 · 51.5°N 0.1°W"
    assert ax.get_ylabel() == "2 metre temperature [K]"
    legend = {text.get_text() for text in ax.get_legend().get_texts()}
    assert legend == {"90 % of members", "50 % of members", "median", "truth", "observations"}


def test_obs_truth_and_errors_of_a_fan_are_drawn_in_the_units_of_the_ensemble(series):
    obs = series.mean("member").isel(time=slice(0, None, 6)) - 273.15
    obs = obs.assign_attrs(units="degC").assign_coords(error_std=0.5)
    ax = plot.station_fan(series.to_dataset(), obs=obs, truth=obs)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), obs + 273.15)
    points, _, (bars,) = ax.containers[0]
    np.testing.assert_allclose(points.get_ydata(), obs + 273.15)
    lengths = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(lengths, 1.0)  # half a degree to both sides, no offset
    with pytest.raises(errors.UnitsError):
        plot.station_fan(series, obs=obs.assign_attrs(units="m"))
    with pytest.raises(errors.ArgumentError, match="select one station or member"):
        plot.station_fan(series, truth=series)


def test_other_calendars_are_drawn_in_days(series):
    times = xr.date_range("2019-02-28", periods=25, freq="D", calendar="noleap", use_cftime=True)
    ax = plot.station_fan(series.assign_coords(time=("time", times, {"standard_name": "time"})))
    np.testing.assert_allclose(ax.lines[0].get_xdata(), np.arange(25.0))
    assert "noleap" in ax.get_xlabel()


def test_a_fan_needs_one_station(series):
    with pytest.raises(errors.ArgumentError, match="select one station"):
        plot.station_fan(xr.concat([series, series], dim="place"))
    with pytest.raises(errors.CoordinateError, match="member"):
        plot.station_fan(series.rename(member="x"))


def test_lazy_input_is_drawn_and_nothing_is_changed(ensemble, series):
    before = ensemble.copy(deep=True)
    plot.spread_map(ensemble.chunk(member=2))
    plot.station_fan(series.chunk(member=4))
    plot.increment_map(ensemble, ensemble - 1)
    xr.testing.assert_identical(ensemble, before)


def test_missing_matplotlib(monkeypatch, ensemble):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(errors.MissingDependencyError, match=r"xappa\[plot\]"):
        plot.spread_map(ensemble)
