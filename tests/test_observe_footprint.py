"""Means over areas and intervals: exact for fields whose means are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.errors import CoordinateError
from xappa.grid import EARTH_RADIUS, Grid
from xappa.observe import Status
from xappa.observe.extent import parse_methods
from xappa.observe.footprint import Footprint, area_weights, interval_weights

HOURS = np.arange(9) * 6 * 3600.0


def hour(values) -> np.ndarray:
    return np.datetime64("2001-01-01", "ns") + np.asarray(values) * np.timedelta64(1, "h")


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    """Temperature that rises by 1 K each hour, and by 1 K for each degree to the north and east."""
    lat, lon = np.linspace(90, -90, 37), np.arange(0.0, 360.0, 5.0)
    t = (np.arange(9) * 6.0)[:, None, None] + lat[:, None] + 0 * lon
    attrs = {"standard_name": "air_temperature", "units": "K"}
    return xr.Dataset(
        {"t": (("time", "latitude", "longitude"), 273.15 + t, attrs)},
        {
            "time": hour(np.arange(9) * 6),
            "latitude": ("latitude", lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "longitude": (
                "longitude",
                lon,
                {"standard_name": "longitude", "units": "degrees_east"},
            ),
        },
    )


def station(**attrs) -> xr.Dataset:
    """Two places, at three times of the same day, in a Dataset that may hold bounds."""
    where = {"units": "degrees_north", "standard_name": "latitude"}
    east = {"units": "degrees_east", "standard_name": "longitude"}
    values = np.full((3, 2), 290.0)
    base = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
    return xr.Dataset(
        {"temp": (("time", "station"), values, {**base, **attrs})},
        {
            "time": ("time", hour([12, 24, 36]), {"standard_name": "time"}),
            "latitude": ("station", [50.0, 12.3], where),
            "longitude": ("station", [0.0, 181.0], east),
        },
    )


# Intervals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [(0, 12), (3, 9), (6, 6.5), (0, 48), (5, 31)])
def test_means_of_what_is_linear_between_states(interval) -> None:
    """The mean of a piecewise linear series, against a fine sum."""
    rng = np.random.default_rng(0)
    series = rng.standard_normal(9)
    begin, end = (3600.0 * h for h in interval)
    index, weight, inside = interval_weights(np.array([[begin, end]]), HOURS, "mean")
    fine = np.linspace(begin, end, 200001)
    expected = np.trapezoid(np.interp(fine, HOURS, series), fine) / (end - begin)
    assert inside.all()
    np.testing.assert_allclose((weight * series[index]).sum(), expected, atol=1e-8)
    np.testing.assert_allclose(weight.sum(), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("interval", "expected"), [((0, 12), [0, 1, 1]), ((3, 12), [0, 0.5, 1]), ((-6, 6), [1, 1, 0])]
)
def test_sums_of_amounts_of_steps(interval, expected) -> None:
    index, weight, inside = interval_weights(3600.0 * np.array([interval]), HOURS, "sum")
    dense = np.zeros(9)
    np.add.at(dense, index[0], weight[0])
    assert inside.all()
    np.testing.assert_allclose(dense[:3], expected)


@pytest.mark.parametrize("interval", [(-1, 5), (40, 49), (6, 6), (9, 3)])
def test_intervals_beyond_the_window_are_outside(interval) -> None:
    assert not interval_weights(3600.0 * np.array([interval]), HOURS, "mean")[2].any()


def test_daily_means_with_bounds(state) -> None:
    obs = station(cell_methods="time: mean")
    bounds = hour(np.array([[0, 12], [12, 24], [24, 36]]))
    obs["time"].attrs["bounds"] = "time_bnds"
    obs["time_bnds"] = (("time", "nv"), bounds)
    operator = state.appa.operator(obs)
    expected = 273.15 + np.array([6, 18, 30])[:, None] + np.array([50.0, 12.3])
    np.testing.assert_allclose(operator(state)["temp"], expected, rtol=1e-12)
    assert "mean over 12 h" in repr(operator)


def test_operators_with_bounds_survive_a_file(state, tmp_path) -> None:
    obs = station(cell_methods="time: mean")
    obs["time"].attrs["bounds"] = "time_bnds"
    obs["time_bnds"] = (("time", "nv"), hour(np.array([[0, 12], [12, 24], [24, 36]])))
    obs.to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataset(tmp_path / "obs.nc") as again:
        found = state.appa.operator(again)
    assert (found.rows.matrix() != state.appa.operator(obs).rows.matrix()).nnz == 0


def test_an_interval_as_an_attribute(state) -> None:
    obs = station(cell_methods="time: mean", xappa_interval="6h").temp
    hx = state.appa.operator(obs)(state)
    np.testing.assert_allclose(hx[:, 0], 273.15 + np.array([9, 21, 33]) + 50, rtol=1e-12)
    with pytest.raises(CoordinateError, match="interval of the observations cannot be read"):
        state.appa.operator(station(xappa_interval="soon").temp)


def test_windows_reach_back_to_the_beginning_of_a_mean(state) -> None:
    """The state before the window is part of the mean, and of the trajectory that is drawn."""
    prior = xappa.fit_gaussian(_weather(state), modes=3)
    obs = station(cell_methods="time: mean", xappa_interval="12h").temp.isel(time=[0])
    obs = obs.copy(data=[[323.0, 285.0]])
    window = state.sel(time=obs.time)
    ens = window.appa.assimilate(obs, prior, members=2, seed=0)
    assert "'used'" in ens.attrs["xappa_observations"].replace('"', "'")
    assert ens.sizes["time"] == 1


def _weather(state: xr.Dataset) -> xr.Dataset:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((40, 1, 1)) + 0.1 * rng.standard_normal((40, *state.t.shape[1:]))
    base = state.t.isel(time=0).values + noise.cumsum(0) * 0.3
    time = np.datetime64("2000-12-01", "ns") + np.arange(40) * np.timedelta64(6, "h")
    coords = {"time": time, "latitude": state.latitude, "longitude": state.longitude}
    return xr.Dataset({"t": (state.t.dims, base, state.t.attrs)}, coords)


def test_a_method_without_bounds_is_said(state) -> None:
    (spec,) = state.appa.operator(station(cell_methods="time: mean").temp).specs
    assert spec.footprint is None
    assert any("without bounds" in guess for guess in spec.guesses)
    (spec,) = state.appa.operator(station(cell_methods="time: median").temp).specs
    assert any("compared with point values" in guess for guess in spec.guesses)


@pytest.mark.parametrize(
    ("said", "methods"),
    [
        ("", {}),
        ("time: point", {"time": "point"}),
        ("area: mean time: sum (interval: 1 h)", {"area": "mean", "time": "sum"}),
        ("lat: lon: mean where land", {"lat": "mean", "lon": "mean"}),
    ],
)
def test_cell_methods(said, methods) -> None:
    assert parse_methods(said) == methods


# Areas --------------------------------------------------------------------------------------------

GLOBE = Grid(np.linspace(90, -90, 37), np.arange(0.0, 360.0, 5.0))
FIELD = np.sin(np.radians(GLOBE.latitude))[:, None] * np.ones(72)


def mean_of(grid: Grid, field: np.ndarray, lat, lon, footprint: Footprint):
    index, weight, inside = area_weights(grid, np.asarray(lat), np.asarray(lon), footprint)
    return (weight * field.ravel()[index]).sum(1), inside


@pytest.mark.parametrize("west", [0.0, 355.0, -5.0, 177.5])
def test_cells_are_conservative(west) -> None:
    """Boxes that tile a band have the band's mean, across any seam, and those of the cells."""
    lows = np.linspace(-60, 60, 25)
    edges = west + np.linspace(0, 360, 19)
    boxes = [
        (a, b, c, d) for a, b in itertools.pairwise(lows) for c, d in itertools.pairwise(edges)
    ]
    box = np.array(boxes)
    rng = np.random.default_rng(0)
    field = rng.standard_normal(GLOBE.shape)
    means, inside = mean_of(GLOBE, field, box[:, 0], box[:, 2], Footprint(box=box))
    assert inside.all()
    share = np.sin(np.radians(box[:, 1])) - np.sin(np.radians(box[:, 0]))
    whole = np.array([[-60.0, 60.0, west, west + 360]])
    band, _ = mean_of(GLOBE, field, [0.0], [0.0], Footprint(box=whole))
    np.testing.assert_allclose((means * share).sum() / share.sum(), band[0], atol=1e-12)


def test_cells_of_the_grid_are_its_values() -> None:
    box = np.array([[42.5, 47.5, 7.5, 12.5], [-90.0, -87.5, 0.0, 360.0]])
    index, weight, inside = area_weights(GLOBE, np.zeros(2), np.zeros(2), Footprint(box=box))
    assert inside.all()
    (k,) = index[0][weight[0] > 1e-12]
    assert np.unravel_index(k, GLOBE.shape) == (9, 2)
    assert (weight[1] > 0).sum() == 72


@pytest.mark.parametrize("radius", [20e3, 300e3, 1500e3])
@pytest.mark.parametrize("latitude", [0.0, 47.3, 89.0, -90.0])
def test_caps(latitude, radius) -> None:
    """sin(latitude) is harmonic of degree one: its mean over a cap is (1 + cos r) / 2 of it."""
    fine = Grid(np.linspace(90, -90, 361), np.arange(0.0, 360.0, 0.5))
    field = np.sin(np.radians(fine.latitude))[:, None] * np.ones(720)
    footprint = Footprint(radius=np.array([radius]))
    found, inside = mean_of(fine, field, [latitude], [12.3], footprint)
    expected = np.sin(np.radians(latitude)) * (1 + np.cos(radius / EARTH_RADIUS)) / 2
    assert inside.all()
    np.testing.assert_allclose(found[0], expected, atol=2e-3 * radius / 1e6 + 2e-4)


def test_a_cap_of_each_observation() -> None:
    radius = np.array([500e3, 20e3, 500e3])
    lat, lon = np.array([10.0, 20.0, 30.0]), np.array([359.0, 0.0, 1.0])
    together, _ = mean_of(GLOBE, FIELD, lat, lon, Footprint(radius=radius))
    alone = [
        mean_of(GLOBE, FIELD, lat[[k]], lon[[k]], Footprint(radius=radius[[k]]))[0][0]
        for k in range(3)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_pixels_with_four_corners() -> None:
    """A field that is linear in degrees has its value at the middle of a parallelogram."""
    field = GLOBE.latitude[:, None] + 0 * GLOBE.longitude
    corners = np.array([[[40.0, 358.0], [42.0, 3.0], [46.0, 4.0], [44.0, 359.0]]])
    found, inside = mean_of(GLOBE, field, [43.0], [1.0], Footprint(corners=corners))
    assert inside.all()
    np.testing.assert_allclose(found, 43.0, atol=1e-9)


def test_areas_from_bounds_of_coordinates(state) -> None:
    obs = station(cell_methods="area: mean")
    obs["latitude"].attrs["bounds"], obs["longitude"].attrs["bounds"] = "lat_b", "lon_b"
    obs["lat_b"] = (("station", "nv"), [[40.0, 60.0], [-5.0, 10.0]])
    obs["lon_b"] = (("station", "nv"), [[350.0, 10.0], [170.0, 190.0]])
    operator = state.appa.operator(obs)
    assert operator.n_used == 6
    assert "mean over cells" in repr(operator)
    cells = Grid(state.latitude.values, state.longitude.values).latitude_bounds
    south, north = np.minimum(cells[:-1], cells[1:]), np.maximum(cells[:-1], cells[1:])
    overlap = np.clip(
        np.minimum(np.sin(np.radians(60)), np.sin(np.radians(north)))
        - np.maximum(np.sin(np.radians(40)), np.sin(np.radians(south))),
        0,
        None,
    )
    expected = 273.15 + 12 + (overlap * state.latitude.values).sum() / overlap.sum()
    np.testing.assert_allclose(operator(state)["temp"][0, 0], expected, rtol=1e-12)


def test_a_radius_as_an_attribute(state) -> None:
    obs = station(xappa_footprint_radius=300e3)
    np.testing.assert_allclose(state.appa.operator(obs)(state)["temp"][0, 0], 273.15 + 62, atol=0.1)
    varying = obs.assign_coords(fov=("station", [300.0, 50.0], {"units": "km"}))
    varying["temp"].attrs["xappa_footprint_radius"] = "fov"
    (spec,) = state.appa.operator(varying).specs
    np.testing.assert_allclose(spec.footprint.radius, [3e5, 5e4] * 3)
    for wrong in (-1.0, "wide"):
        with pytest.raises(CoordinateError, match="no positive length"):
            state.appa.operator(station(xappa_footprint_radius=wrong))


def test_areas_beyond_a_region_are_rejected(state) -> None:
    region = state.sel(latitude=slice(60, 40), longitude=slice(0, 30))
    obs = station(xappa_footprint_radius=300e3)
    (status,) = region.appa.operator(obs).status
    assert (status == Status.OUTSIDE_DOMAIN).all()


def test_bounds_that_do_not_fit(state) -> None:
    obs = station(cell_methods="time: mean")
    obs["time"].attrs["bounds"] = "time_bnds"
    obs["time_bnds"] = (("time", "nv"), hour(np.zeros((3, 3))))
    with pytest.raises(CoordinateError, match="bounds of 'time' do not fit"):
        state.appa.operator(obs)


def test_the_adjoint_is_exact(state) -> None:
    obs = station(cell_methods="time: mean", xappa_interval="6h", xappa_footprint_radius=500e3)
    operator = state.appa.operator(obs)
    assert operator.is_linear
    x = torch.randn(2, *operator.rows.shape, dtype=torch.float64, requires_grad=True)
    y = operator.apply(x)
    w = torch.randn_like(y)
    (pulled,) = torch.autograd.grad(y, x, w)
    torch.testing.assert_close((y * w).sum(), (x * pulled).sum())


def hexagons(**attrs) -> xr.Dataset:
    """Hexagons, one of them across the seam, one with five corners, one without any."""
    turn = np.radians(60 * np.arange(6))
    centres = np.array([[50.0, 20.0], [10.0, 359.0], [-30.0, 100.0], [0.0, 0.0]])
    lat = centres[:, :1] + 4 * np.sin(turn)
    lon = (centres[:, 1:] + 4 * np.cos(turn)) % 360
    lat[2, 5] = lon[2, 5] = np.nan
    lat[3] = lon[3] = np.nan
    base = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
    ds = xr.Dataset(
        {"t": ("cell", np.full(4, 290.0), {**base, "cell_methods": "area: mean", **attrs})},
        {
            "latitude": ("cell", centres[:, 0], {"bounds": "lat_b"}),
            "longitude": ("cell", centres[:, 1], {"bounds": "lon_b"}),
            "time": hour(6),
        },
    )
    return ds.assign(lat_b=(("cell", "v"), lat), lon_b=(("cell", "v"), lon))


def test_polygons_are_the_cells_around_them(state) -> None:
    operator = state.appa.operator(hexagons())
    box = operator.specs[0].footprint.box
    high = 4 * np.sin(np.radians(60))
    np.testing.assert_allclose(box[0], [50 - high, 50 + high, 16.0, 24.0])
    np.testing.assert_allclose((box[1, 2:] + 180) % 360 - 180, [-5.0, 3.0])
    np.testing.assert_allclose(box[2], [-30 - high, -30 + high, 96.0, 104.0])
    assert operator.status[0].tolist() == [0, 0, 0, Status.OUTSIDE_DOMAIN]
    expected = area_weights(
        Grid(state.latitude.values, state.longitude.values),
        np.zeros(3),
        np.zeros(3),
        Footprint(box=box[:3]),
    )
    field = state.t.isel(time=1).values.ravel()
    hx = (expected[1] * field[expected[0]]).sum(axis=1)
    np.testing.assert_allclose(operator(state).t[:3], hx, rtol=1e-12)


def test_bounds_of_which_the_numbers_differ(state) -> None:
    obs = hexagons()
    obs["lon_b"] = obs.lon_b.isel(v=slice(5)).rename(v="w")
    with pytest.raises(CoordinateError, match="bounds of an area cannot be read"):
        state.appa.operator(obs)
