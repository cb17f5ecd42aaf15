"""What metadata say of errors that hang together: attributes of the observation array.

=============================  =====================================================================
``bias_error_std``             standard deviation of a constant bias, in the array's units
``bias_platform``              the coordinate whose values tell platforms apart; without it the one
                               with a ``cf_role`` or named as stations are, else one for all
``correlated_error_std``       standard deviation of errors that correlate, beside the independent
                               ones; without it, all random errors correlate
``error_correlation_length``   metres, or with a unit (``"300 km"``)
``error_correlation_time``     a duration (``"6h"``)
``error_correlation``          ``"exponential"`` (as it is without) or ``"gaspari_cohn"``
=============================  =====================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xappa import units
from xappa.cf import timedelta_seconds
from xappa.errors import ErrorCovarianceError, XappaError
from xappa.observe.ancillary import on_elements
from xappa.observe.containers import Found
from xappa.observe.covariance import CORRELATIONS, DENSE_LIMIT, ErrorStructure

__all__ = ["read_structure"]

BIAS, PLATFORM, CORRELATED = "bias_error_std", "bias_platform", "correlated_error_std"
LENGTH, PERIOD, FUNCTION = (
    "error_correlation_length",
    "error_correlation_time",
    "error_correlation",
)
_STATIONS = ("station", "station_name", "station_id", "platform", "platform_id", "name", "id")


def read_structure(
    found: Found,
    latitude: np.ndarray,
    longitude: np.ndarray,
    time: np.ndarray,
    obs_units: str,
    state_units: str,
) -> ErrorStructure | tuple[()]:
    """Read how the errors of an array hang together.

    Parameters
    ----------
    found
        The array.
    latitude, longitude, time
        (n,) of its elements.
    obs_units, state_units
        Units of the array, and those of the result.

    Returns
    -------
    ErrorStructure, or an empty tuple for independent errors

    Raises
    ------
    ErrorCovarianceError
        If an attribute cannot be read, or too many observations correlate.
    """
    attrs = found.array.attrs
    if not any(key in attrs for key in (BIAS, CORRELATED, LENGTH, PERIOD)):
        return ()

    def deviation(key: str) -> np.ndarray | None:
        if key not in attrs:
            return None
        value = _positive(found, key, float, "a number")
        converted = units.convert(value, obs_units, state_units, difference=True)
        return np.full(found.array.size, float(converted))

    bias_std, correlated = deviation(BIAS), deviation(CORRELATED)
    platform = np.zeros(found.array.size, np.int64) if bias_std is None else _platforms(found)
    if correlated is not None and not (LENGTH in attrs or PERIOD in attrs):
        raise _bad(found, CORRELATED, f"a correlation, too: {LENGTH} or {PERIOD}")
    length = period = None
    if LENGTH in attrs:
        length = _positive(found, LENGTH, _metres, "metres, or a length such as '300 km'")
    if PERIOD in attrs:
        period = _positive(found, PERIOD, timedelta_seconds, "a duration such as '6h'")
    function = attrs.get(FUNCTION, "exponential")
    if function not in CORRELATIONS:
        raise _bad(found, FUNCTION, " or ".join(CORRELATIONS))
    if (length or period) and found.array.size > DENSE_LIMIT:
        raise ErrorCovarianceError(
            "too many observations have correlated errors",
            where=found.where,
            expected=f"{DENSE_LIMIT} at most in one array",
            got=found.array.size,
            remedy="thin them, or split the array into parts that do not correlate",
        )
    return ErrorStructure(
        bias_std,
        platform,
        length,
        period,
        str(function),
        correlated,
        latitude,
        longitude,
        time,
    )


def _metres(given: Any) -> float:
    if isinstance(given, str):
        number, _, unit = given.strip().partition(" ")
        return float(units.convert(float(number), unit or "m", "m"))
    return float(given)


def _positive(found: Found, key: str, read: Any, expected: str) -> float:
    try:
        value = float(read(found.array.attrs[key]))
    except (XappaError, TypeError, ValueError):
        value = np.nan
    if not (np.isfinite(value) and value > 0):
        raise _bad(found, key, f"{expected}, positive")
    return value


def _bad(found: Found, key: str, expected: str) -> ErrorCovarianceError:
    return ErrorCovarianceError(
        f"the attribute {key!r} cannot be used",
        where=found.where,
        expected=expected,
        got=repr(found.array.attrs.get(key)),
        remedy="correct it, or drop it",
    )


def _platforms(found: Found) -> np.ndarray:
    """Return the number of each element's platform, (n,) int64."""
    array = found.array
    named = array.attrs.get(PLATFORM)
    if named is not None and named not in array.coords and named not in array.dims:
        raise _bad(found, PLATFORM, f"a coordinate: {', '.join(map(str, array.coords))}")
    if named is None:
        roles = [name for name, coord in array.coords.items() if "cf_role" in coord.attrs]
        known = [n for n in (*array.coords, *array.dims) if str(n).lower() in _STATIONS]
        named = next(iter((*roles, *known)), None)
    if named is None:
        return np.zeros(array.size, np.int64)
    if named in array.coords:
        coord = array.coords[named].reset_coords(drop=True)
    else:
        coord = xr.DataArray(np.arange(array.sizes[named]), dims=str(named))
    flat = on_elements(coord, array)
    if flat is None:
        raise _bad(found, PLATFORM, "a coordinate along the observations")
    return np.asarray(pd.factorize(flat)[0], dtype=np.int64)
