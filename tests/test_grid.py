"""Grids: cell areas, matching, interpolation, distances."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xappa.errors import CoordinateError, GridMismatchError
from xappa.grid import EARTH_RADIUS, Grid, great_circle


def _global(spacing: float = 5.0, west: float = 0.0, poles: bool = True) -> Grid:
    first = 90.0 if poles else 90.0 - spacing / 2
    n = round(2 * first / spacing) + 1
    return Grid(np.linspace(first, -first, n), west + np.arange(0, 360, spacing))


UK = Grid(np.linspace(58, 50, 33), np.linspace(-10, 2, 49))
GAUSSIAN = Grid(
    np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0])), np.arange(64) * 5.625
)


def test_properties() -> None:
    grid = _global()
    assert grid.shape == (37, 72)
    assert grid.size == 37 * 72
    assert grid.is_periodic
    assert grid.is_global
    assert grid.has_north_pole
    assert grid.has_south_pole
    assert GAUSSIAN.is_global
    assert not GAUSSIAN.has_north_pole
    assert not UK.is_periodic
    assert not UK.is_global
    band = Grid(np.array([-10.0, 0.0, 10.0]), np.arange(0.0, 360.0, 10.0))
    assert band.is_periodic
    assert not band.is_global


def test_repr() -> None:
    assert repr(UK) == (
        "Grid 33 x 49, 58 to 50 degrees north by -0.25, -10 to 2 degrees east by 0.25, regional"
    )
    assert repr(GAUSSIAN).endswith("by about 5.53, 0 to 354.375 degrees east by 5.625, global")


def test_value_semantics_and_serialisation() -> None:
    same = Grid(UK.latitude.copy(), UK.longitude.copy())
    assert same == UK
    assert hash(same) == hash(UK)
    assert UK != GAUSSIAN
    assert UK != "grid"
    assert Grid.from_dict(json.loads(json.dumps(UK.to_dict()))) == UK
    assert pickle.loads(pickle.dumps(UK)) == UK
    with pytest.raises(ValueError, match="read-only"):
        UK.latitude[0] = 0.0


@pytest.mark.parametrize("grid", [_global(), _global(poles=False), GAUSSIAN])
def test_area_weights_integrate_the_sphere(grid: Grid) -> None:
    weights = grid.area_weights()
    assert weights.shape == grid.shape
    assert weights.mean() == pytest.approx(1.0)
    # the mean of sin(lat)^2 over the sphere is 1/3; midpoint cells are second order in spacing
    mean = np.average(np.sin(np.deg2rad(grid.latitude)) ** 2, weights=weights.mean(axis=1))
    assert mean == pytest.approx(1 / 3, abs=2e-3)


def test_area_weights_are_exact_for_cells() -> None:
    weights = _global(poles=False).area_weights()[:, 0]
    edges = np.linspace(90, -90, 37)
    exact = -np.diff(np.sin(np.deg2rad(edges)))
    np.testing.assert_allclose(weights, exact / exact.mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("latitude", "longitude", "match"),
    [
        ([0.0, 1.0, 0.5], [0.0, 1.0], "not monotonic"),
        ([0.0, 0.0], [0.0, 1.0], "not monotonic"),
        ([0.0, 91.0], [0.0, 1.0], "beyond the poles"),
        ([0.0, 1.0], [2.0, 1.0, 0.0], "increase eastward"),
        ([0.0, 1.0], [0.0, 120.0, 240.0, 360.0], "more than once"),
        ([0.0, np.nan], [0.0, 1.0], "finite"),
        ([], [0.0], "finite"),
    ],
)
def test_impossible_axes(latitude: list[float], longitude: list[float], match: str) -> None:
    with pytest.raises(CoordinateError, match=match):
        Grid(np.array(latitude), np.array(longitude))


def test_from_dataset() -> None:
    ds = xr.Dataset(coords={"lat": UK.latitude, "lon": UK.longitude})
    assert Grid.from_dataset(ds) == UK
    named = xr.Dataset(coords={"lat": ("y", UK.latitude), "lon": ("x", UK.longitude)})
    assert Grid.from_dataset(named) == UK
    curvilinear = xr.Dataset(
        coords={
            "lat": (("y", "x"), np.zeros((2, 2)), {"standard_name": "latitude"}),
            "lon": (("y", "x"), np.zeros((2, 2)), {"standard_name": "longitude"}),
        }
    )
    stations = xr.Dataset(coords={"lat": ("s", [0.0, 1.0]), "lon": ("s", [0.0, 1.0])})
    for other in (curvilinear, stations):
        with pytest.raises(CoordinateError, match="not rectilinear"):
            Grid.from_dataset(other)


@given(
    rows=st.tuples(st.integers(0, 36), st.integers(0, 36)),
    columns=st.tuples(st.integers(0, 71), st.integers(1, 72)),
    flip=st.booleans(),
    west=st.booleans(),
    noise=st.floats(-1e-4, 1e-4),
)
def test_any_subregion_matches(
    rows: tuple[int, int], columns: tuple[int, int], flip: bool, west: bool, noise: float
) -> None:
    grid = _global(west=-180.0 if west else 0.0)
    chosen = np.arange(min(rows), max(rows) + 1)[:: -1 if flip else 1]
    across = (columns[0] + np.arange(columns[1])) % 72  # may cross the seam
    longitude = np.mod(grid.longitude[across], 360.0)
    latitude = np.clip(grid.latitude[chosen] + noise, -90, 90)
    found_rows, found_columns = grid.match(latitude, longitude + noise)
    np.testing.assert_array_equal(found_rows, chosen)
    np.testing.assert_array_equal(found_columns, across)


@pytest.mark.parametrize(
    ("latitude", "longitude", "where"),
    [
        (np.arange(50, 58.5, 0.5), UK.longitude, "without the values between"),
        (UK.latitude + 0.1, UK.longitude, r"latitude\[0\] is 58.1"),
        (UK.latitude, UK.longitude + 1.0, r"longitude\[45\] is 2.25, the nearest one here 2"),
    ],
)
def test_mismatch_shows_both_sides(latitude: np.ndarray, longitude: np.ndarray, where: str) -> None:
    with pytest.raises(GridMismatchError, match=where) as caught:
        UK.match(latitude, longitude)
    assert "Grid 33 x 49" in str(caught.value.expected)
    assert "Grid" in str(caught.value.got)


def _interpolate(grid: Grid, field: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    index, weight, _ = grid.interpolate(lat, lon)
    return np.sum(field.ravel()[index] * weight, axis=1)


@pytest.mark.parametrize("flip", [False, True])
def test_bilinear_functions_are_exact(flip: bool) -> None:
    grid = Grid(UK.latitude[:: -1 if flip else 1], UK.longitude)
    a, b = grid.latitude[:, None], grid.longitude[None, :]
    field = 1 + 2 * a - 3 * b + 0.5 * a * b
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(50, 58, 200), rng.uniform(-10, 2, 200)
    for shift in (0, 360):  # either convention of longitude
        got = _interpolate(grid, field, lat, lon + shift)
        np.testing.assert_allclose(got, 1 + 2 * lat - 3 * lon + 0.5 * lat * lon, atol=1e-9)


@pytest.mark.parametrize("grid", [UK, GAUSSIAN, _global(), _global(west=-180.0)])
def test_grid_points_are_themselves(grid: Grid) -> None:
    lat, lon = (x.ravel() for x in np.meshgrid(grid.latitude, grid.longitude, indexing="ij"))
    index, weight, inside = grid.interpolate(lat, lon)
    assert inside.all()
    assert index.shape == (grid.size, 4)
    assert index.dtype == np.int64
    best = index[np.arange(grid.size), weight.argmax(axis=1)]
    np.testing.assert_array_equal(best, np.arange(grid.size))
    assert np.all(weight.max(axis=1) == 1.0)


def test_longitude_is_periodic() -> None:
    grid = _global()
    field = np.cos(np.deg2rad(grid.longitude))[None, :] * np.ones((37, 1))
    lon = np.array([-2.5, 357.5, 717.5])
    # halfway between 355 and 0 degrees
    expected = (np.cos(np.deg2rad(5.0)) + 1) / 2
    np.testing.assert_allclose(_interpolate(grid, field, np.zeros(3), lon), expected)


def test_beyond_the_last_row_the_pole_is_its_zonal_mean() -> None:
    grid = _global(poles=False)  # rows at +-87.5
    rng = np.random.default_rng(1)
    field = rng.standard_normal(grid.shape)
    lat = np.array([90.0, -90.0, 88.75, 10.0])
    lon = np.array([13.0, 0.0, 20.0, 5.0])
    index, weight, inside = grid.interpolate(lat, lon)
    assert inside.all()
    assert index.shape == weight.shape == (4, 72)
    np.testing.assert_allclose(weight.sum(axis=1), 1.0)
    got = np.sum(field.ravel()[index] * weight, axis=1)
    halfway = (field[0, 4] + field[0].mean()) / 2
    assert got[:3] == pytest.approx([field[0].mean(), field[-1].mean(), halfway])
    assert np.count_nonzero(weight[3]) <= 4


def test_outside() -> None:
    lat = np.array([58.0, 58.0 + 1e-7, 58.01, 49.9, 54.0, 54.0, np.nan, 54.0, 54.0])
    lon = np.array([-10.0, -10.0 - 1e-7, 0.0, 0.0, 2.1, -10.1, 0.0, np.nan, 352.0])
    _, weight, inside = UK.interpolate(lat, lon)
    assert inside.tolist() == [True, True, *[False] * 6, True]
    np.testing.assert_allclose(weight.sum(axis=1), inside.astype(float))


def test_single_row_and_column() -> None:
    grid = Grid(np.array([51.0]), np.array([3.0]))
    index, weight, inside = grid.interpolate([51.0, 52.0], [3.0, 3.0])
    assert inside.tolist() == [True, False]
    assert weight.sum(axis=1).tolist() == [1.0, 0.0]
    assert index.max() == 0


@given(st.floats(-90, 90), st.floats(-720, 720))
def test_weights_are_convex(lat: float, lon: float) -> None:
    for grid in (GAUSSIAN, _global()):
        index, weight, inside = grid.interpolate([lat], [lon])
        assert inside.all()
        assert weight.min() >= 0
        assert weight.sum() == pytest.approx(1.0)
        assert index.min() >= 0
        assert index.max() < grid.size


def test_distance() -> None:
    quarter = np.pi / 2 * EARTH_RADIUS
    assert great_circle(0, 0, 0, 90) == pytest.approx(quarter)
    assert great_circle(90, 17, 0, 200) == pytest.approx(quarter)
    assert great_circle(10, 20, -10, 200) == pytest.approx(2 * quarter)
    distance = UK.distance(np.array([58.0, 50.0]), np.array([350.0, 2.0]))
    assert distance.shape == (UK.size, 2)
    assert distance[0, 0] == pytest.approx(0.0, abs=1e-6)
    assert distance[-1, 1] == pytest.approx(0.0, abs=1e-6)
    small = Grid(np.array([0.0, 10.0]), np.array([0.0, 10.0]))
    np.testing.assert_allclose(small.distance(), small.distance().T)


def test_longitudes_that_were_sorted_across_greenwich() -> None:
    """What cfgrib makes of 352, 356, 0: the values are not sorted with them."""
    with pytest.raises(CoordinateError, match=r"half of the globe[\s\S]*0, 352[\s\S]*cfgrib sorts"):
        Grid(np.array([50.0, 40.0]), np.array([0.0, 352.0, 356.0]))
    assert Grid(np.array([50.0, 40.0]), np.array([352.0, 356.0, 0.0])).shape == (2, 3)
    assert Grid(np.array([50.0, 40.0]), np.array([0.0, 120.0, 240.0])).is_periodic
