"""Backgrounds and filters against closed forms and dense linear algebra, without sampling."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import xappa
from xappa.bridge import Layout, pack
from xappa.errors import ArgumentError, BackgroundError, GridMismatchError
from xappa.models.posterior import GaussianPosterior, Residual
from xappa.observe import ObservationOperator, read_observations
from xappa.tasks.assimilate import Settings
from xappa.tasks.background import condition, relative_error
from xappa.tasks.carry import GaussianCarry
from xappa.tasks.cycle import _Cycles
from xappa.tasks.window import Window


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=60)


@pytest.fixture(scope="module")
def model(weather):
    return xappa.fit_gaussian(weather, modes=5)


@pytest.fixture(scope="module")
def day(weather) -> xr.Dataset:
    return weather.isel(time=slice(4, 9))


@pytest.fixture(scope="module")
def obs(weather) -> xr.DataArray:
    period = weather.isel(time=slice(4, 11))
    network = xappa.observe.random_stations(period, 4, variable="t2m", error=0.3, seed=1)
    return period.appa.observe(network, seed=1)


def conditioned(model, ds, relative, obs=()):
    """The window of a Dataset, and its prior and residual given the Dataset as background."""
    layout = Layout.of(ds, model.spec)
    window = Window.of(layout, model, read_observations(list(obs), model.spec))
    states = pack(ds, model.spec, layout).values
    prior = model.prior(len(window.seconds))
    return window, states, *condition(model, prior, states, relative, window)


def dense(trajectory) -> np.ndarray:
    """The covariance of a trajectory, (T M, T M)."""
    import torch

    size = trajectory.length * trajectory.size
    unit = torch.eye(size, dtype=torch.float64).reshape(size, trajectory.length, -1)
    return trajectory.covariance_times(unit).reshape(size, size).numpy()


@pytest.mark.parametrize("s", [0.1, 1.0, 5.0])
def test_scaled_background_has_a_closed_form(model, day, s) -> None:
    """Mean c + a / (1 + s²) and variance B s² / (1 + s²), at every point and time."""
    relative = np.full(model.eofs.shape[0], s)
    window, states, prior, residual = conditioned(model, day, relative)
    anomaly = (states - model.climatology(window.seconds)).reshape(len(states), -1)
    mean = prior.mean.numpy() @ model.eofs.T.astype(float) + residual.mean
    np.testing.assert_allclose(mean, anomaly / (1 + s**2), atol=1e-9)
    shrunk = s**2 / (1 + s**2)
    full = model.process.covariance(len(window.seconds)).numpy()
    np.testing.assert_allclose(dense(prior), full * shrunk, atol=1e-9)
    np.testing.assert_allclose(residual.variance, model.residual * shrunk, rtol=1e-12)


def test_uneven_background_within_a_longer_window(model, day, weather, obs) -> None:
    """Errors that vary in space, and states around the background: dense linear algebra agrees."""
    relative = np.random.default_rng(0).uniform(0.2, 2.0, model.eofs.shape[0])
    window, states, prior, residual = conditioned(model, day, relative, [obs])
    length, inside = len(window.seconds), window.inside
    assert (length, window.first, window.size) == (7, 0, 5)  # two states follow the background
    eofs, weight = model.eofs.astype(float), model.weight
    projection = np.linalg.solve(eofs.T * weight @ eofs, eofs.T * weight)
    S = np.kron(np.eye(window.size), projection @ (relative[:, None] * eofs))
    z = model.encode_array(states, window.seconds[inside]).ravel()
    full = model.process.covariance(length).numpy()
    error = S @ model.process.covariance(window.size).numpy() @ S.T
    known = slice(0, window.size * model.latent_size)
    gain = full[:, known] @ np.linalg.inv(full[known, known] + error)
    np.testing.assert_allclose(prior.mean.numpy().ravel(), gain @ z, atol=1e-8)
    np.testing.assert_allclose(dense(prior), full - gain @ full[known], atol=1e-8)
    # Beyond the background the residual is the prior's.
    np.testing.assert_array_equal(residual.variance[5:], np.stack([model.residual] * 2))
    assert not residual.mean[5:].any()


# What a background error may be -----------------------------------------------------------------


def relative(model, ds, **given) -> np.ndarray:
    return relative_error(
        model, Layout.of(ds, model.spec), given.get("error"), given.get("scale")
    ).reshape(model.spec.grid.shape)


def test_units_and_containers_of_a_background_error(model, day) -> None:
    pint = pytest.importorskip("pint")
    field = xr.full_like(day.t2m.isel(time=0, drop=True), 1.5)
    plain = relative(model, day, error=1.5)
    np.testing.assert_allclose(plain, 1.5 / model.std.reshape(plain.shape))
    for same in (
        {"t2m": 1.5},
        pint.Quantity(1.5, "K"),
        xr.DataArray(1.5),
        xr.DataArray(1500.0, attrs={"units": "mK"}),
        xr.DataArray(1.5, attrs={"units": "degC"}),  # a difference: no offset
        field,
        field.to_dataset(),
        (field * 1000).assign_attrs(units="mK"),
    ):
        np.testing.assert_allclose(relative(model, day, error=same), plain, rtol=1e-6)
    np.testing.assert_array_equal(relative(model, day, scale=0.5), 0.5)
    np.testing.assert_array_equal(relative(model, day, scale={"t2m": 0.5}), 0.5)


def test_fields_of_background_error_are_placed_by_their_coordinates(model, day) -> None:
    field = (day.t2m.isel(time=0, drop=True) * 0 + 3 + 0.1 * day.longitude).assign_attrs(units="K")
    field = field * (1 + 0.05 * (day.latitude - 50))
    expected = field.values / model.std.reshape(field.shape)
    turned = {
        "south up": field.sortby("latitude"),
        "transposed": field.T,
        "0 to 360": field.assign_coords(longitude=field.longitude % 360),
        "other names": field.rename(latitude="lat", longitude="lon"),
        "no coordinates": field.drop_vars(["latitude", "longitude"]),
    }
    for name, given in turned.items():
        np.testing.assert_allclose(
            relative(model, day, error=given), expected, rtol=1e-5, err_msg=name
        )
        # ... whichever way round the Dataset is
        if name != "no coordinates":
            np.testing.assert_allclose(
                relative(model, day.sortby("latitude"), error=given), expected, rtol=1e-5
            )
    by_latitude = field.isel(longitude=0, drop=True).sortby("latitude")
    found = relative(model, day, error=by_latitude) * model.std.reshape(field.shape)
    np.testing.assert_allclose(found, np.repeat(field.values[:, :1], 8, axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ("1 K", ArgumentError, r"cannot be understood[\s\S]*background_error=[\s\S]*got: str"),
        ([1.0, 2.0], ArgumentError, r"DataArray with coordinates[\s\S]*got: list"),
        (np.nan, BackgroundError, r"not positive[\s\S]*got: NaN"),
        (0.0, BackgroundError, r"not positive[\s\S]*got: 0"),
    ],
)
def test_background_errors_that_make_no_sense(model, day, given, error, match) -> None:
    with pytest.raises(error, match=match):
        relative(model, day, error=given)


def test_background_errors_that_do_not_fit(model, day) -> None:
    with pytest.raises(ArgumentError, match=r"varies along time[\s\S]*error.mean\('time'\)"):
        relative(model, day, error=xr.full_like(day.t2m, 1.0))
    shifted = day.t2m.isel(time=0, drop=True).assign_coords(latitude=day.latitude + 0.7)
    with pytest.raises(GridMismatchError, match="grids do not fit"):
        relative(model, day, error=shifted * 0 + 1)


def test_background_errors_are_recorded(model, day, obs) -> None:
    def recorded(**given):
        out = day.appa.assimilate(obs, model, members=1, seed=0, **given)
        return {k: v for k, v in out.attrs.items() if k.startswith("xappa_background")}

    assert recorded() == {}
    assert recorded(background_error=1.5) == {"xappa_background_error": 1.5}
    assert recorded(background_error_scale=0.5) == {"xappa_background_error_scale": 0.5}
    field = xr.full_like(day.t2m.isel(time=0, drop=True), 1.5)
    said = recorded(background_error={"t2m": field})["xappa_background_error"]
    assert json.loads(said) == {"t2m": "field of mean 1.5 K"}


# Filters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_last_state_of_a_filter_is_that_of_the_whole(model, weather, obs, stride) -> None:
    seconds = Layout.of(weather.isel(time=slice(4, 11)), model.spec).times
    specs = read_observations(obs, model.spec)
    settings = Settings("exact", [0], 0, None, xappa.Guidance())
    cycles = _Cycles(model, GaussianCarry(model, seconds), specs, seconds, stride, settings)
    done = 0
    for end in cycles.ends:
        last, first = cycles.posterior(end)
        assert last.operator.n_used == 4 * (end + 1 - done)
        assert len(last.seconds) == end + 1 - first
        cycles.carry.keep(None, end)
        done = end + 1
    whole = GaussianPosterior(
        model,
        ObservationOperator.build(specs, model.spec, seconds),
        seconds,
        model.prior(len(seconds)),
        Residual(model.residual),
    )
    np.testing.assert_allclose(last.exact.mean[0, -1], whole.exact.mean[0, -1], atol=1e-8)
    states, cycle = len(seconds), len(last.seconds)
    np.testing.assert_allclose(
        last.exact.covariance(slice(cycle - 1, cycle)),
        whole.exact.covariance(slice(states - 1, states)),
        atol=1e-8,
    )
