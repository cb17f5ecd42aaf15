"""Maps of analyses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa._optional import require
from xappa.cf import find_axes
from xappa.errors import GridMismatchError
from xappa.plot.axes import colour_bar, degrees, edges, map_axes
from xappa.plot.coastlines import coastlines as coastlines_of
from xappa.plot.coastlines import draw_coastlines
from xappa.plot.labels import (
    PURPOSE,
    lies_on,
    not_plotable,
    one_array,
    quantity,
    title,
    when,
)
from xappa.plot.points import mark, station_points
from xappa.units import difference_units, in_units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["increment_map", "mean_map", "spread_map"]

_TITLES = ("long_name", "standard_name", "units")


@dataclass(frozen=True)
class _Frame:
    """What a map is drawn into, and what is drawn over it."""

    stations: Any
    ax: Axes | None
    projection: Any
    coastlines: bool | None


def mean_map(
    field: xr.DataArray | xr.Dataset,
    *,
    stations: Any = None,
    ax: Axes | None = None,
    projection: Any = None,
    coastlines: bool | None = None,
    **options: Any,
) -> Axes:
    """Map of the ensemble mean, or of a field without members.

    Parameters
    ----------
    field
        Field on dimensions latitude and longitude (and member, and others of size one).
    stations, ax, projection, coastlines, **options
        As in `increment_map`.

    Returns
    -------
    matplotlib.axes.Axes
        With the map; its colour bar is attached to it.

    Raises
    ------
    ArgumentError, CoordinateError, DataError, MissingDependencyError
        As in `increment_map`.
    """
    array = one_array(field, "field", lies_on("latitude", "longitude"))
    what = "ensemble mean" if find_axes(array).member in array.dims else ""
    label = quantity(array, what, array.attrs.get("units"))
    frame = _Frame(stations, ax, projection, coastlines)
    return _map(_mean(array), label, frame, {"cmap": "viridis", **options})


def increment_map(
    analysis: xr.DataArray | xr.Dataset,
    background: xr.DataArray | xr.Dataset,
    *,
    stations: Any = None,
    ax: Axes | None = None,
    projection: Any = None,
    coastlines: bool | None = None,
    **options: Any,
) -> Axes:
    """Map of analysis minus background, each the ensemble mean if it has members.

    Parameters
    ----------
    analysis, background
        Fields on dimensions latitude and longitude (and member, and others of size one); the
        background in any units that convert to the analysis'. Of a Dataset the only such variable.
    stations
        Observations, or anything with latitude and longitude coordinates, to be marked where they
        have any value; hollow and grey outside the field. They do not change the map's extent.
    ax
        Axes to draw into; a new figure by default.
    projection
        A cartopy projection for a new figure.
    coastlines
        None: draw those of Natural Earth if cartopy has them on this machine; True: let cartopy
        download them if need be; False: none.
    **options
        For ``Axes.pcolormesh``, such as ``cmap`` or ``vmax``.

    Returns
    -------
    matplotlib.axes.Axes
        With the map; its colour bar, in units of a difference, is attached to it.

    Raises
    ------
    ArgumentError
        If the fields are not two-dimensional, a Dataset has several, or both ``ax`` and
        ``projection`` are given.
    CoordinateError
        If a field, or stations, have no latitude or longitude.
    DataError
        If ``coastlines=True`` and they cannot be downloaded.
    GridMismatchError
        If analysis and background are on different grids.
    MissingDependencyError
        If matplotlib, or cartopy for a projection or for ``coastlines=True``, is not installed.
    UnitsError
        If the units do not convert.
    """
    horizontal = lies_on("latitude", "longitude")
    after = _field(_mean(one_array(analysis, "analysis", horizontal)))
    before = _field(_mean(one_array(background, "background", horizontal)))
    increment = after - in_units_of(after, before, "increment of")
    if increment.sizes != after.sizes or after.sizes != before.sizes:
        raise _other_grid(after, before)
    increment.attrs = {key: after.attrs[key] for key in _TITLES if key in after.attrs}
    increment = increment.rename(after.name)
    limit = float(np.abs(increment).max())
    limit = limit if np.isfinite(limit) and limit > 0.0 else 1.0
    if "norm" not in options:
        vmax = options.pop("vmax", limit)
        options = {"vmin": -vmax, "vmax": vmax, **options}
    label = quantity(increment, "analysis increment", difference_units(after.attrs.get("units")))
    frame = _Frame(stations, ax, projection, coastlines)
    return _map(increment, label, frame, {"cmap": "RdBu_r", **options})


def spread_map(
    ensemble: xr.DataArray | xr.Dataset,
    *,
    stations: Any = None,
    ax: Axes | None = None,
    projection: Any = None,
    coastlines: bool | None = None,
    **options: Any,
) -> Axes:
    """Map of the standard deviation over the members.

    Parameters
    ----------
    ensemble
        Field on dimensions member, latitude and longitude (and others of size one).
    stations, ax, projection, coastlines, **options
        As in `increment_map`.

    Returns
    -------
    matplotlib.axes.Axes
        With the map; its colour bar, in units of a difference, is attached to it.

    Raises
    ------
    ArgumentError, DataError, MissingDependencyError
        As in `increment_map`.
    CoordinateError
        If there is no member dimension, latitude or longitude.
    """
    array = one_array(ensemble, "ensemble", lies_on("latitude", "longitude"))
    member = find_axes(array, require=("latitude", "longitude", "member")).member
    spread = array.std(member, ddof=1, keep_attrs=True)
    if "norm" not in options:
        options = {"vmin": 0.0, **options}
    label = quantity(array, "ensemble spread", difference_units(array.attrs.get("units")))
    frame = _Frame(stations, ax, projection, coastlines)
    return _map(spread, label, frame, {"cmap": "viridis", **options})


def _mean(field: xr.DataArray) -> xr.DataArray:
    member = find_axes(field).member
    return field if member not in field.dims else field.mean(member, keep_attrs=True)


def _field(field: xr.DataArray) -> xr.DataArray:
    """Return a field on latitude and longitude, which must be all that it has.

    Raises
    ------
    ArgumentError
        If it has other dimensions.
    """
    axes = find_axes(field)
    horizontal = (axes.latitude, axes.longitude)
    field = field.squeeze([d for d, n in field.sizes.items() if n == 1 and d not in horizontal])
    if set(field.dims) != set(horizontal):
        expected = f"dimensions {axes.latitude!r} and {axes.longitude!r}"
        others = [str(dim) for dim in field.dims if dim not in horizontal]
        selection = f"select one, as in isel({others[0]}=0)" if others else "select a region"
        raise not_plotable(field, expected, selection)
    return field.transpose(*horizontal)


def _map(field: xr.DataArray, label: str, frame: _Frame, options: dict[str, Any]) -> Axes:
    """Draw a field; all that can be wrong is found before the axes are touched."""
    field = _field(field).compute()
    axes = find_axes(field)
    # longitudes that start again at the date line or at Greenwich go on instead
    x = edges(np.unwrap(field[axes.longitude].values.astype(float), period=360.0))
    y = edges(field[axes.latitude].values, 90.0)
    points = None if frame.stations is None else station_points(frame.stations)
    lines = coastlines_of(frame.coastlines, float(np.ptp(x)))
    ax = map_axes(frame.ax, frame.projection, x, y)
    geographic = hasattr(ax, "projection")  # as a GeoAxes has it
    crs = require("cartopy.crs", PURPOSE).PlateCarree() if geographic else None
    projected = {} if crs is None else {"transform": crs}
    mesh = ax.pcolormesh(x, y, field.values, rasterized=True, **{**projected, **options})
    extent = ax.get_xlim(), ax.get_ylim()
    if points is not None:
        mark(ax, points, x, y, crs)
    draw_coastlines(ax, lines, x, y, crs)
    ax.set(xlim=extent[0], ylim=extent[1])
    ax.set_title(" · ".join(filter(None, (title(field), _level(field), when(field)))), loc="left")
    degrees(ax, x, y)
    colour_bar(ax, mesh, label)
    return ax


def _level(field: xr.DataArray) -> str:
    """Return the scalar pressure level of a field, or an empty string."""
    vertical = find_axes(field).vertical
    if vertical is None or field[vertical].ndim:
        return ""
    unit = field[vertical].attrs.get("units", "")
    return f"{float(field[vertical]):g} {unit}".strip()


def _other_grid(after: xr.DataArray, before: xr.DataArray) -> GridMismatchError:
    return GridMismatchError(
        "analysis and background are on different grids",
        where=f"increment of {after.name!r}",
        expected=f"the dimensions and labels of the analysis, {dict(after.sizes)}",
        got=f"{dict(before.sizes)}, not all with the same labels",
        remedy="bring both to the same grid, as with background.interp_like(analysis)",
    )
