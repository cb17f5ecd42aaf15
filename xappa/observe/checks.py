"""Checks of observations against a trajectory's times, domain and levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xappa.errors import ArgumentError, CoordinateError
from xappa.observe.spec import ObservationSpec, Status

__all__ = ["increasing_times", "outside_errors", "timeless_errors"]


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
    return [
        CoordinateError(
            f"observations {spec.name!r} have no time, but there are {len(times)} states",
            where=f"observations {spec.name!r}",
            expected="a coordinate with standard_name 'time'",
            got=f"coordinates {', '.join(str(name) for name in spec.template.coords)}",
            remedy="say when they were made: obs.assign_coords(time=...)",
        )
        for spec in specs
        if not spec.has_time and spec.size
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
