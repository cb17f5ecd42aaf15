r"""Conversion of units at the boundary, through pint.

A conversion is the affine map :math:`y = a x + b`. Differences, such as observation errors, take
the factor :math:`a` and never the offset :math:`b`: an error of 1 degree Celsius is 1 kelvin. A
depth of water is the mass of it: 1 mm is 1 kg m-2.

The unit registry is the one of cf-xarray, which knows the notation of CF (``m s-1``); `ALIASES`
adds spellings that archives use and the registry lacks. Pint is imported at the first conversion
between units that differ.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from xappa._unit_aliases import ALIASES
from xappa.errors import UnitsError

__all__ = [
    "ALIASES",
    "compatible",
    "convert",
    "dequantify",
    "difference_units",
    "factor_offset",
    "in_units_of",
    "is_quantified",
    "metres",
    "quantified_units",
    "quantities",
    "requantify_like",
    "same",
    "squared_units",
]

Labelled = TypeVar("Labelled", bound=xr.Dataset | xr.DataArray)

_SCALED = re.compile(r"^([0-9.]+(?:[eE][+-]?[0-9]+)?)[ *]+([^\W\d].*)$")


def _resolve(units: str) -> tuple[str, float]:
    """Return (what pint can read, factor) for a spelling."""
    text = " ".join(units.split())
    if text.lower() in ALIASES:
        return ALIASES[text.lower()]
    if scaled := _SCALED.match(text):
        inner, factor = _resolve(scaled.group(2))
        return inner, float(scaled.group(1)) * factor
    try:
        return "dimensionless", float(text)
    except ValueError:
        return text, 1.0


def _registry() -> Any:
    from cf_xarray.units import units as registry

    return registry


def _parse(units: str, where: str | None) -> tuple[Any, float]:
    text, factor = _resolve(units)
    try:
        return _registry().parse_units(text), factor
    # pint raises errors of many unrelated classes for text that it cannot read
    except Exception as error:
        raise UnitsError(
            f"the units {units!r} cannot be read",
            where=where,
            expected="units as in CF, such as 'K', 'm s-1', 'hPa' or '1'",
            got=repr(units),
            remedy="set the attribute: da.attrs['units'] = 'm s-1'",
        ) from error


def _given(units: object, where: str | None) -> str:
    if units is None or (isinstance(units, str) and not units.strip()):
        raise UnitsError(
            "units are missing",
            where=where,
            expected="an attribute 'units'",
            got=repr(units),
            remedy="set the attribute: da.attrs['units'] = 'K'",
        )
    return str(units)


@lru_cache(maxsize=512)
def _affine(from_units: str, to_units: str, where: str | None) -> tuple[float, float]:
    source, scale_in = _parse(from_units, where)
    target, scale_out = _parse(to_units, where)
    quantity = _registry().Quantity
    if source.dimensionality != target.dimensionality:
        water = quantity(1000.0, "kg / m ** 3")
        for depth, mass in ((source, target), (target, source)):
            one = quantity(1.0, depth) * water
            if one.dimensionality == mass.dimensionality and "[mass]" in mass.dimensionality:
                factor = float(one.to(mass).magnitude)
                factor = factor if depth is source else 1 / factor
                return factor * scale_in / scale_out, 0.0
        raise UnitsError(
            f"{from_units!r} cannot be converted to {to_units!r}",
            where=where,
            expected=f"units of dimension {target.dimensionality}, such as {to_units!r}",
            got=f"{from_units!r}, of dimension {source.dimensionality}",
            remedy="correct the units attribute, or convert the quantity before",
        )
    offset = float(quantity(0.0, source).to(target).magnitude)
    if offset == 0.0 and quantity(0.0, source).to_base_units().magnitude == 0.0:
        factor = float(quantity(1.0, source).to(target).magnitude)
    else:
        factor = float(quantity(1.0, _delta(source)).to(_delta(target)).magnitude)
    probe = float(quantity(7.0, source).to(target).magnitude)
    if not np.isclose(probe, 7.0 * factor + offset, rtol=1e-9):
        raise UnitsError(
            f"{from_units!r} is not an affine function of {to_units!r}",
            where=where,
            expected="units on a linear scale",
            got=from_units,
            remedy="convert the values from the logarithmic scale first",
        )
    return factor * scale_in / scale_out, offset / scale_out


def _delta(unit: Any) -> Any:
    """Return the unit of differences, such as delta_degree_Celsius for degree_Celsius."""
    registry = _registry()
    if registry.Quantity(0.0, unit).to_base_units().magnitude == 0.0:
        return unit
    return registry.Unit(f"delta_{unit}")


def factor_offset(
    from_units: str, to_units: str, *, where: str | None = None
) -> tuple[float, float]:
    """Return (factor, offset) of the affine map between two units.

    Parameters
    ----------
    from_units, to_units
        Units as CF, UDUNITS, GRIB or pint write them.
    where
        What the units belong to, for the error message.

    Raises
    ------
    UnitsError
        If units are missing, unreadable or of another dimension.

    Examples
    --------
    >>> factor_offset("degC", "K")
    (1.0, 273.15)
    >>> factor_offset("millibars", "Pa")
    (100.0, 0.0)
    >>> factor_offset("mm", "kg m-2")
    (1.0, 0.0)
    """
    source, target = _given(from_units, where), _given(to_units, where)
    if source == target:
        return 1.0, 0.0
    return _affine(source, target, where)


def convert(
    values: Any,
    from_units: str,
    to_units: str,
    *,
    difference: bool = False,
    where: str | None = None,
) -> Any:
    """Convert values from one unit to another.

    Parameters
    ----------
    values
        Number, numpy or dask array (which stays lazy), or xarray object. Floating dtypes are kept.
    from_units, to_units
        Units as CF, UDUNITS, GRIB or pint write them.
    difference
        True for errors and increments, which scale without the offset.
    where
        What the values are, for the error message.

    Returns
    -------
    values, the same object if nothing changes.

    Raises
    ------
    UnitsError
        If units are missing, unreadable or of another dimension.

    Examples
    --------
    >>> convert(20.0, "degC", "K")
    293.15
    >>> convert(0.5, "degC", "K", difference=True)
    0.5
    """
    factor, offset = factor_offset(from_units, to_units, where=where)
    if factor != 1.0:
        values = values * factor
    if offset != 0.0 and not difference:
        values = values + offset
    return values


def compatible(a: str | None, b: str | None) -> bool:
    """Tell whether two units are of one dimension; depths and masses of water are not.

    Examples
    --------
    >>> compatible("(0 - 1)", "%"), compatible("K", "m"), compatible("mm", "kg m-2")
    (True, False, False)
    """
    try:
        first, second = _given(a, None), _given(b, None)
        if first == second:
            return True
        _affine(first, second, None)
    except UnitsError:
        return False
    both = (_parse(unit, None)[0] for unit in (first, second))
    return len({unit.dimensionality for unit in both}) == 1


def same(a: str | None, b: str | None) -> bool:
    """Tell whether two spellings mean the same unit, so that values need no conversion."""
    try:
        return factor_offset(a, b) == (1.0, 0.0)  # type: ignore[arg-type]
    except UnitsError:
        return False


def difference_units(of: str | None) -> str | None:
    """Units of a difference of two values: kelvin for temperatures on any scale of that step.

    >>> difference_units("degC"), difference_units("m s-1"), difference_units(None)
    ('K', 'm s-1', None)
    >>> difference_units("degF")
    'delta_degree_Fahrenheit'
    """
    if of is None:
        return None
    try:
        factor, offset = factor_offset(of, "K")
    except UnitsError:
        return of
    if offset == 0.0:
        return of
    return "K" if factor == 1.0 else "delta_degree_Fahrenheit"


def squared_units(of: str) -> str:
    """Return the units of a variance.

    >>> squared_units("K"), squared_units("m s-1"), squared_units("1")
    ('K2', '(m s-1)2', '1')
    """
    if of == "1":
        return of
    return f"{of}2" if of.isalpha() else f"({of})2"


def in_units_of(reference: xr.DataArray, array: xr.DataArray, what: str) -> xr.DataArray:
    """Convert an array to the units of another; unchanged if either has none.

    Parameters
    ----------
    reference, array
        Without pint.
    what
        What the array is converted for, said before its name in an error.

    Raises
    ------
    UnitsError
        If the units do not convert.
    """
    given, wanted = array.attrs.get("units"), reference.attrs.get("units")
    if given is None or wanted is None or given == wanted:
        return array
    data = convert(array.data, given, wanted, where=f"{what} {array.name!r}")
    return array.copy(data=data).assign_attrs(units=wanted)


def _variables(obj: xr.Dataset | xr.DataArray) -> Mapping[Hashable, Any]:
    if isinstance(obj, xr.Dataset):
        return obj.variables
    return {obj.name: obj.variable, **{name: c.variable for name, c in obj.coords.items()}}


def quantified_units(obj: xr.Dataset | xr.DataArray) -> dict[Hashable, Any]:
    """Return the pint unit of each variable that holds a pint quantity, indexes included."""
    # without pint there are no quantities, and nothing shall import it only to ask
    if "pint" not in sys.modules:
        return {}
    from pint import Quantity

    # Variable.data would load a lazily indexed file; _data does not
    found = {
        name: data.units
        for name, variable in _variables(obj).items()
        if isinstance(data := getattr(variable, "_data", None), Quantity)
    }
    for name, index in obj.xindexes.items():
        if type(index).__name__ == "PintIndex":
            found[name] = index.units[name]
    return found


def is_quantified(obj: xr.Dataset | xr.DataArray) -> bool:
    """Tell whether any variable or coordinate of `obj` holds a pint quantity."""
    return bool(quantified_units(obj))


def dequantify(obj: Labelled) -> Labelled:
    """Return `obj` with plain arrays and its units as attributes; `obj` itself if it has none.

    Dask arrays within the quantities stay lazy.
    """
    if not is_quantified(obj):
        return obj
    import cf_xarray.units  # noqa: F401  # registers the format "cf"
    import pint_xarray  # noqa: F401  # registers the accessor .pint

    plain: Labelled = obj.pint.dequantify(format="cf")
    return plain


def quantities(units: Mapping[str, str]) -> dict[Hashable, Any]:
    """Return pint units for names of units, as `requantify` takes them.

    >>> str(quantities({"t": "K"})["t"])
    'kelvin'
    """
    return {name: _parse(text, name)[0] for name, text in units.items()}


def requantify_like(obj: Labelled, template: xr.Dataset | xr.DataArray) -> Labelled:
    """Return `obj` with pint quantities wherever `template` has them.

    Parameters
    ----------
    obj
        Plain object whose ``units`` attributes are those of the template.
    template
        An object that was quantified, or was not: then `obj` itself returns.
    """
    return requantify(obj, quantified_units(template))


def requantify(obj: Labelled, units: Mapping[Hashable, Any]) -> Labelled:
    """Return `obj` with pint quantities of the given units (see `quantified_units`)."""
    known = {name: unit for name, unit in units.items() if name in _variables(obj)}
    if not known:
        return obj
    import pint_xarray  # noqa: F401  # registers the accessor .pint

    plain: Any = obj.copy(deep=False)
    for name in known:
        whole = isinstance(obj, xr.DataArray) and name == obj.name
        variable = plain if whole else plain[name]
        variable.attrs = {key: v for key, v in variable.attrs.items() if key != "units"}
    others = {
        name: None
        for name, variable in _variables(obj).items()
        if name not in known and "units" in variable.attrs
    }
    registry = next(iter(known.values()))._REGISTRY
    quantified: Labelled = plain.pint.quantify({**known, **others}, unit_registry=registry)
    return quantified


def metres(length: Any) -> float:
    """Return a length in metres.

    Parameters
    ----------
    length
        Metres, or a number with a unit (``"300 km"``).

    Raises
    ------
    UnitsError
        If the unit is none of length.

    Examples
    --------
    >>> metres("300 km")
    300000.0
    """
    if not isinstance(length, str):
        return float(length)
    number, _, unit = length.strip().partition(" ")
    return float(convert(float(number), unit or "m", "m"))
