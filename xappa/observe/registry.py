"""The open registry of observation operators beyond interpolation.

A registered operator is a pointwise function y = f(x_1, …, x_m; arguments; parameters) of m state
variables that were interpolated to the place and time of the observation, to its pressure or as a
whole column. Arguments are what the observation array says of each of its elements (a pressure, an
altitude, an averaging kernel), parameters are attributes ``xappa_operator_<parameter>``, so that
everything survives a NetCDF round trip. An operator is chosen by the attribute ``xappa_operator``,
or by the array's standard name where that is the operator's quantity and the state does not hold it
itself. Operators that users register go before those that come with the library
(`xappa.observe.quantities`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from xappa.errors import OperatorError

__all__ = [
    "RegisteredOperator",
    "argument_names",
    "get_operator",
    "operators_of",
    "register_operator",
    "registered_operators",
    "unregister_operator",
]

PointwiseFunction = Callable[..., Any]
_Function = TypeVar("_Function", bound=PointwiseFunction)
_REGISTRY: dict[str, RegisteredOperator] = {}
_BUILT_IN: dict[str, RegisteredOperator] = {}


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
        Whether the function is linear or affine (no products of inputs), so that exact methods may
        use it.
    quantity
        Standard name of the result; the name by default.
    columns
        Which inputs are taken on all their levels, as tensors (..., n, L); the function then gets
        the levels in Pa, shape (L,), as the keyword ``levels``.
    arguments
        What the observation array says of its elements: names (or standard names) of coordinates,
        with the units in which the function wants them (``"*"``: those of the first input). Tensors
        (n,) or (n, K), by keyword.
    """

    name: str
    inputs: tuple[tuple[str, str | None], ...]
    units: str
    function: PointwiseFunction
    linear: bool = False
    quantity: str | None = None
    columns: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str | None], ...] = ()

    @property
    def result(self) -> str:
        """Standard name of the result."""
        return self.quantity or self.name

    def __dask_tokenize__(self) -> tuple[object, ...]:
        from dask.base import normalize_token

        about = (self.name, self.inputs, self.units, self.linear, self.columns, self.arguments)
        return ("xappa.RegisteredOperator", *about, normalize_token(self.function))


def register_operator(
    name: str,
    *,
    inputs: Mapping[str, str] | Sequence[str],
    units: str,
    linear: bool = False,
    replace: bool = False,
    quantity: str | None = None,
    columns: Sequence[str] = (),
    arguments: Mapping[str, str | None] | Sequence[str] = (),
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
    quantity
        Standard name of the result, where it is not the name.
    columns
        Which of the inputs the function takes on all their levels, as tensors (..., n, L), together
        with the keyword ``levels``, their pressures in Pa (L,).
    arguments
        Names or standard names of coordinates of the observations that the function takes by
        keyword (blanks and dots cannot be in them); as a mapping, with the units it takes them in.

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
    said = dict(arguments) if isinstance(arguments, Mapping) else dict.fromkeys(arguments)
    if unknown := set(columns) - set(named):
        raise OperatorError(
            f"columns of operator {name!r} that are no inputs: {', '.join(sorted(unknown))}",
            where="xappa.register_operator",
            expected=", ".join(map(str, named)),
            got=", ".join(map(str, columns)),
            remedy="list them among the inputs, too",
        )
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
        _REGISTRY[name] = RegisteredOperator(
            name, wanted, units, function, linear, quantity, tuple(columns), tuple(said.items())
        )
        return function

    return decorate


def unregister_operator(name: str) -> None:
    """Forget a registered operator; an unknown name is no error."""
    _REGISTRY.pop(name, None)


def registered_operators() -> tuple[str, ...]:
    """Names of all registered operators, those of the library included, sorted."""
    return tuple(sorted({*_REGISTRY, *_built_in()}))


def operators_of(quantity: str) -> tuple[RegisteredOperator, ...]:
    """Return the operators that give a quantity, those that users registered first."""
    own = [op for op in _REGISTRY.values() if op.result == quantity]
    return (*own, *(op for op in _built_in().values() if op.result == quantity))


def is_built_in(operator: RegisteredOperator) -> bool:
    """Tell whether an operator comes with the library."""
    return _built_in().get(operator.name) is operator


def argument_names() -> frozenset[str]:
    """Return what registered operators want to know of the elements of observations."""
    every = [*_REGISTRY.values(), *_built_in().values()]
    return frozenset(name for operator in every for name, _ in operator.arguments)


def _built_in() -> Mapping[str, RegisteredOperator]:
    if not _BUILT_IN:
        from xappa.observe.quantities import OPERATORS

        _BUILT_IN.update({operator.name: operator for operator in OPERATORS})
    return _BUILT_IN


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
    if name in _REGISTRY:
        return _REGISTRY[name]
    try:
        return _built_in()[name]
    except KeyError:
        raise OperatorError(
            f"no observation operator named {name!r} is registered",
            where=where,
            expected=", ".join(("identity", *registered_operators())),
            got=f"xappa_operator={name!r}",
            remedy="import the module that registers it, or use @xappa.register_operator",
        ) from None
