r"""Interpolation as sparse rows: one row per observation and input of its operator.

A row gives the value of one state variable x at the place and time of one observation,

.. math:: h_i = \sum_j w_{ij}\, x[t_{ij}, s_{ij}],

with time index t and index s into the raveled (channel, latitude, longitude). The weights are
products of three linear interpolations: bilinear on the sphere (from `Grid.interpolate`), linear
in the logarithm of pressure between levels, and linear in time between states. Each of the three
sums to one, so that a constant is reproduced exactly; entries of weight zero are dropped, so that
an observation on a grid point reads that grid point alone, whatever its neighbours hold.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xappa.cf import PRESSURE, SIGMA
from xappa.observe.footprint import area_weights, interval_weights
from xappa.observe.spec import Status

if TYPE_CHECKING:
    import scipy.sparse

    from xappa.bridge import StateSpec, VariableSpec
    from xappa.grid import Grid
    from xappa.observe.footprint import Footprint
    from xappa.observe.spec import ObservationSpec

__all__ = ["Rows", "interpolate_levels", "interpolate_times", "interpolation_rows"]

NEGLIGIBLE = 1e-9
"""Weights below this come from rounding of coordinates: they are set to zero."""
TIME_TOLERANCE = 0.5
"""Seconds by which an observation may lie outside the window, or off the only state."""
ROUNDING = 1e-6
"""Relative difference of pressure, or weight in a linear interpolation, that counts as none: a
pressure in float32 hPa is off by 6e-8, its weight between levels by up to ten times as much."""
BLOCK = 1 << 17
"""Observations whose weights are multiplied out at a time, which bounds memory."""

Linear = tuple[np.ndarray, np.ndarray, np.ndarray]  # index (n, k), weight (n, k), inside (n,)


@dataclass(frozen=True, eq=False)
class Rows:
    """A sparse matrix (n_rows, T * channel * latitude * longitude) in compressed rows.

    Parameters
    ----------
    shape
        (T, channel, latitude, longitude) of the trajectory.
    indptr
        (n_rows + 1,) int64, where each row's entries begin.
    indices
        (nnz,) int64, into the raveled trajectory.
    data
        (nnz,) float64, the weights.
    """

    shape: tuple[int, int, int, int]
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def state_size(self) -> int:
        """Number of elements of one state: channel * latitude * longitude."""
        return int(np.prod(self.shape[1:]))

    @property
    def counts(self) -> np.ndarray:
        """(n_rows,) number of entries of each row."""
        return np.diff(self.indptr)

    def sums(self, entries: np.ndarray) -> np.ndarray:
        """Sum values of the entries, shape (nnz,), over each row: (n_rows,) float64."""
        row = np.repeat(np.arange(self.n_rows), self.counts)
        return np.bincount(row, entries, minlength=self.n_rows).astype(np.float64)

    @functools.cached_property
    def _padded(self) -> tuple[np.ndarray, np.ndarray]:
        counts = self.counts
        slots = np.arange(counts.max(initial=0))
        filled = slots < counts[:, None]
        # unused slots repeat the row's first entry with weight zero, so they never meet a NaN
        indices = np.repeat(
            self.indices[self.indptr[:-1]][:, None] if len(counts) else np.zeros((0, 1), np.int64),
            len(slots),
            axis=1,
        )
        weights = np.zeros(filled.shape)
        indices[filled], weights[filled] = self.indices, self.data
        return indices, weights

    @property
    def index_time(self) -> np.ndarray:
        """(n_rows, k) int64, time index of each entry, padded to the longest row."""
        return np.asarray(self._padded[0] // self.state_size)

    @property
    def index_state(self) -> np.ndarray:
        """(n_rows, k) int64, index into the raveled (channel, latitude, longitude), padded."""
        return np.asarray(self._padded[0] % self.state_size)

    @property
    def weight(self) -> np.ndarray:
        """(n_rows, k) float64, weights; zero in the padding."""
        return self._padded[1]

    def matrix(self) -> scipy.sparse.csr_array:
        """Return the same as a scipy sparse array (n_rows, T * channel * latitude * longitude)."""
        import scipy.sparse

        shape = (self.n_rows, self.shape[0] * self.state_size)
        return scipy.sparse.csr_array((self.data, self.indices, self.indptr), shape=shape)

    @classmethod
    def concatenate(cls, parts: Sequence[Rows], shape: tuple[int, int, int, int]) -> Rows:
        """Put rows one after another; no parts give no rows."""
        if len(parts) == 1:
            return parts[0]
        counts = [np.zeros(1, np.int64), *(part.counts for part in parts)]
        return cls(
            shape,
            np.cumsum(np.concatenate(counts)),
            np.concatenate([np.zeros(0, np.int64), *(part.indices for part in parts)]),
            np.concatenate([np.zeros(0), *(part.data for part in parts)]),
        )


def interpolate_times(time: np.ndarray, times: np.ndarray, has_time: bool = True) -> Linear:
    """Return weights of linear interpolation between states.

    Parameters
    ----------
    time
        (n,) seconds, of the observations.
    times
        (T,) seconds, strictly increasing, of the states; one NaN if the state has no time.
    has_time
        False if the observations have no time and belong to the only state.

    Returns
    -------
    index, weight : (n, 1 or 2)
    inside : (n,) bool

    Examples
    --------
    >>> interpolate_times(np.array([2700.0]), np.array([0.0, 3600.0]))[1]
    array([[0.25, 0.75]])
    """
    if len(times) == 1:
        near = np.abs(time - times[0]) <= TIME_TOLERANCE
        inside = near | (not has_time) | bool(np.isnan(times[0]))
        return np.zeros((time.size, 1), np.int64), np.ones((time.size, 1)), inside
    inside = (time >= times[0] - TIME_TOLERANCE) & (time <= times[-1] + TIME_TOLERANCE)
    return (*_between(np.where(inside, time, times[0]), times), inside)


def interpolate_levels(
    pressure: np.ndarray, levels: Sequence[float], *, logarithmic: bool = True
) -> Linear:
    """Return weights of linear interpolation in the logarithm of pressure.

    Parameters
    ----------
    pressure
        (n,) Pa, or values of another vertical coordinate.
    levels
        (L,) the same, in any order; the indices refer to this order.
    logarithmic
        Whether to interpolate in the logarithm; level numbers are taken as they are.

    Returns
    -------
    index, weight : (n, 1 or 2)
    inside : (n,) bool
        Between the lowest and the highest level.

    Examples
    --------
    >>> interpolate_levels(np.array([3e4]), [9e4, 1e4])[1]
    array([[0.5, 0.5]])
    """
    order = np.argsort(levels)
    levels_up = np.asarray(levels, dtype=np.float64)[order]
    margin = ROUNDING * np.abs(levels_up).max() if not logarithmic else 0.0
    low, high = levels_up[0] * (1 - ROUNDING) - margin, levels_up[-1] * (1 + ROUNDING) + margin
    inside = (pressure >= low) & (pressure <= high)
    if len(levels_up) == 1:
        return np.zeros((pressure.size, 1), np.int64), np.ones((pressure.size, 1)), inside
    known = np.where(inside, pressure, levels_up[0])
    if logarithmic:
        known, levels_up = np.log(known), np.log(levels_up)
    index, weight = _between(known, levels_up)
    return order[index], weight, inside


def _between(x: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and weights of the two nodes around each x; x beyond the ends is clamped."""
    left = np.clip(np.searchsorted(nodes, x, side="right") - 1, 0, len(nodes) - 2)
    right = np.clip((x - nodes[left]) / (nodes[left + 1] - nodes[left]), 0.0, 1.0)
    right[right < ROUNDING] = 0.0
    right[right > 1 - ROUNDING] = 1.0
    return np.stack([left, left + 1], axis=1), np.stack([1 - right, right], axis=1)


def interpolation_rows(
    spec: ObservationSpec, state: StateSpec, times: np.ndarray, select: np.ndarray
) -> tuple[np.ndarray, Rows]:
    """Return rows of some observations of one array.

    Parameters
    ----------
    spec
        The observations.
    state
        The state's variables and grid.
    times
        (T,) seconds, of the trajectory.
    select
        (m,) int64, which observations.

    Returns
    -------
    status : (m,) int8
        USED where the observation lies inside domain, levels and window.
    rows
        Of the observations inside, for each input of the operator in turn (input-major), and for
        each of its levels where it is taken as a column, or each time of which an extreme is taken.
    """
    shape = (len(times), state.n_channels, *state.grid.shape)
    latitude, longitude = spec.latitude[select], spec.longitude[select]
    footprint = None if spec.footprint is None else spec.footprint.take(select)
    temporal = _temporal(spec, footprint, times, select)
    columns = spec.columns or (False,) * len(spec.inputs)
    vertical: list[Linear] = []
    for variable, column in zip(spec.inputs, columns, strict=True):
        whole = column and variable.levels is not None
        vertical += (
            _column(variable, state, select)
            if whole
            else [_vertical(variable, state, spec, select)]
        )
    status = np.zeros(select.size, np.int8)
    for moment in temporal:
        status[~moment[2]] = Status.OUTSIDE_WINDOW
    for level in vertical:
        status[~level[2]] = Status.OUTSIDE_LEVELS
    beyond = _poleward(state.grid, latitude)
    layers = [(moment, level) for level in vertical for moment in temporal]
    parts: list[list[Rows]] = [[] for _ in layers]
    inverse = np.empty(select.size, np.int64)  # place of each observation in the order of parts
    done = 0
    # rows beyond the last circle of latitude are as long as that circle: they go by themselves
    for block in _blocks(np.flatnonzero(~beyond)) + _blocks(np.flatnonzero(beyond), 512):
        if footprint is not None and footprint.has_area:
            index, weight, inside = area_weights(
                state.grid, latitude[block], longitude[block], footprint.take(block)
            )
        else:
            index, weight, inside = state.grid.interpolate(latitude[block], longitude[block])
        status[block[~inside]] = Status.OUTSIDE_DOMAIN
        keep = status[block] == Status.USED
        chosen, horizontal = block[keep], _snapped(index[keep], weight[keep])
        inverse[chosen] = np.arange(done, done + chosen.size)
        done += chosen.size
        for part, (moment, level) in zip(parts, layers, strict=True):
            at_time, at_level = _take(moment, chosen), _take(level, chosen)
            part.append(_multiply_out(shape, at_time, at_level, horizontal))
    order = inverse[status == Status.USED]
    ordered = [_reordered(Rows.concatenate(part, shape), order) for part in parts]
    return status, Rows.concatenate(ordered, shape)


def _temporal(
    spec: ObservationSpec, footprint: Footprint | None, times: np.ndarray, select: np.ndarray
) -> list[Linear]:
    """Return weights of the states: one list, or one for each time of which an extreme is taken."""
    if footprint is None or footprint.interval is None:
        return [interpolate_times(spec.time[select], times, spec.has_time)]
    if footprint.is_extreme:
        return [interpolate_times(node, times) for node in footprint.at_nodes(times)]
    return [interval_weights(footprint.interval, times, footprint.method)]


def _column(variable: VariableSpec, state: StateSpec, select: np.ndarray) -> list[Linear]:
    """Return channel indices of each level of one input."""
    first = state.slice_of(variable.name).start
    one, inside = np.ones((select.size, 1)), np.ones(select.size, bool)
    levels = range(len(variable.levels or ()))
    return [(np.full((select.size, 1), first + k, np.int64), one, inside) for k in levels]


def _vertical(
    variable: VariableSpec, state: StateSpec, spec: ObservationSpec, select: np.ndarray
) -> Linear:
    """Return channel indices and weights of one input."""
    first = state.slice_of(variable.name).start
    at = spec.pressure if variable.vertical == PRESSURE else spec.level
    if variable.levels is None or at is None:
        index = np.full((select.size, 1), first, np.int64)
        return index, np.ones((select.size, 1)), np.ones(select.size, bool)
    logarithmic = variable.vertical in (PRESSURE, SIGMA)
    at, levels = at[select], np.asarray(variable.levels)
    if spec.extrapolates:  # not where it is not known
        at = np.clip(at, levels.min(), levels.max())
    index, weight, inside = interpolate_levels(at, variable.levels, logarithmic=logarithmic)
    return first + index, weight, inside


def _poleward(grid: Grid, latitude: np.ndarray) -> np.ndarray:
    if not grid.is_periodic:
        return np.zeros(latitude.shape, bool)
    return np.asarray((latitude > grid.latitude.max()) | (latitude < grid.latitude.min()))


def _blocks(index: np.ndarray, size: int = BLOCK) -> list[np.ndarray]:
    return [index[i : i + size] for i in range(0, index.size, size)]


def _take(linear: Linear, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return linear[0][chosen], linear[1][chosen]


def _snapped(index: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop weights that are rounding only, and let the rest of the row sum to one again."""
    small = (weight < NEGLIGIBLE) & (weight != 0)
    touched = small.any(axis=1)
    if touched.any():
        kept = np.where(small[touched], 0.0, weight[touched])
        weight = weight.copy()
        weight[touched] = kept / kept.sum(axis=1, keepdims=True)
    return index, weight


def _multiply_out(
    shape: tuple[int, int, int, int],
    temporal: tuple[np.ndarray, np.ndarray],
    vertical: tuple[np.ndarray, np.ndarray],
    horizontal: tuple[np.ndarray, np.ndarray],
) -> Rows:
    """Return the product of three interpolations, without entries of weight zero."""
    n, plane = len(horizontal[0]), shape[2] * shape[3]
    channel = (temporal[0] * shape[1])[:, :, None] + vertical[0][:, None, :]
    factor = temporal[1][:, :, None] * vertical[1][:, None, :]
    layers = channel.shape[1] * channel.shape[2]
    index = channel.reshape(n, layers, 1) * plane + horizontal[0][:, None, :]
    weight = factor.reshape(n, layers, 1) * horizontal[1][:, None, :]
    kept = weight != 0
    if kept.all():
        indptr = np.arange(n + 1) * (weight.size // max(n, 1))
        return Rows(shape, indptr, index.reshape(-1), weight.reshape(-1))
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept.sum(axis=(1, 2)))])
    return Rows(shape, indptr, index[kept], weight[kept])


def _reordered(rows: Rows, order: np.ndarray) -> Rows:
    """Return rows in another order."""
    if np.array_equal(order, np.arange(rows.n_rows)):
        return rows
    counts = rows.counts[order]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    entry = np.arange(indptr[-1]) - np.repeat(indptr[:-1], counts)
    entry += np.repeat(rows.indptr[order], counts)
    return Rows(rows.shape, indptr, rows.indices[entry], rows.data[entry])
