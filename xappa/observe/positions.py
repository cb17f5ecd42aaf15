"""Where and when observations were made: coordinates of an array to vectors over its elements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from xappa.cf import (
    PRESSURE,
    Axes,
    convert_calendar,
    find_axes,
    holds_text,
    standard_name,
    text_error,
    to_seconds,
    vertical_levels,
)
from xappa.cf.names import COORDINATE_NAMES
from xappa.cf.vertical import MODEL_LEVELS
from xappa.errors import CoordinateError
from xappa.observe.aloft import check_heights
from xappa.observe.ancillary import ancillary_names, is_companion, on_elements
from xappa.observe.checks import swapped_positions
from xappa.observe.error import ERROR_COORDINATE
from xappa.observe.values import HUGE

if TYPE_CHECKING:
    from xappa.bridge import StateSpec

__all__ = ["Positions", "read_positions"]

TURNS = 720.0
"""Degrees up to which longitudes wrap around the globe, as unwrapped tracks have them."""


@dataclass(frozen=True)
class Positions:
    """Places and times of the n elements of an array.

    Parameters
    ----------
    latitude, longitude
        (n,) degrees north and east; NaN where impossible.
    time
        (n,) seconds in the state's calendar; NaN where unknown.
    has_time
        Whether the array has a time coordinate.
    pressure
        (n,) Pa, or None without a pressure coordinate.
    level
        (n,) values of a model's vertical coordinate, or None without one.
    vertical
        What the vertical coordinate is (`xappa.cf.vertical`).
    guesses
        What was assumed.
    axes
        The coordinates.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    time: np.ndarray
    has_time: bool
    pressure: np.ndarray | None
    level: np.ndarray | None
    vertical: str
    guesses: tuple[str, ...]
    axes: Axes


def read_positions(array: xr.DataArray, state: StateSpec, where: str) -> Positions:
    """Read where and when the elements of an array were observed.

    Parameters
    ----------
    array
        The observations.
    state
        Gives the calendar, and the grid by which swapped coordinates are noticed.
    where
        How messages call the array.

    Raises
    ------
    CoordinateError
        If latitude or longitude is missing, a coordinate cannot be read, there are members, or
        several heights above ground.
    """
    axes = _axes(array, where)

    def elements(name: str | None, numbers: np.ndarray | None = None) -> np.ndarray:
        coordinate = array.coords[str(name)].reset_coords(drop=True)
        if numbers is not None:
            coordinate = xr.DataArray(
                numbers.reshape(coordinate.shape), dims=coordinate.dims, name=coordinate.name
            )
        flat = on_elements(coordinate, array)
        return np.array(flat, dtype=np.float64)

    guesses = list(axes.guesses)
    time = np.full(array.size, np.nan)
    if axes.time is not None:
        seconds, calendar = to_seconds(array.coords[axes.time])
        time = elements(axes.time, np.asarray(seconds))
        if calendar != state.calendar:
            time = np.asarray(convert_calendar(time, calendar, state.calendar))
            guesses.append(f"dates of calendar {calendar} are taken as dates of {state.calendar}")
    else:
        said = [
            f"{name} holds {coord.dtype} without units of time"
            for name, coord in array.coords.items()
            if str(name).lower() in COORDINATE_NAMES["time"]
        ]
        why = ", ".join(said) or "no time coordinate"
        guesses.append(f"{why}: the observations belong to the only state")
    at, vertical = None, PRESSURE
    if axes.vertical is None:
        check_heights(array, where)
    else:
        coord, strange = _possible(array.coords[axes.vertical])
        guesses += strange
        levels, vertical, guess = vertical_levels(coord)
        at = elements(axes.vertical, np.asarray(levels))
        guesses += [] if guess is None else [guess]
    latitude, longitude = elements(axes.latitude), elements(axes.longitude)
    guesses += swapped_positions(latitude, longitude, state.grid)
    for what, values, limit in (
        ("latitudes beyond a pole", latitude, 90.0),
        (f"longitudes beyond {TURNS:g} degrees", longitude, TURNS),
    ):
        values[np.isinf(values)] = np.nan
        impossible = np.abs(values) > limit
        if impossible.any():
            guesses.append(f"{int(impossible.sum())} {what}: rejected")
            values[impossible] = np.nan
    return Positions(
        latitude,
        longitude,
        time,
        axes.time is not None,
        at if vertical == PRESSURE else None,
        None if vertical == PRESSURE else at,
        vertical,
        tuple(guesses),
        axes,
    )


def _possible(coord: xr.DataArray) -> tuple[xr.DataArray, list[str]]:
    """Set pressures that are not positive aside: those observations lie on no level."""
    if coord.dtype.kind not in "fiu" or standard_name(coord) in MODEL_LEVELS or not coord.ndim:
        return coord, []
    bad = np.asarray((coord.values <= 0) | (coord.values > HUGE))
    if not bad.any() or bad.all():
        return coord, []
    said = f"{int(bad.sum())} values of {str(coord.name)!r} are not possible: rejected"
    return coord.where(~bad).assign_attrs(coord.attrs), [said]


def _axes(array: xr.DataArray, where: str) -> Axes:
    """Find the coordinates; those of errors and flags are no candidates."""
    aside = [name for name, coord in array.coords.items() if is_companion(coord)]
    bare = array.drop_vars({*aside, *ancillary_names(array), ERROR_COORDINATE}, errors="ignore")
    # positions and times may vary along several dims: each such coordinate gets a dim of its own
    wide = {
        name: (f"xappa_{name}", coord.values.reshape(-1), coord.attrs, coord.encoding)
        for name, coord in bare.coords.items()
        if coord.ndim > 1
    }
    probe = bare.drop_vars(list(wide)).to_dataset(name="xappa_observations").assign_coords(wide)
    axes = find_axes(probe, require=("latitude", "longitude"), variable="obs", where=where)
    if axes.time is not None and holds_text(array.coords[axes.time]):
        raise text_error(array.coords[axes.time], "obs", where)
    member = axes.member
    if member is None:
        return axes
    placed = [array.coords[name] for name in (axes.latitude, axes.longitude, axes.time) if name]
    if any(member in coord.dims for coord in placed):  # "sample", "number": no member after all
        said = tuple(g for g in axes.guesses if not g.startswith(f"{member}: "))
        return replace(axes, member=None, guesses=said)
    raise CoordinateError(
        f"{where} have a realization dimension",
        where=f"dimension {member!r}",
        expected="one observed value at each place and time",
        got=f"{array.sizes[member]} members",
        remedy=f"choose one with isel({member}=0)",
    )
