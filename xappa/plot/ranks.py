"""The rank histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from xappa._optional import require
from xappa.errors import ArgumentError
from xappa.plot.axes import ACCENT, INK, LEGEND, new_axes, tidy
from xappa.plot.labels import PURPOSE, not_plotable, one_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["rank_histogram"]


def rank_histogram(
    histogram: xr.DataArray | xr.Dataset, *, pairs: int | None = None, ax: Axes | None = None
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
        If it is no rank histogram, holds several variables, or has other dimensions than ``rank``.
    MissingDependencyError
        If matplotlib is not installed.
    """
    histogram = _checked(histogram)
    ax = ax if ax is not None else new_axes((5.5, 3.4))
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
    ax.legend(handles[::-1], labels[::-1], loc="lower right", bbox_to_anchor=(1.0, 1.0), **LEGEND)
    name = f" · {histogram.name}" if histogram.name is not None else ""
    ax.set_title(f"Rank histogram{name}", loc="left")
    return tidy(ax)


def _checked(histogram: xr.DataArray | xr.Dataset) -> xr.DataArray:
    if isinstance(histogram, (xr.DataArray, xr.Dataset)) and "rank" not in histogram.dims:
        raise ArgumentError(
            "this is not a rank histogram",
            where="xappa.plot.rank_histogram",
            expected="what xappa.verify.rank_histogram returns, on the dimension 'rank'",
            got=f"dimensions {dict(histogram.sizes)}",
            remedy="compute it first: histogram = xappa.verify.rank_histogram(ensemble, obs)",
        )
    array = one_array(histogram, "histogram", lambda variable: "rank" in variable.dims)
    if array.dims != ("rank",):
        others = [str(dim) for dim in array.dims if dim != "rank"]
        remedy = f"average over the others, or select along them, as in isel({others[0]}=0)"
        raise not_plotable(array, "the dimension 'rank' alone", remedy)
    return array
