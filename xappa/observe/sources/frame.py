"""Observations from tables: one row an observation, or one row a report of a station.

Columns are found by the names that archives give them (`xappa.observe.sources.columns`). A table
with a column that says what each row measures (``variable`` or ``type``) becomes one array for
each quantity; any other table is one whose columns are quantities. DART's types end in what they
measure (``RADIOSONDE_TEMPERATURE``).

References
----------
- earth2studio's schema of observations: ``E2STUDIO_SCHEMA`` in ``earth2studio/lexicon/base.py``,
  https://github.com/NVIDIA/earth2studio
- pyDARTdiags' frame of an observation sequence, https://ncar.github.io/pyDARTdiags
- PrepBUFR quality markers, https://www.emc.ncep.noaa.gov/mmb/data_processing/prepbufr.doc/table_7.htm
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa.errors import (
    ArgumentError,
    GuessWarning,
    ObservationTypeError,
    UnknownQuantityError,
    warn,
)
from xappa.observe.sources.columns import Column, look_up, look_up_dart
from xappa.observe.sources.isd import is_isd, read_isd
from xappa.observe.sources.layout import (
    dropped,
    has_levels,
    implied_units,
    numbers,
    pick,
    positions,
    quality_flag,
    without_duplicates,
)
from xappa.observe.sources.wide import read_wide

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["from_frame"]

_WHAT = ("variable", "type", "parameter", "quantity")
_VALUE = ("observation", "value", "obs", "obsvalue")
_UNITS = ("units", "unit")
#: Column, and whether it holds variances.
_ERROR = (
    ("error", False),
    ("error_std", False),
    ("obs_err", False),
    ("observation_error", False),
    ("obs_err_var", True),
    ("error_variance", True),
)
#: Markers on the scale of PrepBUFR, of which 0 to 3 may be used.
_MARKERS = ("dart_quality_control", "dart_qc", "ncep_qc_index", "data_qc")
#: Other flags, that are zero for good.
_QUALITY = ("quality", "quality_flag", "qc")
_USABLE = range(4)
_KINDS = (("pressure", "pressure"), ("height|surface", "height"), ("undefined", "no level"))


def from_frame(
    frame: pd.DataFrame, *, units: Mapping[str, str] | None = None
) -> dict[str, xr.DataArray] | xr.Dataset:
    """Make observation arrays from a table.

    Parameters
    ----------
    frame
        Columns of positions and times (``lat``, ``latitude``, ``time``, ``datetime``, ``valid``,
        or ``year``, ``month``, ``day``, ...), and

        - of long tables: what was measured (``variable`` or ``type``), the value (``observation``
          or ``value``), and optionally ``units``, an error (``error``, ``error_std``, or a variance
          ``obs_err_var``), a pressure (``pressure``, ``pres``; or ``vertical`` with ``vert_unit``,
          as DART has it), an ``elevation``, a ``station``, a quality flag that is zero for good
          (a marker of PrepBUFR, as earth2studio and DART have it, is 0 to 3 for good);
        - of others: one column for each quantity, by a name that archives use, and optionally its
          error under that name with ``_error``. Tables of the Iowa Environmental Mesonet, of
          Meteostat, of NOAA's ISD ("global hourly"), of MADIS, of WeatherBench-X and of pdbufr
          are known, with their units and flags; gusts are left out.

        Times with a zone become UTC. The frame is not changed.
    units
        Units of columns, or of the quantities of a long table, by name: ``{"temp": "0.1 degC"}``.
        They go before all others.

    Returns
    -------
    dict of str to DataArray, or Dataset
        Of a long table one array along ``obs`` for each quantity, else a Dataset. What `assimilate`
        and `operator` take.

    Raises
    ------
    CoordinateError
        If positions or times are missing, or cannot be read.
    UnknownQuantityError
        If nothing in the table is recognised.
    UnitsError
        If temperatures without units cannot be in kelvin.
    ObservationTypeError
        If it is no table, or the rows of a quantity have several units.
    ArgumentError
        If `units` names what the table does not have.

    Warns
    -----
    GuessWarning
        If some rows measure what is not recognised, or repeat another: they are left out. If times
        or longitudes are impossible: they are rejected, and counted by the operator.

    Examples
    --------
    >>> import pandas as pd
    >>> row = {"time": "2020-01-01", "lat": 50.0, "lon": 0.0, "variable": "t2m", "value": 280.0}
    >>> list(from_frame(pd.DataFrame([row])))
    ['t2m']
    >>> metar = {"valid": "2020-01-01 00:53", "lat": 50.0, "lon": 0.0, "tmpf": "41.0", "sknt": "M"}
    >>> from_frame(pd.DataFrame([metar])).tmpf.units
    'degF'
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
    what, value = pick(columns, _WHAT), pick(columns, _VALUE)
    long = what is not None and value is not None
    units = dict(units or {})
    _check_units(units, {*map(str, frame.columns), *(map(str, frame[what]) if long else ())})
    if long:
        return _read_long(frame, columns, what, value, units)
    if is_isd(frame, columns):
        return read_isd(frame, columns)
    return read_wide(frame, columns, units)


def _check_units(units: Mapping[str, str], known: set[str]) -> None:
    unknown = sorted(set(units) - known)
    if unknown:
        raise ArgumentError(
            f"units= names {unknown[0]!r}, which the table does not have",
            where="units=",
            expected=", ".join(sorted(known)[:20]),
            got=", ".join(unknown),
            remedy="use the names of columns, or of the quantities of a long table",
        )


def _read_long(
    frame: pd.DataFrame,
    columns: Mapping[str, Any],
    what: Any,
    value: Any,
    units: Mapping[str, str],
) -> dict[str, xr.DataArray]:
    """Read a table with a row for each observation."""
    arrays: dict[str, xr.DataArray] = {}
    unknown, repeated = [], 0
    for name, all_rows in frame.groupby(what, sort=True, observed=True):
        holds = _quantity(str(name), columns, value)
        if holds is None:
            unknown.append(str(name))
            continue
        for label, rows in _by_level(str(name), all_rows, columns):
            if rows is None:
                unknown.append(label)
                continue
            array, count = _array(rows, columns, value, str(name), holds, units)
            arrays[label], repeated = array.rename(label), repeated + count
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
    dropped(repeated)
    return arrays


def _quantity(name: str, columns: Mapping[str, Any], value: Any) -> Column | None:
    """Return what a quantity is, by its name in an archive or in DART."""
    if name == "pres" and str(value).lower() == "observation":
        return Column("surface_air_pressure", "Pa")  # of earth2studio: reports of stations
    return look_up_dart(name) or look_up(name)


def _by_level(
    name: str, rows: pd.DataFrame, columns: Mapping[str, Any]
) -> Iterator[tuple[str, pd.DataFrame | None]]:
    """Yield the rows of each kind of vertical coordinate of DART; None for those of no use."""
    if "vertical" not in columns or "vert_unit" not in columns:
        yield name, rows
        return
    unit = rows[columns["vert_unit"]].astype(str).str.lower()
    chosen = [(kind, unit.str.contains(pattern)) for pattern, kind in _KINDS]
    found = [(kind, mask) for kind, mask in chosen if mask.any()]
    for kind, mask in found:
        yield (name if len(found) == 1 else f"{name} ({kind})"), rows[mask]
    rest = ~np.logical_or.reduce([mask for _, mask in chosen])
    if rest.any():
        yield f"{name} at {', '.join(sorted(set(unit[rest])))}", None


def _array(
    rows: pd.DataFrame,
    columns: Mapping[str, Any],
    value: Any,
    name: str,
    holds: Column,
    units: Mapping[str, str],
) -> tuple[xr.DataArray, int]:
    """Return one quantity along ``obs``, and the number of repeated rows that were dropped."""
    coords = positions(rows, columns, units)
    if not has_levels(holds.standard_name, holds.height):
        coords.pop("air_pressure", None)
    if holds.height is not None:
        attrs = {"units": "m", "standard_name": "height"}
        coords["height"] = xr.Variable((), holds.height, attrs)
    values = numbers(rows[value])
    given = units.get(name) or _units_of(rows, columns, name) or units.get(str(value))
    own = given or holds.units
    if own is None:
        own = implied_units(holds.standard_name, holds.canonical, values, name)
    flag = _flag(rows, columns, value)
    if flag is not None:
        coords["quality"] = flag
    for column, squared in _ERROR:
        if column in columns:
            std = numbers(rows[columns[column]])
            with np.errstate(invalid="ignore"):
                std = np.sqrt(std) if squared else std
            known = np.where(std > 0, std, np.nan)
            coords["error_std"] = xr.Variable("obs", known, {"units": own})
            break
    said = {"standard_name": holds.standard_name, "units": own}
    if holds.operator is not None:
        said["xappa_operator"] = holds.operator
    ds = xr.Dataset({"xappa_values": ("obs", values, said)}, coords)
    ds, count = without_duplicates(ds)
    return ds["xappa_values"], count


def _units_of(rows: pd.DataFrame, columns: Mapping[str, Any], name: str) -> str | None:
    """Return the units that the rows of a quantity give."""
    column = pick(columns, _UNITS)
    given = [] if column is None else rows[column].dropna().unique()
    if len(given) > 1:
        raise ObservationTypeError(
            f"the rows of {name} have several units",
            where=f"column {column!r}",
            expected="one unit for each quantity",
            got=", ".join(map(str, given)),
            remedy="convert them, or split the table",
        )
    return str(given[0]) if len(given) else None


def _flag(rows: pd.DataFrame, columns: Mapping[str, Any], value: Any) -> xr.Variable | None:
    """Return the quality flag of a long table."""
    marker = pick(columns, _MARKERS)
    if marker is None and str(value).lower() == "observation" and "quality" in columns:
        marker = columns["quality"]
    if marker is not None:
        return quality_flag(numbers(rows[marker]), _USABLE)
    other = pick(columns, _QUALITY)
    return None if other is None else quality_flag(numbers(rows[other]), {0})
