"""The observation error: where its standard deviation comes from, in order of priority.

1. the argument ``error=``: a number in the observation's units, a pint quantity, a DataArray, or a
   dict (or Dataset) of these by array name or standard name;
2. an ancillary variable whose standard name has the modifier ``standard_error``
   (``standard_error_multiplier`` is honoured);
3. a coordinate ``error_std``, or one with that modifier;
4. the attribute ``error_std`` or ``standard_error``.

Where nobody says it there is a table of common quantities (`xappa.observe.defaults`), which is
used with a warning; for others it is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa import units
from xappa.errors import ErrorCovarianceError, XappaError
from xappa.observe.ancillary import ERROR_MODIFIER, companions, modifier, on_elements
from xappa.observe.values import without_fills

if TYPE_CHECKING:
    from xappa.observe.containers import Found

__all__ = [
    "ERROR_COORDINATE",
    "ErrorArgument",
    "has_error",
    "not_by_slip",
    "resolve_error",
    "said_by_itself",
    "unused_error_names",
]

ERROR_COORDINATE = "error_std"
ERROR_ATTRIBUTES = ("error_std", "standard_error")
ErrorArgument = Any  # number | pint.Quantity | DataArray | Dataset | Mapping[str, …] | None


def resolve_error(
    array: xr.DataArray,
    dataset: xr.Dataset | None,
    *,
    names: tuple[str, ...],
    obs_units: str,
    state_units: str,
    error: ErrorArgument = None,
) -> np.ndarray:
    """Find the standard deviation of the errors of one observation array.

    Parameters
    ----------
    array
        The observations.
    dataset
        Where its ancillary variables are, if anywhere.
    names
        Names under which a dict ``error=`` may hold it; the first is used in messages.
    obs_units, state_units
        Units of the array, and those of the result.
    error
        The argument of the same name.

    Returns
    -------
    (n,) float64
        In `state_units`; NaN where unknown.

    Raises
    ------
    ErrorCovarianceError
        If there is no error, it is negative or zero, or does not fit the array.
    UnitsError
        If its units are of another kind.
    """
    where = f"observations {names[0]!r}"
    given, source = _from_argument(error, names), "error="
    if given is None:
        given, source = _from_metadata(array, dataset, names[0])
    if given is None:
        raise ErrorCovarianceError(
            f"the error of {where} is not known",
            where=where,
            expected="an ancillary variable with the modifier standard_error, a coordinate "
            f"{ERROR_COORDINATE!r}, or an attribute 'error_std'",
            got="none of them",
            remedy=f"pass error= (a standard deviation in {obs_units}), "
            f"or a dict such as error={{{names[0]!r}: 0.5}}",
        )
    values, own_units = _plain(given, array, where, source)
    std = units.convert(
        values, own_units or obs_units, state_units, difference=True, where=f"error of {where}"
    )
    std = np.asarray(std, dtype=np.float64)
    std = np.where(np.isnan(without_fills(values)), np.nan, std)
    wrong = std <= 0
    if wrong.any():
        raise ErrorCovarianceError(
            f"the error of {where} is not positive",
            where=f"{where}, from {source}",
            expected="standard deviations > 0 (NaN where unknown)",
            got=f"{int(wrong.sum())} of {std.size} values <= 0, the first {values[wrong][0]:g}",
            remedy="correct the errors, or set them to NaN to reject those observations",
        )
    return std


def _from_argument(error: ErrorArgument, names: tuple[str, ...]) -> Any:
    if isinstance(error, (Mapping, xr.Dataset)):
        return next((error[name] for name in names if name in error), None)
    return error


def _from_metadata(array: xr.DataArray, dataset: xr.Dataset | None, name: str) -> tuple[Any, str]:
    for key, variable in companions(array, dataset):
        if modifier(variable) == ERROR_MODIFIER or key == ERROR_COORDINATE:
            multiplier = variable.attrs.get("standard_error_multiplier", 1.0)
            try:
                scaled = variable / float(multiplier)
            except (TypeError, ValueError):
                raise ErrorCovarianceError(
                    f"the error variable {key!r} cannot be read",
                    where=f"observations {name!r}",
                    expected="numbers, and a standard_error_multiplier that is a number",
                    got=f"dtype {variable.dtype}, standard_error_multiplier={multiplier!r}",
                    remedy="correct the variable, or pass error=",
                ) from None
            return scaled.assign_attrs(variable.attrs), f"variable {key!r}"
    for key in ERROR_ATTRIBUTES:
        if key in array.attrs:
            return array.attrs[key], f"attribute {key!r}"
    return None, ""


def _plain(
    given: Any, array: xr.DataArray, where: str, source: str
) -> tuple[np.ndarray, str | None]:
    """Return numbers per element, and their own units if they have any."""
    own_units = None
    if hasattr(given, "magnitude"):  # a pint quantity
        given, own_units = given.magnitude, str(given.units)
    if isinstance(given, xr.DataArray):
        if units.is_quantified(given):
            given = units.dequantify(given)
        own_units = given.attrs.get("units")
        values = on_elements(given.reset_coords(drop=True), array)
    else:
        values = _broadcast(given, array)
    if values is not None:
        try:
            return np.asarray(values, dtype=np.float64), own_units
        except (TypeError, ValueError):
            pass
    got = f"dims {dict(given.sizes)}" if isinstance(given, xr.DataArray) else repr(given)[:60]
    raise ErrorCovarianceError(
        f"the error of {where} does not fit the array",
        where=f"{where}, from {source}",
        expected=f"a number, or an array over (some of) the dims {dict(array.sizes)} with the "
        "same labels",
        got=got,
        remedy="give the error as a DataArray with the observations' own dims and coordinates",
    )


def _broadcast(given: Any, array: xr.DataArray) -> np.ndarray | None:
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if isinstance(given, (bool, np.bool_)) or values.shape not in ((), array.shape):
        return None
    return np.broadcast_to(values, array.shape).reshape(-1)


def unused_error_names(error: ErrorArgument, names: set[str]) -> XappaError | None:
    """Return the error for keys of a dict ``error=`` that no array has, such as a misspelt name."""
    if not isinstance(error, (Mapping, xr.Dataset)):
        return None
    unknown = sorted(str(key) for key in error if str(key) not in names)
    if not unknown:
        return None
    return ErrorCovarianceError(
        f"error= names {unknown[0]!r}, which is not among the observations",
        where="error=",
        expected=", ".join(sorted(names)),
        got=", ".join(unknown),
        remedy="use the arrays' names or standard names",
    )


def is_given(found: Found, error: ErrorArgument) -> bool:
    """Tell whether the argument ``error=`` says something of an array."""
    if isinstance(error, (Mapping, xr.Dataset)):
        return any(name in error for name in found.names)
    return error is not None


def said_by_itself(found: Found, error: ErrorArgument) -> bool:
    """Tell whether metadata give the error of an array, or the argument does so by its name."""
    named = error if isinstance(error, (Mapping, xr.Dataset)) else None
    return has_error(found, named)


def has_error(found: Found, error: ErrorArgument) -> bool:
    """Tell whether an argument or metadata give the error of an array."""
    return (
        is_given(found, error)
        or any(key in found.array.attrs for key in ERROR_ATTRIBUTES)
        or any(
            key == ERROR_COORDINATE or modifier(variable) == ERROR_MODIFIER
            for key, variable in companions(found.array, found.dataset)
        )
    )


def not_by_slip(
    errors: list[XappaError], found: list[Found], error: Mapping[Any, Any]
) -> list[XappaError]:
    """Return the problems that a wrong name in ``error=`` does not explain.

    An array whose name is misspelt there lacks an error: one slip, and so one problem. More arrays
    without errors than unknown names are problems of their own.
    """
    known = {name for item in found for name in item.names}
    unknown = sum(str(key) not in known for key in error)
    without = {item.where for item in found if not is_given(item, error)}
    slips = [e for e in errors if isinstance(e, ErrorCovarianceError) and e.where in without]
    return [e for e in errors if e not in slips] if len(slips) <= unknown else errors
