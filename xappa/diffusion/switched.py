"""A denoiser that is one above a noise level and another below it."""

from __future__ import annotations

from typing import Any

from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from torch import Tensor

__all__ = ["SwitchedDenoiser"]


class SwitchedDenoiser(Denoiser):
    """One denoiser where noise is large, another where it is small.

    Parameters
    ----------
    above, below
        The two, of one schedule.
    level
        The noise level, relative to the signal, above which the first one serves.
    """

    def __init__(self, above: Denoiser, below: Denoiser, level: float) -> None:
        super().__init__()
        self.above, self.below, self.level = above, below, level

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return self.below.schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return what is expected given x_t of shape (B, ...) at time t of shape ()."""
        alpha, sigma = self.schedule(t)
        chosen = self.above if bool(sigma > self.level * alpha) else self.below
        posterior: DiracPosterior = chosen(x_t, t, **kwargs)
        return posterior
