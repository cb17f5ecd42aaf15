"""Fields of a model as labelled Datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import StateSpec, VariableSpec
from xappa.cf import PRESSURE

__all__ = ["coordinates", "labelled", "variable_attrs"]


def coordinates(spec: StateSpec) -> dict[str, Any]:
    """Return latitude and longitude as CF coordinate variables."""
    return {
        "latitude": (
            "latitude",
            spec.grid.latitude,
            {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
        ),
        "longitude": (
            "longitude",
            spec.grid.longitude,
            {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
        ),
    }


def level_coordinates(spec: StateSpec) -> dict[VariableSpec, tuple[str, Any]]:
    """Return the name and the values of the level coordinate of each variable on levels.

    Variables on the same levels share a coordinate.
    """
    names: dict[tuple[str, tuple[float, ...]], str] = {}
    found: dict[VariableSpec, tuple[str, Any]] = {}
    for variable in spec.variables:
        if variable.levels is not None:
            suffix = str(len(names) + 1) if names else ""
            on_pressure = variable.vertical == PRESSURE
            first = "pressure" if on_pressure else "level"
            name = names.setdefault((variable.vertical, variable.levels), f"{first}{suffix}")
            attrs = {"standard_name": variable.vertical, "positive": "down", "axis": "Z"}
            attrs["units"] = "hPa" if on_pressure else "1"
            values = np.asarray(variable.levels) / (100.0 if on_pressure else 1.0)
            found[variable] = (name, (name, values, attrs))
    return found


def variable_attrs(variable: VariableSpec) -> dict[str, str]:
    """Return the CF attributes of a variable of the state."""
    attrs = {"units": variable.units}
    if variable.standard_name:
        attrs["standard_name"] = variable.standard_name
    return attrs


def labelled(spec: StateSpec, fields: Mapping[str, tuple[np.ndarray, str]]) -> xr.Dataset:
    """Label fields of shape (channel, latitude, longitude).

    Parameters
    ----------
    spec
        What the channels are.
    fields
        For each suffix of the names to be, the field and what it is.
    """
    levels = level_coordinates(spec)
    coords = coordinates(spec) | dict(levels.values())
    variables = {}
    for variable in spec.variables:
        channels = spec.slice_of(variable.name)
        dims: tuple[str, ...] = ("latitude", "longitude")
        for suffix, (field, meaning) in fields.items():
            values = field[channels]
            if variable in levels:
                dims = (levels[variable][0], "latitude", "longitude")
            else:
                values = values[0]
            attrs = variable_attrs(variable) | {"long_name": f"{variable.name}: {meaning}"}
            variables[f"{variable.name}_{suffix}"] = (dims, values.astype(np.float32), attrs)
    return xr.Dataset(variables, coords)
