"""`regrid_like`: to a model's grid and levels, and to those of another Dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from test_regrid import INSIDE_UK, UK, _on

import xappa
from xappa.errors import (
    ArgumentError,
    BundleError,
    CoordinateError,
    DataError,
    GridMismatchError,
    GuessWarning,
    UnitsError,
    VariableMismatchError,
)
from xappa.grid import Grid
from xappa.regrid import Curvilinear, Places, Regridder
from xappa.testing import raise_if_dask_computes, weather


def _states(grid: Grid, levels: tuple[float, ...], times: int = 24, seed: int = 0) -> xr.Dataset:
    """2 m temperature in K, and temperature on levels that is linear in log-pressure, in degC."""
    rng = np.random.default_rng(seed)
    time = np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h")
    surface = 280 + rng.standard_normal((times, 1, 1)) + np.cos(np.deg2rad(grid.latitude))[:, None]
    t2m = _on(grid, surface, standard_name="air_temperature", units="K")
    t2m = t2m.assign_coords(time=("time", time, {"standard_name": "time"}))
    logp = np.log(np.asarray(levels) / 1000)
    aloft = (t2m - 273.15).expand_dims(level=list(levels), axis=1) + xr.DataArray(
        30 * logp, dims="level"
    )
    ds = xr.Dataset({"t2m": t2m, "t": aloft})
    ds["t2m"] = ds["t2m"].assign_attrs(t2m.attrs, long_name="2 metre temperature")
    ds["t"].attrs = {"standard_name": "air_temperature", "units": "degC"}
    ds["level"].attrs = {"units": "hPa", "standard_name": "air_pressure"}
    return ds


@pytest.fixture(scope="module")
def model() -> Any:
    coarse = Grid(np.arange(51.0, 58, 2), np.arange(-9.0, 2, 2))
    rng = np.random.default_rng(5)
    ds = _states(coarse, (850.0, 600.0), times=40)
    ds = ds.map(lambda da: (da + 0.1 * rng.standard_normal(da.shape)).assign_attrs(da.attrs))
    for name, units in (("t2m", "K"), ("t", "degC")):
        ds[name].attrs = {"standard_name": "air_temperature", "units": units}
    return xappa.fit_gaussian(ds, modes=2, localisation=None, name="coarse")


@pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")
@pytest.mark.parametrize("method", ["bilinear", "conservative"])
def test_regrid_like(model: Any, method: str) -> None:
    ds = _states(UK, (500.0, 700.0, 850.0, 1000.0)).transpose(..., "time")
    ds["t"].encoding = {"scale_factor": 0.1, "dtype": "int16"}
    ds["t"].attrs |= {"valid_min": 0.0, "GRIB_Nx": 49}
    ds.attrs = {"title": "ERA5", "history": "made"}
    ds["index"] = ("time", np.arange(24.0))
    before = ds.copy(deep=True)
    out = ds.appa.regrid_like(model, method=method)
    xr.testing.assert_identical(ds, before)
    assert list(out.data_vars) == ["t2m", "t", "index"]
    assert out["t"].dims == ds["t"].dims
    np.testing.assert_array_equal(out["lat"], model.spec.grid.latitude)
    np.testing.assert_array_equal(out["lon"], model.spec.grid.longitude)
    # the direction is the Dataset's own: upside down
    assert out["level"].values.tolist() == [600.0, 850.0]
    assert out["level"].attrs == ds["level"].attrs
    assert out["t"].attrs == {"standard_name": "air_temperature", "units": "degC"}
    assert not out["t"].encoding
    xr.testing.assert_identical(out["index"], ds["index"])
    assert out.attrs["history"].startswith(f"made\nxappa: regrid_like with model {model.label}")
    assert f"method={method}" in out.attrs["history"]
    # linear in log-pressure, so exact
    difference = out["t"].sel(level=600.0) - out["t"].sel(level=850.0)
    np.testing.assert_allclose(difference, 30 * np.log(600 / 850), rtol=1e-9)
    # it fits: a task takes it
    assert out.appa.encode(model)["latent"].notnull().all()


@pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")
def test_regrid_like_is_lazy_and_reuses_weights(model: Any, tmp_path: Path) -> None:
    ds = _states(UK, (500.0, 1000.0))
    regridder = Regridder.build(ds, model.spec.grid)
    with raise_if_dask_computes():
        lazy = ds.chunk({"time": 5, "lat": 8}).appa.regrid_like(model, method=regridder)
    assert lazy["t"].chunks is not None
    eager = ds.appa.regrid_like(str(model.save(tmp_path / "coarse")))
    xr.testing.assert_allclose(lazy.compute(), eager, rtol=1e-12)
    other = Regridder.build(UK, INSIDE_UK)
    with pytest.raises(GridMismatchError, match="another grid than the model's"):
        ds.appa.regrid_like(model, method=other)


@pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")
def test_levels_that_are_there_are_left_alone(model: Any) -> None:
    ds = _states(model.spec.grid, (600.0, 700.0, 850.0))
    out = ds.appa.regrid_like(model)
    xr.testing.assert_equal(out["t"], ds["t"])
    xr.testing.assert_equal(out["t2m"], ds["t2m"])
    # Pa, missing values below ground: no interpolation towards what is missing
    pascal = _states(model.spec.grid, (50000.0, 70000.0, 100000.0)).assign_coords(
        level=("level", [50000, 70000, 100000], {"units": "Pa", "standard_name": "air_pressure"})
    )
    pascal["t"] = pascal["t"].where(pascal["level"] < 1e5)
    out = pascal.appa.regrid_like(model)
    assert out["level"].values.tolist() == [60000, 85000]
    assert out["level"].dtype == pascal["level"].dtype
    assert out["t"].isel(level=0).notnull().all()
    assert out["t"].isel(level=1).isnull().all()


def test_regrid_like_refuses(model: Any) -> None:
    ds = _states(UK, (500.0, 700.0, 850.0, 1000.0))
    with pytest.raises(VariableMismatchError, match="outside those of the Dataset: 600 hPa"):
        ds.sel(level=[700.0, 850.0]).appa.regrid_like(model)
    with pytest.raises(CoordinateError, match="levels are repeated"):
        ds.isel(level=[0, 1, 1, 3]).appa.regrid_like(model)
    with pytest.raises(VariableMismatchError, match="variable 't2m' of the state is not"):
        ds.drop_vars("t2m").appa.regrid_like(model)
    with pytest.raises(UnitsError, match="cannot be converted"):
        ds.assign(t=ds["t"].assign_attrs(units="Pa")).appa.regrid_like(model)
    small = ds.isel(lat=slice(8, None))  # up to 56 degrees: without one row of four
    with pytest.raises(GridMismatchError, match=r"2\d\.?\d* % of its area, 6 of 24 points"):
        small.appa.regrid_like(model)
    with pytest.raises(ExceptionGroup, match=r"(?s)does not cover.*600 hPa"):
        small.sel(level=[700.0, 850.0]).appa.regrid_like(model)
    with pytest.raises(ArgumentError, match="no model was given"):
        ds.appa.regrid_like(None)
    with pytest.raises(BundleError, match="no model 'nowhere'"):
        ds.appa.regrid_like("nowhere")
    with pytest.raises(ArgumentError, match="'raise' or 'nan'"):
        ds.appa.regrid_like(model, outside="ignore")


@pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")
def test_outside_can_be_missing(model: Any) -> None:
    small = _states(UK, (600.0, 850.0)).isel(lat=slice(8, None))
    out = small.appa.regrid_like(model, outside="nan")
    assert out["t2m"].isel(time=0, lon=0).isnull().values.tolist() == [False, False, False, True]


def test_guesses_are_said() -> None:
    ds = weather(times=40)
    model = xappa.fit_gaussian(ds, modes=2, localisation=None)
    with pytest.warns(GuessWarning, match="t2m"):
        weather(latitudes=12, longitudes=20).drop_vars("height").appa.regrid_like(model)


# To another Dataset -------------------------------------------------------------------------------


def _rotated(n: tuple[int, int] = (5, 6)) -> xr.Dataset:
    """A curvilinear grid within the British Isles."""
    y, x = np.meshgrid(np.linspace(-2, 2, n[0]), np.linspace(-3, 3, n[1]), indexing="ij")
    lat, lon = 54 + y * np.cos(0.3) - x * np.sin(0.3), -4 + y * np.sin(0.3) + x * np.cos(0.3)
    return xr.Dataset(
        coords={
            "lat": (("y", "x"), lat, {"standard_name": "latitude"}),
            "lon": (("y", "x"), lon, {"standard_name": "longitude"}),
            "x": ("x", np.arange(n[1]) * 1e5, {"units": "m"}),
        }
    )


@pytest.mark.parametrize("method", ["bilinear", "conservative"])
def test_to_the_grid_and_levels_of_another_dataset(method: str) -> None:
    ds = _states(UK, (500.0, 700.0, 850.0, 1000.0), times=3).transpose(..., "time")
    ds["t"] = ds["t"].astype(np.float32).assign_attrs(ds["t"].attrs, valid_min=0.0)
    ds.attrs = {"history": "made", "xappa_model": "old"}
    ds["index"] = ("time", np.arange(3.0))
    coarse = Grid(np.arange(51.0, 58, 2), np.arange(-9.0, 2, 2))
    other = _states(coarse, (60000.0, 85000.0), times=2).rename(lat="latitude", lon="longitude")
    other["level"].attrs = {"units": "Pa", "standard_name": "air_pressure"}
    before = ds.copy(deep=True), other.copy(deep=True)
    out = ds.appa.regrid_like(other, method=method)
    xr.testing.assert_identical(ds, before[0])
    xr.testing.assert_identical(other, before[1])
    assert list(out.data_vars) == ["t2m", "t", "index"]
    assert out["t"].dims == ds["t"].dims
    assert out["t"].dtype == np.float32
    # in their order, in the units of the Dataset
    assert out["level"].values.tolist() == [600.0, 850.0]
    assert out["level"].attrs == ds["level"].attrs
    assert out["t"].attrs == {"standard_name": "air_temperature", "units": "degC"}
    assert out["t2m"].attrs == ds["t2m"].attrs
    xr.testing.assert_identical(out["index"], ds["index"])
    np.testing.assert_array_equal(out["lat"], coarse.latitude)
    difference = out["t"].sel(level=600.0) - out["t"].sel(level=850.0)
    np.testing.assert_allclose(difference, 30 * np.log(600 / 850), rtol=1e-5)
    assert out.attrs["history"].startswith(f"made\nxappa: regrid_like (regrid_method={method}")
    assert "xappa_model" not in out.attrs
    expected = Regridder.build(UK, coarse, method)(ds["t2m"])
    np.testing.assert_array_equal(out["t2m"], expected)


def test_levels_of_another_dataset_are_taken_as_they_are() -> None:
    ds = _states(UK, (500.0, 700.0, 850.0), times=1)
    for levels in ((850.0, 500.0), (700.0,), (850.0, 600.0, 500.0)):
        out = ds.appa.regrid_like(_states(UK, levels, times=1))
        assert out["level"].values.tolist() == list(levels)
        np.testing.assert_allclose(
            out["t"].isel(time=0, lat=0, lon=0) - out["t2m"].isel(time=0, lat=0, lon=0) + 273.15,
            30 * np.log(np.array(levels) / 1000),
            rtol=1e-9,
        )
    # only where both have them
    xr.testing.assert_equal(ds.appa.regrid_like(ds[["t2m"]]), ds)
    single = ds.sel(level=700.0)
    assert ds.appa.regrid_like(single)["level"].size == 3
    assert single.appa.regrid_like(ds)["t"].dims == single["t"].dims
    with pytest.raises(VariableMismatchError, match="outside those of the Dataset: 300 hPa"):
        ds.appa.regrid_like(_states(UK, (300.0, 500.0), times=1))


def test_to_curvilinear_grids_and_places() -> None:
    ds = _states(UK, (500.0, 850.0), times=2)
    with raise_if_dask_computes():
        lazy = ds.chunk({"time": 1, "lat": 10}).appa.regrid_like(_rotated())
    assert lazy["t"].dims == ("time", "level", "y", "x")
    eager = ds.appa.regrid_like(_rotated())
    xr.testing.assert_allclose(lazy.compute(), eager)
    xr.testing.assert_equal(eager["lat"], _rotated()["lat"])
    da = ds["t2m"].isel(time=0).stack(points=("lat", "lon"))[[3, 40]].reset_index("points")
    out = ds.appa.regrid_like(da)
    np.testing.assert_allclose(out["t2m"].isel(time=0), da, rtol=1e-12)
    far = _rotated().assign_coords(lat=_rotated()["lat"] + 3)
    with pytest.raises(GridMismatchError, match=r"does not cover the grid: .* of its points"):
        ds.appa.regrid_like(far)
    out = ds.appa.regrid_like(far, outside="nan")
    assert 0 < out["t2m"].isnull().mean() < 1


@pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")
def test_from_a_curvilinear_grid_by_weights_from_a_file(model: Any, tmp_path: Path) -> None:
    fine = _states(UK, (600.0, 850.0), times=4).appa.regrid_like(_rotated((40, 60)))
    fine = fine.transpose(..., "x", "y", "time")
    with pytest.raises(ArgumentError, match="xesmf:bilinear"):
        fine.appa.regrid_like(model)
    # the nearest place of each point
    source = Curvilinear(fine["lat"].T.values, fine["lon"].T.values)
    at = Places(source.latitude.ravel(), source.longitude.ravel())
    grid = model.spec.grid
    apart = grid.distance(at.latitude, at.longitude)
    weights = np.zeros((grid.size, source.size))
    weights[np.arange(grid.size), apart.argmin(axis=1)] = 1
    path = Regridder(weights, source, grid, "nearest").save(tmp_path / "nearest.nc")
    out = fine.appa.regrid_like(model, method=Regridder.open(path))
    assert out["t"].dims == ("level", "lon", "lat", "time")
    np.testing.assert_array_equal(out["lat"], grid.latitude)
    picked = fine["t2m"].isel(time=0).transpose("y", "x").values.ravel()[apart.argmin(axis=1)]
    np.testing.assert_allclose(
        out["t2m"].isel(time=0).transpose("lat", "lon").values.ravel(), picked, rtol=1e-12
    )
    assert out.appa.encode(model)["latent"].notnull().all()


def test_targets_that_are_covered_in_part_are_not_covered(tmp_path: Path) -> None:
    ds = _states(UK, (500.0,), times=1)
    over = Grid(np.arange(50.5, 60, 1.0), np.arange(-9.5, 2, 1.0))
    path = Regridder.build(UK, over, "conservative").save(tmp_path / "weights.nc")
    foreign = xr.load_dataset(path)
    del foreign.attrs["xappa_partial"]
    foreign.to_netcdf(tmp_path / "foreign.nc")
    as_esmf = Regridder.open(tmp_path / "foreign.nc")
    assert as_esmf.partial
    like = _on(over, np.zeros((1, 1)))
    with pytest.raises(GridMismatchError, match="does not cover the grid"):
        ds.appa.regrid_like(like, method=as_esmf)
    out = ds.appa.regrid_like(like, method=as_esmf, outside="nan")
    np.testing.assert_array_equal(out["t2m"].isel(time=0).isnull(), ~as_esmf.covered)


def test_other_datasets_that_do_not_fit() -> None:
    ds = _states(UK, (500.0,), times=2)
    with pytest.raises(GridMismatchError, match="another grid than the model's or Dataset's"):
        ds.appa.regrid_like(_rotated(), method=Regridder.build(UK, INSIDE_UK))
    with pytest.raises(CoordinateError, match="no coordinate for latitude"):
        ds.appa.regrid_like(xr.Dataset({"a": ("x", [0.0])}))
    with pytest.raises(ArgumentError, match="'raise' or 'nan'"):
        ds.appa.regrid_like(ds, outside="ignore")
    track = xr.Dataset(coords={"lat": ("time", [51.0, 52.0]), "lon": ("time", [0.0, 1.0])})
    with pytest.raises(DataError, match="dimension of the target already"):
        ds.appa.regrid_like(track)


def test_quantities_stay_quantities() -> None:
    import pint_xarray  # noqa: F401

    ds = _states(UK, (500.0, 850.0), times=1)
    out = ds.pint.quantify(lat=None, lon=None, level=None).appa.regrid_like(_rotated())
    assert str(out["t2m"].pint.units) == "kelvin"
    plain = out.pint.dequantify()["t2m"]
    np.testing.assert_allclose(plain, ds.appa.regrid_like(_rotated())["t2m"])
