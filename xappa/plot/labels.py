"""What is checked, and what is written, in every plot: one variable, its title, units and time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import xarray as xr

from xappa import units
from xappa.cf import find_axes
from xappa.errors import ArgumentError

__all__ = [
    "PURPOSE",
    "degree",
    "lies_on",
    "not_plotable",
    "one_array",
    "quantity",
    "title",
    "west_to_east",
    "when",
]

PURPOSE = "plotting"


def one_array(obj: Any, argument: str, fits: Callable[[xr.DataArray], bool]) -> xr.DataArray:
    """Return the array to be drawn, without pint: `obj`, or the only variable of it that fits.

    Parameters
    ----------
    obj
        What the user passed.
    argument
        The name of the argument, for the error.
    fits
        Tells whether a variable of a Dataset can be drawn.

    Raises
    ------
    ArgumentError
        If a Dataset has none or several such variables, or `obj` is something else.
    """
    if isinstance(obj, xr.DataArray):
        return units.dequantify(obj)
    if not isinstance(obj, xr.Dataset):
        got, remedy = type(obj).__name__, "label the values: xr.DataArray(values, coords, dims)"
    else:
        names = [name for name, array in obj.data_vars.items() if fits(array)]
        if len(names) == 1:
            return units.dequantify(obj[names[0]])
        listed = list(obj.data_vars)
        got = f"a Dataset of {listed}, of which {names or 'none'} can be drawn"
        name = str((names or listed or ["t2m"])[0])
        dotted = f" or {argument}.{name}" if name.isidentifier() else ""
        remedy = f"pick a variable, as in {argument}[{name!r}]{dotted}"
    raise ArgumentError(
        f"{argument} is not one variable",
        where=f"xappa.plot, argument {argument!r}",
        expected="a DataArray, or a Dataset with only one variable that can be drawn",
        got=got,
        remedy=remedy,
    )


def lies_on(*roles: str) -> Callable[[xr.DataArray], bool]:
    """Return a test whether an array has dimensions of these roles (fields of `xappa.cf.Axes`)."""

    def fits(array: xr.DataArray) -> bool:
        axes = find_axes(array, require=())
        return all(getattr(axes, role) in array.dims for role in roles)

    return fits


def not_plotable(array: xr.DataArray, expected: str, remedy: str) -> ArgumentError:
    """Return the error for an array with other dimensions than a plot can show."""
    return ArgumentError(
        "the array cannot be drawn",
        where=f"{array.name!r}",
        expected=expected,
        got=f"dimensions {dict(array.sizes)}",
        remedy=remedy,
    )


def title(array: xr.DataArray) -> str:
    """Return what an array calls itself."""
    named = (array.attrs.get(key) for key in ("long_name", "standard_name"))
    name = next((str(name) for name in named if name and name != "unknown"), str(array.name or ""))
    return name.replace("_", " ")


def quantity(array: xr.DataArray, what: str, unit: str | None) -> str:
    """Say what is shown, with its units."""
    return f"{what or title(array)}{f' [{unit}]' if unit else ''}".strip()


def when(array: xr.DataArray) -> str:
    """Return the scalar time of a field, or an empty string."""
    time = find_axes(array, require=()).time
    if time is None or array[time].ndim:
        return ""
    if array[time].dtype.kind not in "MO":  # a month of a climatology
        return f"{time} {array[time].item()}"
    return str(array[time].values)[:16].replace("T", " ")


def degree(value: float, positive: str, negative: str) -> str:
    """Write an angle with its hemisphere.

    >>> degree(-10.0, "E", "W"), degree(51.5, "N", "S"), degree(0.0, "N", "S")
    ('10°W', '51.5°N', '0°')
    """
    side = "" if value == 0 else positive if value > 0 else negative
    return f"{abs(value):.4g}°{side}"


def west_to_east(longitude: float) -> str:
    """Write a longitude of either convention.

    >>> west_to_east(350.0), west_to_east(20.0), west_to_east(-180.0)
    ('10°W', '20°E', '180°')
    """
    value = round((longitude + 180.0) % 360.0 - 180.0, 9)
    return "180°" if abs(value) == 180.0 else degree(value, "E", "W")
