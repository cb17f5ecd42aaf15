"""From the observed quantity to state variables: interpolation, or a registered operator.

The attribute ``xappa_operator`` decides; without it, a quantity that the state holds is
interpolated, and one that it does not hold is computed by the operator registered under its
standard name. Whether a variable on levels or one at a single level is meant follows from the
observation's coordinates: a scalar ``height`` asks for the single level, a pressure for levels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa.cf import PRESSURE, SIGMA, Quantity, identify, is_surface
from xappa.cf import standard_name as stated_name
from xappa.cf.names import NEAR_SURFACE
from xappa.errors import CoordinateError, OperatorError, UnknownQuantityError, XappaError
from xappa.observe.aloft import ALTITUDE
from xappa.observe.arguments import Argument
from xappa.observe.parameters import ParametersError, check_parameters
from xappa.observe.registry import (
    RegisteredOperator,
    get_operator,
    operators_of,
    registered_operators,
)

if TYPE_CHECKING:
    from xappa.bridge import StateSpec, VariableSpec

__all__ = ["Match", "is_recognised", "match_quantity"]

OPERATOR_ATTRIBUTE = "xappa_operator"
BY_ALTITUDE = ("at_altitude", "at_hypsometric_altitude")
"""Operators that find the place of an altitude among pressure levels."""
BY_SIGMA = "at_pressure_on_sigma"
"""The operator that finds the place of a pressure among sigma levels."""
ON_SIGMA = (BY_SIGMA, "at_altitude")
"""Operators that take columns on sigma levels as well."""
HEIGHT_TOLERANCE = 1.0
"""Metres by which the heights of two near-surface quantities may differ (1.5 m and 2 m)."""


@dataclass(frozen=True)
class Match:
    """What an observation array measures, in terms of the state."""

    quantity: str
    operator: str
    inputs: tuple[VariableSpec, ...]
    units: str
    parameters: dict[str, Any] = field(default_factory=dict)
    columns: tuple[bool, ...] = ()
    arguments: tuple[Argument, ...] = ()
    guesses: tuple[str, ...] = ()


def is_recognised(array: xr.DataArray, state: StateSpec) -> bool:
    """Tell whether an array says what it measures, be it part of the state or not.

    By its standard name, its operator, a name in use in an archive, or that of a variable of the
    state.
    """
    return (
        OPERATOR_ATTRIBUTE in array.attrs
        or stated_name(array) is not None
        or identify(array)[0] is not None
        or any(variable.name == array.name for variable in state.variables)
    )


def match_quantity(
    array: xr.DataArray,
    state: StateSpec,
    *,
    vertical: str | None,
    where: str,
    says: Collection[str] = (),
    aloft: bool = False,
) -> Match:
    """Find the operator and its inputs for one observation array.

    Parameters
    ----------
    array
        The observations, with their attributes.
    state
        What the state holds.
    vertical
        What the array's vertical coordinate is (`xappa.cf.vertical`), None without one.
    where
        How messages call the array.
    says
        Names and standard names of what the array says of its elements, for operators.
    aloft
        Whether its altitudes are positions in the air.

    Raises
    ------
    UnknownQuantityError
        If the quantity is neither in the state nor registered.
    OperatorError
        If ``xappa_operator`` names an unknown operator.
    CoordinateError
        If the vertical coordinate that tells candidates apart is missing.
    """
    quantity, guess = identify(array)
    guesses = [] if guess is None else [guess]
    asked = array.attrs.get(OPERATOR_ATTRIBUTE)
    if asked is not None and asked != "identity":
        operator = get_operator(str(asked), where=where)
        return _registered(operator, array, quantity, state, vertical, says, aloft)
    if quantity is not None:
        named = [v for v in state.variables if v.standard_name == quantity.standard_name]
        if aloft and vertical is None and quantity.height is None:
            # of a ship what is observed may be at a single level, whatever its altitude
            named = [v for v in named if v.levels is not None] or named
        if named:
            if _by_altitude(named, quantity, vertical, says):
                wanted = [get_operator(name) for name in BY_ALTITUDE]
                return _first_that_fits(wanted, array, quantity, state, vertical, says, aloft)
            if vertical == PRESSURE and _only_on_sigma(named, quantity):
                wanted = [get_operator(BY_SIGMA)]
                return _first_that_fits(wanted, array, quantity, state, vertical, says, aloft)
            chosen, more = _choose(named, quantity, vertical, where)
            guesses += more
            return Match(
                quantity.standard_name,
                "identity",
                (chosen,),
                chosen.units,
                guesses=tuple(guesses),
            )
    for variable in state.variables:
        if variable.name == array.name and (quantity is None or variable.standard_name is None):
            guesses.append(f"taken for the state's {variable.name!r} by its name alone")
            _choose([variable], None, vertical, where)
            label = variable.standard_name or variable.name
            return Match(label, "identity", (variable,), variable.units, guesses=tuple(guesses))
    if asked is None and quantity is not None:
        known = operators_of(quantity.standard_name)
        if known:
            return _first_that_fits(known, array, quantity, state, vertical, says, aloft)
    raise _unknown(array, quantity, state, where)


def _by_altitude(
    named: Sequence[VariableSpec],
    quantity: Quantity,
    vertical: str | None,
    says: Collection[str],
) -> bool:
    """Whether an altitude alone says where on the levels of a quantity observations are."""
    alone = (
        vertical is None and quantity.height is None and all(v.levels is not None for v in named)
    )
    return alone and ALTITUDE in says


def _only_on_sigma(named: Sequence[VariableSpec], quantity: Quantity) -> bool:
    """Whether pressures have to be found among sigma levels, through the surface pressure."""
    layered = [v for v in named if v.levels is not None]
    return quantity.height is None and bool(layered) and all(v.vertical == SIGMA for v in layered)


def _first_that_fits(
    operators: Sequence[RegisteredOperator],
    array: xr.DataArray,
    quantity: Quantity,
    state: StateSpec,
    vertical: str | None,
    says: Collection[str],
    aloft: bool,
) -> Match:
    """Match the first operator whose inputs the state holds, and whose arguments the array says."""
    problems: list[XappaError] = []
    for operator in operators:
        try:
            return _registered(operator, array, quantity, state, vertical, says, aloft)
        except ParametersError:
            raise
        except (OperatorError, CoordinateError) as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    needs = [
        " and ".join(
            [
                *(quantity.standard_name if name == "*" else name for name, _ in op.inputs),
                *(f"{argument} of its own" for argument, _ in op.arguments),
            ]
        )
        for op in operators
    ]
    raise OperatorError(
        f"{quantity.standard_name} cannot be computed from this state for these observations",
        where=f"observations {str(array.name)!r}",
        expected="; or ".join(needs),
        got=f"{_held(state)}; the observations say {', '.join(sorted(says)) or 'nothing more'}",
        remedy="use a state with these variables, add the coordinate, or leave them out",
    )


def _registered(
    operator: RegisteredOperator,
    array: xr.DataArray,
    quantity: Quantity | None,
    state: StateSpec,
    vertical: str | None,
    says: Collection[str],
    aloft: bool,
) -> Match:
    """Match each input of a registered operator."""
    where = f"observations {str(array.name)!r}, operator {operator.name!r}"
    prefix = f"{OPERATOR_ATTRIBUTE}_"
    parameters = {
        str(key).removeprefix(prefix): value.item() if isinstance(value, np.generic) else value
        for key, value in array.attrs.items()
        if str(key).startswith(prefix)
    }
    sources = {name: str(parameters.pop(name, name)) for name, _ in operator.arguments}
    for name, source in sources.items():
        if source not in says:
            raise OperatorError(
                f"operator {operator.name!r} needs {name} of the observations",
                where=where,
                expected=f"a coordinate of that name or standard name, or the attribute "
                f"{prefix}{name} with the name of a variable",
                got=", ".join(sorted(says)) or "nothing of that kind",
                remedy="add it to the observations",
            )
    inputs, guesses, columns = [], [], []
    for given, _ in operator.inputs:
        standard_name = quantity.standard_name if given == "*" and quantity is not None else given
        named = [v for v in state.variables if v.standard_name == standard_name]
        if not named:
            raise OperatorError(
                f"operator {operator.name!r} needs {standard_name}, which the state lacks",
                where=where,
                expected=", ".join(name for name, _ in operator.inputs),
                got=_held(state),
                remedy="use a state with these variables, or leave out the observations",
            )
        column = given in operator.columns
        layered = any(v.levels is not None for v in named)
        if aloft and vertical is None and layered and not column and ALTITUDE not in sources:
            raise _vertical_error(named, standard_name, "altitudes: it needs pressures", where)
        height = None if quantity is None or standard_name not in NEAR_SURFACE else quantity.height
        wanted = Quantity(standard_name, None if column else height, "")
        chosen, more = _choose(named, wanted, _of_column(named) if column else vertical, where)
        if column and chosen.levels is None:
            raise _vertical_error(named, standard_name, "a column of it is needed", where)
        if column and chosen.vertical != PRESSURE and operator.name not in ON_SIGMA:
            raise _vertical_error(named, standard_name, "a column on pressure is needed", where)
        inputs.append(chosen)
        columns.append(column)
        guesses += [] if is_surface(standard_name) else more  # pressures are of the others
    levels = {v.levels for v, column in zip(inputs, columns, strict=True) if column}
    if len(levels) > 1:
        raise OperatorError(
            f"operator {operator.name!r} needs columns on the same levels",
            where=where,
            got="; ".join(_place(v) for v, c in zip(inputs, columns, strict=True) if c),
            remedy="use a state whose variables share their levels",
        )
    column_levels = next((v.levels for v, c in zip(inputs, columns, strict=True) if c), None)
    check_parameters(operator, parameters, sources, column_levels, where)
    arguments = tuple(
        Argument(sources[name], name, inputs[0].units if unit == "*" else unit, own=unit == "*")
        for name, unit in operator.arguments
    )
    return Match(
        operator.result if quantity is None else quantity.standard_name,
        operator.name,
        tuple(inputs),
        operator.units if operator.units != "*" else inputs[0].units,
        parameters,
        tuple(columns) if any(columns) else (),
        arguments,
        tuple(guesses),
    )


def _of_column(named: Sequence[VariableSpec]) -> str:
    """Return what the levels of a variable are; pressures if there are none."""
    return next((v.vertical for v in named if v.levels is not None), PRESSURE)


def _choose(
    named: list[VariableSpec], quantity: Quantity | None, vertical: str | None, where: str
) -> tuple[VariableSpec, list[str]]:
    """Choose among variables of one standard name by the observation's vertical coordinate."""
    on_levels = vertical is not None
    layered = [v for v in named if v.levels is not None and vertical in (None, v.vertical)]
    single = [variable for variable in named if variable.levels is None]
    height = None if quantity is None else quantity.height
    what = "the quantity" if quantity is None else quantity.standard_name
    if height is not None:
        near = [v for v in single if v.height is not None]
        if near:
            best = min(near, key=lambda v: abs((v.height or 0.0) - height))
            gap = abs((best.height or 0.0) - height)
            if gap <= HEIGHT_TOLERANCE:
                said = f"observed at {height:g} m, compared with {best.name!r} at {best.height:g} m"
                return best, [said] if gap else []
            raise _vertical_error(named, what, f"height {height:g} m", where)
        if not on_levels and single and len(single) == 1:
            return single[0], [
                f"height {height:g} m is not known of the state's {single[0].name!r}"
            ]
    if on_levels:
        if layered:
            return layered[0], []
        if len(single) == 1 and len(single) == len(named):
            return single[0], [
                f"{single[0].name!r} is at a single level: the pressure coordinate is not used"
            ]
    elif len(single) == 1:
        return single[0], []
    got = f"a coordinate of {vertical}" if on_levels else "no pressure and no scalar height"
    raise _vertical_error(named, what, got, where)


def _vertical_error(named: list[VariableSpec], what: str, got: str, where: str) -> CoordinateError:
    return CoordinateError(
        f"the vertical position of {where} does not choose one {what} of the state",
        where=where,
        expected="; or ".join(_place(variable) for variable in named),
        got=got,
        remedy="give the observations a pressure coordinate (standard_name air_pressure, with "
        "units) or that of the model's levels, or a scalar coordinate 'height' in metres if they "
        "are near the ground",
    )


def _place(variable: VariableSpec) -> str:
    if variable.levels is not None:
        if len(variable.levels) == 1:
            return f"{variable.name!r} on {variable.describe_levels()}"
        low, high = min(variable.levels), max(variable.levels)
        ends = variable.describe_levels([high]), variable.describe_levels([low])
        between = " to ".join(end.removesuffix(" hPa") for end in ends)
        unit = " hPa" if variable.vertical == PRESSURE else ""
        return f"{variable.name!r} on {len(variable.levels)} levels, {between}{unit}"
    at = "a single level" if variable.height is None else f"{variable.height:g} m"
    return f"{variable.name!r} at {at}"


def _held(state: StateSpec) -> str:
    return "; ".join(
        f"{variable.standard_name or 'no standard name'} ({_place(variable)})"
        for variable in state.variables
    )


def _unknown(
    array: xr.DataArray, quantity: Quantity | None, state: StateSpec, where: str
) -> UnknownQuantityError:
    given = array.attrs.get("standard_name")
    got = f"name {array.name!r}, standard_name {given!r}"
    what = f"{array.name or 'the array'}" if quantity is None else quantity.standard_name
    return UnknownQuantityError(
        f"{what} is neither a variable of the state nor a registered quantity",
        where=where,
        expected=f"of the state: {_held(state)}; registered operators: "
        f"{', '.join(registered_operators()) or 'none'}",
        got=got,
        remedy="set the attribute standard_name to one of these, or register the quantity with "
        "@xappa.register_operator; a variable that is no observation can be dropped, or made a "
        "coordinate with set_coords",
    )
