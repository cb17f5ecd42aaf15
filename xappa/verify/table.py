"""Scores of several forecasts side by side."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd
import xarray as xr

from xappa.cf import find_axes
from xappa.errors import ArgumentError, ObservationTypeError
from xappa.verify import scores as _scores
from xappa.verify.pairing import Weights, shared_variables

__all__ = ["SCORES", "table"]

SCORES = {
    "rmse": _scores.rmse,
    "bias": _scores.bias,
    "crps": _scores.crps,
    "spread": _scores.spread,
    "spread_skill": _scores.spread_skill,
}
ENSEMBLE_ONLY = ("spread", "spread_skill")
Forecasts: TypeAlias = (
    Mapping[str, xr.DataArray] | Mapping[str, xr.Dataset] | xr.DataArray | xr.Dataset
)


def table(
    forecasts: Forecasts,
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
        A DataArray or Dataset alone gets the name ``"forecast"``.
    obs
        Values to verify all of them against.
    scores
        Names from `SCORES`, in the order of the columns.
    weights
        As in `xappa.verify.rmse`.

    Returns
    -------
    pandas.DataFrame
        One row for each forecast (and each variable that it shares with ``obs``, if they are
        Datasets), one column for each score; spread and spread-skill ratio of a single forecast
        are NaN.

    Raises
    ------
    ArgumentError
        If a score is unknown.
    ObservationTypeError
        If there are no forecasts, or one is not of the kind of ``obs``.
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
    rows: dict[Any, dict[str, float]] = {}
    for key, fcst, verifying in _pairs(_by_name(forecasts), obs):
        rows[key] = {score: _value(score, fcst, verifying, weights) for score in scores}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(scores))
    if isinstance(obs, xr.Dataset):
        frame.index = pd.MultiIndex.from_tuples(rows, names=["forecast", "variable"])
    return frame


def _by_name(forecasts: Any) -> Mapping[str, Any]:
    if isinstance(forecasts, (xr.DataArray, xr.Dataset)):  # a Dataset is a Mapping of variables
        return {"forecast": forecasts}
    if isinstance(forecasts, Mapping) and forecasts:
        return forecasts
    raise ObservationTypeError(
        "there are no forecasts by name",
        where="xappa.verify.table, argument 'forecasts'",
        expected="a dict of DataArrays or Datasets, or one of them",
        got="an empty dict" if isinstance(forecasts, Mapping) else type(forecasts).__name__,
        remedy="name them, as in {'background': background, 'analysis': analysis}",
    )


def _pairs(
    forecasts: Mapping[str, Any], obs: xr.DataArray | xr.Dataset
) -> Iterator[tuple[Hashable, xr.DataArray, xr.DataArray]]:
    """Yield the key of each row, and the arrays to compare."""
    for name, fcst in forecasts.items():
        if isinstance(fcst, xr.DataArray) and isinstance(obs, xr.DataArray):
            yield name, fcst, obs
            continue
        for variable in shared_variables(fcst, obs, f"xappa.verify.table, forecast {name!r}"):
            yield (name, variable), fcst[variable], obs[variable]


def _value(score: str, fcst: xr.DataArray, obs: xr.DataArray, weights: Weights) -> float:
    """Return a score, NaN where it needs more than one member."""
    member = find_axes(fcst, require=()).member
    if score in ENSEMBLE_ONLY and (member not in fcst.dims or fcst.sizes[member] < 2):
        return float("nan")
    return float(SCORES[score](fcst, obs, weights=weights))
