r"""Scaling residuals until ensembles are as wide as their errors.

For each channel, with the variance v of an ensemble of N members and the mean square error
:math:`e^2` of its mean over states that were not trained on, departures of residuals from what the
diffusion model expects (`xappa.models.corrdiff.expected`) are multiplied by f with

.. math:: f^2 = \frac{e^2 - v / N}{v} ,

as the mean of N members has an error of v / N of its own. That leaves the mean where it is.
(Scaling residuals as a whole would scale their mean, too.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xappa.models.corrdiff.pairs import Pairs, pairs_of

if TYPE_CHECKING:
    import xarray as xr

    from xappa.models.corrdiff.model import CorrDiffModel

__all__ = ["calibrated", "calibrated_on", "spread_and_error"]

#: States that are looked at, and the ends of the factor.
_STATES, _LEAST, _MOST = 32, 0.5, 3.0


def calibrated(
    model: CorrDiffModel, coarse: xr.Dataset, fine: xr.Dataset, members: int, seed: int
) -> CorrDiffModel:
    """Calibrate a model; see `CorrDiffModel.calibrated`."""
    return calibrated_on(model, pairs_of(coarse, fine, model.spec, model.target), members, seed)


def calibrated_on(
    model: CorrDiffModel, pairs: Pairs, members: int, seed: int, states: int = _STATES
) -> CorrDiffModel:
    """Return a model whose residuals are scaled by what pairs of states tell.

    Parameters
    ----------
    model, members, seed
        See `CorrDiffModel.calibrated`.
    pairs
        States that were not trained on.
    states
        How many of them are looked at: half of them to choose the factor, the others to check it.
    """
    count = min(states, len(pairs))
    some = np.linspace(0, len(pairs) - 1, count).round().astype(int)
    # every other one tells the factor, the rest whether it is right
    first, second = pairs.cut(some[::2]), pairs.cut(some[1::2] if count > 1 else some)
    spread, error = spread_and_error(model, first, members, seed)
    variance = spread**2 * members / (members + 1)
    square = (error**2 - variance / members) / np.maximum(variance, 1e-24)
    factor = np.sqrt(np.clip(square, _LEAST**2, _MOST**2))
    scaled = model.replaced(scaling=replace(model.scaling, spread=model.scaling.spread * factor))
    after, left = spread_and_error(scaled, second, members, seed)
    labels = model.target.spec.channel_labels
    found: dict[str, Any] = {
        "states": count,
        "members": members,
        "factor": dict(zip(labels, factor.round(4).tolist(), strict=True)),
        "spread_skill_before": round(float(np.mean(spread / error)), 4),
        "spread_skill": round(float(np.mean(after / left)), 4),
    }
    return scaled.replaced(scores={**model.scores, "calibration": found})


def spread_and_error(
    model: CorrDiffModel, pairs: Pairs, members: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return spread, with its fair factor, and error of the mean, by channel, shape (c,) each."""
    from xappa.models.corrdiff.draws import drawn, sampler_of

    coarse, fine = pairs.take(np.arange(len(pairs)))
    numbers = list(range(members))
    sampler = sampler_of(model)
    states = drawn(model, coarse[None], pairs.seconds, pairs.lead, numbers, seed, sampler)
    axes = (0, 2, 3)
    variance = states.var(0, ddof=1, dtype=np.float64).mean(axes) * (members + 1) / members
    error = np.square(states.mean(0, dtype=np.float64) - fine).mean(axes)
    return np.sqrt(variance), np.sqrt(error)
