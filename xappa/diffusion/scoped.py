"""Guiding each blanket by its own observations, before the blankets are stitched.

This is how the published Appa does it; guiding the stitched trajectory instead decodes each state
once, and lets an observation act on states of other blankets within one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from torch import Tensor

from xappa.diffusion.blankets import BlanketDenoiser, Cut

__all__ = ["BlanketwiseDenoiser", "FixedDates"]


class FixedDates(Denoiser):
    """A blankets' denoiser that knows its dates.

    Parameters
    ----------
    denoiser
        The blankets' denoiser.
    dates
        Date features, shape (B, K, 4).
    """

    def __init__(self, denoiser: BlanketDenoiser, dates: Tensor) -> None:
        super().__init__()
        self.denoiser, self.dates = denoiser, dates

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return self.denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return the expected latents given x_t (B, K, L) at time t."""
        posterior: DiracPosterior = self.denoiser(x_t, t, self.dates)
        return posterior


class BlanketwiseDenoiser(Denoiser):
    """The stitched denoiser of a trajectory whose blankets are guided each by itself.

    Parameters
    ----------
    denoiser
        The blankets' denoiser.
    dates
        Date features of the T states, shape (T, 4).
    cut
        How the trajectory is cut and stitched.
    guide
        Maps the denoiser of all blankets of all members, (B N, K, L), the N blankets of a member
        one after another, to a guided one.
    """

    def __init__(
        self,
        denoiser: BlanketDenoiser,
        dates: Tensor,
        cut: Cut,
        guide: Callable[[FixedDates], Denoiser],
    ) -> None:
        super().__init__()
        self.denoiser, self.dates, self.cut, self.guide = denoiser, dates, cut, guide

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return self.denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return the expected latents given x_t (B, T, L) at time t, of shape ()."""
        dates = self.cut.unfold(self.dates.expand(len(x_t), *self.dates.shape))
        guided = self.guide(FixedDates(self.denoiser, dates))
        blankets = guided(self.cut.unfold(x_t), t).mean
        return DiracPosterior(mean=self.cut.fold(blankets))
