"""Axes of plots: new ones, ticks in degrees, the colour bar of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xappa._optional import require
from xappa.errors import ArgumentError
from xappa.plot.labels import PURPOSE, degree, west_to_east

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

__all__ = [
    "ACCENT",
    "INK",
    "LEGEND",
    "colour_bar",
    "degrees",
    "edges",
    "map_axes",
    "new_axes",
    "tick_step",
    "tidy",
]

INK = "#1a3a5c"
ACCENT = "#c8553d"
LEGEND: dict[str, Any] = {"frameon": False, "ncols": 5, "fontsize": "small", "borderpad": 0.2}
STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)
BAR_WIDTH, BAR_GAP = 0.14, 0.1  # inches

Values = np.ndarray[Any, Any]


def new_axes(
    size: tuple[float, float], projection: Any = None, layout: str = "constrained"
) -> Axes:
    """Return the axes of a new figure of this size in inches."""
    pyplot = require("matplotlib.pyplot", PURPOSE)
    figure = pyplot.figure(figsize=size, layout=layout)
    axes: Axes = figure.add_subplot(projection=projection)
    return axes


def tidy(ax: Axes) -> Axes:
    """Take off the frame's upper and right side."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def map_axes(ax: Axes | None, projection: Any, x: Values, y: Values) -> Axes:
    """Return the axes to draw a map with edges x and y into.

    Raises
    ------
    ArgumentError
        If both `ax` and `projection` are given.
    MissingDependencyError
        If matplotlib, or cartopy for a projection, is not installed.
    """
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
    if ax is not None:
        return ax
    width = 6.0 if np.ptp(x) < 180.0 else 8.0
    height = (width - 1.3) * np.ptp(y) * _aspect(y) / np.ptp(x) + 0.8
    return new_axes((width, float(np.clip(height, 2.4, 6.5))), projection, "compressed")


def edges(centres: Values, limit: float | None = None) -> Values:
    """Return the edges of cells between their centres, within plus or minus a limit.

    >>> edges(np.array([90.0, 60.0, 30.0]), 90.0)
    array([90., 75., 45., 15.])
    """
    centres = np.asarray(centres, dtype=np.float64)
    half = 0.5 * np.diff(centres) if centres.size > 1 else np.array([0.5])
    inner = centres[:-1] + half if centres.size > 1 else np.zeros(0)
    found = np.concatenate([[centres[0] - half[0]], inner, [centres[-1] + half[-1]]])
    return found if limit is None else np.clip(found, -limit, limit)


def tick_step(width: float) -> float:
    """Return the step of ticks, in degrees, of which six at most fit into a width.

    >>> tick_step(360.0), tick_step(180.0), tick_step(12.5)
    (60.0, 30.0, 2.0)
    """
    # some slack, as cells stick out a little beyond the globe or a round domain
    return next((step for step in STEPS if 0.95 * width / step <= 6.0), STEPS[-1])


def degrees(ax: Axes, x: Values, y: Values) -> None:
    """Give a map with edges x and y ticks in degrees; if plain, the proportions of its middle."""
    multiple = require("matplotlib.ticker", PURPOSE).MultipleLocator
    xlocs, ylocs = (multiple(tick_step(float(np.ptp(values)))) for values in (x, y))
    gridlines = getattr(ax, "gridlines", None)  # a GeoAxes has them
    if gridlines is not None:
        style = {"color": "0.5", "alpha": 0.4, "lw": 0.5, "xlocs": xlocs, "ylocs": ylocs}
        inside = {"x_inline": False, "y_inline": False, "rotate_labels": False}
        gridlines(draw_labels={"left": "y", "bottom": "x"}, **style, **inside)
        return
    ax.set_aspect(_aspect(y))
    ax.xaxis.set_major_locator(xlocs)
    ax.yaxis.set_major_locator(ylocs)
    ax.xaxis.set_major_formatter(lambda x, _: west_to_east(x))
    ax.yaxis.set_major_formatter(lambda y, _: degree(y, "N", "S"))


def _aspect(y: Values) -> float:
    """Return the length of a degree of latitude over that of longitude, in the middle."""
    middle = np.deg2rad(np.clip(0.5 * (y.min() + y.max()), -75.0, 75.0))
    return 1.0 / float(np.cos(middle))


def colour_bar(ax: Axes, mesh: Any, label: str) -> None:
    """Put a colour bar beside a map, as high as the map itself.

    The space is taken from the axes, as ``Figure.colorbar`` does. But a map keeps its proportions
    and may fill a part of its axes only: the bar follows what is left.
    """
    colorbar = require("matplotlib.colorbar", PURPOSE)
    figure: Any = ax.figure
    engine = figure.get_layout_engine()
    gridded = ax.get_subplotspec() is not None and (engine is None or engine.colorbar_gridspec)
    make = colorbar.make_axes_gridspec if gridded else colorbar.make_axes
    cax, options = make(ax, location="right", fraction=0.06, pad=0.03)
    bounds = require("matplotlib.transforms", PURPOSE).Bbox.from_bounds

    def beside(_: Axes, renderer: Any) -> Bbox:
        cax.set_box_aspect(None)  # layout engines give it one, each time
        own = ax.get_axes_locator()
        ax.apply_aspect(own(ax, renderer) if own is not None else None)
        box, inch = ax.get_position(), figure.dpi / figure.bbox.width
        place: Bbox = bounds(box.x1 + BAR_GAP * inch, box.y0, BAR_WIDTH * inch, box.height)
        return place

    cax.set_axes_locator(beside)
    bar = figure.colorbar(mesh, cax=cax, **options)
    bar.set_label(label)
    bar.outline.set_visible(False)
