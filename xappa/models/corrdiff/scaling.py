r"""How fine fields and coarse ones are standardised.

Fine fields y are transformed by variable, compared with the coarse field b of the same quantity, if
there is one, and standardised by channel:

.. math:: \hat y = \frac{f(y) - f(b) - m}{s},

so that a regression that tells nothing is interpolation, or the mean. What the regression leaves is
scaled to the standard deviation :math:`\sigma_d = 0.5` that the diffusion model is set up for.

==========  ====================================================================================
none        :math:`f(y) = y`
root        :math:`f(y) = \sqrt{\max(y, 0)}`: of amounts that are often nothing, as rain. What is
            below 0 is nothing again, so that dry places are dry.
==========  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from xappa.bridge import VariableSpec

__all__ = ["TRANSFORMS", "Scaling", "default_transform"]

TRANSFORMS = ("none", "root")
#: Standard deviation of what the diffusion model draws.
SIGMA_DATA = 0.5
_AMOUNTS = ("precipitation", "rainfall", "snowfall")


def default_transform(variable: VariableSpec) -> str:
    """Return how a variable is transformed where nothing is said: precipitation by its root."""
    name = variable.standard_name or ""
    return "root" if any(word in name for word in _AMOUNTS) else "none"


@dataclass(frozen=True, eq=False)
class Scaling:
    """Statistics of coarse and fine fields.

    Parameters
    ----------
    coarse_mean, coarse_std
        Of each coarse channel, in its units, shape (C,).
    fine_mean, fine_std
        m and s of each fine channel, shape (c,).
    residual_std
        Standard deviation of what the regression leaves of standardised fields, shape (c,).
    spread
        What calibration multiplies departures of residuals from their expected values by, shape
        (c,); 1 before.
    statics_mean, statics_std
        Of each static field, shape (S,).
    transforms
        Of each fine channel.
    baseline
        Number of the coarse channel that each fine channel departs from, -1 for none.
    """

    coarse_mean: np.ndarray
    coarse_std: np.ndarray
    fine_mean: np.ndarray
    fine_std: np.ndarray
    residual_std: np.ndarray
    spread: np.ndarray
    statics_mean: np.ndarray
    statics_std: np.ndarray
    transforms: tuple[str, ...]
    baseline: tuple[int, ...]

    _ARRAYS: ClassVar[tuple[str, ...]] = (
        *("coarse_mean", "coarse_std", "fine_mean", "fine_std"),
        *("residual_std", "spread", "statics_mean", "statics_std"),
    )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that a bundle keeps."""
        return {name: np.asarray(getattr(self, name), np.float64) for name in self._ARRAYS}

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        transforms: tuple[str, ...],
        baseline: tuple[int, ...],
    ) -> Scaling:
        """Return what `arrays` described."""
        own = {name: arrays[name] for name in cls._ARRAYS}
        return cls(**own, transforms=transforms, baseline=baseline)

    def coarse(self, x: Tensor) -> Tensor:
        """Standardise coarse fields (B, C, H, W)."""
        return (x - _of(self.coarse_mean, x)) / _of(self.coarse_std, x)

    def statics(self, x: Tensor) -> Tensor:
        """Standardise static fields (S, H, W)."""
        return (x - _of(self.statics_mean, x)) / _of(self.statics_std, x)

    def departed(self, x: Tensor) -> Tensor:
        """Return f(b) of coarse fields on the fine grid (B, C, H, W): (B, c, H, W)."""
        zero = torch.zeros_like(x[:, 0])
        parts = [zero if k < 0 else x[:, k] for k in self.baseline]
        return self.transformed(torch.stack(parts, dim=1))

    def transformed(self, y: Tensor) -> Tensor:
        """Return f(y) of fine fields (B, c, H, W)."""
        parts = [
            y[:, k].clamp_min(0).sqrt() if name == "root" else y[:, k]
            for k, name in enumerate(self.transforms)
        ]
        return torch.stack(parts, dim=1)

    def fine(self, y: Tensor, departed: Tensor) -> Tensor:
        """Standardise fine fields (B, c, H, W), given f(b)."""
        apart = self.transformed(y) - departed
        return (apart - _of(self.fine_mean, y)) / _of(self.fine_std, y)

    def unscaled(self, standardised: Tensor, departed: Tensor) -> Tensor:
        """Return fine fields in their units, given standardised ones and f(b); differentiable."""
        y = standardised * _of(self.fine_std, standardised) + _of(self.fine_mean, standardised)
        y = y + departed
        parts = [
            y[:, k].clamp_min(0).square() if name == "root" else y[:, k]
            for k, name in enumerate(self.transforms)
        ]
        return torch.stack(parts, dim=1)

    def residual_scale(self, like: Tensor) -> Tensor:
        """Return what diffusion's numbers are multiplied by to be residuals, (c, 1, 1)."""
        return _of(self.residual_std, like) / SIGMA_DATA

    def widened(self, residual: Tensor, centre: Tensor) -> Tensor:
        """Return residuals (B, c, H, W) whose departures from their mean calibration scaled."""
        return centre + _of(self.spread, residual) * (residual - centre)


def _of(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.as_tensor(values).to(like)[:, None, None]
