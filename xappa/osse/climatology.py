"""Monthly boundary conditions by day of the year."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

__all__ = ["DAYS", "daily", "daily_weights"]

#: Days of the year that a climatology repeats; 29 February repeats the day before.
DAYS = 365
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def daily_weights() -> npt.NDArray[np.float64]:
    """Return the weights (365, 12) of monthly means on each day: linear between mid-months.

    Examples
    --------
    >>> daily_weights()[0, [11, 0]]  # 1 January, between December and January
    array([0.48387097, 0.51612903])
    """
    ends = np.cumsum(_LENGTHS)
    middles = ends - np.asarray(_LENGTHS) / 2
    periodic = np.concatenate([[middles[-1] - DAYS], middles, [middles[0] + DAYS]])
    days = np.arange(DAYS) + 0.5
    after = np.searchsorted(periodic, days)
    share = (days - periodic[after - 1]) / (periodic[after] - periodic[after - 1])
    weights = np.zeros((DAYS, 12))
    weights[np.arange(DAYS), (after - 2) % 12] += 1 - share
    weights[np.arange(DAYS), (after - 1) % 12] += share
    return weights


def daily(monthly: xr.Dataset) -> xr.Dataset:
    """Interpolate a climatology of twelve monthly means to the days of the year.

    The means are taken at the middle of their months, whatever day their time stamps name.

    Parameters
    ----------
    monthly
        Dataset with twelve times, January first.

    Returns
    -------
    Dataset
        With 365 times; variables without time as they are.
    """
    weights = xr.DataArray(daily_weights(), dims=("day", "time"))
    days = np.datetime64("1981-01-01", "ns") + np.arange(DAYS) * np.timedelta64(1, "D")
    means = monthly.drop_vars("time")
    out = {}
    for name, da in means.data_vars.items():
        if "time" in da.dims:
            mixed = xr.dot(da.astype(np.float64), weights, dim="time").rename(day="time")
            da = mixed.transpose(*da.dims).astype(np.float32)
        out[name] = da
    static = {name: coord for name, coord in monthly.coords.items() if "time" not in coord.dims}
    return xr.Dataset(out, static).assign_coords(time=days)
