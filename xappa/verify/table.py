"""Scores of several forecasts side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import xarray as xr

from xappa.cf import find_axes
from xappa.errors import ArgumentError
from xappa.verify import scores as _scores
from xappa.verify.pairing import Weights

__all__ = ["SCORES", "table"]

SCORES = {
    "rmse": _scores.rmse,
    "bias": _scores.bias,
    "crps": _scores.crps,
    "spread": _scores.spread,
    "spread_skill": _scores.spread_skill,
}
ENSEMBLE_ONLY = ("spread", "spread_skill")


def table(
    forecasts: Mapping[str, xr.DataArray] | Mapping[str, xr.Dataset],
    obs: xr.DataArray | xr.Dataset,
    *,
    scores: Sequence[str] = ("rmse", "bias", "crps", "spread_skill"),
    weights: Weights = "area",
) -> pd.DataFrame:
    """Table of scores, averaged over all dimensions.

    Parameters
    ----------
    forecasts
        Forecasts or analyses by the name that they get in the table; single ones beside ensembles.
    obs
        Values to verify all of them against.
    scores
        Names from `SCORES`, in the order of the columns.
    weights
        As in `xappa.verify.rmse`.

    Returns
    -------
    pandas.DataFrame
        One row for each forecast (and variable, if they are Datasets), one column for each score;
        spread and spread-skill ratio of a single forecast are NaN.

    Raises
    ------
    ArgumentError
        If a score is unknown.
    XappaError
        As in `xappa.verify.rmse`.

    Examples
    --------
    >>> import xarray as xr
    >>> truth = xr.DataArray([0.0, 0.0], dims="time")
    >>> ensemble = xr.DataArray([[1.0, 1.0], [3.0, 3.0]], dims=("member", "time"))
    >>> table({"persistence": truth + 1, "ensemble": ensemble}, truth, scores=("rmse", "crps"))
                 rmse  crps
    persistence   1.0   1.0
    ensemble      2.0   1.0
    """
    unknown = [name for name in scores if name not in SCORES]
    if unknown:
        raise ArgumentError(
            f"unknown score {unknown[0]!r}",
            where="xappa.verify.table",
            expected=", ".join(SCORES),
            got=", ".join(unknown),
            remedy="use the expected names",
        )
    rows = {
        name: {score: _value(score, fcst, obs, weights) for score in scores}
        for name, fcst in forecasts.items()
    }
    if isinstance(obs, xr.DataArray):
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(scores))
    by_variable = {
        (name, variable): {score: values[score].get(variable, float("nan")) for score in scores}
        for name, values in rows.items()
        for variable in values[scores[0]]
    }
    frame = pd.DataFrame.from_dict(by_variable, orient="index", columns=list(scores))
    frame.index = pd.MultiIndex.from_tuples(by_variable, names=["forecast", "variable"])
    return frame


def _value(score: str, fcst: Any, obs: Any, weights: Weights) -> Any:
    """One number, or for Datasets one for each variable."""
    if score in ENSEMBLE_ONLY and find_axes(fcst, require=()).member is None:
        return {} if isinstance(fcst, xr.Dataset) else float("nan")
    values = SCORES[score](fcst, obs, weights=weights)
    if isinstance(values, xr.Dataset):
        return {name: float(value) for name, value in values.data_vars.items()}
    return float(values)
