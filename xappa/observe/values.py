"""Observed values: fill values become missing, and units those of the state."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xappa import units
from xappa.observe.limits import possible_range

__all__ = ["HUGE", "present_values", "read_values", "without_fills"]

HUGE = 1e19
"""No quantity of the atmosphere is as large: 1e20, 9.97e36 and their like stand for nothing."""
_NOTHING = (-999.0, -9999.0, -99999.0, -888888.0)
_SENTINELS = (
    *_NOTHING,
    *(-99.0, -99.9, -999.9, -9999.9, -32767.0, -32768.0),
    *(99.9, 999.0, 999.9, 9999.0, 99999.0, 1e10),
)


def read_values(
    array: xr.DataArray, own_units: str, state_units: str, quantity: str, where: str
) -> tuple[np.ndarray, list[str]]:
    """Return observed values in the state's units; see `present_values` for what is missing.

    Parameters
    ----------
    array
        The observations.
    own_units, state_units
        Their units, and those of the result.
    quantity
        Standard name.
    where
        How messages call them.

    Returns
    -------
    values
        (n,) float64; NaN where missing.
    guesses
        What was taken for missing without being said to be.

    Raises
    ------
    UnitsError
        If the units do not convert.
    """
    raw, guesses = present_values(array, own_units, quantity)
    converted = units.convert(raw, own_units, state_units, where=where)
    return np.asarray(converted, dtype=np.float64), guesses


def present_values(
    array: xr.DataArray, own_units: str, quantity: str
) -> tuple[np.ndarray, list[str]]:
    """Return observed values in their own units.

    Missing are NaN, infinities, what the attributes ``_FillValue`` and ``missing_value`` say,
    numbers beyond `HUGE`, and those of the usual sentinels (-999, -9999, ...) that are beyond
    anything that the quantity can be.

    Parameters
    ----------
    array, own_units, quantity
        As of `read_values`.

    Returns
    -------
    values
        (n,) float64; NaN where missing.
    guesses
        What was taken for missing without being said to be.
    """
    raw = np.array(array.values, dtype=np.float64).reshape(-1)
    for key in ("_FillValue", "missing_value"):  # left in attrs if the file was not decoded
        raw[_equal(array, array.attrs.get(key))] = np.nan
    raw[np.isinf(raw)] = np.nan
    with np.errstate(invalid="ignore"):
        fill = np.abs(raw) > HUGE
    low, high = possible_range(quantity, own_units)
    fill |= _equal(array, _SENTINELS) & ((raw < low) | (raw > high))
    guesses = []
    if fill.any():
        listed = ", ".join(f"{value:g}" for value in np.unique(raw[fill])[:3])
        guesses.append(f"{int(fill.sum())} values are taken for missing: {listed}")
        raw[fill] = np.nan
    return raw, guesses


def without_fills(values: np.ndarray) -> np.ndarray:
    """Return numbers that say something of observations, NaN for fill values.

    >>> without_fills(np.array([0.5, -999.0, 9.97e36]))
    array([0.5, nan, nan])
    """
    values = np.array(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        values[(np.abs(values) > HUGE) | np.isin(values, _NOTHING)] = np.nan
    return values


def _equal(array: xr.DataArray, given: object) -> np.ndarray:
    """Return which elements equal a number, as it is in their own dtype."""
    flat = array.values.reshape(-1)
    try:
        fills = np.atleast_1d(np.asarray(given, dtype=np.float64))
    except (TypeError, ValueError):
        return np.zeros(flat.shape, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        own = fills.astype(flat.dtype)
    return np.asarray(np.isin(flat, own[np.isfinite(fills)]))
