"""Observation space: departures, biases, errors and what became of each observation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xappa
from xappa.errors import ArgumentError, GuessWarning
from xappa.observe import Status

pytestmark = pytest.mark.filterwarnings("ignore:.*scalar coordinate.*")


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=60)


@pytest.fixture(scope="module")
def model(weather):
    return xappa.fit_gaussian(weather, modes=5)


@pytest.fixture(scope="module")
def day(weather) -> xr.Dataset:
    return weather.isel(time=slice(40, 44))


@pytest.fixture(scope="module")
def obs(day) -> xr.DataArray:
    network = xappa.observe.random_stations(day, 6, variable="t2m", error=0.3, seed=0)
    return day.appa.observe(network, seed=0)


@pytest.fixture(scope="module")
def ens(day, obs, model) -> xr.Dataset:
    return day.appa.assimilate(obs, model, members=5, seed=0)


def test_departures_are_those_of_the_operator(day, obs, model, ens) -> None:
    d = ens.appa.departures(obs, day)
    h = day.appa.operator(obs)
    assert dict(d.sizes) == {"obs": 24, "member": 5}
    np.testing.assert_allclose(d.observation, obs.values.ravel())
    np.testing.assert_allclose(d.equivalent, h(ens).values.reshape(5, -1))
    mean = h(ens).mean("member").values.ravel()
    np.testing.assert_allclose(d.analysis_departure, obs.values.ravel() - mean, rtol=1e-10)
    before = (obs - h(day)).values.ravel()
    np.testing.assert_allclose(d.background_departure, before, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(d.observation_variance, 0.09)
    np.testing.assert_allclose(d.analysis_variance, h(ens).var("member", ddof=1).values.ravel())
    assert d.analysis_departure.attrs["units"] == "K"
    assert (d.status == 0).all()
    assert (d.reason == "used").all()
    assert set(d.array.values) == {"t2m"}
    np.testing.assert_array_equal(np.unique(d.time), day.time)


def test_without_a_background_the_prior_is_compared(obs, model, ens) -> None:
    d = ens.appa.departures(obs)
    climatology = model.climatology
    assert float(abs(d.background_departure).mean()) > float(abs(d.analysis_departure).mean())
    assert climatology is not None
    table = xappa.verify.desroziers(d)
    assert table.observation_variance.sel(source="assumed").item() == pytest.approx(0.09)


def test_diagnosed_errors_are_those_assumed(weather, model) -> None:
    """Truth drawn from the prior, observed with the R that is assumed: Desroziers' identity."""
    window = weather.isel(time=slice(0, 40))
    network = xappa.observe.random_stations(window, 12, variable="t2m", error=0.6, seed=1)
    rows = []
    for seed in range(4):
        nothing = network.isel(time=slice(0, 0))
        with pytest.warns(match="result is the prior"):
            truth = window.appa.assimilate(nothing, model, members=1, seed=seed).isel(member=0)
        truth.attrs = {}
        y = truth.appa.observe(network, seed=seed)
        ens = window.appa.assimilate(y, model, members=24, seed=seed + 10)
        rows.append(ens.appa.departures(y, model=model))
    d = xr.concat(rows, "obs", join="exact")
    found = xappa.verify.desroziers(d).observation_variance.sel(source="diagnosed").item()
    # 1920 observations: 3 % of sampling error, and 1 / 24 of the analysis variance
    assert found == pytest.approx(0.36, rel=0.12)


def test_several_arrays_in_units_of_their_own(day, obs, ens) -> None:
    celsius = (obs - 273.15).assign_attrs(obs.attrs, units="degC").rename("c")
    far = obs.isel(station=[0]).assign_coords(latitude=("station", [-40.0])).rename("far")
    d = ens.appa.departures([celsius, far])
    assert list(pd.unique(d.array.values)) == ["c", "far"]
    assert list(pd.unique(d.units.values)) == ["degC", "K"]
    assert "units" not in d.observation.attrs
    own = d.where(d.array == "c", drop=True)
    single = ens.appa.departures(obs)
    np.testing.assert_allclose(
        own.analysis_departure, single.analysis_departure, atol=1e-4
    )  # float32
    outside = d.where(d.array == "far", drop=True)
    assert (outside.reason == "outside domain").all()
    assert outside.analysis_departure.isnull().all()
    assert outside.observation_variance.isnull().all()


def test_quality_control_is_repeated(day, obs, model, tmp_path) -> None:
    bad = obs.copy()
    bad[1, 2] += 15.0
    bad[2, 4] = 450.0
    control = xappa.QualityControl(likelihood="huber")
    path = tmp_path / "departures.nc"
    ens = day.appa.assimilate(
        bad, model, members=2, seed=0, quality_control=control, departures=path
    )
    d = ens.appa.departures(bad)
    assert d.status.values.reshape(4, 6)[2, 4] == Status.GROSS_ERROR
    assert d.status.values.reshape(4, 6)[1, 2] in (Status.DEPARTURE, Status.BACKGROUND)
    assert (d.error_std.values[d.status == 0] >= 0.3 - 1e-12).all()
    with xr.open_dataset(path) as written:
        np.testing.assert_array_equal(written.status, d.status)
        np.testing.assert_array_equal(written.reason, d.reason)
        np.testing.assert_allclose(written.analysis_departure, d.analysis_departure)
        meanings = written.status.attrs["flag_meanings"].split()
    assert meanings[Status.GROSS_ERROR] == "gross_error"


def test_a_background_is_part_of_the_control(day, obs, model) -> None:
    settings = {
        "members": 2,
        "seed": 0,
        "background_error_scale": 0.2,
        "quality_control": xappa.QualityControl(departure=3.0),
    }
    background = day + 0.2
    background.t2m.attrs = day.t2m.attrs
    ens = background.appa.assimilate(obs, model, **settings)
    with pytest.warns(GuessWarning, match="background that is not known here"):
        ens.appa.departures(obs)
    d = ens.appa.departures(obs, background)
    counts = d.status.values
    import json

    (said,) = json.loads(ens.attrs["xappa_observations"]).values()
    assert (counts == 0).sum() == said["used"]


def test_lazy_analyses_give_lazy_equivalents(day, obs, model) -> None:
    lazy = day.chunk(time=2).appa.assimilate(obs, model, members=2, seed=0)
    eager = day.appa.assimilate(obs, model, members=2, seed=0)
    d = lazy.appa.departures(obs)
    np.testing.assert_allclose(d.equivalent, eager.appa.departures(obs).equivalent, rtol=1e-6)
    with pytest.raises(ArgumentError, match="before it is computed"):
        day.chunk(time=2).appa.assimilate(obs, model, members=2, seed=0, departures="x.nc")


def test_without_a_model_and_without_members(day, obs) -> None:
    d = day.appa.departures(obs, day)
    np.testing.assert_allclose(d.analysis_departure, d.background_departure)
    assert "analysis_variance" not in d
    assert "background_departure" not in day.appa.departures(obs)


def test_no_observations(day, model) -> None:
    with pytest.warns(match="there are no observations"):
        ens = day.appa.assimilate([], model, members=2, seed=0)
    assert ens.appa.departures([]).sizes["obs"] == 0


# Fewer observations -------------------------------------------------------------------------------


def dense(day: xr.Dataset, n: int = 200) -> xr.DataArray:
    network = xappa.observe.random_stations(day, n, variable="t2m", error=0.6, seed=2)
    return day.appa.observe(network, seed=2)


def test_thinning_keeps_one_of_each_cell(day, model) -> None:
    obs = dense(day)
    control = xappa.QualityControl(departure=None, background=None, thinning="150 km")
    ens = day.appa.assimilate(obs, model, members=2, seed=0, quality_control=control)
    d = ens.appa.departures(obs)
    kept = d.isel(obs=(d.status == Status.USED).values)
    assert set(np.unique(d.status)) == {Status.USED, Status.THINNED}
    at = kept.isel(obs=(kept.time == day.time[0]).values)
    assert 15 < at.sizes["obs"] < 90
    np.testing.assert_array_equal(kept.observation, obs.values.ravel()[(d.status == 0).values])


def test_superobs_are_means_with_smaller_errors(day, model) -> None:
    obs = dense(day)
    control = xappa.QualityControl(departure=None, background=None, superobbing="150 km")
    ens = day.appa.assimilate(obs, model, members=2, seed=0, quality_control=control)
    d = ens.appa.departures(obs)
    used = (d.status == Status.USED).values
    assert ((d.status == Status.MERGED).values ^ used).all()
    # what all observations know is kept: the sum of 1 / sigma^2
    np.testing.assert_allclose((d.error_std.values[used] ** -2).sum(), 800 / 0.36, rtol=1e-9)
    weights = d.error_std.values[used] ** -2
    np.testing.assert_allclose(
        np.average(d.observation.values[used], weights=weights),
        obs.values.mean(dtype=float),
        rtol=1e-9,
    )
    plain = day.appa.assimilate(obs, model, members=2, seed=0)
    errors = [float(xappa.verify.rmse(e.t2m, day.t2m)) for e in (plain, ens)]
    assert errors[1] < errors[0] * 1.3


def test_periods_and_platforms_part_the_cells(day, model) -> None:
    obs = dense(day, 60)
    control = {"departure": None, "background": None, "thinning": "3000 km"}
    each = xappa.QualityControl(**control)
    once = xappa.QualityControl(**control, period="10D")
    counts = []
    for case, array in ((each, obs), (once, obs), (once, obs.assign_attrs(bias_error_std=1.0))):
        ens = day.appa.assimilate(array, model, members=1, seed=0, quality_control=case)
        counts.append(int((ens.appa.departures(array).status == 0).sum()))
    assert counts[0] >= 4 * counts[1] > 0
    assert counts[2] == 60


def test_duplicates_are_counted(day) -> None:
    network = xappa.observe.random_stations(day, 4, variable="t2m", error=0.3, seed=0)
    obs = day.appa.observe(network, seed=0)
    twice = xr.concat([obs, obs.isel(station=[1, 2])], "station")
    operator = day.appa.operator(twice)
    (counts,) = operator.counts().values()
    assert counts[Status.DUPLICATE] == 2 * day.sizes["time"]
    other = twice.copy()
    other[:, 4:] += 0.5  # a second instrument at the same place
    (counts,) = day.appa.operator(other).counts().values()
    assert counts[Status.DUPLICATE] == 0
