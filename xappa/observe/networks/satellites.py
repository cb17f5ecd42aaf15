"""What polar orbiters and geostationary satellites share."""

from __future__ import annotations

from typing import Any

import numpy as np

from xappa.errors import ArgumentError
from xappa.grid import Grid
from xappa.observe.extent import RADIUS
from xappa.observe.networks.instruments import Instrument
from xappa.observe.networks.template import about, metres

__all__ = ["bad_argument", "footprint_attrs", "pixel_coordinates", "platform"]


def platform(name: str) -> tuple[tuple[()], str, dict[str, str]]:
    """Return the scalar coordinate that names a satellite; all its observations share a bias."""
    return (), name, {"long_name": "name of the satellite"}


def pixel_coordinates(
    instrument: Instrument,
    dims: tuple[str, ...],
    latitude: np.ndarray,
    longitude: np.ndarray,
    name: str,
) -> dict[str, Any]:
    """Return coordinates, with longitudes in the convention of the grid."""
    east = _as_grid(instrument.state.grid, longitude)
    return {
        "latitude": (dims, latitude, about("latitude", "degrees_north")),
        "longitude": (dims, east, about("longitude", "degrees_east")),
        "platform": platform(name),
    }


def footprint_attrs(radius: float | str | None, where: str) -> dict[str, Any]:
    """Return the attribute that makes observations means over a footprint; none for points."""
    return {} if radius is None else {RADIUS: metres(radius, f"{where}, footprint=")}


def bad_argument(what: str, where: str, expected: str, got: str) -> ArgumentError:
    """Return the error of one bad argument of a network."""
    return ArgumentError(what, where=where, expected=expected, got=got)


def _as_grid(grid: Grid, longitude: np.ndarray) -> np.ndarray:
    west = 0.0 if grid.longitude.min() >= 0 and grid.longitude.max() > 180 else -180.0
    return np.asarray(np.mod(longitude - west, 360.0) + west)
