"""Parts of the conditional U-Net: convolutions, residual blocks, and what is told of places."""

from __future__ import annotations

import math

import torch
from azula.nn.attention import MultiheadSelfAttention
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, pad, silu

__all__ = ["Block", "Conv", "Places", "continued", "coordinates", "group_norm"]

#: Rows and columns of what is learned of places.
LEARNED_SHAPE = (32, 32)


def coordinates(height: int, width: int) -> Tensor:
    """Return where the centres of cells are in a domain that reaches from -1 to 1.

    Parameters
    ----------
    height, width
        Rows H and columns W of the domain.

    Returns
    -------
    Tensor
        Row and column coordinates, shape (2, H, W), float32.

    Examples
    --------
    >>> coordinates(1, 4)[1]
    tensor([[-0.7500, -0.2500,  0.2500,  0.7500]])
    """
    axes = [(2 * torch.arange(n) + 1) / n - 1 for n in (height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def continued(x: Tensor, multiple: int, boundary: str) -> Tensor:
    """Continue fields on all sides, the sooner half at the top and on the left.

    Parameters
    ----------
    x
        Fields, shape (B, C, H, W).
    multiple
        What the height and the width are to be multiples of.
    boundary
        ``"edge"`` for reflection at all sides, as often as it takes; ``"periodic"`` for what comes
        next on the left and the right.

    Returns
    -------
    Tensor
        Shape (B, C, H', W').
    """
    for dim in (-2, -1):
        n = x.shape[dim]
        more = -n % multiple
        if more:
            at = torch.arange(-(more // 2), n + more - more // 2, device=x.device)
            period = max(1, 2 * (n - 1))
            mirrored = (n - 1) - ((at % period) - (n - 1)).abs()
            x = x.index_select(dim, at % n if dim == -1 and boundary == "periodic" else mirrored)
    return x


class Conv(nn.Conv2d):
    """A convolution that keeps the size, and goes round where the domain does.

    Parameters
    ----------
    inner, outer
        Channels of what comes in and of what goes out.
    boundary
        ``"periodic"`` where columns go round, else ``"edge"``: padded with zeros.
    size
        Rows and columns of the kernel, odd.
    """

    def __init__(self, inner: int, outer: int, boundary: str, *, size: int = 3) -> None:
        half = size // 2
        self.around = half if boundary == "periodic" else 0
        super().__init__(inner, outer, size, padding=(half, half - self.around))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to (B, C', H, W)."""
        if self.around:
            x = pad(x, (self.around, self.around, 0, 0), mode="circular")
        return super().forward(x)

    def start_at_zero(self) -> Conv:
        """Initialise at zero, and return self."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        return self


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a normalisation of groups of at least four channels, at most 32 of them."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels, eps=1e-5)


class _Attention(nn.Module):
    """x + attention(norm(x)), at first x."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.attention = MultiheadSelfAttention(channels, attention_heads=heads)
        nn.init.zeros_(self.attention.y_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        out: Tensor = x + self.attention(tokens).transpose(1, 2).unflatten(2, x.shape[2:])
        return out


class Block(nn.Module):
    """A modulated residual block, which may change the resolution first.

    Parameters
    ----------
    inner, outer
        Channels of what comes in and of what goes out.
    mod_features
        Features of what modulates.
    boundary
        How convolutions pad: ``"edge"`` or ``"periodic"``.
    heads
        Heads of attention among all places; None for no attention.
    dropout
        Dropout rate.
    factor
        1/2 to halve the resolution, 2 to double it, 1 to keep it.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        mod_features: int,
        *,
        boundary: str,
        heads: int | None = None,
        dropout: float = 0.0,
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.factor = factor
        self.first_norm, self.second_norm = group_norm(inner), group_norm(outer)
        self.first = Conv(inner, outer, boundary)
        self.second = Conv(outer, outer, boundary).start_at_zero()
        self.modulation = nn.Linear(mod_features, 2 * outer)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inner == outer else nn.Conv2d(inner, outer, 1)
        self.attention = nn.Identity() if heads is None else _Attention(outer, heads)
        with torch.no_grad():
            self.modulation.weight.mul_(1e-2)

    def forward(self, x: Tensor, mod: Tensor) -> Tensor:
        """Map x (B, C, H, W), given features (B, F)."""
        y = self.first(self._resized(silu(self.first_norm(x))))
        a, b = self.modulation(mod)[:, :, None, None].chunk(2, dim=1)
        y = self.dropout(silu((1 + a) * self.second_norm(y) + b))
        out: Tensor = self.attention(self.skip(self._resized(x)) + self.second(y))
        return out

    def _resized(self, x: Tensor) -> Tensor:
        if self.factor < 1:
            return avg_pool2d(x, 2)
        return interpolate(x, scale_factor=2.0, mode="nearest") if self.factor > 1 else x


class Places(nn.Module):
    """Features of places, from their coordinates.

    Parameters
    ----------
    features
        Number of features, a multiple of 4.
    boundary
        ``"periodic"`` where the features of the first and the last column are to join.
    learned
        Whether features are learned on a grid and interpolated; else sines of the coordinates.
    """

    def __init__(self, features: int, boundary: str, *, learned: bool = False) -> None:
        super().__init__()
        self.periodic, self.features = boundary == "periodic", features
        table = 0.1 * torch.randn(1, features, *LEARNED_SHAPE) if learned else None
        self.learned = None if table is None else nn.Parameter(table)

    def forward(self, place: Tensor) -> Tensor:
        """Map coordinates (B, 2, H, W), from -1 to 1, to features (B, F, H, W)."""
        rows, columns = place.unbind(1)
        if self.learned is not None:
            table = self.learned.expand(len(place), -1, -1, -1)
            if self.periodic:  # one column more at each end, between which to interpolate
                table = pad(table, (1, 1, 0, 0), mode="circular")
                columns = columns * LEARNED_SHAPE[1] / (LEARNED_SHAPE[1] + 2)
            where = torch.stack([columns, rows], dim=-1)
            return grid_sample(table, where, padding_mode="border", align_corners=False)
        # Whole waves where longitudes go round, else half of one, so that the ends differ.
        powers = math.pi * 2 ** torch.arange(self.features // 4).to(place)
        angles = (rows / 2, columns if self.periodic else columns / 2)
        phases = torch.cat([a[:, None] * powers[:, None, None] for a in angles], dim=1)
        return torch.cat([phases.sin(), phases.cos()], dim=1)
