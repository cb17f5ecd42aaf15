"""Simulated observations and networks: noise that belongs to an observation, whatever the rest."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from xarray.tests import raise_if_dask_computes

from xappa.bridge import describe
from xappa.cf import to_seconds
from xappa.errors import ArgumentError, ErrorCovarianceError
from xappa.observe import ObservationOperator, random_stations, read_observations, simulate

TIMES = np.datetime64("2020-01-01T00", "ns") + np.arange(5) * np.timedelta64(6, "h")


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    rng = np.random.default_rng(0)
    lat, lon = np.linspace(60, 40, 11), np.linspace(-10, 20, 16)
    levels = ("level", [850.0, 500.0], {"units": "hPa", "standard_name": "air_pressure"})
    t2m = rng.normal(280, 5, (5, 11, 16))
    t = rng.normal(250, 5, (5, 2, 11, 16))
    attrs = {"standard_name": "air_temperature", "units": "K"}
    return xr.Dataset(
        {
            "t2m": (("time", "latitude", "longitude"), t2m, attrs),
            "t": (("time", "level", "latitude", "longitude"), t, attrs),
        },
        {"time": TIMES, "level": levels, "latitude": lat, "longitude": lon},
    )


def operator(ds, obs, **kwargs) -> ObservationOperator:
    state, _ = describe(ds)
    return ObservationOperator.build(
        read_observations(obs, state, **kwargs), state, to_seconds(ds.time)[0]
    )


def network(ds, n=30, **kwargs) -> xr.DataArray:
    return random_stations(ds, n, **{"variable": "t2m", "error": 0.5, "seed": 1, **kwargs})


def test_noise_has_the_standard_deviation_that_was_asked_for(ds):
    obs = network(ds, 2000).assign_attrs(units="degC")
    H = operator(ds, obs)
    departure = simulate(H, ds, seed=0) - H(ds)
    n = departure.size
    # mean and variance of n independent draws: within four standard errors
    assert abs(float(departure.mean())) < 4 * 0.5 / np.sqrt(n)
    assert abs(float(departure.std()) / 0.5 - 1) < 4 / np.sqrt(2 * n)
    across = np.corrcoef(departure.transpose("time", "station"))
    assert np.abs(across - np.eye(5)).max() < 0.1


def test_observations_carry_their_errors_and_read_back(ds, tmp_path):
    y = simulate(operator(ds, network(ds)), ds, seed=0)
    assert float(y.error_std) == 0.5
    assert y.error_std.attrs["standard_name"] == "air_temperature standard_error"
    y.to_netcdf(tmp_path / "y.nc")
    with xr.open_dataarray(tmp_path / "y.nc") as stored:
        again = operator(ds, stored)
    assert again.n_used == y.size
    np.testing.assert_array_equal(again.values, y.values.ravel())
    np.testing.assert_array_equal(again.error_std, 0.5)
    assert y.attrs["xappa_seed"] == 0
    assert "seed 0" in y.attrs["history"]


def test_a_dataset_gets_ancillary_variables(ds):
    obs = network(ds).to_dataset()
    obs["wind_free"] = obs.t2m.assign_attrs(error_std=2.0)
    error = obs.t2m.copy(data=np.linspace(1, 2, obs.t2m.size).reshape(obs.t2m.shape))
    y = simulate(operator(ds, obs, error={"t2m": error}), ds, seed=0)
    assert set(y.data_vars) == {"t2m", "wind_free", "t2m_error_std", "wind_free_error_std"}
    assert y.t2m.attrs["ancillary_variables"] == "t2m_error_std"
    np.testing.assert_array_equal(y.t2m_error_std, error)
    H = operator(ds, y)
    assert [spec.name for spec in H.specs] == ["t2m", "wind_free"]
    np.testing.assert_allclose(H.error_std[:150], error.values.ravel())
    np.testing.assert_array_equal(H.error_std[150:], 2.0)


def test_noise_belongs_to_array_and_valid_time(ds):
    obs = network(ds)
    y = simulate(operator(ds, obs), ds, seed=3)
    xr.testing.assert_identical(simulate(operator(ds, obs), ds, seed=3), y)
    part = simulate(operator(ds, obs.isel(time=slice(2, 4))), ds.isel(time=slice(1, 5)), seed=3)
    np.testing.assert_array_equal(part, y.isel(time=slice(2, 4)))
    beside = simulate(operator(ds, [obs.rename("other"), obs]), ds, seed=3)
    np.testing.assert_array_equal(beside[1], y)
    assert not np.isclose(beside[0], y).any()
    assert not np.isclose(simulate(operator(ds, obs), ds, seed=4), y).any()
    order = simulate(operator(ds, obs.transpose("station", "time")), ds, seed=3)
    xr.testing.assert_equal(order.transpose("time", "station"), y)


def test_each_member_has_noise_of_its_own_whatever_their_number(ds):
    many = ds.expand_dims(member=3)
    H = operator(ds, network(ds))
    noise = simulate(H, many, seed=0) - H(many)
    assert noise.dims[0] == "member"
    two = simulate(H, many.isel(member=slice(2)), seed=0) - H(many.isel(member=slice(2)))
    np.testing.assert_array_equal(noise[:2], two)
    assert not np.isclose(noise[0], noise[1]).any()


def test_lazy_truth_gives_lazy_observations(ds):
    H = operator(ds, network(ds))
    eager = simulate(H, ds, seed=0)
    with raise_if_dask_computes():
        lazy = simulate(H, ds.chunk(time=2), seed=0)
    assert lazy.chunks is not None
    xr.testing.assert_allclose(lazy.compute(), eager)


def test_gaps_stay_and_flagged_observations_go(ds):
    obs = operator(ds, network(ds))(ds)
    obs = obs.where(obs.station != obs.station[0]).to_dataset()
    attrs = {"standard_name": "quality_flag", "flag_values": [0, 1], "flag_meanings": "good bad"}
    obs["flag"] = ("station", np.arange(30) == 1, attrs)
    obs["flag"] = obs.flag.astype("int8")
    obs.t2m.attrs["ancillary_variables"] = "flag"
    y = simulate(operator(ds, obs, error=1.0), ds, seed=0)
    gone = y.t2m.isnull().all("time")
    assert gone.values.tolist() == [True, True] + [False] * 28
    assert "flag" not in y


def test_places_outside_stay_empty(ds):
    obs = network(ds, 3)
    obs = obs.assign_coords(latitude=("station", [50.0, 30.0, 55.0]))
    y = simulate(operator(ds, obs), ds, seed=0)
    np.testing.assert_array_equal(y.isnull().all("time"), [False, True, False])


def test_nothing_is_changed(ds):
    obs = network(ds)
    before, truth = obs.copy(deep=True), ds.copy(deep=True)
    simulate(operator(ds, obs), ds, seed=0)
    xr.testing.assert_identical(obs, before)
    xr.testing.assert_identical(ds, truth)


# networks


def test_stations_follow_discrete_sampling_geometries(ds):
    obs = network(ds, 7)
    assert obs.dims == ("time", "station")
    assert obs.attrs["featureType"] == "timeSeries"
    assert obs.station.attrs["cf_role"] == "timeseries_id"
    assert float(obs.height) == 2.0
    np.testing.assert_array_equal(obs.time, ds.time)
    assert bool(obs.isnull().all())
    fewer = network(ds, 4)
    np.testing.assert_array_equal(fewer.latitude, obs.latitude[:4])
    assert not np.isclose(network(ds, 7, seed=2).latitude, obs.latitude).any()


def test_stations_are_uniform_in_area():
    lat, lon = np.linspace(-88, 88, 45), np.arange(0, 360, 4.0)
    ds = xr.Dataset(
        {"t2m": (("latitude", "longitude"), np.zeros((45, 90)), {"units": "K"})},
        {"latitude": lat, "longitude": lon},
    )
    obs = random_stations(ds, 20_000, variable="t2m", error=1.0, seed=0)
    assert obs.dims == ("station",)
    # uniform in sin(latitude): variance 1/3, and in longitude: mean of exp(i lon) is 0
    height = np.sin(np.deg2rad(obs.latitude))
    assert abs(float(height.mean())) < 4 * np.sqrt(1 / 3 / 20_000)
    assert abs(float((height**2).mean()) - 1 / 3) < 0.01
    assert abs(np.exp(1j * np.deg2rad(obs.longitude)).mean()) < 4 / np.sqrt(20_000)


def test_profiles_on_levels_and_other_times(ds):
    obs = network(ds, 5, variable="t", times=["2020-01-01T03", "2020-01-01T15"])
    assert obs.dims == ("time", "air_pressure", "station")
    np.testing.assert_array_equal(obs.air_pressure, [85000, 50000])
    assert operator(ds, obs).n_used == 0  # nothing is observed yet
    assert simulate(operator(ds, obs), ds, seed=0).notnull().all()
    sondes = network(ds, 5, variable="t", pressure=[7e4])
    assert simulate(operator(ds, sondes), ds, seed=0).notnull().all()


def test_networks_that_cannot_be(ds):
    with pytest.raises(ArgumentError, match="a variable among t2m, t"):
        network(ds, variable="t3m")
    with pytest.raises(ArgumentError, match="n=-1"):
        network(ds, -1)
    with pytest.raises(ErrorCovarianceError, match="not positive"):
        network(ds, error=-0.5)
    assert network(ds, 0).sizes["station"] == 0


def test_reading_building_and_simulating_leave_torch_alone():
    code = """
import sys, numpy as np, xarray as xr
from xappa.bridge import describe
from xappa.observe import ObservationOperator, random_stations, read_observations, simulate
data = ("latitude", "longitude"), np.ones((3, 4)), {"units": "K"}
ds = xr.Dataset({"t2m": data}, {"latitude": [2.0, 1, 0], "longitude": [0.0, 1, 2, 3]})
obs = random_stations(ds, 5, variable="t2m", error=1.0, seed=0)
state, _ = describe(ds)
H = ObservationOperator.build(read_observations(obs, state), state, None)
simulate(H, ds, seed=0), repr(H), H._repr_html_()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
