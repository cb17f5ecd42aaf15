r"""The exact posterior of a Gaussian trajectory under a linear observation operator.

With :math:`z \sim \mathcal{N}(m, \Sigma)`, :math:`y = c + G z + e`,
:math:`e \sim \mathcal{N}(0, R)` and :math:`S = G \Sigma G^\top + R`, the posterior has

.. math:: \hat{z} = m + \Sigma G^\top S^{-1} (y - c - G m), \quad
    \hat{\Sigma} = \Sigma - \Sigma G^\top S^{-1} G \Sigma .

Draws come in two ways, both exact:

*perturbed observations* (Matheron's rule): for :math:`(z', e')` from prior and noise,
:math:`z' + \Sigma G^\top S^{-1} (y - c - G z' - e')`;

*square root*: :math:`\hat{z} + (I - \tilde{K} G)(z' - m)` with the reduced gain
:math:`\tilde{K} = \Sigma G^\top S^{-\top/2} (S^{1/2} + R^{1/2})^{-1}`, which needs no noise e'.

References
----------
Andrews (1968), A square root formulation of the Kalman covariance equations, doi:10.2514/3.4693.
Whitaker & Hamill (2002), Ensemble data assimilation without perturbed observations,
doi:10.1175/1520-0493(2002)130<1913:EDAWPO>2.0.CO;2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from xappa.diffusion.blocktridiagonal import BlockTridiagonalCovariance
from xappa.diffusion.markov import GaussianTrajectory
from xappa.errors import OperatorError

__all__ = ["ExactPosterior", "LatentMap", "Noise"]

#: Up to this many observations S is formed and factorised; beyond it, solves are iterative.
DENSE_LIMIT = 4096


@dataclass(frozen=True)
class LatentMap:
    r"""The affine map :math:`z \mapsto c + G z` from trajectories to n interpolated values.

    G is stored by the P pairs (row, time) that are not zero: a row is one observed quantity, which
    reads the M latents of a few times.

    Parameters
    ----------
    offset
        c, shape (n,).
    basis
        The non-zero parts of G, shape (P, M).
    row, time
        Where they belong, shape (P,), int64.
    length
        Number of states T.
    """

    offset: Tensor
    basis: Tensor
    row: Tensor
    time: Tensor
    length: int

    def __call__(self, z: Tensor) -> Tensor:
        """Map latents of shape (B, T, M) to values of shape (B, n)."""
        return self.offset + self.linear(z)

    def linear(self, z: Tensor) -> Tensor:
        """Return G z, shape (B, n)."""
        parts = (self.basis * z[:, self.time]).sum(-1)
        out = z.new_zeros(len(z), len(self.offset))
        return out.index_add(1, self.row, parts)

    def adjoint(self, v: Tensor) -> Tensor:
        """Map v of shape (B, n) to Gᵀ v, shape (B, T, M)."""
        parts = self.basis * v[:, self.row, None]
        out = v.new_zeros(len(v), self.length, self.basis.shape[1])
        return out.index_add(1, self.time, parts)

    def dense(self) -> Tensor:
        """Return G, shape (n, T, M)."""
        out = self.basis.new_zeros(len(self.offset), self.length, self.basis.shape[1])
        return out.index_put((self.row, self.time), self.basis, accumulate=True)


class Noise:
    """The error covariance R of n observations, as a dense or a sparse matrix.

    Parameters
    ----------
    matrix
        R, shape (n, n), dense or in a sparse layout.
    diagonal
        Its diagonal, shape (n,).
    """

    def __init__(self, matrix: Tensor, diagonal: Tensor) -> None:
        self.matrix, self.diagonal = matrix, diagonal

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return R v for v of shape (B, n)."""
        return (self.matrix @ v.mT).mT

    @cached_property
    def factor(self) -> Tensor:
        """Lower Cholesky factor, shape (n, n)."""
        dense = self.matrix.to_dense() if self.matrix.layout != torch.strided else self.matrix
        factor: Tensor = torch.linalg.cholesky(dense)
        return factor

    def solve(self, v: Tensor) -> Tensor:
        """Return R⁻¹ v for v of shape (B, n)."""
        if len(self.diagonal) <= DENSE_LIMIT:
            return torch.cholesky_solve(v.mT, self.factor).mT
        return conjugate_gradients(self.__matmul__, lambda r: r / self.diagonal, v)


class ExactPosterior:
    """The posterior of a Gaussian trajectory given linear observations.

    Parameters
    ----------
    prior
        The distribution of the latents, T states of size M.
    operator
        The affine map to the n observed values.
    y
        Observations, shape (n,), or (B, n) where each member has its own.
    noise
        Their error covariance.
    """

    def __init__(
        self, prior: GaussianTrajectory, operator: LatentMap, y: Tensor, noise: Noise
    ) -> None:
        self.prior, self.operator, self.y, self.noise = prior, operator, y, noise

    @property
    def n(self) -> int:
        """Number of observations."""
        return int(self.y.shape[-1])

    @property
    def is_dense(self) -> bool:
        """Whether S is formed and factorised."""
        return self.n <= DENSE_LIMIT

    @cached_property
    def gain_factors(self) -> tuple[Tensor, Tensor]:
        """Σ Gᵀ as shape (n, T, M), and the lower Cholesky factor of S."""
        g = self.operator.dense()
        sigma_gt = self.prior.covariance_times(g)
        s = torch.einsum("itm,jtm->ij", g, sigma_gt)
        s = (s + s.mT) / 2 + (
            self.noise.matrix.to_dense()
            if self.noise.matrix.layout != torch.strided
            else self.noise.matrix
        )
        return sigma_gt, torch.linalg.cholesky(s)

    def update(self, departure: Tensor) -> Tensor:
        """Return Σ Gᵀ S⁻¹ d for departures d of shape (B, n); shape (B, T, M)."""
        if not self.n:
            return departure.new_zeros(len(departure), self.prior.length, self.prior.size)
        if self.is_dense:
            sigma_gt, factor = self.gain_factors
            weights = torch.cholesky_solve(departure.mT, factor).mT
            return torch.einsum("bn,ntm->btm", weights, sigma_gt)
        weights = conjugate_gradients(self._times_s, self._precondition, departure)
        return self.prior.covariance_times(self.operator.adjoint(weights))

    @property
    def mean(self) -> Tensor:
        """The posterior mean, shape (B, T, M), where B is 1 unless the prior has B means."""
        mean = self.prior.mean.reshape(-1, self.prior.length, self.prior.size)
        return mean + self.update(self.y - self.operator(mean))

    def perturbed(self, z: Tensor, noise: Tensor) -> Tensor:
        """Draw by perturbed observations from prior draws (B, T, M) and noise draws (B, n)."""
        return z + self.update(self.y - noise - self.operator(z))

    def square_root(self, z: Tensor) -> Tensor:
        """Draw by the exact square root from prior draws (B, T, M)."""
        if not self.is_dense:
            raise OperatorError(
                "the exact square root factorises a matrix as large as the observations",
                expected=f"at most {DENSE_LIMIT} observations",
                got=self.n,
                remedy="use perturbed observations, which are exact too",
            )
        perturbation = z - self.prior.mean
        if not self.n:
            return self.mean + perturbation
        sigma_gt, factor = self.gain_factors
        g_z = self.operator.linear(perturbation)
        weights = torch.linalg.solve(factor + self.noise.factor, g_z.mT)
        weights = torch.linalg.solve_triangular(factor.mT, weights, upper=True).mT
        return self.mean + perturbation - torch.einsum("bn,ntm->btm", weights, sigma_gt)

    def covariance(self, states: slice) -> Tensor:
        """Return the posterior covariance of some consecutive states, shape (k M, k M)."""
        picked = range(*states.indices(self.prior.length))
        size = len(picked) * self.prior.size
        eye = torch.eye(size, dtype=self.y.dtype, device=self.y.device)
        unit = eye.new_zeros(size, self.prior.length, self.prior.size)
        unit[:, states] = eye.reshape(size, len(picked), self.prior.size)
        prior = self.prior.covariance_times(unit)
        update = self.update(self.operator.linear(prior)) if self.n else torch.zeros_like(prior)
        covariance = (prior - update)[:, states].reshape(size, size)
        return (covariance + covariance.mT) / 2

    def variance(self) -> Tensor:
        """Return the posterior covariance of each state's latents, shape (T, M, M)."""
        return torch.stack([self.covariance(slice(t, t + 1)) for t in range(self.prior.length)])

    def _times_s(self, v: Tensor) -> Tensor:
        sigma_gt_v = self.prior.covariance_times(self.operator.adjoint(v))
        return self.noise @ v + self.operator.linear(sigma_gt_v)

    def _precondition(self, v: Tensor) -> Tensor:
        # Woodbury's identity for diag(R): the inverse of S itself where R is diagonal.
        weighted = v / self.noise.diagonal
        inner = self._information.solve(self.prior.block(self.operator.adjoint(weighted)))
        return weighted - self.operator.linear(self.prior.unblock(inner)) / self.noise.diagonal

    @cached_property
    def _information(self) -> BlockTridiagonalCovariance:
        """The precision Λ + Gᵀ diag(R)⁻¹ G, where rows reach at most the next superblock."""
        span, m = self.prior.span, self.prior.size
        n = span * m
        prior, op = self.prior.precision, self.operator
        diagonal, lower = prior.diagonal.clone(), prior.lower.clone()
        block = op.time // span
        first = torch.full((len(op.offset),), len(diagonal), device=block.device)
        first = first.scatter_reduce(0, op.row, block, "amin")
        for b in range(len(diagonal)):
            rows = torch.nonzero(first == b)[:, 0]
            if not len(rows):
                continue
            local = torch.full_like(first, -1)
            local[rows] = torch.arange(len(rows), device=rows.device)
            pair = torch.nonzero((local[op.row] >= 0) & (block <= b + 1))[:, 0]
            g = op.basis.new_zeros(len(rows), 2 * span, m)
            where = (local[op.row[pair]], op.time[pair] - b * span)
            g = g.index_put(where, op.basis[pair], accumulate=True).flatten(1)
            g = g * self.noise.diagonal[rows].rsqrt()[:, None]
            here, after = g[:, :n], g[:, n:]
            diagonal[b] += here.mT @ here
            if b < len(lower):
                diagonal[b + 1] += after.mT @ after
                lower[b] += after.mT @ here
        return BlockTridiagonalCovariance(diagonal, lower)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    rtol: float = 1e-10,
) -> Tensor:
    """Solve to high accuracy with preconditioned conjugate gradients.

    Parameters
    ----------
    product, precondition
        Symmetric positive definite maps of (B, n).
    b
        Right-hand sides, shape (B, n).
    rtol
        Relative residual at which a right-hand side is solved.

    Raises
    ------
    OperatorError
        If the residual does not fall below ``rtol`` within 10 n steps.
    """
    x, r = torch.zeros_like(b), b
    norm = torch.linalg.vector_norm(b, dim=-1).clamp(min=1e-300)
    z = precondition(r)
    p, rz = z, (r * z).sum(-1)
    for _ in range(10 * b.shape[-1]):
        active = torch.linalg.vector_norm(r, dim=-1) > rtol * norm
        if not bool(active.any()):
            return x
        mp = product(p)
        step = torch.where(active, rz / (p * mp).sum(-1).clamp(min=1e-300), 0.0)[:, None]
        x, r = x + step * p, r - step * mp
        z = precondition(r)
        rz_next = (r * z).sum(-1)
        p = torch.where(active[:, None], z + (rz_next / rz.clamp(min=1e-300))[:, None] * p, p)
        rz = torch.where(active, rz_next, rz)
    raise OperatorError(
        "the linear system of the exact posterior did not converge",
        expected=f"a relative residual below {rtol}",
        got=float((torch.linalg.vector_norm(r, dim=-1) / norm).max()),
        remedy="check the observation errors: nearly singular covariances cannot be solved",
    )
