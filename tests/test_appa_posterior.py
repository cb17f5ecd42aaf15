"""Posteriors of latent diffusion priors against the closed form.

The networks are replaced by what they should learn: a linear decoder, and the denoiser of a known
Gaussian distribution of blankets.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import xappa
from xappa.bridge import StateSpec, VariableSpec
from xappa.diffusion.blankets import BlanketDenoiser, Cut, TrajectoryDenoiser
from xappa.diffusion.guidance import MMPSDenoiser
from xappa.diffusion.noise import generator
from xappa.diffusion.schedules import schedule_of
from xappa.errors import ArgumentError, BackgroundError
from xappa.grid import Grid
from xappa.models.appa.carry import message
from xappa.models.appa.guide import ObservationNoise, bounding_scale
from xappa.models.appa.model import AppaModel
from xappa.models.appa.normalisation import Normalisation
from xappa.nn.autoencoder import AutoencoderConfig, ConvAutoencoder
from xappa.nn.transformer import TransformerConfig

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")

RHO, K = 0.8, 4
ROWS, COLUMNS = 3, 4
SIZE = ROWS * COLUMNS


class GaussianNetwork(nn.Module):
    """What the network of a perfect denoiser of N(0, C) returns, for C (K L, K L)."""

    def __init__(self, covariance: Tensor, config: TransformerConfig | None = None) -> None:
        super().__init__()
        self.config = config or SimpleNamespace(blanket_size=K, activation_bytes=2**20)
        values, vectors = torch.linalg.eigh(covariance.double())
        self.values = nn.Parameter(values, requires_grad=False)
        self.vectors = nn.Parameter(vectors, requires_grad=False)

    def forward(self, x: Tensor, level: Tensor, dates: Tensor) -> Tensor:
        sigma = torch.exp(level.double() / 10)[:, None]
        x_t = x.double().flatten(1) * (1 + sigma**2).sqrt()
        shrunk = self.values / (self.values + sigma**2)
        mean = ((x_t @ self.vectors) * shrunk) @ self.vectors.mT
        out = (mean - x_t / (1 + sigma**2)) * (1 + sigma**2).sqrt() / sigma
        return out.unflatten(1, x.shape[1:]).to(x)


def autoregressive(length: int, rho: float = RHO) -> np.ndarray:
    """Covariance of an AR(1) series of unit variance."""
    lag = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    return rho**lag


class LinearAppa(AppaModel):
    """A model whose decoder is a matrix, and whose latents are independent AR(1) series."""

    matrix: Tensor

    def decode_tensor(self, z: Tensor) -> Tensor:
        self.decoded = getattr(self, "decoded", 0) + len(z)
        x = z @ self.matrix.to(z).mT
        return x.unflatten(-1, self.spec.shape) * self._of("std", x) + self._of("mean", x)

    def encode_tensor(self, x: Tensor) -> Tensor:
        flat = ((x - self._of("mean", x)) / self._of("std", x)).flatten(1)
        return flat @ torch.linalg.inv(self.matrix).to(x).mT


@pytest.fixture(scope="module")
def model() -> LinearAppa:
    grid = Grid(np.array([60.0, 50.0, 40.0]), np.array([0.0, 10.0, 20.0, 30.0]))
    variable = VariableSpec("t2m", "air_temperature", 2.0, "K", None)
    spec = StateSpec((variable,), grid, 3600.0, "standard")
    config = AutoencoderConfig((ROWS, COLUMNS), 1, 1, (2,), (0,), boundary="edge")
    covariance = torch.as_tensor(np.kron(autoregressive(K), np.eye(SIZE)))
    transformer = TransformerConfig(
        config.latent_shape, K, 8, 1, 1, mod_features=4, patch_size=(1, 1, 1)
    )
    one = np.ones((1, 1, 1))
    normalisation = Normalisation(280 * one, 2 * one, np.zeros(1), np.ones(1), 0.1 * one)
    found = LinearAppa(
        spec,
        ConvAutoencoder(config),
        GaussianNetwork(covariance, transformer),
        ("loglinear", 1e-2, 1e2),
        normalisation,
        name="linear",
    )
    rng = np.random.default_rng(0)
    found.matrix = torch.as_tensor(np.eye(SIZE) + 0.2 * rng.standard_normal((SIZE, SIZE)))
    return found


@pytest.fixture(scope="module")
def window(model) -> xr.Dataset:
    return model.template("2021-03-01", f"2021-03-01T{K - 1:02d}")


@pytest.fixture(scope="module")
def obs(window) -> xr.DataArray:
    rng = np.random.default_rng(1)
    times = window.time.isel(time=[0, 2])
    return xr.DataArray(
        280 + 3 * rng.standard_normal((2, 3)),
        {
            "time": times,
            "latitude": ("station", [60.0, 45.0, 43.0]),
            "longitude": ("station", [10.0, 5.0, 22.0]),
            "height": 2.0,
        },
        ("time", "station"),
        attrs={"standard_name": "air_temperature", "units": "K", "error_std": 0.5},
    )


def closed_form(model, operator, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and covariance of the states (T P) of a trajectory."""
    prior = np.kron(autoregressive(length), 4 * (model.matrix @ model.matrix.mT).numpy())
    h = operator.rows.matrix().toarray()
    # The autoencoder's error adds to R, fully correlated within an observation's footprint.
    r = operator.error_covariance.toarray() + np.diag((0.1 * np.abs(h).sum(1)) ** 2)
    gain = prior @ h.T @ np.linalg.inv(h @ prior @ h.T + r)
    mean = 280 + gain @ (operator.values - 280)
    return mean, prior - gain @ h @ prior


def test_guidance_is_exact_for_one_blanket() -> None:
    """E[x | x_t, y] to 1e-8 in float64, through a linear decoder and a stitching of one."""
    rng = np.random.default_rng(2)
    size = 3
    covariance = np.kron(autoregressive(K), np.eye(size))
    denoiser = TrajectoryDenoiser(
        BlanketDenoiser(
            GaussianNetwork(torch.as_tensor(covariance)), schedule_of("loglinear", 1e-2, 1e2)
        ),
        torch.zeros(K, 4),
        Cut(K, K, 2),
    )
    a = rng.standard_normal((5, K * size))
    y, r = rng.standard_normal(5), rng.uniform(0.1, 1, 5)
    x_t = torch.as_tensor(rng.standard_normal((2, K, size)))
    for t in (0.2, 0.5, 0.8):
        guided = MMPSDenoiser(
            denoiser,
            torch.as_tensor(y),
            lambda z: z.flatten(1) @ torch.as_tensor(a).mT,
            ObservationNoise(torch.as_tensor(r)),
            solver="gmres",
            iterations=5,
            rtol=0.0,
        )
        found = guided(x_t, torch.tensor(t, dtype=torch.float64)).mean.flatten(1).numpy()
        sigma = float(denoiser.schedule(torch.tensor(t))[1])
        precision = np.linalg.inv(covariance) + np.eye(K * size) / sigma**2 + (a.T / r) @ a
        pull = x_t.flatten(1).numpy() / sigma**2 + (a.T / r) @ y
        np.testing.assert_allclose(found, np.linalg.solve(precision, pull.T).T, atol=1e-8)


@pytest.mark.parametrize("scope", ["trajectory", "blanket"])
@pytest.mark.parametrize("attrs", [{}, {"bias_error_std": 1.0, "error_correlation_time": "3h"}])
def test_posterior_of_one_blanket(model, window, obs, scope, attrs) -> None:
    members, obs = 300, obs.assign_attrs(attrs)
    ens = window.appa.assimilate(
        obs,
        model,
        members=members,
        seed=0,
        guidance=xappa.Guidance(iterations=6, rtol=1e-4, scope=scope),
        progress=False,
    )
    operator = window.appa.operator(obs, model=model)
    mean, covariance = closed_form(model, operator, K)
    std = np.sqrt(np.diag(covariance))
    flat = ens.t2m.values.reshape(members, -1)
    # Means to five standard errors; standard deviations to their own, and the sampler's 3 %.
    assert np.abs((flat.mean(0) - mean) / std).max() < 5 / np.sqrt(members)
    ratio = flat.std(0, ddof=1) / std
    assert np.abs(ratio - 1).max() < 5 / np.sqrt(2 * members) + 0.03
    assert ens.t2m.dims == ("member", "time", "latitude", "longitude")
    assert ens.attrs["xappa_method"] == "mmps"


@pytest.mark.parametrize("method", ["mmps", "jfps", "sda", "dps"])
def test_methods_draw_members_that_are_their_own(model, window, obs, method) -> None:
    sampler = xappa.Sampler("ddpm" if method == "dps" else "multistep", 6)
    settings = {"seed": 3, "method": method, "sampler": sampler, "progress": False}
    few = window.appa.assimilate(obs, model, members=2, **settings)
    many = window.appa.assimilate(obs, model, members=5, **settings)
    np.testing.assert_allclose(many.t2m[:2], few.t2m, rtol=1e-5)
    assert float(np.abs(many.t2m[0] - many.t2m[1]).max()) > 0.1
    lazy = window.chunk(time=2).appa.assimilate(obs, model, members=2, **settings)
    np.testing.assert_allclose(lazy.t2m.compute(), few.t2m, rtol=1e-5)


@pytest.mark.parametrize("states", [K, 10])
@pytest.mark.parametrize("scope", ["blanket", "trajectory"])
def test_members_in_batches_are_the_same(model, obs, monkeypatch, states, scope) -> None:
    window = model.template("2021-03-01", f"2021-03-01T{states - 1:02d}")
    settings = {
        "members": 3,
        "seed": 0,
        "sampler": xappa.Sampler("ddim", 4),
        "guidance": xappa.Guidance(scope=scope),
        "progress": False,
    }
    whole = window.appa.assimilate(obs, model, **settings)
    # one member, one blanket, one state at a time; what is not kept is computed again
    monkeypatch.setattr("xappa.models.appa.posterior.memory_budget", lambda device: 1)
    np.testing.assert_allclose(
        window.appa.assimilate(obs, model, **settings).t2m, whole.t2m, rtol=1e-5
    )


def test_batches_shrink_where_memory_runs_out(model, window, obs, monkeypatch) -> None:
    settings = {"members": 5, "seed": 0, "sampler": xappa.Sampler("ddim", 4), "progress": False}
    whole = window.appa.assimilate(obs, model, **settings)
    sizes, decode = [], type(model).decode_tensor

    def greedy(self, z: Tensor) -> Tensor:
        sizes.append(len(z))
        if len(z) > K:  # more than the states of one member
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(self, z)

    monkeypatch.setattr(LinearAppa, "decode_tensor", greedy)
    monkeypatch.setattr("xappa.models.appa.posterior.LEAST_BUDGET", 1)
    np.testing.assert_allclose(
        window.appa.assimilate(obs, model, **settings).t2m, whole.t2m, rtol=1e-5
    )
    assert max(sizes) > K
    assert sizes[-1] <= K


def test_memory_that_never_suffices_is_said(model, window, obs, monkeypatch) -> None:
    def hopeless(self, z: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LinearAppa, "decode_tensor", hopeless)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        window.appa.assimilate(obs, model, members=2, progress=False)


def test_states_without_observations_are_not_decoded(model, window, obs) -> None:
    sampler = xappa.Sampler("ddim", 2)
    counts = []
    for seen in (obs, obs.isel(time=[0])):
        model.decoded = 0
        window.appa.assimilate(seen, model, members=1, seed=0, sampler=sampler, progress=False)
        counts.append(model.decoded - K)  # the result itself has K states
    assert counts[0] == 2 * counts[1]
    model.decoded = 0
    with pytest.warns(xappa.errors.NoObservationsWarning):
        window.appa.assimilate([], model, members=1, seed=0, sampler=sampler, progress=False)
    assert model.decoded == K


@pytest.mark.parametrize("scope", ["blanket", "trajectory"])
def test_sda_stays_finite_with_more_observations_than_latents(model, window, scope) -> None:
    """Without a bound on the guidance the reverse diffusion diverges, by orders of magnitude."""
    rng = np.random.default_rng(2)
    latitude, longitude = rng.uniform(40, 60, 60), rng.uniform(0, 30, 60)
    obs = xr.DataArray(
        np.full((K, 60), 281.0),
        {
            "time": window.time,
            "latitude": ("station", latitude),
            "longitude": ("station", longitude),
            "height": 2.0,
        },
        ("time", "station"),
        attrs={"standard_name": "air_temperature", "units": "K", "error_std": 0.1},
    )
    settings = {"members": 20, "seed": 0, "progress": False}
    guidance = xappa.Guidance(scope=scope)
    sda = window.appa.assimilate(obs, model, method="sda", guidance=guidance, **settings)
    assert abs(sda.t2m.mean() - 281.0) < 0.4  # the bound makes it timid, by a tenth of the pull
    assert abs(sda.t2m - 281.0).max() < 6  # three climatological standard deviations


def test_a_scale_that_bounds_the_derivative() -> None:
    g = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def observe(z: Tensor) -> Tensor:
        return torch.einsum("bnl,btl->bn", g, z)

    scale = g.square().sum(-1).sqrt()
    bound = bounding_scale(observe, scale, torch.zeros(2, 1, 8, dtype=torch.float64))
    excess = torch.linalg.eigvalsh(torch.diag_embed(bound**2) - g @ g.mT)
    assert (excess > 0).all()
    assert (bound / scale < 1.1 * (30 / 4) ** 0.5).all()  # and not wastefully large


@pytest.mark.parametrize("stitching", ["symmetrical", "causal", "average"])
def test_stitching_is_the_users_choice(model, obs, stitching) -> None:
    long = model.template("2021-03-01", "2021-03-01T09")
    guidance = xappa.Guidance(stitching=stitching, overlap=3)
    out = long.appa.assimilate(
        obs,
        model,
        members=1,
        seed=0,
        sampler=xappa.Sampler("ddim", 4),
        guidance=guidance,
        progress=False,
    )
    settings = json.loads(out.attrs["xappa_settings"])["guidance"]
    assert (settings["stitching"], settings["overlap"]) == (stitching, 3)
    assert np.isfinite(out.t2m).all()
    other = long.appa.assimilate(
        obs, model, members=1, seed=0, sampler=xappa.Sampler("ddim", 4), progress=False
    )
    assert not np.allclose(out.t2m, other.t2m)


def test_blankets_do_not_overlap_wholly(model, window, obs) -> None:
    with pytest.raises(ArgumentError, match="overlap by their whole length"):
        window.appa.assimilate(obs, model, guidance=xappa.Guidance(overlap=K))


def test_long_windows_are_stitched(model, obs) -> None:
    window = model.template("2021-03-01", "2021-03-01T10")
    ens = window.appa.assimilate(obs, model, members=100, seed=0, progress=False)
    mean, covariance = closed_form(model, window.appa.operator(obs, model=model), 11)
    std = np.sqrt(np.diag(covariance))
    gap = (ens.t2m.mean("member").values.ravel() - mean) / std
    # Stitching is an approximation; see the table in docs/benchmarks.md.
    assert np.abs(gap).mean() < 0.25  # of which 0.08 is the sampling error of 100 members
    assert np.abs(ens.t2m.std("member").values.ravel() / std - 1).mean() < 0.3


def test_short_windows_are_padded(model, window, obs) -> None:
    one = window.isel(time=[0]).appa.assimilate(
        obs.isel(time=[0]), model, members=200, seed=0, progress=False
    )
    assert one.sizes["time"] == 1
    mean, covariance = closed_form(
        model, window.isel(time=[0]).appa.operator(obs.isel(time=[0]), model=model), 1
    )
    std = np.sqrt(np.diag(covariance))
    assert np.abs((one.t2m.mean("member").values.ravel() - mean) / std).max() < 0.35


def test_background(model, window) -> None:
    background = window.assign(t2m=window.t2m.fillna(283.0))
    with pytest.warns(xappa.errors.NoObservationsWarning):
        ens = background.appa.assimilate(
            [], model, members=200, seed=0, background_error_scale=0.5, progress=False
        )
    # Latents observed with a variance of 0.25 s² at all times.
    z = torch.linalg.solve(model.matrix, torch.full((SIZE,), 1.5, dtype=torch.float64)).numpy()
    prior = autoregressive(K)
    gain = prior @ np.linalg.inv(prior + 0.25 * np.eye(K))
    expected = 280 + 2 * (gain @ np.ones((K, 1)) * z) @ model.matrix.numpy().T
    found = ens.t2m.mean("member").values.reshape(K, -1)
    spread = ens.t2m.std("member").values.reshape(K, -1)
    assert np.abs((found - expected) / spread).max() < 5 / math.sqrt(200)


def test_a_background_must_be_there(model, window, obs) -> None:
    with pytest.raises(BackgroundError, match="background is missing"):
        window.appa.assimilate(obs, model, background_error_scale=0.5)


def test_forecasts_decay_to_the_climatology(model, window) -> None:
    start = window.assign(t2m=window.t2m.fillna(284.0))
    fc = start.appa.forecast(model, lead="6h", members=300, seed=0, progress=False)
    leads = np.arange(1, 7)
    mean = fc.t2m.mean(["member", "latitude", "longitude"]).values - 280
    np.testing.assert_allclose(mean, 4 * RHO**leads, atol=0.15)
    climate = 2 * np.sqrt(np.diag((model.matrix @ model.matrix.mT).numpy())).mean()
    spread = fc.t2m.std("member").mean(["latitude", "longitude"]).values / climate
    np.testing.assert_allclose(spread, np.sqrt(1 - RHO ** (2 * leads)), atol=0.06)
    with pytest.raises(ArgumentError, match="preds_per_step is no positive integer"):
        start.appa.forecast(model, lead="3h", preds_per_step=0)
    with pytest.raises(
        xappa.errors.TimeStepError, match=r"not a positive[\s\S]*1:00:00 or 2:00:00"
    ):
        start.appa.forecast(model, lead="90min")


def test_forecasts_go_on_from_latents(model, window) -> None:
    start = window.assign(t2m=window.t2m.fillna(284.0))
    settings = {"lead": "3h", "members": 2, "seed": 0, "progress": False}
    z = start.appa.encode(model)
    fc = start.appa.forecast(model, **settings)
    xr.testing.assert_equal(z.appa.forecast(model, **settings), fc)
    lazy = z.chunk({"time": 2}).appa.forecast(model, **settings)
    assert lazy.t2m.chunks is not None
    xr.testing.assert_allclose(lazy.compute(), fc)
    with pytest.raises(xappa.errors.DataError, match="latents are those of another model"):
        z.isel(mode=slice(3)).appa.forecast(model, **settings)


def test_forecasts_say_how_they_were_made(model, window) -> None:
    start = window.assign(t2m=window.t2m.fillna(284.0))
    fc = start.appa.forecast(
        model, lead="2h", members=1, seed=0, progress=False, guidance=xappa.Guidance(overlap=1)
    )
    assert fc.attrs["xappa_preds_per_step"] == K // 2
    assert fc.attrs["xappa_states_before"] == K - 1
    assert json.loads(fc.attrs["xappa_settings"])["guidance"]["overlap"] == 1


def test_forecasts_have_random_numbers_of_their_own(model, window, obs, monkeypatch) -> None:
    """A forecast that took the numbers of the analysis it starts from would depend on it."""
    asked = []

    def note(*key):
        asked.append(key)
        return generator(*key)

    monkeypatch.setattr("xappa.diffusion.memberwise.generator", note)
    sampler = xappa.Sampler("ddim", 2)
    settings = {"members": 2, "seed": 0, "progress": False, "sampler": sampler}
    analysis = window.appa.assimilate(obs, model, **settings)
    analysis.appa.forecast(model, lead="6h", seed=0, sampler=sampler, progress=False)
    assert len(set(asked)) == len(asked)


def test_single_states_do_not_go_on(model, window) -> None:
    alone = replace(model.network.config, blanket_size=1)
    single = LinearAppa(
        model.spec,
        model.autoencoder,
        GaussianNetwork(torch.eye(SIZE), alone),
        model.schedule,
        model.normalisation,
        name="single",
    )
    single.matrix = model.matrix
    with pytest.raises(ArgumentError, match="say nothing of what follows"):
        window.appa.forecast(single, lead="1h")


def test_encoded_states_are_known_up_to_the_noise_of_training(model) -> None:
    config = replace(model.autoencoder.config, latent_noise=0.3)
    noisy = AppaModel(
        model.spec,
        ConvAutoencoder(config),
        model.network,
        model.schedule,
        replace(model.normalisation, latent_std=np.array([2.0])),
        name="noisy",
    )
    np.testing.assert_allclose(noisy.latent_variance, np.full(SIZE, 0.15**2))
    np.testing.assert_allclose(model.latent_variance, np.full(SIZE, 1e-4))  # the floor


def test_forecasts_all_at_once_want_corrections(model, window) -> None:
    """Across blankets what is known spreads from step to step, and faster with Langevin moves."""
    start = window.assign(t2m=window.t2m.fillna(284.0))
    means = []
    for sampler in (None, xappa.Sampler("langevin", 64, {"corrections": 4, "delta": 0.2})):
        fc = start.appa.forecast(
            model, lead="6h", members=100, seed=0, preds_per_step=6, sampler=sampler, progress=False
        )
        assert fc.sizes["time"] == 6
        means.append(fc.t2m.mean(["member", "latitude", "longitude"]).values - 280)
    plain, corrected = means
    truth = 4 * RHO ** np.arange(1, 7)
    assert abs(plain[0] - truth[0]) < 0.6
    assert (np.diff(corrected) < 0.1).all()
    assert np.abs(corrected - truth).mean() < 0.85 * np.abs(plain - truth).mean()


# Cycles -----------------------------------------------------------------------------------------


def everywhere(model, times: int) -> xr.DataArray:
    """Observations at every point of the grid."""
    rng = np.random.default_rng(3)
    states = model.template("2021-03-01", f"2021-03-01T{times - 1:02d}")
    latitude, longitude = np.meshgrid(states.latitude, states.longitude, indexing="ij")
    values = 280 + 3 * rng.standard_normal((times, latitude.size))
    return xr.DataArray(
        values,
        {
            "time": states.time,
            "latitude": ("station", latitude.ravel()),
            "longitude": ("station", longitude.ravel()),
            "height": 2.0,
        },
        ("time", "station"),
        attrs={"standard_name": "air_temperature", "units": "K", "error_std": 2.0},
    )


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_cycles_remember_what_lies_before_a_blanket(model, stride) -> None:
    times, members = 11, 60
    obs = everywhere(model, times)
    period = {"start": "2021-03-01", "stop": f"2021-03-01T{times - 1:02d}", "step": f"{stride}h"}
    sampler = xappa.Sampler("multistep", 16, {"order": 3})
    settings = {"members": members, "seed": 0, "progress": False, "sampler": sampler}
    guidance = xappa.Guidance(iterations=6, rtol=1e-3)
    analyses = list(xappa.cycle(model, obs, guidance=guidance, **period, **settings))
    assert [a.sizes["time"] for a in analyses] == [1, *[stride] * (10 // stride)]
    last = analyses[-1].t2m.isel(time=-1)
    whole = model.template("2021-03-01", last.time.values)
    mean, covariance = closed_form(
        model, whole.appa.operator(obs, model=model), whole.sizes["time"]
    )
    mean, std = mean[-SIZE:], np.sqrt(np.diag(covariance))[-SIZE:]
    flat = last.values.reshape(members, -1)
    # Beside the error of 60 members (0.13), what is carried is an ensemble's own, and diagonal.
    assert np.sqrt((((flat.mean(0) - mean) / std) ** 2).mean()) < 0.25
    assert abs((flat.std(0, ddof=1) / std).mean() - 1) < 0.15
    alone = whole.isel(time=slice(-2, None))
    forgetful = alone.appa.assimilate(obs.isel(time=[-1]), model, guidance=guidance, **settings)
    apart = (forgetful.t2m.isel(time=-1).mean("member").values.ravel() - mean) / std
    assert np.sqrt((apart**2).mean()) > 0.3  # what there is to remember


def test_what_is_carried_is_a_likelihood(model) -> None:
    """With the prior it gives back the ensemble's mean and variance."""
    rng = np.random.default_rng(0)
    z = 0.7 + 0.5 * rng.standard_normal((4000, SIZE))
    told = message(model, z, 0.0)
    precision = 1 + 1 / told.variance
    np.testing.assert_allclose(told.latents[0] / told.variance / precision, z.mean(0), rtol=1e-5)
    np.testing.assert_allclose(1 / precision, 0.25, rtol=0.02)  # 48,000 numbers
    twice = message(model, z, 0.0, inflation=1.5)
    np.testing.assert_allclose(1 / (1 + 1 / twice.variance), 1.5**2 / precision, rtol=1e-6)


def test_cycles_of_a_learned_prior_want_members_and_numbers(model, obs) -> None:
    period = {"start": "2021-03-01", "stop": "2021-03-01T02", "step": "1h"}
    with pytest.raises(xappa.errors.MembersError, match="one member does not tell"):
        xappa.cycle(model, obs, members=1, **period)
    with pytest.raises(ArgumentError, match="inflation is no positive number"):
        xappa.cycle(model, obs, inflation=-1.0, **period)
    with pytest.raises(ArgumentError, match="not known in closed form"):
        xappa.cycle(model, obs, method="exact", **period)


def test_cycles_draw_members_that_are_their_own(model, obs) -> None:
    """Up to what is carried, which every member shares."""
    settings = {"start": "2021-03-01", "stop": "2021-03-01T02", "step": "1h", "seed": 0}
    settings |= {"sampler": xappa.Sampler("multistep", 6), "progress": False}
    few = next(xappa.cycle(model, obs, members=2, **settings))
    many = next(xappa.cycle(model, obs, members=5, **settings))
    xr.testing.assert_allclose(few.t2m, many.t2m.isel(member=slice(2)), rtol=1e-5)
    assert json.loads(few.attrs["xappa_settings"])["sampler"]["steps"] == 6
    assert few.attrs["xappa_inflation"] == 1.0


def test_what_a_learned_prior_cannot_do(model, window, obs) -> None:
    with pytest.raises(ArgumentError, match=r"not known in closed form[\s\S]*mmps"):
        window.appa.assimilate(obs, model, method="exact")
    with pytest.raises(xappa.errors.TimeStepError):
        window.isel(time=slice(None, None, 2)).appa.assimilate(obs, model)
    other = window.assign(t2m=window.t2m.assign_attrs(units="Pa"))
    with pytest.raises(xappa.errors.UnitsError):
        other.appa.assimilate(obs, model)
    with (
        pytest.raises(ArgumentError, match="there is no device"),
        xappa.set_options(device="abacus"),
    ):
        window.appa.assimilate(obs, model, members=1)


@pytest.mark.parametrize(
    ("length", "stride", "starts"),
    [(8, 2, [0, 2, 4]), (9, 2, [0, 2, 4, 5]), (4, 3, [0]), (6, 4, [0, 2])],
)
def test_cuts(length, stride, starts) -> None:
    for stitching in ("symmetrical", "causal", "average"):
        cut = Cut(length, 4, stride, stitching)
        assert cut.starts == starts
        x = torch.randn(2, length, 3)
        # What was only cut is put together again.
        torch.testing.assert_close(cut.fold(cut.unfold(x)), x)
    with pytest.raises(ArgumentError, match="cannot be cut so"):
        replace(cut, stride=5)
