"""Vertical coordinates: pressures in pascals, and the levels of models.

==============================  ====================================================================
``air_pressure``                Pa
``atmosphere_sigma_coordinate`` pressure over surface pressure
``model_level_number``          numbers of levels, or any other coordinate of a model (hybrid)
==============================  ====================================================================
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.errors import CoordinateError, UnitsError
from xappa.units import compatible, convert, dequantify

__all__ = ["MODEL_LEVELS", "PRESSURE", "SIGMA", "pressure_levels", "vertical_levels"]

PRESSURE, SIGMA = "air_pressure", "atmosphere_sigma_coordinate"
#: Standard names of levels that are no pressures, and what they are taken as.
MODEL_LEVELS = {
    SIGMA: SIGMA,
    "model_level_number": "model_level_number",
    "atmosphere_hybrid_sigma_pressure_coordinate": "model_level_number",
    "atmosphere_hybrid_height_coordinate": "model_level_number",
    "atmosphere_ln_pressure_coordinate": "model_level_number",
    "atmosphere_sleve_coordinate": "model_level_number",
}
_MODEL_NAMES = {
    "sigma": SIGMA,
    "sigma_level": SIGMA,
    "hybrid": "model_level_number",
    "model_level": "model_level_number",
    "model_level_number": "model_level_number",
}

_REMEDY = "set its units: ds['level'].attrs['units'] = 'hPa'"
_UNIT_BY_NAME = {"isobaricinhpa": "hPa", "isobaricinpa": "Pa"}
_NO_UNITS = ("", "1", "level", "levels", "none", "dimensionless")
# no pressure in hPa exceeds 1100, and no archive has levels in Pa that all lie below 1100 Pa
_LARGEST_HPA, _SMALLEST_PA = 1100.0, 1.0e4


def vertical_levels(coord: xr.DataArray) -> tuple[npt.NDArray[np.float64], str, str | None]:
    """Return the values of a vertical coordinate, and what they are.

    Parameters
    ----------
    coord
        Coordinate of any shape.

    Returns
    -------
    levels
        float64, in the shape of `coord`: Pa for pressures, else as they are.
    kind
        ``"air_pressure"``, ``"atmosphere_sigma_coordinate"`` or ``"model_level_number"``.
    guess
        A sentence that says what was assumed, or None.

    Raises
    ------
    CoordinateError
        If they are neither; see `pressure_levels`.

    Examples
    --------
    >>> import xarray as xr
    >>> vertical_levels(
    ...     xr.DataArray([1, 2], dims="lev", attrs={"standard_name": "model_level_number"})
    ... )
    (array([1., 2.]), 'model_level_number', None)
    """
    kind = MODEL_LEVELS.get(str(coord.attrs.get("standard_name")))
    guess = None
    unit = str(coord.attrs.get("units", "")).strip().lower()
    if kind is None and "standard_name" not in coord.attrs and unit in _NO_UNITS:
        kind = _MODEL_NAMES.get(str(coord.name).lower())
        guess = None if kind is None else f"{coord.name}: taken as {kind} by its name"
    if kind is None:
        levels, guess = pressure_levels(coord)
        return levels, PRESSURE, guess
    return np.asarray(dequantify(coord).values, dtype=np.float64), kind, guess


def pressure_levels(coord: xr.DataArray) -> tuple[npt.NDArray[np.float64], str | None]:
    """Return the pressures of a vertical coordinate in pascals.

    Parameters
    ----------
    coord
        Coordinate of any shape. Without units, values up to 1100 are taken as hPa and values
        that reach 10 000 as Pa.

    Returns
    -------
    levels
        Pa, float64, in the shape of `coord`.
    guess
        A sentence that says what was assumed, or None.

    Raises
    ------
    CoordinateError
        If the values are no pressures: other units, level numbers, or not positive.

    Examples
    --------
    >>> import xarray as xr
    >>> pressure_levels(xr.DataArray([850.0, 500.0], dims="level", attrs={"units": "hPa"}))
    (array([85000., 50000.]), None)
    """
    coord = dequantify(coord)
    name = str(coord.name)
    values = np.asarray(coord.values, dtype=np.float64)
    units = str(coord.attrs.get("units", "")).strip()
    guess = None
    if units.lower() in _NO_UNITS:
        units = _UNIT_BY_NAME.get(name.lower(), "")
        if not units:
            units = _guess_units(values, name)
            guess = f"{name}: no units; its values are taken as pressures in {units}"
    elif not compatible(units, "Pa"):
        raise CoordinateError(
            "the vertical coordinate is not a pressure",
            where=name,
            expected="pressure levels, in Pa or hPa",
            got=f"units {units!r}",
            remedy="interpolate to pressure levels, or correct the units",
        )
    try:
        levels = np.round(np.asarray(convert(values, units, "Pa", where=name)), 6)
    except UnitsError as error:  # pragma: no cover - compatible() has been asked
        raise CoordinateError(str(error), where=name) from error
    if not np.all(levels[np.isfinite(levels)] > 0):
        raise CoordinateError(
            "pressures must be positive",
            where=name,
            expected="> 0 Pa",
            got=f"a minimum of {np.nanmin(levels):g} Pa",
            remedy=_REMEDY,
        )
    return levels, guess


def _guess_units(values: npt.NDArray[np.float64], name: str) -> str:
    finite = values[np.isfinite(values)]
    largest = float(finite.max()) if finite.size else 0.0
    numbers = np.arange(1, finite.size + 1)
    if finite.size >= 3 and np.array_equal(np.sort(finite, axis=None), numbers):
        raise CoordinateError(
            "the vertical coordinate holds level numbers, not pressures",
            where=name,
            expected="pressure levels, in Pa or hPa",
            got=f"the numbers 1 to {finite.size}, without units",
            remedy="say that they are a model's levels (attrs['standard_name'] = "
            "'model_level_number'), or set the units of pressures",
        )
    if 0 < largest <= _LARGEST_HPA:
        return "hPa"
    if largest >= _SMALLEST_PA:
        return "Pa"
    raise CoordinateError(
        "the units of the vertical coordinate are missing and cannot be guessed",
        where=name,
        expected="units of pressure",
        got=f"values up to {largest:g} without units",
        remedy=_REMEDY,
    )
