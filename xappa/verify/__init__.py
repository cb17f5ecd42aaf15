"""Verification: scores, calibration and departures of ensembles, on labelled arrays.

All scores share one signature, ``score(fcst, obs, *, reduce_dims=None, preserve_dims=None,
weights="area")``. The member dimension is found by its CF metadata, labels are matched before
values are compared, and grid cells count by their area. Dask-backed input gives dask-backed scores.
"""

from __future__ import annotations

from xappa.verify.calibration import rank_histogram
from xappa.verify.departures import departures, desroziers
from xappa.verify.scores import bias, crps, rmse, spread, spread_skill
from xappa.verify.table import table

__all__ = [
    "bias",
    "crps",
    "departures",
    "desroziers",
    "rank_histogram",
    "rmse",
    "spread",
    "spread_skill",
    "table",
]
