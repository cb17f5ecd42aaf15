"""NOAA's Integrated Surface Database, as its "global hourly" tables have it.

A column holds several fields that are separated by commas, of which the last is a quality code:

======= =========================================== ==================
column  fields                                      missing
======= =========================================== ==================
``TMP`` 0.1 °C, code                                ``+9999``
``DEW`` 0.1 °C, code                                ``+9999``
``SLP`` 0.1 hPa, code                               ``99999``
``WND`` degrees, code, type, 0.1 m s-1, code        ``999``, ``9999``
======= =========================================== ==================

Codes 0, 1, 4, 5 and 9 passed the checks, and so did the letters, which stand for values that were
edited or replaced; 2 and 6 are suspect, 3 and 7 erroneous. A variable wind (type ``V``) has no
direction, a calm (type ``C``) needs none.

References
----------
NOAA NCEI, Federal Climate Complex Data Documentation for Integrated Surface Data,
https://www.ncei.noaa.gov/data/global-hourly/doc/isd-format-document.pdf.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa.observe.sources.columns import Column
from xappa.observe.sources.layout import numbers, positions
from xappa.observe.sources.wide import Measured, dataset_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["is_isd", "read_isd"]

_CODES = "0123456789"
_WORDS = (
    *("passed_gross_limits", "passed_all", "suspect", "erroneous", "passed_gross_limits_of_ncei"),
    *("passed_all_of_ncei", "suspect_of_ncei", "erroneous_of_ncei", "not_used", "passed"),
    "accepted_after_editing",
)
#: Column, name of the quantity, where its value and code are, missing values, scale, and meaning.
_FIELDS: tuple[tuple[str, str, int, int, float, float, Column], ...] = (
    ("tmp", "t2m", 0, 1, 9999.0, 10.0, Column("air_temperature", "degC", 2.0)),
    ("dew", "d2m", 0, 1, 9999.0, 10.0, Column("dew_point_temperature", "degC", 2.0)),
    ("slp", "msl", 0, 1, 99999.0, 10.0, Column("air_pressure_at_mean_sea_level", "hPa")),
    ("wnd", "wind_speed", 3, 4, 9999.0, 10.0, Column("wind_speed", "m s-1", 10.0)),
    ("wnd", "wind_direction", 0, 1, 999.0, 1.0, Column("wind_from_direction", "degree", 10.0)),
)
_SIGNATURE = {"latitude", "longitude", "date"}


def is_isd(frame: pd.DataFrame, columns: Mapping[str, Any]) -> bool:
    """Tell whether a table is one of the database: its columns hold fields within fields."""
    if not set(columns) >= _SIGNATURE:
        return False
    coded = [frame[columns[name]] for name in ("tmp", "dew", "slp", "wnd") if name in columns]
    return any(column.astype(str).str.contains(",", regex=False).any() for column in coded)


def read_isd(frame: pd.DataFrame, columns: Mapping[str, Any]) -> xr.Dataset:
    """Read temperature, dew point, sea level pressure and wind.

    Parameters
    ----------
    frame
        With ``STATION``, ``DATE``, ``LATITUDE``, ``LONGITUDE``, ``ELEVATION`` and some of ``TMP``,
        ``DEW``, ``SLP``, ``WND``.
    columns
        Its columns by their names in lower case.

    Returns
    -------
    xarray.Dataset
        ``t2m`` and ``d2m`` (degC), ``msl`` (hPa), ``wind_speed`` (m s-1) and ``wind_direction``
        (degree) along ``obs``, with their quality flags.
    """
    measured = {}
    for column, name, value, code, missing, scale, holds in _FIELDS:
        if column not in columns:
            continue
        fields = frame[columns[column]].astype(str).str.split(",", expand=True)
        values = _field(fields, value)
        values[values == missing] = np.nan
        if name == "wind_direction" and 2 in fields:
            values[fields[2].to_numpy() == "V"] = np.nan
        measured[name] = Measured(values / scale, holds, str(holds.units), flag=_flag(fields, code))
    return dataset_of(measured, positions(frame, columns, {}), {})


def _field(fields: pd.DataFrame, place: int) -> np.ndarray:
    return numbers(fields[place]) if place in fields else np.full(len(fields), np.nan)


def _flag(fields: pd.DataFrame, place: int) -> xr.Variable:
    """Return quality codes as a CF flag; letters are all accepted."""
    given = fields[place] if place in fields else np.full(len(fields), "9")
    firsts = [str(code).strip()[:1] for code in given]
    codes = [_CODES.find(first) if first in tuple(_CODES) else 10 for first in firsts]
    attrs = {
        "standard_name": "quality_flag",
        "flag_values": np.arange(len(_WORDS), dtype=np.int32),
        "flag_meanings": " ".join(_WORDS),
    }
    return xr.Variable("obs", np.array(codes, np.int32), attrs)
