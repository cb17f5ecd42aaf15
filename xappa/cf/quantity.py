"""Which quantity a variable holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from xappa.cf.axes import standard_name
from xappa.cf.names import KNOWN, NEAR_SURFACE, STANDARD_NAME_ALIASES, Known
from xappa.units import compatible, convert, dequantify

__all__ = ["Quantity", "identify", "is_surface"]

_NAME_ATTRS = ("GRIB_shortName", "short_name", "GRIB_cfVarName")
_HEIGHT_NAMES = ("height", "heightaboveground", "height_above_ground")
_BY_ALIAS: dict[str, tuple[Known, ...]] = {
    alias: tuple(row for row in KNOWN if alias in row.aliases)
    for known in KNOWN
    for alias in known.aliases
}
_SURFACE = {row.standard_name for row in KNOWN if row.surface and row.height is None}
_UNITS = {row.standard_name: row.units for row in KNOWN}


@dataclass(frozen=True)
class Quantity:
    """What a variable holds.

    Parameters
    ----------
    standard_name
        CF standard name.
    height
        Metres above ground of a near-surface quantity, else None.
    units
        Canonical CF units (the variable's own for a standard name that is not in the table).
    """

    standard_name: str
    height: float | None
    units: str


def is_surface(name: str | None) -> bool:
    """Tell whether a standard name belongs to the surface or column, and so has no level."""
    return name in _SURFACE


def identify(da: xr.DataArray, name: str | None = None) -> tuple[Quantity | None, str | None]:
    """Identify the quantity that a variable holds.

    Parameters
    ----------
    da
        Variable with its attributes and coordinates; values are not looked at.
    name
        Name of the variable; by default the DataArray's own.

    Returns
    -------
    quantity
        None if nothing is recognised.
    guess
        A sentence that says what was taken from names rather than from CF metadata, or None.

    Examples
    --------
    >>> import xarray as xr
    >>> identify(xr.DataArray(0.0, attrs={"units": "K"}), "t2m")[0]
    Quantity(standard_name='air_temperature', height=2.0, units='K')
    """
    name = str(da.name) if name is None and da.name is not None else name
    stated = standard_name(da)
    label = name or "this variable"
    if stated is not None:
        if " " in stated:  # a modifier: an error or a flag of a quantity, not the quantity
            return None, None
        stated = STANDARD_NAME_ALIASES.get(stated, stated)
        match = _by_names(da, name, stated)
        height, guess = _height(da, stated, match[0] if match else None, label)
        units = _UNITS.get(stated, str(da.attrs.get("units", "")))
        return Quantity(stated, height, units), guess
    match = _by_names(da, name, None)
    if match is None:
        return None, None
    row, source = match
    height, _ = _height(da, row.standard_name, row, label)
    where = "" if height is None else f" at {height:g} m"
    guess = f"{label}: taken as {row.standard_name}{where} because {source}"
    return Quantity(row.standard_name, height, row.units), guess


def _by_names(da: xr.DataArray, name: str | None, stated: str | None) -> tuple[Known, str] | None:
    """Return the row of the first name that fits the units (and the stated standard name)."""
    named = {f"{key} is {da.attrs[key]!r}": da.attrs[key] for key in _NAME_ATTRS if key in da.attrs}
    if name is not None:
        named[f"its name is {name!r}"] = name
    if "long_name" in da.attrs:
        named[f"long_name is {da.attrs['long_name']!r}"] = da.attrs["long_name"]
    units = da.attrs.get("units")
    for source, alias in named.items():
        key = str(alias).strip().lower().replace(" ", "_")
        for row in _BY_ALIAS.get(key, ()):
            if stated is not None and row.standard_name != stated:
                continue
            if units is None or units == row.units or compatible(str(units), row.units):
                return row, source
    return None


def _height(
    da: xr.DataArray, quantity: str, row: Known | None, label: str
) -> tuple[float | None, str | None]:
    """Return the height above ground and, where it is a guess, the sentence."""
    implied = None if row is None else row.height
    if quantity not in NEAR_SURFACE:
        return implied, None
    given = _scalar_height(da)
    if implied is not None and given is not None and not np.isclose(implied, given):
        # a scalar coordinate of a Dataset belongs to all its variables, a name to one
        return implied, (
            f"{label}: its name says {implied:g} m, the scalar height coordinate {given:g} m;"
            f" {implied:g} m was taken"
        )
    if given is not None:
        return given, None
    guess = f"{label}: height {implied:g} m taken from its name" if implied is not None else None
    return implied, guess


def _scalar_height(da: xr.DataArray) -> float | None:
    """Return the scalar (or length-one) height coordinate in metres."""
    for name, coord in da.coords.items():
        stated = standard_name(coord)
        is_height = stated == "height" or (stated is None and str(name).lower() in _HEIGHT_NAMES)
        if is_height and coord.size == 1 and coord.dtype.kind in "iuf":
            plain = dequantify(coord)
            units = str(plain.attrs.get("units", "m"))
            value = float(np.asarray(plain.values).ravel()[0])
            return float(convert(value, units, "m", where=str(name)))
    return None
