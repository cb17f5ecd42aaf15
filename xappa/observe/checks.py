"""Checks of observations against a trajectory's times, domain and levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xappa.cf.names import COORDINATE_NAMES
from xappa.errors import ArgumentError, CoordinateError
from xappa.grid import Grid
from xappa.observe.spec import ObservationSpec, Status

__all__ = [
    "increasing_times",
    "outside_errors",
    "swapped_positions",
    "timeless_errors",
]

SAMPLE = 1000
"""Observations of an array that are looked at to tell whether positions are swapped."""


def increasing_times(times: np.ndarray | None) -> np.ndarray:
    """Return times as a float64 vector, and raise unless they strictly increase."""
    seconds = np.array([np.nan]) if times is None else np.asarray(times, dtype=np.float64)
    if (
        seconds.ndim != 1
        or not seconds.size
        or (seconds.size > 1 and not (np.diff(seconds) > 0).all())
    ):
        raise ArgumentError(
            "the times of the trajectory do not increase",
            where="times",
            expected="a vector of seconds, strictly increasing",
            got=f"shape {seconds.shape}: {seconds[:4] if seconds.ndim else seconds}",
            remedy="sort the Dataset by time: ds.sortby('time'), and drop duplicated times",
        )
    return seconds


def timeless_errors(specs: Sequence[ObservationSpec], times: np.ndarray) -> list[CoordinateError]:
    """One error per array without time, which is legal for one state only."""
    if len(times) == 1:
        return []
    return [_timeless(spec, len(times)) for spec in specs if not spec.has_time and spec.size]


def _timeless(spec: ObservationSpec, n_states: int) -> CoordinateError:
    coords = spec.template.coords
    named = [name for name in coords if str(name).lower() in COORDINATE_NAMES["time"]]
    got = f"coordinates {', '.join(str(name) for name in coords)}"
    remedy = "say when they were made: obs.assign_coords(time=...)"
    if named:  # numbers: text was refused when it was read
        units = coords[named[0]].attrs.get("units")
        got += f", of which {named[0]} holds {coords[named[0]].dtype} with units {units!r}"
        remedy = (
            f"give {named[0]} units such as 'hours since 2000-01-01' and decode it with "
            "xr.decode_cf, or assign dates: obs.assign_coords(time=...)"
        )
    return CoordinateError(
        f"observations {spec.name!r} have no time, but there are {n_states} states",
        where=f"observations {spec.name!r}",
        expected="a coordinate of times with standard_name 'time'",
        got=got,
        remedy=remedy,
    )


def swapped_positions(latitude: np.ndarray, longitude: np.ndarray, grid: Grid) -> list[str]:
    """Return a sentence if most observations are outside the grid, and inside if swapped.

    Parameters
    ----------
    latitude, longitude
        (n,) degrees, as they were given.
    grid
        The grid of the state.

    Returns
    -------
    list of str
        One sentence, or none.
    """
    known = np.isfinite(latitude) & np.isfinite(longitude)
    # weights are dear to compute for millions of points, and a sample tells as well
    sample = np.flatnonzero(known)[:: max(1, int(known.sum()) // SAMPLE)]
    if not sample.size:
        return []
    latitude, longitude = latitude[sample], longitude[sample]
    _, _, inside = grid.interpolate(latitude, longitude)
    if 2 * int(inside.sum()) >= sample.size:
        return []
    _, _, exchanged = grid.interpolate(longitude, latitude)
    exchanged &= ~inside
    if 2 * int(exchanged.sum()) <= sample.size:
        return []
    return [
        "latitude and longitude look swapped: most observations are outside the domain, "
        "and would be inside if they were exchanged"
    ]


def outside_errors(
    specs: Sequence[ObservationSpec], statuses: Sequence[np.ndarray]
) -> list[CoordinateError]:
    """One error per array and kind of observations outside what the state covers."""
    errors = []
    for spec, status in zip(specs, statuses, strict=True):
        for outside in (Status.OUTSIDE_DOMAIN, Status.OUTSIDE_LEVELS, Status.OUTSIDE_WINDOW):
            count = int((status == outside).sum())
            if count:
                errors.append(
                    CoordinateError(
                        f"{count} observations of {spec.name!r} are {outside.reason}",
                        where=f"observations {spec.name!r}",
                        expected="all observations within the grid, the levels and the times",
                        got=f"element {int(np.flatnonzero(status == outside)[0])} is the first",
                        remedy="drop them, or let them be rejected and counted "
                        "(reject_outside=True)",
                    )
                )
    return errors
