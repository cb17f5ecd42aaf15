"""Observations from BUFR, through pdbufr: reports of stations, soundings, ships and aircraft.

pdbufr makes a table of the keys of ecCodes, with one row for each level of a sounding; that table
is read as any other (`from_frame`), which is also the way for messages that need columns or
filters of their own::

    from_frame(pdbufr.read_bufr(path, columns=[...], filters={...}))

References
----------
- pdbufr, https://pdbufr.readthedocs.io
- BUFR keys of ecCodes, https://confluence.ecmwf.int/display/ECC/BUFR+keys
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from xappa._optional import require
from xappa.errors import DataError, GuessWarning, warn
from xappa.observe.sources.frame import from_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_bufr"]

_PLACE = ("latitude", "longitude", "data_datetime", "typical_datetime", "WMO_station_id")
_PARTS = ("year", "month", "day", "hour", "minute")
_ELEVATION = "heightOfStationGroundAboveMeanSeaLevel"
_DRIFT = ("timePeriod", "latitudeDisplacement", "longitudeDisplacement")
_SURFACE = (
    *("airTemperatureAt2M", "dewpointTemperatureAt2M", "windSpeedAt10M", "windDirectionAt10M"),
    *("airTemperature", "dewpointTemperature", "windSpeed", "windDirection"),
    *("nonCoordinatePressure", "pressureReducedToMeanSeaLevel"),
)
_UPPER = (
    *("pressure", "airTemperature", "dewpointTemperature", "windSpeed", "windDirection"),
    *("nonCoordinateGeopotentialHeight",),
)
_AT_SURFACE, _ALOFT = [0, 1], [2, 4]
"""Categories of messages in BUFR's table A: land and sea; soundings and single levels aloft."""


def from_bufr(
    path: str | os.PathLike[str], *, filters: Mapping[str, Any] | None = None
) -> xr.Dataset | dict[str, xr.Dataset]:
    """Read temperature, dew point, wind, pressure and height from BUFR messages.

    Parameters
    ----------
    path
        A file of BUFR messages.
    filters
        Which messages and reports to read, as ``pdbufr.read_bufr`` takes it:
        ``{"WMO_station_id": [10393]}``.

    Returns
    -------
    Dataset, or dict of str to Dataset
        Along ``obs``, with BUFR's units: one Dataset of reports from land and sea; one of soundings
        and aircraft with the coordinate air_pressure, each level where and when the balloon was
        there; or both, under the names ``surface`` and ``upper``. What `assimilate` and `operator`
        take.

    Raises
    ------
    MissingDependencyError
        If pdbufr is not installed.
    DataError
        If the file is not BUFR, or holds nothing of what is read.

    Warns
    -----
    GuessWarning
        If levels of soundings or aircraft have no pressure: they are left out.

    Notes
    -----
    BUFR does not tell observation errors: pass ``error=``.
    """
    pdbufr = require("pdbufr", "reading BUFR")
    tables = {}
    for name, keys, more, category in (
        ("surface", _SURFACE, (_ELEVATION,), _AT_SURFACE),
        ("upper", _UPPER, _DRIFT, _ALOFT),
    ):
        chosen = {"dataCategory": category, **(filters or {})}
        try:
            frame = pdbufr.read_bufr(
                os.fspath(path),
                columns=[*_PLACE, *_PARTS, *more, *keys],
                filters=chosen,
                required_columns=["latitude", "longitude"],
            )
        except FileNotFoundError:
            raise
        except Exception as error:  # ecCodes has errors of its own, which need not be installed
            raise _unreadable(path, str(error)) from error
        frame = frame.dropna(axis="columns", how="all")
        kept = [key for key in keys if key in frame.columns]
        if name == "upper" and len(frame) and kept:
            frame = _at_pressures(frame)
        if len(frame) and kept:
            frame = _with_drift(_with_time(frame.dropna(subset=kept, how="all")))
            tables[name] = from_frame(frame)
    if not tables:
        raise _unreadable(path, "no message with temperature, wind, pressure or height")
    found: Any = tables if len(tables) > 1 else next(iter(tables.values()))
    return found  # type: ignore[no-any-return]


def _at_pressures(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the levels whose pressure is known."""
    placed = frame[frame["pressure"].notna()] if "pressure" in frame.columns else frame.iloc[:0]
    if len(placed) < len(frame):
        lost = len(frame) - len(placed)
        warn(f"{lost} levels aloft have no pressure: they are left out", GuessWarning)
    return placed


def _with_time(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the time of the report, or that of its message where it gives none.

    pdbufr makes no time of a report whose seconds are missing.
    """
    import pandas as pd

    time = pd.Series(pd.NaT, frame.index, dtype="datetime64[ns]")
    if "data_datetime" in frame.columns:
        time = frame["data_datetime"].astype("datetime64[ns]")
    if set(_PARTS) <= set(frame.columns):
        time = time.fillna(pd.to_datetime(frame[list(_PARTS)], errors="coerce"))
    if "typical_datetime" in frame.columns:
        time = time.fillna(frame["typical_datetime"])
    return frame.drop(columns=["typical_datetime", *_PARTS], errors="ignore").assign(
        data_datetime=time
    )


def _with_drift(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the place and time of each level, where the balloon was."""
    import pandas as pd

    moved = {}
    for column, by in zip(("latitude", "longitude"), _DRIFT[1:], strict=True):
        if by in frame.columns:
            moved[column] = frame[column] + frame[by].fillna(0.0)
    if _DRIFT[0] in frame.columns:
        later = pd.to_timedelta(frame[_DRIFT[0]].fillna(0.0), unit="s")
        moved["data_datetime"] = frame["data_datetime"] + later
    return frame.assign(**moved).drop(columns=list(_DRIFT), errors="ignore")


def _unreadable(path: str | os.PathLike[str], got: str) -> DataError:
    return DataError(
        "nothing can be read from the file",
        where=os.fspath(path),
        expected="BUFR messages of reports or soundings",
        got=got or "no message",
        remedy="look at the file with bufr_dump -p; read what it holds with pdbufr.read_bufr, and "
        "pass the table to from_frame",
    )
