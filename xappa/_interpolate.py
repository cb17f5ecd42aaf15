r"""Weights of bilinear interpolation on a rectilinear grid of the sphere.

A point between the rows :math:`j, j+1` and the columns :math:`i, i+1`, with fractions
:math:`s` and :math:`r`, has the weights :math:`(1-s)(1-r), (1-s)r, s(1-r), sr`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from xappa.grid import Grid

__all__ = ["bilinear"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

# degrees by which a point may miss the outermost row: coordinates stored as float32 do
_EDGE = 1e-6
# fractions this close to a grid point are on it: the rounding of (lon - lon0) mod 360
_SNAP = 1e-9


def bilinear(
    grid: Grid, latitude: npt.ArrayLike, longitude: npt.ArrayLike
) -> tuple[Integers, Floats, Booleans]:
    """Return (index, weight, inside) for points; see `xappa.grid.Grid.interpolate`."""
    lat = np.ravel(np.asarray(latitude, dtype=np.float64))
    lon = np.ravel(np.asarray(longitude, dtype=np.float64))
    valid = np.isfinite(lat) & np.isfinite(lon) & (np.abs(lat) <= 90.0 + _EDGE)
    lat, lon = np.where(valid, lat, grid.latitude[0]), np.where(valid, lon, grid.longitude[0])
    row0, row1, s, inside_lat, polar = _rows(grid, lat)
    col0, col1, r, inside_lon = _columns(grid, lon)
    inside = valid & inside_lat & inside_lon
    n_lon = grid.longitude.size
    index = np.stack(
        [row0 * n_lon + col0, row0 * n_lon + col1, row1 * n_lon + col0, row1 * n_lon + col1],
        axis=1,
    )
    weight = np.stack([(1 - s) * (1 - r), (1 - s) * r, s * (1 - r), s * r], axis=1)
    polar &= inside
    if polar.any():
        index, weight = _with_poles(grid, lat, polar, (col0, col1, r), index, weight)
    weight[~inside] = 0.0
    index[~inside] = 0
    return index, weight, inside


def _bracket(ascending: Floats, x: Floats) -> tuple[Integers, Floats]:
    """Return the interval of each x, and the fraction within it (beyond [0, 1] outside)."""
    j = np.clip(np.searchsorted(ascending, x, side="right") - 1, 0, ascending.size - 2)
    fraction = (x - ascending[j]) / (ascending[j + 1] - ascending[j])
    fraction = np.where(np.abs(fraction) < _SNAP, 0.0, fraction)
    return j.astype(np.int64), np.where(np.abs(fraction - 1) < _SNAP, 1.0, fraction)


def _rows(grid: Grid, lat: Floats) -> tuple[Integers, Integers, Floats, Booleans, Booleans]:
    """Return rows on both sides, fraction, whether inside, whether beyond the last row."""
    n = grid.latitude.size
    descending = n > 1 and grid.latitude[0] > grid.latitude[-1]
    ascending = grid.latitude[::-1] if descending else grid.latitude
    beyond = (lat > ascending[-1] + _EDGE) | (lat < ascending[0] - _EDGE)
    polar = beyond & grid.is_periodic
    if n == 1:
        zero = np.zeros(lat.size, dtype=np.int64)
        return zero, zero, np.zeros(lat.size), ~beyond | polar, polar
    j, s = _bracket(ascending, lat)
    s = np.clip(s, 0.0, 1.0)
    low, high = (n - 1 - j, n - 2 - j) if descending else (j, j + 1)
    return low, high, s, ~beyond | polar, polar


def _columns(grid: Grid, lon: Floats) -> tuple[Integers, Integers, Floats, Booleans]:
    """Return columns on both sides, fraction, whether inside."""
    n = grid.longitude.size
    east = grid.unwrapped_longitude - grid.longitude[0]
    # slightly west of the first meridian shall be -epsilon, not 360 - epsilon
    x = np.mod(lon - grid.longitude[0] + _EDGE, 360.0) - _EDGE
    inside = grid.is_periodic | (x <= east[-1] + _EDGE)
    if n == 1:
        zero = np.zeros(lon.size, dtype=np.int64)
        return zero, zero, np.zeros(lon.size), inside
    around = np.append(east, 360.0) if grid.is_periodic else east
    i, r = _bracket(around, x)
    return i, (i + 1) % n, np.clip(r, 0.0, 1.0), inside


def _with_poles(
    grid: Grid,
    lat: Floats,
    polar: Booleans,
    columns: tuple[Integers, Integers, Floats],
    index: Integers,
    weight: Floats,
) -> tuple[Integers, Floats]:
    """Give points beyond the last row the weights of that row and of its zonal mean."""
    col0, col1, r = columns[0][polar], columns[1][polar], columns[2][polar]
    points = lat[polar]
    n_lon = grid.longitude.size
    north = points > 0
    last_north, last_south = int(grid.latitude.argmax()), int(grid.latitude.argmin())
    row = np.where(north, last_north, last_south)
    edge = np.abs(grid.latitude[row])
    fraction = np.clip((np.abs(points) - edge) / (90.0 - edge), 0.0, 1.0)
    k = max(n_lon, index.shape[1])
    padded_index = np.zeros((index.shape[0], k), dtype=np.int64)
    padded_weight = np.zeros((index.shape[0], k))
    padded_index[:, : index.shape[1]], padded_weight[:, : index.shape[1]] = index, weight
    zonal = grid.longitude_widths / grid.longitude_widths.sum()
    polar_weight = np.zeros((row.size, k))
    polar_weight[:, :n_lon] = fraction[:, None] * zonal[None, :]
    each = np.arange(row.size)
    np.add.at(polar_weight, (each, col0), (1 - fraction) * (1 - r))
    np.add.at(polar_weight, (each, col1), (1 - fraction) * r)
    polar_index = np.zeros((row.size, k), dtype=np.int64)
    polar_index[:, :n_lon] = row[:, None] * n_lon + np.arange(n_lon)[None, :]
    padded_index[polar], padded_weight[polar] = polar_index, polar_weight
    return padded_index, padded_weight
