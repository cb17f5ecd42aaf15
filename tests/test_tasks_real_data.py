"""Real files, whole, through every task, and back with their own labels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

import xappa
from xappa.errors import GuessWarning, XappaWarning

pytestmark = [pytest.mark.data, pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")]

FILES = {
    "era5-uk": "era5-2mt-2019-03-uk.grib",
    "era5-members": "era5-levels-members.grib",
    "eraint-uvz": "eraint_uvz.nc",
    "era5-tl31": "era5_tl31_19590102T00.nc",
}


def open_file(name: str) -> xr.Dataset:
    if xappa.tutorial.find_file(FILES[name]) is None:
        pytest.skip(f"{FILES[name]} is not at hand (XAPPA_DATA_DIR or ../shared/data)")
    if FILES[name].endswith("grib"):
        pytest.importorskip("cfgrib", reason="GRIB files need cfgrib")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files' own faults
        return xappa.tutorial.open_dataset(name).load()


def assert_labels(out: xr.Dataset, ds: xr.Dataset, *, names=None, new: str | None = None) -> None:
    """Dims, coordinates, dtype, units and names are those of ds."""
    for name in names or ds.data_vars:
        dims = ds[name].dims if new is None else (new, *ds[name].dims)
        assert out[name].dims == dims
        assert out[name].dtype == ds[name].dtype
        assert out[name].attrs["units"] == ds[name].attrs["units"]
        assert out[name].attrs["long_name"] == ds[name].attrs["long_name"]
        assert not [key for key in out[name].attrs if key.startswith("GRIB_")]
    # A scalar realization number would contradict the new members; all else is there.
    assert set(ds.coords) - set(out.coords) <= ({"number"} if new else set())
    for name in set(ds.coords) & set(out.coords):
        np.testing.assert_array_equal(out[name].values, ds[name].values)
        assert out[name].dims == ds[name].dims


def through(ds: xr.Dataset, variable: str, error: float, names=None, **settings):
    """Fit, encode, decode, observe and assimilate; return the model and the analysis."""
    model = xappa.fit_gaussian(ds, modes=20)
    z = ds.appa.encode(model)
    assert np.isfinite(z.latent).all()
    assert_labels(z.appa.decode(model), ds, names=names)
    network = xappa.observe.random_stations(ds, 50, variable=variable, error=error, seed=0)
    truth = ds if "number" not in ds.dims else ds.isel(number=0, drop=True)
    obs = truth.appa.observe(network, seed=0)
    window = settings.pop("window", truth)
    return model, obs, window.appa.assimilate(obs, model, seed=0, **settings)


def test_regional_grib() -> None:
    ds = open_file("era5-uk")
    day = ds.isel(time=slice(216, 240))
    _, _, ens = through(ds, "t2m", 0.5, window=day, members=3)
    assert_labels(ens, day, new="member")
    assert ens.t2m.attrs["standard_name"] == "air_temperature"
    assert ens.valid_time.attrs["standard_name"] == "time"
    error = float(xappa.verify.rmse(ens.t2m, day.t2m))
    assert error < 0.75  # in the training data; stations' errors are 0.5 K


def test_global_background_ensemble() -> None:
    ds = open_file("era5-members")
    background = ds.isel(number=slice(1, None))  # member 0 is the truth
    model, _, ens = through(
        ds, "t", 0.1, window=background, background_error_scale=0.15, names=["z", "t"]
    )
    assert_labels(ens, background)
    assert ens.sizes["number"] == 9
    assert model.blanket == 2
    truth = ds.isel(number=0, drop=True)
    before, after = (
        float(np.sqrt(((x.t - truth.t) ** 2).weighted(np.cos(np.radians(ds.latitude))).mean()))
        for x in (background, ens)
    )
    assert after < 0.9 * before  # each member, which 50 radiosondes bring closer to the truth
    assert ens.t.attrs["cell_methods"] == "valid_time: point"


def test_global_climatological_months() -> None:
    ds = open_file("eraint-uvz")
    with pytest.warns(XappaWarning, match="2 states are few"):
        model, _, ens = through(ds, "u", 1.0, members=2)
    assert_labels(ens, ds, new="member")
    assert ens.u.dims == ("member", "month", "level", "latitude", "longitude")
    assert model.spec.n_channels == 9
    clim = model.climatology(np.zeros(1))[0, model.spec.slice_of("u")]
    before = float(np.sqrt(((ds.u.values - clim) ** 2).mean()))
    # Two states tell next to nothing: half of all variance is left to the residual.
    assert model.provenance["residual_fraction"] == pytest.approx(0.5)
    assert float(xappa.verify.rmse(ens.u, ds.u)) < 0.9 * before


def test_single_state_with_poor_metadata() -> None:
    ds = open_file("era5-tl31")
    with pytest.warns(GuessWarning, match="rotations about the Earth's axis"):
        model, _, ens = through(ds, "temperature", 1.0, members=2)
    assert_labels(ens, ds, new="member")
    assert ens.temperature.dims == ("member", "level", "longitude", "latitude")
    # Land stays land, and what was recognised is said.
    missing = ds.sea_surface_temperature.isnull()
    assert (ens.sea_surface_temperature.isnull() == missing).all()
    assert ens.sea_surface_temperature.attrs["standard_name"] == "sea_surface_temperature"
    assert float(xappa.verify.rmse(ens.temperature, ds.temperature)) < 1.1
    assert model.provenance["rotations"]
    assert "level: no units" in repr(ds.appa)
