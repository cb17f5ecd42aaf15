"""The open registry of observation operators beyond interpolation.

A registered operator is a pointwise function y = f(x_1, …, x_m; parameters) of m state variables
that were interpolated to the place and time of the observation. It is chosen by the attribute
``xappa_operator`` of the observation array, or by the array's standard name where that is the
operator's name and the state does not hold the quantity itself. Parameters come from attributes
``xappa_operator_<parameter>``, so that everything survives a NetCDF round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from xappa.errors import OperatorError

__all__ = [
    "RegisteredOperator",
    "get_operator",
    "register_operator",
    "registered_operators",
    "unregister_operator",
]

PointwiseFunction = Callable[..., Any]
_Function = TypeVar("_Function", bound=PointwiseFunction)
_REGISTRY: dict[str, RegisteredOperator] = {}


@dataclass(frozen=True)
class RegisteredOperator:
    """A pointwise function of interpolated state variables.

    Parameters
    ----------
    name
        What ``xappa_operator`` or the standard name of the observation says.
    inputs
        Standard names of the state variables, in the order of the function's arguments, with the
        units in which it wants them (None: the units of the state).
    units
        Units of the result.
    function
        Takes m torch tensors (..., n) and keyword parameters, returns a tensor (..., n).
        A ``torch.nn.Module`` is a function, too.
    linear
        Whether the function is linear (no offset, no products of inputs), so that exact methods
        may use it.
    """

    name: str
    inputs: tuple[tuple[str, str | None], ...]
    units: str
    function: PointwiseFunction
    linear: bool = False

    def __dask_tokenize__(self) -> tuple[object, ...]:
        from dask.base import normalize_token

        about = ("xappa.RegisteredOperator", self.name, self.inputs, self.units, self.linear)
        return (*about, normalize_token(self.function))


def register_operator(
    name: str,
    *,
    inputs: Mapping[str, str] | Sequence[str],
    units: str,
    linear: bool = False,
    replace: bool = False,
) -> Callable[[_Function], _Function]:
    """Register an observation operator under a name.

    Parameters
    ----------
    name
        A CF standard name where there is one, else any name without blanks.
    inputs
        Standard names of the state variables that the function takes, in order; as a mapping,
        with the units in which it takes them.
    units
        Units of the result.
    linear
        Whether the function is linear in its inputs.
    replace
        Whether an operator of the same name may be replaced.

    Returns
    -------
    callable
        A decorator that returns the function (or ``nn.Module``) as it was.

    Raises
    ------
    OperatorError
        If the name is taken or reserved, or there are no inputs.

    Examples
    --------
    >>> wind = {"eastward_wind": "m s-1", "northward_wind": "m s-1"}
    >>> @register_operator("example_wind_energy", inputs=wind, units="m2 s-2")
    ... def wind_energy(u, v):
    ...     return (u * u + v * v) / 2
    >>> get_operator("example_wind_energy").units
    'm2 s-2'
    >>> unregister_operator("example_wind_energy")
    """
    named = inputs if isinstance(inputs, Mapping) else dict.fromkeys(inputs)
    wanted = tuple((str(key), named[key]) for key in named)
    if not wanted or not name or any(letter.isspace() for letter in name) or name == "identity":
        raise OperatorError(
            f"an observation operator cannot be registered as {name!r} with {len(wanted)} inputs",
            where="xappa.register_operator",
            expected="a name without blanks, other than 'identity', and one input or more",
            got=f"name={name!r}, inputs={list(named)}",
            remedy='for example register_operator("wind_speed", inputs=["eastward_wind", '
            '"northward_wind"], units="m s-1")',
        )
    if name in _REGISTRY and not replace:
        raise OperatorError(
            f"an observation operator named {name!r} is registered already",
            where="xappa.register_operator",
            expected="a new name",
            got=name,
            remedy="choose another name, or pass replace=True",
        )

    def decorate(function: _Function) -> _Function:
        _REGISTRY[name] = RegisteredOperator(name, wanted, units, function, linear)
        return function

    return decorate


def unregister_operator(name: str) -> None:
    """Forget a registered operator; an unknown name is no error."""
    _REGISTRY.pop(name, None)


def registered_operators() -> tuple[str, ...]:
    """Names of all registered operators, sorted."""
    return tuple(sorted(_REGISTRY))


def get_operator(name: str, *, where: str | None = None) -> RegisteredOperator:
    """Return the operator registered under a name.

    Parameters
    ----------
    name
        Its name.
    where
        The observation array that asks for it, for the message.

    Raises
    ------
    OperatorError
        If there is none; the message lists the known names.
    """
    try:
        return _REGISTRY[name]
    except KeyError:
        raise OperatorError(
            f"no observation operator named {name!r} is registered",
            where=where,
            expected=", ".join(("identity", *registered_operators())),
            got=f"xappa_operator={name!r}",
            remedy="import the module that registers it, or use @xappa.register_operator",
        ) from None
