"""The posterior of states against dense linear algebra: latents and residual together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.bridge import Layout
from xappa.errors import OperatorError
from xappa.models.posterior import Draws, GaussianPosterior, Residual
from xappa.observe import ObservationOperator, read_observations
from xappa.tasks.arguments import DEFAULT_SAMPLER
from xappa.tasks.background import condition
from xappa.tasks.window import Window


class Dense:
    """The same problem with every matrix written out in the space of states."""

    def __init__(self, length: int = 3) -> None:
        ds = xappa.testing.weather(times=80, latitudes=4, longitudes=5)
        self.model = xappa.fit_gaussian(ds, modes=3, blanket=2)
        self.ds = ds.isel(time=slice(10, 10 + length))
        network = xappa.observe.random_stations(self.ds, 4, variable="t2m", error=0.4, seed=1)
        self.obs = self.ds.appa.observe(network, seed=2)
        layout = Layout.of(self.ds, self.model.spec)
        specs = read_observations(self.obs, self.model.spec)
        self.window = Window.of(layout, self.model, specs)
        operator = ObservationOperator.build(specs, self.model.spec, self.window.operator_times)
        prior = self.model.prior(length)
        self.posterior = GaussianPosterior(
            self.model, operator, self.window.seconds, prior, Residual(self.model.residual)
        )
        eofs = self.model.eofs.astype(float)
        big = np.kron(np.eye(length), eofs)
        d = np.tile(self.model.residual.astype(float), length)
        self.covariance = big @ self.model.process.covariance(length).numpy() @ big.T + np.diag(d)
        self.mean = self.model.climatology(self.window.seconds).ravel()
        self.h = operator.rows.matrix().toarray()
        self.r = np.diag(operator.error_std**2)
        self.y = operator.values

    def analysis(self, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gain = covariance @ self.h.T @ np.linalg.inv(self.h @ covariance @ self.h.T + self.r)
        return mean + gain @ (self.y - self.h @ mean), covariance - gain @ self.h @ covariance


@pytest.fixture(scope="module")
def dense() -> Dense:
    return Dense()


def states_without_noise(posterior: GaussianPosterior, monkeypatch) -> np.ndarray:
    """Decode the posterior mean of the latents, with the residual that goes with it."""
    z = posterior.exact.mean
    departure = posterior.observed - posterior.observe(z)
    draws = Draws(z.numpy(), posterior.noise.solve(departure).numpy())
    monkeypatch.setattr(
        GaussianPosterior, "residual_draw", lambda self, member, t, seed: np.zeros(20)
    )
    return posterior.decode(draws, [0], range(3), seed=0).reshape(-1)


def test_mean_of_the_states_is_optimal_interpolation(dense, monkeypatch) -> None:
    expected, _ = dense.analysis(dense.mean, dense.covariance)
    got = states_without_noise(dense.posterior, monkeypatch)
    # The nugget of 1e-6 in the autocovariance and float32 EOFs enter both alike.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("square_root", [False, True])
def test_draws_have_the_posterior_covariance(dense, square_root) -> None:
    members = range(3000)
    guidance = xappa.Guidance(square_root=square_root)
    draws = dense.posterior.draw("exact", members, 0, DEFAULT_SAMPLER, guidance)
    states = dense.posterior.decode(draws, members, range(3), 0).reshape(len(members), -1)
    mean, covariance = dense.analysis(dense.mean, dense.covariance)
    std = np.sqrt(np.diag(covariance))
    # 60 values: five standard errors of their mean, and six of their variance.
    assert (np.abs(states.mean(0) - mean) < 5 * std / np.sqrt(3000)).all()
    np.testing.assert_allclose(states.var(0), std**2, rtol=6 * np.sqrt(2 / 3000))
    sample = np.corrcoef(states.T)
    expected = covariance / np.outer(std, std)
    assert np.abs(sample - expected).max() < 0.12  # 1770 pairs: six standard errors of 1/√3000


def test_background_is_another_estimate_with_its_shape(dense, monkeypatch) -> None:
    s = 0.5
    background = dense.ds.t2m.values[:, None].astype(float) + 0.3
    prior, residual = condition(
        dense.model, dense.model.prior(3), background, np.full(20, s), dense.window
    )
    posterior = GaussianPosterior(
        dense.model, dense.posterior.operator, dense.window.seconds, prior, residual
    )
    # Prior N(c, P) and background N(x, s²P): mean c + (b - c)/(1 + s²), covariance P s²/(1 + s²).
    mean = dense.mean + (background.ravel() - dense.mean) / (1 + s**2)
    expected, _ = dense.analysis(mean, dense.covariance * s**2 / (1 + s**2))
    got = states_without_noise(posterior, monkeypatch)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["mmps", "jfps"])
def test_guided_methods_reach_the_exact_mean(dense, method) -> None:
    members = range(600)
    exact = dense.posterior.exact
    draws = dense.posterior.draw(method, members, 0, DEFAULT_SAMPLER, xappa.Guidance(rtol=1e-6))
    std = exact.covariance(slice(0, 3)).diagonal().sqrt().reshape(3, 3).numpy()
    error = np.abs(draws.latents.mean(0) - exact.mean[0].numpy())
    assert (error < (5 / np.sqrt(600) + 0.03) * std).all()
    np.testing.assert_allclose(draws.latents.std(0), std, rtol=0.2)


def test_linear_registered_operators_are_exact_and_others_are_refused(dense) -> None:
    @xappa.register_operator("doubled", inputs={"air_temperature": "K"}, units="K", linear=True)
    def doubled(temperature: torch.Tensor) -> torch.Tensor:
        return 2 * temperature

    @xappa.register_operator("squared", inputs={"air_temperature": "K"}, units="K2")
    def squared(temperature: torch.Tensor) -> torch.Tensor:
        return temperature**2

    try:
        twice = (2 * dense.obs).assign_attrs(dense.obs.attrs, xappa_operator="doubled")
        twice = twice.assign_coords(error_std=0.8)
        arguments = {"model": dense.model, "members": 2, "seed": 0}
        one = dense.ds.appa.assimilate(dense.obs, **arguments)
        other = dense.ds.appa.assimilate(twice, **arguments)
        xr.testing.assert_allclose(one, other, rtol=1e-5)
        square = (dense.obs**2).assign_attrs(
            dense.obs.attrs, xappa_operator="squared", units="K2"
        ).assign_coords(error_std=200.0)  # fmt: skip
        with pytest.raises(OperatorError, match=r"linear in the state[\s\S]*method='mmps'"):
            dense.ds.appa.assimilate(square, method="exact", **arguments)
        nonlinear = dense.ds.appa.assimilate(square, method="mmps", **arguments)
        assert np.isfinite(nonlinear.t2m).all()
    finally:
        from xappa.observe import unregister_operator

        unregister_operator("doubled")
        unregister_operator("squared")
