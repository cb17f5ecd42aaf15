"""Which observations of columns reach beyond the levels of the state.

Heights of levels depend on the state, which is not known when metadata are read. Those of the
standard atmosphere, with a margin, tell what no state reaches; between these and the levels of a
state its outermost values are taken.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xappa.cf import PRESSURE
from xappa.observe.matching import BY_SIGMA, Match
from xappa.observe.rows import ROUNDING

__all__ = ["beyond_columns", "standard_altitude"]

#: Metres, and share of the altitude, by which levels of weather differ from the standard's.
_MARGIN, _SHARE = 500.0, 0.1
#: Surface pressures between which weather is, Pa.
_LOWEST, _HIGHEST = 5.0e4, 1.09e5


def standard_altitude(pressure: np.ndarray | float) -> np.ndarray:
    """Return altitudes in m of pressures in Pa in the ICAO standard atmosphere, to 20 km.

    >>> standard_altitude(np.array([101325.0, 22632.0])).round()
    array([    0., 11000.])
    """
    p = np.asarray(pressure, dtype=np.float64)
    low = 44330.77 * (1 - (p / 101325.0) ** 0.1902632)
    high = 11000.0 + 6341.62 * np.log(22632.06 / p)
    return np.where(p >= 22632.06, low, high)


def beyond_columns(match: Match, arguments: Mapping[str, np.ndarray], size: int) -> np.ndarray:
    """Tell which elements (n,) ask for what lies beyond the levels of their columns.

    Parameters
    ----------
    match
        The operator and its inputs.
    arguments
        What the observations say of each element, (n,) or (n, K).
    size
        n.

    Returns
    -------
    (n,) bool
    """
    column = next((v for v, c in zip(match.inputs, match.columns, strict=False) if c), None)
    if column is None or column.levels is None:
        return np.zeros(size, bool)
    top, bottom = min(column.levels), max(column.levels)
    if match.operator == BY_SIGMA:
        p = arguments["air_pressure"]
        return np.asarray((p < top * _LOWEST) | (p > _HIGHEST))
    if "altitude" in arguments and column.vertical == PRESSURE:
        z = arguments["altitude"]
        low, high = standard_altitude(bottom), standard_altitude(top)
        return np.asarray((z < low - _MARGIN) | (z > high * (1 + _SHARE) + _MARGIN))
    if "kernel_pressure" in arguments:
        p = arguments["kernel_pressure"].reshape(size, -1)
        weights = arguments.get("weighting_function", arguments.get("averaging_kernel"))
        out = (p < top * (1 - ROUNDING)) | (p > bottom * (1 + ROUNDING))
        asked = out if weights is None else out & (weights.reshape(size, -1) != 0)
        return np.asarray(asked.any(axis=-1))
    return np.zeros(size, bool)
