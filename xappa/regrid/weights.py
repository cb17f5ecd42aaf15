r"""Weights of regridding on the sphere, as sparse matrices.

The value at the target point t is :math:`y_t = \sum_s W_{ts} x_s` over the source points s.

- *bilinear*: the weights of `Grid.interpolate`; longitude is periodic, and beyond the last row of a
  global grid the pole is the zonal mean of that row.
- *conservative* (first order): :math:`W_{ts}` is the share of the target cell t that the source
  cell s covers. Areas on the sphere are products of differences in longitude and in the sine of
  latitude, so that W is the Kronecker product of two small matrices of overlaps.

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
import xarray as xr

from xappa._cells import bounds_of
from xappa._optional import require
from xappa.errors import ArgumentError
from xappa.grid import Grid

__all__ = [
    "TOLERANCE",
    "bilinear_weights",
    "build_weights",
    "cell_weights",
    "conservative_weights",
]

Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-3
"""A target of which all but this share is covered is covered: so uncertain are bounds between
coordinates that were stored as float32."""

# overlaps below this share of a cell are rounding; they would spread missing values to neighbours
_SLIVER = 1e-10
# the most entries of the padded weights beyond the last row that are made at once
_BATCH = 4_000_000


def bilinear_weights(source: Grid, latitude: npt.ArrayLike, longitude: npt.ArrayLike) -> Any:
    """Return the weights of bilinear interpolation to points.

    Parameters
    ----------
    source
        The grid.
    latitude, longitude
        (n,) degrees, of any convention.

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
    blocks = [np.flatnonzero(~beyond)]
    if beyond.any():
        # those rows have as many weights as the grid has longitudes: in batches, to save memory
        parts = int(np.ceil(beyond.sum() * source.longitude.size / _BATCH))
        blocks += np.array_split(np.flatnonzero(beyond & ~outside), parts)
    row, col, value = [], [], []
    for block in blocks:
        index, weight, _ = source.interpolate(lat[block], lon[block])
        at, k = np.nonzero(weight)
        row.append(block[at])
        col.append(index[at, k])
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
    height = [np.sin(np.deg2rad(grid.latitude_bounds)) for grid in (source, target)]
    rows = _overlap(*height)
    east, onto = _longitude_bounds(source), _longitude_bounds(target)
    first = 360.0 * np.floor((onto[0] - east[0]) / 360.0)
    columns = _overlap(east + first, onto) + _overlap(east + first + 360.0, onto)
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
    rows = _shares(np.sin(np.deg2rad(source.latitude_bounds)), *np.sin(np.deg2rad([south, north])))
    bounds = _longitude_bounds(source)
    width = (east - west) % 360.0
    width = np.where((width == 0) & (east != west), 360.0, width)
    start = bounds[0] + (west - bounds[0]) % 360.0
    columns = _shares(bounds, start, start + width)
    columns = columns + _shares(bounds, start - 360.0, start + width - 360.0)
    row, column = (scipy.sparse.csr_array(part) for part in (rows, columns))
    n = len(south)
    parts = [scipy.sparse.kron(row[[k]], column[[k]], format="csr") for k in range(n)]
    if not parts:
        return scipy.sparse.csr_array((0, source.size))
    return scipy.sparse.csr_array(scipy.sparse.vstack(parts, format="csr"))


def _shares(bounds: Floats, low: Floats, high: Floats) -> Floats:
    """Return the shares (m, n) of m intervals that n source intervals cover, given their bounds."""
    lower, upper = np.minimum(bounds[:-1], bounds[1:]), np.maximum(bounds[:-1], bounds[1:])
    overlap = np.minimum(high[:, None], upper) - np.maximum(low[:, None], lower)
    length = (high - low)[:, None]
    share = np.clip(overlap, 0.0, None) / np.where(length > 0, length, np.inf)
    return np.where(share > _SLIVER, share, 0.0)


def _longitude_bounds(grid: Grid) -> Floats:
    lon = grid.unwrapped_longitude
    if not grid.is_periodic:
        return bounds_of(lon)
    first = (lon[0] + lon[-1] - 360.0) / 2
    return np.concatenate([[first], first + np.cumsum(grid.longitude_widths)])


def _overlap(source: Floats, target: Floats) -> Any:
    """Return the shares (m, n) of m target intervals within n source intervals, given bounds."""
    edges = np.unique(np.concatenate([source, target]))
    middle, length = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    at = []
    for bounds in (target, source):
        descending = bounds[0] > bounds[-1]
        k = np.searchsorted(bounds[::-1] if descending else bounds, middle, side="right") - 1
        inside = (k >= 0) & (k < bounds.size - 1)
        at.append(np.where(inside, bounds.size - 2 - k if descending else k, -1))
    share = length / np.abs(np.diff(target))[at[0]]
    keep = (at[0] >= 0) & (at[1] >= 0) & (share > _SLIVER)
    shape = (target.size - 1, source.size - 1)
    return scipy.sparse.csr_array((share[keep], (at[0][keep], at[1][keep])), shape=shape)


def _xesmf_weights(source: Grid, target: Grid, name: str) -> Any:
    xesmf = require("xesmf", f"regridding by the method 'xesmf:{name}'")
    grids = []
    for grid in (source, target):
        coords = {"lat": grid.latitude, "lon": grid.unwrapped_longitude}
        bounds = {"lat_b": grid.latitude_bounds, "lon_b": _longitude_bounds(grid)}
        grids.append(xr.Dataset(coords=coords | bounds))
    made = xesmf.Regridder(*grids, name, periodic=source.is_periodic, unmapped_to_nan=False)
    return scipy.sparse.csr_array(made.weights.data.to_scipy_sparse())


def build_weights(source: Grid, target: Grid, method: str) -> Any:
    """Return the weights of a method by name; see `xappa.regrid.Regridder.build`."""
    if method == "bilinear":
        lat, lon = np.meshgrid(target.latitude, target.longitude, indexing="ij")
        return bilinear_weights(source, lat, lon)
    if method == "conservative":
        return conservative_weights(source, target)
    if isinstance(method, str) and method.startswith("xesmf:"):
        return _xesmf_weights(source, target, method.removeprefix("xesmf:"))
    raise ArgumentError(
        "unknown method of regridding",
        where="method=",
        expected="'bilinear', 'conservative', or 'xesmf:<method>' such as 'xesmf:patch'",
        got=repr(method),
        remedy="choose one of these",
    )
