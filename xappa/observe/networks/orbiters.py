"""Polar orbiters: the swath of a scanner, and what is seen of a Dataset's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from xappa.cf import from_seconds, timedelta_seconds, to_seconds
from xappa.errors import XappaError
from xappa.grid import EARTH_RADIUS
from xappa.observe.networks.instruments import Errors, Instrument, Variables, read_instrument
from xappa.observe.networks.orbits import Orbit, seen, to_degrees
from xappa.observe.networks.satellites import (
    bad_argument,
    footprint_attrs,
    pixel_coordinates,
    platform,
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

__all__ = ["gridded_orbiter", "polar_orbiter"]

#: Scans whose pixels are computed at once.
_SCANS = 20_000


def polar_orbiter(
    ds: xr.Dataset,
    orbit: Orbit | None = None,
    *,
    variable: Variables,
    error: Errors = None,
    swath: float | str = "2200 km",
    pixels: int = 30,
    interval: Any = "8s",
    footprint: float | str | None = None,
    pressure: Sequence[float] | None = None,
    bias_std: Errors = None,
    dropout: float = 0.0,
    seed: int | None = None,
    name: str = "polar orbiter",
) -> Any:
    """Return the swath of a satellite that scans across its track.

    Parameters
    ----------
    ds
        Gives domain, times, units and metadata; its values are not looked at.
    orbit
        The orbit; by default sun-synchronous at 817 km with an ascending node at 21:30, as Metop.
    variable, error, pressure
        What is observed and how well; see `random_stations`.
    swath
        Width of the swath on the ground: metres, or text such as ``"2200 km"``.
    pixels
        Pixels of a scan, evenly spaced on the ground. The defaults are near those of AMSU-A.
    interval
        Time from scan to scan, counted from midnight.
    footprint
        Radius of a pixel, metres or text: observations are means over it, and not values at
        points.
    bias_std
        Standard deviation of the instrument's constant bias, which all its pixels share.
    dropout
        Share of the pixels that are missing, at random.
    seed
        Seed of the dropouts; drawn if None, and recorded as ``xappa_network_seed``.
    name
        Name of the satellite; satellites of different names have different dropouts.

    Returns
    -------
    DataArray, or Dataset if `variable` is not one name
        Dims (scan, pixel), or (scan, air_pressure, pixel) on levels, with latitude and longitude
        of each pixel and the time of each scan; all NaN. Scans that miss the domain are left out.

    Raises
    ------
    ArgumentError
        If an argument cannot be used.
    ErrorCovarianceError
        If `error` is missing or not positive.
    CoordinateError
        If `ds` has no times.

    Examples
    --------
    >>> import xappa.testing
    >>> ds = xappa.testing.weather(times=5)
    >>> scans = polar_orbiter(ds, variable="t2m", error=1.0)
    >>> scans.dims, scans.latitude.dims, scans.time.dims
    (('scan', 'pixel'), ('scan', 'pixel'), ('scan',))
    """
    where = "polar_orbiter"
    problems: list[XappaError] = []
    if isinstance(pixels, bool) or not isinstance(pixels, int | np.integer) or pixels < 1:
        problems.append(
            bad_argument("a scan has no pixels", where, "pixels >= 1", f"pixels={pixels!r}")
        )
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
    orbit = Orbit.sun_synchronous() if orbit is None else orbit
    across = metres(swath, f"{where}, swath=") * ((np.arange(pixels) + 0.5) / pixels - 0.5)
    seconds, latitude, longitude = _swath(
        instrument, orbit, across, regular_times(instrument, interval)
    )
    coords = pixel_coordinates(instrument, ("scan", "pixel"), latitude, longitude, name)
    coords["time"] = dates(from_seconds(seconds, instrument.state.calendar)).rename(time="scan")
    missing = with_dropouts(instrument, f"polar orbiter {name}", seconds, [int(pixels)])
    if missing is not None:
        coords[FLAG] = flags(missing, ("scan", "pixel"))
    attrs = footprint_attrs(footprint, where)
    return network(instrument, coords, ("scan", "pixel"), levels_before="pixel", attrs=attrs)


def gridded_orbiter(
    ds: xr.Dataset,
    orbit: Orbit | None = None,
    *,
    variable: Variables,
    error: Errors = None,
    fov: float = 5.0,
    interval: Any = "1min",
    pressure: Sequence[float] | None = None,
    bias_std: Errors = None,
    dropout: float = 0.0,
    seed: int | None = None,
    name: str = "polar orbiter",
) -> Any:
    """Return what a polar orbiter sees of a Dataset's own grid, at the Dataset's own times.

    The state at a time is observed at the grid points that the satellite sees within half a time
    step of it (a single state at those it sees at that moment); gaps are marked by the flag
    ``missing``. It is how Appa simulates satellites, which takes what is seen in the step after
    each time instead.

    Parameters
    ----------
    ds
        Gives grid, times, units and metadata; its values are not looked at.
    orbit
        The orbit; see `polar_orbiter`.
    variable, error, pressure
        What is observed and how well; see `random_stations`.
    fov
        Degrees at the centre of the Earth from the point below the satellite to the edge of what
        it sees; see `visible`.
    interval
        Time between the points of the track, counted from midnight.
    bias_std, dropout, seed, name
        See `polar_orbiter`.

    Returns
    -------
    DataArray, or Dataset if `variable` is not one name
        Dims (time, latitude, longitude), or (time, air_pressure, latitude, longitude) on levels;
        all NaN, with a coordinate ``status_flag``.

    Raises
    ------
    ArgumentError, ErrorCovarianceError, CoordinateError
        As `polar_orbiter` does.

    Examples
    --------
    >>> import xappa.testing
    >>> ds = xappa.testing.weather(times=5)
    >>> network = gridded_orbiter(ds, variable="t2m", error=1.0)
    >>> network.dims, network.status_flag.dims
    (('time', 'latitude', 'longitude'), ('time', 'latitude', 'longitude'))
    """
    where = "gridded_orbiter"
    problems: list[XappaError] = []
    if not 0 < fov < 180:
        problems.append(
            bad_argument("a field of view is no angle", where, "0 < fov < 180", f"fov={fov}")
        )
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
    instrument.need_window()
    orbit = Orbit.sun_synchronous() if orbit is None else orbit
    grid = instrument.state.grid
    time = dates(ds[instrument.axes.time])
    seconds = np.atleast_1d(to_seconds(time)[0])
    observed = _seen_around(instrument, orbit, seconds, fov, timedelta_seconds(interval))
    missing = with_dropouts(instrument, f"gridded orbiter {name}", seconds, grid.shape)
    gaps = ~observed if missing is None else ~observed | missing
    coords: dict[str, Any] = {
        "latitude": ("latitude", grid.latitude, about("latitude", "degrees_north")),
        "longitude": ("longitude", grid.longitude, about("longitude", "degrees_east")),
        "platform": platform(name),
        "time": time,
    }
    shape = (*time.shape, *grid.shape)
    dims = (*(str(dim) for dim in time.dims), "latitude", "longitude")
    coords[FLAG] = flags(gaps.reshape(shape), dims)
    return network(instrument, coords, dims, levels_before="latitude", attrs={})


def _swath(
    instrument: Instrument, orbit: Orbit, across: np.ndarray, seconds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times (m,), latitudes and longitudes (m, pixels) of the scans that meet the domain.

    Pixels lie on the great circle through the point below the satellite and the pole of its orbit.
    """
    angle = across / EARTH_RADIUS
    kept = [(np.empty(0), np.empty((0, angle.size)), np.empty((0, angle.size)))]
    for begin in range(0, seconds.size, _SCANS):
        now = seconds[begin : begin + _SCANS]
        below, normal = orbit.directions(now, instrument.state.calendar)
        ahead = np.cos(angle)[:, None] * below[:, None] + np.sin(angle)[:, None] * normal[:, None]
        latitude, longitude = to_degrees(ahead)
        inside = instrument.state.grid.interpolate(latitude.ravel(), longitude.ravel())[2]
        meets = inside.reshape(latitude.shape).any(axis=1)
        kept.append((now[meets], latitude[meets], longitude[meets]))
    times, latitudes, longitudes = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return times, latitudes, longitudes


def _seen_around(
    instrument: Instrument, orbit: Orbit, seconds: np.ndarray, fov: float, interval: float
) -> np.ndarray:
    """Return (T, lat, lon) bool: what is seen from half-way after the last to half-way to the next.

    The ends of the window are as far from the first and last time as their neighbours are.
    """
    grid, calendar = instrument.state.grid, instrument.state.calendar
    if not interval > 0:
        got = f"interval={interval}"
        raise bad_argument("a track has no points", instrument.where, "a positive duration", got)
    half = np.diff(seconds) / 2 if seconds.size > 1 else np.array([interval / 2])
    edges = (
        seconds[:1] - half[:1],
        seconds[:-1] + half[: seconds.size - 1],
        seconds[-1:] + half[-1:],
    )
    bounds = np.ceil(np.concatenate(edges) / interval - 1e-9)
    mask = np.zeros((seconds.size, *grid.shape), bool)
    for k in range(seconds.size):
        moments = np.arange(bounds[k], bounds[k + 1]) * interval
        below, _ = orbit.directions(moments, calendar)
        mask[k] = seen(grid, *to_degrees(below), fov)
    return mask
