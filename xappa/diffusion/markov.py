r"""Stationary Gaussian processes that are known over a blanket, and their Markov extension.

Within a blanket of K consecutive latent states the process is given by its autocovariances

.. math:: \Gamma_k = \operatorname{Cov}[z_{t+k}, z_t] \in \mathbb{R}^{M \times M},
    \quad 0 \le k < K.

Beyond the blanket it is extended with the largest entropy that these allow, which is the
vector-autoregressive process of order p = K - 1

.. math:: z_t = \sum_{j=1}^{m} A^{(m)}_j z_{t-j} + \varepsilon_t, \quad
    \varepsilon_t \sim \mathcal{N}(0, Q^{(m)}), \quad m = \min(t, p)

whose coefficients solve the Yule-Walker equations; the first p states use the lower orders m, so
that the process is stationary from its first state. Each equation couples p + 1 states, so that in
superblocks of p states the precision of a trajectory of any length is block-tridiagonal.

References
----------
Burg (1975), Maximum entropy spectral analysis, Stanford University.
Lütkepohl (2005), New Introduction to Multiple Time Series Analysis, doi:10.1007/978-3-540-27752-1
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from xappa.diffusion.blocktridiagonal import BlockTridiagonalCovariance

__all__ = ["GaussianTrajectory", "Initial", "StationaryProcess", "block_toeplitz"]


def block_toeplitz(gamma: Tensor) -> Tensor:
    """Put autocovariances by lag (K, M, M) together to the covariance of K states, (K M, K M)."""
    lags = range(len(gamma))
    rows = [
        torch.cat([gamma[i - j] if i >= j else gamma[j - i].mT for j in lags], dim=1) for i in lags
    ]
    return torch.cat(rows)


class StationaryProcess:
    r"""A zero-mean stationary Gaussian process with a known blanket of autocovariances.

    Parameters
    ----------
    autocovariance
        :math:`\Gamma_k`, shape (K, M, M); the block-Toeplitz matrix that they form must be
        positive definite.
    """

    def __init__(self, autocovariance: Tensor) -> None:
        self.autocovariance = autocovariance
        self.blanket, self.size = autocovariance.shape[:2]
        self.order = self.blanket - 1

    def covariance(self, length: int) -> Tensor:
        """Return the covariance matrix of ``length`` consecutive states, shape (T M, T M)."""
        return block_toeplitz(self.extend(length))

    def extend(self, lags: int) -> Tensor:
        """Return the autocovariances up to lag ``lags - 1``, shape (lags, M, M)."""
        gamma = list(self.autocovariance[:lags])
        coefficients, _ = self.predictors[self.order]
        for _ in range(len(gamma), lags):
            terms = [coefficients[j] @ gamma[-1 - j] for j in range(self.order)]
            gamma.append(sum(terms, torch.zeros_like(self.autocovariance[0])))
        return torch.stack(gamma)

    @cached_property
    def predictors(self) -> list[tuple[Tensor, Tensor]]:
        """The best linear predictors of order m = 0 ... p: (A of shape (m, M, M), Q)."""
        gamma, size = self.autocovariance, self.size
        found = [(gamma.new_zeros(0, size, size), gamma[0])]
        for m in range(1, self.blanket):
            # Yule-Walker: [Γ_1 ... Γ_m] = [A_1 ... A_m] T_m with T_m[i, j] = Cov[z_{-i}, z_{-j}].
            past = torch.cat(
                [
                    torch.cat([gamma[j - i] if j >= i else gamma[i - j].mT for j in range(m)], 1)
                    for i in range(m)
                ]
            )
            cross = torch.cat([gamma[k] for k in range(1, m + 1)], dim=1)
            a = torch.cholesky_solve(cross.mT, torch.linalg.cholesky(past)).mT
            q = gamma[0] - a @ cross.mT
            found.append((a.reshape(size, m, size).movedim(1, 0), (q + q.mT) / 2))
        return found

    def step(self, past: Tensor, noise: Tensor) -> Tensor:
        """Draw the next state given the last ones.

        Parameters
        ----------
        past
            The last states, oldest first, shape (..., n, M), n >= 0.
        noise
            Standard normal numbers, shape (..., M).
        """
        m = min(past.shape[-2], self.order)
        a, _ = self.predictors[m]
        z = noise @ self._innovation_factor(m).mT
        for j in range(m):
            z = z + past[..., -1 - j, :] @ a[j].mT
        return z

    @cached_property
    def _factors(self) -> dict[int, Tensor]:
        return {}

    def _innovation_factor(self, m: int) -> Tensor:
        if m not in self._factors:
            self._factors[m] = torch.linalg.cholesky(self.predictors[m][1])
        return self._factors[m]

    def trajectory(self, length: int, initial: Initial | None = None) -> GaussianTrajectory:
        """Return the distribution of ``length`` consecutive states.

        Parameters
        ----------
        length
            Number of states T.
        initial
            What is known of the first states from elsewhere (a filter's last analysis), in place
            of the stationary distribution.
        """
        span = max(1, min(self.order, length))
        known = 0 if initial is None else initial.mean.shape[-2]
        precision = self._equations(length, span, 0, length, skip=known)
        mean = self.autocovariance.new_zeros(length, self.size)
        diagonal = precision.diagonal
        if padding := len(diagonal) * span - length:
            # The last superblock may hold states that do not exist: independent, never read.
            n = span * self.size
            tail = torch.arange(n - padding * self.size, n, device=diagonal.device)
            diagonal[-1, tail, tail] = 1.0
        if initial is not None:
            k = known * self.size
            diagonal[0, :k, :k] += initial.precision
            mean = self._continue(initial.mean, length)
        return GaussianTrajectory(mean, precision, span)

    def estimate_precision(
        self, trajectory: GaussianTrajectory, start: int, stop: int
    ) -> BlockTridiagonalCovariance:
        """Return the precision of some states alone, in the superblocks of a trajectory.

        Those are the states ``start`` to ``stop``. It is zero outside them, and among them it is
        what `trajectory` gives for a trajectory of their number.
        """
        return self._equations(trajectory.length, trajectory.span, start, stop)

    def _continue(self, past: Tensor, length: int) -> Tensor:
        """Continue states (..., n, M) by their expectation to ``length`` states."""
        while past.shape[-2] < length:
            nothing = past.new_zeros(*past.shape[:-2], self.size)
            past = torch.cat([past, self.step(past, nothing).unsqueeze(-2)], dim=-2)
        return past

    def _equations(
        self, length: int, span: int, start: int, stop: int, skip: int = 0
    ) -> BlockTridiagonalCovariance:
        """Collect the autoregressive equations of states start + skip to stop."""
        blocks, m = -(-length // span), self.size
        n = span * m
        diagonal = self.autocovariance.new_zeros(blocks, n, n)
        lower = self.autocovariance.new_zeros(blocks - 1, n, n)
        for t in range(start + skip, stop):
            order = min(t - start, self.order)
            a, _ = self.predictors[order]
            # One row of equations, z_t - sum_j A_j z_{t-j} = e_t, over two superblocks.
            row = self.autocovariance.new_zeros(m, 2 * n)
            here = n + (t % span) * m
            row[:, here : here + m] = torch.eye(m, dtype=row.dtype, device=row.device)
            for j in range(order):
                before = here - (j + 1) * m
                row[:, before : before + m] = -a[j]
            white = torch.linalg.solve_triangular(self._innovation_factor(order), row, upper=False)
            left, right = white[:, :n], white[:, n:]
            b = t // span
            diagonal[b] += right.mT @ right
            if b:
                diagonal[b - 1] += left.mT @ left
                lower[b - 1] += right.mT @ left
        return BlockTridiagonalCovariance(diagonal, lower)


@dataclass(frozen=True)
class Initial:
    """What is known of the first n states of a trajectory.

    Parameters
    ----------
    mean
        Shape (n, M).
    precision
        Inverse covariance of the n states, shape (n M, n M).
    """

    mean: Tensor
    precision: Tensor


@dataclass(frozen=True)
class GaussianTrajectory:
    """A Gaussian distribution over T latent states of size M, with block-tridiagonal precision.

    Parameters
    ----------
    mean
        Shape (T, M), or (B, T, M) where each member has a mean of its own.
    precision
        The inverse covariance, in superblocks of ``span`` states.
    span
        States in each superblock.
    """

    mean: Tensor
    precision: BlockTridiagonalCovariance
    span: int

    @property
    def length(self) -> int:
        """Number of states T."""
        return self.mean.shape[-2]

    @property
    def size(self) -> int:
        """Size M of a latent state."""
        return self.mean.shape[-1]

    def block(self, z: Tensor) -> Tensor:
        """Reshape (..., T, M) into superblocks (..., B, span M), padded with zeros."""
        blocks, n = self.precision.shape
        padding = blocks * self.span - self.length
        z = torch.nn.functional.pad(z, (0, 0, 0, padding))
        return z.reshape(*z.shape[:-2], blocks, n)

    def unblock(self, z: Tensor) -> Tensor:
        """Invert `block`."""
        z = z.reshape(*z.shape[:-2], -1, self.size)
        return z[..., : self.length, :]

    def covariance_times(self, v: Tensor) -> Tensor:
        """Return the covariance times v, for v of shape (..., T, M); differentiable."""
        return self.unblock(self.precision.inv @ self.block(v))

    def sample(self, noise: Tensor) -> Tensor:
        """Turn white noise of shape (..., T, M) into draws of the same shape."""
        return self.mean + self.perturbation(noise)

    def perturbation(self, noise: Tensor) -> Tensor:
        """Turn white noise of shape (..., T, M) into draws about the mean."""
        return self.unblock(self.precision.inv.color(self.block(noise)))

    def with_estimate(
        self, estimate: Tensor, precision: BlockTridiagonalCovariance, scale: Tensor
    ) -> GaussianTrajectory:
        r"""Condition on an independent estimate of some of the states.

        The estimate is :math:`z_b = z + (I \otimes S) e` where e has the precision
        :math:`\Lambda_e`; the precisions add up:
        :math:`\Lambda + (I \otimes S)^{-\top} \Lambda_e (I \otimes S)^{-1}`.

        Parameters
        ----------
        estimate
            :math:`z_b`, shape (T, M) or (B, T, M); not read where the precision is zero.
        precision
            :math:`\Lambda_e`, as from `StationaryProcess.estimate_precision`.
        scale
            :math:`S`, shape (M, M), invertible.
        """
        inverse = torch.block_diag(*[torch.linalg.inv(scale)] * self.span)
        error = BlockTridiagonalCovariance(
            inverse.mT @ precision.diagonal @ inverse, inverse.mT @ precision.lower @ inverse
        )
        both = self.precision + error
        pull = error @ self.block(estimate - self.mean)
        return replace(self, mean=self.mean + self.unblock(both.solve(pull)), precision=both)
