r"""The convolutional autoencoder of global states.

The encoder halves the resolution from stage to stage, folding blocks of places into channels before
a convolution; each stage is a chain of residual blocks. The decoder is its mirror image. Latents
pass a saturation that bounds them, so that their noisy versions are comparable.

A state of H × W points is padded to a multiple of the resize factor f. How depends on the domain:

``"periodic"``
    Longitudes go round: every convolution pads them circularly. Needs W divisible by f.
``"periodic-input"``
    One latent cell on each side is copied from the other end of the input, and convolutions pad
    with zeros: what the published Appa models were trained with.
``"torus"``
    The same, with convolutions that go round in longitude and in latitude: a choice of the authors'
    code.
``"edge"``
    A region: the input is continued by its edge values, and convolutions pad with zeros.

Latitudes are padded with zeros (global) or edge values (a region).

References
----------
Andry et al. (2025), Appa: Bending Weather Dynamics with Latent Diffusion Models for Global Data
Assimilation, arXiv:2504.18720.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad
from torch.utils.checkpoint import checkpoint

from xappa.errors import check_settings
from xappa.nn.layers import ChannelNorm, blocks_to_channels, channels_to_blocks

__all__ = ["BOUNDARIES", "SATURATIONS", "AutoencoderConfig", "ConvAutoencoder"]

BOUNDARIES = ("periodic", "periodic-input", "torus", "edge")

#: Maps from (x of shape (B, C, H, W), bound) to bounded latents.
SATURATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "none": lambda x, _: x,
    "softclip": lambda x, bound: x / (1 + x.abs() / bound),
    "softclip2": lambda x, bound: x * torch.rsqrt(1 + (x / bound).square()),
    "tanh": lambda x, bound: bound * torch.tanh(x / bound),
    "asinh": lambda x, _: torch.asinh(x),
    "rmsnorm": lambda x, _: x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-5),
}


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes and choices of a `ConvAutoencoder`.

    Parameters
    ----------
    shape
        Rows and columns (H, W) of a state.
    in_channels
        Channels of a state.
    lat_channels
        Channels c of a latent.
    hid_channels
        Channels of each stage, finest first.
    hid_blocks
        Residual blocks of each stage.
    patch_size
        Block of places that the first convolution sees as one.
    boundary
        How states are padded, see `xappa.nn.autoencoder`.
    saturation, saturation_bound
        How latents are bounded: a key of `SATURATIONS`.
    kernel_size
        Of all convolutions, odd.
    pixel_shuffle
        Whether resolution changes by folding places into channels; else by strided convolutions
        and nearest-neighbour interpolation.
    ffn_factor
        Channels inside a residual block over those outside.
    dropout
        Dropout rate inside residual blocks.
    latent_noise
        Standard deviation of the noise that training added to latents before they were decoded.
    """

    shape: tuple[int, int]
    in_channels: int
    lat_channels: int
    hid_channels: tuple[int, ...]
    hid_blocks: tuple[int, ...]
    patch_size: tuple[int, int] = (1, 1)
    boundary: str = "periodic"
    saturation: str = "softclip2"
    saturation_bound: float = 5.0
    kernel_size: int = 3
    pixel_shuffle: bool = True
    ffn_factor: int = 1
    dropout: float = 0.0
    latent_noise: float = 0.0

    def __post_init__(self) -> None:
        stages = len(self.hid_channels)
        checks = {
            "hid_blocks": len(self.hid_blocks) == stages and stages >= 1,
            "boundary": self.boundary in BOUNDARIES,
            "saturation": self.saturation in SATURATIONS,
            "kernel_size": self.kernel_size % 2 == 1,
            "shape": self.boundary != "periodic" or self.shape[1] % self.resize[1] == 0,
        }
        check_settings(
            self,
            checks,
            what="the autoencoder",
            where="AutoencoderConfig",
            expected="as many hid_blocks as hid_channels, an odd kernel_size, boundary one "
            f"of {', '.join(BOUNDARIES)} (periodic: columns divisible by the resize "
            f"factor), saturation one of {', '.join(SATURATIONS)}",
            remedy="correct it; for columns that do not divide take 'periodic-input'",
        )

    @property
    def resize(self) -> tuple[int, int]:
        """Places of a state for each place of a latent, rows and columns."""
        halvings = 2 ** (len(self.hid_channels) - 1)
        return halvings * self.patch_size[0], halvings * self.patch_size[1]

    @property
    def padding(self) -> tuple[int, int]:
        """Rows and columns that are added to a state."""
        (rows, columns), (fh, fw) = self.shape, self.resize
        around = 2 * fw if self.boundary in ("periodic-input", "torus") else 0
        return -rows % fh, -columns % fw + around

    @property
    def activation_bytes(self) -> int:
        """About what decoding one state keeps for its gradient: four fields for each block."""
        (rows, columns), (more, wider) = self.shape, self.padding
        area = (rows + more) * (columns + wider) // math.prod(self.patch_size)
        fields = zip(self.hid_channels, self.hid_blocks, strict=True)
        kept: int = sum(c * (n + 1) * (area // 4**i) for i, (c, n) in enumerate(fields))
        return 16 * max(1, kept)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels (h, w, c) of a latent."""
        (rows, columns), (more, wider), (fh, fw) = self.shape, self.padding, self.resize
        return (rows + more) // fh, (columns + wider) // fw, self.lat_channels


class _Conv(nn.Conv2d):
    """A convolution that keeps the size, and goes round where the domain does."""

    def __init__(
        self, inner: int, outer: int, config: AutoencoderConfig, *, stride: int = 1
    ) -> None:
        half = config.kernel_size // 2
        columns = half if config.boundary in ("periodic", "torus") else 0
        rows = half if config.boundary == "torus" else 0
        self.around = (columns, columns, rows, rows)
        padding = (half - rows, half - columns)
        super().__init__(inner, outer, config.kernel_size, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        if any(self.around):
            x = pad(x, self.around, mode="circular")
        return super().forward(x)

    def start_as_identity(self) -> _Conv:
        """Initialise near the identity (channels repeated or cut), and return self."""
        middle = self.kernel_size[0] // 2
        with torch.no_grad():
            self.weight.mul_(1e-2)
            out = torch.arange(self.out_channels)
            self.weight[out, out % self.in_channels, middle, middle] += 1
        return self


class _ResBlock(nn.Module):
    """x + conv(silu(conv(norm(x))))."""

    def __init__(self, channels: int, config: AutoencoderConfig) -> None:
        super().__init__()
        wide = config.ffn_factor * channels
        self.norm = ChannelNorm()
        self.first = _Conv(channels, wide, config)
        self.dropout = nn.Dropout(config.dropout)
        self.second = _Conv(wide, channels, config)
        with torch.no_grad():
            self.second.weight.mul_(1e-2)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.silu(self.first(self.norm(x)))
        out: Tensor = x + self.second(self.dropout(y))
        return out


class _Coarsen(nn.Module):
    """Half the resolution."""

    def __init__(self, inner: int, outer: int, config: AutoencoderConfig) -> None:
        super().__init__()
        self.fold = config.pixel_shuffle
        channels = 4 * inner if self.fold else inner
        self.conv = _Conv(channels, outer, config, stride=1 if self.fold else 2)
        self.conv.start_as_identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(blocks_to_channels(x, (2, 2)) if self.fold else x)
        return out


class _Refine(nn.Module):
    """Double the resolution."""

    def __init__(self, inner: int, outer: int, config: AutoencoderConfig) -> None:
        super().__init__()
        self.fold = config.pixel_shuffle
        self.conv = _Conv(inner, 4 * outer if self.fold else outer, config)
        self.conv.start_as_identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.fold:
            return channels_to_blocks(self.conv(x), (2, 2))
        out: Tensor = self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class ConvAutoencoder(nn.Module):
    """Encode standardised states to latents, and decode them.

    Parameters
    ----------
    config
        Sizes and choices.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        sizes = list(config.hid_channels)
        area = math.prod(config.patch_size)
        down: list[nn.Module] = [_Conv(area * config.in_channels, sizes[0], config)]
        down += [_Coarsen(a, b, config) for a, b in pairwise(sizes)]
        up: list[nn.Module] = [_Conv(sizes[0], area * config.in_channels, config)]
        up += [_Refine(b, a, config) for a, b in pairwise(sizes)]

        def stages() -> nn.ModuleList:
            pairs = zip(sizes, config.hid_blocks, strict=True)
            return nn.ModuleList(
                nn.ModuleList(_ResBlock(size, config) for _ in range(count))
                for size, count in pairs
            )

        # Stage i of each list works at resolution i, the finest first, in both directions.
        self.down, self.encoder = nn.ModuleList(down), stages()
        self.to_latent = _Conv(sizes[-1], config.lat_channels, config).start_as_identity()
        self.from_latent = _Conv(config.lat_channels, sizes[-1], config).start_as_identity()
        self.decoder, self.up = stages(), nn.ModuleList(up)

    def encode(self, x: Tensor) -> Tensor:
        """Encode states.

        Parameters
        ----------
        x
            Standardised states, shape (B, channel, H, W).

        Returns
        -------
        Tensor
            Latents, shape (B, c, h, w), saturated.
        """
        return self.saturate(self.encode_unbounded(x))

    def encode_unbounded(self, x: Tensor) -> Tensor:
        """Encode states (B, channel, H, W) to latents (B, c, h, w) before their saturation."""
        x = blocks_to_channels(self.pad(x), self.config.patch_size)
        for change, stage in zip(self.down, self.encoder, strict=True):
            x = self._run(stage, change(x))
        latents: Tensor = self.to_latent(x)
        return latents

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (B, c, h, w) to standardised states (B, channel, H, W)."""
        x = self.from_latent(z)
        for change, stage in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = change(self._run(stage, x))
        return self.unpad(channels_to_blocks(x, self.config.patch_size))

    def saturate(self, z: Tensor) -> Tensor:
        """Bound latents, shape (B, c, h, w)."""
        return SATURATIONS[self.config.saturation](z, self.config.saturation_bound)

    def pad(self, x: Tensor) -> Tensor:
        """Pad states (B, channel, H, W) to what divides into latents."""
        more, wider = self.config.padding
        sides = (wider // 2, wider - wider // 2, 0, 0)
        ends = (0, 0, more // 2, more - more // 2)
        if self.config.boundary == "edge":
            # reflect and replicate need four dimensions, which x has
            return pad(x, (*sides[:2], *ends[2:]), mode="replicate") if more or wider else x
        x = pad(x, sides, mode="circular") if wider else x
        return pad(x, ends) if more else x

    def unpad(self, x: Tensor) -> Tensor:
        """Cut what `pad` added."""
        more, wider = self.config.padding
        rows, columns = self.config.shape
        top, left = more // 2, wider // 2
        return x[..., top : top + rows, left : left + columns]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        for block in stage:  # type: ignore[attr-defined]
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x
