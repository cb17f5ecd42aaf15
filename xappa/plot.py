"""Plots of analyses: increment and spread maps, rank histograms, the ensemble at a station.

Every function returns the matplotlib Axes, draws into ``ax=`` if one is given, and takes titles and
labels from attributes. Maps are drawn on plain latitude-longitude axes; with ``projection=`` (a
cartopy projection) or on a cartopy GeoAxes they are projected. Nothing is downloaded: coastlines
are the caller's to add.

Import cartopy before the first GRIB file is opened: recent wheels of eccodes load a PROJ library of
their own for the whole process, and Python may crash on exit if pyproj comes second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa._optional import require
from xappa.cf import find_axes, to_seconds
from xappa.errors import ArgumentError
from xappa.units import dequantify

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["increment_map", "rank_histogram", "spread_map", "station_fan"]

PURPOSE = "plotting"
INK = "#1a3a5c"
ACCENT = "#c8553d"


def increment_map(
    analysis: xr.DataArray,
    background: xr.DataArray,
    *,
    stations: xr.DataArray | None = None,
    ax: Axes | None = None,
    projection: Any = None,
    **options: Any,
) -> Axes:
    """Map of analysis minus background, each the ensemble mean if it has members.

    Parameters
    ----------
    analysis, background
        Fields on dimensions latitude and longitude (and member, and others of size one).
    stations
        Observations, or anything with latitude and longitude coordinates, to be marked.
    ax
        Axes to draw into; a new figure by default.
    projection
        A cartopy projection for a new figure.
    **options
        For ``Axes.pcolormesh``, such as ``cmap`` or ``vmax``.

    Returns
    -------
    matplotlib.axes.Axes
        With the map; its colour bar is attached to it.

    Raises
    ------
    ArgumentError
        If the fields are not two-dimensional, or both ``ax`` and ``projection`` are given.
    MissingDependencyError
        If matplotlib, or cartopy for a projection, is not installed.
    """
    increment = _mean(analysis) - _mean(background)
    increment.attrs = {key: analysis.attrs[key] for key in _TITLES if key in analysis.attrs}
    increment = increment.rename(analysis.name)
    limit = float(np.abs(increment).max())
    limit = limit if np.isfinite(limit) and limit > 0.0 else 1.0
    vmax = options.pop("vmax", limit)
    options = {"cmap": "RdBu_r", "vmin": -vmax, "vmax": vmax, **options}
    return _map(increment, "analysis increment", stations, ax, projection, options)


def spread_map(
    ensemble: xr.DataArray,
    *,
    stations: xr.DataArray | None = None,
    ax: Axes | None = None,
    projection: Any = None,
    **options: Any,
) -> Axes:
    """Map of the standard deviation over the members.

    Parameters
    ----------
    ensemble
        Field on dimensions member, latitude and longitude (and others of size one).
    stations, ax, projection, **options
        As in `increment_map`.

    Returns
    -------
    matplotlib.axes.Axes
        With the map; its colour bar is attached to it.

    Raises
    ------
    ArgumentError, MissingDependencyError
        As in `increment_map`.
    CoordinateError
        If there is no member dimension.
    """
    member = find_axes(ensemble, require=("member",)).member
    spread = dequantify(ensemble).std(member, ddof=1, keep_attrs=True)
    options = {"cmap": "viridis", "vmin": 0.0, **options}
    return _map(spread, "ensemble spread", stations, ax, projection, options)


def rank_histogram(
    histogram: xr.DataArray, *, pairs: int | None = None, ax: Axes | None = None
) -> Axes:
    """Bars of a rank histogram, with the line of a calibrated ensemble.

    Parameters
    ----------
    histogram
        What `xappa.verify.rank_histogram` returns, on the dimension ``rank`` alone.
    pairs
        Number of independent pairs behind it; draws the band in which 95 % of the bars of a
        calibrated ensemble would lie.
    ax
        Axes to draw into; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        With the bars.

    Raises
    ------
    ArgumentError
        If the histogram has other dimensions than ``rank``.
    MissingDependencyError
        If matplotlib is not installed.
    """
    if histogram.dims != ("rank",):
        raise _not_plotable(
            histogram, "the dimension rank", "average over, or select along, others"
        )
    ax = ax if ax is not None else _new_axes((5.5, 3.4))
    ranks, expected = histogram["rank"].values, 1.0 / histogram.sizes["rank"]
    high = expected
    ax.bar(ranks, histogram.values, width=0.86, color=INK, alpha=0.85, zorder=2)
    if pairs is not None:
        deviation = 1.96 * np.sqrt(expected * (1.0 - expected) / pairs)
        low, high = max(expected - deviation, 0.0), expected + deviation
        ax.axhspan(low, high, color=ACCENT, alpha=0.2, lw=0, zorder=1, label="95 % range")
        for limit in (low, high):
            ax.axhline(limit, color=ACCENT, lw=0.9, ls=(0, (4, 3)), zorder=4)
    ax.axhline(expected, color=ACCENT, lw=1.6, zorder=4, label="calibrated")
    ax.set_xlabel("rank of the verifying value")
    ax.set_ylabel("relative frequency")
    ax.set_xlim(ranks[0] - 0.6, ranks[-1] + 0.6)
    ax.set_ylim(0.0, 1.1 * max(float(histogram.max()), high))
    ax.xaxis.set_major_locator(require("matplotlib.ticker", PURPOSE).MaxNLocator(integer=True))
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="lower right", bbox_to_anchor=(1.0, 1.0), **_LEGEND)
    ax.set_title(f"Rank histogram{_of(histogram)}", loc="left")
    return _tidy(ax)


def station_fan(
    ensemble: xr.DataArray,
    *,
    obs: xr.DataArray | None = None,
    obs_error: float | xr.DataArray | None = None,
    truth: xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Time series of an ensemble at one station: median and the ranges of 50 and 90 % of members.

    Parameters
    ----------
    ensemble
        Values on dimensions member and time (and others of size one), such as one station of what
        an operator makes of an analysis.
    obs
        Observations along time, drawn as points.
    obs_error
        Their standard deviation, drawn as bars.
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
        If there are other dimensions than member and time.
    CoordinateError
        If there is no member dimension or no time.
    MissingDependencyError
        If matplotlib is not installed.
    """
    values = dequantify(ensemble).squeeze(drop=False)
    axes = find_axes(values, require=("time", "member"))
    member, time = axes.member, axes.time_dim
    if set(values.dims) != {member, time}:
        raise _not_plotable(
            values, f"{member!r} and {time!r}", "select one station, as in isel(...)"
        )
    ax = ax if ax is not None else _new_axes((8.0, 3.6))
    levels = values.compute().quantile([0.05, 0.25, 0.5, 0.75, 0.95], dim=member)
    low, lower, median, upper, high = (levels.isel(quantile=i).values for i in range(5))
    x, label = _time_values(values)
    ax.fill_between(x, low, high, color=INK, alpha=0.18, lw=0, label="90 % of members")
    ax.fill_between(x, lower, upper, color=INK, alpha=0.32, lw=0, label="50 % of members")
    ax.plot(x, median, color=INK, lw=1.6, label="median")
    if truth is not None:
        series = dequantify(truth).squeeze(drop=False)
        ax.plot(_time_values(series)[0], series.values, color=ACCENT, lw=1.3, label="truth")
    if obs is not None:
        _observations(ax, dequantify(obs).squeeze(drop=False), obs_error)
    ax.set_ylabel(_quantity(values, "").strip())
    ax.set_xlabel(label)
    ax.set_title(_where(values) or _title(values), loc="left", pad=24)  # above the legend
    if not label:
        dates = require("matplotlib.dates", PURPOSE)
        ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(ax.xaxis.get_major_locator()))
    ax.margins(x=0.01)
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), **_LEGEND)
    return _tidy(ax)


_LEGEND: dict[str, Any] = {"frameon": False, "ncols": 5, "fontsize": "small", "borderpad": 0.2}
_TITLES = ("long_name", "standard_name", "units")


def _observations(ax: Axes, obs: xr.DataArray, error: float | xr.DataArray | None) -> None:
    bars = None if error is None else np.broadcast_to(np.squeeze(np.asarray(error)), obs.shape)
    style: dict[str, Any] = {"fmt": "o", "ms": 3.5, "color": "black", "ecolor": "0.45", "zorder": 5}
    ax.errorbar(_time_values(obs)[0], obs.values, yerr=bars, label="observations", **style)


def _map(
    field: xr.DataArray,
    what: str,
    stations: xr.DataArray | None,
    ax: Axes | None,
    projection: Any,
    options: dict[str, Any],
) -> Axes:
    field = field.squeeze(drop=False)
    axes = find_axes(field)
    latitude, longitude = str(axes.latitude), str(axes.longitude)
    if set(field.dims) != {latitude, longitude}:
        raise _not_plotable(
            field, f"{latitude!r} and {longitude!r}", "select one, as in isel(time=0)"
        )
    ax = _map_axes(ax, projection)
    gridlines = getattr(ax, "gridlines", None)  # a GeoAxes has them
    if gridlines is not None:
        options = {"transform": require("cartopy.crs", PURPOSE).PlateCarree(), **options}
    field = field.transpose(latitude, longitude)
    x, y = field[longitude].values, field[latitude].values
    mesh = ax.pcolormesh(x, y, field.values, shading="nearest", rasterized=True, **options)
    if stations is not None:
        _mark(ax, stations, options.get("transform"))
    bar = ax.figure.colorbar(mesh, ax=ax, shrink=0.9, pad=0.03)
    bar.set_label(_quantity(field, what))
    bar.outline.set_visible(False)
    ax.set_title(" · ".join(filter(None, (_title(field), _when(field)))), loc="left")
    if gridlines is not None:
        sides = {"left": "y", "bottom": "x"}
        inside = {"x_inline": False, "y_inline": False, "rotate_labels": False}
        gridlines(draw_labels=sides, color="0.5", alpha=0.4, lw=0.5, **inside)
    else:
        _degrees(ax, y)
    return ax


def _map_axes(ax: Axes | None, projection: Any) -> Axes:
    if ax is not None and projection is not None:
        raise ArgumentError(
            "ax and projection exclude each other",
            where="map",
            expected="one of the two",
            got="both",
            remedy="make the Axes with the projection, and pass ax= alone",
        )
    if projection is not None:
        require("cartopy", "a map projection")
    return ax if ax is not None else _new_axes((6.0, 4.8), projection, "compressed")


def _new_axes(
    size: tuple[float, float], projection: Any = None, layout: str = "constrained"
) -> Axes:
    pyplot = require("matplotlib.pyplot", PURPOSE)
    figure = pyplot.figure(figsize=size, layout=layout)
    axes: Axes = figure.add_subplot(projection=projection)
    return axes


def _mark(ax: Axes, stations: xr.DataArray, transform: Any) -> None:
    axes = find_axes(stations)
    x, y = stations[axes.longitude].values, stations[axes.latitude].values
    options = {} if transform is None else {"transform": transform}
    ax.scatter(x, y, s=16, c="white", edgecolors="black", linewidths=0.9, zorder=5, **options)


def _degrees(ax: Axes, latitudes: np.ndarray[Any, Any]) -> None:
    """Give a plain map the proportions of its middle latitude, and ticks in degrees."""
    middle = np.deg2rad(np.clip(0.5 * (latitudes.min() + latitudes.max()), -75.0, 75.0))
    ax.set_aspect(1.0 / float(np.cos(middle)))
    ax.xaxis.set_major_formatter(lambda x, _: _degree((x + 180.0) % 360.0 - 180.0, "E", "W"))
    ax.yaxis.set_major_formatter(lambda y, _: _degree(y, "N", "S"))


def _degree(value: float, positive: str, negative: str) -> str:
    """Write an angle with its hemisphere.

    >>> _degree(-10.0, "E", "W"), _degree(51.5, "N", "S"), _degree(0.0, "N", "S")
    ('10°W', '51.5°N', '0°')
    """
    side = "" if value == 0 else positive if value > 0 else negative
    return f"{abs(value):.4g}°{side}"


def _mean(field: xr.DataArray) -> xr.DataArray:
    field = dequantify(field)
    member = find_axes(field).member
    return field if member not in field.dims else field.mean(member, keep_attrs=True)


def _time_values(series: xr.DataArray) -> tuple[Any, str]:
    """Values for the time axis, and its label; calendars that matplotlib lacks become days."""
    coord = series[find_axes(series, require=("time",)).time]
    if np.issubdtype(coord.dtype, np.datetime64):
        return coord.values, ""
    seconds, calendar = to_seconds(coord)
    return (seconds - seconds[0]) / 86400.0, f"days since {coord.values[0]} ({calendar} calendar)"


def _title(array: xr.DataArray) -> str:
    named = (array.attrs.get(key) for key in ("long_name", "standard_name"))
    name = next((str(name) for name in named if name), str(array.name or ""))
    return name.replace("_", " ")


def _of(array: xr.DataArray) -> str:
    return f" · {array.name}" if array.name is not None else ""


def _quantity(array: xr.DataArray, what: str) -> str:
    """Say what is shown, with its units."""
    units = array.attrs.get("units")
    return f"{what or _title(array)}{f' [{units}]' if units else ''}"


def _when(array: xr.DataArray) -> str:
    time = find_axes(array, require=()).time
    if time is None or array[time].ndim:
        return ""
    return str(array[time].values)[:16].replace("T", " ")


def _where(array: xr.DataArray) -> str:
    """Name and place of a station, from its scalar coordinates."""
    axes = find_axes(array, require=())
    if axes.latitude is None or axes.longitude is None or array[axes.latitude].ndim:
        return ""
    latitude = _degree(round(float(array[axes.latitude]), 2), "N", "S")
    longitude = _degree(round((float(array[axes.longitude]) + 180.0) % 360.0 - 180.0, 2), "E", "W")
    names = (c for c in array.coords.values() if c.attrs.get("cf_role") == "timeseries_id")
    name = next((f"station {c.item()} · " for c in names if c.ndim == 0), "")
    return f"{name}{latitude} {longitude}".replace("station station", "station")


def _not_plotable(array: xr.DataArray, expected: str, remedy: str) -> ArgumentError:
    return ArgumentError(
        "the array cannot be drawn",
        where=f"{array.name!r}",
        expected=f"dimensions {expected}",
        got=f"dimensions {dict(array.sizes)}",
        remedy=remedy,
    )


def _tidy(ax: Axes) -> Axes:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax
