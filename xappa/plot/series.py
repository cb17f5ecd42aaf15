"""An ensemble at a station: the fan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa._optional import require
from xappa.cf import find_axes, to_seconds
from xappa.plot.axes import ACCENT, INK, LEGEND, new_axes, tidy
from xappa.plot.labels import (
    PURPOSE,
    degree,
    lies_on,
    not_plotable,
    one_array,
    quantity,
    title,
    west_to_east,
)
from xappa.units import convert, in_units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["station_fan"]


def station_fan(
    ensemble: xr.DataArray | xr.Dataset,
    *,
    obs: xr.DataArray | xr.Dataset | None = None,
    error: float | xr.DataArray | None = None,
    truth: xr.DataArray | xr.Dataset | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Time series of an ensemble at one station: median and the ranges of 50 and 90 % of members.

    Parameters
    ----------
    ensemble
        Values on dimensions member and time (and others of size one), such as one station of what
        an operator makes of an analysis.
    obs
        Observations along time, drawn as points, in any units that convert to the ensemble's.
    error
        Their standard deviation, in the units of ``obs``, drawn as bars; by default their
        coordinate ``error_std``, if they have one.
    truth
        Values along time to compare with, drawn as a line.
    ax
        Axes to draw into; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        With the fan.

    Raises
    ------
    ArgumentError
        If there are other dimensions than member and time, or several variables.
    CoordinateError
        If there is no member dimension or no time.
    MissingDependencyError
        If matplotlib is not installed.
    UnitsError
        If the units do not convert.
    """
    values = one_array(ensemble, "ensemble", lies_on("time_dim", "member")).squeeze(drop=False)
    axes = find_axes(values, require=("time", "member"))
    member, time = axes.member, axes.time_dim
    if set(values.dims) != {member, time}:
        expected = f"dimensions {member!r} and {time!r}"
        raise not_plotable(values, expected, "select one station, as in isel(...)")
    lines = None if truth is None else _along_time(truth, "truth", values)
    points = None if obs is None else _along_time(obs, "obs", values)
    bars = None if obs is None or points is None else _bars(obs, points, error)
    ax = ax if ax is not None else new_axes((8.0, 3.6))
    levels = values.compute().quantile([0.05, 0.25, 0.5, 0.75, 0.95], dim=member)
    low, lower, median, upper, high = (levels.isel(quantile=i).values for i in range(5))
    x, label = _time_values(values)
    ax.fill_between(x, low, high, color=INK, alpha=0.18, lw=0, label="90 % of members")
    ax.fill_between(x, lower, upper, color=INK, alpha=0.32, lw=0, label="50 % of members")
    ax.plot(x, median, color=INK, lw=1.6, label="median")
    if lines is not None:
        ax.plot(_time_values(lines)[0], lines.values, color=ACCENT, lw=1.3, label="truth")
    if points is not None:
        style: dict[str, Any] = {"fmt": "o", "ms": 3.5, "color": "black", "ecolor": "0.45"}
        x = _time_values(points)[0]
        ax.errorbar(x, points.values, yerr=bars, label="observations", zorder=5, **style)
    return _finish(ax, values, label)


def _finish(ax: Axes, values: xr.DataArray, label: str) -> Axes:
    """Write the labels; `label` is that of a time axis without dates."""
    ax.set_ylabel(quantity(values, "", values.attrs.get("units")))
    ax.set_xlabel(label)
    ax.set_title(_where(values) or title(values), loc="left", pad=24)  # above the legend
    if not label:
        dates = require("matplotlib.dates", PURPOSE)
        ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(ax.xaxis.get_major_locator()))
    ax.margins(x=0.01)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), **LEGEND)
    return tidy(ax)


def _along_time(obj: Any, argument: str, values: xr.DataArray) -> xr.DataArray:
    """Return what is drawn over the fan: values along time, in the units of the ensemble."""
    array = one_array(obj, argument, lies_on("time_dim")).squeeze(drop=False)
    if array.ndim > 1:
        raise not_plotable(array, "the dimension of time alone", "select one station or member")
    return in_units_of(values, array, argument)


def _bars(obs: Any, points: xr.DataArray, error: float | xr.DataArray | None) -> Any:
    """Return the length of the error bars in the units of the points, or None."""
    given = points.coords.get("error_std") if error is None else error
    if given is None:
        return None
    if isinstance(given, xr.DataArray):
        given = given.squeeze(drop=True).reset_coords(drop=True)
    bars = (xr.zeros_like(points).reset_coords(drop=True) + given).values
    own = one_array(obs, "obs", lies_on("time_dim")).attrs.get("units")
    wanted = points.attrs.get("units")
    if own is None or wanted is None:
        return bars
    return convert(bars, own, wanted, difference=True, where="error of the observations")


def _time_values(series: xr.DataArray) -> tuple[Any, str]:
    """Values for the time axis, and its label; calendars that matplotlib lacks become days."""
    coord = series[find_axes(series, require=("time",)).time]
    if np.issubdtype(coord.dtype, np.datetime64):
        return coord.values, ""
    seconds, calendar = to_seconds(coord)
    return (seconds - seconds[0]) / 86400.0, f"days since {coord.values[0]} ({calendar} calendar)"


def _where(array: xr.DataArray) -> str:
    """Name and place of a station, from its scalar coordinates."""
    axes = find_axes(array, require=())
    if axes.latitude is None or axes.longitude is None or array[axes.latitude].ndim:
        return ""
    latitude = degree(round(float(array[axes.latitude]), 2), "N", "S")
    longitude = west_to_east(round(float(array[axes.longitude]), 2))
    names = (c for c in array.coords.values() if c.attrs.get("cf_role") == "timeseries_id")
    name = next((f"station {c.item()} · " for c in names if c.ndim == 0), "")
    return f"{name}{latitude} {longitude}".replace("station station", "station")
