r"""The denoiser of Gaussian, isotropic, incompressible flow: what a network departs from.

Velocities without divergence have one coefficient s for each wavevector k, across it. For
:math:`s = (s_1, ..., s_K)` over the states of a window, :math:`\Gamma_{|k|}` their covariance, and
noise of variance :math:`\sigma^2`,

.. math:: \hat{s} = \Gamma_{|k|} (\Gamma_{|k|} + \sigma^2 I)^{-1} s

about the mean flow. A network adds :math:`\Gamma^{1/2} (\Gamma + \sigma^2 I)^{-1/2}` times what it
says, which has neither divergence nor more in small eddies than they may hold.

References
----------
Wang & Vastola (2024), The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion
Models and its Applications, arXiv:2412.09726.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["GaussianFlow"]

Gain = Callable[[Tensor, Tensor], Tensor]


class GaussianFlow(nn.Module):
    """Expected velocities of a window, were they Gaussian. Buffers alone.

    Parameters
    ----------
    window
        States K of a window.
    points
        Points n a side; a state is 2 n n numbers.
    """

    mean: Tensor
    turn: Tensor
    levels: Tensor

    def __init__(self, window: int, points: int = 64) -> None:
        super().__init__()
        self.points = points
        kx = torch.fft.fftfreq(points, 1 / points)[:, None]
        ky = torch.fft.rfftfreq(points, 1 / points)
        length = (kx**2 + ky**2).sqrt()
        self.shell = length.round().long()
        # The mean and the wavenumbers on the edge, which have no direction, are left out.
        inner = (length > 0) & (kx.abs() < points // 2) & (ky < points // 2)
        across = torch.stack([ky.expand_as(length), -kx.expand_as(length)]) * inner
        self.across: Tensor = across / length.clamp_min(1)
        shells = int(self.shell.max()) + 1
        self.register_buffer("mean", torch.zeros(2, points, points))
        self.register_buffer("turn", torch.eye(window).expand(shells, -1, -1).clone())
        self.register_buffer("levels", torch.ones(shells, window))

    def coefficients(self, fields: Tensor) -> Tensor:
        """Return s, shape (..., n, n / 2 + 1), of velocities (..., 2, n, n)."""
        spectral = torch.fft.rfft2(fields, norm="ortho")
        across: Tensor = (self.across * spectral).sum(-3)
        return across

    @torch.no_grad()
    def fit(self, data: Tensor) -> None:
        """Estimate mean and covariances from trajectories (count, length, 2, n, n)."""
        window = self.levels.shape[1]
        # The mean flow is along x, and depends on y alone.
        self.mean[0] = data[:, :, 0].mean((0, 1, 2))
        s = self.coefficients(data - self.mean)
        counts = torch.zeros(len(self.levels)).index_add(
            0, self.shell.flatten(), (self.across.abs().sum(0) > 0).flatten().float()
        )
        lags = []
        for lag in range(window):
            product = (s[:, lag:] * s[:, : s.shape[1] - lag].conj()).real.mean((0, 1))
            total = torch.zeros(len(self.levels)).index_add(
                0, self.shell.flatten(), product.flatten()
            )
            lags.append(total / counts.clamp_min(1))
        apart = (torch.arange(window)[:, None] - torch.arange(window)).abs()
        covariance = torch.stack(lags, -1)[:, apart].double()
        levels, turn = torch.linalg.eigh(covariance)
        self.levels[:] = levels.clamp_min(0).float()
        self.turn[:] = turn.float()

    def forward(self, x: Tensor, sigma: Tensor, dates: Tensor) -> Tensor:
        """Return expected windows, given noisy ones (B, K, 2 n n) of noise levels (B)."""
        fields = x.unflatten(-1, (2, self.points, self.points)) - self.mean
        expected = self._filtered(fields, sigma, lambda level, noise: level / (level + noise))
        return (expected + self.mean).flatten(2)

    def coloured(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Scale windows (B, K, 2 n n) as what remains unknown is."""
        fields = x.unflatten(-1, (2, self.points, self.points))
        scaled = self._filtered(
            fields, sigma, lambda level, noise: (level / (level + noise)).sqrt()
        )
        return scaled.flatten(2)

    def _filtered(self, fields: Tensor, sigma: Tensor, gain: Gain) -> Tensor:
        """Scale the components of fields (B, K, 2, n, n) by their gain."""
        noise = (sigma.to(fields) ** 2)[:, None, None]
        shells = gain(self.levels, noise)  # (B, shells, K)
        kernels = torch.einsum("skj,bsj,slj->bskl", self.turn, shells, self.turn)
        s = self.coefficients(fields)
        moved = torch.view_as_real(s).permute(0, 2, 3, 1, 4)  # (B, n, n / 2 + 1, K, 2)
        mixed = kernels[:, self.shell] @ moved
        filtered = torch.view_as_complex(mixed.permute(0, 3, 1, 2, 4).contiguous())
        spectral = self.across * filtered[:, :, None]
        velocities: Tensor = torch.fft.irfft2(spectral, s=(self.points, self.points), norm="ortho")
        return velocities
