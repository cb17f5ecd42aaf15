"""What observation arrays say of each of their elements, for operators that want to know it.

A pressure, an altitude, an averaging kernel: a coordinate of the array or another variable of its
Dataset, found by name or by standard name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from xappa import units
from xappa.cf import standard_name
from xappa.errors import OperatorError
from xappa.observe.aloft import ALTITUDE, altitude_names
from xappa.observe.ancillary import on_elements
from xappa.observe.containers import Found
from xappa.observe.values import without_fills

__all__ = ["Argument", "read_arguments", "said_names"]

_PRESSURE = "air_pressure"


@dataclass(frozen=True)
class Argument:
    """What an operator wants to know of each element.

    Parameters
    ----------
    source
        Name or standard name of what says it.
    name
        Name that the operator knows.
    units
        Units in which the operator wants it; None for those that it has.
    own
        Whether without units it is in those of the observations, instead of `units`.
    """

    source: str
    name: str
    units: str | None = None
    own: bool = False


def said_names(found: Found, *, on_levels: bool) -> frozenset[str]:
    """Return the names under which something is said of an array's elements."""
    names = {name for name, _ in _said(found)}
    return frozenset({*names, _PRESSURE} if on_levels else names - {_PRESSURE})


def read_arguments(
    found: Found,
    wanted: Sequence[Argument],
    pressure: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Return what an operator wants to know of each element.

    Parameters
    ----------
    found
        The array and its Dataset.
    wanted
        What the operator wants to know.
    pressure
        (n,) Pa, the array's own vertical coordinate.

    Returns
    -------
    dict of str to ndarray
        By the operator's names, (n,), or (n, K) where it has a dimension of its own; float64.

    Raises
    ------
    OperatorError
        If it does not lie along the array's dimensions.
    UnitsError
        If its units are others.
    """
    said = dict(_said(found))
    result = {}
    for argument in wanted:
        if argument.source == _PRESSURE and pressure is not None:
            result[argument.name] = pressure
            continue
        result[argument.name] = _values(said[argument.source], found, argument)
    return result


def _said(found: Found) -> list[tuple[str, xr.DataArray]]:
    """Return coordinates, and other variables of the Dataset, by standard name and by name."""
    variables = [coord.reset_coords(drop=True) for coord in found.array.coords.values()]
    if found.dataset is not None:
        variables += [v.reset_coords(drop=True) for v in found.dataset.data_vars.values()]
    numeric = [v for v in variables if v.dtype.kind in "fiu" and v.name != found.array.name]
    by_standard = [(str(standard_name(v)), v) for v in numeric if standard_name(v) is not None]
    chosen = altitude_names(found.array)[:1]
    high = [(ALTITUDE, v) for v in numeric if str(v.name) in chosen]
    # the last of a name counts
    return [*by_standard, *((str(v.name), v) for v in numeric), *high]


def _values(variable: xr.DataArray, found: Found, argument: Argument) -> np.ndarray:
    name, unit = argument.name, argument.units
    array, where = found.array, f"{found.where}, {name} from {str(variable.name)!r}"
    own = [dim for dim in variable.dims if dim not in array.dims]
    if len(own) > 1:
        raise OperatorError(
            f"{name} has more than one dimension of its own",
            where=where,
            expected=f"dimensions of the observations, {list(array.dims)}, and one more at most",
            got=list(variable.dims),
            remedy="stack them",
        )
    columns = variable.sizes[own[0]] if own else 1
    parts = [variable.isel({own[0]: k}) if own else variable for k in range(columns)]
    flat = [on_elements(part.reset_coords(drop=True), array) for part in parts]
    if any(part is None for part in flat):
        raise OperatorError(
            f"{name} does not lie along the observations",
            where=where,
            expected=f"dimensions and labels of the observations: {dict(array.sizes)}",
            got=dict(variable.sizes),
            remedy="align them: xr.align(..., join='exact')",
        )
    values = np.stack([np.asarray(part, dtype=np.float64) for part in flat], axis=-1)
    values = without_fills(values)
    if unit is not None:
        default = array.attrs.get("units") if argument.own else None
        given = str(variable.attrs.get("units") or default or unit)
        values = np.asarray(units.convert(values, given, unit, where=where))
    return values if own else values[:, 0]
