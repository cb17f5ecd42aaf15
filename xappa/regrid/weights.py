r"""Weights of regridding on the sphere, as sparse matrices.

The value at the target point t is :math:`y_t = \sum_s W_{ts} x_s` over the source points s.

- *bilinear*: the weights of `Grid.interpolate`, to any points; longitude is periodic, and beyond
  the last row of a global grid the pole is the zonal mean of that row. ESMF interpolates along
  chords instead of parallels; the fields differ by 1e-4 of their range where the spacing is 3
  degrees, and by the square of the spacing elsewhere.
- *conservative* (first order): :math:`W_{ts}` is the share of the target cell t that the source
  cell s covers. Areas on the sphere are products of differences in longitude and in the sine of
  latitude, so that W is the Kronecker product of two small matrices of overlaps. ESMF bounds cells
  by great circles instead of parallels.

A row sums to the covered share of its target: 1, or less at the edge of a regional source.

References
----------
Jones, P. W. (1999), First- and second-order conservative remapping schemes for grids in spherical
coordinates, Mon. Wea. Rev. 127, doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from xappa._cells import bounds_of
from xappa.grid import Grid

__all__ = [
    "TOLERANCE",
    "bilinear_weights",
    "cell_weights",
    "conservative_weights",
    "longitude_bounds",
    "uncovered",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

TOLERANCE = 1e-3
"""A target of which all but this share is covered is covered: so uncertain are bounds between
coordinates that were stored as float32."""

# overlaps below this share of a cell are rounding; they would spread missing values to neighbours
_SLIVER = 1e-10
# the most entries of padded weights that are made at once
_BATCH = 1_000_000


def uncovered(weights: Any, partial: bool = False) -> Booleans:
    """Tell which targets (m,) have no value.

    Parameters
    ----------
    weights
        scipy.sparse.csr_array (m, n).
    partial
        Whether only those count that nothing covers; by default all that are not wholly covered.
    """
    if partial:
        return np.asarray(np.diff(weights.indptr) == 0)
    return np.asarray(weights.sum(axis=1) < 1.0 - TOLERANCE)


def bilinear_weights(source: Grid, latitude: npt.ArrayLike, longitude: npt.ArrayLike) -> Any:
    """Return the weights of bilinear interpolation to points.

    Parameters
    ----------
    source
        The grid.
    latitude, longitude
        (n,) degrees, of any convention; NaN where there is no point.

    Returns
    -------
    scipy.sparse.csr_array (n, source.size)
        Rows sum to 1, and are empty for points outside the grid: beyond the outermost cell centres,
        except between the last row of a global grid and the pole.
    """
    lat, lon = (np.ravel(np.asarray(x, dtype=np.float64)) for x in (latitude, longitude))
    south, north = source.latitude.min(), source.latitude.max()
    lowest, highest = np.sort(source.latitude_bounds)[[0, -1]]
    beyond = (lat > north) | (lat < south)
    # a band around the globe has no value at the pole to interpolate to
    outside = ((lat > north + 1e-6) & (highest < 90.0)) | ((lat < south - 1e-6) & (lowest > -90.0))
    # beyond the last row there are as many weights as the grid has longitudes
    jobs = ((np.flatnonzero(~beyond), 4), (np.flatnonzero(beyond & ~outside), source.shape[1]))
    row, col, value = [], [], []
    for points, width in jobs:
        for block in np.array_split(points, max(1, -(-points.size * width // _BATCH))):
            index, weight, _ = source.interpolate(lat[block], lon[block])
            at, k = np.nonzero(weight)
            row.append(block[at].astype(np.int32))
            col.append(index[at, k].astype(np.int32))
            value.append(weight[at, k])
    entries = (np.concatenate(value), (np.concatenate(row), np.concatenate(col)))
    return scipy.sparse.csr_array(entries, shape=(lat.size, source.size))


def conservative_weights(source: Grid, target: Grid) -> Any:
    """Return the weights of first-order conservative regridding between rectilinear grids.

    Parameters
    ----------
    source, target
        The grids; their cells are bounded by `Grid.latitude_bounds` and by the meridians midway
        between columns.

    Returns
    -------
    scipy.sparse.csr_array (target.size, source.size)
        Rows sum to the covered share of the target's cell.
    """
    north, east = target.latitude_bounds, longitude_bounds(target)
    rows = _row_shares(source, np.minimum(north[:-1], north[1:]), np.maximum(north[:-1], north[1:]))
    columns = _column_shares(source, east[:-1], np.diff(east))
    weights = scipy.sparse.csr_array(scipy.sparse.kron(rows, columns, format="csr"))
    share = weights.sum(axis=1)
    scale = np.where(share >= 1.0 - TOLERANCE, 1.0 / np.where(share > 0, share, 1.0), 1.0)
    return scipy.sparse.csr_array(scipy.sparse.diags_array(scale) @ weights)


def cell_weights(source: Grid, cells: npt.ArrayLike) -> Any:
    """Return the weights of means over cells between parallels and meridians.

    Parameters
    ----------
    source
        The grid.
    cells
        (n, 4) degrees: south, north, west and east of each cell; from west eastward, across any
        seam.

    Returns
    -------
    scipy.sparse.csr_array (n, source.size)
        Rows sum to the covered share of the cell; zero for cells without area.
    """
    south, north, west, east = np.asarray(cells, dtype=np.float64).reshape(-1, 4).T
    width = (east - west) % 360.0
    width = np.where((width == 0) & (east != west), 360.0, width)
    rows = _row_shares(source, south, north)
    columns = _column_shares(source, west, width)
    # each cell's column of shares times its row of shares: one Kronecker product per cell
    across = np.diff(columns.indptr)
    of_rows = np.repeat(np.arange(len(south)), np.diff(rows.indptr))
    which, at = _ragged(columns.indptr[of_rows], across[of_rows])
    col = rows.indices[which].astype(np.int64) * source.shape[1] + columns.indices[at]
    counts = np.diff(rows.indptr) * across
    indptr = np.concatenate([[0], np.cumsum(counts)])
    value = rows.data[which] * columns.data[at]
    return scipy.sparse.csr_array((value, col, indptr), shape=(len(south), source.size))


def longitude_bounds(grid: Grid) -> Floats:
    """Return the meridians (lon + 1,) between the columns of a grid, eastward."""
    lon = grid.unwrapped_longitude
    if not grid.is_periodic:
        return bounds_of(lon)
    first = (lon[0] + lon[-1] - 360.0) / 2
    return np.concatenate([[first], first + np.cumsum(grid.longitude_widths)])


def _row_shares(source: Grid, south: Floats, north: Floats) -> Any:
    """Return the shares (m, lat) of the areas between m pairs of parallels."""
    bounds, low, high = (np.sin(np.deg2rad(x)) for x in (source.latitude_bounds, south, north))
    return _shares(bounds, low, high)


def _column_shares(source: Grid, west: Floats, width: Floats) -> Any:
    """Return the shares (m, lon) of m widths in degrees, from the west eastward."""
    bounds = longitude_bounds(source)
    start = bounds[0] + (west - bounds[0]) % 360.0
    shares = _shares(bounds, start, start + width)
    return shares + _shares(bounds, start - 360.0, start + width - 360.0)


def _ragged(first: Integers, count: Integers) -> tuple[Integers, Integers]:
    """Return, for ranges of `count` indices from `first` on, the number of the range, the index."""
    which = np.repeat(np.arange(count.size), count)
    begin = np.cumsum(count) - count
    return which, np.arange(which.size) + np.repeat(first - begin, count)


def _shares(bounds: Floats, low: Floats, high: Floats) -> Any:
    """Return the shares (m, n) of m intervals that n source intervals cover, given their bounds."""
    n = bounds.size - 1
    descending = bounds[0] > bounds[-1]
    edges = bounds[::-1] if descending else bounds
    first = np.clip(np.searchsorted(edges, low, side="right") - 1, 0, n)
    last = np.clip(np.searchsorted(edges, high, side="left"), 0, n)
    # false for NaN, too
    count = np.where(high > low, np.maximum(last - first, 0), 0)
    row, at = _ragged(first, count)
    overlap = np.minimum(high[row], edges[at + 1]) - np.maximum(low[row], edges[at])
    share = overlap / (high - low)[row]
    keep = share > _SLIVER
    col = (n - 1 - at if descending else at)[keep]
    return scipy.sparse.csr_array((share[keep], (row[keep], col)), shape=(low.size, n))
