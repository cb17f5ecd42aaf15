"""Verification: scores, calibration, departures and physical consistency, on labelled arrays.

All scores share one signature, ``score(fcst, obs, *, reduce_dims=None, preserve_dims=None,
weights="area")``. The member dimension is found by its CF metadata, labels are matched before
values are compared, and grid cells count by their area. Dask-backed input gives dask-backed scores.
"""

from __future__ import annotations

from xappa.verify.calibration import rank_histogram
from xappa.verify.departures import departures, desroziers
from xappa.verify.physics import (
    dry_mass,
    geostrophic_imbalance,
    hydrostatic_residual,
    zonal_spectrum,
)
from xappa.verify.scores import bias, crps, rmse, spread, spread_skill
from xappa.verify.table import table

__all__ = [
    "bias",
    "crps",
    "departures",
    "desroziers",
    "dry_mass",
    "geostrophic_imbalance",
    "hydrostatic_residual",
    "rank_histogram",
    "rmse",
    "spread",
    "spread_skill",
    "table",
    "zonal_spectrum",
]
