"""The altitude of the model's ground, where a Dataset holds it."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xappa.cf import Axes, find_axes, identify
from xappa.cf import standard_name as stated_name
from xappa.errors import GridMismatchError, UnitsError
from xappa.grid import Grid
from xappa.units import convert, dequantify

__all__ = ["find_orography"]

_GEOPOTENTIAL = ("geopotential_at_surface", "surface_geopotential", "z_sfc", "zsfc", "phis")
_GRAVITY = 9.80665


def find_orography(ds: xr.Dataset, grid: Grid) -> np.ndarray | None:
    """Return the altitude of the ground on a grid, if a Dataset says it.

    Parameters
    ----------
    ds
        May hold a variable or coordinate ``surface_altitude`` (m), or the geopotential of the
        surface (``surface_geopotential``, ``geopotential_at_surface``, ``phis``), along latitude
        and longitude; of further dimensions the first entry counts. A ``geopotential`` without
        levels and times is that of the surface, too.
    grid
        The grid of the state, of which `ds` may be a part.

    Returns
    -------
    (lat, lon) metres, float64, or None
        NaN where the Dataset does not reach.
    """
    plain = dequantify(ds)
    axes = find_axes(plain)
    for name, variable in plain.variables.items():
        scale = _metres(plain[name], axes)
        if scale is None:
            continue
        dims = [plain[axis].dims for axis in (axes.latitude, axes.longitude)]
        if any(len(d) != 1 or d[0] not in variable.dims for d in dims):
            continue
        (rows,), (columns,) = dims
        field = variable.isel({d: 0 for d in variable.dims if d not in (rows, columns)})
        values = np.asarray(field.transpose(rows, columns).values, dtype=np.float64)
        try:
            at = grid.match(plain[axes.latitude].values, plain[axes.longitude].values)
        except GridMismatchError:
            return None  # the handshake of the state says it better
        altitude = np.full(grid.shape, np.nan)
        altitude[np.ix_(*at)] = values * scale
        return altitude
    return None


def _metres(da: xr.DataArray, axes: Axes) -> float | None:
    """Return the factor from a variable to metres of altitude, or None if it is none."""
    if da.dtype.kind not in "fiu" or da.name in da.dims:
        return None
    names = {str(da.name).lower(), str(stated_name(da)), str(da.attrs.get("long_name")).lower()}
    if names & set(_GEOPOTENTIAL):
        return 1 / _GRAVITY
    quantity, _ = identify(da)
    if quantity is not None and quantity.standard_name == "geopotential":
        # ERA5's field of the ground: at a single level, and the same at all times
        ground = da.attrs.get("GRIB_typeOfLevel", "surface") == "surface"
        varies = axes.time_dim in da.dims or axes.vertical in da.coords
        return 1 / _GRAVITY if ground and not varies else None
    if quantity is None or quantity.standard_name != "surface_altitude":
        return None
    try:
        return float(convert(1.0, str(da.attrs.get("units") or "m"), "m"))
    except UnitsError:
        return None
