r"""Area-weighted empirical orthogonal functions and the statistics of their components.

Anomalies :math:`a_n` of N states are expanded as

.. math:: a_n = E z_n + r_n, \quad \tfrac{1}{N} \sum_n z_n z_n^\top = I ,

where E holds the M leading EOFs under the inner product :math:`\langle a, b \rangle = a^\top W b`;
W is the cell area times the inverse variance of the channel, so that variables of different units
and sizes count alike. E is scaled such that the principal components z have unit variance.
What is left, r, keeps its variance at every point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = ["Expansion", "autocovariance", "expand", "segments"]


@dataclass(frozen=True, eq=False)
class Expansion:
    """EOFs of a set of anomalies.

    Parameters
    ----------
    eofs
        E, shape (P, M), in the state's units.
    components
        The principal components z, shape (N, M), of unit variance.
    variance
        Variance of the anomalies at every point, shape (P,).
    """

    eofs: np.ndarray
    components: np.ndarray
    variance: np.ndarray

    @property
    def residual(self) -> np.ndarray:
        """Variance that the EOFs leave at every point, shape (P,)."""
        explained = np.einsum("pm,pm->p", self.eofs, self.eofs)
        left: np.ndarray = np.maximum(self.variance - explained, 0.0)
        return left


def expand(anomalies: Any, weight: np.ndarray, modes: int, freedom: int) -> Expansion:
    """Compute the leading EOFs.

    Parameters
    ----------
    anomalies
        Shape (N, P), numpy or dask; a dask array is never held in memory as a whole.
    weight
        W, shape (P,); zero where a point is not part of the state.
    modes
        The most EOFs to keep; fewer where the data have a lower rank.
    freedom
        Degrees of freedom of the N states once the climatology was fitted, N minus its terms.
    """
    root = np.sqrt(weight)
    n = anomalies.shape[0]
    if isinstance(anomalies, np.ndarray):
        left, singular = _decompose(anomalies, root, modes)
        variance = np.einsum("np,np->p", anomalies, anomalies) / freedom
        raw = anomalies.T @ left
    else:
        left, singular, variance, raw = _decompose_blockwise(anomalies, root, modes, freedom)
    kept = singular > 1e-6 * max(singular[0], 1e-300)
    # z = √N u has unit variance; a = Σ s u vᵀ gives E = aᵀ u / √N, here with N - F for N.
    eofs = raw[:, kept] / np.sqrt(freedom)
    return Expansion(eofs, left[:, kept] * np.sqrt(n), variance)


def _decompose(a: np.ndarray, root: np.ndarray, modes: int) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors (N, M) and singular values (M,) of the weighted anomalies."""
    weighted = a * root
    n, p = weighted.shape
    if n <= p:
        values, vectors = np.linalg.eigh(weighted @ weighted.T)
        order = np.argsort(values)[::-1][:modes]
        return vectors[:, order], np.sqrt(np.maximum(values[order], 0.0))
    values, vectors = np.linalg.eigh(weighted.T @ weighted)
    order = np.argsort(values)[::-1][:modes]
    singular = np.sqrt(np.maximum(values[order], 0.0))
    return weighted @ vectors[:, order] / np.maximum(singular, 1e-300), singular


def _decompose_blockwise(
    a: Any, root: np.ndarray, modes: int, freedom: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Do as `_decompose` and also return the variance and aᵀ u, in passes over blocks of states."""
    import dask
    import dask.array as da

    weighted = a * root
    modes = min(modes, *a.shape)
    u, s, _ = da.linalg.svd_compressed(
        weighted, k=modes, n_power_iter=3, n_oversamples=20, seed=0, compute=True
    )
    left, singular, variance = dask.compute(u, s, (a**2).sum(axis=0) / freedom)
    raw = (a.T @ left).compute()
    return left, singular, variance, raw


def segments(seconds: np.ndarray, time_step: float | None) -> list[slice]:
    """Split times (T,) into runs without gaps."""
    if time_step is None:
        return [slice(i, i + 1) for i in range(len(seconds))]
    breaks = np.flatnonzero(np.abs(np.diff(seconds) - time_step) > 0.01 * time_step) + 1
    edges = [0, *breaks.tolist(), len(seconds)]
    return [slice(a, b) for a, b in pairwise(edges)]


def autocovariance(
    components: np.ndarray, runs: Sequence[slice], lags: int, shrinkage: float
) -> np.ndarray:
    r"""Estimate the autocovariances of principal components.

    The biased estimator (a division by the number of states, not of pairs) makes the block-Toeplitz
    matrix of all lags positive semi-definite; shrinking the covariances *between* components
    towards zero, as few independent states estimate them poorly, keeps it so and regularises it.

    Parameters
    ----------
    components
        Principal components, shape (B, T, M): B independent series (members) of T states.
    runs
        The parts of the T states that have no gaps.
    lags
        Number of lags K.
    shrinkage
        Weight of the diagonal estimate, between 0 and 1.

    Returns
    -------
    numpy.ndarray
        :math:`\Gamma_k = \operatorname{Cov}[z_{t+k}, z_t]`, shape (K, M, M).
    """
    series, length, size = components.shape
    gamma = np.zeros((lags, size, size))
    for run in runs:
        z = components[:, run]
        for k in range(min(lags, z.shape[1])):
            gamma[k] += np.einsum("bti,btj->ij", z[:, k:], z[:, : z.shape[1] - k])
    gamma /= series * length
    own = np.einsum("kii->ki", gamma)[:, :, None] * np.eye(size)
    shrunk: np.ndarray = (1 - shrinkage) * gamma + shrinkage * own
    return shrunk
