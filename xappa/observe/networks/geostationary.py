r"""Geostationary satellites: images of the disk.

A geostationary imager scans in angles x to the east and y to the north of the point below it. From
a distance r of the Earth's centre, in units of its radius R, the line of sight is
:math:`d = (-\cos x \cos y, \sin x, \cos x \sin y)`, and meets the sphere at the distance

.. math:: t = r c - \sqrt{1 - r^2 (1 - c^2)}, \quad c = \cos x \cos y .

References
----------
GOES-R Product Definition and Users' Guide, volume 5 (2019), section 5.1.2.8: the same geometry on
an ellipsoid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from xappa.cf import from_seconds
from xappa.errors import XappaError
from xappa.grid import EARTH_RADIUS
from xappa.observe.networks.instruments import Errors, Variables, read_instrument
from xappa.observe.networks.orbits import GRAVITATION, SIDEREAL_DAY, to_degrees
from xappa.observe.networks.satellites import (
    bad_argument,
    footprint_attrs,
    pixel_coordinates,
)
from xappa.observe.networks.template import (
    FLAG,
    about,
    dates,
    flags,
    metres,
    network,
    regular_times,
    with_dropouts,
)

__all__ = ["disk", "geostationary"]

_RADIUS = (GRAVITATION * (SIDEREAL_DAY / 2 / np.pi) ** 2) ** (1 / 3)


def geostationary(
    ds: xr.Dataset,
    longitude: float,
    *,
    variable: Variables,
    error: Errors = None,
    resolution: float | str = "100 km",
    zenith: float = 70.0,
    interval: Any = "1h",
    footprint: float | str | None = None,
    pressure: Sequence[float] | None = None,
    bias_std: Errors = None,
    dropout: float = 0.0,
    seed: int | None = None,
    name: str = "geostationary",
) -> Any:
    """Return the images of a geostationary satellite, 35,786 km above the equator.

    Parameters
    ----------
    ds
        Gives domain, times, units and metadata; its values are not looked at.
    longitude
        Degrees east of the satellite.
    variable, error, pressure
        What is observed and how well; see `random_stations`.
    resolution
        Distance of pixels below the satellite, metres or text: they are evenly spaced in scan
        angle, so that it grows towards the limb.
    zenith
        Degrees, the largest zenith angle of the satellite at a pixel.
    interval
        Time from image to image, counted from midnight.
    footprint
        Radius of a pixel, metres or text: observations are means over it, and not values at
        points.
    bias_std
        Standard deviation of the instrument's constant bias, which all its pixels share.
    dropout, seed, name
        See `polar_orbiter`.

    Returns
    -------
    DataArray, or Dataset if `variable` is not one name
        Dims (time, pixel), or (time, air_pressure, pixel) on levels, with the scan angles of each
        pixel; all NaN. Pixels outside the domain are left out.

    Raises
    ------
    ArgumentError, ErrorCovarianceError, CoordinateError
        As `polar_orbiter` does.

    Examples
    --------
    >>> import xappa.testing
    >>> ds = xappa.testing.weather(times=5)
    >>> images = geostationary(ds, 0.0, variable="t2m", error=0.5)
    >>> images.dims, images.latitude.dims
    (('time', 'pixel'), ('pixel',))
    """
    where = "geostationary"
    problems: list[XappaError] = []
    if not 0 < zenith < 90:
        got = f"zenith={zenith}"
        problems.append(bad_argument("a zenith angle is none", where, "0 < zenith < 90", got))
    if not np.isfinite(longitude):
        got = f"longitude={longitude}"
        problems.append(bad_argument("a satellite is nowhere", where, "longitude in degrees", got))
    instrument = read_instrument(
        ds,
        variable,
        error,
        where=where,
        bias_std=bias_std,
        dropout=dropout,
        seed=seed,
        pressure=pressure,
        problems=problems,
    )
    x, y, latitude, east = disk(metres(resolution, f"{where}, resolution="), zenith)
    east = east + longitude
    inside = instrument.state.grid.interpolate(latitude, east)[2]
    coords = pixel_coordinates(instrument, ("pixel",), latitude[inside], east[inside], name)
    for angle, values in (("x", x), ("y", y)):
        said = about(f"projection_{angle}_angular_coordinate", "radian")
        coords[f"{angle}_angle"] = ("pixel", values[inside], said)
    seconds = regular_times(instrument, interval)
    coords["time"] = dates(from_seconds(seconds, instrument.state.calendar))
    missing = with_dropouts(instrument, f"geostationary {name}", seconds, [int(inside.sum())])
    if missing is not None:
        coords[FLAG] = flags(missing, ("time", "pixel"))
    attrs = footprint_attrs(footprint, where)
    return network(instrument, coords, ("time", "pixel"), levels_before="pixel", attrs=attrs)


def disk(resolution: float, zenith: float) -> tuple[np.ndarray, ...]:
    """Return the pixels of a geostationary satellite at longitude 0.

    Parameters
    ----------
    resolution
        Metres between pixels below the satellite.
    zenith
        Degrees, the largest zenith angle of the satellite.

    Returns
    -------
    x, y : (n,) radians
        Scan angles to the east and to the north.
    latitude, longitude : (n,) degrees
    """
    far = _RADIUS / EARTH_RADIUS
    step = resolution / (_RADIUS - EARTH_RADIUS)
    count = int(np.arcsin(1 / far) / step)
    angles = step * np.arange(-count, count + 1)
    y, x = (part.ravel() for part in np.meshgrid(angles[::-1], angles, indexing="ij"))
    sight = np.stack([-np.cos(x) * np.cos(y), np.sin(x), np.cos(x) * np.sin(y)], axis=1)
    cosine = -sight[:, 0]
    rest = 1 - far**2 * (1 - cosine**2)
    on_disk = rest >= 0
    x, y, sight = x[on_disk], y[on_disk], sight[on_disk]
    distance = far * cosine[on_disk] - np.sqrt(rest[on_disk])
    point = np.array([far, 0.0, 0.0]) + distance[:, None] * sight
    # the upward normal is the point itself, and the satellite lies against the line of sight
    near = -(point * sight).sum(axis=1) >= np.cos(np.deg2rad(zenith))
    return (x[near], y[near], *to_degrees(point[near]))
