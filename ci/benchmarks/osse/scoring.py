r"""Scores of ensembles against the truth, by variable and level, and their tables.

Those of `xappa.verify`, area-weighted: the RMSE of the ensemble mean, the fair CRPS (Ferro 2014,
doi:10.1002/qj.2270) and the spread-skill ratio with the spread's factor (N + 1) / N (Fortin et al.
2014, doi:10.1175/JHM-D-14-0008.1). Over all variables,

.. math:: \text{score} = \frac{1}{V} \sum_v \frac{1}{L_v} \sum_l
    \frac{\mathrm{RMSE}_{vl}}{\sigma_{vl}}

with the climatological standard deviation :math:`\sigma`, so that each variable counts alike
whatever the number of its levels. The RMSE of each moment and the square root of the mean over
moments are both kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from twin import SCORED

from xappa.verify import crps, rmse, spread_skill

__all__ = ["overall", "score", "series", "table"]

KEPT = ("time", "level")


def score(ensemble: xr.Dataset, truth: xr.Dataset, std: xr.Dataset) -> pd.DataFrame:
    """Return the scores of an ensemble, or of a single state, over all of its times.

    Parameters
    ----------
    ensemble
        (member, time, level, latitude, longitude), or without members.
    truth
        The nature run; its times may be more.
    std
        Climatological standard deviation (level, latitude, longitude).

    Returns
    -------
    DataFrame
        Rows (variable, level in hPa, -1 for the ground): ``rmse`` and ``crps`` in units,
        ``spread_skill``, and ``relative``, RMSE over the climatological standard deviation.
    """
    rows = []
    for name in (name for name in SCORED if name in ensemble):
        there, whole = truth[name].sel(time=ensemble.time).load(), ensemble[name].load()
        for level in there.level.values if "level" in there.dims else (None,):
            at = {} if level is None else {"level": level}
            fcst, obs = whole.sel(at, drop=True), there.sel(at, drop=True)
            error = float(rmse(fcst, obs))
            spread = std[name].sel(at, drop=True)
            usual = float(rmse(spread, xr.zeros_like(spread)))
            single = "member" not in fcst.dims
            rows.append(
                {
                    "variable": name,
                    "level": -1 if level is None else int(level),
                    "rmse": error,
                    "relative": error / usual,
                    "crps": float(crps(fcst, obs)),
                    "spread_skill": np.nan if single else float(spread_skill(fcst, obs)),
                }
            )
    return pd.DataFrame(rows).set_index(["variable", "level"])


def overall(scores: pd.DataFrame) -> pd.Series:
    """Return means over levels, then over variables; RMSE and CRPS over the climatological std."""
    scores = scores.assign(crps=scores.crps * scores.relative / scores.rmse)
    means = scores[["relative", "crps", "spread_skill"]].groupby("variable").mean()
    return means.mean()


def series(ensemble: xr.Dataset, truth: xr.Dataset, std: xr.Dataset) -> pd.Series:
    """Return the overall relative RMSE of each time."""
    parts = []
    for name in (name for name in SCORED if name in ensemble):
        mean, usual = ensemble[name].load(), std[name]
        if "member" in mean.dims:
            mean = mean.mean("member")
        kept = [dim for dim in KEPT if dim in mean.dims]
        error = rmse(mean, truth[name].sel(time=mean.time).load(), preserve_dims=kept)
        ratio = error / rmse(usual, xr.zeros_like(usual), preserve_dims=kept[1:] or None)
        parts.append(ratio.mean("level") if "level" in ratio.dims else ratio)
    overall: pd.Series = (sum(parts) / len(parts)).to_series().rename("relative")
    return overall


def table(results: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """Return methods side by side: a row for each method, a column for each variable and level.

    Parameters
    ----------
    results
        What `score` returned, by method.
    column
        Which score.
    """
    some = {name: scores[column] for name, scores in results.items()}
    frame = pd.DataFrame(some).T.rename_axis("method")
    frame.columns = [name if level < 0 else f"{name}{level}" for name, level in frame.columns]
    return frame


def save(scores: pd.DataFrame, path: Path) -> None:
    scores.to_csv(path)


def load(path: Path) -> pd.DataFrame:
    return pd.read_csv(path).set_index(["variable", "level"])
