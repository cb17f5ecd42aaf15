r"""Distance localisation of an EOF covariance, as a new set of EOFs.

Few independent states make spurious correlations at long distances. Localisation multiplies the
covariance between two points by a correlation :math:`\rho(d)` that falls to zero with their
distance d (Gaspari & Cohn 1999). With a low-rank factor of that correlation,
:math:`\rho(d_{pq}) = \sum_j l_{jp} l_{jq}`, the localised covariances at every lag k are

.. math:: C \circ (E \Gamma_k E^\top)
    = \sum_j (l_j \circ E) \, \Gamma_k \, (l_j \circ E)^\top ,

modulated EOFs in the words of Bishop & Hodyss (2009). They are many; so the leading EOFs E' of the
localised covariance at lag 0 are computed, and the autocovariances are projected upon them. The
result is again a Gaussian over windows of principal components, positive semi-definite by Schur's
product theorem, with the variance that the projection loses returned to the residual.

References
----------
Gaspari & Cohn (1999), Construction of correlation functions, doi:10.1002/qj.49712555417.
Bishop & Hodyss (2009), Ensemble covariances adaptively localized with ECO-RAP,
doi:10.1111/j.1600-0870.2008.00372.x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from xappa.grid import Grid
from xappa.observe.covariance import gaspari_cohn as by_half_width

__all__ = ["LocalisingCorrelation", "gaspari_cohn", "localise"]

#: Points of the grid on which correlation factors are computed before interpolation.
_COARSE_POINTS = 2500


def gaspari_cohn(distance: np.ndarray, radius: float) -> np.ndarray:
    """Return the compactly supported correlation of Gaspari & Cohn (1999), equation 4.10.

    Parameters
    ----------
    distance
        Distances, any shape, in the unit of ``radius``.
    radius
        The distance at which the correlation reaches zero (twice their half-width c).

    Examples
    --------
    >>> gaspari_cohn(np.array([0.0, 500.0, 1000.0]), 1000.0).round(4)
    array([1.    , 0.2083, 0.    ])
    """
    return by_half_width(np.asarray(distance, dtype=float) / (radius / 2))


@dataclass(frozen=True, eq=False)
class LocalisingCorrelation:
    """A localising correlation between N points, kept on a coarser grid of n points.

    It is D W F Fᵀ Wᵀ D, with the interpolation W from the coarse grid to the points and a diagonal
    D that makes each point's variance 1.

    Parameters
    ----------
    factors
        F, shape (n, J).
    interpolation
        D W, shape (N, n).
    """

    factors: np.ndarray
    interpolation: scipy.sparse.csr_array

    @classmethod
    def of(cls, grid: Grid, radius: float, trace: float = 0.999) -> LocalisingCorrelation:
        """Return the correlation of a grid.

        Parameters
        ----------
        grid
            The horizontal grid of N points.
        radius
            Distance in metres at which the correlation reaches zero.
        trace
            Fraction of the trace that the factors keep.
        """
        coarse = _coarse(grid)
        values, vectors = np.linalg.eigh(gaspari_cohn(coarse.distance(), radius))
        values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        rank = int(np.searchsorted(np.cumsum(values), trace * values.sum())) + 1
        factors = vectors[:, :rank] * np.sqrt(values[:rank])
        lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
        index, weight, _ = coarse.interpolate(lat.ravel(), lon.ravel())
        size, width = index.shape
        row = np.repeat(np.arange(size), width)
        w = scipy.sparse.csr_array(
            (weight.ravel(), (row, index.ravel())), shape=(size, len(factors))
        )
        variance = np.concatenate(
            [((part @ factors) ** 2).sum(axis=1) for part in _parts(w, len(factors))]
        )
        return cls(factors, (scipy.sparse.diags_array(variance**-0.5) @ w).tocsr())

    def dense(self) -> np.ndarray:
        """Return the correlations between all points, shape (N, N)."""
        points = self.interpolation @ self.factors
        correlation: np.ndarray = points @ points.T
        return correlation

    def times(self, v: np.ndarray) -> np.ndarray:
        """Return the correlation times v, for v of shape (N, ...)."""
        coarse = self.interpolation.T @ v
        coarse = self.factors @ (self.factors.T @ coarse)
        product: np.ndarray = self.interpolation @ coarse
        return product


def _coarse(grid: Grid) -> Grid:
    """Return a grid over the same domain, of a size that dense matrices allow."""
    rows, columns = grid.shape
    stride = int(np.ceil(np.sqrt(rows * columns / _COARSE_POINTS)))
    if stride <= 1:
        return grid
    count = -(-columns // stride)
    latitude = np.unique(np.append(np.arange(0, rows, stride), rows - 1))
    if grid.is_periodic:
        # its own spacing: the stride need not divide the number of longitudes
        longitude = grid.longitude[0] + 360.0 / count * np.arange(count)
    else:
        longitude = grid.longitude[np.unique(np.append(np.arange(0, columns, stride), columns - 1))]
    return Grid(grid.latitude[latitude], longitude)


def _parts(matrix: scipy.sparse.csr_array, width: int) -> list[scipy.sparse.csr_array]:
    """Split rows so that a dense product with ``width`` columns takes 64 MiB at a time."""
    rows = max(1, 2**23 // width)
    return [matrix[k : k + rows] for k in range(0, matrix.shape[0], rows)]


def localise(
    eofs: np.ndarray,
    gamma: np.ndarray,
    weight: np.ndarray,
    correlation: LocalisingCorrelation,
    modes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Expand a localised covariance in new EOFs.

    Parameters
    ----------
    eofs
        E, shape (P, M); P is channels × N horizontal points.
    gamma
        Autocovariances, shape (K, M, M), the identity at lag 0.
    weight
        W, shape (P,).
    correlation
        The localising correlation of the N points.
    modes
        Number of new EOFs.

    Returns
    -------
    tuple of numpy.ndarray
        The new EOFs (P, M') and autocovariances (K, M', M').
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    points, size = eofs.shape
    horizontal, coarse = correlation.interpolation.shape
    root = np.sqrt(weight)[:, None]
    # (channel, N, M): the factors are the same for all channels
    weighted = (eofs * root).reshape(-1, horizontal, size)
    modes = min(modes, points - 1, correlation.factors.shape[1] * size)

    def product(v: np.ndarray) -> np.ndarray:
        # Σ_m e_m ∘ C (Σ_channels e_m ∘ v): the correlation acts on horizontal fields alone.
        fields = np.einsum("cnm,cn->nm", weighted, v.reshape(-1, horizontal))
        result: np.ndarray = np.einsum("cnm,nm->cn", weighted, correlation.times(fields)).ravel()
        return result

    operator = LinearOperator((points, points), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(points)
    values, vectors = eigsh(operator, k=modes, v0=start)
    order = np.argsort(values)[::-1]
    order = order[values[order] > 1e-10 * values.max()]
    values, vectors = values[order], vectors[:, order]
    with np.errstate(divide="ignore", invalid="ignore"):
        new = np.where(root > 0, vectors * np.sqrt(values) / root, 0.0)
    projection = (vectors / np.sqrt(values)).reshape(-1, horizontal, len(values))
    # (n, M' M), then (J, M', M): each factor's narrow matrix, restricted to the coarse grid first.
    narrow = np.zeros((coarse, len(values) * size))
    transposed = correlation.interpolation.T.tocsr()
    rows = max(1, 2**23 // narrow.shape[1])
    for first in range(0, horizontal, rows):
        block = slice(first, first + rows)
        both = np.einsum("cna,cnm->nam", projection[:, block], weighted[:, block])
        narrow += transposed[:, block] @ both.reshape(both.shape[0], -1)
    each = (correlation.factors.T @ narrow).reshape(-1, len(values), size)
    projected = np.stack([np.tensordot(each @ lag, each, axes=([0, 2], [0, 2])) for lag in gamma])
    return new, projected
