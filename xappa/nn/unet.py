r"""The conditional U-Net of downscaling: regression and residual diffusion share it.

Stages of residual blocks halve the resolution one after another, and double it again; each block on
the way up also sees what a block on the way down left. A block is

.. math:: x + \operatorname{conv} \left( \operatorname{silu} \left( (1 + a) \operatorname{norm}(y)
    + b \right) \right), \quad
    y = \operatorname{conv}(\operatorname{silu}(\operatorname{norm}(x))),

where a and b follow from the noise level and from what is known of the whole (the labels), and the
last convolution begins at zero. Blocks of some stages attend among all places in addition.

Fields of any size will do: they are continued to a multiple of the stride, and cut again. How
depends on the domain:

``"edge"``
    A region: fields are continued by reflection, convolutions pad with zeros.
``"periodic"``
    Longitudes go round: fields are continued by what comes next, convolutions pad circularly.
    Exact where the columns are a multiple of the stride.

References
----------
Ronneberger et al. (2015), U-Net: Convolutional Networks for Biomedical Image Segmentation,
arXiv:1505.04597.
Dhariwal & Nichol (2021), Diffusion Models Beat GANs on Image Synthesis, arXiv:2105.05233.
Mardani et al. (2025), Residual corrective diffusion modeling for km-scale atmospheric downscaling,
arXiv:2309.15214.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint

from xappa.errors import ArgumentError, check_settings
from xappa.nn.layers import SineEncoding
from xappa.nn.unet_blocks import Block, Conv, Places, continued, coordinates, group_norm

__all__ = ["BOUNDARIES", "POSITIONS", "PRESETS", "UNet", "UNetConfig"]

BOUNDARIES = ("edge", "periodic")
POSITIONS = ("none", "sines", "learned")

#: Sizes by name: those of the CorrDiff paper, and a small network.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": MappingProxyType({}),
        "mini": MappingProxyType(
            {"hid_channels": 64, "multipliers": (1, 2, 2), "hid_blocks": 2, "mod_features": 256}
        ),
    }
)


@dataclass(frozen=True)
class UNetConfig:
    """Sizes and choices of a `UNet`.

    Parameters
    ----------
    in_channels
        Channels of the fields.
    out_channels
        Channels of what is predicted.
    condition_channels
        Channels of what is known at each place.
    labels
        Number F of what is known of the whole, such as sines of the date and the lead time.
    hid_channels
        Channels of the finest stage.
    multipliers
        Channels of each stage over those of the finest one, finest first.
    hid_blocks
        Residual blocks of each stage, on the way down; on the way up there is one more.
    attention
        Stages whose blocks attend, by number from the finest (0), or from the coarsest (-1).
    attention_heads
        Heads, which share the channels.
    mod_features
        Features of the noise level and the labels.
    dropout
        Dropout rate inside blocks.
    positions
        How places are told: ``"none"``, ``"sines"`` of their coordinates, or features that are
        ``"learned"`` and interpolated between.
    position_features
        Number of such features, a multiple of 4.
    boundary
        How fields are continued, see `xappa.nn.unet`.
    """

    in_channels: int
    out_channels: int
    condition_channels: int = 0
    labels: int = 0
    hid_channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2, 2)
    hid_blocks: int = 4
    attention: tuple[int, ...] = (-1,)
    attention_heads: int = 4
    mod_features: int = 512
    dropout: float = 0.0
    positions: str = "sines"
    position_features: int = 8
    boundary: str = "edge"

    def __post_init__(self) -> None:
        stages = len(self.multipliers)
        attending = [width for stage, width in enumerate(self.widths) if self.attends(stage)]
        checks = {
            "in_channels": self.in_channels >= 1,
            "out_channels": self.out_channels >= 1,
            "condition_channels": self.condition_channels >= 0,
            "labels": self.labels >= 0,
            "hid_channels": self.hid_channels >= 4 and self.hid_channels % 4 == 0,
            "multipliers": stages >= 1 and all(m >= 1 for m in self.multipliers),
            "hid_blocks": self.hid_blocks >= 1,
            "attention": all(-stages <= stage < stages for stage in self.attention),
            "attention_heads": self.attention_heads >= 1
            and all(width % self.attention_heads == 0 for width in attending),
            "mod_features": self.mod_features >= 4 and self.mod_features % 2 == 0,
            "dropout": 0 <= self.dropout < 1,
            "positions": self.positions in POSITIONS,
            "position_features": self.position_features >= 4 and self.position_features % 4 == 0,
            "boundary": self.boundary in BOUNDARIES,
        }
        check_settings(
            self,
            checks,
            what="the U-Net",
            where="UNetConfig",
            expected="hid_channels and position_features multiples of 4, at least one stage and "
            f"one block, attention in stages {-stages} to {stages - 1}, whose channels the heads "
            "divide, an even number of mod_features, no negative numbers, "
            f"positions one of {', '.join(POSITIONS)}, boundary one of {', '.join(BOUNDARIES)}",
            remedy="correct it",
        )

    @classmethod
    def preset(cls, name: str, in_channels: int, out_channels: int, **changes: Any) -> UNetConfig:
        """Return a preset, with changes.

        Parameters
        ----------
        name
            One of `PRESETS`.
        in_channels, out_channels, **changes
            See the class.

        Raises
        ------
        ArgumentError
            If there is no such preset, or a value cannot be.

        Examples
        --------
        >>> UNetConfig.preset("mini", 4, 4, labels=6).stride
        4
        """
        if name not in PRESETS:
            raise ArgumentError(
                f"there is no U-Net {name!r}",
                where="UNetConfig.preset",
                expected=", ".join(PRESETS),
                got=repr(name),
                remedy="use one of the expected names, or UNetConfig itself",
            )
        return cls(in_channels, out_channels, **{**PRESETS[name], **changes})

    @property
    def stride(self) -> int:
        """Places along a side of a field for each place of the coarsest stage."""
        return 1 << (len(self.multipliers) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.hid_channels * m for m in self.multipliers)

    def attends(self, stage: int) -> bool:
        """Whether blocks of a stage, counted from the finest, attend."""
        return not {stage, stage - len(self.multipliers)}.isdisjoint(self.attention)

    def activation_bytes(self, height: int, width: int) -> int:
        """About what one field of that size keeps for its gradient: nine fields for each block."""
        area = math.prod(n + -n % self.stride for n in (height, width))
        kept = 0
        for stage, channels in enumerate(self.widths):
            more = 8 if self.attends(stage) else 0
            blocks = 2 * self.hid_blocks + 3
            kept += blocks * (9 + more) * channels * (area // 4**stage)
        return 4 * kept


class UNet(nn.Module):
    """Predict fields from fields, what is known at each place, a noise level and labels.

    Parameters
    ----------
    config
        Sizes and choices.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = c = config
        self.checkpointing = False
        extra = 0 if c.positions == "none" else c.position_features
        self.places = Places(extra, c.boundary, learned=c.positions == "learned") if extra else None
        self.level_encoding = SineEncoding(c.mod_features)
        self.level_proj = nn.Linear(c.mod_features, c.mod_features)
        self.label_proj = nn.Linear(c.labels, c.mod_features, bias=False) if c.labels else None
        self.mod_proj = nn.Linear(c.mod_features, c.mod_features)
        widths = c.widths
        self.into = Conv(c.in_channels + c.condition_channels + extra, widths[0], c.boundary)
        self.down, self.middle, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        kept = [widths[0]]
        for stage, width in enumerate(widths):
            if stage:
                self.down.append(self._block(kept[-1], width, factor=0.5))
                kept.append(width)
            for _ in range(c.hid_blocks):
                self.down.append(self._block(kept[-1], width, stage))
                kept.append(width)
        last = widths[-1]
        self.middle.extend([self._block(last, last, len(widths) - 1), self._block(last, last)])
        for stage in reversed(range(len(widths))):
            for _ in range(c.hid_blocks + 1):
                self.up.append(self._block(last + kept.pop(), widths[stage], stage))
                last = widths[stage]
            if stage:
                self.up.append(self._block(last, last, factor=2.0))
        self.norm = group_norm(last)
        self.out = Conv(last, c.out_channels, c.boundary).start_at_zero()

    def _block(
        self, inner: int, outer: int, stage: int | None = None, factor: float = 1.0
    ) -> Block:
        """Return a block, which attends if those of its stage do."""
        c = self.config
        attends = stage is not None and c.attends(stage)
        return Block(
            inner,
            outer,
            c.mod_features,
            boundary=c.boundary,
            heads=c.attention_heads if attends else None,
            dropout=c.dropout,
            factor=factor,
        )

    @property
    def stride(self) -> int:
        """Places along a side of a field for each place of the coarsest stage."""
        return self.config.stride

    def forward(
        self,
        x: Tensor,
        level: Tensor | None = None,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Map fields.

        Parameters
        ----------
        x
            Fields, shape (B, C, H, W), of any height and width.
        level
            Noise level, shape (B) or (): the logarithm of the standard deviation over 4, as
            `xappa.diffusion.edm` tells it. None for regression, which is as a level of 0.
        condition
            What is known at each place, shape (B, D, H, W); needed if the network was made for it.
        labels
            What is known of the whole, shape (B, F); needed likewise.
        positions
            Row and column coordinates from -1 to 1, shape (B, 2, H, W) or (2, H, W): those of
            `xappa.nn.unet_blocks.coordinates` unless given, which patches of a domain want.

        Returns
        -------
        Tensor
            Shape (B, out_channels, H, W).

        Raises
        ------
        ArgumentError
            If the condition or the labels are missing.
        """
        self._check(condition, labels)
        height, width = x.shape[-2:]
        parts = [x] if condition is None else [x, condition]
        if self.places is not None:
            place = coordinates(height, width) if positions is None else positions
            parts.append(self.places(place.to(x).expand(len(x), 2, height, width)))
        y = continued(torch.cat(parts, dim=1), self.stride, self.config.boundary)
        y = self._mapped(y, self._modulation(x, level, labels))
        top, left = (y.shape[-2] - height) // 2, (y.shape[-1] - width) // 2
        return y[..., top : top + height, left : left + width]

    def _check(self, condition: Tensor | None, labels: Tensor | None) -> None:
        c = self.config
        given = (
            0 if condition is None else condition.shape[1],
            0 if labels is None else labels.shape[1],
        )
        if given != (c.condition_channels, c.labels):
            raise ArgumentError(
                "the network was not made for what it is told",
                where="UNet",
                expected=f"{c.condition_channels} channels of the condition and {c.labels} labels",
                got=f"{given[0]} channels and {given[1]} labels",
                remedy="give what is missing, or configure the network for what is given",
            )

    def _modulation(self, x: Tensor, level: Tensor | None, labels: Tensor | None) -> Tensor:
        """Return the features of the noise level and the labels, shape (B, mod_features)."""
        level = x.new_zeros(()) if level is None else level.to(x)
        # 10 ln sigma, as the latent transformer is told: what the frequencies can resolve.
        encoded = self.level_encoding(40 * level.expand(len(x)))
        mod = self.level_proj(encoded)
        if self.label_proj is not None and labels is not None:
            mod = mod + self.label_proj(labels.to(x))
        out: Tensor = silu(self.mod_proj(silu(mod)))
        return out

    def _mapped(self, x: Tensor, mod: Tensor) -> Tensor:
        """Go down the stages and up again."""
        x = self.into(x)
        kept = [x]
        for block in self.down:
            x = self._run(block, x, mod)
            kept.append(x)
        for block in self.middle:
            x = self._run(block, x, mod)
        for block in self.up:
            told = x if block.factor > 1 else torch.cat([x, kept.pop()], dim=1)  # type: ignore[operator]
            x = self._run(block, told, mod)
        out: Tensor = self.out(silu(self.norm(x)))
        return out

    def _run(self, block: nn.Module, x: Tensor, mod: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            out: Tensor = checkpoint(block, x, mod, use_reentrant=False)
        else:
            out = block(x, mod)
        return out
