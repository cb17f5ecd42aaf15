r"""Circular orbits, their ground tracks, and what can be seen from them.

A satellite at radius a goes round in :math:`P = 2 \pi \sqrt{a^3 / \mu}`. With inclination i and
argument of latitude :math:`u = u_0 + 2 \pi t / P`, counted from the ascending node,

.. math:: \sin \varphi = \sin i \sin u, \quad
   \lambda = \Omega_0 + \operatorname{atan2}(\cos i \sin u, \cos u) - 2 \pi t / D

where D is the time in which the Earth turns once below the orbital plane: the sidereal day for a
plane that is fixed among the stars. The Earth's flattening turns the plane by

.. math:: \dot \Omega = -\tfrac32 J_2 \sqrt{\mu / a^3} \, (R_e / a)^2 \cos i ,

and an orbit for which that is once a year keeps its angle to the sun: then D is the solar day.

References
----------
Vallado (2013), Fundamentals of Astrodynamics and Applications, sections 2.2 and 9.6; WGS 84 and
EGM 96 for the constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xappa.cf import Axes, convert_calendar, find_axes, timedelta_seconds, to_seconds
from xappa.errors import ArgumentError, check_settings
from xappa.grid import EARTH_RADIUS, Grid
from xappa.observe.networks.template import about, dates, metres

__all__ = ["GRAVITATION", "SIDEREAL_DAY", "Orbit", "ground_track", "visible"]

GRAVITATION = 3.986004418e14
"""Gravitational constant times the mass of the Earth, m3 s-2."""
SIDEREAL_DAY = 86_164.0905
"""Seconds in which the Earth turns once among the stars."""
SOLAR_DAY = 86_400.0
_EQUATOR = 6_378_137.0
_J2 = 1.08262668e-3
_TROPICAL_YEAR = 365.2421897 * SOLAR_DAY


@dataclass(frozen=True)
class Orbit:
    """A circular orbit.

    Parameters
    ----------
    altitude
        Above the mean radius of the Earth: metres, or text such as ``"800 km"``.
    inclination
        Degrees; above 90 the satellite goes west.
    phase
        Degrees from the ascending node along the orbit, at `epoch`.
    node
        Longitude of the ascending node at `epoch`, degrees east.
    epoch
        A date; None for 1970-01-01 00:00. As it is fixed, a satellite is at the same place at the
        same time, whatever the window.
    day
        The time in which the Earth turns once below the orbital plane, a duration or seconds: the
        sidereal day for a plane that is fixed among the stars, ``"24h"`` for one that follows the
        sun.

    Raises
    ------
    ArgumentError
        If a number is not finite, or altitude or day is not positive.

    Examples
    --------
    >>> orbit = Orbit("800 km", 98.6)
    >>> round(orbit.period / 60, 1)
    100.7
    """

    altitude: float | str = "817 km"
    inclination: float = 98.7
    phase: float = 0.0
    node: float = 0.0
    epoch: Any = None
    day: Any = SIDEREAL_DAY

    def __post_init__(self) -> None:
        metres(self.altitude, "Orbit, altitude=")
        checks = {
            "inclination": 0 <= self.inclination <= 180,
            "phase": bool(np.isfinite(self.phase)),
            "node": bool(np.isfinite(self.node)),
            "day": timedelta_seconds(self.day) > 0,
        }
        check_settings(
            self,
            checks,
            what="an orbit",
            where="Orbit",
            expected="inclination from 0 to 180, phase and node in degrees, a positive day",
        )

    @classmethod
    def sun_synchronous(
        cls, altitude: float | str = "817 km", local_time: str = "21:30", phase: float = 0.0
    ) -> Orbit:
        """Return the orbit that crosses the equator at one local time.

        Parameters
        ----------
        altitude
            Metres, or text such as ``"817 km"``; it determines the inclination.
        local_time
            Mean solar time of the ascending node, such as ``"21:30"``.
        phase
            Degrees from the ascending node on 1970-01-01 00:00.

        Raises
        ------
        ArgumentError
            If no inclination keeps such an orbit's angle to the sun, or the time cannot be read.

        Examples
        --------
        >>> round(Orbit.sun_synchronous("817 km").inclination, 1)
        98.6
        """
        radius = EARTH_RADIUS + metres(altitude, "Orbit, altitude=")
        mean_motion = np.sqrt(GRAVITATION / radius**3)
        yearly = 2 * np.pi / _TROPICAL_YEAR
        cosine = -yearly / (1.5 * _J2 * mean_motion * (_EQUATOR / radius) ** 2)
        if cosine < -1:
            raise ArgumentError(
                "no orbit is sun-synchronous at this altitude",
                where="Orbit.sun_synchronous, altitude=",
                expected="less than 5,960 km",
                got=repr(altitude),
            )
        hour, _, minute = str(local_time).partition(":")
        seconds = timedelta_seconds(f"{hour}h {minute or 0}min")
        inclination = float(np.rad2deg(np.arccos(cosine)))
        return cls(altitude, inclination, phase, 360 * seconds / SOLAR_DAY, None, SOLAR_DAY)

    @property
    def radius(self) -> float:
        """Metres from the centre of the Earth."""
        return EARTH_RADIUS + metres(self.altitude, "Orbit, altitude=")

    @property
    def period(self) -> float:
        """Seconds for one revolution, by Kepler's third law."""
        return float(2 * np.pi * np.sqrt(self.radius**3 / GRAVITATION))

    def directions(self, seconds: np.ndarray, calendar: str) -> tuple[np.ndarray, np.ndarray]:
        """Return where the satellite is, and what the orbital plane is perpendicular to.

        Parameters
        ----------
        seconds
            (n,) since 1970-01-01 in the calendar.
        calendar
            Its CF name.

        Returns
        -------
        position, normal : (n, 3)
            Unit vectors that turn with the Earth: towards (0 N, 0 E), (0 N, 90 E) and the north.
        """
        after = np.asarray(seconds, dtype=np.float64) - _epoch(self.epoch, calendar)
        # revolutions first: radians of many days would lose digits
        u = np.deg2rad(self.phase) + 2 * np.pi * np.mod(after / self.period, 1.0)
        turned = 2 * np.pi * np.mod(after / timedelta_seconds(self.day), 1.0)
        node = np.deg2rad(self.node) - turned
        tilt = np.deg2rad(self.inclination)
        position = (np.cos(u), np.cos(tilt) * np.sin(u), np.sin(tilt) * np.sin(u))
        normal = (0.0, -np.sin(tilt), np.cos(tilt))
        return _turn(position, node), _turn(normal, node)


def ground_track(times: Any, orbit: Orbit) -> xr.Dataset:
    """Return the points below a satellite.

    Parameters
    ----------
    times
        Dates: datetime64, text, cftime, or a coordinate; one or several.
    orbit
        The orbit.

    Returns
    -------
    Dataset
        ``latitude`` and ``longitude`` (from -180 to below 180) in degrees along ``time``.

    Raises
    ------
    CoordinateError
        If `times` are no dates.

    Examples
    --------
    >>> orbit = Orbit("800 km", 90.0, epoch="2020-01-01")
    >>> track = ground_track(["2020-01-01"], orbit)
    >>> float(track.latitude[0]), float(track.longitude[0])
    (0.0, 0.0)
    """
    time = dates(times)
    seconds, calendar = to_seconds(time)
    position, _ = orbit.directions(seconds, calendar)
    latitude, longitude = to_degrees(position)
    variables = {
        "latitude": (time.dims, latitude, about("latitude", "degrees_north")),
        "longitude": (time.dims, longitude, about("longitude", "degrees_east")),
    }
    return xr.Dataset(variables, {"time": time})


def visible(ds: xr.Dataset | xr.DataArray, track: xr.Dataset, *, fov: float = 5.0) -> xr.DataArray:
    """Return which grid points lie within an angle of any point of a ground track.

    Parameters
    ----------
    ds
        Has the grid, rectilinear.
    track
        ``latitude`` and ``longitude`` in degrees, of any shape; see `ground_track`.
    fov
        Degrees at the centre of the Earth, from the point below the satellite to the edge of what
        it sees; 1 degree is 111 km.

    Returns
    -------
    DataArray of bool
        Along latitude and longitude of `ds`.

    Raises
    ------
    ArgumentError
        If `fov` is not between 0 and 180.

    Examples
    --------
    >>> grid = xr.Dataset(coords={"lat": [2.0, 1.0, 0.0], "lon": [0.0, 1.0, 2.0]})
    >>> below = xr.Dataset({"latitude": 0.0, "longitude": 0.0})
    >>> visible(grid, below, fov=1.2).values.astype(int).tolist()
    [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    """
    if not 0 < fov < 180:
        raise ArgumentError(
            "a field of view is no angle", where="visible, fov=", expected="0 to 180", got=fov
        )
    axes = find_axes(ds, require=("latitude", "longitude"))
    grid = Grid.from_dataset(ds, axes)
    latitude, longitude = (np.ravel(track[name].values) for name in ("latitude", "longitude"))
    return _on_grid(ds, axes, seen(grid, latitude, longitude, fov))


def seen(grid: Grid, latitude: np.ndarray, longitude: np.ndarray, fov: float) -> np.ndarray:
    """Return which points of a grid lie within `fov` degrees of any of n points, (lat, lon) bool.

    On each row those are an interval of longitudes around each point.
    """
    north, south = np.deg2rad(grid.latitude)[:, None], np.deg2rad(latitude)
    left = np.sin(np.deg2rad(fov) / 2) ** 2 - np.sin((north - south) / 2) ** 2
    # at a pole all longitudes are one point
    shrink = np.maximum(np.cos(north) * np.cos(south), 1e-15)
    half = np.rad2deg(2 * np.arcsin(np.sqrt(np.clip(left / shrink, 0.0, 1.0))))
    east = grid.unwrapped_longitude
    row, point = np.nonzero(left >= 0)
    half = half[row, point]
    centre = np.mod(longitude[point] - east[0], 360.0) + east[0]
    edges = np.zeros((grid.shape[0], east.size + 1), np.int64)
    for turn in (-360.0, 0.0, 360.0):
        first = np.searchsorted(east, centre + turn - half, side="left")
        after = np.searchsorted(east, centre + turn + half, side="right")
        np.add.at(edges, (row, first), 1)
        np.add.at(edges, (row, after), -1)
    return np.asarray(np.cumsum(edges, axis=1)[:, :-1] > 0)


def to_degrees(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return latitudes, and longitudes from -180 to below 180, of vectors (..., 3)."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    latitude = np.rad2deg(np.arctan2(z, np.hypot(x, y)))
    longitude = np.rad2deg(np.arctan2(y, x))
    return latitude, np.where(longitude >= 180.0, -180.0, longitude)


def _turn(vector: Any, angle: np.ndarray) -> np.ndarray:
    """Turn vectors about the Earth's axis; angles in radians."""
    x, y, z = vector
    turned = (x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), z)
    return np.stack(np.broadcast_arrays(*turned), axis=-1)


def _epoch(epoch: Any, calendar: str) -> float:
    if epoch is None:
        return 0.0
    seconds, own = to_seconds(dates(epoch))
    return float(convert_calendar(seconds, own, calendar))


def _on_grid(ds: xr.Dataset | xr.DataArray, axes: Axes, mask: np.ndarray) -> xr.DataArray:
    names = [str(axes.latitude), str(axes.longitude)]
    dims = [str(ds[name].dims[0]) if ds[name].ndim else name for name in names]
    coords = {name: (dim, *_plain(ds[name])) for name, dim in zip(names, dims, strict=True)}
    return xr.DataArray(mask, coords, dims, "visible")


def _plain(coord: xr.DataArray) -> tuple[np.ndarray, dict[str, Any]]:
    return np.atleast_1d(coord.values), dict(coord.attrs)
