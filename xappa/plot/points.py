"""Where observations are, whatever their layout: stations, tracks, grids with gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa.cf import find_axes
from xappa.errors import ArgumentError
from xappa.units import dequantify

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["mark", "station_points"]

Points = np.ndarray[Any, Any]


def station_points(stations: Any) -> Points:
    """Return the places of observations that are not missing.

    Parameters
    ----------
    stations
        A DataArray or Dataset with latitude and longitude coordinates on any dimensions, or a dict,
        list or tuple of them.

    Returns
    -------
    (n, 2) float64
        Longitude and latitude of each place that has any value, each place once.

    Raises
    ------
    ArgumentError
        If it is something else.
    CoordinateError
        If there is no latitude or longitude.

    Examples
    --------
    >>> obs = xr.DataArray([[1.0, np.nan]], {"lat": [50.0], "lon": [3.0, 5.0]}, ("lat", "lon"))
    >>> station_points(obs)
    array([[ 3., 50.]])
    """
    if isinstance(stations, (xr.DataArray, xr.Dataset)):
        return _points(dequantify(stations))
    parts = list(stations.values()) if isinstance(stations, Mapping) else stations
    if not isinstance(parts, (list, tuple)):
        raise ArgumentError(
            "stations have no coordinates",
            where="argument 'stations'",
            expected="a DataArray or Dataset with latitude and longitude, or several of them",
            got=type(stations).__name__,
            remedy="pass the observations themselves",
        )
    return np.unique(np.concatenate([np.zeros((0, 2)), *map(station_points, parts)]), axis=0)


def _points(obs: xr.DataArray | xr.Dataset) -> Points:
    axes = find_axes(_flat(obs))
    places = [obs[name].reset_coords(drop=True) for name in (axes.longitude, axes.latitude)]
    x, y = (place.astype(float) for place in xr.broadcast(*places))
    seen = _any_value(obs, x)
    keep = x.notnull() & y.notnull() & seen
    x, y, keep = xr.broadcast(x, y, keep)
    found = np.stack([x.values[keep.values], y.values[keep.values]], axis=-1)
    return np.unique(found, axis=0)


def _flat(obs: xr.DataArray | xr.Dataset) -> xr.Dataset:
    """Return the coordinates alone, each of several dimensions on one of its own."""
    flat = {
        name: (f"xappa_{name}", coord.values.reshape(-1), coord.attrs) if coord.ndim > 1 else coord
        for name, coord in obs.coords.items()
    }
    return xr.Dataset(coords=flat)


def _any_value(obs: xr.DataArray | xr.Dataset, places: xr.DataArray) -> xr.DataArray:
    """Tell where there is any value; everywhere if there is nothing to be missing."""
    arrays = [obs] if isinstance(obs, xr.DataArray) else list(obs.data_vars.values())
    seen = xr.zeros_like(places, dtype=bool)
    numeric = [a for a in arrays if a.dtype.kind in "fiu" and set(places.dims) <= set(a.dims)]
    for array in numeric:
        others = [dim for dim in array.dims if dim not in places.dims]
        seen = seen | array.notnull().any(others).reset_coords(drop=True)
    return seen if numeric else ~seen


def mark(ax: Axes, points: Points, x: Points, y: Points, transform: Any) -> None:
    """Mark places on a map; those outside its field, with edges x and y, hollow and grey."""
    middle = 0.5 * (x.min() + x.max())
    longitude = (points[:, 0] - middle + 180.0) % 360.0 - 180.0 + middle
    latitude = points[:, 1]
    inside = (longitude >= x.min()) & (longitude <= x.max())
    inside &= (latitude >= y.min()) & (latitude <= y.max())
    projected: dict[str, Any] = {} if transform is None else {"transform": transform}
    full: dict[str, Any] = {"c": "white", "edgecolors": "black", "linewidths": 0.9, "zorder": 5}
    hollow = {**full, "c": "none", "edgecolors": "0.6", "zorder": 4}
    for which, style in ((inside, full), (~inside, hollow)):
        if which.any():
            ax.scatter(longitude[which], latitude[which], s=16, **style, **projected)
