"""Networks of windows of a small chaotic model, with the logarithm of the noise as an input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Perceptron", "Ring"]


class _Level(nn.Module):
    """Features of the logarithm of the noise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        phase = t.reshape(-1, 1) * torch.exp(torch.linspace(-2, 3, 16).to(t))
        features: Tensor = self.layers(torch.cat([phase.sin(), phase.cos()], dim=-1))
        return features


class Perceptron(nn.Module):
    """Residual perceptron of a window."""

    def __init__(self, size: int, width: int, blocks: int) -> None:
        super().__init__()
        self.level = _Level(width)
        self.first, self.last = nn.Linear(size, width), nn.Linear(width, size)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.SiLU(),
                nn.Linear(2 * width, width),
            )
            for _ in range(blocks)
        )
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map windows (B, K n) and the log of the noise, shape () or (B,), to (B, K n)."""
        level = self.level(t)
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h + level)
        out: Tensor = self.last(h)
        return out


class _Product(nn.Module):
    """The product of two convolutions: tendencies of Lorenz's model are products of neighbours."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.pair = nn.Conv1d(width, 2 * width, 5, padding=2, padding_mode="circular")
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.pair(self.norm(x)).chunk(2, 1)
        out: Tensor = self.mix(a * b)
        return out


class Ring(nn.Module):
    r"""Residual convolutions around a circle of n points, whose channels are the K states.

    With variances :math:`\lambda_i` of windows along their principal axes, scaled noisy windows x
    and the network f, the result is along each axis

    .. math:: \frac{\sigma (\lambda - 1)}{\lambda + \sigma^2} x
        + \sqrt{\frac{\lambda (1 + \sigma^2)}{\lambda + \sigma^2}} f(x) ,

    which makes of a `azula.denoise.KarrasDenoiser` that of a Gaussian, to which f adds in
    proportion to what remains unknown.
    """

    values: Tensor
    axes: Tensor

    def __init__(self, window: int, points: int, width: int, blocks: int) -> None:
        super().__init__()
        self.window, self.points = window, points
        self.register_buffer("values", torch.ones(window * points))
        self.register_buffer("axes", torch.eye(window * points))
        self.level = _Level(width)
        self.first = nn.Conv1d(2 * window, width, 5, padding=2, padding_mode="circular")
        self.last = nn.Conv1d(width, window, 5, padding=2, padding_mode="circular")
        self.blocks = nn.ModuleList(_Product(width) for _ in range(blocks))
        nn.init.zeros_(self.last.weight)

    @torch.no_grad()
    def fit(self, data: Tensor) -> None:
        """Find axes and variances of standardised trajectories (count, length, n)."""
        windows = data.unfold(1, self.window, self.window // 4).movedim(-1, 2).flatten(0, 1)
        flat = windows.flatten(1).double()
        whole = (flat.T @ flat / len(flat)).reshape(2 * (self.window, self.points))
        # All points of the circle are alike.
        turned = torch.zeros_like(whole)
        for i in range(self.points):
            turned += whole.roll((i, i), (1, 3)) / self.points
        values, axes = torch.linalg.eigh(turned.reshape(flat.shape[1], -1))
        self.values[:], self.axes[:] = values.clamp_min(0), axes

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map windows (B, K n) and the log of the noise, shape () or (B,), to (B, K n)."""
        sigma = t.exp().reshape(-1, 1)
        left = self.values + sigma**2
        guess = (sigma * (self.values - 1) / left * (x @ self.axes)) @ self.axes.T
        told = torch.stack([x, guess], 1).unflatten(-1, (self.window, -1)).flatten(1, 2)
        level = self.level(t)[..., None]
        h = self.first(told)
        for block in self.blocks:
            h = h + block(h + level)
        unknown = (self.values * (1 + sigma**2) / left).sqrt()
        added: Tensor = (unknown * (self.last(h).flatten(-2) @ self.axes)) @ self.axes.T
        return guess + added
