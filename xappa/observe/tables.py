"""Observations from tables: one row an observation, or one row a station and time.

Columns are found by the names that archives give them. A table with a column that says what each
row measures (``variable`` or ``type``) becomes one array for each quantity; any other table is one
whose columns are quantities. DART's types end in what they measure (``RADIOSONDE_TEMPERATURE``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa.cf import identify
from xappa.cf.names import COORDINATE_NAMES, KNOWN
from xappa.errors import (
    CoordinateError,
    GuessWarning,
    ObservationTypeError,
    UnknownQuantityError,
    warn,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_frame"]

_WHAT = ("variable", "type", "parameter", "quantity")
_VALUE = ("observation", "value", "obs", "obsvalue")
_UNITS = ("units", "unit")
_STATION = ("station", "station_id", "station_name", "platform", "platform_id", "id", "name")
_ALTITUDE = ("altitude", "elevation", "elev", "station_elevation")
_PRESSURE = ("pressure", "pres", "air_pressure", "plev", "level", "lev")
#: Column, and whether it holds variances.
_ERROR = (
    ("error", False),
    ("error_std", False),
    ("obs_err", False),
    ("observation_error", False),
    ("obs_err_var", True),
    ("error_variance", True),
)
_QUALITY = ("quality", "quality_flag", "qc", "dart_quality_control", "dart_qc")

#: What DART's types end in: standard name, units, operator.
_DART: tuple[tuple[str, str, str, str | None], ...] = (
    ("_U_WIND_COMPONENT", "eastward_wind", "m s-1", None),
    ("_V_WIND_COMPONENT", "northward_wind", "m s-1", None),
    ("_SPECIFIC_HUMIDITY", "specific_humidity", "kg kg-1", None),
    ("_RELATIVE_HUMIDITY", "relative_humidity", "1", None),
    ("_SURFACE_PRESSURE", "surface_air_pressure", "Pa", None),
    ("_DEWPOINT", "dew_point_temperature", "K", None),
    ("_GEOPOTENTIAL_HEIGHT", "geopotential_height", "m", None),
    ("_TEMPERATURE", "air_temperature", "K", None),
    ("GPSRO_REFRACTIVITY", "refractivity", "1", "refractivity"),
)
_ATTRS = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
    "time": {"standard_name": "time"},
    "air_pressure": {"standard_name": "air_pressure", "units": "Pa"},
    "altitude": {"standard_name": "altitude", "units": "m"},
}
#: Above this a column of pressures without units is in Pa; no pressure in hPa exceeds it.
_LARGEST_HPA = 1100.0


def from_frame(frame: pd.DataFrame) -> dict[str, xr.DataArray] | xr.Dataset:
    """Make observation arrays from a table.

    Parameters
    ----------
    frame
        Columns of positions and times (``lat``, ``latitude``, ``time``, ``datetime``, ...), and

        - of long tables: what was measured (``variable`` or ``type``), the value (``observation``
          or ``value``), and optionally ``units``, an error (``error``, ``error_std``, or a variance
          ``obs_err_var``), a pressure (``pressure``, ``pres``; or ``vertical`` with ``vert_unit``,
          as DART has it), an ``elevation``, a ``station``, a quality flag that is zero for good;
        - of others: one column for each quantity, by a name that archives use.

        Times with a zone become UTC. The frame is not changed.

    Returns
    -------
    dict of str to DataArray, or Dataset
        Of a long table one array along ``obs`` for each quantity, else a Dataset. What `assimilate`
        and `operator` take.

    Raises
    ------
    CoordinateError
        If positions or times are missing.
    UnknownQuantityError
        If nothing in the table is recognised.
    ObservationTypeError
        If it is no table, or the rows of a quantity have several units.

    Warns
    -----
    GuessWarning
        If some rows measure what is not recognised: they are left out.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"time": "2020-01-01", "lat": 50.0, "lon": 0.0, "variable": "t2m", "value": 280.0}
    >>> list(from_frame(pd.DataFrame([row])))
    ['t2m']
    """
    if not hasattr(frame, "columns") or not hasattr(frame, "reset_index"):
        raise ObservationTypeError(
            "from_frame wants a table",
            where="frame",
            expected="a pandas.DataFrame",
            got=type(frame).__name__,
            remedy="pandas.read_csv, read_parquet, ... give one",
        )
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    columns = {str(column).lower(): column for column in frame.columns}
    what, value = _first(columns, _WHAT), _first(columns, _VALUE)
    if what is None or value is None:
        return _wide(frame, columns)
    arrays: dict[str, xr.DataArray] = {}
    unknown = []
    for name, rows in frame.groupby(what, sort=True, observed=True):
        attrs = _quantity(str(name))
        if attrs is None:
            unknown.append(str(name))
            continue
        arrays[str(name)] = _array(rows, columns, value, str(name), attrs)
    if not arrays:
        raise UnknownQuantityError(
            "nothing in the table is recognised",
            where=f"column {what!r}",
            expected="names that archives use, standard names, or DART's types",
            got=", ".join(unknown[:8]) or "no rows",
            remedy=f"rename them: frame[{what!r}].replace({{...}})",
        )
    if unknown:
        warn(f"rows that are not recognised are left out: {', '.join(unknown[:8])}", GuessWarning)
    return arrays


def _first(columns: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((columns[name] for name in names if name in columns), None)


def _quantity(name: str) -> dict[str, str] | None:
    """Return the attributes of a quantity, by its name in an archive or in DART."""
    for end, standard, units, operator in _DART:
        if name.endswith(end):
            attrs = {"standard_name": standard, "units": units}
            return attrs if operator is None else {**attrs, "xappa_operator": operator}
    known = any(row.standard_name == name for row in KNOWN)
    found, _ = identify(
        xr.DataArray(0.0, name=name, attrs={"standard_name": name} if known else {})
    )
    if found is None:
        return None
    return {"standard_name": found.standard_name, "units": found.units}


def _array(
    rows: pd.DataFrame, columns: dict[str, Any], value: Any, name: str, attrs: dict[str, str]
) -> xr.DataArray:
    import pandas as pd

    coords = _positions(rows, columns)
    units = _first(columns, _UNITS)
    if units is not None:
        given = rows[units].dropna().unique()
        if len(given) > 1:
            raise ObservationTypeError(
                f"the rows of {name} have several units",
                where=f"column {units!r}",
                expected="one unit for each quantity",
                got=", ".join(map(str, given)),
                remedy="convert them, or split the table",
            )
        attrs = {**attrs, "units": str(given[0])} if len(given) else attrs
    found, _ = identify(xr.DataArray(0.0, name=name))
    if found is not None and found.height is not None:
        coords["height"] = xr.Variable((), found.height, {"units": "m", "standard_name": "height"})
    values = pd.to_numeric(rows[value], errors="coerce").to_numpy(dtype=np.float64)
    quality = _first(columns, _QUALITY)
    if quality is not None:
        values = np.where(pd.to_numeric(rows[quality], errors="coerce") == 0, values, np.nan)
    for column, squared in _ERROR:
        if column in columns:
            std = pd.to_numeric(rows[columns[column]], errors="coerce").to_numpy(dtype=np.float64)
            std = np.sqrt(std) if squared else std
            known = np.where(std > 0, std, np.nan)
            coords["error_std"] = xr.Variable("obs", known, {"units": attrs["units"]})
            break
    return xr.DataArray(values, coords, ("obs",), name, attrs)


def _positions(rows: pd.DataFrame, columns: dict[str, Any]) -> dict[str, xr.Variable]:
    """Return coordinates along ``obs``."""
    import pandas as pd

    coords: dict[str, xr.Variable] = {}
    for role in ("latitude", "longitude", "time"):
        column = _first(columns, COORDINATE_NAMES[role])
        if column is None:
            raise CoordinateError(
                f"the table has no {role}",
                where="from_frame",
                expected=f"a column {' or '.join(COORDINATE_NAMES[role][:3])}",
                got=", ".join(map(str, rows.columns)),
                remedy=f"rename it: frame.rename(columns={{...: {role!r}}})",
            )
        if role == "time":
            times = pd.to_datetime(rows[column], utc=True).dt.tz_localize(None)
            values = times.to_numpy(dtype="datetime64[ns]")
        else:
            values = pd.to_numeric(rows[column], errors="coerce").to_numpy(dtype=np.float64)
        coords[role] = xr.Variable("obs", values, _ATTRS[role])
    for name, values in _vertical(rows, columns).items():
        coords[name] = xr.Variable("obs", values, _ATTRS[name])
    station = _first(columns, _STATION)
    if station is not None:
        coords["station"] = xr.Variable("obs", rows[station].astype(str).to_numpy(dtype=object))
    return coords


def _vertical(rows: pd.DataFrame, columns: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return pressures in Pa or altitudes in m; nothing where a column holds none."""
    import pandas as pd

    def numbers(column: Any) -> np.ndarray:
        values: np.ndarray = pd.to_numeric(rows[column], errors="coerce").to_numpy(np.float64)
        return values

    if "vertical" in columns and "vert_unit" in columns:
        unit = rows[columns["vert_unit"]].astype(str).str.lower()
        values = numbers(columns["vertical"])
        if unit.str.contains("pressure").all():
            return {"air_pressure": values}
        return {"altitude": values} if unit.str.contains("height|surface").all() else {}
    found = {}
    pressure, altitude = _first(columns, _PRESSURE), _first(columns, _ALTITUDE)
    if pressure is not None and np.isfinite(values := numbers(pressure)).any():
        scale = 100.0 if np.nanmax(values) <= _LARGEST_HPA else 1.0
        found["air_pressure"] = scale * values
    if altitude is not None and np.isfinite(values := numbers(altitude)).any():
        found["altitude"] = values
    return found


def _wide(frame: pd.DataFrame, columns: dict[str, Any]) -> xr.Dataset:
    """One column for each quantity: a Dataset along ``obs``."""
    import pandas as pd

    coords = _positions(frame, columns)
    taken = {str(c).lower() for names in COORDINATE_NAMES.values() for c in names}
    taken |= {*_STATION, *_ALTITUDE, *_PRESSURE}
    data = {
        str(column): xr.Variable("obs", frame[column].to_numpy(dtype=np.float64))
        for name, column in columns.items()
        if name not in taken and pd.api.types.is_numeric_dtype(frame[column])
    }
    if not any(_quantity(name) for name in data):
        raise UnknownQuantityError(
            "no column of the table is recognised",
            where="from_frame",
            expected="columns named as archives name quantities, or columns 'variable' and 'value'",
            got=", ".join(map(str, frame.columns)),
            remedy="rename them: frame.rename(columns={'tmpc': 't2m'})",
        )
    return xr.Dataset(data, coords)
