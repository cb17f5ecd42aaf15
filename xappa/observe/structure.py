"""What metadata say of errors that hang together: attributes of the observation array.

=============================  =====================================================================
``bias_error_std``             standard deviation of a constant bias, in the array's units; with
                               predictors one number for all, or one for the constant and each
``bias_platform``              the coordinate whose values tell platforms apart; without it the one
                               with a ``cf_role`` or named as stations are, else one for all
``bias_predictors``            names of coordinates, or of quantities of the state ("air mass"):
                               standard names, operators, ``thickness_1000_300`` (hPa)
``correlated_error_std``       standard deviation of errors that correlate, beside the independent
                               ones; without it, all random errors correlate
``error_correlation_length``   metres, or with a unit (``"300 km"``)
``error_correlation_time``     a duration (``"6h"``)
``error_correlation``          ``"exponential"`` (as it is without) or ``"gaspari_cohn"``
``error_correlation_matrix``   the variable of the Dataset, along (channel, another dimension), that
                               holds the correlations between channels
=============================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import cKDTree

from xappa import units
from xappa.cf import timedelta_seconds
from xappa.cf.names import STATION_NAMES
from xappa.errors import ErrorCovarianceError, XappaError
from xappa.grid import EARTH_RADIUS
from xappa.observe.ancillary import on_elements
from xappa.observe.bias import BiasModel
from xappa.observe.containers import Found
from xappa.observe.covariance import CORRELATIONS, DENSE_LIMIT, Channels, ErrorStructure

__all__ = ["read_structure"]

BIAS, PLATFORM, CORRELATED = "bias_error_std", "bias_platform", "correlated_error_std"
PREDICTORS, MATRIX = "bias_predictors", "error_correlation_matrix"
LENGTH, PERIOD, FUNCTION = (
    "error_correlation_length",
    "error_correlation_time",
    "error_correlation",
)
#: Share of the correlated variance that is independent where observations coincide.
_NUGGET = 0.1
#: Correlation lengths within which observations coincide; and beyond which nothing correlates.
_CLOSE, _FAR = 0.02, 1e9


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
    if not any(key in attrs for key in (BIAS, CORRELATED, LENGTH, PERIOD, PREDICTORS, MATRIX)):
        return ()

    def converted(value: Any) -> np.ndarray:
        return np.asarray(units.convert(value, obs_units, state_units, difference=True))

    correlated = None
    if CORRELATED in attrs:
        value = _positive(found, CORRELATED, float, "a number")
        correlated = np.full(found.array.size, float(converted(value)))
        if not any(key in attrs for key in (LENGTH, PERIOD, MATRIX)):
            raise _bad(found, CORRELATED, f"a correlation, too: {LENGTH}, {PERIOD} or {MATRIX}")
    bias = None
    if BIAS in attrs or PREDICTORS in attrs:
        bias = _bias(found, converted)
    length = period = None
    if LENGTH in attrs:
        length = _positive(found, LENGTH, units.metres, "metres, or a length such as '300 km'")
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
    channels = read_channels(found) if MATRIX in attrs else None
    if FUNCTION in attrs and length is None and period is None:
        raise _bad(found, FUNCTION, f"{LENGTH} or {PERIOD}, too")
    nugget, notes = _coincidences(latitude, longitude, time, channels, length, period)
    return ErrorStructure(
        bias,
        length,
        period,
        str(function),
        correlated,
        latitude,
        longitude,
        time,
        channels,
        nugget,
        notes=notes,
    )


def _coincidences(
    latitude: np.ndarray,
    longitude: np.ndarray,
    time: np.ndarray,
    channels: Channels | None,
    length: float | None,
    period: float | None,
) -> tuple[float, tuple[str, ...]]:
    """Return the share of errors that is independent because observations are close, and notes."""
    if not (length or period):
        return 0.0, ()
    known = np.flatnonzero(np.isfinite(latitude) & np.isfinite(longitude))
    if known.size < 2:
        return 0.0, ()
    phi, lam = np.radians(latitude[known]), np.radians(longitude[known])
    at = np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    # in correlation lengths; what does not correlate is far away
    columns = [*(at * (EARTH_RADIUS / length if length else _FAR))]
    columns.append(np.nan_to_num(time[known]) * (1 / period if period else _FAR))
    if channels is not None:
        columns.append(channels.channel[known] * _FAR)
    distance, _ = cKDTree(np.stack(columns, axis=1)).query(np.stack(columns, axis=1), k=2)
    if distance[:, 1].min() < _CLOSE:
        return _NUGGET, (
            "some are so close that their errors would be the same: "
            f"{100 * _NUGGET:g} % of the correlated variance is taken as independent",
        )
    if period is None and np.unique(time[known]).size == known.size:
        return 0.0, (
            f"all are at different times, and without {PERIOD} errors of different times are "
            "independent: nothing correlates",
        )
    return 0.0, ()


def _bias(found: Found, converted: Callable[[Any], np.ndarray]) -> BiasModel:
    attrs = found.array.attrs
    if BIAS not in attrs:
        raise _bad(found, PREDICTORS, f"{BIAS}, too: how large biases are")
    listed = attrs.get(PREDICTORS, ())
    names = listed.split() if isinstance(listed, str) else [str(name) for name in listed]
    predictors = {name: _predictor(found, name) for name in names}
    try:
        std = np.asarray(attrs[BIAS], dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        std = np.zeros(0)
    if std.size == 1:
        std = np.full(1 + len(names), std[0])
    if std.size != 1 + len(names) or not (np.isfinite(std) & (std > 0)).all():
        raise _bad(
            found, BIAS, f"a positive number, or {1 + len(names)} of them (constant, predictors)"
        )
    platform, labels = _platforms(found)
    return BiasModel(platform, labels, predictors, converted(std))


def _predictor(found: Found, name: str) -> np.ndarray:
    """Return a coordinate's values (n,); missing values where it is to come from the state."""
    if name not in found.array.coords:
        return np.full(found.array.size, np.nan)
    flat = on_elements(found.array.coords[name].reset_coords(drop=True), found.array)
    if flat is None or flat.dtype.kind not in "fiub":
        raise _bad(found, PREDICTORS, f"{name!r} to hold numbers along the observations")
    return np.asarray(flat, dtype=np.float64)


def read_channels(found: Found) -> Channels:
    """Read the matrix of correlations between channels.

    Raises
    ------
    ErrorCovarianceError
        If there is none of that name, or it is no correlation matrix along a dimension of the
        array.
    """
    array, name = found.array, str(found.array.attrs[MATRIX])
    if found.dataset is None or name not in found.dataset.variables:
        raise _bad(found, MATRIX, "the name of a variable of the same Dataset")
    variable = found.dataset[name]
    dims = [dim for dim in variable.dims if dim in array.dims]
    size = array.sizes[dims[0]] if len(dims) == 1 else -1
    if variable.shape != (size, size):
        raise _bad(
            found,
            MATRIX,
            f"a square variable along one of {list(array.dims)} and another dimension",
        )
    matrix = variable.transpose(dims[0], ...).values.astype(np.float64)
    check_correlation(matrix, f"{found.where}, {name}")
    index = np.indices(array.shape)
    axis = array.dims.index(dims[0])
    shape = [1 if k == axis else size for k, size in enumerate(array.shape)]
    index[axis] = 0
    view = np.ravel_multi_index(tuple(part.ravel() for part in index), tuple(shape))
    return Channels(matrix, np.indices(array.shape)[axis].ravel(), np.asarray(view, np.int64))


def check_correlation(matrix: np.ndarray, where: str) -> None:
    """Check that a matrix is a correlation: symmetric, ones on its diagonal, positive definite.

    Raises
    ------
    ErrorCovarianceError
        Otherwise; says which, and the least eigenvalue.
    """
    got = None
    if not np.isfinite(matrix).all():
        got = f"{int((~np.isfinite(matrix)).sum())} entries that are not finite"
    elif not np.allclose(matrix, matrix.T, atol=1e-6):
        got = f"entries that differ from their mirror images by {np.abs(matrix - matrix.T).max():g}"
    elif not np.allclose(np.diag(matrix), 1.0, atol=1e-6):
        got = f"a diagonal from {np.diag(matrix).min():g} to {np.diag(matrix).max():g}"
    elif (least := np.linalg.eigvalsh(matrix)[0]) <= 1e-10:
        got = f"a least eigenvalue of {least:.3g}: it is not positive definite"
    if got is not None:
        raise ErrorCovarianceError(
            "the matrix is no correlation of errors",
            where=where,
            expected="a symmetric, positive definite matrix with ones on its diagonal",
            got=got,
            remedy="divide a covariance by its standard deviations (which go into error_std), and "
            "add a little to the diagonal of an estimate from few samples before that",
        )


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


def _platforms(found: Found) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the number of each element's platform, (n,) int64, and what platforms are called."""
    array = found.array
    named = array.attrs.get(PLATFORM)
    if named is not None and named not in array.coords and named not in array.dims:
        raise _bad(found, PLATFORM, f"a coordinate: {', '.join(map(str, array.coords))}")
    if named is None:
        roles = [name for name, coord in array.coords.items() if "cf_role" in coord.attrs]
        known = [n for n in (*array.coords, *array.dims) if str(n).lower() in STATION_NAMES]
        named = next(iter((*roles, *known)), None)
    if named is None:
        return np.zeros(array.size, np.int64), (str(found.name),)
    if named in array.coords:
        coord = array.coords[named].reset_coords(drop=True)
    else:
        coord = xr.DataArray(np.arange(array.sizes[named]), dims=str(named))
    flat = on_elements(coord, array)
    if flat is None:
        raise _bad(found, PLATFORM, "a coordinate along the observations")
    number, labels = pd.factorize(flat, use_na_sentinel=False)
    return np.asarray(number, dtype=np.int64), tuple(str(label) for label in labels)
