r"""The spatio-temporal diffusion transformer over blankets of latents.

Tokens are patches of latents in time, latitude and longitude. All attend to all (or to those of a
local window). What they know besides the noisy latents:

- the noise level, by modulation of each block (adaptive layer norm, zero at first);
- their place, by a sine encoding of their coordinates and by learned rotations of queries and keys;
- the dates of the K states, as sines and cosines of the progress of the year and of the hour of the
  day at Greenwich, the same for all tokens. As these enter linearly, they are projected once for
  each blanket instead of once for each token.

References
----------
Peebles & Xie (2022), Scalable Diffusion Models with Transformers, arXiv:2212.09748.
Su et al. (2021), RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv:2104.09864.
Heo et al. (2024), Rotary Position Embedding for Vision Transformer, arXiv:2403.13298.
Andry et al. (2025), arXiv:2504.18720.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, rms_norm, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from xappa.errors import check_settings
from xappa.nn.gaussian import GaussianBlanket
from xappa.nn.layers import SineEncoding

__all__ = ["LatentTransformer", "TransformerConfig"]

#: Sine and cosine of the year's progress and of the hour.
DATE_FEATURES = 4


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of a `LatentTransformer`.

    Parameters
    ----------
    latent_shape
        Rows, columns and channels (h, w, c) of a latent.
    blanket_size
        States K of a blanket.
    hid_channels
        Channels of a token.
    hid_blocks
        Number of blocks.
    attention_heads
        Heads, which share the channels.
    mod_features
        Features of the noise level.
    ffn_factor
        Channels inside a block's feed-forward part over those outside.
    patch_size
        States, rows and columns of a token's patch.
    window_size
        Tokens in time, latitude and longitude that a token attends to; None for all.
    window_wraps
        Whether the window wraps around, in time, latitude and longitude. The published models
        were trained with windows that wrap in all three.
    qk_norm
        Whether queries and keys are normalised by their root mean square.
    rope
        Whether queries and keys are rotated by the token's coordinates.
    dropout
        Dropout rate.
    modes
        Patterns of the Gaussian that the network departs from, see `xappa.nn.gaussian`; 0 for none.
    """

    latent_shape: tuple[int, int, int]
    blanket_size: int
    hid_channels: int = 1024
    hid_blocks: int = 16
    attention_heads: int = 8
    mod_features: int = 256
    ffn_factor: int = 4
    patch_size: tuple[int, int, int] = (2, 1, 1)
    window_size: tuple[int, int, int] | None = None
    window_wraps: tuple[bool, bool, bool] = (False, False, True)
    qk_norm: bool = True
    rope: bool = True
    dropout: float = 0.0
    modes: int = 0

    def __post_init__(self) -> None:
        whole = (self.blanket_size, *self.latent_shape[:2])
        checks = {
            "patch_size": all(n % p == 0 for n, p in zip(whole, self.patch_size, strict=True)),
            "attention_heads": self.hid_channels % (2 * self.attention_heads) == 0,
            "mod_features": self.mod_features >= 4 and self.mod_features % 2 == 0,
            "modes": 0 <= self.modes <= math.prod(self.latent_shape),
        }
        check_settings(
            self,
            checks,
            what="the transformer",
            where="TransformerConfig",
            expected=f"patches that divide {whole}, an even number of channels for each "
            "head, an even number of mod_features, at most as many modes as a latent has values",
            remedy="correct it",
        )

    @property
    def activation_bytes(self) -> int:
        """About what one blanket keeps for its gradient: 14 fields for each block and its inside.

        A window keeps the weights of attention, too, which its mask keeps from being fused.
        """
        count = math.prod(self.tokens)
        fields = count * self.hid_channels * (14 + 3 * self.ffn_factor)
        weights = 0 if self.window_size is None else 2 * self.attention_heads * count**2
        return 4 * self.hid_blocks * (fields + weights)

    @property
    def tokens(self) -> tuple[int, int, int]:
        """Tokens in time, latitude and longitude."""
        whole = (self.blanket_size, *self.latent_shape[:2])
        sizes = [n // p for n, p in zip(whole, self.patch_size, strict=True)]
        return sizes[0], sizes[1], sizes[2]


class _Attention(nn.Module):
    """Multi-head self-attention with normalised and rotated queries and keys."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        channels = config.hid_channels
        self.heads, self.qk_norm, self.dropout = (
            config.attention_heads,
            config.qk_norm,
            config.dropout,
        )
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, turn: Tensor | None, mask: Tensor | None) -> Tensor:
        """Attend among tokens x (B, N, C); ``turn`` is (cos, sin) stacked, (2, heads, N, C/2H)."""
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.qk_norm:
            q, k = (rms_norm(a, a.shape[-1:], eps=1e-5) for a in (q, k))
        if turn is not None:
            q, k = _rotate(q, turn), _rotate(k, turn)
        rate = self.dropout if self.training else 0.0
        y = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        out: Tensor = self.out(y.transpose(1, 2).reshape(b, n, c))
        return out


def _rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate consecutive pairs of channels of x (..., N, C) by angles of (cos, sin)."""
    cos, sin = turn
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return turned.flatten(-2)


class _Block(nn.Module):
    r"""One block, modulated by (a, b, c, d) that follow from the noise level.

    .. math::
        y & = (a + 1) \operatorname{norm}(x) + b \\
        y & \gets \operatorname{ffn}(y + \operatorname{attention}(y)) \\
        x & \gets (x + c y) / \sqrt{1 + c^2} \\
        x & \gets (x + d x_0) / \sqrt{1 + d^2}

    where :math:`x_0` are the tokens before the first block.
    """

    theta: Tensor | None

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        channels, features = config.hid_channels, config.mod_features
        self.channels, self.heads = channels, config.attention_heads
        gates = nn.Linear(features, 4 * channels)
        self.modulation = nn.Sequential(nn.Linear(features, features), nn.SiLU(), gates)
        self.attention = _Attention(config)
        self.ffn = nn.Sequential(
            nn.Linear(channels, config.ffn_factor * channels),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.ffn_factor * channels, channels),
        )
        self.theta = None
        if config.rope:
            amplitude = 100.0 ** -torch.rand(channels // 2)
            direction = nn.functional.normalize(torch.randn(3, channels // 2), dim=0)
            self.theta = nn.Parameter(amplitude * direction)
        with torch.no_grad():
            gates.weight.mul_(1e-2)

    def forward(
        self, x: Tensor, first: Tensor, noise: Tensor, place: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Map tokens x (B, N, C), given the first ones, noise features (B, F), places (N, 3)."""
        a, b, c, d = self.modulation(noise).unflatten(-1, (4, 1, -1)).unbind(-3)
        y = (a + 1) * layer_norm(x, (self.channels,)) + b
        y = y + self.attention(y, self._turn(place), mask)
        y = (x + c * self.ffn(y)) * torch.rsqrt(1 + c * c)
        mixed: Tensor = (y + d * first) * torch.rsqrt(1 + d * d)
        return mixed

    def _turn(self, place: Tensor) -> Tensor | None:
        if self.theta is None:
            return None
        angle = (place @ self.theta).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        return torch.stack([angle.cos(), angle.sin()])


class LatentTransformer(nn.Module):
    """Predict what denoising needs from a noisy blanket, its noise level and its dates.

    Parameters
    ----------
    config
        Sizes and choices.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        area, channels = math.prod(config.patch_size), config.latent_shape[2]
        dates = DATE_FEATURES * config.blanket_size
        self.in_proj = nn.Linear(area * (channels + dates), config.hid_channels)
        self.out_proj = nn.Linear(config.hid_channels, area * channels)
        self.position = SineEncoding(config.hid_channels)
        self.position_proj = nn.Linear(3 * config.hid_channels, config.hid_channels)
        self.noise_encoding = SineEncoding(config.mod_features)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.hid_blocks))
        self.gaussian: GaussianBlanket | None = None
        if config.modes:
            self.gaussian = GaussianBlanket(config.latent_shape, config.blanket_size, config.modes)
            self.guess_proj = nn.Linear(area * channels, config.hid_channels, bias=False)

    def forward(
        self, x: Tensor, level: Tensor, dates: Tensor, guess: Tensor | None = None
    ) -> Tensor:
        """Map noisy blankets.

        Parameters
        ----------
        x
            Blankets of latents, shape (B, K, h w c), each flattened in that order.
        level
            Noise level, shape (B) or ().
        dates
            Date features, shape (B, K, 4) or (K, 4), see `xappa.models.appa.date_features`.
        guess
            What the blankets would be expected to be were they Gaussian, shape (B, K, h w c); for
            networks with ``modes`` alone.

        Returns
        -------
        Tensor
            Shape (B, K, h w c).
        """
        place = self._places(x)
        tokens = self._tokens(x, dates.to(x))
        if guess is not None:
            tokens = tokens + self.guess_proj(self._patches(guess))
        y = tokens + self.position_proj(self.position(place).flatten(-2))
        noise = self.noise_encoding(level.to(x).expand(len(x)))
        mask = self._mask(x.device)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                y = checkpoint(block, y, tokens, noise, place, mask, use_reentrant=False)
            else:
                y = block(y, tokens, noise, place, mask)
        return self._latents(self.out_proj(y))

    def _tokens(self, x: Tensor, dates: Tensor) -> Tensor:
        """Project patches of latents, and the dates once for each blanket: (B, N, C)."""
        c, (pt, ph, pw) = self.config.latent_shape[2], self.config.patch_size
        weight = self.in_proj.weight.unflatten(1, (-1, pt * ph * pw))
        own, dated = weight[:, :c].flatten(1), weight[:, c:].sum(-1)
        # sines and cosines of the year for all K states, then those of the hour
        flat = torch.cat([dates[..., :2].flatten(-2), dates[..., 2:].flatten(-2)], dim=-1)
        date = linear(flat, dated, self.in_proj.bias)
        return linear(self._patches(x), own) + date.unsqueeze(-2)

    def _patches(self, x: Tensor) -> Tensor:
        """Cut latents (B, K, h w c) into patches, shape (B, N, c pt ph pw)."""
        c, (pt, ph, pw) = self.config.latent_shape[2], self.config.patch_size
        nt, nh, nw = self.config.tokens
        patches = x.reshape(-1, nt, pt, nh, ph, nw, pw, c).permute(0, 1, 3, 5, 7, 2, 4, 6)
        return patches.reshape(len(x), nt * nh * nw, -1)

    def _latents(self, y: Tensor) -> Tensor:
        """Put patches (B, N, c pt ph pw) back to (B, K, h w c)."""
        c, (pt, ph, pw) = self.config.latent_shape[2], self.config.patch_size
        nt, nh, nw = self.config.tokens
        y = y.reshape(-1, nt, nh, nw, c, pt, ph, pw).permute(0, 1, 5, 2, 6, 3, 7, 4)
        return y.reshape(len(y), self.config.blanket_size, -1)

    def _places(self, like: Tensor) -> Tensor:
        """Coordinates of the tokens, shape (N, 3)."""
        axes = [torch.arange(n, device=like.device) for n in self.config.tokens]
        return torch.cartesian_prod(*axes).reshape(-1, 3).to(like.dtype)

    def _mask(self, device: torch.device) -> Tensor | None:
        """Which token attends to which, shape (N, N); None for all."""
        window = self.config.window_size
        if window is None:
            return None
        near = torch.ones((), dtype=torch.bool, device=device)
        places = torch.cartesian_prod(
            *[torch.arange(n, device=device) for n in self.config.tokens]
        ).reshape(-1, 3)
        for axis, wraps in enumerate(self.config.window_wraps):
            distance = (places[:, None, axis] - places[None, :, axis]).abs()
            if wraps:
                distance = torch.minimum(distance, self.config.tokens[axis] - distance)
            near = near & (distance <= window[axis] // 2)
        return near
