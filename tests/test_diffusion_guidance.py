"""Guidance and samplers against the closed form of the Gaussian posterior."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from azula.sample import HeunSampler
from hypothesis import given, settings
from hypothesis import strategies as st
from test_diffusion_gaussian import dense, problems

from xappa.diffusion.gaussian import GaussianTrajectoryDenoiser
from xappa.diffusion.guidance import JFPSDenoiser, MMPSDenoiser, SDADenoiser
from xappa.diffusion.krylov import cg, gmres
from xappa.diffusion.memberwise import MemberNoise
from xappa.diffusion.sampling import DPSSampler, KarrasSchedule, Sampler, draw
from xappa.errors import ArgumentError

SCHEDULE = KarrasSchedule(1e-3, 300.0)


def conditional_mean(prior, process, op, noise, y, x_t, t):
    """E[z | z_t, y], by dense linear algebra."""
    _, sigma = SCHEDULE(t)
    n = len(y)
    c, g = process.covariance(prior.length), op.dense().reshape(n, -1)
    precision = torch.linalg.inv(c) + torch.eye(len(c), dtype=torch.float64) / sigma**2
    v = torch.linalg.inv(precision)
    flat = x_t.flatten(1).T
    z = v @ flat / sigma**2
    gain = v @ g.T @ torch.linalg.inv(noise.matrix + g @ v @ g.T)
    return (z + gain @ (y[:, None] - op.offset[:, None] - g @ z)).T.reshape(x_t.shape)


@given(problems, st.floats(0.05, 0.95), st.sampled_from(["cg", "gmres"]))
@settings(max_examples=40, deadline=None)
def test_full_solves_are_exact(problem, time, solver) -> None:
    process, prior, op, noise, y, _, _ = dense(problem)
    denoiser = GaussianTrajectoryDenoiser(prior, SCHEDULE)
    t = torch.tensor(time, dtype=torch.float64)
    rng = np.random.default_rng(0)
    x_t = torch.as_tensor(rng.standard_normal((3, prior.length, prior.size))) * SCHEDULE(t)[1]
    expected = conditional_mean(prior, process, op, noise, y, x_t, t)
    full = {"solver": solver, "iterations": len(y), "rtol": 0.0}
    mmps = MMPSDenoiser(denoiser, y, op, noise, **full)
    jfps = JFPSDenoiser(denoiser, y, op, noise, denoiser.covariance_times, **full)
    # DESIGN's contract: 1e-8, relative to latents of unit size.
    torch.testing.assert_close(mmps(x_t, t).mean, expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(jfps(x_t, t).mean, expected, rtol=1e-8, atol=1e-8)


def test_members_stop_alone() -> None:
    _, prior, op, noise, y, _, _ = dense((3, 3, 6, 8, 0))
    denoiser = GaussianTrajectoryDenoiser(prior, SCHEDULE)
    guided = MMPSDenoiser(denoiser, y, op, noise, rtol=0.3)
    t = torch.tensor(0.4, dtype=torch.float64)
    rng = np.random.default_rng(1)
    x_t = torch.as_tensor(rng.standard_normal((6, 6, 3)) * np.arange(6)[:, None, None] * 20)
    together = guided(x_t, t).mean
    counts = guided.last.iterations
    alone = torch.cat([guided(x[None], t).mean for x in x_t])
    # Batched products round differently; nothing else may differ.
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    assert len(counts.unique()) > 1


def test_sda_is_exact_for_one_observation_of_one_latent() -> None:
    # With one latent of unit variance, Tweedie's covariance is σ²/(1+σ²): SDA's σ² bounds it, and
    # the gap is known.
    process, prior, op, noise, y, _, _ = dense((1, 1, 1, 1, 3))
    denoiser = GaussianTrajectoryDenoiser(prior, SCHEDULE)
    g = op.dense().reshape(())
    guided = SDADenoiser(denoiser, y, op, noise, g.abs().reshape(1), gamma=1.0)
    t = torch.tensor(0.5, dtype=torch.float64)
    _, sigma = SCHEDULE(t)
    x_t = torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    c = process.covariance(1)[0, 0]
    v = 1 / (1 / c + 1 / sigma**2)
    z = v * 0.7 / sigma**2
    expected = z + v * g * (y - op.offset - g * z) / (noise.diagonal + sigma**2 * g**2)
    torch.testing.assert_close(guided(x_t, t).mean.reshape(1), expected.reshape(1))


def affine_moments(sampler, prior) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of a deterministic sampler, by pushing a basis through."""
    size = prior.length * prior.size
    start = sampler.timesteps[:1]
    std = torch.sqrt(1 + SCHEDULE(start)[1] ** 2)
    basis = torch.eye(size, dtype=torch.float64).reshape(-1, prior.length, prior.size)
    out = sampler(torch.cat([torch.zeros_like(basis[:1]), std * basis])).flatten(1)
    root = out[1:] - out[0]
    return out[0], root.T @ root


def gap(name: str, steps: int, options=None) -> tuple[float, float]:
    """Gaps in the mean and the standard deviation, relative to the posterior's."""
    _, prior, op, noise, y, mean, covariance = dense((2, 3, 5, 6, 11))
    denoiser = GaussianTrajectoryDenoiser(prior, SCHEDULE)
    guided = MMPSDenoiser(denoiser, y, op, noise, iterations=6, rtol=0.0)
    got_mean, got = affine_moments(Sampler(name, steps, options)(guided), prior)
    std = covariance.diagonal().sqrt()
    spread = (got.diagonal().sqrt() / std - 1).abs().max()
    return float(((got_mean - mean) / std).abs().max()), float(spread)


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [("ddim", None, 1), ("heun", None, 2), ("multistep", {"order": 2}, 2)],
)
def test_samplers_converge_at_their_order(name, options, order) -> None:
    errors = [gap(name, steps, options)[1] for steps in (64, 128, 256)]
    rates = [np.log2(a / b) for a, b in pairwise(errors)]
    # Halving the step divides the error by 2^order; pre-asymptotic terms cost up to 0.35.
    assert all(rate > order - 0.35 for rate in rates), (errors, rates)


def test_the_default_sampler_is_right_to_three_per_cent() -> None:
    mean, spread = gap("multistep", 32, {"order": 3})
    assert spread < 0.03
    # What is left in the mean is that of starting from noise of finite size, σ_max = 300.
    assert mean < 0.03


def test_solvers_stop_at_the_tolerance_and_return_the_by_product() -> None:
    rng = np.random.default_rng(0)
    factor = torch.as_tensor(rng.standard_normal((9, 9)))
    matrix = factor @ factor.T + 0.1 * torch.eye(9, dtype=torch.float64)
    b = torch.as_tensor(rng.standard_normal((4, 9)))

    def product(v):
        return v @ matrix, v @ factor

    for solve in (cg, gmres):
        found = solve(product, b, iterations=9, rtol=1e-3)
        residual = torch.linalg.vector_norm(b - found.solution @ matrix, dim=-1)
        assert (residual <= 1.0001e-3 * torch.linalg.vector_norm(b, dim=-1)).all()
        torch.testing.assert_close(found.by_product, found.solution @ factor)
        nothing = solve(product, torch.zeros_like(b), iterations=9, rtol=1e-3)
        assert not nothing.solution.any()
        assert not nothing.by_product.any()


@pytest.mark.parametrize("name", ["ddpm", "pc"])
def test_stochastic_samplers_are_member_wise(name) -> None:
    _, prior, op, noise, y, _, _ = dense((2, 2, 3, 4, 1))
    guided = MMPSDenoiser(GaussianTrajectoryDenoiser(prior, SCHEDULE), y, op, noise)
    make = Sampler(name, 8)

    def run(members):
        return draw(
            make(guided), 2, seed=5, members=members, times=[0.0, 1.0, 2.0], like=prior.mean
        )

    both = run([0, 1, 2])
    torch.testing.assert_close(both[1:2], run([1]), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(both[0], both[1])


def test_dps_is_member_wise_and_pulls_towards_the_observations() -> None:
    _, prior, op, noise, y, _, _ = dense((2, 2, 3, 4, 1))
    denoiser = GaussianTrajectoryDenoiser(prior, SCHEDULE)

    def run(members, zeta):
        sampler = DPSSampler(
            denoiser, y, op, noise.diagonal, zeta=zeta, steps=32, silent=True, dtype=torch.float64
        )
        return draw(sampler, 2, seed=5, members=members, times=[0.0, 1.0, 2.0], like=prior.mean)

    both = run([0, 1, 2, 3], 0.5)
    torch.testing.assert_close(both[2:3], run([2], 0.5), rtol=1e-10, atol=1e-10)
    free = run([0, 1, 2, 3], 0.0)
    assert (op(both) - y).square().mean() < (op(free) - y).square().mean()


def test_noise_outside_the_streams_is_refused() -> None:
    with MemberNoise(0, "sampler", [0, 1], [0.0]):
        torch.randn_like(torch.zeros(2, 1, 3))
        with pytest.raises(ValueError, match="was set up for"):
            torch.randn_like(torch.zeros(3, 1, 3))


def test_bring_your_own_azula_sampler() -> None:
    _, prior, op, noise, y, mean, _ = dense((1, 2, 3, 3, 2))
    guided = MMPSDenoiser(GaussianTrajectoryDenoiser(prior, SCHEDULE), y, op, noise, rtol=1e-8)
    sampler = HeunSampler(guided, steps=64, silent=True, dtype=torch.float64)
    drawn = draw(sampler, 1, seed=0, members=range(400), times=[0.0, 1.0, 2.0], like=prior.mean)
    # Four standard errors of a mean over 400 members.
    error = (drawn.mean(0).reshape(-1) - mean).abs()
    assert (error < 4 * drawn.std(0).reshape(-1) / 20 + 0.02).all()


def test_samplers_are_checked() -> None:
    with pytest.raises(ArgumentError, match=r"unknown sampler 'foo'[\s\S]*expected: ddim, ddpm"):
        Sampler("foo")
    with pytest.raises(ArgumentError, match="at least one step"):
        Sampler("heun", steps=0)
