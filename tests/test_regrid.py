"""Regridding between rectilinear grids: exactness, conservation, missing values, labels."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pytest
import scipy.sparse
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xappa.errors import (
    ArgumentError,
    DataError,
    GridMismatchError,
    MissingDependencyError,
    XappaWarning,
)
from xappa.grid import Grid
from xappa.regrid import Regridder, bilinear_weights
from xappa.regrid.weights import cell_weights, longitude_bounds
from xappa.testing import raise_if_dask_computes


def _global(
    spacing: float, west: float = 0.0, poles: bool = True, north_first: bool = True
) -> Grid:
    first = 90.0 if poles else 90.0 - spacing / 2
    lat = np.linspace(first, -first, round(2 * first / spacing) + 1)
    return Grid(lat if north_first else lat[::-1], west + np.arange(0, 360, spacing))


GAUSSIAN = Grid(
    np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(16)[0])), np.arange(32) * 11.25
)
FINE = _global(4.0)
COARSE = _global(10.0, west=-180.0, poles=False, north_first=False)
UK = Grid(np.linspace(58, 50, 33), np.linspace(-10, 2, 49))
INSIDE_UK = Grid(np.arange(50.5, 58, 0.5), np.arange(350.5, 361.5, 0.5) % 360)
GLOBAL = [FINE, COARSE, GAUSSIAN, _global(7.2, west=3.3, poles=False)]


def _on(grid: Grid, values: Any, name: str | None = None, **attrs: str) -> xr.DataArray:
    data = np.broadcast_to(np.asarray(values), (*np.shape(values)[:-2], *grid.shape))
    dims = ("time", "lat", "lon")[3 - data.ndim :]
    coords = {
        "lat": ("lat", grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("lon", grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return xr.DataArray(data.copy(), coords, dims, name, attrs)


def _rotation(grid: Grid, tilt: float = 40.0) -> np.ndarray:
    """Eastward wind of a solid-body rotation about a tilted axis."""
    lat, lon = np.meshgrid(*map(np.deg2rad, (grid.latitude, grid.longitude)), indexing="ij")
    a = np.deg2rad(tilt)
    return np.cos(lat) * np.cos(a) + np.sin(lat) * np.cos(lon) * np.sin(a)


# Weights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bilinear", "conservative"])
@pytest.mark.parametrize("target", GLOBAL, ids=repr)
@pytest.mark.parametrize("source", GLOBAL, ids=repr)
def test_constants_and_rows(source: Grid, target: Grid, method: str) -> None:
    regridder = Regridder.build(source, target, method)
    np.testing.assert_allclose(regridder.coverage, 1.0, atol=1e-12)
    assert regridder.weights.data.min() > 0
    np.testing.assert_allclose(regridder(_on(source, 3.7 * np.ones((1, 1)))), 3.7, rtol=1e-12)


@pytest.mark.parametrize("target", GLOBAL, ids=repr)
@pytest.mark.parametrize("source", GLOBAL, ids=repr)
def test_the_area_integral_is_conserved(source: Grid, target: Grid) -> None:
    field = np.random.default_rng(0).standard_normal(source.shape) + 1.0
    out = Regridder.build(source, target, "conservative")(_on(source, field)).values
    before = np.average(field, weights=source.area_weights())
    after = np.average(out, weights=target.area_weights())
    assert after == pytest.approx(before, rel=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    n=st.tuples(st.integers(2, 20), st.integers(3, 20), st.integers(2, 20), st.integers(3, 20)),
    west=st.tuples(st.floats(-360, 360), st.floats(-360, 360)),
    seed=st.integers(0, 2**16),
)
def test_conservation_on_any_global_grid(
    n: tuple[int, ...], west: tuple[float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    grids = []
    for rows, columns, first in ((n[0], n[1], west[0]), (n[2], n[3], west[1])):
        lat = np.linspace(-90, 90, 2 * rows + 1)[1::2]
        # irregular columns, but none so far apart that the grid would not go round the globe
        jitter = rng.uniform(-0.2, 0.2, columns)
        jitter[[0, -1]] = 0
        grids.append(Grid(lat, first + (np.arange(columns) + jitter) * 360 / columns))
    source, target = grids
    weights = Regridder.build(source, target, "conservative").weights
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    # the transposed statement: what each source cell gives away is its own area
    given_away = weights.T @ (target.area_weights() / target.size).ravel()
    np.testing.assert_allclose(given_away, source.area_weights().ravel() / source.size, atol=1e-12)


def test_conservative_cells_are_means_of_their_parts() -> None:
    # two by two cells of 2 degrees make one of 4: the mean weighted with the sine of latitude
    fine = Grid(np.array([1.0, 3.0, 5.0, 7.0]), np.array([1.0, 3.0, 5.0, 7.0]))
    coarse = Grid(np.array([2.0, 6.0]), np.array([2.0, 6.0]))
    field = np.arange(16.0).reshape(4, 4)
    out = Regridder.build(fine, coarse, "conservative")(_on(fine, field)).values
    edges = np.diff(np.sin(np.deg2rad([0.0, 2.0, 4.0, 6.0, 8.0])))
    share = edges.reshape(2, 2, 1) / edges.reshape(2, 2, 1).sum(axis=1, keepdims=True)
    rows = (field.reshape(2, 2, 4) * share).sum(axis=1)
    np.testing.assert_allclose(out, rows.reshape(2, 2, 2).mean(axis=2), rtol=1e-12)


@pytest.mark.parametrize("flip", [1, -1])
def test_linear_fields_are_exact(flip: int) -> None:
    source = Grid(UK.latitude[::flip], UK.longitude)
    lat, lon = np.meshgrid(source.latitude, source.longitude, indexing="ij")
    out = Regridder.build(source, INSIDE_UK)(_on(source, 1 + 2 * lat - 3 * lon + lat * lon))
    lat, lon = np.meshgrid(INSIDE_UK.latitude, INSIDE_UK.unwrapped_longitude - 360, indexing="ij")
    np.testing.assert_allclose(out, 1 + 2 * lat - 3 * lon + lat * lon, rtol=1e-12)
    np.testing.assert_array_equal(out["lon"], INSIDE_UK.longitude)


def _rotation_means(grid: Grid, tilt: float = 40.0) -> np.ndarray:
    """The exact means of `_rotation` over cells of equal widths in longitude."""
    b, a, half = np.deg2rad(grid.latitude_bounds), np.deg2rad(tilt), np.pi / grid.shape[1]
    area = np.diff(np.sin(b))[:, None]
    zonal = np.diff(b / 2 + np.sin(2 * b) / 4)[:, None] / area
    wave = np.diff(np.sin(b) ** 2 / 2)[:, None] / area * np.sin(half) / half
    return zonal * np.cos(a) + wave * np.cos(np.deg2rad(grid.longitude)) * np.sin(a)


def test_solid_body_rotation_converges() -> None:
    nested = Grid(_global(15.0, poles=False).latitude, np.arange(7.5, 360, 15))
    errors: dict[str, list[float]] = {"bilinear": [], "conservative": [], "means": []}
    for spacing in (5.0, 2.5, 1.25):
        lat = _global(spacing, poles=False).latitude
        source = Grid(lat, np.arange(spacing / 2, 360, spacing))
        bilinear = Regridder.build(source, GAUSSIAN)(_on(source, _rotation(source)))
        conservative = Regridder.build(source, nested, "conservative")
        truth = _rotation_means(nested)
        errors["bilinear"].append(np.abs(bilinear - _rotation(GAUSSIAN)).max())
        errors["conservative"].append(
            np.abs(conservative(_on(source, _rotation(source))) - truth).max()
        )
        means = conservative(_on(source, _rotation_means(source)))
        errors["means"].append(np.abs(means - truth).max())
    # means of means are means
    assert max(errors.pop("means")) < 1e-12
    for found in errors.values():
        assert found[0] < 5e-3
        # second order; where the nodes fall within the cells changes the maximum a little
        assert np.log2(found[0] / found[-1]) / 2 > 1.7


def test_the_same_grid_is_the_identity() -> None:
    for grid in (UK, FINE, GAUSSIAN):
        for method in ("bilinear", "conservative"):
            weights = Regridder.build(grid, grid, method).weights
            assert weights.nnz == grid.size
            np.testing.assert_allclose(weights.diagonal(), 1.0, rtol=1e-12)


def test_the_pole_is_the_mean_of_the_last_row_and_a_band_has_none() -> None:
    source = _global(10.0, poles=False)
    field = np.random.default_rng(1).standard_normal(source.shape)
    out = Regridder.build(source, FINE)(_on(source, field))
    np.testing.assert_allclose(out[0], field[0].mean(), rtol=1e-12)
    band = Grid(np.arange(-30.0, 31, 10), source.longitude)
    assert np.abs(FINE.latitude[Regridder.build(band, FINE).covered.any(axis=1)]).max() == 30.0


def test_polar_rows_are_made_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    source = _global(10.0, poles=False)
    lat, lon = np.meshgrid(FINE.latitude, FINE.longitude, indexing="ij")
    whole = bilinear_weights(source, lat, lon)
    monkeypatch.setattr("xappa.regrid.weights._BATCH", 100)
    assert abs(whole - bilinear_weights(source, lat, lon)).max() == 0


def test_coverage_of_a_region() -> None:
    target = Grid(np.arange(48.5, 60, 1.0), np.arange(-12.5, 4, 1.0))
    for method in ("bilinear", "conservative"):
        regridder = Regridder.build(UK, target, method)
        assert 0 < regridder.covered.mean() < 1
        out = regridder(_on(UK, np.ones((1, 1))))
        np.testing.assert_array_equal(out.isnull(), ~regridder.covered)
    # cells reach from 49.875 to 58.125 degrees north: an eighth of the cell from 49 to 50
    column = int(np.argmin(np.abs(target.longitude)))
    edges = np.sin(np.deg2rad([49.0, 49.875, 50.0]))
    share = (edges[2] - edges[1]) / (edges[2] - edges[0])
    assert regridder.coverage[1, column] == pytest.approx(share, rel=1e-9)
    np.testing.assert_allclose(regridder(_on(UK, np.ones((1, 1))), skipna=True)[1, column], 1.0)
    # single-precision coordinates move the bounds by less than what counts as uncovered
    rounded = Grid(UK.latitude.astype(np.float32), (UK.longitude + 0.1).astype(np.float32))
    cells = Grid(np.arange(50.125, 58, 0.5), np.arange(-9.65, 2, 0.5))
    assert Regridder.build(rounded, cells, "conservative").covered.all()


def test_means_over_cells_are_products_of_overlaps() -> None:
    rng = np.random.default_rng(0)
    n = 60
    south, west = rng.uniform(-90, 90, n), rng.uniform(-400, 400, n)
    north = np.minimum(south + rng.choice([0.0, -1.0, 1.0, 30.0, 200.0], n), 90.0)
    width = rng.choice([0.0, 0.5, 40.0, 359.0, 360.0], n)
    cells = np.stack([south, north, west, west + width], axis=1)
    cells[0] = np.nan
    for source in (*GLOBAL, UK):
        weights = cell_weights(source, cells)
        bounds = np.sin(np.deg2rad(np.sort(source.latitude_bounds)))
        meridians = longitude_bounds(source)
        for k in range(n):
            low, high = np.sin(np.deg2rad(cells[k, :2]))
            rows = np.clip(np.minimum(high, bounds[1:]) - np.maximum(low, bounds[:-1]), 0, None)
            if source.latitude[0] > source.latitude[-1]:
                rows = rows[::-1]
            columns = sum(
                np.clip(
                    np.minimum(west[k] + width[k] + turn, meridians[1:])
                    - np.maximum(west[k] + turn, meridians[:-1]),
                    0,
                    None,
                )
                for turn in 360.0 * np.arange(-3, 4)
            )
            area = (high - low) * width[k]
            expected = np.outer(rows, columns).ravel() / area if area > 0 else np.zeros(source.size)
            # slivers of 1e-10 of a cell are left out
            np.testing.assert_allclose(weights[[k]].toarray()[0], expected, atol=2e-10)
    assert cell_weights(UK, np.zeros((0, 4))).shape == (0, UK.size)


@pytest.mark.parametrize("kind", ["points", "cells"])
def test_memory_stays_within_what_is_returned(kind: str) -> None:
    source = Grid(np.linspace(90, -90, 721), np.arange(0, 360, 0.25))
    rng = np.random.default_rng(0)
    n = 200_000 if kind == "points" else 20_000
    lat, lon = rng.uniform(-89, 88, n), rng.uniform(-180, 360, n)
    tracemalloc.start()
    if kind == "points":
        weights = bilinear_weights(source, lat, lon)
    else:
        weights = cell_weights(source, np.stack([lat, lat + 0.7, lon, lon + 0.7], axis=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-9)
    # a few arrays beside value and column; a dense row per cell would be 160 MB of shares alone
    assert peak < 12 * (weights.data.nbytes + weights.indices.nbytes)


# Missing values -----------------------------------------------------------------------------------


def test_missing_values_spread_or_are_skipped() -> None:
    field = np.ones(UK.shape)
    field[10, 10] = np.nan
    for method in ("bilinear", "conservative"):
        regridder = Regridder.build(UK, INSIDE_UK, method)
        touched = (regridder.weights[:, [10 * 49 + 10]].toarray() > 0).reshape(INSIDE_UK.shape)
        out = regridder(_on(UK, field))
        assert touched.any()
        np.testing.assert_array_equal(out.isnull(), touched)
        skipped = regridder(_on(UK, field), skipna=True)
        only = np.asarray(regridder.weights.sum(axis=1)).reshape(INSIDE_UK.shape)
        alone = touched & (regridder.weights[:, [10 * 49 + 10]].toarray().reshape(only.shape) > 0.9)
        np.testing.assert_array_equal(skipped.isnull(), alone)
        np.testing.assert_allclose(skipped.values[~alone], 1.0, rtol=1e-12)
    empty = Regridder.build(UK, INSIDE_UK)(_on(UK, np.full((1, 1), np.nan)), skipna=True)
    assert empty.isnull().all()


def test_a_missing_neighbour_of_weight_zero_does_no_harm() -> None:
    field = np.random.default_rng(0).standard_normal(UK.shape)
    field[::2] = np.nan
    for method in ("bilinear", "conservative"):
        out = Regridder.build(UK, Grid(UK.latitude[::-1], UK.longitude), method)(_on(UK, field))
        np.testing.assert_allclose(out, field[::-1], rtol=1e-12)


# Labels and laziness ------------------------------------------------------------------------------


def _dataset(grid: Grid = UK) -> xr.Dataset:
    rng = np.random.default_rng(3)
    t2m = _on(grid, rng.standard_normal((4, *grid.shape)).astype(np.float32), units="K")
    ds = xr.Dataset({"t2m": t2m.transpose("lat", "time", "lon")})
    ds["lsm"] = _on(grid, rng.integers(0, 2, grid.shape))
    ds["flag"] = _on(grid, rng.integers(0, 2, grid.shape), flag_values="0, 1")
    ds["index"] = ("time", np.arange(4.0), {"long_name": "an index"})
    ds["lat_bnds"] = (("lat", "nv"), np.zeros((grid.shape[0], 2)))
    ds["lat"].attrs |= {"bounds": "lat_bnds", "long_name": "rows"}
    ds["t2m"].attrs |= {"GRIB_Nx": 49, "valid_range": [0.0, 1.0]}
    ds = ds.assign_coords(
        time=("time", np.arange(4), {"axis": "T"}),
        orography=(("lat", "lon"), np.ones(grid.shape)),
        zone=("lat", np.arange(grid.shape[0])),
        height=2.0,
    )
    ds.attrs["title"] = "test"
    return ds


def test_labels_of_a_dataset() -> None:
    ds = _dataset()
    before = ds.copy(deep=True)
    with pytest.warns(XappaWarning, match="left out: flag"):
        out = Regridder.build(ds, INSIDE_UK)(ds)
    xr.testing.assert_identical(ds, before)
    assert list(out.data_vars) == ["t2m", "lsm", "index"]
    assert out["t2m"].dims == ("lat", "time", "lon")
    assert out["t2m"].dtype == np.float32
    assert out["lsm"].dtype == np.float64
    assert out["t2m"].attrs == {"units": "K"}
    assert out["lat"].attrs["long_name"] == "rows"
    assert "bounds" not in out["lat"].attrs
    assert set(out.coords) == {"time", "lat", "lon", "orography", "height"}
    assert out.attrs == {"title": "test"}
    xr.testing.assert_identical(
        out["index"], ds["index"].drop_vars("height").assign_coords(height=2.0)
    )
    np.testing.assert_array_equal(out["lat"], INSIDE_UK.latitude)
    np.testing.assert_allclose(out["orography"], 1.0)
    # a DataArray gives the same, under its name
    xr.testing.assert_identical(Regridder.build(ds, INSIDE_UK)(ds["t2m"]), out["t2m"])
    with pytest.raises(DataError, match="only numbers can be regridded"):
        Regridder.build(ds, INSIDE_UK)(ds["flag"])


def test_other_names_of_dimensions_and_units() -> None:
    import pint_xarray  # noqa: F401

    da = _on(UK, np.ones((1, 1)), "t", units="K").rename(lat="y", lon="x")
    da = (
        da.rename(y="rows", x="columns")
        .assign_coords(lat=("rows", UK.latitude), lon=("columns", UK.longitude))
        .drop_vars(["rows", "columns"])
    )
    out = Regridder.build(da, INSIDE_UK)(da)
    assert out.dims == ("rows", "columns")
    assert out["lat"].dims == ("rows",)
    quantified = Regridder.build(UK, INSIDE_UK)(
        _on(UK, np.ones((1, 1)), "t").pint.quantify("K", lat=None, lon=None)
    )
    assert str(quantified.pint.units) == "kelvin"


@pytest.mark.parametrize("chunks", [{"time": 1}, {"lat": 5, "lon": 7}, {"time": 2, "lat": 10}])
@pytest.mark.parametrize("skipna", [False, True])
def test_dask_stays_lazy(chunks: dict[str, int], skipna: bool) -> None:
    ds = _dataset().drop_vars("flag")
    regridder = Regridder.build(UK, INSIDE_UK, "conservative")
    with raise_if_dask_computes():
        lazy = regridder(ds.chunk(chunks), skipna=skipna)
        assert lazy["t2m"].chunks is not None
        assert lazy["t2m"].data._meta.dtype == np.float32
    xr.testing.assert_identical(lazy.compute(), regridder(ds, skipna=skipna))
    again = regridder(ds.chunk(chunks), skipna=skipna)
    assert dask.base.tokenize(lazy) == dask.base.tokenize(again)


def test_values_semantics_and_pickle() -> None:
    regridder = Regridder.build(UK, INSIDE_UK)
    same = pickle.loads(pickle.dumps(regridder))
    assert same == regridder
    assert hash(same) == hash(regridder)
    assert regridder != Regridder.build(UK, INSIDE_UK, "conservative")
    assert regridder != "regridder"
    assert repr(regridder).startswith("Regridder bilinear, 100 % of the target covered")
    with pytest.raises(ValueError, match="read-only"):
        regridder.weights.data[0] = 2.0
    with pytest.raises(AttributeError, match="method"):
        regridder.method = "other"  # type: ignore[misc]


def test_regridding_leaves_torch_out() -> None:
    code = "import sys, xappa.regrid; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Bad input ----------------------------------------------------------------------------------------


def test_bad_input() -> None:
    with pytest.raises(ArgumentError, match="unknown method of regridding"):
        Regridder.build(UK, INSIDE_UK, "cubic")
    with pytest.raises(ArgumentError, match="weights do not fit the grids"):
        Regridder(scipy.sparse.csr_array((2, 3)), UK, INSIDE_UK, "bilinear")
    regridder = Regridder.build(UK, INSIDE_UK)
    for other in (FINE, Grid(UK.latitude[::-1], UK.longitude), Grid(UK.latitude, UK.longitude + 1)):
        with pytest.raises(GridMismatchError, match="not on the grid that the weights are for"):
            regridder(_on(other, np.ones((1, 1))))
    # the other convention of longitude is the same grid
    regridder(_on(Grid(UK.latitude, UK.longitude % 360), np.ones((1, 1))))
    point = _on(UK, np.ones((1, 1)))[:1, :1]
    with pytest.raises(DataError, match="single point"):
        Regridder.build(point, point)(point.isel(lat=0, lon=0))


def test_xesmf_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xesmf", None)
    with pytest.raises(MissingDependencyError, match=r"xappa\[xesmf\]"):
        Regridder.build(UK, INSIDE_UK, "xesmf:patch")
    asked: dict[str, Any] = {}

    def stub(source: xr.Dataset, target: xr.Dataset, method: str, **kwargs: Any) -> Any:
        asked.update(kwargs, method=method, sizes=(dict(source.sizes), dict(target.sizes)))
        matrix = Regridder.build(UK, INSIDE_UK).weights.tocoo()
        data = SimpleNamespace(to_scipy_sparse=lambda: matrix)
        return SimpleNamespace(weights=SimpleNamespace(data=data))

    monkeypatch.setitem(sys.modules, "xesmf", SimpleNamespace(Regridder=stub))
    regridder = Regridder.build(UK, INSIDE_UK, "xesmf:patch")
    assert regridder.method == "xesmf:patch"
    assert asked["method"] == "patch"
    assert not asked["periodic"]
    assert asked["sizes"][0] == {"lat": 33, "lon": 49, "lat_b": 34, "lon_b": 50}
    assert abs(regridder.weights - Regridder.build(UK, INSIDE_UK).weights).max() == 0
