r"""Kolmogorov flow on the torus: two-dimensional turbulence that a steady shear keeps going.

.. math:: \partial_t u + u \cdot \nabla u = -\nabla p + \nabla^2 u / \mathrm{Re}
    + \sin(4 y) \, \hat{x} - 0.1 \, u, \quad \nabla \cdot u = 0

on a square of side 2 pi, as Rozet & Louppe (2023) set it up with a finite-volume code; here the
vorticity is integrated in Fourier space, with the rule of two thirds against aliasing, the linear
terms exactly and the others by a fourth-order Runge-Kutta scheme. Arrays end in (x, y); a point is
the middle of its cell.

References
----------
Rozet & Louppe (2023), Score-based Data Assimilation, arXiv:2306.10574.
Chandler & Kerswell (2013), Invariant recurrent solutions embedded in a turbulent two-dimensional
Kolmogorov flow, doi:10.1017/jfm.2013.122.
"""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

__all__ = ["KolmogorovFlow", "coarsen"]

FORCED = 4
DRAG = 0.1


def coarsen(x: Tensor, factor: int) -> Tensor:
    """Average fields (..., H, W) over squares of `factor` points a side."""
    *_, h, w = x.shape
    blocks = x.unflatten(-1, (w // factor, factor)).unflatten(-3, (h // factor, factor))
    means: Tensor = blocks.mean((-3, -1))
    return means


class KolmogorovFlow:
    """The flow on `size` by `size` points.

    Parameters
    ----------
    size
        Points a side.
    interval
        Time from one state to the next.
    reynolds
        Re.
    speed
        The sum of the speeds along x and y for which the time step is stable.
    """

    def __init__(
        self, size: int = 256, interval: float = 0.2, reynolds: float = 1e3, speed: float = 8.0
    ) -> None:
        self.size, self.speed = size, speed
        kx: Tensor = torch.fft.fftfreq(size, 1 / size)[:, None]
        ky: Tensor = torch.fft.rfftfreq(size, 1 / size)
        square = kx**2 + ky**2
        limit = size / 3
        self.kept = ((kx.abs() < limit) & (ky < limit)).float()
        inverse = torch.where(square > 0, 1 / square, 0)
        # Velocities and derivatives that a vorticity in Fourier space is multiplied by.
        self.velocity: Tensor = torch.stack([1j * ky * inverse, -1j * kx * inverse])
        self.slope: Tensor = (
            -1j * torch.stack([kx.expand_as(square), ky.expand_as(square)]) * self.kept
        )
        self.radius = square.sqrt()
        # Fourth-order Runge-Kutta schemes are stable up to 2.8 on the imaginary axis.
        self.steps = math.ceil(interval * limit * speed / 2.8)
        self.h = interval / self.steps
        self.half = torch.exp(-self.h / 2 * (square / reynolds + DRAG))
        self.forcing = torch.zeros(size, size // 2 + 1, dtype=torch.complex64)
        phase = cmath.exp(1j * FORCED * math.pi / size)
        self.forcing[0, FORCED] = torch.tensor(-FORCED * size**2 / 2 * phase)

    def start(self, count: int, generator: torch.Generator) -> Tensor:
        """Return random vorticities, spectral: most energy at wavenumber 4, speeds up to 3."""
        white = torch.randn(count, self.size, self.size, generator=generator)
        # The energy of a shell is log-normal in k; a vorticity there goes with the root of k of it.
        profile = torch.exp(-2 * torch.log(self.radius.clamp_min(0.1) / FORCED) ** 2)
        w = torch.fft.rfft2(white) * profile * self.radius.sqrt() * self.kept
        speed = self.velocities(w).square().sum(1).sqrt().amax((-2, -1))
        scaled: Tensor = w * (3.0 / speed)[:, None, None]
        return scaled

    def velocities(self, w: Tensor) -> Tensor:
        """Return velocities (B, 2, N, N) of spectral vorticities (B, N, N / 2 + 1)."""
        return self._field(self.velocity * w[:, None])

    def _field(self, spectral: Tensor) -> Tensor:
        """Return fields (..., N, N) of coefficients (..., N, N / 2 + 1)."""
        field: Tensor = torch.fft.irfft2(spectral, s=(self.size, self.size))
        return field

    def divergence(self, w: Tensor) -> Tensor:
        """Return the divergence (B, N, N) of the velocities, differentiated in Fourier space."""
        spectral = torch.fft.rfft2(self.velocities(w))
        return self._field(-(self.slope * spectral).sum(1))

    def tendency(self, w: Tensor) -> Tensor:
        """Return all of dw/dt but its linear terms."""
        flux: Tensor = torch.fft.rfft2(self.velocities(w) * self._field(w)[:, None])
        return (self.slope * flux).sum(1) + self.forcing

    def forecast(self, w: Tensor) -> Tensor:
        """Integrate to the next state."""
        h, half = self.h, self.half
        for _ in range(self.steps):
            a = self.tendency(w)
            b = self.tendency(half * (w + h / 2 * a))
            c = self.tendency(half * w + h / 2 * b)
            ahead = half**2 * w
            d = self.tendency(ahead + h * half * c)
            w = ahead + h / 6 * (half**2 * a + 2 * half * (b + c) + d)
        return w

    def trajectories(
        self, count: int, length: int, *, skip: int = 64, points: int = 64, seed: int = 0
    ) -> Tensor:
        """Return velocities (count, length, 2, points, points) after `skip` states, averaged."""
        w = self.start(count, torch.Generator().manual_seed(seed))
        for _ in range(skip):
            w = self.forecast(w)
        states = []
        for _ in range(length):
            states.append(coarsen(self.velocities(w), self.size // points))
            w = self.forecast(w)
        return torch.stack(states, 1)
