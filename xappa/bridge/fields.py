"""Variables of a Dataset matched with those of a state."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge.labels import clean_attrs
from xappa.bridge.recognise import Found, Roles, find_variables, levels_of
from xappa.bridge.spec import StateSpec, VariableSpec
from xappa.cf import PRESSURE, Axes, standard_name
from xappa.errors import UnitsError, VariableMismatchError, XappaError
from xappa.units import factor_offset

__all__ = ["Field", "match_variables"]


@dataclass(frozen=True)
class Field:
    """How one variable of the Dataset is stored.

    Parameters
    ----------
    name
        Name in the Dataset.
    variable
        The variable of the state that it is.
    dims
        Its dimensions in stored order.
    dtype
        Its dtype.
    units
        Its own units.
    attrs
        Its attributes as they come back.
    levels
        Index along the Dataset's levels of each level of the state; empty without levels.
    """

    name: str
    variable: VariableSpec
    dims: tuple[str, ...]
    dtype: str
    units: str
    attrs: Mapping[Hashable, Any]
    levels: tuple[int, ...]


def match_variables(
    ds: xr.Dataset,
    axes: Axes,
    roles: Roles,
    spec: StateSpec,
    problems: list[XappaError],
    guesses: list[str],
) -> tuple[Field, ...]:
    """Match each variable of a state with one of a Dataset.

    Parameters
    ----------
    ds
        The Dataset, without pint.
    axes, roles
        Its coordinates and dimensions.
    spec
        The state.
    problems, guesses
        Take what is wrong, and what was assumed.

    Returns
    -------
    tuple of Field
        Those that were found, in the order of the state.
    """
    found = find_variables(ds, axes, roles)
    levels: tuple[float, ...] = ()
    vertical = PRESSURE
    if axes.vertical is not None and any(v.levels is not None for v in spec.variables):
        levels, vertical, guess = levels_of(ds, axes)
        guesses += [guess] if guess else []
    fields = []
    for variable in spec.variables:
        try:
            entry = _match(variable, found, guesses)
            fields.append(_field(ds, variable, entry, (levels, vertical), axes))
            guesses += entry.guesses
        except (VariableMismatchError, UnitsError) as error:
            problems.append(error)
    return tuple(fields)


def _match(variable: VariableSpec, found: Mapping[str, Found], guesses: list[str]) -> Found:
    """Return the Dataset's variable: by standard name and height first, by name second."""
    on_levels = variable.levels is not None
    same = [
        entry
        for entry in found.values()
        if variable.standard_name is not None and entry.standard_name == variable.standard_name
        if entry.on_levels == on_levels and (entry.problem is None or _is_static(entry))
    ]
    exact = [entry for entry in same if _same_height(entry.height, variable.height)]
    if len(exact) > 1:
        exact = [entry for entry in exact if entry.name == variable.name]
    if len(exact) == 1:
        return exact[0]
    named = found.get(variable.name)
    names = (None, variable.standard_name)
    if named is not None and (named.standard_name in names or variable.standard_name is None):
        if named.problem is None or _is_static(named):
            return named
        raise _missing(variable, f"{named.name}: {named.problem}", found)
    if len(same) == 1 and (same[0].height is None or variable.height is None):
        guesses.append(f"{same[0].name}: taken as {variable}, the only one of its standard name")
        return same[0]
    alike = [entry for entry in found.values() if entry.standard_name == variable.standard_name]
    if len(same) > 1:
        raise _missing(variable, f"several: {', '.join(entry.name for entry in same)}", found)
    if alike and variable.standard_name is not None:
        other = "at one level" if on_levels else "on levels, or at another height"
        raise _missing(variable, f"{', '.join(e.name for e in alike)}, {other}", found)
    raise _missing(variable, "none", found)


def _is_static(entry: Found) -> bool:
    return entry.problem is not None and entry.problem.startswith("it does not vary")


def _same_height(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else bool(np.isclose(a, b))


def _missing(variable: VariableSpec, got: str, found: Mapping[str, Found]) -> VariableMismatchError:
    listed = ", ".join(f"{e.name} ({e.standard_name or 'not recognised'})" for e in found.values())
    return VariableMismatchError(
        f"the variable {variable.name!r} of the state is not in the Dataset",
        where=f"variables {listed or 'none'}",
        expected=str(variable),
        got=got,
        remedy="add the variable, or its standard_name; or take a model of these variables",
    )


def _field(
    ds: xr.Dataset,
    variable: VariableSpec,
    entry: Found,
    stored: tuple[tuple[float, ...], str],
    axes: Axes,
) -> Field:
    da, (levels, vertical) = ds[entry.name], stored
    index: list[int] = []
    if variable.levels is not None and not entry.on_levels:
        raise _missing(variable, f"{entry.name} has no levels", {entry.name: entry})
    if variable.levels is not None and vertical != variable.vertical:
        raise VariableMismatchError(
            f"the levels of {variable.name!r} are others",
            where=f"{entry.name} on {axes.vertical}",
            expected=variable.describe_levels(),
            got=vertical,
            remedy="interpolate to these levels, or take a model of the Dataset's own",
        )
    for level in variable.levels or ():
        near = np.flatnonzero(np.isclose(levels, level, rtol=1e-6, atol=1e-3))
        if not near.size:
            absent = [
                v for v in variable.levels or () if not np.isclose(levels, v, rtol=1e-6).any()
            ]
            raise VariableMismatchError(
                f"levels of {variable.name!r} are missing",
                where=f"{entry.name} on {axes.vertical}",
                expected=variable.describe_levels(),
                got=f"{variable.describe_levels(levels)}, without "
                f"{variable.describe_levels(absent)}",
                remedy="add the levels, or take a model of these levels",
            )
        index.append(int(near[0]))
    factor_offset(entry.units, variable.units, where=entry.name)
    attrs = clean_attrs(da.attrs)
    if standard_name(da) is None:
        attrs.pop("standard_name", None)
        if entry.standard_name is not None:
            attrs["standard_name"] = entry.standard_name
    attrs.setdefault("units", entry.units)
    dims = tuple(str(dim) for dim in da.dims)
    return Field(entry.name, variable, dims, str(da.dtype), entry.units, attrs, tuple(index))
