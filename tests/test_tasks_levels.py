"""States of several variables on levels, as users store them: any order, unit, calendar, chunks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import dask
import numpy as np
import pytest
import xarray as xr

import xappa
from xappa.testing import raise_if_dask_computes

VARIABLES = ("t", "u", "msl")
REALIZATION = {"standard_name": "realization"}


@pytest.fixture(scope="module")
def globe() -> xr.Dataset:
    """Temperature and wind on three levels and pressure at sea level, 32 times, 30 degrees."""
    rng = np.random.default_rng(0)
    latitude, longitude = np.linspace(90, -90, 7), 30.0 * np.arange(12)
    modes = 0.5 * rng.standard_normal((32, 3, 3)).cumsum(axis=0)
    shape = (3, 3, latitude.size, longitude.size)
    t, u, p = (
        np.einsum("tk,klij->tlij", modes[:, k], rng.standard_normal(shape)) for k in range(3)
    )
    on_levels, flat = ("time", "level", "latitude", "longitude"), ("time", "latitude", "longitude")
    time = np.datetime64("2001-01-01", "ns") + np.arange(32) * np.timedelta64(12, "h")
    pressure = {"standard_name": "air_pressure_at_mean_sea_level", "units": "Pa"}
    return xr.Dataset(
        {
            "t": (
                on_levels,
                (250 + t).astype("f4"),
                {"standard_name": "air_temperature", "units": "K"},
            ),
            "u": (
                on_levels,
                (2 * u).astype("f4"),
                {"standard_name": "eastward_wind", "units": "m s-1"},
            ),
            "msl": (flat, 101325 + 100 * p[:, 0], pressure),
        },
        {
            "time": ("time", time, {"standard_name": "time"}),
            "level": (
                "level",
                [850, 500, 200],
                {"standard_name": "air_pressure", "units": "hPa"},
            ),
            "latitude": ("latitude", latitude, {"standard_name": "latitude"}),
            "longitude": ("longitude", longitude, {"standard_name": "longitude"}),
        },
    )


@pytest.fixture(scope="module")
def model(globe):
    return xappa.fit_gaussian(globe, modes=8)


@pytest.fixture(scope="module")
def window(globe) -> xr.Dataset:
    return globe.isel(time=slice(3, 8))


@pytest.fixture(scope="module")
def obs(window) -> dict[str, xr.DataArray]:
    network = {
        "radiosondes": xappa.observe.random_stations(window, 6, variable="t", error=0.5, seed=0),
        "barometers": xappa.observe.random_stations(window, 4, variable="msl", error=50.0, seed=1),
    }
    return window.appa.observe(network, seed=0)


BACKGROUNDS = {
    "none": {},
    "scale": {"background_error_scale": 0.5},
    "errors": {"background_error": {"t": 1.0, "u": 2.0, "msl": 150.0}},
}


@pytest.fixture(scope="module")
def analyses(window, obs, model) -> dict[str, xr.Dataset]:
    return {
        name: window.appa.assimilate(obs, model, members=2, seed=0, **settings)
        for name, settings in BACKGROUNDS.items()
    }


def in_pascal(ds: xr.Dataset) -> xr.Dataset:
    attrs = {"standard_name": "air_pressure", "units": "Pa"}
    return ds.assign_coords(level=("level", ds.level.values * 100.0, attrs))


def with_another_level(ds: xr.Dataset) -> xr.Dataset:
    layered = ds[["t", "u"]]
    extra = layered.isel(level=[0]).assign_coords(level=("level", [100], ds.level.attrs))
    return xr.concat([layered, extra], "level").assign(msl=ds.msl)


def from_180_west(ds: xr.Dataset) -> xr.Dataset:
    turned = ((ds.longitude + 180) % 360 - 180).assign_attrs(ds.longitude.attrs)
    return ds.assign_coords(longitude=turned).sortby("longitude")


TURNED: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "Pa": in_pascal,
    "levels upwards": lambda ds: ds.isel(level=slice(None, None, -1)),
    "levels shuffled": lambda ds: ds.isel(level=[1, 0, 2]),
    "a level more": with_another_level,
    "a variable more": lambda ds: ds.assign(
        more=ds.msl.assign_attrs(standard_name="surface_air_pressure")
    ),
    "-180 to 180": from_180_west,
    "latitude ascending": lambda ds: ds.sortby("latitude"),
    "dims reversed": lambda ds: ds.transpose(),
    "noleap": lambda ds: ds.convert_calendar("noleap", use_cftime=True),
    "chunks": lambda ds: ds.chunk(time=2, longitude=5),
}


def turned_back(out: xr.Dataset, how: str, like: xr.Dataset) -> xr.Dataset:
    if how == "Pa":
        out = out.assign_coords(level=out.level / 100)
    if how == "-180 to 180":
        out = out.assign_coords(longitude=out.longitude % 360).sortby("longitude")
    out = out.sel(level=like.level.values, latitude=like.latitude.values)
    return out.transpose(*like.t.dims).compute()


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("how", TURNED)
def test_how_a_dataset_is_stored_does_not_matter(
    window, obs, model, analyses, how, background
) -> None:
    given = TURNED[how](window)
    out = given.appa.assimilate(obs, model, members=2, seed=0, **BACKGROUNDS[background])
    assert set(out.data_vars) == set(VARIABLES)
    for name in VARIABLES:
        assert out[name].dims == ("member", *given[name].dims)
        assert out[name].dtype == given[name].dtype
        assert out[name].attrs["units"] == given[name].attrs["units"]
    for name in ("latitude", "longitude", "time"):
        xr.testing.assert_identical(out[name].variable, given[name].variable)
    found = turned_back(out, how, analyses[background])
    for name in VARIABLES:
        expected = analyses[background][name]
        # float32 labels and values: temperatures of 250 K have 1.5e-5 K between them.
        np.testing.assert_allclose(
            found[name].transpose(*expected.dims), expected, rtol=1e-6, atol=1e-4
        )


def test_units_of_a_dataset_are_its_own(window, obs, model, analyses) -> None:
    given = window.assign(
        msl=(window.msl / 100).assign_attrs(window.msl.attrs, units="hPa"),
        t=(window.t - 273.15).assign_attrs(window.t.attrs, units="degC"),
    )
    errors = {"t": 1.0, "u": 2.0, "msl": 1.5}  # in the Dataset's units: hPa
    out = given.appa.assimilate(obs, model, members=2, seed=0, background_error=errors)
    assert out.msl.attrs["units"] == "hPa"
    np.testing.assert_allclose(out.msl * 100, analyses["errors"].msl, rtol=1e-6)
    np.testing.assert_allclose(out.t + 273.15, analyses["errors"].t, atol=1e-3)


def quantity(array: xr.DataArray) -> xr.DataArray:
    pint_xarray = pytest.importorskip("pint_xarray")
    attrs = {key: value for key, value in array.attrs.items() if key != "units"}
    data = pint_xarray.unit_registry.Quantity(array.values, array.attrs["units"])
    return array.copy(data=data).drop_attrs(deep=False).assign_attrs(attrs)


def test_quantities_come_back_as_quantities(window, obs, model, analyses) -> None:
    given = window.assign({name: quantity(window[name]) for name in VARIABLES})
    out = given.appa.assimilate(obs, model, members=2, seed=0)
    units = [str(out[name].pint.units) for name in VARIABLES]
    assert units == ["kelvin", "meter / second", "pascal"]
    for name in VARIABLES:
        np.testing.assert_array_equal(out[name].pint.magnitude, analyses["none"][name].values)
    seen = {name: quantity(array) for name, array in obs.items()}
    again = window.appa.assimilate(seen, model, members=2, seed=0)
    xr.testing.assert_equal(again, analyses["none"])


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_lazy_ensembles(window, obs, model, scheduler) -> None:
    number = xr.Variable("number", [10, 20, 30], REALIZATION)
    ensemble = xr.concat([window, window + 1, window - 1], number).transpose("time", "number", ...)
    for name in VARIABLES:
        ensemble[name].attrs = window[name].attrs
    eager = ensemble.appa.assimilate(obs, model, seed=0, background_error_scale=0.4)
    with raise_if_dask_computes():
        lazy = ensemble.chunk(time=2, number=1).appa.assimilate(
            obs, model, seed=0, background_error_scale=0.4
        )
        encoded = ensemble.chunk(time=2, number=1).appa.encode(model)
        decoded = encoded.appa.decode(model)
        forecast = ensemble.chunk(time=2, number=1).appa.forecast(model, lead="2D", seed=0)
    assert lazy.t.dims == ("time", "number", "level", "latitude", "longitude")
    assert lazy.t.data._meta.dtype == lazy.t.dtype == np.float32
    assert lazy.msl.data._meta.dtype == lazy.msl.dtype == np.float64
    assert encoded.latent.chunks == ((1, 1, 1), (2, 2, 1), (8,))
    assert forecast.chunks["time"] == (2, 2)
    with dask.config.set(scheduler=scheduler, num_workers=3):
        xr.testing.assert_allclose(lazy.compute(), eager, rtol=1e-6)
        expected = ensemble.appa.encode(model).appa.decode(model)
        xr.testing.assert_allclose(decoded.compute(), expected, rtol=1e-6)
        expected = ensemble.appa.forecast(model, lead="2D", seed=0)
        xr.testing.assert_allclose(forecast.compute(), expected, rtol=1e-6)


def test_lazy_observations_are_loaded_once_and_the_state_never(window, obs, model) -> None:
    lazy = {name: array.chunk() for name, array in obs.items()}
    with raise_if_dask_computes(most=len(obs)):
        out = window.chunk(time=1).appa.assimilate(lazy, model, members=2, seed=0)
    assert out.t.chunks is not None


def test_observations_in_containers_are_not_changed(window, obs, model) -> None:
    given = {"a": obs["barometers"].to_dataset(), "b": [obs["radiosondes"]]}
    before = copy.deepcopy(given)
    out = window.appa.assimilate(given, model, members=2, seed=0)
    xr.testing.assert_identical(given["a"], before["a"])
    xr.testing.assert_identical(given["b"][0], before["b"][0])
    assert out.attrs["xappa_observations"] == '{"a/msl": {"used": 20}, "b": {"used": 90}}'


def test_latents_survive_selection_means_and_files(window, model, tmp_path) -> None:
    z = window.appa.encode(model)
    whole = z.appa.decode(model)
    one = z.isel(time=0).appa.decode(model)
    assert one.t.dims == ("level", "latitude", "longitude")
    xr.testing.assert_allclose(one.t, whole.t.isel(time=0))
    both = xr.concat([z, z], xr.Variable("member", [0, 1], REALIZATION)).appa.decode(model)
    assert both.t.dims == ("member", *window.t.dims)
    mean = both.appa.encode(model).mean("member", keep_attrs=True).appa.decode(model)
    assert mean.t.dims == window.t.dims
    xr.testing.assert_allclose(mean.t, whole.t, rtol=1e-6)
    z.to_netcdf(tmp_path / "z.nc")
    with xr.open_dataset(tmp_path / "z.nc") as opened:
        xr.testing.assert_identical(opened.load().appa.decode(model), whole)


def test_lazy_analyses_go_to_zarr_as_they_are(window, obs, model, analyses, tmp_path) -> None:
    window.chunk(time=2).appa.assimilate(obs, model, members=2, seed=0).to_zarr(
        tmp_path / "a", consolidated=False
    )
    with xr.open_zarr(tmp_path / "a", consolidated=False) as opened:
        xr.testing.assert_allclose(opened.load(), analyses["none"], rtol=1e-6)
        assert opened.attrs == analyses["none"].attrs
        assert {n: opened[n].attrs for n in VARIABLES} == {
            n: analyses["none"][n].attrs for n in VARIABLES
        }


def test_time_encoding_is_kept(window, obs, model, tmp_path) -> None:
    given = window.copy()
    given.time.encoding = {"units": "hours since 1900-01-01", "calendar": "standard"}
    given.appa.assimilate(obs, model, members=1, seed=0).to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as opened:
        assert opened.time.encoding["units"] == "hours since 1900-01-01"
        np.testing.assert_array_equal(opened.time, window.time)


# Forecasts --------------------------------------------------------------------------------------


def test_forecasts_of_single_states_cftime_and_ensembles(window, model) -> None:
    single = window.isel(time=-1).appa.forecast(model, lead="1D", members=2, seed=0)
    assert single.t.dims == ("member", "time", "level", "latitude", "longitude")
    noleap = window.convert_calendar("noleap", use_cftime=True)
    cf = noleap.appa.forecast(model, lead="1D", members=2, seed=0)
    assert cf.indexes["time"].calendar == "noleap"
    assert cf.init_time.item() == noleap.time.values[-1]
    plain = window.appa.forecast(model, lead="1D", members=2, seed=0)
    np.testing.assert_allclose(cf.t, plain.t, rtol=1e-6)
    ensemble = xr.concat([window, window + 1], xr.Variable("number", [4, 7], REALIZATION))
    ensemble = ensemble.transpose("time", ..., "number")
    for name in VARIABLES:
        ensemble[name].attrs = window[name].attrs
    each = ensemble.appa.forecast(model, lead="1D", seed=0)
    assert each.t.dims == ("time", "level", "latitude", "longitude", "number")
    np.testing.assert_array_equal(each.number, [4, 7])
    twice = ensemble.appa.forecast(model, lead="1D", seed=0, members=4)
    np.testing.assert_array_equal(twice.number, range(4))
    xr.testing.assert_allclose(twice.t.isel(number=[0, 1]).drop_vars("number"),
                               each.t.drop_vars("number"), rtol=1e-6)  # fmt: skip


def test_forecasts_start_after_the_last_gap(window, model) -> None:
    """A state without values is nothing to condition upon: only what follows it counts."""
    hole = window.where(window.time != window.time[2])
    kept = window.isel(time=slice(3, None))
    found, expected = (d.appa.forecast(model, lead="1D", members=2, seed=0) for d in (hole, kept))
    xr.testing.assert_allclose(found.t, expected.t, rtol=1e-6)
    with pytest.raises(xappa.errors.DataError, match=r"forecast starts from is missing[\s\S]*isel"):
        window.where(window.time != window.time[-1]).appa.forecast(model, lead="1D")


def test_trace_constituents_do_not_overflow() -> None:
    """Variances of 1e-50, such as cloud ice in the stratosphere: float32 has no inverse of them."""
    weather = xappa.testing.weather(times=30)
    trace = ((weather.t2m - 285) * 1e-25).astype(float).drop_vars("height")
    trace.attrs = {"standard_name": "specific_humidity", "units": "kg kg-1"}
    both = weather.assign(q=trace)
    model = xappa.fit_gaussian(both, modes=4)
    network = xappa.observe.random_stations(both, 5, variable="t2m", error=0.5, seed=0)
    obs = both.appa.observe(network, seed=0)
    out = both.appa.assimilate(obs, model, members=20, seed=0, background_error_scale=0.5)
    # The one is the other in other units, and both have the same spread.
    ratio = float(out.q.std("member").mean() / out.t2m.std("member").mean())
    assert 0.8e-25 < ratio < 1.5e-25


def test_a_constant_takes_no_modes() -> None:
    weather = xappa.testing.weather(times=30)
    oxygen = xr.full_like(weather.t2m, 0.2315).drop_vars("height").assign_attrs(units="kg kg-1")
    oxygen.attrs["standard_name"] = "mass_fraction_of_molecular_oxygen_in_air"
    both = weather.assign(o2=oxygen)
    alone, joint = (xappa.fit_gaussian(ds, modes=4) for ds in (weather, both))
    eofs = joint.eofs[: alone.eofs.shape[0]]  # t2m comes first
    np.testing.assert_allclose(abs(eofs), abs(alone.eofs), rtol=1e-4, atol=1e-5)
    out = both.isel(time=slice(4)).appa.encode(joint).appa.decode(joint)
    np.testing.assert_allclose(out.o2, 0.2315, rtol=1e-6)
