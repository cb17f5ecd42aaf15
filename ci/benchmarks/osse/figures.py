"""One map of error and spread for each method, and the errors over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["lines", "maps"]


def maps(
    analyses: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    sites: list[tuple[np.ndarray, np.ndarray]],
    path: Path,
    *,
    name: str = "t",
    level: float = 500.0,
) -> None:
    """Draw absolute error of the mean and spread of the last time, a row for each method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(analyses)
    figure, panels = plt.subplots(count, 2, figsize=(12, 2.6 * count), layout="constrained")
    for (label, ds), (left, right) in zip(analyses.items(), np.atleast_2d(panels), strict=True):
        field = ds[name].sel(level=level).isel(time=-1).load()
        error = abs(field.mean("member") - truth[name].sel(level=level, time=field.time).load())
        limit = float(error.quantile(0.99))
        for panel, what, values in (
            (left, "absolute error", error),
            (right, "spread", field.std("member", ddof=1)),
        ):
            drawn = panel.pcolormesh(
                field.longitude, field.latitude, values, vmin=0, vmax=limit, cmap="magma_r"
            )
            panel.contour(truth.longitude, truth.latitude, truth.lsm, [0.5], colors="0.5",
                          linewidths=0.5)  # fmt: skip
            for longitude, latitude in sites:
                panel.plot(longitude, latitude, "c.", markersize=1.5)
            panel.set_title(f"{label}: {what} of {name}{level:g}, {str(field.time.values)[:13]}",
                            fontsize=9)  # fmt: skip
            figure.colorbar(drawn, ax=panel)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=60)
    plt.close(figure)


def lines(series: Mapping[str, pd.Series], path: Path) -> None:
    """Draw the overall error of each method over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    for label, values in series.items():
        axes.plot(values.index, values.values, label=label)
    axes.set(ylabel="RMSE / climatological standard deviation", yscale="log")
    axes.legend(fontsize=8, ncols=3)
    figure.savefig(path, dpi=70)
    plt.close(figure)
