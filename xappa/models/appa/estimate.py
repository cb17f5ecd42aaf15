r"""Latents that are known up to an error: a background, the past of a forecast or of a cycle.

The error is independent from latent to latent, or correlated as the prior's patterns are: given
orthonormal patterns V, what is observed of a latent z are its components and what they leave,

.. math:: \left( V^\top z, \; z - V V^\top z \right) ,

each with an independent error. An analysis from observations that are spread over the globe is more
nearly so than independent from place to place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

__all__ = ["LatentEstimate"]


@dataclass(frozen=True, eq=False)
class LatentEstimate:
    """Latents that are known, up to an error, at some states of a trajectory.

    Parameters
    ----------
    states
        Which states, shape (n,).
    latents
        Their latents, shape (n, L), or (B, n, L) where each member has its own.
    variance
        Of their error, in standardised latents, shape () or (L,); with patterns that of the
        components, then that of what they leave, (r + L,).
    patterns
        Orthonormal patterns that errors are independent in, shape (L, r); None for none.
    """

    states: np.ndarray
    latents: np.ndarray
    variance: np.ndarray
    patterns: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """What is known, shape (m,) or (B, m)."""
        seen = self._seen(torch.as_tensor(self.latents)).numpy()
        return seen.reshape(*seen.shape[:-2], -1)

    @property
    def variances(self) -> np.ndarray:
        """Error variances of what is known, shape (m,)."""
        more = 0 if self.patterns is None else self.patterns.shape[1]
        shape = (len(self.states), more + self.latents.shape[-1])
        return np.broadcast_to(self.variance, shape).ravel()

    def equivalents(self, z: Tensor) -> Tensor:
        """Map a trajectory of latents (B, T, L) to equivalents of what is known, (B, m)."""
        states = torch.as_tensor(self.states, device=z.device)
        return self._seen(z[:, states]).flatten(1)

    def _seen(self, z: Tensor) -> Tensor:
        if self.patterns is None:
            return z
        patterns = torch.as_tensor(self.patterns).to(z)
        components = z @ patterns
        return torch.cat([components, z - components @ patterns.T], dim=-1)

    def of_members(self, batch: slice) -> LatentEstimate:
        """Return what is known of some members."""
        if self.latents.ndim == 2:
            return self
        return replace(self, latents=self.latents[batch])

    def within(self, states: slice) -> LatentEstimate | None:
        """Return what is known of a part of the trajectory, or None."""
        inside = (self.states >= states.start) & (self.states < states.stop)
        if not inside.any():
            return None
        known = self.states[inside] - states.start
        return replace(self, states=known, latents=self.latents[..., inside, :])
