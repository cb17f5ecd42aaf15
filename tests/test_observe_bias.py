"""Biases by predictors and correlations between channels: what is read, drawn and estimated."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xappa
from xappa.errors import ErrorCovarianceError
from xappa.observe import ObservationOperator, observation_noise, read_observations
from xappa.tasks.expected import with_predictors
from xappa.tasks.window import Window

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")

LEVELS = np.array([1000.0, 850.0, 500.0, 300.0])


@pytest.fixture(scope="module")
def column() -> xr.Dataset:
    """Temperature on four levels that follows that of `xappa.testing.weather`."""
    flat = xappa.testing.weather(times=60).t2m
    lapse = xr.DataArray([0.0, -8.0, -32.0, -58.0], dims="level")
    rng = np.random.default_rng(3)
    noise = rng.standard_normal((*flat.shape, 4))
    t = flat + lapse + xr.DataArray(noise, dims=(*flat.dims, "level"))
    t = t.transpose("time", "level", "latitude", "longitude").drop_vars("height", errors="ignore")
    t.attrs = {"standard_name": "air_temperature", "units": "K"}
    about = {"standard_name": "air_pressure", "units": "hPa"}
    return xr.Dataset({"t": t.astype("float32")}).assign_coords(level=("level", LEVELS, about))


@pytest.fixture(scope="module")
def model(column):
    return xappa.fit_gaussian(column, modes=6)


def pixels(column: xr.Dataset, n: int = 30, **attrs) -> xr.DataArray:
    rng = np.random.default_rng(1)
    place = {
        "latitude": ("pixel", rng.uniform(51, 59, n)),
        "longitude": ("pixel", rng.uniform(-9, 3, n)),
        "time": ("pixel", column.time.values[rng.integers(0, 4, n)]),
        "air_pressure": ("pixel", rng.uniform(4e4, 9e4, n), {"units": "Pa"}),
        "scan_angle": ("pixel", np.linspace(-50, 50, n), {"units": "degree"}),
    }
    base = {"standard_name": "air_temperature", "units": "K", "error_std": 0.5}
    return xr.DataArray(np.full(n, np.nan), place, "pixel", "tb", {**base, **attrs})


def test_a_predictor_that_observations_carry(column) -> None:
    obs = pixels(column, bias_error_std=[0.5, 2.0], bias_predictors="scan_angle")
    obs = obs.fillna(270.0)
    operator = column.isel(time=slice(4)).appa.operator(obs)
    angle = np.linspace(-50, 50, 30)
    scaled = (angle - angle.mean()) / angle.std()
    expected = 0.25 * np.eye(30) + 0.25 + 4.0 * np.outer(scaled, scaled)
    np.testing.assert_allclose(operator.error_covariance.toarray(), expected, rtol=1e-12)
    assert "biases of 1 platform by scan_angle" in repr(operator)


def test_drawn_biases_have_the_covariance_of_r(column) -> None:
    obs = pixels(column, 6, bias_error_std=[0.5, 2.0], bias_predictors="scan_angle")
    (spec,) = column.isel(time=slice(4)).appa.operator(obs).specs
    drawn = np.stack([observation_noise(spec, seed) for seed in range(6000)])
    expected = spec.structure.covariance(spec.error_std, np.arange(6)).toarray()
    # 6000 draws: a covariance is off by 2 % of its scale, five times that is beyond chance
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.1 * expected.max())


def test_air_mass_predictors_are_those_of_the_prior(column, model) -> None:
    obs = pixels(column, bias_error_std=1.0, bias_predictors="thickness_1000_300").fillna(270.0)
    specs = read_observations(obs, model.spec)
    assert np.isnan(specs[0].structure.bias.predictors["thickness_1000_300"]).all()
    seconds = model.spec.time_step * np.arange(4) + 978307200.0
    window = Window(seconds, 0, 4, has_time=True)
    (known,) = with_predictors(specs, model, window)
    thickness = known.structure.bias.predictors["thickness_1000_300"]
    # 29.3 m K-1 times the mean temperature times ln(1000 / 300)
    np.testing.assert_allclose(thickness, 29.27 * 257 * np.log(1000 / 300), rtol=0.05)
    state = np.stack([np.full(model.spec.shape, 250.0)] * 4)
    (warm,) = with_predictors(specs, model, window, state)
    exact = 287.05 / 9.80665 * 250.0 * np.log(1000 / 300)
    np.testing.assert_allclose(
        warm.structure.bias.predictors["thickness_1000_300"], exact, rtol=1e-6
    )


def test_simulated_biases_follow_the_air_mass(column) -> None:
    """Without other errors: what is observed, less what is true, is linear in the thickness."""
    day = column.isel(time=slice(4))
    attrs = {"bias_error_std": [1e-6, 2.0], "bias_predictors": "thickness_1000_300"}
    network = pixels(column, 30, **attrs, error_std=1e-6)
    y = day.appa.observe(network, seed=3)
    error = (y - day.appa.operator(network)(day)).values
    layer = network.assign_attrs(
        xappa_operator="dry_thickness",
        xappa_operator_lower=1e5,
        xappa_operator_upper=3e4,
        units="m",
        error_std=1.0,
    )
    del layer.attrs["bias_error_std"], layer.attrs["bias_predictors"]
    thickness = day.appa.operator(layer)(day).values
    assert abs(np.corrcoef(error, thickness)[0, 1]) > 1 - 1e-6
    assert error.std() > 0.05


@pytest.mark.parametrize(
    ("attrs", "match"),
    [
        ({"bias_predictors": "scan_angle"}, "bias_error_std, too"),
        ({"bias_predictors": "no_such", "bias_error_std": 1.0}, "'no_such' of biases is not known"),
        ({"bias_predictors": "scan_angle", "bias_error_std": [1.0] * 3}, "2 of them"),
        ({"bias_predictors": "scan_angle", "bias_error_std": [1.0, -1.0]}, "a positive number"),
    ],
)
def test_predictors_that_cannot_be(column, attrs, match) -> None:
    with pytest.raises(ErrorCovarianceError, match=match):
        column.isel(time=slice(4)).appa.operator(pixels(column, **attrs))


def test_estimated_biases_are_those_of_the_joint_posterior(column, model) -> None:
    """State and coefficients estimated together, as one large linear problem."""
    day = column.isel(time=slice(4))
    network = pixels(column, 40, bias_error_std=[1.0, 0.8], bias_predictors="scan_angle")
    obs = day.appa.observe(network, seed=4)
    ens = day.appa.assimilate(obs, model, members=400, seed=0)
    found = ens.appa.departures(obs, model=model)
    from xappa.tasks.posterior import posterior_of

    specs = read_observations(obs, model.spec)
    seconds = specs[0].time.min() + model.spec.time_step * np.arange(4)
    window = Window(seconds, 0, 4, has_time=True)
    operator = ObservationOperator.build(specs, model.spec, seconds)
    posterior = posterior_of(model, operator, window, None, None)
    d, s = posterior.departures()
    p = specs[0].structure.bias.design(np.arange(40)).toarray()
    exact = p @ p.T @ np.linalg.solve(s(np.arange(40)), d)
    # 400 members: the mean analysis is uncertain by its spread over 20
    np.testing.assert_allclose(found.bias, exact, atol=0.12)
    assert np.std(exact) > 0.3
    assert set(found.platform.values) == {"tb"}


# Channels -----------------------------------------------------------------------------------------

MATRIX = np.array([[1.0, 0.6, 0.2], [0.6, 1.0, 0.4], [0.2, 0.4, 1.0]])


def sounder(column: xr.Dataset, matrix=MATRIX, **attrs) -> xr.Dataset:
    pixel = pixels(column, 5).drop_vars(["air_pressure", "scan_angle"])
    pressure = ("channel", [8e4, 6e4, 4e4], {"units": "Pa", "standard_name": "air_pressure"})
    values = np.full((5, 3), 260.0) + np.arange(15).reshape(5, 3)
    base = {**pixel.attrs, "error_correlation_matrix": "correlation", **attrs}
    tb = xr.DataArray(values, {**pixel.coords, "air_pressure": pressure}, ("pixel", "channel"))
    ds = tb.assign_attrs(base).to_dataset(name="tb")
    return ds.assign(correlation=(("channel", "other_channel"), matrix))


def test_channels_correlate_within_a_view(column, tmp_path) -> None:
    obs = sounder(column)
    operator = column.isel(time=slice(4)).appa.operator(obs)
    r = operator.error_covariance.toarray()
    np.testing.assert_allclose(r, np.kron(np.eye(5), 0.25 * MATRIX), atol=1e-15)
    assert "correlated between 3 channels" in repr(operator)
    obs.to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataset(tmp_path / "obs.nc") as again:
        same = column.isel(time=slice(4)).appa.operator(again).error_covariance.toarray()
    np.testing.assert_array_equal(same, r)


def test_the_channel_may_come_first(column) -> None:
    obs = sounder(column)
    turned = obs.assign(tb=obs.tb.transpose("channel", "pixel"))
    r = column.isel(time=slice(4)).appa.operator(turned).error_covariance.toarray()
    np.testing.assert_allclose(r, np.kron(0.25 * MATRIX, np.eye(5)), atol=1e-15)


def test_a_missing_channel_leaves_the_others(column) -> None:
    obs = sounder(column)
    obs["tb"][2, 1] = np.nan
    r = column.isel(time=slice(4)).appa.operator(obs).error_covariance.toarray()
    keep = np.delete(np.arange(15), 7)
    np.testing.assert_allclose(r, np.kron(np.eye(5), 0.25 * MATRIX)[np.ix_(keep, keep)], atol=1e-15)


def test_channels_correlate_in_space_as_well(column) -> None:
    obs = sounder(column, error_correlation_length="500 km")
    r = column.isel(time=slice(4)).appa.operator(obs).error_covariance.toarray() / 0.25
    np.testing.assert_allclose(r[0:3, 0:3], MATRIX)
    np.testing.assert_allclose(r[0:3, 3:6], r[0, 3] * MATRIX, atol=1e-12)


def test_drawn_channels_correlate(column) -> None:
    (spec,) = column.isel(time=slice(4)).appa.operator(sounder(column)).specs
    drawn = np.stack([observation_noise(spec, seed) for seed in range(5000)])
    expected = np.kron(np.eye(5), 0.25 * MATRIX)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.025)


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (np.ones((3, 3)), "not positive definite"),
        ([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]], "not positive definite"),
        ([[1.0, 0.5, 0.0], [0.4, 1.0, 0.0], [0.0, 0.0, 1.0]], "mirror images"),
        (4 * np.eye(3), "a diagonal from 4 to 4"),
        (np.full((3, 3), np.nan), "not finite"),
        (np.eye(3)[:, :2], "a square variable"),
    ],
)
def test_matrices_that_are_no_correlation(column, matrix, match) -> None:
    with pytest.raises(ErrorCovarianceError, match=match):
        column.isel(time=slice(4)).appa.operator(sounder(column, np.asarray(matrix)))


def test_a_matrix_that_is_not_there(column) -> None:
    with pytest.raises(ErrorCovarianceError, match="a variable of the same Dataset"):
        column.isel(time=slice(4)).appa.operator(sounder(column).drop_vars("correlation"))
