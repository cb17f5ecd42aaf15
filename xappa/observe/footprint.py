r"""Observations that are means over an area or an interval, and their weights.

Over an interval :math:`[a, b]` a state that is linear in time between its valid times has the mean

.. math:: \frac{1}{b - a} \int_a^b x(t) \, \mathrm{d} t = \sum_k w_k x_k ,

and a state that is itself the amount of the step before its valid time (precipitation) has the sum
of the steps, each by the share that lies inside. The maximum (minimum) is that of the states within
the interval and of the values at its ends.

Over a cell between parallels and meridians the weights are the shares of the area that grid cells
cover, as in conservative regridding. Over a cap (a footprint of some radius) and over a
quadrilateral (a pixel with four corners) they are the mean of the bilinear weights of points that
are spread evenly over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from xappa.grid import EARTH_RADIUS, Grid
from xappa.regrid.weights import TOLERANCE, cell_weights

__all__ = ["EXTREMES", "Footprint", "area_weights", "interval_weights"]

EXTREMES = ("maximum", "minimum")
"""Methods that are not linear: the operator takes them of several rows of each observation."""

#: Index (n, k), weight (n, k), inside (n,).
Linear = tuple[np.ndarray, np.ndarray, np.ndarray]

_LEAST_POINTS = 37
_MOST_POINTS = 5000
#: Points of a cap for each square of the grid's spacing.
_DENSITY = 4.0
_QUAD = 6
#: Seconds by which an interval may reach beyond the states.
_SECOND = 1.0
#: What of a `Footprint` has a row for each observation.
_ARRAYS = ("interval", "box", "radius", "corners", "weights")


@dataclass(frozen=True, eq=False)
class Footprint:
    """Over what each of n observations is a mean; None where it is a value at a point.

    Parameters
    ----------
    interval
        (n, 2) seconds, beginning and end.
    method
        ``"mean"``, ``"sum"``, ``"maximum"`` or ``"minimum"``, over the interval.
    nodes
        For extremes, at how many times of the interval the state is looked at; else 1.
    box
        (n, 4) degrees: south, north, west, east.
    radius
        (n,) metres, of a cap around the position.
    corners
        (n, v, 2) degrees, latitude and longitude of the corners of a pixel, in order.
    weights
        (n, grid.size) weights of regridding, as they were given.
    """

    interval: np.ndarray | None = None
    method: str = "mean"
    box: np.ndarray | None = None
    radius: np.ndarray | None = None
    corners: np.ndarray | None = None
    nodes: int = 1
    weights: scipy.sparse.csr_array | None = None

    @property
    def is_extreme(self) -> bool:
        """Whether it is a maximum or minimum, which is not linear."""
        return self.interval is not None and self.method in EXTREMES

    def at_nodes(self, times: np.ndarray) -> np.ndarray:
        """Return the times (nodes, n) in seconds at which extremes look at the state.

        They are the ends of each interval and the states' times (T,) within it: between them the
        state is linear. Shorter intervals repeat their end.
        """
        if self.interval is None:
            raise ValueError("the footprint has no interval")
        begin, end = self.interval.T
        first = np.searchsorted(times, begin, side="right")
        padded = np.append(times, np.inf)
        inner = [
            np.minimum(padded[np.minimum(first + k, len(times))], end)
            for k in range(self.nodes - 2)
        ]
        return np.stack([begin, *inner, end])

    @property
    def has_area(self) -> bool:
        """Whether it extends in space."""
        return any(part is not None for part in (self.box, self.radius, self.corners, self.weights))

    def take(self, select: np.ndarray) -> Footprint:
        """Return the footprint of some observations."""
        parts = {name: getattr(self, name) for name in _ARRAYS}
        taken = {name: None if part is None else part[select] for name, part in parts.items()}
        return Footprint(method=self.method, nodes=self.nodes, **taken)

    def describe(self) -> str:
        """Return what it is in words, for reports."""
        said = []
        if self.interval is not None and len(self.interval):
            hours = np.unique(np.round(np.diff(self.interval)[:, 0] / 3600, 2))
            span = f"{hours[0]:g} h" if len(hours) == 1 else f"{hours[0]:g} to {hours[-1]:g} h"
            said.append(f"{self.method} over {span}")
        if self.radius is not None and len(self.radius):
            said.append(f"mean over caps of {np.nanmedian(self.radius) / 1000:g} km")
        if self.box is not None:
            said.append("mean over cells")
        if self.corners is not None:
            said.append("mean over pixels")
        if self.weights is not None:
            said.append("regridded by weights of its own")
        return ", ".join(said)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        from dask.base import normalize_token

        parts = [getattr(self, name) for name in _ARRAYS]
        return ("xappa.Footprint", self.method, self.nodes, normalize_token(parts))


def interval_weights(interval: np.ndarray, times: np.ndarray, method: str) -> Linear:
    """Return weights of means or sums over intervals of time.

    Parameters
    ----------
    interval
        (n, 2) seconds, beginning and end.
    times
        (T,) seconds of the states, T >= 2, strictly increasing.
    method
        ``"mean"`` of a state that is linear in time, or ``"sum"`` of amounts of steps.

    Returns
    -------
    index, weight : (n, k)
    inside : (n,) bool

    Examples
    --------
    >>> interval_weights(np.array([[0.0, 2.0]]), np.array([0.0, 1.0, 2.0]), "mean")[1]
    array([[0.25, 0.5 , 0.25]])
    """
    both, back = np.unique(interval, axis=0, return_inverse=True)
    weights = [_of_interval(a, b, times, method) for a, b in both]
    slots = max((np.count_nonzero(w) for w in weights), default=1)
    index = np.zeros((len(both), max(1, slots)), np.int64)
    weight = np.zeros(index.shape)
    for k, w in enumerate(weights):
        used = np.flatnonzero(w)
        index[k, : len(used)], weight[k, : len(used)] = used, w[used]
        index[k, len(used) :] = used[0] if len(used) else 0
    inside = np.array([w.any() for w in weights], bool)
    back = back.reshape(-1)
    return index[back], weight[back], inside[back]


def _of_interval(begin: float, end: float, times: np.ndarray, method: str) -> np.ndarray:
    """Weights (T,) of one interval; zeros if it does not lie within the states."""
    nothing = np.zeros(len(times))
    if not end > begin:
        return nothing
    if method == "sum":
        if len(times) < 2:
            return nothing
        edges = np.concatenate([[2 * times[0] - times[1]], times])
        if begin < edges[0] - _SECOND or end > edges[-1] + _SECOND:
            return nothing
        share = np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1])
        shares: np.ndarray = np.clip(share, 0, None) / np.diff(edges)
        return shares
    if begin < times[0] - _SECOND or end > times[-1] + _SECOND:
        return nothing
    begin, end = max(begin, times[0]), min(end, times[-1])
    # the integral of a hat function is quadratic between nodes: take it at the nodes and the ends
    nodes = np.unique(np.concatenate([times[(times > begin) & (times < end)], [begin, end]]))
    hats = np.stack([np.interp(nodes, times, unit) for unit in np.eye(len(times))])
    integral: np.ndarray = np.trapezoid(hats, nodes, axis=1) / (end - begin)
    return integral


def area_weights(
    grid: Grid, latitude: np.ndarray, longitude: np.ndarray, footprint: Footprint
) -> Linear:
    """Return weights of means over areas.

    Parameters
    ----------
    grid
        The grid of the state.
    latitude, longitude
        (n,) degrees, the centres of caps.
    footprint
        Of the n observations; it has an area.

    Returns
    -------
    index, weight : (n, k)
        Rows sum to one where the area lies within the grid.
    inside : (n,) bool
    """
    if footprint.weights is not None:
        return _padded(footprint.weights)
    if footprint.box is not None:
        return _padded(cell_weights(grid, footprint.box))
    if footprint.corners is not None:
        return _padded(_mean_of_points(grid, *_in_quadrilaterals(footprint.corners)))
    if footprint.radius is None:
        raise ValueError("the footprint has no area")
    order = np.argsort(footprint.radius, kind="stable")
    parts = []
    for group in np.split(order, np.flatnonzero(np.diff(footprint.radius[order])) + 1):
        radius = float(footprint.radius[group[0]]) if group.size else 0.0
        points = _in_cap(latitude[group], longitude[group], radius, grid)
        parts.append(_mean_of_points(grid, *points))
    matrix = scipy.sparse.vstack(parts, format="csr")[np.argsort(order, kind="stable")]
    return _padded(matrix)


def _mean_of_points(
    grid: Grid, latitude: np.ndarray, longitude: np.ndarray
) -> scipy.sparse.csr_array:
    """Mean of bilinear weights of points (n, p): (n, grid.size); empty where one is outside."""
    n, p = latitude.shape
    index, weight, inside = grid.interpolate(latitude.ravel(), longitude.ravel())
    whole = np.repeat(inside.reshape(n, p).all(axis=1), p)
    weight = np.where(whole[:, None], weight / p, 0.0)
    row = np.repeat(np.arange(n * p) // p, index.shape[1])
    matrix = scipy.sparse.coo_array((weight.ravel(), (row, index.ravel())), (n, grid.size))
    return scipy.sparse.csr_array(matrix)


def _in_cap(
    latitude: np.ndarray, longitude: np.ndarray, radius: float, grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, p) spread evenly, on a spiral, over caps around n places."""
    spacing = np.radians(np.abs(np.diff(grid.latitude)).mean()) * EARTH_RADIUS
    p = int(np.clip(_DENSITY * np.pi * (radius / spacing) ** 2, _LEAST_POINTS, _MOST_POINTS))
    k = np.arange(p) + 0.5
    angle = np.arccos(1 - (1 - np.cos(radius / EARTH_RADIUS)) * k / p)  # equal areas
    bearing = np.pi * (1 + 5**0.5) * k
    phi, lam = np.radians(latitude)[:, None], np.radians(longitude)[:, None]
    sine = np.sin(phi) * np.cos(angle) + np.cos(phi) * np.sin(angle) * np.cos(bearing)
    east = np.sin(bearing) * np.sin(angle) * np.cos(phi)
    out = lam + np.arctan2(east, np.cos(angle) - np.sin(phi) * sine)
    return np.degrees(np.arcsin(np.clip(sine, -1, 1))), np.degrees(out)


def _in_quadrilaterals(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, p) spread evenly over pixels, in the bilinear coordinates of four corners."""
    lat, lon = corners[..., 0], corners[..., 1]
    lon = lon[:, :1] + (lon - lon[:, :1] + 180.0) % 360.0 - 180.0  # across the seam
    s = (np.arange(_QUAD) + 0.5) / _QUAD
    a, b = (x.ravel() for x in np.meshgrid(s, s))
    shape = np.stack([(1 - a) * (1 - b), a * (1 - b), a * b, (1 - a) * b])
    return lat @ shape, lon @ shape


def _padded(matrix: scipy.sparse.csr_array) -> Linear:
    """Return rows as index and weight (n, k), padded with zeros; inside if they sum to one."""
    matrix = scipy.sparse.csr_array(matrix)
    matrix.sum_duplicates()
    counts = np.diff(matrix.indptr)
    slots = np.arange(max(1, counts.max(initial=1)))
    filled = slots < counts[:, None]
    index, weight = np.zeros(filled.shape, np.int64), np.zeros(filled.shape)
    index[filled], weight[filled] = matrix.indices, matrix.data
    total = weight.sum(axis=1)
    inside = total > 1 - TOLERANCE
    return index, weight / np.where(inside, total, 1.0)[:, None], inside
