"""Whether the altitudes of observations are positions in the air, or elevations of stations."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import xarray as xr

from xappa.cf import Axes, standard_name
from xappa.errors import CoordinateError
from xappa.observe.containers import ALTITUDES, Found

__all__ = ["ALTITUDE", "altitude_names", "check_heights", "is_aloft"]

ALTITUDE = "altitude"
_POSITIONS = (*ALTITUDES, "geopotential_height")
_NAMES = ("altitude", "alt", "geopotential_height", "height_above_sea_level")
_NEAR = 1.0


def altitude_names(array: xr.DataArray) -> list[str]:
    """Return the coordinates that say altitudes above the sea."""
    stated = [n for n, c in array.coords.items() if standard_name(c) in _POSITIONS]
    named = [
        n
        for n, c in array.coords.items()
        if str(n).lower() in _NAMES and standard_name(c) is None and c.dtype.kind in "fiu"
    ]

    def rank(name: Hashable) -> tuple[bool, int]:
        """Positions before elevations: the axis, a direction, and more dimensions tell them."""
        coord = array.coords[name]
        return not _is_vertical(coord), -coord.ndim

    return [str(name) for name in sorted((*stated, *named), key=rank)]


def _is_vertical(coord: xr.DataArray) -> bool:
    return str(coord.attrs.get("axis", "")).upper() == "Z" or "positive" in coord.attrs


def is_aloft(found: Found, axes: Axes) -> bool:
    """Tell whether an altitude says where in the air observations were made.

    CF's ``featureType`` decides: those of profiles and trajectories are positions, those of
    stations (``timeSeries``, ``point``) elevations. Without it a dimension, the axis Z, a
    direction (``positive``) or a dimension that latitudes lack tell positions.
    """
    array = found.array
    attrs = {} if found.dataset is None else found.dataset.attrs
    feature = str(array.attrs.get("featureType", attrs.get("featureType", ""))).lower()
    names = altitude_names(array)
    if not names or array.coords[names[0]].ndim == 0:
        return False
    if feature:
        return "profile" in feature or "trajectory" in feature
    coord = array.coords[names[0]]
    deeper = not set(coord.dims) <= set(array.coords[str(axes.latitude)].dims)
    return _is_vertical(coord) or names[0] in array.dims or deeper


def check_heights(array: xr.DataArray, where: str) -> None:
    """Check that heights above the ground, where there are several, are of one array each.

    Raises
    ------
    CoordinateError
        If a coordinate of heights above ground differs between elements.
    """
    for name, coord in array.coords.items():
        if standard_name(coord) != "height" or coord.dtype.kind not in "fiu" or coord.size < 2:
            continue
        if not np.isfinite(coord.values).any():
            continue
        low, high = float(np.nanmin(coord.values)), float(np.nanmax(coord.values))
        if high - low > _NEAR:
            raise CoordinateError(
                "observations at several heights above ground are in one array",
                where=f"{where}, coordinate {str(name)!r}",
                expected="one height above ground in each array, or pressures or altitudes",
                got=f"{low:g} to {high:g} m",
                remedy="split them by their heights, one array for each",
            )
