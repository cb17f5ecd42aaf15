"""Spectra, balance and mass, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xappa
from xappa.errors import CoordinateError, VariableMismatchError
from xappa.grid import EARTH_RADIUS as RADIUS
from xappa.verify.physics import GRAVITY, R_DRY, ROTATION

LEVELS = np.array([1000.0, 850.0, 500.0, 250.0])


def globe(step: float = 2.5) -> dict[str, tuple]:
    y = np.arange(-90 + step / 2, 90, step)
    x = np.arange(0, 360, step)
    return {
        "latitude": ("latitude", y, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", x, {"standard_name": "longitude", "units": "degrees_east"}),
        "level": ("level", LEVELS, {"standard_name": "air_pressure", "units": "hPa"}),
    }


def balanced(speed: float = 20.0, temperature: float = 260.0, humidity: float = 0.0) -> xr.Dataset:
    """A zonal wind that falls with the cosine of latitude, in balance, in isothermal air."""
    ds = xr.Dataset(coords=globe())
    y, p = np.deg2rad(ds.latitude), ds.level
    wind = speed * np.cos(y)
    over = xr.ones_like(p) * xr.ones_like(ds.longitude)
    virtual = temperature * (1 + 0.608 * humidity)
    z = -ROTATION * RADIUS * speed * np.sin(y) ** 2 - R_DRY * virtual * np.log(p / 1000.0)
    fields = {
        "u": (wind * over, "eastward_wind", "m s-1"),
        "v": (0 * wind * over, "northward_wind", "m s-1"),
        "t": (temperature + 0 * wind * over, "air_temperature", "K"),
        "q": (humidity + 0 * wind * over, "specific_humidity", "kg kg-1"),
        "z": (z * xr.ones_like(ds.longitude), "geopotential", "m2 s-2"),
    }
    for name, (da, standard_name, units) in fields.items():
        ds[name] = da.assign_attrs(standard_name=standard_name, units=units)
    ds["sp"] = (99_000.0 + 0 * ds.u.isel(level=0, drop=True)).assign_attrs(
        standard_name="surface_air_pressure", units="Pa"
    )
    return ds.transpose("level", "latitude", "longitude")


def test_a_wave_has_one_wavenumber_and_all_variance_is_found() -> None:
    rng = np.random.default_rng(0)
    ds = xr.Dataset(coords=globe(5.0))
    noise = xr.DataArray(
        rng.standard_normal((3, 36, 72)),
        {"time": [0, 1, 2], "latitude": ds.latitude, "longitude": ds.longitude},
        attrs={"units": "m s-1"},
        name="u",
    )
    spectrum = xappa.verify.zonal_spectrum(noise)
    assert spectrum.dims == ("time", "wavenumber")
    assert spectrum.attrs["units"] == "(m s-1)2"
    weights = np.cos(np.deg2rad(noise.latitude))
    variance = noise.var("longitude").weighted(weights).mean("latitude")
    xr.testing.assert_allclose(
        spectrum.isel(wavenumber=slice(1, None)).sum("wavenumber").drop_attrs(),
        variance.rename(None).drop_attrs(),
    )
    lazy = xappa.verify.zonal_spectrum(noise.chunk(longitude=10, time=1))
    assert lazy.chunks is not None
    xr.testing.assert_allclose(lazy.compute(), spectrum)
    north = xappa.verify.zonal_spectrum(noise, latitudes=(30, 60))
    xr.testing.assert_allclose(
        north, xappa.verify.zonal_spectrum(noise.sel(latitude=slice(30, 60)))
    )
    with pytest.raises(CoordinateError, match="go round the globe"):
        xappa.verify.zonal_spectrum(noise.isel(longitude=slice(0, 30)))


def test_balanced_winds_are_balanced() -> None:
    ds = balanced()
    imbalance = xappa.verify.geostrophic_imbalance(ds)
    assert imbalance.dims == ("level", "latitude")
    assert float(imbalance.sel(latitude=slice(-80, 80)).max()) < 2e-3
    near = imbalance.sel(latitude=slice(-14, 14))
    assert bool(near.isnull().all())
    # without the wind that the geopotential asks for, or with twice of it, all is imbalance
    ds["u"] = (2 * ds.u).assign_attrs(ds.u.attrs)
    twice = xappa.verify.geostrophic_imbalance(ds).sel(latitude=[-50, 50], method="nearest")
    np.testing.assert_allclose(twice, 0.5, atol=2e-3)


def test_a_wave_in_the_geopotential_has_its_wind() -> None:
    ds = balanced(speed=0.0)
    x, y = np.deg2rad(ds.longitude), np.deg2rad(ds.latitude)
    bump = 500 * np.cos(4 * x) * np.cos(y) ** 2
    f = 2 * ROTATION * np.sin(y)
    ds["z"] = (ds.z + bump).assign_attrs(ds.z.attrs)
    over = xr.ones_like(ds.level)
    v = -2000 * np.sin(4 * x) * np.cos(y) / (f * RADIUS) * over
    u = 1000 * np.cos(4 * x) * np.cos(y) * np.sin(y) / (f * RADIUS) * over
    ds["u"], ds["v"] = u.assign_attrs(ds.u.attrs), v.assign_attrs(ds.v.attrs)
    imbalance = xappa.verify.geostrophic_imbalance(ds.isel(longitude=slice(None, None, -1)))
    assert float(imbalance.sel(latitude=slice(20, 80)).max()) < 0.02
    region = ds.sel(longitude=slice(20, 100), latitude=slice(30, 60))
    assert float(xappa.verify.geostrophic_imbalance(region).max()) < 0.06


@pytest.mark.parametrize("humidity", [0.0, 0.01])
@pytest.mark.parametrize("of_height", [False, True])
def test_hydrostatic_layers(humidity, of_height) -> None:
    ds = balanced(humidity=humidity)
    if of_height:
        about = {"standard_name": "geopotential_height", "units": "dam"}
        ds["z"] = (ds.z / GRAVITY / 10).assign_attrs(about)
    residual = xappa.verify.hydrostatic_residual(ds)
    assert residual.sizes["layer"] == 3
    assert float(abs(residual).max()) < 1e-6
    np.testing.assert_allclose(residual.layer, 100 * np.sqrt(LEVELS[1:] * LEVELS[:-1]))
    ds["t"] = (ds.t - 2).assign_attrs(ds.t.attrs)
    warm = xappa.verify.hydrostatic_residual(ds.isel(level=slice(None, None, -1)))
    np.testing.assert_allclose(warm, 2 * (1 + 0.608 * humidity), rtol=1e-6)
    with pytest.raises(CoordinateError, match="two levels"):
        xappa.verify.hydrostatic_residual(ds.isel(level=[0]))


def test_water_does_not_count_as_dry_air() -> None:
    assert float(xappa.verify.dry_mass(balanced())) == pytest.approx(99_000)
    # from the highest level, 250 hPa, to the ground
    moist = balanced(humidity=0.01)
    assert float(xappa.verify.dry_mass(moist)) == pytest.approx(99_000 - 0.01 * 74_000)
    flipped = moist.isel(level=slice(None, None, -1), latitude=slice(None, None, -1))
    assert float(xappa.verify.dry_mass(flipped)) == pytest.approx(99_000 - 0.01 * 74_000)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(VariableMismatchError, match="there is no northward_wind"):
        xappa.verify.geostrophic_imbalance(balanced().drop_vars("v"))
    with pytest.raises(VariableMismatchError, match="there is no surface_air_pressure"):
        xappa.verify.dry_mass(balanced().drop_vars("sp"))
