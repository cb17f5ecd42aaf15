"""What metadata say of the areas and intervals that observations are means of.

``cell_methods`` says over what (``time: mean``, ``area: mean``); the bounds of the coordinates say
how far: two sides, four corners of a pixel, or any other polygon, of which the cell around it is
taken. Where an array has no bounds, attributes may: ``xappa_interval`` (such as ``"6h"``: up to
the time of the observation) and ``xappa_footprint_radius`` (metres, or the name of a coordinate).
``xappa_weights`` names variables of the Dataset (``"S row col src_lat src_lon"``, as in files of
weights): any sparse map from the state's grid to the places of the observations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import xarray as xr

from xappa import units
from xappa.cf import Axes, convert_calendar, timedelta_seconds, to_seconds
from xappa.errors import CoordinateError, UnitsError
from xappa.grid import Grid
from xappa.observe.ancillary import on_elements
from xappa.observe.containers import Found
from xappa.observe.footprint import EXTREMES, Footprint
from xappa.regrid.weights import longitude_bounds

if TYPE_CHECKING:
    from xappa.bridge import StateSpec

__all__ = ["Extent", "read_footprint"]

INTERVAL, RADIUS = "xappa_interval", "xappa_footprint_radius"
WEIGHTS = "xappa_weights"
#: Share of a cell by which its label may lie outside, where it was stored with fewer digits.
_ROUNDING = 1e-3
_OVER_TIME = ("mean", "sum", "maximum", "minimum")
_OTHERS = ("median", "mid_range", "range", "standard_deviation", "variance")


@dataclass(frozen=True)
class Extent:
    """What was understood: a footprint or None for points, and what was guessed."""

    footprint: Footprint | None
    guesses: tuple[str, ...] = ()


def read_footprint(
    found: Found,
    axes: Axes,
    time: np.ndarray,
    state: StateSpec,
) -> Extent:
    """Read over what the elements of an array are means.

    Parameters
    ----------
    found
        The array and its Dataset.
    axes
        Its coordinates.
    time
        (n,) seconds of its elements, in the state's calendar.
    state
        Gives calendar, time step and grid.

    Raises
    ------
    CoordinateError
        If bounds do not fit the coordinate, or an interval or radius cannot be read.
    """
    array = found.array
    said = str(array.attrs.get("cell_methods", ""))
    methods = parse_methods(said)
    over_time = methods.get("time") or methods.get(str(axes.time))
    over_area = methods.get("area") or methods.get(str(axes.latitude)) or methods.get("latitude")
    extreme = over_time in EXTREMES
    several = " " in f"{over_time or ''}{over_area or ''}"
    if several or over_time in _OTHERS or over_area in (*_OTHERS, *EXTREMES, "sum"):
        return Extent(None, (f"cell_methods {said!r}: compared with point values",))
    interval = None
    if over_time in _OVER_TIME or (INTERVAL in array.attrs and over_time != "point"):
        interval = _interval(found, axes, time, state.calendar)
    area: dict[str, Any] = {}
    if WEIGHTS in array.attrs:
        area = {"weights": _weights(found, axes, state.grid)}
    elif over_area == "mean" or RADIUS in array.attrs:
        area = _area(found, axes)
    lost = [
        name
        for name, wanted, got in (
            ("time", over_time in _OVER_TIME, interval is not None),
            ("area", over_area == "mean", bool(area)),
        )
        if wanted and not got
    ]
    guesses = [
        f"cell_methods {said!r} without bounds: compared with values at points of " + n
        for n in lost
    ]
    if interval is None and not area:
        return Extent(None, tuple(guesses))
    method = over_time if over_time in _OVER_TIME else "mean"
    nodes = _nodes(interval, state.time_step) if extreme and interval is not None else 1
    footprint = Footprint(interval=interval, method=str(method), nodes=nodes, **area)
    return Extent(footprint, tuple(guesses))


def _nodes(interval: np.ndarray, step: float | None) -> int:
    """At how many times of an interval the state is looked at: its ends, and all states within."""
    longest = float(np.nanmax(np.diff(interval), initial=0.0))
    return 2 + int(np.ceil(longest / step - 1e-6)) if step else 2


def parse_methods(said: str) -> dict[str, str]:
    """Return the method of each dimension in an attribute ``cell_methods``.

    >>> parse_methods("time: mean (interval: 1 h) latitude: longitude: mean where land")
    {'time': 'mean', 'latitude': 'mean', 'longitude': 'mean'}
    >>> parse_methods("time: maximum within days time: mean over days")
    {'time': 'maximum mean'}
    """
    methods: dict[str, str] = {}
    bare = re.sub(r"\([^)]*\)", " ", said)
    for names, method in re.findall(r"((?:[\w.]+\s*:\s*)+)(\w+)", bare):
        for name in re.findall(r"[\w.]+", names):
            # of several one after the other, such as means of maxima, there is no operator
            methods[name] = f"{methods[name]} {method}" if name in methods else method
    return methods


def _interval(found: Found, axes: Axes, time: np.ndarray, calendar: str) -> np.ndarray | None:
    attrs = found.array.attrs
    if INTERVAL in attrs:
        try:
            seconds = timedelta_seconds(attrs[INTERVAL])
            if not seconds > 0:
                raise ValueError("it is not positive")
        except Exception as error:
            raise CoordinateError(
                "the interval of the observations cannot be read",
                where=f"{found.where}, attribute {INTERVAL}",
                expected="a duration such as '6h'",
                got=repr(attrs[INTERVAL]),
                remedy="correct it, or give the time coordinate bounds",
            ) from error
        return np.stack([time - seconds, time], axis=1)
    bounds = _bounds(found, axes.time, 2)
    if bounds is None:
        return None
    ends = []
    for k in range(2):
        numbers, own = to_seconds(bounds.isel({bounds.dims[-1]: k}))
        flat = _elements(bounds.isel({bounds.dims[-1]: k}).copy(data=np.asarray(numbers)), found)
        ends.append(np.asarray(convert_calendar(flat, own, calendar)) if own != calendar else flat)
    return np.sort(np.stack(ends, axis=1), axis=1)


def _area(found: Found, axes: Axes) -> dict[str, np.ndarray]:
    array = found.array
    if RADIUS in array.attrs:
        return {"radius": _radius(found)}
    lat, lon = _bounds(found, axes.latitude, None), _bounds(found, axes.longitude, None)
    if lat is None or lon is None:
        return _cells(found, axes)
    sides = [
        [_elements(b.isel({b.dims[-1]: k}), found) for k in range(b.shape[-1])] for b in (lat, lon)
    ]
    if len(sides[0]) == len(sides[1]) == 2:
        south, north = np.sort(np.stack(sides[0]), axis=0)
        east = np.asarray(array.coords[str(axes.longitude)].values, dtype=np.float64)
        centre = _elements(array.coords[str(axes.longitude)].copy(data=east), found)
        first, last = sides[1]
        # from west eastward: the way on which the coordinate lies
        width, away = (last - first) % 360.0, (centre - first) % 360.0
        margin = _ROUNDING * np.minimum(width, 360.0 - width)
        turned = (away > width + margin) & (away < 360.0 - margin)
        west, east = np.where(turned, last, first), np.where(turned, first, last)
        return {"box": np.stack([south, north, west, east], axis=1)}
    if len(sides[0]) != len(sides[1]) or len(sides[0]) < 3:
        raise CoordinateError(
            "the bounds of an area cannot be read",
            where=found.where,
            expected="two sides, or the same number of corners of latitude and longitude",
            got=f"{len(sides[0])} of latitude and {len(sides[1])} of longitude",
            remedy=f"give a radius instead: attrs[{RADIUS!r}] = 20e3 (metres)",
        )
    corners = np.stack([np.stack(side, axis=1) for side in sides], axis=2)
    if corners.shape[1] == 4 and np.isfinite(corners).all():
        return {"corners": corners}
    return {"box": _around(corners)}


def _around(corners: np.ndarray) -> np.ndarray:
    """Return the cells (n, 4) around polygons (n, v, 2), of which missing corners do not count."""
    known = np.isfinite(corners).all(axis=2)
    some = known.any(axis=1)
    first = np.argmax(known, axis=1)
    each = np.arange(len(corners))
    lat, lon = (np.where(known, corners[..., k], corners[each, first, k][:, None]) for k in (0, 1))
    lon = lon[:, :1] + (lon - lon[:, :1] + 180.0) % 360.0 - 180.0  # across the seam
    box = np.stack([lat.min(1), lat.max(1), lon.min(1), lon.max(1)], axis=1)
    return np.asarray(np.where(some[:, None], box, np.nan))


def _cells(found: Found, axes: Axes) -> dict[str, np.ndarray]:
    """Return the cells of a rectilinear grid without bounds: they meet midway between points."""
    array = found.array
    lat, lon = (array.coords[str(name)] for name in (axes.latitude, axes.longitude))
    if lat.dims != (axes.latitude,) or lon.dims != (axes.longitude,) or min(lat.size, lon.size) < 2:
        return {}
    grid = Grid(lat.values, lon.values)
    meridians = longitude_bounds(grid)
    sides = (
        (lat.dims, grid.latitude_bounds[:-1]),
        (lat.dims, grid.latitude_bounds[1:]),
        (lon.dims, meridians[:-1]),
        (lon.dims, meridians[1:]),
    )
    flat = [_elements(xr.DataArray(side, dims=dims), found) for dims, side in sides]
    south, north = np.sort(np.stack(flat[:2]), axis=0)
    return {"box": np.stack([south, north, *flat[2:]], axis=1)}


def _weights(found: Found, axes: Axes, grid: Grid) -> scipy.sparse.csr_array:
    """Return the rows (n, grid.size) of the places of each element."""
    array, names = found.array, str(found.array.attrs[WEIGHTS]).split()
    dims = {d for n in (axes.latitude, axes.longitude) for d in array.coords[str(n)].dims}
    shape = [n if dim in dims else 1 for dim, n in array.sizes.items()]
    places = int(np.prod(shape))
    got = f"{names}, of which the Dataset lacks some"
    dataset = found.dataset
    if dataset is not None and len(names) == 5 and set(names) <= set(dataset.variables):
        value, row, col, lat, lon = (dataset[name].values for name in names)
        size = lat.size * lon.size
        inside = (row >= 1) & (row <= places) & (col >= 1) & (col <= size)
        if value.shape == row.shape == col.shape and inside.all() and np.isfinite(value).all():
            rows, columns = grid.match(lat, lon)
            own = (rows[:, None] * grid.longitude.size + columns).ravel()
            entries = (value.astype(np.float64), (row.astype(int) - 1, own[col.astype(int) - 1]))
            matrix = scipy.sparse.csr_array(entries, shape=(places, grid.size))
            which = np.broadcast_to(np.arange(places).reshape(shape), array.shape).ravel()
            return scipy.sparse.csr_array(matrix[which])
        got = "indices beyond the places or points, or weights that are not finite"
    raise CoordinateError(
        "the weights of the observations cannot be used",
        where=f"{found.where}, attribute {WEIGHTS}",
        expected="five variables of the Dataset: weights, places and points (from 1), and the "
        f"latitudes and longitudes of the points; {places} places",
        got=got,
        remedy="attach them with xappa.obs.with_weights(obs, regridder)",
    )


def _radius(found: Found) -> np.ndarray:
    given = found.array.attrs[RADIUS]
    if isinstance(given, str) and given in found.array.coords:
        coord = found.array.coords[given].reset_coords(drop=True)
        unit = str(coord.attrs.get("units") or "m")
        values = np.asarray(units.convert(_elements(coord, found), unit, "m", where=found.where))
    else:
        try:
            values = np.full(found.array.size, units.metres(given))
        except (TypeError, ValueError, UnitsError):
            values = np.full(found.array.size, np.nan)
    if not (values > 0).all():
        raise CoordinateError(
            "the radius of a footprint is no positive length",
            where=f"{found.where}, attribute {RADIUS}",
            expected="metres, or the name of a coordinate of the observations",
            got=repr(given),
            remedy="correct it",
        )
    return values


def _bounds(found: Found, name: str | None, count: int | None) -> xr.DataArray | None:
    """Return the bounds of a coordinate, its dimension of vertices last."""
    if name is None:
        return None
    coord = found.array.coords[name]
    bounds = coord.attrs.get("bounds") or coord.encoding.get("bounds")
    if bounds is None or found.dataset is None or bounds not in found.dataset.variables:
        return None
    variable = found.dataset[bounds].reset_coords(drop=True)
    own = [dim for dim in variable.dims if dim not in coord.dims]
    if len(own) != 1 or (count is not None and variable.sizes[own[0]] != count):
        raise CoordinateError(
            f"the bounds of {name!r} do not fit it",
            where=f"{found.where}, {bounds}",
            expected=f"the dimensions {list(coord.dims)} and one more",
            got=dict(variable.sizes),
            remedy="correct the bounds, or drop the attribute",
        )
    ordered: xr.DataArray = variable.transpose(..., own[0])
    return ordered


def _elements(values: xr.DataArray, found: Found) -> np.ndarray:
    flat = on_elements(values.reset_coords(drop=True), found.array)
    if flat is None:
        raise CoordinateError(
            "bounds do not lie along the observations",
            where=found.where,
            expected=dict(found.array.sizes),
            got=dict(values.sizes),
            remedy="correct the bounds, or drop the attribute",
        )
    return np.asarray(flat, dtype=np.float64)
