r"""Continuing trajectories with a latent diffusion prior.

The past states are encoded, and their latents are observations of the first states of a window,
with the error of the noise that latents had in training; the later states of the window are drawn
given them. For a longer forecast the window slides: what was drawn becomes the past (Andry et al.
2025, autoregressive forecasts).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xappa.models.appa.estimate import LatentEstimate
from xappa.models.appa.model import AppaModel
from xappa.models.appa.posterior import LatentPosterior
from xappa.models.settings import Guidance
from xappa.observe import ObservationOperator

__all__ = ["continued"]


def continued(
    model: AppaModel,
    past: np.ndarray,
    seconds: np.ndarray,
    ahead: np.ndarray,
    members: Sequence[int],
    seed: int,
    *,
    at_once: int,
    sampler: Any,
    guidance: Guidance,
    progress: Callable[[Any], Any] | None = None,
) -> np.ndarray:
    """Draw latents of the states ahead, given the last ones.

    Parameters
    ----------
    model
        The prior.
    past
        Latents of the last states, shape (B, n, L), each member's own.
    seconds, ahead
        Valid times of the past, shape (n,), and of the states to draw, shape (S,).
    members, seed
        Key of the random streams.
    at_once
        States drawn in each step.
    sampler, guidance, progress
        As for `LatentPosterior.draw`.

    Returns
    -------
    numpy.ndarray
        Shape (B, S, L), float32.
    """
    known, times = past, seconds
    for first in range(0, len(ahead), at_once):
        new = ahead[first : first + at_once]
        # Half a blanket of the past, or more where the new states leave room for it.
        wanted = max(model.blanket // 2, model.blanket - len(new))
        kept = max(1, min(len(times), wanted))
        window = np.concatenate([times[-kept:], new])
        estimate = LatentEstimate(np.arange(kept), known[:, -kept:], model.latent_variance)
        nothing = ObservationOperator.build([], model.spec, window)
        posterior = LatentPosterior(model, nothing, window, estimate)
        # Each window has streams of its own: its past came out of those of the one before.
        purpose = f"forecast {first}"
        draws = posterior.draw("mmps", members, seed, sampler, guidance, progress, purpose)
        known = np.concatenate([known, draws.latents[:, kept:]], axis=1)
        times = np.concatenate([times, new])
    return known[:, len(seconds) :]
