"""Parameters of registered operators: checked when metadata are read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from xappa.errors import OperatorError
from xappa.observe.registry import RegisteredOperator, is_built_in
from xappa.observe.rows import ROUNDING

__all__ = ["ParametersError", "check_parameters"]


class ParametersError(OperatorError):
    """The attributes of observations do not fit the operator that they ask for."""


def check_parameters(
    operator: RegisteredOperator,
    parameters: Mapping[str, Any],
    arguments: Mapping[str, str],
    levels: Sequence[float] | None,
    where: str,
) -> None:
    """Check that an operator can be called with what the observations say.

    Parameters
    ----------
    operator
        The operator.
    parameters
        From the attributes ``xappa_operator_<name>``.
    arguments
        Names of what is known of each element.
    levels
        Pressures in Pa of its columns; None without columns.
    where
        How messages call the observations.

    Raises
    ------
    ParametersError
        If a parameter is missing or not known, or a layer does not lie within the levels.
    """
    function = getattr(operator.function, "forward", operator.function)
    named: dict[str, Any] = {**parameters, **dict.fromkeys(arguments)}
    if levels is not None:
        named["levels"] = None
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in C: it is called, and will see
        return
    try:
        signature.bind(*[None] * len(operator.inputs), **named)
    except TypeError as error:
        own = list(signature.parameters)[len(operator.inputs) :]
        wanted = [name for name in own if name not in arguments and name != "levels"]
        raise ParametersError(
            f"operator {operator.name!r} cannot be called with these parameters",
            where=where,
            expected=", ".join(f"xappa_operator_{name}" for name in wanted) or "no parameters",
            got=f"{', '.join(map(str, parameters)) or 'none'} ({error})",
            remedy="correct the attributes of the observations",
        ) from None
    if not is_built_in(operator):
        return
    if parameters.get("over", "water") not in ("water", "ice", "mixed"):
        raise ParametersError(
            f"operator {operator.name!r} does not know this phase",
            where=where,
            expected="xappa_operator_over: water, ice or mixed",
            got=repr(parameters["over"]),
            remedy="correct the attribute; without it, humidity is relative to water",
        )
    if levels is not None and {"lower", "upper"} <= set(parameters):
        _check_layer(operator, parameters["lower"], parameters["upper"], levels, where)


def _check_layer(
    operator: RegisteredOperator, lower: Any, upper: Any, levels: Sequence[float], where: str
) -> None:
    bottom, top = max(levels), min(levels)
    try:
        inside = bottom * (1 + ROUNDING) >= lower > upper >= top * (1 - ROUNDING)
    except TypeError:
        inside = False
    if not inside:
        raise ParametersError(
            f"the layer of operator {operator.name!r} does not lie within the levels",
            where=where,
            expected=f"pressures in Pa, {bottom:g} >= lower > upper >= {top:g}",
            got=f"lower={lower!r}, upper={upper!r}",
            remedy="correct xappa_operator_lower and _upper; extrapolation is refused",
        )
