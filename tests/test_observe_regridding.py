"""Grids are observations: means over their cells, or weights of regridding of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.errors import CoordinateError, GridMismatchError
from xappa.grid import Grid
from xappa.regrid import Regridder

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")


@pytest.fixture(scope="module")
def world() -> xr.Dataset:
    """A smooth field on a global grid of 5 degrees, north to south."""
    lat, lon = np.linspace(90, -90, 37), np.arange(0.0, 360.0, 5.0)
    phi, lam = np.radians(lat)[:, None], np.radians(lon)
    t = 273.15 + 20 * np.cos(phi) * np.cos(lam) + 10 * np.sin(phi)
    time = np.datetime64("2020-01-01", "ns") + np.arange(2) * np.timedelta64(6, "h")
    attrs = {"standard_name": "air_temperature", "units": "K"}
    field = ("time", "latitude", "longitude"), np.stack([t, t + 1.0]), attrs
    coords = {
        "time": time,
        "latitude": ("latitude", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return xr.Dataset({"t": field}, coords)


def coarse(world: xr.Dataset, **attrs) -> xr.DataArray:
    lat, lon = np.arange(-80.0, 90, 20), np.arange(-170.0, 180, 20)
    values = np.full((2, lat.size, lon.size), 280.0) + np.arange(lon.size)
    base = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
    coords = {"time": world.time, "lat": lat, "lon": lon}
    return xr.DataArray(values, coords, ("time", "lat", "lon"), "t", {**base, **attrs})


def test_a_coarse_grid_is_the_mean_over_its_cells(world) -> None:
    obs = coarse(world, cell_methods="area: mean")
    operator = world.appa.operator(obs)
    expected = Regridder.build(world, obs, "conservative")(world.t)
    np.testing.assert_allclose(operator(world), expected, rtol=1e-12)
    area = Grid(obs.lat.values, obs.lon.values).area_weights()
    fine = Grid(world.latitude.values, world.longitude.values).area_weights()
    means = [np.average(operator(world)[0], weights=area), np.average(world.t[0], weights=fine)]
    np.testing.assert_allclose(*means, rtol=1e-12)
    assert "mean over cells" in repr(operator)
    holes = obs.where(obs.lon > 0)
    assert world.appa.operator(holes).n_used == obs.size // 2


def test_a_coarse_grid_without_methods_is_points(world) -> None:
    obs = coarse(world)
    expected = Regridder.build(world, obs, "bilinear")(world.t)
    np.testing.assert_allclose(world.appa.operator(obs)(world), expected, rtol=1e-12)


@pytest.fixture
def curvilinear(world) -> xr.DataArray:
    y, x = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 6), indexing="ij")
    coords = {
        "time": world.time,
        "lat": (("y", "x"), 45 + 20 * y + 5 * x, {"standard_name": "latitude"}),
        "lon": (("y", "x"), 10 + 25 * x - 8 * y, {"standard_name": "longitude"}),
    }
    attrs = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
    values = np.arange(60.0).reshape(2, 5, 6) + 250
    return xr.DataArray(values, coords, ("time", "y", "x"), "t", attrs)


def test_weights_that_observations_carry(world, curvilinear, tmp_path) -> None:
    regridder = Regridder.build(world, curvilinear)
    obs = xappa.obs.with_weights(curvilinear, regridder)
    operator = world.appa.operator(obs)
    np.testing.assert_allclose(operator(world).t, regridder(world.t), rtol=1e-12)
    assert [spec.name for spec in operator.specs] == ["t"]
    assert not any("left out" in guess for guess in operator.specs[0].guesses)
    assert "regridded by weights of its own" in repr(operator)
    obs.to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataset(tmp_path / "obs.nc") as again:
        found = world.appa.operator(again)
    for name in ("indices", "data", "indptr"):
        np.testing.assert_array_equal(getattr(found.rows, name), getattr(operator.rows, name))
    x = torch.randn(2, 1, 37, 72, dtype=torch.float64)
    dy = torch.randn(operator.n_used, dtype=torch.float64)
    (back,) = torch.func.vjp(operator.apply, x)[1](dy)
    torch.testing.assert_close(operator.apply(x) @ dy, (back * x).sum())


def test_weights_find_the_state_however_it_is_stored(world, curvilinear) -> None:
    obs = xappa.obs.with_weights(curvilinear, Regridder.build(world, curvilinear))
    turned = world.isel(latitude=slice(None, None, -1))
    turned = turned.assign_coords(longitude=(turned.longitude + 180) % 360 - 180)
    turned = turned.sortby("longitude")
    np.testing.assert_allclose(
        turned.appa.operator(obs)(turned).t, world.appa.operator(obs)(world).t, rtol=1e-12
    )
    with pytest.raises(GridMismatchError):
        world.isel(latitude=slice(None, None, 2)).appa.operator(obs)


def test_weights_that_do_not_fit(world, curvilinear) -> None:
    regridder = Regridder.build(world, curvilinear)
    with pytest.raises(CoordinateError, match="do not lead from a state's grid"):
        xappa.obs.with_weights(curvilinear.isel(y=slice(3)), regridder)
    obs = xappa.obs.with_weights(curvilinear, regridder)
    for bad in (obs.drop_vars("S"), obs.assign(row=obs.row + 5), obs.assign(S=obs.S * np.nan)):
        with pytest.raises(CoordinateError, match="weights of the observations cannot be used"):
            world.appa.operator(bad)
