"""From the columns of a table to coordinates along ``obs``: positions, times, flags, duplicates.

Fill values are no observations: numbers beyond 1e30, infinities, and the numbers in `FILLS` become
NaN, as does text among numbers (``M``, ``T``, ``VRB``).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa.cf import is_surface
from xappa.cf.names import COORDINATE_NAMES
from xappa.errors import CoordinateError, GuessWarning, UnitsError, warn
from xappa.units import convert

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LARGEST",
    "PLACES",
    "POSITION_ATTRS",
    "checked_longitude",
    "dropped",
    "has_levels",
    "implied_units",
    "numbers",
    "pick",
    "positions",
    "quality_flag",
    "without_duplicates",
]

FILLS = (-9999.0, -99999.0, -999999.0, -888888.0)
"""Numbers that stand for nothing: those of many archives, and DART's ``MISSING_R8``."""
LARGEST = 1e30
"""Fill values of NetCDF (9.97e36), JEDI (-3.37e38) and BUFR (-1e100) lie beyond; data do not."""
_LARGEST_HPA = 1100.0
_COLDEST = 100.0

_STATION = (
    *("station", "station_id", "station_name", "stationname", "wmo_station_id", "platform"),
    *("platform_id", "stnid", "ident", "id", "name"),
)
_TIME = (
    *COORDINATE_NAMES["time"],
    *("valid", "timeobs", "data_datetime", "typical_datetime", "timenominal", "date_time"),
)
_ELEVATION = (
    *("altitude", "elevation", "elev", "station_elevation", "station_elev"),
    *("heightofstationgroundabovemeansealevel", "heightofstation"),
)
_PRESSURE = ("pressure", "pres", "air_pressure", "plev", "level", "lev")
_PARTS = ("year", "month", "day", "hour", "minute", "second")
PLACES: Mapping[str, tuple[str, ...]] = {
    "latitude": COORDINATE_NAMES["latitude"],
    "longitude": COORDINATE_NAMES["longitude"],
    "time": _TIME,
    "altitude": _ELEVATION,
    "air_pressure": _PRESSURE,
    "station": _STATION,
}
"""Names of columns that say where, when and by whom, in lower case, the first first."""
POSITION_ATTRS: Mapping[str, Mapping[str, str]] = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
    "time": {"standard_name": "time"},
    "air_pressure": {"standard_name": "air_pressure", "units": "Pa"},
    "altitude": {"standard_name": "altitude", "units": "m"},
}
_NOT_GIVEN = -9999


def pick(columns: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return the first of several columns that a table has, or None."""
    return next((columns[name] for name in names if name in columns), None)


def numbers(values: Any) -> np.ndarray:
    """Return numbers as float64; NaN for fill values and text.

    >>> import pandas as pd
    >>> numbers(pd.Series(["1.5", "M", "-9999"]))
    array([1.5, nan, nan])
    """
    import pandas as pd

    found: np.ndarray = np.array(pd.to_numeric(values, errors="coerce"), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        found[np.isin(found, FILLS) | ~(np.abs(found) < LARGEST)] = np.nan
    return found


def implied_units(standard_name: str, canonical: str, values: np.ndarray, where: str) -> str:
    """Return the units of values that come without any.

    Pressures up to 1100 are in hPa, relative humidities beyond 1.5 in percent; all else has its
    canonical units.

    Parameters
    ----------
    standard_name, canonical
        The quantity, and its units in CF.
    values
        (n,)
    where
        How messages call the column.

    Raises
    ------
    UnitsError
        If temperatures cannot be in kelvin.
    """
    known = values[np.isfinite(values)]
    middle = float(np.median(known)) if known.size else np.nan
    if canonical == "K" and middle < _COLDEST:
        raise UnitsError(
            "temperatures without units are not in kelvin",
            where=where,
            expected=f"a median above {_COLDEST:g} K, or units",
            got=f"a median of {middle:g}",
            remedy=f"say the units: from_frame(frame, units={{{where!r}: 'degC'}})",
        )
    if canonical == "Pa" and middle <= _LARGEST_HPA:
        return "hPa"
    if standard_name == "relative_humidity" and known.size and known.max() > 1.5:
        return "%"
    return canonical


def positions(
    rows: pd.DataFrame, columns: Mapping[str, Any], units: Mapping[str, str]
) -> dict[str, xr.Variable]:
    """Return coordinates along ``obs``: latitude, longitude, time, and what else the table says.

    Parameters
    ----------
    rows
        The table.
    columns
        Its columns by their names in lower case.
    units
        Units that the user gives to columns.

    Raises
    ------
    CoordinateError
        If positions or times are missing, or no time can be read.
    """
    coords = {
        "latitude": xr.Variable("obs", _column(rows, columns, "latitude")),
        "longitude": xr.Variable("obs", checked_longitude(_column(rows, columns, "longitude"))),
        "time": xr.Variable("obs", _times(rows, columns)),
    }
    for name, values in _vertical(rows, columns, units).items():
        coords[name] = xr.Variable("obs", values)
    for name, variable in coords.items():
        variable.attrs = dict(POSITION_ATTRS[name])
    station = _station(rows, columns)
    if station is not None:
        coords["station"] = xr.Variable("obs", station)
    return coords


def _column(rows: pd.DataFrame, columns: Mapping[str, Any], role: str) -> np.ndarray:
    column = pick(columns, PLACES[role])
    if column is None:
        raise _absent(rows, role)
    return numbers(rows[column])


def _absent(rows: pd.DataFrame, role: str) -> CoordinateError:
    return CoordinateError(
        f"the table has no {role}",
        where="from_frame",
        expected=f"a column {' or '.join(PLACES[role][:3])}",
        got=", ".join(map(str, rows.columns)),
        remedy=f"rename it: frame.rename(columns={{...: {role!r}}}), or join it from a list of "
        "stations: frame.merge(stations, on='station')",
    )


def checked_longitude(longitude: np.ndarray) -> np.ndarray:
    """Return longitudes; NaN, so that they are rejected and counted, for impossible ones."""
    with np.errstate(invalid="ignore"):
        impossible = np.abs(longitude) > 360
    if impossible.any():
        warn(f"{int(impossible.sum())} longitudes beyond 360 degrees: rejected", GuessWarning)
    return np.where(impossible, np.nan, longitude)


def _times(rows: pd.DataFrame, columns: Mapping[str, Any]) -> np.ndarray:
    """Return times in UTC; NaT, so that they are rejected and counted, where unreadable."""
    import pandas as pd

    column = pick(columns, PLACES["time"])
    if column is None:
        if not {"year", "month", "day"} <= set(columns):
            raise _absent(rows, "time")
        parts = {name: numbers(rows[columns[name]]) for name in _PARTS if name in columns}
        given: Any = pd.DataFrame(parts)
    elif pd.api.types.is_numeric_dtype(rows[column]):
        raise CoordinateError(
            "times are numbers",
            where=f"column {column!r}",
            expected="dates, or text of dates",
            got=f"{rows[column].dtype}",
            remedy=f"say what they count: frame[{column!r}] = pd.to_datetime(frame[{column!r}], "
            "unit='s')",
        )
    else:
        given = rows[column]
    times = _dates(given, {} if column is None else {"format": "mixed"})
    unread = int(times.isna().sum())
    if unread and unread == len(times):
        raise CoordinateError(
            "no time can be read",
            where=f"column {'year' if column is None else column!r}",
            expected="dates, or text such as 2020-01-01T00:00",
            got=f"{rows[column].iloc[0]!r}" if column is not None else "no dates",
            remedy="convert them: pd.to_datetime(frame[...], format=...)",
        )
    if unread:
        warn(f"{unread} times cannot be read: rejected", GuessWarning)
    values: np.ndarray = times.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]")
    return values


def _dates(given: Any, options: Mapping[str, str]) -> pd.Series:
    """Return dates in UTC; NaT for text that is none, and text of any format if there are many."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Could not infer format", UserWarning)
        try:
            return pd.to_datetime(given, utc=True)
        except (ValueError, TypeError, OverflowError):
            return pd.to_datetime(given, utc=True, errors="coerce", **options)


def _station(rows: pd.DataFrame, columns: Mapping[str, Any]) -> np.ndarray | None:
    column = pick(columns, _STATION)
    if column is not None:
        names: np.ndarray = rows[column].astype(str).to_numpy(dtype=object)
        return names
    if {"blocknumber", "stationnumber"} <= set(columns):
        block, number = (numbers(rows[columns[c]]) for c in ("blocknumber", "stationnumber"))
        ids = [f"{b:02.0f}{n:03.0f}" for b, n in zip(block, number, strict=True)]
        return np.array(ids, dtype=object)
    return None


def _vertical(
    rows: pd.DataFrame, columns: Mapping[str, Any], units: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return pressures in Pa and altitudes in m; nothing where a column holds none."""
    if "vertical" in columns and "vert_unit" in columns:
        unit = rows[columns["vert_unit"]].astype(str).str.lower()
        values = numbers(rows[columns["vertical"]])
        if unit.str.contains("pressure").all():
            return {"air_pressure": values}
        return {"altitude": values} if unit.str.contains("height|surface").all() else {}
    found = {}
    pressure, altitude = pick(columns, _PRESSURE), pick(columns, _ELEVATION)
    if pressure is not None and _tells(values := numbers(rows[pressure])):
        given = units.get(str(pressure))
        if given is None:
            given = "hPa" if np.nanmax(values, initial=0.0) <= _LARGEST_HPA else "Pa"
        found["air_pressure"] = np.asarray(convert(values, given, "Pa", where=str(pressure)))
    launched = "air_pressure" in found and str(altitude).lower().startswith("heightofstation")
    if altitude is not None and not launched:  # of a sounding it is where the balloon started
        values = numbers(rows[altitude])
        values[values == 9999.0] = np.nan
        if _tells(values):
            given = units.get(str(altitude), "m")
            found["altitude"] = np.asarray(convert(values, given, "m", where=str(altitude)))
    return found


def _tells(values: np.ndarray) -> bool:
    """Whether a column says anything; one of an empty table may."""
    return not values.size or bool(np.isfinite(values).any())


def quality_flag(
    codes: np.ndarray, passed: Collection[int], dims: Sequence[str] = ("obs",)
) -> xr.Variable:
    """Return codes as a CF flag, whose meanings say which of them passed.

    Parameters
    ----------
    codes
        Numbers; NaN where none was given, which rejects nothing.
    passed
        The codes of observations that may be used.
    dims
        Dimensions of the codes.

    Examples
    --------
    >>> quality_flag(np.array([0.0, 9.0]), {0}).attrs["flag_meanings"]
    'passed_0 rejected_9'
    """
    filled = np.where(np.isfinite(codes), codes, _NOT_GIVEN).astype(np.int32)
    found = sorted({*passed, *(int(code) for code in np.unique(filled))})
    words = [
        "not_given" if c == _NOT_GIVEN else f"{'passed' if c in passed else 'rejected'}_{c}"
        for c in found
    ]
    attrs = {
        "standard_name": "quality_flag",
        "flag_values": np.array(found, np.int32),
        "flag_meanings": " ".join(words).replace("-", "minus_"),
    }
    return xr.Variable(tuple(dims), filled, attrs)


def without_duplicates(ds: xr.Dataset) -> tuple[xr.Dataset, int]:
    """Return a Dataset along ``obs`` without rows that repeat another, and how many those were.

    A row repeats another where all is the same: place, time, station, values, errors and flags.
    """
    import pandas as pd

    rows = {str(n): v.values for n, v in ds.variables.items() if v.dims == ("obs",)}
    repeated = pd.DataFrame(rows).duplicated().to_numpy()
    count = int(repeated.sum())
    return (ds.isel(obs=~repeated), count) if count else (ds, 0)


def dropped(count: int) -> None:
    """Say how many repeated rows were left out, if any."""
    if count:
        warn(f"{count} rows that repeat another are left out", GuessWarning)


def has_levels(standard_name: str, height: float | None) -> bool:
    """Tell whether a quantity may lie at a pressure."""
    return height is None and not is_surface(standard_name)
