"""Errors that hang together: what is read, what is drawn, and what the analysis makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.errors import ErrorCovarianceError
from xappa.observe import ObservationOperator, observation_noise, read_observations
from xappa.observe.covariance import gaspari_cohn
from xappa.tasks.posterior import posterior_of
from xappa.tasks.window import Window

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=60)


@pytest.fixture(scope="module")
def model(weather):
    return xappa.fit_gaussian(weather, modes=5)


@pytest.fixture(scope="module")
def day(weather) -> xr.Dataset:
    return weather.isel(time=slice(40, 44))


def stations(day: xr.Dataset, **attrs) -> xr.DataArray:
    network = xappa.observe.random_stations(day, 5, variable="t2m", error=0.3, seed=0)
    obs = day.appa.observe(network, seed=0)
    return obs.assign_attrs(attrs)


def covariance(day: xr.Dataset, obs: xr.DataArray) -> np.ndarray:
    return day.appa.operator(obs).error_covariance.toarray()


def test_biases_of_platforms(day) -> None:
    obs = stations(day, bias_error_std=0.5)
    operator = day.appa.operator(obs)
    (spec,) = operator.specs
    which = np.tile(np.arange(5), 4)
    expected = 0.3**2 * np.eye(20) + 0.5**2 * (which[:, None] == which)
    np.testing.assert_allclose(covariance(day, obs), expected)
    assert "biases of 5 platforms" in repr(operator)
    assert not operator.errors_are_independent
    one = obs.assign_coords(network=("station", ["a", "a", "b", "b", "b"]))
    both = covariance(day, one.assign_attrs(bias_platform="network"))
    assert both[0, 1] == 0.25
    assert both[0, 2] == 0.0
    assert spec.structure is not None


def test_biases_have_the_units_of_the_array(day) -> None:
    obs = stations(day, bias_error_std=0.9)
    degrees = ((obs - 273.15) * 1.8 + 32).assign_attrs(obs.attrs, units="degF")
    spread = day.appa.operator(degrees, error=0.54).error_covariance.toarray()
    np.testing.assert_allclose(spread[0, 0], 0.3**2 + 0.5**2)


@pytest.mark.parametrize("function", ["exponential", "gaspari_cohn"])
def test_correlations_in_space_and_time(day, function) -> None:
    obs = stations(
        day,
        error_correlation=function,
        error_correlation_length="2000 km",
        error_correlation_time="12h",
    )
    r = covariance(day, obs) / 0.3**2
    np.testing.assert_allclose(np.diag(r), 1.0)
    assert np.linalg.eigvalsh(r).min() > -1e-10
    # the same station 6 h later, and another at the same time
    step = float((day.time[1] - day.time[0]) / np.timedelta64(1, "h"))
    if function == "exponential":
        np.testing.assert_allclose(r[0, 5], np.exp(-step / 12), rtol=1e-12)
        lat, lon = obs.latitude.values, obs.longitude.values
        distance = xappa.grid.great_circle(lat[0], lon[0], lat[1], lon[1])
        np.testing.assert_allclose(r[0, 1], np.exp(-distance / 2e6), rtol=1e-12)
    np.testing.assert_allclose(r[0, 6], r[0, 1] * r[0, 5], rtol=1e-10)


def test_one_kind_of_correlation_alone(day) -> None:
    in_space = covariance(day, stations(day, error_correlation_length=2e6))
    assert in_space[0, 1] > 0
    assert in_space[0, 5] == 0  # another time
    in_time = covariance(day, stations(day, error_correlation_time="1D"))
    assert in_time[0, 5] > 0
    assert in_time[0, 1] == 0  # another station


def test_independent_errors_beside_correlated_ones(day) -> None:
    obs = stations(day, correlated_error_std=0.4, error_correlation_time="12h")
    step = float((day.time[1] - day.time[0]) / np.timedelta64(1, "h"))
    r = covariance(day, obs)
    np.testing.assert_allclose(np.diag(r), 0.3**2 + 0.4**2)
    np.testing.assert_allclose(r[0, 5], 0.4**2 * np.exp(-step / 12))
    with pytest.raises(ErrorCovarianceError, match="a correlation, too"):
        covariance(day, stations(day, correlated_error_std=0.4))


def test_gaspari_and_cohn() -> None:
    """Equation 4.10: continuous at 1, zero and flat at 2, a correlation in three dimensions."""
    r = np.array([0.0, 1 - 1e-9, 1 + 1e-9, 2 - 1e-6, 2.0, 3.0])
    np.testing.assert_allclose(gaspari_cohn(r), [1, 5 / 24, 5 / 24, 0, 0, 0], atol=1e-8)
    points = np.random.default_rng(0).uniform(0, 4, (60, 3))
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    assert np.linalg.eigvalsh(gaspari_cohn(distance)).min() > -1e-10


@pytest.mark.parametrize(
    "attrs",
    [
        {"bias_error_std": 0.5},
        {"error_correlation_length": 2e6, "error_correlation_time": "12h"},
        {"bias_error_std": 0.5, "error_correlation_time": "1D"},
        {"correlated_error_std": 0.4, "error_correlation_time": "1D"},
    ],
)
def test_draws_have_the_covariance(day, attrs) -> None:
    (spec,) = read_observations(stations(day, **attrs), _spec(day))
    draws = np.stack([observation_noise(spec, 0, member) for member in range(4000)])
    expected = covariance(day, stations(day, **attrs))
    # Of 4000 draws a covariance is known to 2 / sqrt(4000) of the variances: four of those.
    np.testing.assert_allclose(np.cov(draws.T), expected, atol=0.13 * expected[0, 0])


def _spec(ds: xr.Dataset):
    from xappa.bridge import describe

    return describe(ds)[0]


def posterior(model, day: xr.Dataset, obs: xr.DataArray):
    from xappa.bridge import Layout

    layout = Layout.of(day, model.spec)
    specs = read_observations(obs, model.spec)
    window = Window.of(layout, model, specs)
    operator = ObservationOperator.build(specs, model.spec, window.operator_times)
    return posterior_of(model, operator, window, None, None)


def test_a_bias_is_estimated_along_with_the_state(model, day) -> None:
    """With P B P' in R the analysis is that of the state augmented by the biases."""
    found = posterior(model, day, stations(day, bias_error_std=0.5))
    plain = posterior(model, day, stations(day))
    g = found.latent_map.dense().flatten(1)
    size = g.shape[1]
    eye = torch.eye(size, dtype=g.dtype).reshape(size, *found.prior.mean.shape[-2:])
    sigma = found.prior.covariance_times(eye).flatten(1)
    p = torch.as_tensor(np.tile(np.eye(5), (4, 1)))
    d = found.observed - found.latent_map(found.prior.mean[None])[0]
    r = plain.noise.matrix  # without biases, with the residual
    both = torch.cat([g, p], dim=1)
    wide = torch.block_diag(sigma, 0.25 * torch.eye(5, dtype=g.dtype))
    gain = wide @ both.mT @ torch.linalg.inv(both @ wide @ both.mT + r)
    expected = (gain @ d)[:size]
    mean = sigma @ g.mT @ torch.linalg.solve(g @ sigma @ g.mT + found.noise.matrix, d)
    torch.testing.assert_close(mean, expected, rtol=1e-8, atol=1e-10)
    drawn = found.exact.update(d[None])[0].flatten()
    torch.testing.assert_close(drawn, expected, rtol=1e-6, atol=1e-8)


def test_what_is_told_of_errors_makes_the_analysis_better(model, weather) -> None:
    """A station network that is 3 K too warm: told of biases, the analysis withstands it."""
    day = weather.isel(time=slice(44, 52))
    obs = stations(day)
    rng = np.random.default_rng(1)
    wrong = obs + xr.DataArray(3 * rng.standard_normal(5), dims="station")
    wrong.attrs = obs.attrs
    told = wrong.assign_attrs(bias_error_std=3.0)
    errors = [
        float(xappa.verify.rmse(day.appa.assimilate(o, model, members=24, seed=0).t2m, day.t2m))
        for o in (obs, wrong, told)
    ]
    assert errors[2] < errors[0] + 0.5 * (errors[1] - errors[0])


@pytest.mark.parametrize(
    ("attrs", "match"),
    [
        ({"bias_error_std": -1.0}, "bias_error_std"),
        ({"bias_error_std": "large"}, "bias_error_std"),
        ({"bias_error_std": 0.5, "bias_platform": "owner"}, "bias_platform"),
        ({"error_correlation_length": "far"}, "error_correlation_length"),
        ({"error_correlation_time": 0}, "error_correlation_time"),
        ({"error_correlation_length": 1e5, "error_correlation": "gaussian"}, "exponential or"),
    ],
)
def test_attributes_that_cannot_be_used(day, attrs, match) -> None:
    with pytest.raises(ErrorCovarianceError, match=match):
        day.appa.operator(stations(day, **attrs))


def test_too_many_correlated_observations(day, monkeypatch) -> None:
    monkeypatch.setattr("xappa.observe.structure.DENSE_LIMIT", 10)
    with pytest.raises(ErrorCovarianceError, match="too many observations have correlated errors"):
        day.appa.operator(stations(day, error_correlation_length=1e5))


def test_structures_survive_a_file(day, tmp_path) -> None:
    obs = stations(day, bias_error_std=0.5, error_correlation_time="12h")
    obs.to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataarray(tmp_path / "obs.nc") as again:
        np.testing.assert_array_equal(covariance(day, again), covariance(day, obs))
