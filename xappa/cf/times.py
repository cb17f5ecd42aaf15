"""Times as float64 seconds since 1970-01-01, in their own calendar.

Times inside xappa are plain numbers, so that cftime calendars, numpy's datetimes and
climatological months pass through the same arithmetic. A double holds seconds to better than a
microsecond for any year between -3000 and 5000.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.errors import ArgumentError, CoordinateError

__all__ = ["convert_calendar", "from_seconds", "phase", "timedelta_seconds", "to_seconds"]

Floats = npt.NDArray[np.float64]

DAY = 86_400.0
EPOCH = "seconds since 1970-01-01"
CALENDAR_ALIASES = {
    "gregorian": "standard",
    "365_day": "noleap",
    "366_day": "all_leap",
    "": "proleptic_gregorian",
}
_FIXED_YEARS = {"noleap": 365.0, "all_leap": 366.0, "360_day": 360.0}
# the Gregorian calendar began on 1582-10-15; from then on standard equals proleptic_gregorian
_REFORM = (np.datetime64("1582-10-15", "s") - np.datetime64("1970-01-01", "s")).astype(float)
_EARLIEST_NS, _LATEST_NS = -9.2e9, 9.2e9


def canonical_calendar(calendar: str) -> str:
    """Return one name per calendar (``365_day`` is ``noleap``, ``gregorian`` is ``standard``)."""
    name = calendar.lower()
    return CALENDAR_ALIASES.get(name, name)


def _simplify(seconds: Floats, calendar: str) -> tuple[Floats, str]:
    calendar = canonical_calendar(calendar)
    finite = seconds[np.isfinite(seconds)]
    if calendar == "standard" and (not finite.size or finite.min() >= _REFORM):
        calendar = "proleptic_gregorian"
    return seconds, calendar


def to_seconds(coord: xr.DataArray) -> tuple[Floats, str]:
    """Return times as seconds since 1970-01-01 in the coordinate's own calendar.

    Parameters
    ----------
    coord
        datetime64 of any unit, cftime of any calendar, numbers with CF time units, or the months
        1 to 12 of a climatology. Any shape.

    Returns
    -------
    seconds
        float64, NaN where the time is missing. Months are the middles of twelve equal parts of
        the noleap year 1970.
    calendar
        CF name. Dates of the standard calendar after 1582 are ``proleptic_gregorian``.

    Raises
    ------
    CoordinateError
        If the coordinate holds no times.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> to_seconds(xr.DataArray(np.array(["1970-01-02"], dtype="datetime64[ns]")))
    (array([86400.]), 'proleptic_gregorian')
    """
    values = coord.values
    if values.dtype.kind == "M":
        return _from_datetime64(values), "proleptic_gregorian"
    if holds_text(coord):
        raise text_error(coord)
    if values.dtype.kind == "O":
        return _from_objects(values, str(coord.name))
    units = str(coord.attrs.get("units", coord.encoding.get("units", "")))
    if values.dtype.kind in "iuf" and " since " in units:
        return _from_numbers(values, units, coord)
    if is_months(coord):
        return (values.astype(np.float64) - 0.5) / 12.0 * 365.0 * DAY, "noleap"
    raise CoordinateError(
        "the coordinate holds no times",
        where=str(coord.name),
        expected="datetime64, cftime, numbers with units such as 'hours since 2000-01-01',"
        " or the months 1 to 12",
        got=f"dtype {values.dtype}, units {units!r}",
        remedy="decode the times: xr.decode_cf(ds)",
    )


def holds_text(coord: xr.DataArray) -> bool:
    """Tell whether a coordinate holds text, such as dates that were not parsed."""
    if coord.dtype.kind == "O" and coord.size:
        return isinstance(coord.values.ravel()[0], str | bytes)
    return coord.dtype.kind in "UST"


def text_error(
    coord: xr.DataArray, variable: str = "ds", where: str | None = None
) -> CoordinateError:
    """Return the error that says that times are text, and how to parse them.

    Parameters
    ----------
    coord
        The coordinate.
    variable
        What the remedy calls the object that has the coordinate.
    where
        What the message calls that object.
    """
    name = str(coord.name)
    times = f"pd.to_datetime({variable}[{name!r}].{'values' if coord.ndim else 'item()'})"
    if coord.ndim and coord.dims != (name,):
        times = f"({tuple(map(str, coord.dims))}, {times})"
    first = coord.values.ravel()[0] if coord.size else ""
    return CoordinateError(
        f"{name} holds no times, but text",
        where=name if where is None else f"{where}, coordinate {name!r}",
        expected="datetime64 or cftime",
        got=f"text such as {str(first)!r}",
        remedy=f"parse it: {variable} = {variable}.assign_coords({name}={times})",
    )


def is_months(coord: xr.DataArray) -> bool:
    """Tell whether a coordinate numbers the months of a climatology."""
    if str(coord.name).lower() != "month" or coord.dtype.kind not in "iuf" or not coord.size:
        return False
    values = np.asarray(coord.values, dtype=np.float64)
    return bool(np.all((values >= 1) & (values <= 12) & (values == np.round(values))))


def _from_datetime64(values: npt.NDArray[Any]) -> Floats:
    # whole seconds and the rest apart: nanoseconds since 1970 do not fit a double
    whole = values.astype("datetime64[s]")
    rest = (values - whole) / np.timedelta64(1, "s")
    seconds = np.asarray(whole.astype(np.int64).astype(np.float64) + rest)
    return np.asarray(np.where(np.isnat(values), np.nan, seconds), dtype=np.float64)


def _from_objects(values: npt.NDArray[Any], name: str) -> tuple[Floats, str]:
    import cftime

    flat = values.ravel()
    valid = np.array([isinstance(v, cftime.datetime | datetime.datetime) for v in flat], dtype=bool)
    if not valid.any():
        raise CoordinateError(
            "the coordinate holds no times",
            where=name,
            expected="datetime64 or cftime",
            got=f"objects such as {flat[0]!r}" if flat.size else "no values",
            remedy="decode the times: xr.decode_cf(ds)",
        )
    calendars = {canonical_calendar(getattr(v, "calendar", "standard")) for v in flat[valid]}
    if len(calendars) > 1:
        raise CoordinateError(
            "times of several calendars are mixed",
            where=name,
            expected="one calendar",
            got=", ".join(sorted(calendars)),
            remedy="convert them: da.convert_calendar('standard')",
        )
    calendar = calendars.pop()
    seconds = np.full(flat.shape, np.nan)
    seconds[valid] = cftime.date2num(flat[valid], EPOCH, calendar=calendar)
    return _simplify(seconds.reshape(values.shape), calendar)


def _from_numbers(values: npt.NDArray[Any], units: str, coord: xr.DataArray) -> tuple[Floats, str]:
    import cftime

    calendar = canonical_calendar(
        str(coord.attrs.get("calendar", coord.encoding.get("calendar", "standard")))
    )
    valid = np.isfinite(values)
    try:
        dates = cftime.num2date(values[valid], units, calendar=calendar)
        seconds = np.full(values.shape, np.nan)
        seconds[valid] = cftime.date2num(dates, EPOCH, calendar=calendar)
    except (ValueError, OverflowError) as error:
        raise CoordinateError(
            "the units of time cannot be read",
            where=str(coord.name),
            expected="units such as 'hours since 2000-01-01'",
            got=f"{units!r} ({error})",
            remedy="correct the units attribute of the coordinate",
        ) from error
    return _simplify(seconds, calendar)


def from_seconds(seconds: npt.ArrayLike, calendar: str) -> npt.NDArray[Any]:
    """Return dates: the inverse of `to_seconds`.

    Parameters
    ----------
    seconds
        Seconds since 1970-01-01 in `calendar`, of any shape; rounded to microseconds.
    calendar
        CF name.

    Returns
    -------
    datetime64[ns] for the standard and proleptic_gregorian calendars (microseconds where
    nanoseconds overflow), else an object array of cftime dates. Missing times are NaT or None.

    Examples
    --------
    >>> from_seconds([0.0], "proleptic_gregorian")
    array(['1970-01-01T00:00:00.000000000'], dtype='datetime64[ns]')
    >>> from_seconds([0.0], "360_day")[0].isoformat()
    '1970-01-01T00:00:00'
    """
    values = np.asarray(seconds, dtype=np.float64)
    calendar = canonical_calendar(calendar)
    valid = np.isfinite(values)
    before_reform = calendar == "standard" and bool(np.any(values[valid] < _REFORM))
    if calendar == "proleptic_gregorian" or (calendar == "standard" and not before_reform):
        return _to_datetime64(values, valid)
    import cftime

    out = np.full(values.shape, None, dtype=object)
    if valid.any():
        whole = np.floor(values[valid])
        micro = np.round((values[valid] - whole) * 1e6).astype(np.int64)
        dates = cftime.num2date(whole, EPOCH, calendar=calendar)
        out[valid] = [
            date + datetime.timedelta(microseconds=int(m)) if m else date
            for date, m in zip(np.ravel(dates), micro, strict=True)
        ]
    return out


def _to_datetime64(values: Floats, valid: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    safe = np.where(valid, values, 0.0)
    whole = np.floor(safe)
    micro = whole.astype(np.int64) * 1_000_000 + np.round((safe - whole) * 1e6).astype(np.int64)
    dates = micro.astype("datetime64[us]")
    if safe.size == 0 or (safe.min() > _EARLIEST_NS and safe.max() < _LATEST_NS):
        dates = dates.astype("datetime64[ns]")
    return np.where(valid, dates, np.datetime64("NaT").astype(dates.dtype))


def convert_calendar(seconds: npt.ArrayLike, from_calendar: str, to_calendar: str) -> Floats:
    """Convert seconds of one calendar to seconds of another, date component by component.

    Parameters
    ----------
    seconds
        Seconds since 1970-01-01 in `from_calendar`, of any shape.
    from_calendar, to_calendar
        CF names.

    Returns
    -------
    float64 seconds; NaN where the date does not exist in `to_calendar` (30 February).

    Examples
    --------
    >>> float(convert_calendar(365 * 86400.0, "noleap", "proleptic_gregorian")) / 86400
    365.0
    """
    values = np.asarray(seconds, dtype=np.float64)
    source, target = canonical_calendar(from_calendar), canonical_calendar(to_calendar)
    valid = np.isfinite(values)
    gregorian = {"standard", "proleptic_gregorian"}
    modern = {source, target} <= gregorian and not np.any(values[valid] < _REFORM)
    if source == target or modern:
        return values.copy()
    import cftime

    # stations share their times: only distinct ones are converted
    distinct, inverse = np.unique(values[valid], return_inverse=True)
    whole = np.floor(distinct)
    converted = np.full(distinct.shape, np.nan)
    for k, date in enumerate(cftime.num2date(whole, EPOCH, calendar=source)):
        parts = (date.year, date.month, date.day, date.hour, date.minute, date.second)
        try:
            other = cftime.datetime(*parts, calendar=target)
        except ValueError:
            continue
        converted[k] = cftime.date2num(other, EPOCH, calendar=target) + distinct[k] - whole[k]
    out = np.full(values.shape, np.nan)
    out[valid] = converted[inverse]
    return out


def timedelta_seconds(value: Any) -> float:
    """Return a duration in seconds.

    Parameters
    ----------
    value
        Text that pandas reads (``"6h"``, ``"3D"``), timedelta64, ``datetime.timedelta``,
        ``pandas.Timedelta``, a pint quantity, or a number of seconds.

    Raises
    ------
    ArgumentError
        If the value is no finite duration.

    Examples
    --------
    >>> timedelta_seconds("6h")
    21600.0
    """
    item = value
    try:
        if hasattr(value, "magnitude") and hasattr(value, "to"):
            return _finite(float(value.to("second").magnitude), value)
        if isinstance(value, np.ndarray | xr.DataArray):
            item = np.asarray(value)[()]
        # numpy counts timedelta64 among its integers, and Python bool among its own
        number = isinstance(item, int | float | np.integer | np.floating)
        if number and not isinstance(item, bool | np.timedelta64):
            return _finite(float(item), value)
        import pandas as pd

        seconds = pd.Timedelta(item).total_seconds()
    # pandas and pint raise errors of many classes for what they cannot read
    except Exception as error:
        raise _no_duration(value) from error
    return _finite(seconds, value)


def _no_duration(value: object) -> ArgumentError:
    return ArgumentError(
        "this is no duration",
        expected="text such as '6h' or '3D', a timedelta, or a number of seconds",
        got=repr(value),
        remedy="write for example '6h'",
    )


def _finite(seconds: float, value: object) -> float:
    if not np.isfinite(seconds):
        raise _no_duration(value)
    return seconds


def phase(seconds: npt.ArrayLike, calendar: str) -> tuple[Floats, Floats]:
    """Return the phase of the diurnal and of the annual cycle.

    Parameters
    ----------
    seconds
        Seconds since 1970-01-01 in `calendar`, of any shape.
    calendar
        CF name.

    Returns
    -------
    day, year
        Fractions of the UTC day and of the calendar year, in [0, 1), float64.

    Examples
    --------
    >>> day, year = phase([21600.0, 86400.0 * 365 / 2], "noleap")
    >>> day.tolist(), year.tolist()
    ([0.25, 0.5], [0.0006849315068493151, 0.5])
    """
    values = np.asarray(seconds, dtype=np.float64)
    calendar = canonical_calendar(calendar)
    day = _fraction(values, DAY)
    if calendar in _FIXED_YEARS:
        return day, _fraction(values, _FIXED_YEARS[calendar] * DAY)
    # the Gregorian year is right for dates after the reform, and the Julian phase drifts by days
    valid = np.isfinite(values)
    dates = np.where(valid, np.floor(np.where(valid, values, 0.0)), 0.0).astype("datetime64[s]")
    start = dates.astype("datetime64[Y]")
    begin = start.astype("datetime64[s]").astype(np.int64)
    end = (start + 1).astype("datetime64[s]").astype(np.int64)
    year = np.where(valid, (values - begin) / (end - begin), np.nan)
    return day, np.clip(year, 0.0, np.nextafter(1.0, 0.0))


def _fraction(values: Floats, period: float) -> Floats:
    fraction = np.mod(values, period) / period
    return np.asarray(np.where(fraction >= 1.0, 0.0, fraction), dtype=np.float64)
