"""Karras et al.'s preconditioning, loss and sampler against closed forms of Gaussian data."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from azula.denoise import GaussianDenoiser
from azula.linalg.covariance import FullCovariance
from azula.noise import CosineSchedule
from torch.overrides import TorchFunctionMode

from xappa.diffusion.edm import (
    EDMDenoiser,
    loss_weight,
    noise_levels,
    preconditioning,
)
from xappa.diffusion.edm_sampler import EDMSampler
from xappa.diffusion.memberwise import MemberNoise
from xappa.diffusion.sampling import KarrasSchedule, Sampler, draw_fields
from xappa.errors import ArgumentError

SHAPE = (1, 2, 3)
SIZE = math.prod(SHAPE)
SIGMA_DATA = 0.5


def covariance(kind: str) -> torch.Tensor:
    """Of six values, with variances from a ninth of sigma_data^2 to twice it."""
    scales = SIGMA_DATA * torch.linspace(1 / 3, math.sqrt(2), SIZE, dtype=torch.float64)
    steps = torch.arange(SIZE, dtype=torch.float64)
    correlation = 0.7 ** (steps[:, None] - steps).abs()
    if kind == "diagonal":
        correlation = torch.eye(SIZE, dtype=torch.float64)
    return scales[:, None] * correlation * scales


class IdealNetwork(torch.nn.Module):
    """What a network has to tell for the denoiser to be that of N(condition, covariance)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        variance, vectors = torch.linalg.eigh(covariance(kind))
        self.register_buffer("variance", variance)
        self.register_buffer("vectors", vectors)

    def forward(self, x, level, condition=None, labels=None):
        sigma = torch.exp(4 * level)[:, None]
        total = torch.sqrt(sigma**2 + SIGMA_DATA**2)
        mean, noisy = condition.flatten(1), total * x.flatten(1)
        gain = self.variance / (self.variance + sigma**2)
        expected = mean + (gain * ((noisy - mean) @ self.vectors)) @ self.vectors.T
        told = (expected - noisy * SIGMA_DATA**2 / total**2) * total
        return (told / (sigma * SIGMA_DATA)).reshape(x.shape)


MEAN = torch.linspace(-1, 1, SIZE, dtype=torch.float64).reshape(1, *SHAPE)


def levels() -> torch.Tensor:
    return torch.logspace(math.log10(0.002), math.log10(800), 25, dtype=torch.float64)


def test_the_network_sees_and_tells_values_of_unit_variance() -> None:
    sigma = levels()
    skip, out, into, noise = preconditioning(sigma, SIGMA_DATA)
    ones = torch.ones_like(sigma)
    seen = into**2 * (SIGMA_DATA**2 + sigma**2)
    # x - c_skip (x + sigma eps) over c_out, for independent x and eps
    told = ((1 - skip) ** 2 * SIGMA_DATA**2 + skip**2 * sigma**2) / out**2
    # 1 - c_skip cancels at small noise: 1e-16 (sigma_data / sigma)^2 = 6e-12 remains.
    torch.testing.assert_close(seen, ones, rtol=1e-12, atol=0)
    torch.testing.assert_close(told, ones, rtol=1e-10, atol=0)
    torch.testing.assert_close(loss_weight(sigma, SIGMA_DATA) * out**2, ones, rtol=1e-12, atol=0)
    torch.testing.assert_close(noise, sigma.log() / 4)
    # At sigma = sigma_data the network's part and the noisy field's part are known by hand.
    half = preconditioning(torch.tensor(0.5, dtype=torch.float64))
    expected = [0.5, 0.5 / math.sqrt(2), math.sqrt(2), math.log(0.5) / 4]
    np.testing.assert_allclose([float(c) for c in half], expected, rtol=1e-14)


def test_levels_are_log_normal() -> None:
    # Midpoints of a thousand equal strata: their moments miss the normal's by less than 1 %.
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    logs = noise_levels(torch.special.ndtri(u), P_mean=-0.4, P_std=1.7).log()
    assert float(logs.mean()) == pytest.approx(-0.4, abs=1e-12)
    assert float(logs.std()) == pytest.approx(1.7, rel=0.01)
    assert float(noise_levels(torch.zeros(1))) == 1.0


@pytest.mark.parametrize("kind", ["diagonal", "correlated"])
def test_an_ideal_network_gives_the_posterior_mean(kind) -> None:
    denoiser = EDMDenoiser(IdealNetwork(kind))
    rng = np.random.default_rng(0)
    sigma, c = levels(), covariance(kind)
    x = torch.as_tensor(rng.standard_normal((len(sigma), *SHAPE))) * sigma[:, None, None, None]
    mean = MEAN.expand(len(sigma), *SHAPE)
    eye = torch.eye(SIZE, dtype=torch.float64)
    gains = [c @ torch.linalg.inv(c + s**2 * eye) for s in sigma]
    departures = (x - mean).flatten(1)
    shifts = torch.stack([g @ d for g, d in zip(gains, departures, strict=True)])
    expected = mean + shifts.reshape(x.shape)
    # The network's answer is 1 / c_out as large, and rounded so: 800 * 1e-16, and some.
    torch.testing.assert_close(denoiser.at(x, sigma, mean), expected, rtol=1e-11, atol=1e-11)
    times = torch.linspace(0, 1, len(sigma), dtype=torch.float64)
    _, by_time = KarrasSchedule(0.002, 800.0, 7.0)(times)
    torch.testing.assert_close(
        denoiser(x, times, condition=mean).mean, denoiser.at(x, by_time, mean)
    )


def test_the_expected_loss_is_that_of_the_posterior_covariance() -> None:
    # The error is linear in (x, noise), so that the losses of a basis add up to the expected one.
    denoiser, c = EDMDenoiser(IdealNetwork("correlated")), covariance("correlated")
    eye, zero = torch.eye(SIZE, dtype=torch.float64), torch.zeros(SIZE, SIZE, dtype=torch.float64)
    x = torch.cat([torch.linalg.cholesky(c).T, zero]).reshape(-1, *SHAPE)
    noise = torch.cat([zero, eye]).reshape(-1, *SHAPE)
    for sigma in (0.05, 0.5, 5.0):
        level = torch.full((2 * SIZE,), sigma, dtype=torch.float64)
        losses = denoiser.loss(x, level, noise, condition=torch.zeros_like(x))
        posterior = torch.linalg.inv(torch.linalg.inv(c) + eye / sigma**2)
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        expected = weight * posterior.trace() / SIZE
        torch.testing.assert_close(losses.sum(), expected, rtol=1e-10, atol=0)


class Silent(torch.nn.Linear):
    """A half-precision network that says nothing, and what it was told."""

    def forward(self, x, level, condition=None, labels=None):
        self.told = (x, level, condition, labels)
        return torch.zeros_like(x)


def test_half_precision_is_the_networks_alone() -> None:
    network = Silent(1, 1).to(torch.bfloat16)
    denoiser = EDMDenoiser(network)
    x = torch.randn(2, *SHAPE)
    sigma, labels = torch.tensor([0.01, 100.0]), torch.randn(2, 4)
    out = denoiser.at(x, sigma, x, labels)
    assert [a.dtype for a in network.told] == 4 * [torch.bfloat16]
    assert out.dtype == torch.float32
    # In bfloat16 this would be 4e-3 off.
    expected = x * (0.25 / (0.25 + sigma.double() ** 2)).float()[:, None, None, None]
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=0)


def affine(sampler: EDMSampler) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance root of a deterministic sampler, by pushing a basis through."""
    _, sigma = sampler.denoiser.schedule(sampler.timesteps[0])
    basis = sigma * torch.eye(SIZE, dtype=torch.float64)
    start = torch.cat([torch.zeros(1, SIZE, dtype=torch.float64), basis]).reshape(-1, *SHAPE)
    out = sampler(start, condition=MEAN.expand(len(start), *SHAPE)).flatten(1)
    return out[0], out[1:] - out[0]


def along_the_flow(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The same when steps are infinitely many, but for the last one: in closed form."""
    variance, vectors = torch.linalg.eigh(covariance(kind))
    low, high = 0.002, 800.0
    shrunk = torch.sqrt((variance + low**2) / (variance + high**2))
    shrunk = shrunk * variance / (variance + low**2)  # Euler's step to zero
    root = vectors * shrunk @ vectors.T
    mean = MEAN.flatten()
    return mean - root @ mean, high * root


def by_hand(variance: np.ndarray, steps: int) -> np.ndarray:
    """What Heun's steps, and Euler's to zero, make of one unit of noise, for each variance."""
    ends = 0.002 ** (1 / 7), 800 ** (1 / 7)
    sigma = np.linspace(ends[1], ends[0], steps) ** 7
    factor = np.ones_like(variance)
    for a, b in pairwise(sigma):
        at_a, at_b = a / (variance + a**2), b / (variance + b**2)
        factor *= 1 + (b - a) / 2 * (at_a + (1 + (b - a) * at_a) * at_b)
    return factor * variance / (variance + sigma[-1] ** 2)


@pytest.mark.parametrize("kind", ["diagonal", "correlated"])
def test_the_default_sampler(kind) -> None:
    mean, root = affine(EDMSampler(EDMDenoiser(IdealNetwork(kind)), silent=True))
    c = covariance(kind)
    variance, vectors = np.linalg.eigh(c.numpy())
    expected = 800 * vectors * by_hand(variance, 18) @ vectors.T
    # 35 calls whose errors of 1e-16 are those of values of 800, at first.
    np.testing.assert_allclose(root.numpy(), expected, rtol=0, atol=1e-11)
    # The start does not know the mean: mean / sigma_max * std is missed, 1.2e-3 at most.
    torch.testing.assert_close(mean, MEAN.flatten(), rtol=0, atol=1.2e-3)
    # What the docstring says of 18 steps: they are few for so many decades of noise.
    gaps = (root.T @ root).diagonal().sqrt() / c.diagonal().sqrt() - 1
    assert 0.11 < float(gaps.min()) <= float(gaps.max()) < 0.19


@pytest.mark.parametrize(("steps", "gap"), [(32, 0.051), (64, 0.012), (128, 0.003)])
def test_more_steps_are_right(steps, gap) -> None:
    sampler = EDMSampler(EDMDenoiser(IdealNetwork("diagonal")), steps=steps, silent=True)
    assert float(spread(sampler, "diagonal").abs().max()) < gap


def spread(sampler: EDMSampler, kind: str) -> torch.Tensor:
    """Standard deviations of samples over the data's, less 1."""
    _, root = affine(sampler)
    return (root.T @ root).diagonal().sqrt() / covariance(kind).diagonal().sqrt() - 1


@pytest.mark.parametrize(("order", "least", "most"), [(1, -0.006, 0.021), (2, -0.017, 0.053)])
def test_steps_in_the_angle(order, least, most) -> None:
    denoiser = EDMDenoiser(IdealNetwork("diagonal"))
    angle = {"sigma_data": SIGMA_DATA, "order": order, "silent": True}
    gaps = spread(EDMSampler(denoiser, **angle), "diagonal")
    assert least < float(gaps.min()) <= float(gaps.max()) < most
    # Where the network has nothing to tell, any steps are exact.
    denoiser.network.variance.fill_(SIGMA_DATA**2)
    _, root = affine(EDMSampler(denoiser, steps=3, **angle))
    ends = math.sqrt((SIGMA_DATA**2 + 0.002**2) / (SIGMA_DATA**2 + 800**2))
    exact = 800 * ends * SIGMA_DATA**2 / (SIGMA_DATA**2 + 0.002**2)
    torch.testing.assert_close(root, exact * torch.eye(SIZE, dtype=torch.float64))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("sigma_data", [None, SIGMA_DATA])
@pytest.mark.parametrize("kind", ["diagonal", "correlated"])
def test_order_of_convergence(kind, sigma_data, order) -> None:
    denoiser = EDMDenoiser(IdealNetwork(kind))
    _, exact = along_the_flow(kind)
    settings = {"order": order, "sigma_data": sigma_data, "silent": True}
    errors = []
    for steps in (129, 257, 513):
        _, root = affine(EDMSampler(denoiser, steps=steps, **settings))
        errors.append(float(torch.linalg.norm(root - exact)))
    rates = [math.log2(a / b) for a, b in pairwise(errors)]
    # Halving the step divides the error by 2^order, to within what is left of higher terms.
    assert all(abs(rate - order) < 0.2 for rate in rates), (errors, rates)


class OneByOne(TorchFunctionMode):
    """Serve a basis to the first rows at the first call of `torch.randn_like`, and so forth."""

    call = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.randn_like:
            return func(*args, **(kwargs or {}))
        noise = torch.zeros_like(args[0])
        basis = torch.eye(SIZE, dtype=noise.dtype).reshape(-1, *SHAPE)
        noise[self.call * SIZE : (self.call + 1) * SIZE] = basis
        self.call += 1
        return noise


def covariance_of(sampler: EDMSampler) -> torch.Tensor:
    """Covariance of a stochastic sampler, exactly: the sum over all that it draws."""
    none = torch.zeros((sampler.steps + 1) * SIZE, *SHAPE, dtype=torch.float64)
    with OneByOne():
        root = sampler(sampler.init(none.shape, dtype=none.dtype), condition=none).flatten(1)
    return root.T @ root


def test_churn_keeps_the_covariance() -> None:
    denoiser, c = EDMDenoiser(IdealNetwork("correlated")), covariance("correlated")
    std = c.diagonal().sqrt()
    settings = {"S_churn": 10.0, "S_min": 0.01, "S_max": 50.0, "silent": True}
    gaps = []
    for steps in (64, 128):
        got = covariance_of(EDMSampler(denoiser, steps=steps, **settings))
        gaps.append(float(((got - c) / (std[:, None] * std)).abs().max()))
    # The churn of all steps together stays the same: of second order as well.
    assert gaps[1] < 0.011
    assert abs(math.log2(gaps[0] / gaps[1]) - 2) < 0.15, gaps
    # A scale of the fresh noise below 1 takes spread away.
    less = covariance_of(EDMSampler(denoiser, steps=64, S_noise=0.9, **settings))
    assert (less.diagonal() < 0.95 * c.diagonal()).all()


def test_the_stochastic_sampler_by_monte_carlo() -> None:
    n = 10_000
    sampler = EDMSampler(
        EDMDenoiser(IdealNetwork("diagonal")), steps=128, S_churn=10.0, S_max=50.0, silent=True
    )
    torch.manual_seed(0)
    start = sampler.init((n, *SHAPE), dtype=torch.float64)
    drawn = sampler(start, condition=MEAN.expand(n, *SHAPE)).flatten(1)
    c = covariance("diagonal")
    std = c.diagonal().sqrt()
    # Four standard errors: std / sqrt(n) of the mean; 1 / sqrt(n) of a correlation, sqrt(2 / n) of
    # a relative variance, in all 4 % and 5.7 %; the sampler's own error is 1 %.
    assert float(((drawn.mean(0) - MEAN.flatten()) / std).abs().max()) < 4 / math.sqrt(n)
    gap = ((drawn.T.cov() - c) / (std[:, None] * std)).abs()
    assert float((gap - gap.diagonal().diag()).max()) < 4 / math.sqrt(n)
    assert float(gap.diagonal().max()) < 4 * math.sqrt(2 / n)


@pytest.mark.parametrize("churn", [0.0, 10.0])
def test_temperature_scales_the_spread_and_not_the_mean(churn) -> None:
    denoiser = EDMDenoiser(IdealNetwork("correlated"))

    def drawn(temperature: float) -> torch.Tensor:
        sampler = EDMSampler(denoiser, steps=8, S_churn=churn, temperature=temperature, silent=True)
        return fields(sampler, [0, 1, 2], [0.0] * 3)

    still, one, half = drawn(0.0), drawn(1.0), drawn(0.5)
    torch.testing.assert_close(half - still, 0.5 * (one - still), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(still, MEAN.expand_as(still), rtol=0, atol=0.01)


def fields(sampler: EDMSampler, members: list[int], times: list[float]) -> torch.Tensor:
    return draw_fields(
        sampler,
        SHAPE,
        seed=7,
        members=members,
        times=times,
        like=torch.zeros((), dtype=torch.float64),
        condition=MEAN.expand(len(members), *SHAPE),
    )


@pytest.mark.parametrize("churn", [0.0, 10.0])
def test_members_are_the_same_in_any_batch(churn) -> None:
    denoiser = EDMDenoiser(IdealNetwork("correlated"))
    sampler = EDMSampler(denoiser, steps=6, S_churn=churn, silent=True)
    members, times = [0, 1, 2, 0, 1, 2], [0.0] * 3 + [3600.0] * 3
    together = fields(sampler, members, times)
    apart = [fields(sampler, [m], [t]) for m, t in zip(members, times, strict=True)]
    # Batched products round differently; nothing else may differ.
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-12, atol=1e-12)
    assert float((together[:3] - together[3:]).abs().min()) > 1e-6


def test_pairs_share_the_streams_of_ensembles() -> None:
    members, times = [4, 2], [0.0, 60.0, 120.0]
    with MemberNoise(0, "sampler", members, times):
        whole = torch.randn_like(torch.zeros(2, 3, SIZE))
    pairs = [(m, t) for m in members for t in times]
    with MemberNoise(0, "sampler", *zip(*pairs, strict=True), paired=True):
        rows = torch.randn_like(torch.zeros(6, *SHAPE))
        with pytest.raises(ValueError, match=r"pairs of member and time,\) = \(6,\)"):
            torch.randn_like(torch.zeros(2, 3, SIZE))
    assert torch.equal(whole.flatten(), rows.flatten())


def test_levels_other_than_karras_do_as_well() -> None:
    """A schedule that scales the signal, too, whose times of churned levels have no formula."""
    c = covariance("correlated")
    mean = torch.linspace(-1, 1, SIZE, dtype=torch.float64)
    variance, vectors = torch.linalg.eigh(c)
    denoiser = GaussianDenoiser(mean, FullCovariance(vectors, variance), CosineSchedule())
    sampler = EDMSampler(denoiser, steps=64, S_churn=10.0, silent=True)
    for t in (0.1, 0.6, 0.9):
        level = sampler._scales(torch.tensor(t, dtype=torch.float64))[1]
        found = sampler._time(1.2 * level, torch.tensor(t, dtype=torch.float64))
        assert sampler._scales(found)[1] == pytest.approx(1.2 * level, rel=1e-12)
    torch.manual_seed(0)
    drawn = sampler(sampler.init((4000, SIZE), mean=mean, var=c.diagonal(), dtype=torch.float64))
    std = c.diagonal().sqrt()
    # Four standard errors, as above.
    assert float(((drawn.mean(0) - mean) / std).abs().max()) < 4 / math.sqrt(4000)
    gap = (drawn.T.cov() - c) / (std[:, None] * std)
    assert float(gap.abs().max()) < 4 * math.sqrt(2 / 4000)


class Counting(EDMDenoiser):
    calls = 0

    def forward(self, x_t, t, **kwargs):
        self.calls += 1
        return super().forward(x_t, t, **kwargs)


@pytest.mark.parametrize(("order", "steps", "calls"), [(2, 18, 35), (2, 1, 1), (1, 4, 4)])
def test_by_name_and_with_few_steps(order, steps, calls) -> None:
    denoiser = Counting(IdealNetwork("diagonal"))
    sampler = Sampler("edm", steps, {"order": order, "S_churn": 1.0})(denoiser)
    out = fields(sampler, [0, 1], [0.0, 0.0])
    assert denoiser.calls == calls
    assert out.shape == (2, *SHAPE)
    assert sampler.timesteps.dtype == torch.float64


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"order": 3}, r"bad order[\s\S]*order=3"),
        ({"steps": 0}, "bad steps"),
        ({"S_churn": -1.0}, "bad S_churn"),
        ({"S_min": 2.0, "S_max": 1.0}, "bad S_min"),
        ({"S_noise": math.inf}, "bad S_noise"),
        ({"temperature": -0.1}, "bad temperature"),
        ({"sigma_data": 0.0}, "bad sigma_data"),
    ],
)
def test_samplers_that_cannot_be(changes, match) -> None:
    with pytest.raises(ArgumentError, match=match):
        EDMSampler(EDMDenoiser(IdealNetwork("diagonal")), **changes)


def test_data_without_spread() -> None:
    with pytest.raises(ArgumentError, match=r"no spread[\s\S]*sigma_data=0\.0"):
        EDMDenoiser(IdealNetwork("diagonal"), sigma_data=0.0)
    with pytest.raises(ArgumentError, match=r"does not take these options[\s\S]*S_churn"):
        Sampler("edm", options={"churn": 1})
