r"""The three tests of Kolmogorov flow whose residuals Rozet & Louppe (2023) publish.

A residual is the standard deviation of A(x) - y over all observations, for one sample x of the
posterior: the closer to the standard deviation of the errors, the better.

References
----------
Rozet & Louppe (2023), arXiv:2306.10574; the residuals are in the notebooks of their code,
https://github.com/francois-rozet/sda.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from navier_stokes import coarsen
from torch import Tensor

__all__ = ["TESTS", "FlowTest", "vorticity"]


def vorticity(x: Tensor) -> Tensor:
    """Return central differences du/dy - dv/dx of velocities (..., 2, H, W), of points 1 apart."""
    u, v = x.unbind(-3)
    along_y = (u.roll(-1, -1) - u.roll(1, -1)) / 2
    along_x = (v.roll(-1, -2) - v.roll(1, -2)) / 2
    return along_y - along_x


def saturated(x: Tensor) -> Tensor:
    """Return w / (1 + |w|) of the vorticity w of velocities averaged over 4 by 4 points."""
    w = vorticity(coarsen(x, 4))
    return w / (1 + w.abs())


@dataclass(frozen=True)
class FlowTest:
    """Observations of a trajectory.

    Parameters
    ----------
    name
        Of the test.
    length
        States of the trajectory.
    every
        States from one that is observed to the next.
    error
        Standard deviation of the observation errors.
    observed
        Maps states (..., 2, 64, 64) to what is observed of each.
    published
        Residuals of the authors' method (SDA) and of theirs of diffusion posterior sampling (DPS).
    """

    name: str
    length: int
    every: int
    error: float
    observed: Callable[[Tensor], Tensor]
    published: tuple[float, float]

    def operator(self, x: Tensor) -> Tensor:
        """Map trajectories (B, T, 2 n n) to observations (B, m)."""
        n = int((x.shape[-1] // 2) ** 0.5)
        return self.observed(x[:, :: self.every].unflatten(-1, (2, n, n))).flatten(1)

    def observe(self, truth: Tensor, generator: torch.Generator) -> Tensor:
        """Return noisy observations (B, m) of trajectories (B, T, 2 n n)."""
        exact = self.operator(truth)
        return exact + self.error * torch.randn(exact.shape, generator=generator)

    def fields(self, y: Tensor, points: int = 64) -> Tensor:
        """Return observations (B, m) as fields of each observed state."""
        observed = self.observed(
            torch.zeros(len(range(0, self.length, self.every)), 2, points, points)
        )
        fields: Tensor = y.unflatten(-1, observed.shape)
        return fields


TESTS = (
    FlowTest("coarse", 29, 4, 0.1, lambda x: coarsen(x, 8), (0.110, 0.857)),
    FlowTest("cropped", 8, 3, 0.01, lambda x: coarsen(x, 4)[..., 4:12, 4:12], (0.018, 0.493)),
    FlowTest("saturated", 8, 3, 0.05, lambda x: saturated(x)[..., 2:14, 2:14], (0.061, 0.548)),
)
