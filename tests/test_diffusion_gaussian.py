"""The Gaussian machinery against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from azula.linalg.covariance import IsotropicCovariance
from hypothesis import given, settings
from hypothesis import strategies as st

from xappa.diffusion import linear
from xappa.diffusion.gaussian import GaussianTrajectoryDenoiser
from xappa.diffusion.linear import ExactPosterior, LatentMap, Noise
from xappa.diffusion.markov import Initial, StationaryProcess
from xappa.diffusion.sampling import KarrasSchedule
from xappa.errors import OperatorError

# Everything here is float64 linear algebra of matrices with condition numbers below 1e6.
EXACT = 1e-8


def random_process(size: int, blanket: int, seed: int) -> StationaryProcess:
    """Return a process from the sample autocovariances of a random autoregressive series."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((size, size))
    a *= 0.9 / max(1.0, np.abs(np.linalg.eigvals(a)).max())
    z = np.zeros((400, size))
    for t in range(1, len(z)):
        z[t] = a @ z[t - 1] + rng.standard_normal(size)
    gamma = np.stack([z[k:].T @ z[: len(z) - k] / len(z) for k in range(blanket)])
    return StationaryProcess(torch.as_tensor(gamma))


def random_map(n: int, length: int, size: int, seed: int) -> LatentMap:
    """Return a map that reads one or two neighbouring states for each of n rows."""
    rng = np.random.default_rng(seed)
    row = np.repeat(np.arange(n), 2)
    first = rng.integers(0, length, n)
    time = np.stack([first, np.minimum(first + 1, length - 1)], axis=1).ravel()
    return LatentMap(
        torch.as_tensor(rng.standard_normal(n)),
        torch.as_tensor(rng.standard_normal((2 * n, size))),
        torch.as_tensor(row),
        torch.as_tensor(time),
        length,
    )


def random_noise(n: int, seed: int) -> Noise:
    rng = np.random.default_rng(seed)
    factor = 0.3 * rng.standard_normal((n, n))
    matrix = torch.as_tensor(factor @ factor.T + np.diag(rng.uniform(0.1, 1.0, n)))
    return Noise(matrix, matrix.diagonal())


problems = st.tuples(
    st.integers(1, 4),  # size
    st.integers(1, 4),  # blanket
    st.integers(1, 9),  # length
    st.integers(1, 8),  # observations
    st.integers(0, 2**16),  # seed
)


def dense(problem: tuple[int, int, int, int, int]) -> tuple[object, ...]:
    size, blanket, length, n, seed = problem
    process = random_process(size, blanket, seed)
    prior = process.trajectory(length)
    op, noise = random_map(n, length, size, seed), random_noise(n, seed)
    y = torch.as_tensor(np.random.default_rng(seed + 1).standard_normal(n))
    c, g = process.covariance(length), op.dense().reshape(n, -1)
    gain = c @ g.T @ torch.linalg.inv(g @ c @ g.T + noise.matrix)
    mean = gain @ (y - op.offset)
    return process, prior, op, noise, y, mean, c - gain @ g @ c


@given(problems)
@settings(max_examples=40, deadline=None)
def test_precision_is_the_inverse_of_the_markov_extension(problem) -> None:
    size, blanket, length, _, seed = problem
    process = random_process(size, blanket, seed)
    eye = torch.eye(length * size, dtype=torch.float64).reshape(-1, length, size)
    got = process.trajectory(length).covariance_times(eye).reshape(length * size, -1)
    torch.testing.assert_close(got, process.covariance(length), rtol=EXACT, atol=EXACT)


def test_extension_keeps_the_blanket_and_has_maximum_entropy() -> None:
    process = random_process(3, 3, seed=0)
    torch.testing.assert_close(process.extend(3), process.autocovariance)
    # Maximum entropy: beyond the blanket the inverse covariance has no entries.
    precision = torch.linalg.inv(process.covariance(6)).reshape(6, 3, 6, 3)
    for i in range(6):
        for j in range(6):
            if abs(i - j) >= 3:
                assert precision[i, :, j].abs().max() < EXACT


def test_step_continues_the_stationary_process() -> None:
    process = random_process(2, 3, seed=1)
    length, size = 5, 2
    # Push a basis of the noise through the recursion: its outer product is the covariance.
    basis = torch.eye(length * size, dtype=torch.float64).reshape(-1, length, size)
    z = basis[:, :0]
    for t in range(length):
        z = torch.cat([z, process.step(z, basis[:, t])[:, None]], dim=1)
    factor = z.reshape(length * size, -1)
    torch.testing.assert_close(factor.T @ factor, process.covariance(length), rtol=0, atol=EXACT)


@given(problems)
@settings(max_examples=40, deadline=None)
def test_exact_posterior_is_the_closed_form(problem) -> None:
    _, prior, op, noise, y, mean, covariance = dense(problem)
    length, size = prior.length, prior.size
    posterior = ExactPosterior(prior, op, y, noise)
    torch.testing.assert_close(posterior.mean.reshape(-1), mean, rtol=EXACT, atol=EXACT)
    got = posterior.covariance(slice(0, length))
    torch.testing.assert_close(got, covariance, rtol=EXACT, atol=EXACT)
    # The square root is linear in the prior's perturbation: push a basis of it through.
    basis = torch.eye(length * size, dtype=torch.float64).reshape(-1, length, size)
    root = (posterior.square_root(prior.sample(basis)) - posterior.mean).flatten(1)
    torch.testing.assert_close(root.T @ root, covariance, rtol=EXACT, atol=EXACT)
    # So are perturbed observations, in perturbation and noise together.
    zero = torch.zeros(1, length, size, dtype=torch.float64)
    n = len(y)
    factor = torch.linalg.cholesky(noise.matrix)
    centre = posterior.perturbed(zero, torch.zeros(1, n, dtype=torch.float64))
    by_prior = posterior.perturbed(prior.sample(basis), torch.zeros(len(basis), n).double())
    by_noise = posterior.perturbed(zero.expand(n, -1, -1), factor.T)
    both = torch.cat([by_prior, by_noise]).flatten(1) - centre.flatten(1)
    torch.testing.assert_close(both.T @ both, covariance, rtol=EXACT, atol=EXACT)


@given(problems)
@settings(max_examples=15, deadline=None)
def test_iterative_solves_agree_with_dense_ones(problem) -> None:
    _, prior, op, noise, y, mean, _ = dense(problem)
    limit = linear.DENSE_LIMIT
    linear.DENSE_LIMIT = 0
    try:
        posterior = ExactPosterior(prior, op, y, noise)
        # The iteration stops at a relative residual of 1e-10 in observation space.
        torch.testing.assert_close(posterior.mean.reshape(-1), mean, rtol=1e-7, atol=1e-7)
        with pytest.raises(OperatorError, match="perturbed observations"):
            posterior.square_root(prior.mean[None])
    finally:
        linear.DENSE_LIMIT = limit


def test_preconditioner_is_exact_for_independent_errors() -> None:
    _, prior, op, _, _, _, _ = dense((3, 3, 8, 6, 5))
    variance = torch.linspace(0.1, 1.0, 6, dtype=torch.float64)
    noise = Noise(torch.diag(variance), variance)
    posterior = ExactPosterior(prior, op, torch.zeros(6, dtype=torch.float64), noise)
    v = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(posterior._precondition(posterior._times_s(v)), v)


def test_adjoint_of_the_latent_map() -> None:
    op = random_map(7, 5, 3, seed=2)
    rng = np.random.default_rng(0)
    z = torch.as_tensor(rng.standard_normal((2, 5, 3)))
    v = torch.as_tensor(rng.standard_normal((2, 7)))
    left, right = (op.linear(z) * v).sum(), (z * op.adjoint(v)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_filter_carried_by_initial_equals_the_whole() -> None:
    process, whole, op, noise, y, _, _ = dense((2, 3, 8, 1, 9))
    op = random_map(6, 4, 2, seed=3)  # all observations in the first four states
    noise, y = random_noise(6, 3), torch.linspace(-1, 1, 6, dtype=torch.float64)
    early = ExactPosterior(process.trajectory(4), op, y, noise)
    carried = Initial(early.mean[0, 2:4], torch.linalg.inv(early.covariance(slice(2, 4))))
    later = process.trajectory(6, carried)
    longer = LatentMap(op.offset, op.basis, op.row, op.time, 8)
    reference = ExactPosterior(whole, longer, y, noise)
    torch.testing.assert_close(later.mean, reference.mean[0, 2:], rtol=EXACT, atol=EXACT)
    eye = torch.eye(12, dtype=torch.float64).reshape(-1, 6, 2)
    got = later.covariance_times(eye).reshape(12, 12)
    torch.testing.assert_close(got, reference.covariance(slice(2, 8)), rtol=EXACT, atol=EXACT)


@given(problems, st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_denoiser_is_the_conditional_mean_and_obeys_tweedie(problem, time) -> None:
    size, blanket, length, _, seed = problem
    process = random_process(size, blanket, seed)
    denoiser = GaussianTrajectoryDenoiser(process.trajectory(length), KarrasSchedule())
    t = torch.tensor(time, dtype=torch.float64)
    alpha, sigma = denoiser.schedule(t)
    c = process.covariance(length)
    eye = torch.eye(len(c), dtype=torch.float64)
    x = torch.as_tensor(np.random.default_rng(seed).standard_normal(len(c))) * sigma
    expected = c @ torch.linalg.solve(c + sigma**2 * eye, x)
    got = denoiser(x.reshape(1, length, size), t).mean.reshape(-1)
    torch.testing.assert_close(got, expected, rtol=EXACT, atol=EXACT)
    jacobian = torch.autograd.functional.jacobian(
        lambda v: denoiser(v.reshape(1, length, size), t).mean.reshape(-1), x
    )
    variance = c - c @ torch.linalg.solve(c + sigma**2 * eye, c)
    torch.testing.assert_close(sigma**2 / alpha * jacobian, variance, rtol=1e-6, atol=EXACT)


@given(problems)
@settings(max_examples=20, deadline=None)
def test_an_estimate_adds_its_precision(problem) -> None:
    size, blanket, length, _, seed = problem
    process = random_process(size, blanket, seed)
    prior = process.trajectory(length)
    rng = np.random.default_rng(seed)
    start = int(rng.integers(0, length))
    scale = torch.as_tensor(0.5 * np.eye(size) + 0.1 * rng.standard_normal((size, size)))
    estimate = torch.as_tensor(rng.standard_normal((length, size)))
    precision = process.estimate_precision(prior, start, length)
    got = prior.with_estimate(estimate, precision, scale)
    count = length - start
    c = process.covariance(length)
    big = torch.block_diag(*[scale] * count)
    error = big @ process.covariance(count) @ big.T
    h = torch.eye(length * size, dtype=torch.float64)[start * size :]
    gain = c @ h.T @ torch.linalg.inv(h @ c @ h.T + error)
    mean = gain @ estimate[start:].reshape(-1)
    torch.testing.assert_close(got.mean.reshape(-1), mean, rtol=1e-6, atol=1e-7)


def test_covariance_algebra() -> None:
    prior = random_process(2, 3, seed=4).trajectory(6)
    c, v = prior.precision, torch.randn(3, *prior.precision.shape, dtype=torch.float64)
    dense_c = (c @ torch.eye(12, dtype=torch.float64).reshape(-1, *c.shape)).reshape(12, 12)
    torch.testing.assert_close(c.inv @ (c @ v), v, rtol=0, atol=EXACT)
    torch.testing.assert_close((c + IsotropicCovariance(2.0)) @ v, c @ v + 2 * v)
    torch.testing.assert_close((c.inv * IsotropicCovariance(2.0)) @ v, 2 * (c.inv @ v))
    torch.testing.assert_close(c.logdet(), torch.linalg.slogdet(dense_c)[1])
    torch.testing.assert_close(c.inv.logdet(), -c.logdet())
    assert c.inv.__add__(c.inv) is NotImplemented
    basis = torch.eye(12, dtype=torch.float64).reshape(-1, *c.shape)
    for covariance, expected in ((c, dense_c), (c.inv, torch.linalg.inv(dense_c))):
        root = covariance.color(basis).reshape(12, 12)
        torch.testing.assert_close(root.T @ root, expected, rtol=0, atol=EXACT)
