r"""The residuals that a diffusion model expects, before any of them is drawn.

At a noise level :math:`\sigma` far above the data's spread, noisy residuals say next to nothing of
clean ones, and the denoiser returns :math:`\operatorname{E}[r \mid x]`. It is asked at a level that
training has seen, with pairs of opposite noise, whose first-order effects cancel.
"""

from __future__ import annotations

import torch
from azula.denoise import Denoiser
from torch import Tensor

from xappa.diffusion.noise import generator
from xappa.models.corrdiff.conditions import Conditions

__all__ = ["LEVEL", "expected_residual"]

#: In units of the residuals; 2.5 standard deviations above the mean of the levels in training.
LEVEL = 20.0
_PAIRS = 2


def expected_residual(denoiser: Denoiser, conditions: Conditions) -> Tensor:
    """Return expected residuals of N fields, shape (N, c, H, W).

    Parameters
    ----------
    denoiser
        Of the residuals of whole domains.
    conditions
        What is known of the fields.
    """
    like = conditions.departed
    t = _time_of(denoiser, LEVEL)
    told = {"condition": conditions.condition, "labels": conditions.labels}
    found = torch.zeros_like(like)
    for k in range(_PAIRS):
        white = generator(0, "expected residual", k).standard_normal(tuple(like.shape[1:]))
        noise = LEVEL * torch.as_tensor(white).to(like).expand_as(like)
        for signed in (noise, -noise):
            found = found + denoiser(signed, t, **told).mean
    return found / (2 * _PAIRS)


def _time_of(denoiser: Denoiser, level: float) -> Tensor:
    """Return the time at which the noise has a level, by bisection."""
    low, high = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for _ in range(50):
        middle = (low + high) / 2
        alpha, sigma = denoiser.schedule(middle)
        low, high = (middle, high) if float(sigma / alpha) < level else (low, middle)
    return high
