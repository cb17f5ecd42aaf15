"""Tables with one row for each report, and one column for each quantity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa.errors import UnknownQuantityError
from xappa.observe.ancillary import ERROR_MODIFIER
from xappa.observe.sources.columns import Column, Dialect, dialect_of, look_up
from xappa.observe.sources.layout import (
    PLACES,
    dropped,
    implied_units,
    numbers,
    positions,
    without_duplicates,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Measured", "dataset_of", "read_wide"]

_ERRORS = ("{}_error", "{}_std", "{}_sigma")
_NEAR_GROUND = {
    ("air_temperature", 2.0): "2t",
    ("dew_point_temperature", 2.0): "2d",
    ("relative_humidity", 2.0): "2r",
    ("specific_humidity", 2.0): "2sh",
    ("wind_speed", 10.0): "10si",
    ("wind_from_direction", 10.0): "10wdir",
}
"""GRIB short names, which tell the height of one variable of a Dataset (a coordinate tells all)."""


@dataclass(frozen=True)
class Measured:
    """One quantity of a table.

    Parameters
    ----------
    values
        (n,) float64, NaN where missing.
    column
        What it is.
    units
        The units of the values.
    error
        (n,) standard deviations and their units, if the table has them.
    flag
        (n,) quality flag, if the table has one.
    """

    values: np.ndarray
    column: Column
    units: str
    error: tuple[np.ndarray, str] | None = None
    flag: xr.Variable | None = None


def dataset_of(
    measured: Mapping[str, Measured], coords: Mapping[str, xr.Variable], others: Mapping[str, Any]
) -> xr.Dataset:
    """Return a Dataset along ``obs`` without repeated rows.

    Parameters
    ----------
    measured
        Quantities by name.
    coords
        From `xappa.observe.sources.layout.positions`.
    others
        Columns of numbers that nothing is known of; kept, for the report to say so.
    """
    data: dict[str, Any] = {name: xr.Variable("obs", values) for name, values in others.items()}
    for name, one in measured.items():
        attrs = {"standard_name": one.column.standard_name, "units": one.units}
        height = None if one.column.screen and "air_pressure" in coords else one.column.height
        short = _NEAR_GROUND.get((one.column.standard_name, height or 0.0))
        if short is not None:
            attrs["short_name"] = short
        about: dict[str, xr.Variable] = {}
        if one.error is not None:
            std, units = one.error
            said = {"standard_name": f"{one.column.standard_name} {ERROR_MODIFIER}", "units": units}
            about[f"{name}_error"] = xr.Variable("obs", np.where(std > 0, std, np.nan), said)
        if one.flag is not None:
            about[f"{name}_quality"] = one.flag
        if about:
            attrs["ancillary_variables"] = " ".join(about)
        data |= {name: xr.Variable("obs", one.values, attrs), **about}
    ds, count = without_duplicates(xr.Dataset(data, dict(coords)))
    dropped(count)
    return ds


def read_wide(
    frame: pd.DataFrame, columns: Mapping[str, Any], units: Mapping[str, str]
) -> xr.Dataset:
    """Read a table with a column for each quantity.

    Parameters
    ----------
    frame
        The table.
    columns
        Its columns by their names in lower case.
    units
        Units that the user gives to columns.

    Raises
    ------
    UnknownQuantityError
        If no column is recognised.
    CoordinateError
        If positions or times are missing.
    UnitsError
        If temperatures without units cannot be in kelvin.
    """
    import pandas as pd

    dialect = dialect_of(columns)
    own: Mapping[str, Column | None] = {} if dialect is None else dialect.columns
    places = {name: column for name, column in columns.items() if name not in own}
    taken = {name for names in PLACES.values() for name in names if name in places}
    measured: dict[str, Measured] = {}
    others: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if name in taken or (name in own and own[name] is None):
            continue
        holds = look_up(str(column), dialect)
        if holds is not None:
            measured[str(column)] = _measured(frame, columns, name, holds, dialect, units)
        elif pd.api.types.is_numeric_dtype(frame[column]):
            others[str(column)] = frame[column].to_numpy(dtype=np.float64)
    if not measured:
        raise UnknownQuantityError(
            "no column of the table is recognised",
            where="from_frame",
            expected="columns named as archives name quantities, or columns 'variable' and 'value'",
            got=", ".join(map(str, frame.columns)),
            remedy="rename them: frame.rename(columns={'my_temperature': 't2m'})",
        )
    errors = {pattern.format(name) for pattern in _ERRORS for name in measured}
    others = {name: values for name, values in others.items() if name not in errors}
    return dataset_of(measured, positions(frame, places, units), others)


def _measured(
    frame: pd.DataFrame,
    columns: Mapping[str, Any],
    name: str,
    holds: Column,
    dialect: Dialect | None,
    units: Mapping[str, str],
) -> Measured:
    column = columns[name]
    values = numbers(frame[column])
    own = units.get(str(column), holds.units) or implied_units(
        holds.standard_name, holds.canonical, values, str(column)
    )
    error = None
    for pattern in _ERRORS:
        given = columns.get(pattern.format(name))
        if given is not None and frame[given].dtype.kind == "f":
            error = (numbers(frame[given]), units.get(str(given), own))
            break
    flag = None
    if dialect is not None and dialect.quality is not None:
        ending, words = dialect.quality
        if name + ending in columns:
            flag = _lettered_flag(frame[columns[name + ending]], words)
    return Measured(values, holds, own, error, flag)


def _lettered_flag(letters: pd.Series, words: Mapping[str, str]) -> xr.Variable:
    """Return letters as a CF flag: the place of each in the list of words."""
    places = {letter: place for place, letter in enumerate(words, start=1)}
    codes = np.array([places.get(str(letter).strip(), 0) for letter in letters], np.int32)
    attrs = {
        "standard_name": "quality_flag",
        "flag_values": np.arange(len(words) + 1, dtype=np.int32),
        "flag_meanings": " ".join(["not_given", *words.values()]),
    }
    return xr.Variable("obs", codes, attrs)
