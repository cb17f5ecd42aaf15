"""The Gaussian that a learned denoiser may depart from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from training import TINY, log, weights

import xappa
from xappa.diffusion.blankets import BlanketDenoiser
from xappa.diffusion.guidance import MMPSDenoiser
from xappa.diffusion.schedules import schedule_of
from xappa.diffusion.scoped import FixedDates
from xappa.models.appa.estimate import LatentEstimate
from xappa.models.appa.guide import Blankets
from xappa.models.appa.normalisation import date_features
from xappa.models.appa.posterior import LatentPosterior
from xappa.models.appa.precondition import GaussianPreconditioner, _factor
from xappa.nn.gaussian import GaussianBlanket
from xappa.observe import ObservationOperator, read_observations
from xappa.training.gaussian import Correction, _Anomalies, _Sample, gaussian_of
from xappa.training.latents import Latents

SHAPE, K = (2, 3, 2), 3
SIZE = 12
DEPARTING = replace(TINY, modes=6)


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=60)


@pytest.fixture(scope="module")
def model(weather) -> xappa.models.base.Model:
    return xappa.train(weather, DEPARTING)


def covariance(decay: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Of one latent, with a few large patterns, and its root."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((SIZE, SIZE)) * decay ** np.arange(SIZE)
    return root @ root.T, root


class Runs:
    """What of a series matters here."""

    def __init__(self, length: int) -> None:
        self.runs = [slice(0, length // 2), slice(length // 2, length)]

    def starts(self, length: int) -> np.ndarray:
        return np.concatenate([np.arange(r.start, r.stop - length + 1) for r in self.runs])


def series(length: int, phi: float, mean: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """A process in two runs, whose mean follows the first date feature."""
    rng = np.random.default_rng(1)
    kicks = rng.standard_normal((length, SIZE)) @ covariance()[1].T
    z = np.empty((length, SIZE))
    for t in range(length):
        fresh = t in (0, length // 2)
        z[t] = kicks[t] if fresh else phi * z[t - 1] + np.sqrt(1 - phi**2) * kicks[t]
    return (z + np.outer(dates[:, 0], mean)).astype(np.float32)


def test_all_patterns_give_the_closed_form() -> None:
    phi, length, mean = 0.5, 20000, np.linspace(-1, 1, SIZE)
    dates = date_features(np.arange(length) * 21600.0, "standard")
    z = series(length, phi, mean, dates)
    latents = Latents(z[None], z[None], np.zeros(2), np.ones(2))
    gaussian = GaussianBlanket(SHAPE, K, SIZE)
    gaussian.load_state_dict(gaussian_of(latents, Runs(length), dates, K, SIZE, 0.3))
    one = covariance()[0] + 0.3**2 * np.eye(SIZE)
    lags = np.abs(np.subtract.outer(np.arange(K), np.arange(K)))
    # the noise of training is another one in each state
    whole = np.kron(phi**lags, covariance()[0]) + 0.3**2 * np.eye(K * SIZE)
    assert np.allclose(whole[:SIZE, :SIZE], one)
    rng = np.random.default_rng(2)
    about = (dates[100 : 100 + K, :1] * mean).ravel()
    for sigma in (0.1, 1.0, 10.0):
        x = rng.standard_normal(K * SIZE) * np.sqrt(1 + sigma**2)
        expected = about + whole @ np.linalg.solve(whole + sigma**2 * np.eye(K * SIZE), x - about)
        found = gaussian(
            torch.tensor(x.reshape(1, K, SIZE)),
            torch.tensor([sigma]),
            torch.as_tensor(dates[None, 100 : 100 + K]),
        )
        # the covariance is that of a sample
        np.testing.assert_allclose(found.numpy().ravel(), expected, atol=0.12)


def test_few_states_are_not_taken_for_more_than_they_are() -> None:
    """Outside the sample, the Gaussian is never worse than one that knows nothing but variance."""
    length, few = 8000, 60
    dates = np.zeros((length, 4))
    z = series(length, 0.9, np.zeros(SIZE), dates)
    sample = Latents(z[None, :few], z[None, few:], np.zeros(2), z.reshape(-1, 2).std(0))
    outside = sample.standardised(z[few:][: (length - few) // K * K].reshape(-1, K, SIZE))
    x, zero = torch.as_tensor(outside), torch.zeros(len(outside), K, 4)
    white = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    gaussian = GaussianBlanket(SHAPE, K, SIZE)

    def worst(arrays: dict[str, torch.Tensor]) -> float:
        gaussian.load_state_dict(arrays)
        errors = []
        for sigma in (0.1, 0.3, 1.0):
            found = gaussian(x + sigma * white, torch.full((len(x),), sigma), zero)
            errors.append((1 / sigma**2 + 1) * float((found - x).square().mean()))
        return max(errors)

    runs = Runs(few)
    apart = _Anomalies(sample, np.ones((few, 7)), np.zeros((7, SIZE)))
    kick = (0.05 / sample.std) ** 2
    naive = _Sample(apart, runs.runs, runs.starts(K), K, SIZE).arrays(
        kick, Correction(0.0, 1.0, np.ones(2))
    )
    now = gaussian_of(sample, runs, dates[:few], K, SIZE, 0.05)
    assert worst(now) < 1 < worst(naive)


def test_few_patterns_are_symmetric_and_stay_between_prior_and_data() -> None:
    length = 4000
    dates = np.zeros((length, 4))
    z = series(length, 0.9, np.zeros(SIZE), dates)
    latents = Latents(z[None], z[None], np.zeros(2), np.ones(2))
    gaussian = GaussianBlanket(SHAPE, K, 3)
    gaussian.load_state_dict(gaussian_of(latents, Runs(length), dates, K, 3, 0.0))
    zero = torch.zeros(1, K, 4)

    def apply(x: torch.Tensor) -> torch.Tensor:
        return gaussian(x.reshape(1, K, SIZE), torch.tensor([0.7]), zero).flatten()

    start = torch.zeros(K * SIZE, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(apply, start)
    torch.testing.assert_close(jacobian, jacobian.mT, atol=1e-6, rtol=0)
    values = torch.linalg.eigvalsh(jacobian)
    assert values.min() > -1e-6
    # the covariance of what was noisy, by Tweedie's formula
    v = torch.randn(1, K, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tweedie = 0.7**2 * (jacobian @ v.flatten()).reshape(v.shape)
    torch.testing.assert_close(
        gaussian.covariance(v, torch.tensor(0.7)), tweedie, atol=1e-6, rtol=0
    )
    assert values.max() < 1
    # what the patterns leave is remembered from state to state, too
    rest = gaussian.rest.numpy()
    np.testing.assert_allclose(rest[1:] / rest[:-1], 0.9, atol=0.05)


def test_a_denoiser_begins_where_the_gaussian_is(weather, tmp_path) -> None:
    """Its first errors are far below those of a network that knows only mean and variance."""
    found = {}
    for name, config in {"departing": DEPARTING, "not": TINY}.items():
        xappa.train(weather, config, folder=tmp_path / name)
        losses = log(tmp_path / name).denoiser
        found[name] = float(losses[:4].mean())
    assert found["departing"] < 0.8 * found["not"]


def test_a_departing_denoiser_is_kept(model, weather, tmp_path) -> None:
    assert model.network.gaussian is not None
    assert bool(model.network.gaussian.patterns.any())
    opened = xappa.open_model(model.save(tmp_path / "bundle"))
    assert opened.hash == model.hash
    day = weather.isel(time=slice(4, 10))
    obs = xappa.observe.random_stations(day, 5, variable="t2m", error=0.5, seed=0)
    y = day.appa.observe(obs, seed=0)
    one, other = (day.appa.assimilate(y, m, members=2, seed=0) for m in (model, opened))
    xr.testing.assert_equal(one.drop_attrs(), other.drop_attrs())


def test_a_killed_training_of_a_departing_denoiser_goes_on(
    model, weather, tmp_path, monkeypatch
) -> None:
    from xappa.training.loop import _Trainer

    steps = []
    own = _Trainer._step

    def step(self, *args):
        steps.append(1)
        if len(steps) == DEPARTING.autoencoder_steps + 13:
            raise KeyboardInterrupt
        own(self, *args)

    monkeypatch.setattr(_Trainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        xappa.train(weather, DEPARTING, folder=tmp_path)
    monkeypatch.setattr(_Trainer, "_step", own)
    again = xappa.train(weather, DEPARTING, folder=tmp_path)
    for name, value in weights(model).items():
        np.testing.assert_array_equal(weights(again)[name], value)


def test_the_noise_levels_ends() -> None:
    """Little noise leaves latents as they are, and much of it the mean."""
    torch.manual_seed(0)
    gaussian = GaussianBlanket(SHAPE, K, 2)
    patterns = torch.linalg.qr(torch.randn(SIZE, 2))[0]
    with torch.no_grad():
        gaussian.patterns.copy_(patterns)
        gaussian.correlation[0].copy_(torch.eye(2))
        gaussian.rest[0].fill_(0.5)
        gaussian.mean[0].fill_(0.25)
    network = torch.nn.Module()
    network.gaussian = gaussian
    network.forward = lambda x, level, dates, guess: torch.zeros_like(x)
    denoiser = BlanketDenoiser(network, schedule_of("rectified", 1e-3, 1e3))
    x = torch.randn(2, K, SIZE)
    dates = torch.zeros(2, K, 4)
    torch.testing.assert_close(denoiser.at(x, torch.tensor(1e-4), dates), x, atol=1e-5, rtol=1e-5)
    far = denoiser.at(1e4 * x, torch.tensor(1e4), dates)
    torch.testing.assert_close(far, torch.full_like(x, 0.25), atol=2e-3, rtol=0)


def test_a_rounded_model_takes_half_the_space(model, weather, tmp_path) -> None:
    folders = {
        name: own.save(tmp_path / name)
        for name, own in {"whole": model, "rounded": model.rounded()}.items()
    }
    sizes = {k: (v / "weights.safetensors").stat().st_size for k, v in folders.items()}
    assert sizes["rounded"] < 0.65 * sizes["whole"]
    opened = xappa.open_model(folders["rounded"])
    assert opened.hash == model.rounded().hash != model.hash
    assert "float16" not in {array.dtype.name for array in weights(opened).values()}
    states = weather.isel(time=slice(4))
    whole, rounded = (states.appa.encode(own).appa.decode(own) for own in (model, opened))
    for name in states.data_vars:
        assert float(abs(whole[name] - rounded[name]).max()) < 0.01 * float(states[name].std())


def guided(model, window, y, **settings):
    """The guided denoiser of one blanket, its noisy latents and a middling time."""
    seconds = window.time.values.astype("datetime64[s]").astype(float)
    specs = read_observations(y, model.spec)
    operator = ObservationOperator.build(specs, model.spec, seconds)
    parts = Blankets([LatentPosterior(model, operator, seconds)])
    guide = parts.guide("mmps", xappa.Guidance(rtol=0.0, **settings))
    x = torch.randn(1, 4, model.latent_size, generator=torch.Generator().manual_seed(0))
    return guide(FixedDates(model.denoiser, model.dates(seconds)[None].float())), 3 * x


@pytest.mark.parametrize("count", [7, 12])
def test_the_gaussian_shortens_the_solve(model, weather, count) -> None:
    """It decides how fast the solve converges, and not what it converges to."""
    window = weather.isel(time=slice(4, 8))
    network = xappa.observe.random_stations(window, count, variable="t2m", error=0.2, seed=0)
    y = window.appa.observe(network, seed=0)
    time = torch.tensor(0.7, dtype=torch.float64)
    found = {}
    for precondition in (True, False):
        for iterations in (1, 4 * count):
            own = {"precondition": precondition, "iterations": iterations}
            denoiser, x = guided(model, window, y, **own)
            found[precondition, iterations] = denoiser(x, time).mean, denoiser.last.residual
    assert float(found[True, 1][1]) < 0.7 * float(found[False, 1][1])
    whole = [found[precondition, 4 * count][0] for precondition in (True, False)]
    torch.testing.assert_close(*whole, atol=2e-3, rtol=1e-3)


def test_observations_without_errors_to_speak_of_have_a_factor() -> None:
    """In single precision, one beside their precision is nothing."""
    rng = torch.Generator().manual_seed(0)
    root, u = torch.randn(60, 60, generator=rng), 1e6 * torch.randn(500, 60, generator=rng)
    u[:, 30:] = u[:, :30]
    inner = u.T @ u
    factor = _factor(root, inner)
    assert bool(torch.isfinite(factor).all())
    again = factor @ factor.T
    system = root.T @ inner @ root
    assert float((again - system).norm() / system.norm()) < 1e-3


# Latents that are known ---------------------------------------------------------------------------


@pytest.mark.parametrize("in_patterns", [False, True])
def test_the_preconditioner_inverts_what_a_gaussian_makes_of_known_latents(
    model, in_patterns
) -> None:
    """With patterns for all latents there is no rest, and it is no approximation."""
    spec, size, blanket = model.spec, model.latent_size, model.blanket
    rng = np.random.default_rng(0)
    gaussian = GaussianBlanket(model.autoencoder.config.latent_shape, blanket, size)
    patterns = np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)
    gaussian.patterns.copy_(torch.as_tensor(patterns))
    gaussian.std.copy_(torch.as_tensor(rng.uniform(0.5, 1.5, size)))
    lags = torch.as_tensor(0.7 ** np.arange(blanket), dtype=torch.float32)
    gaussian.correlation.copy_(lags[:, None, None] * torch.eye(size))
    network = torch.nn.Linear(1, 1)
    network.gaussian = gaussian
    seconds = 3600.0 * np.arange(blanket)
    estimate = LatentEstimate(
        np.array([0, 2]),
        np.zeros((2, size), np.float32),
        rng.uniform(0.1, 1, size * (1 + in_patterns)),
        patterns if in_patterns else None,
    )
    nothing = ObservationOperator.build([], spec, seconds)
    other = model.with_normalisation()
    other.network = network
    part = LatentPosterior(other, nothing, seconds, estimate)
    sigma = 0.8
    inverse = GaussianPreconditioner(part).at(sigma)

    def seen(z: torch.Tensor) -> torch.Tensor:
        return estimate.equivalents(z.reshape(-1, blanket, size).float()).double()

    a = seen(torch.eye(blanket * size)).T
    posterior = gaussian.covariance(
        torch.eye(blanket * size).reshape(-1, blanket, size), torch.tensor(sigma)
    )
    dense = a @ posterior.flatten(1).double() @ a.T + torch.diag(torch.as_tensor(part.variance))
    v = torch.randn(3, len(dense), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        inverse(v).double(), torch.linalg.solve(dense, v.double().T).T, atol=1e-3, rtol=1e-3
    )


def test_forecasts_follow_the_gaussian_where_noise_is_large(model, weather, monkeypatch) -> None:
    """No network is differentiated above the level, and the level is the user's."""
    counts = []

    def counted(self, x_t, t, **kwargs):
        counts.append(float(self.schedule(t)[1]))
        return whole(self, x_t, t, **kwargs)

    whole = MMPSDenoiser.forward
    monkeypatch.setattr(MMPSDenoiser, "forward", counted)
    settings = {"members": 1, "seed": 0, "progress": False, "lead": "6h", "preds_per_step": 1}
    settings["sampler"] = xappa.Sampler("ddim", 6)
    start = weather.isel(time=slice(-4, None))
    for above, most in ((None, np.inf), (5.0, 5.0), (0.0, 0.0)):
        counts.clear()
        fc = start.appa.forecast(model, guidance=xappa.Guidance(gaussian_above=above), **settings)
        assert np.isfinite(fc.t2m).all()
        assert max(counts, default=0.0) <= most
        assert (len(counts) == 6) == (above is None)
    with pytest.raises(xappa.errors.ArgumentError, match="gaussian_above"):
        xappa.Guidance(gaussian_above=-1.0)
