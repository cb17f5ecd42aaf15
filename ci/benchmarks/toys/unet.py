"""A small U-Net of velocities on a torus, whose channels are the states of a window.

References
----------
Ronneberger, Fischer & Brox (2015), U-Net: Convolutional Networks for Biomedical Image Segmentation,
arXiv:1505.04597.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from flow_gaussian import GaussianFlow
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from xappa.nn.layers import SineEncoding, blocks_to_channels, channels_to_blocks

__all__ = ["UNet"]

PATCH = (2, 2)


def _conv(inner: int, outer: int) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, padding=1, padding_mode="circular")


class _Block(nn.Module):
    """Two convolutions beside a shortcut; the noise level shifts what lies between them."""

    def __init__(self, inner: int, outer: int, features: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.GroupNorm(8, inner), nn.SiLU(), _conv(inner, outer))
        self.shift = nn.Linear(features, outer)
        last = _conv(outer, outer)
        nn.init.zeros_(last.weight)
        self.after = nn.Sequential(nn.GroupNorm(8, outer), nn.SiLU(), last)
        self.shortcut = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.before(x) + self.shift(level)[..., None, None]
        out: Tensor = self.shortcut(x) + self.after(h)
        return out


class UNet(nn.Module):
    """The network of a `xappa.diffusion.blankets.BlanketDenoiser` of velocities.

    It departs from what is expected of a Gaussian, `gaussian`, whose arrays are to be fitted first.

    Parameters
    ----------
    window
        States K of a window.
    points
        Points n a side; a state is 2 n n numbers.
    widths
        Channels of each resolution, finest first; the finest sees squares of two by two points.
    features
        Of the noise level.
    """

    def __init__(
        self,
        window: int,
        points: int = 64,
        widths: Sequence[int] = (64, 96, 128),
        features: int = 128,
    ) -> None:
        super().__init__()
        self.window, self.points = window, points
        self.gaussian = GaussianFlow(window, points)
        y = 2 * math.pi * (torch.arange(points) + 0.5) / points
        self.forcing: Tensor
        self.register_buffer("forcing", torch.sin(4 * y).expand(1, 1, points, points).clone())
        self.level = nn.Sequential(SineEncoding(64), nn.Linear(64, features), nn.SiLU())
        cells = PATCH[0] * PATCH[1]
        self.first = _conv((4 * window + 1) * cells, widths[0])
        self.last = nn.Sequential(
            nn.GroupNorm(8, widths[0]), nn.SiLU(), _conv(widths[0], 2 * window * cells)
        )
        finer = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(
            _Block(a, b, features) for a, b in zip(finer, widths, strict=True)
        )
        self.middle = _Block(widths[-1], widths[-1], features)
        self.up = nn.ModuleList(
            _Block(2 * b, a, features) for a, b in zip(finer, widths, strict=True)
        )

    def forward(self, x: Tensor, level: Tensor, dates: Tensor, guess: Tensor) -> Tensor:
        """Map windows (B, K, 2 n n), ten times the log of the noise (B) and guesses to windows."""
        sigma, level = torch.exp(level / 10), self.level(level)
        fields = torch.stack([x, guess], 1).unflatten(-1, (2, self.points, self.points))
        told = torch.cat([fields.flatten(1, 3), self.forcing.expand(len(x), -1, -1, -1)], dim=1)
        h = self.first(blocks_to_channels(told, PATCH).to(memory_format=torch.channels_last))
        kept = []
        for i, block in enumerate(self.down):
            h = block(avg_pool2d(h, 2) if i else h, level)
            kept.append(h)
        h = self.middle(h, level)
        for i, block in reversed(list(enumerate(self.up))):
            h = block(torch.cat([h, kept[i]], dim=1), level)
            h = interpolate(h, scale_factor=2) if i else h
        out = channels_to_blocks(self.last(h), PATCH)
        windows = out.unflatten(1, (self.window, 2)).flatten(2)
        scale = (1 + sigma**2).sqrt()[:, None, None]
        return scale * self.gaussian.coloured(windows, sigma)
