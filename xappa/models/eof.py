r"""Area-weighted empirical orthogonal functions and the statistics of their components.

Anomalies :math:`a_n` of N states are expanded as

.. math:: a_n = E z_n + r_n, \quad \tfrac{1}{N} \sum_n z_n z_n^\top = I ,

where E holds the M leading EOFs under the inner product :math:`\langle a, b \rangle = a^\top W b`;
W is the cell area times the inverse variance of the channel, so that variables of different units
and sizes count alike. E is scaled such that the principal components z have unit variance.
What is left, r, keeps its variance at every point. As n states span no more than n dimensions, and
leave nothing where there are as many EOFs, a share 1 / (n + 1) of all variance goes to it in any
case: what the next state would leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.linalg

__all__ = ["Expansion", "autocovariance", "expand", "segments"]

#: Gram matrices of the states, or of the points, are formed up to this size.
_LARGEST_GRAM = 6000
#: What a least eigenvalue must exceed, for components of unit variance, to be no rounding error.
_LEAST_EIGENVALUE = 1e-9


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

    The sign of each is such that its component at the first state is positive, so that the same
    data give the same EOFs, however they are stored.

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
    decompose = _decompose if isinstance(anomalies, np.ndarray) else _decompose_blockwise
    left, singular, total, raw = decompose(anomalies, root, modes)
    kept = singular > 1e-6 * max(singular[0], 1e-300)
    left, raw = left[:, kept], raw[:, kept]
    # The first state whose component is no rounding error: symmetric data have zeros.
    first = np.argmax(np.abs(left) > 1e-3 * np.abs(left).max(axis=0), axis=0)
    sign = np.sign(left[first, np.arange(left.shape[1])])
    # z = √N u has unit variance; a = Σ s u vᵀ gives E = aᵀ u / √N, here with N - F for N.
    eofs = raw * sign / np.sqrt(freedom) * np.sqrt(1 - 1 / (freedom + 1))
    return Expansion(eofs, left * sign * np.sqrt(n), total / freedom)


_Decomposition = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _decompose(a: np.ndarray, root: np.ndarray, modes: int) -> _Decomposition:
    """Left singular vectors u (N, M) and values (M,) of weighted anomalies, Σ a² (P,) and aᵀ u."""
    weighted = a * root
    n, p = weighted.shape
    if n <= p:
        left, singular = _leading(weighted @ weighted.T, modes)
    else:
        right, singular = _leading(weighted.T @ weighted, modes)
        left = weighted @ right / np.maximum(singular, 1e-300)
    return left, singular, np.einsum("np,np->p", a, a), a.T @ left


def _leading(gram: np.ndarray, modes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading eigenvectors of a Gram matrix and the roots of its eigenvalues."""
    size = len(gram)
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=[max(0, size - modes), size - 1])
    return vectors[:, ::-1], np.sqrt(np.maximum(values[::-1], 0.0))


def _decompose_blockwise(a: Any, root: np.ndarray, modes: int) -> _Decomposition:
    """Do as `_decompose` in passes over blocks of states."""
    import dask
    import dask.array as da

    weighted = a * root
    n, p = a.shape
    if n <= min(p, _LARGEST_GRAM):
        gram, total = dask.compute(weighted @ weighted.T, (a**2).sum(axis=0))
        left, singular = _leading(gram, modes)
    elif p <= _LARGEST_GRAM:
        gram, total = dask.compute(weighted.T @ weighted, (a**2).sum(axis=0))
        right, singular = _leading(gram, modes)
        left = (weighted @ (right / np.maximum(singular, 1e-300))).compute()
    else:
        parts = da.linalg.svd_compressed(
            weighted, k=min(modes, n, p), n_power_iter=3, n_oversamples=20, seed=0, compute=True
        )
        left, singular, total = dask.compute(*parts[:2], (a**2).sum(axis=0))
    return left, singular, total, (a.T @ left).compute()


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

    Each lag's average is over the pairs of states that there are. As different lags then see
    different states, the block-Toeplitz matrix of all lags need not be positive definite; if it is
    not, the averages are drawn towards the biased estimator (a division by the number of states,
    not of pairs), which always is, as little as makes it so. Covariances *between* components,
    which few independent states estimate poorly, are shrunk towards zero, which keeps it so.

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
    pairs = np.zeros(lags)
    for run in runs:
        z = components[:, run]
        for k in range(min(lags, z.shape[1])):
            gamma[k] += np.einsum("bti,btj->ij", z[:, k:], z[:, : z.shape[1] - k])
            pairs[k] += series * (z.shape[1] - k)
    own = np.einsum("kii->ki", gamma)[:, :, None] * np.eye(size)
    shrunk = (1 - shrinkage) * gamma + shrinkage * own
    biased = shrunk / (series * length)
    return _definite(shrunk / np.maximum(pairs, 1)[:, None, None], biased)


def _definite(wanted: np.ndarray, safe: np.ndarray) -> np.ndarray:
    """Return autocovariances (K, M, M) as close to the wanted ones as definiteness allows."""
    if _least_eigenvalue(wanted) > _LEAST_EIGENVALUE:
        return wanted
    low, high = 0.0, 1.0
    for _ in range(6):
        middle = (low + high) / 2
        good = _least_eigenvalue((1 - middle) * wanted + middle * safe) > _LEAST_EIGENVALUE
        low, high = (low, middle) if good else (middle, high)
    blend: np.ndarray = (1 - high) * wanted + high * safe
    return blend


def _least_eigenvalue(gamma: np.ndarray) -> float:
    """Return the least eigenvalue of the block-Toeplitz matrix of autocovariances."""
    lags, size, _ = gamma.shape
    toeplitz = np.empty((lags, size, lags, size))
    for i in range(lags):
        for j in range(i + 1):
            toeplitz[i, :, j], toeplitz[j, :, i] = gamma[i - j], gamma[i - j].T
    matrix = toeplitz.reshape(lags * size, -1)
    return float(scipy.linalg.eigvalsh(matrix, subset_by_index=[0, 0])[0])
