"""Predictors of biases that are quantities of the state: which operators give them.

Their names are standard names of the state's variables or of what can be computed of them, names of
registered operators, or ``thickness_1000_300``: the dry thickness between two pressures in hPa.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa.errors import ErrorCovarianceError, XappaError
from xappa.observe.arguments import read_arguments, said_names
from xappa.observe.containers import Found
from xappa.observe.matching import match_quantity
from xappa.observe.positions import Positions
from xappa.observe.registry import registered_operators
from xappa.observe.spec import ObservationSpec, Status

if TYPE_CHECKING:
    from xappa.bridge import StateSpec

__all__ = ["air_mass", "with_air_mass"]

_THICKNESS = re.compile(r"thickness_(\d+)_(\d+)$")


def air_mass(
    spec: ObservationSpec, found: Found, positions: Positions, state: StateSpec
) -> ObservationSpec:
    """Find the operators of bias predictors that observations do not carry themselves.

    Parameters
    ----------
    spec
        The observations.
    found, positions
        What they were read from.
    state
        The state's variables.

    Raises
    ------
    ErrorCovarianceError
        If a predictor is neither a coordinate nor a quantity of the state.
    """
    bias = None if spec.structure is None else spec.structure.bias
    if bias is None or spec.structure is None:
        return spec
    names = [name for name in bias.predictors if name not in found.array.coords]
    if not names:
        return spec
    known = {name: _predictor(name, spec, found, positions, state) for name in names}
    return replace(spec, structure=replace(spec.structure, bias=replace(bias, air_mass=known)))


def _predictor(
    name: str, spec: ObservationSpec, found: Found, positions: Positions, state: StateSpec
) -> ObservationSpec:
    attrs: dict[str, Any] = {"standard_name": name}
    if layer := _THICKNESS.match(name):
        lower, upper = (100.0 * float(part) for part in layer.groups())
        attrs = {
            "xappa_operator": "dry_thickness",
            "xappa_operator_lower": lower,
            "xappa_operator_upper": upper,
        }
    elif name in registered_operators():
        attrs = {"xappa_operator": name}
    array = xr.DataArray(found.array.variable, found.array.coords, name=name)
    array.attrs = attrs
    try:
        match = match_quantity(
            array,
            state,
            vertical=None if positions.axes.vertical is None else positions.vertical,
            where=found.where,
            says=said_names(found, on_levels=positions.pressure is not None),
        )
        arguments = read_arguments(found, match.arguments, positions.pressure)
    except XappaError as error:
        raise ErrorCovarianceError(
            f"the predictor {name!r} of biases is not known",
            where=f"{found.where}, attribute bias_predictors",
            expected="a coordinate of the observations, or a quantity that the state gives",
            got=str(error).splitlines()[0],
            remedy="add the coordinate, or correct the name (such as 'thickness_1000_300')",
        ) from error
    return replace(
        spec,
        name=f"{spec.name}/{name}",
        quantity=match.quantity,
        operator=match.operator,
        parameters=match.parameters,
        inputs=match.inputs,
        units=match.units,
        state_units=match.units,
        pressure=positions.pressure,
        level=positions.level,
        status=np.full(spec.size, Status.USED, np.int8),
        columns=match.columns,
        arguments=arguments,
        footprint=None,
        structure=None,
        guesses=(),
    )


def with_air_mass(
    spec: ObservationSpec, values: Mapping[str, np.ndarray] | Sequence[np.ndarray]
) -> ObservationSpec:
    """Return observations whose air-mass predictors are known.

    Parameters
    ----------
    spec
        The observations.
    values
        (n,) of each predictor in ``spec.structure.bias.air_mass``, by name or in that order.
    """
    if spec.structure is None or spec.structure.bias is None:
        return spec
    bias = spec.structure.bias
    named = values if isinstance(values, Mapping) else dict(zip(bias.air_mass, values, strict=True))
    structure = replace(spec.structure, bias=bias.with_predictors(named))
    return replace(spec, structure=structure)
