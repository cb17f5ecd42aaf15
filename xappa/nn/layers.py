"""Layers that the networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ChannelNorm", "SineEncoding", "blocks_to_channels", "channels_to_blocks"]


class ChannelNorm(nn.Module):
    r"""Standardise over the channels: :math:`(x - \bar{x}) / \sqrt{s^2 + \epsilon}`.

    The variance is the unbiased one over the channels of each place; there are no weights. Half
    precision is raised to float32 within.

    References
    ----------
    Ba et al. (2016), Layer Normalization, arXiv:1607.06450.
    """

    eps: Tensor

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        # A tensor, as the published checkpoints keep it.
        self.register_buffer("eps", torch.tensor(eps))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise x, shape (B, C, H, W)."""
        full = x if x.dtype.itemsize >= 4 else x.float()
        variance, mean = torch.var_mean(full, dim=1, keepdim=True)
        return ((full - mean) * torch.rsqrt(variance + self.eps)).to(x.dtype)


class SineEncoding(nn.Module):
    r"""Sinusoidal features :math:`[\sin \omega_i x, \cos \omega_i x]`.

    Frequencies go from 1 down to :math:`1 / \omega` in equal ratios.

    Parameters
    ----------
    features
        Number of features, even.
    omega
        The ratio of the largest to the smallest frequency.

    References
    ----------
    Vaswani et al. (2017), Attention Is All You Need, arXiv:1706.03762.
    """

    freqs: Tensor

    def __init__(self, features: int, omega: float = 100.0) -> None:
        super().__init__()
        exponent = torch.linspace(0, 1, features // 2, dtype=torch.float64)
        self.register_buffer("freqs", (omega**-exponent).float())

    def forward(self, x: Tensor) -> Tensor:
        """Encode x of shape (...): shape (..., features)."""
        angle = x.unsqueeze(-1) * self.freqs
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def blocks_to_channels(x: Tensor, block: tuple[int, int]) -> Tensor:
    """Fold blocks of h x w places into channels: (B, C, H h, W w) to (B, C h w, H, W)."""
    h, w = block
    if h == w == 1:
        return x
    b, c, rows, columns = x.shape
    x = x.reshape(b, c, rows // h, h, columns // w, w).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(b, c * h * w, rows // h, columns // w)


def channels_to_blocks(x: Tensor, block: tuple[int, int]) -> Tensor:
    """Unfold channels into blocks of h x w places; the inverse of `blocks_to_channels`."""
    h, w = block
    if h == w == 1:
        return x
    b, c, rows, columns = x.shape
    x = x.reshape(b, c // (h * w), h, w, rows, columns).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(b, c // (h * w), rows * h, columns * w)
