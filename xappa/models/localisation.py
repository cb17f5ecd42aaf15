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

import numpy as np

from xappa.grid import Grid

__all__ = ["correlation_factors", "gaspari_cohn", "localise"]

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
    r = np.abs(np.asarray(distance, dtype=float)) / (radius / 2)
    near = ((((-r / 4 + 0.5) * r + 0.625) * r - 5 / 3) * r * r) + 1
    with np.errstate(divide="ignore"):
        far = ((((r / 12 - 0.5) * r + 0.625) * r + 5 / 3) * r - 5) * r + 4 - 2 / (3 * r)
    return np.where(r <= 1, near, np.where(r < 2, far, 0.0))


def correlation_factors(grid: Grid, radius: float, trace: float = 0.999) -> np.ndarray:
    """Return a low-rank factor of the localising correlation.

    Parameters
    ----------
    grid
        The horizontal grid of N points.
    radius
        Distance in metres at which the correlation reaches zero.
    trace
        Fraction of the trace that the factor keeps; each point is then scaled to unit variance.

    Returns
    -------
    numpy.ndarray
        Factors l, shape (J, N), with the squares at each point summing to 1.
    """
    rows, columns = grid.shape
    stride = max(1, int(np.ceil(np.sqrt(rows * columns / _COARSE_POINTS))))
    latitude = np.unique(np.append(np.arange(0, rows, stride), rows - 1))
    longitude = np.arange(0, columns, stride)
    if not grid.is_periodic:
        longitude = np.unique(np.append(longitude, columns - 1))
    coarse = Grid(grid.latitude[latitude], grid.longitude[longitude])
    values, vectors = np.linalg.eigh(gaspari_cohn(coarse.distance(), radius))
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int(np.searchsorted(np.cumsum(values), trace * values.clip(min=0).sum())) + 1
    factors = (vectors[:, :rank] * np.sqrt(values[:rank].clip(min=0))).T
    if stride > 1:
        lat, lon = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
        index, weight, _ = coarse.interpolate(lat.ravel(), lon.ravel())
        factors = np.einsum("jnk,nk->jn", factors[:, index], weight)
    unit: np.ndarray = factors / np.sqrt(np.einsum("jn,jn->n", factors, factors))
    return unit


def localise(
    eofs: np.ndarray,
    gamma: np.ndarray,
    weight: np.ndarray,
    factors: np.ndarray,
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
    factors
        l, shape (J, N), from `correlation_factors`.
    modes
        Number of new EOFs.

    Returns
    -------
    tuple of numpy.ndarray
        The new EOFs (P, M') and autocovariances (K, M', M').
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    rank, horizontal = factors.shape
    points, size = eofs.shape
    root = np.sqrt(weight)[:, None]
    weighted = eofs * root
    channels = points // horizontal
    modes = min(modes, points - 1, rank * size)

    def product(v: np.ndarray) -> np.ndarray:
        modulated = (v.reshape(1, channels, -1) * factors[:, None]).reshape(rank, points)
        back = (modulated @ weighted) @ weighted.T
        both = back.reshape(rank, channels, -1) * factors[:, None]
        result: np.ndarray = both.sum(axis=0).ravel()
        return result

    operator = LinearOperator((points, points), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(points)
    values, vectors = eigsh(operator, k=modes, v0=start)
    order = np.argsort(values)[::-1]
    order = order[values[order] > 1e-10 * values.max()]
    values, vectors = values[order], vectors[:, order]
    with np.errstate(divide="ignore", invalid="ignore"):
        new = np.where(root > 0, vectors * np.sqrt(values) / root, 0.0)
    projection = (vectors / np.sqrt(values)).T
    projected = np.zeros((len(gamma), len(values), len(values)))
    for factor in factors:
        modulated = (weighted.reshape(channels, -1, size) * factor[:, None]).reshape(points, size)
        narrow = projection @ modulated
        projected += narrow @ gamma @ narrow.T
    return new, projected
