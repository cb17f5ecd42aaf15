r"""Denoising domains that do not fit: patch by patch, fused at every call of the denoiser.

A domain of H × W places is continued at its sides, by reflection or, where longitudes go round, by
what comes next, and cut into patches of h × w places. Of each the outermost ``boundary`` places
serve as context alone; what remains of neighbours overlaps by ``overlap`` places or more, the last
patch of a row being moved back to the domain's end. With a window :math:`w_n` for each patch n, the
fused field is

.. math:: x(p) = \frac{\sum_n w_n(p) \, x_n(p)}{\sum_n w_n(p)},

so that equal patches give back the field that they were cut from. A denoiser that sees no farther
than ``boundary`` places gives the same patch by patch as for the whole domain. Others know of the
rest of the domain by the steps of the reverse diffusion, in which patches are fused again and
again, and by the whole domain's condition, resized to a patch, which each patch is told.

References
----------
Mardani et al. (2025), Residual corrective diffusion modeling for km-scale atmospheric downscaling,
arXiv:2309.15214.
Bar-Tal et al. (2023), MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation,
arXiv:2302.08113.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad
from torch.utils.checkpoint import checkpoint

from xappa.errors import ArgumentError, check_settings
from xappa.nn.unet_blocks import coordinates

__all__ = ["WINDOWS", "PatchedDenoiser", "Patches"]

WINDOWS = ("smooth", "average")


@dataclass(frozen=True)
class Patches:
    """How a domain is cut into patches and fused again.

    Parameters
    ----------
    shape
        Rows and columns (H, W) of the domain.
    size
        Rows and columns (h, w) of a patch.
    overlap
        Places that neighbours share at least, besides their boundaries.
    boundary
        Places at each side of a patch that are context alone.
    wraps
        Whether columns go round.
    window
        Weights of places that patches share: ``"smooth"``, which fall towards a patch's sides as
        sines squared, or ``"average"``, the same for all.
    multiple
        What sides of a patch have to be a multiple of: the network's stride.

    Raises
    ------
    ArgumentError
        If a patch is larger than the domain, no multiple of the stride, or shared too much.

    Examples
    --------
    >>> patches = Patches((7, 8), (4, 8), overlap=2, boundary=0)
    >>> patches.starts
    ((0, 0), (2, 0), (3, 0))
    >>> x = torch.randn(2, 3, 7, 8)
    >>> patches.cut(x).shape
    torch.Size([6, 3, 4, 8])
    >>> bool(torch.allclose(patches.fuse(patches.cut(x)), x))
    True
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    overlap: int
    boundary: int = 0
    wraps: bool = False
    window: str = "smooth"
    multiple: int = 1

    def __post_init__(self) -> None:
        (height, width), inner = self.shape, self.inner
        shared = [n for n, whole in zip(inner, self.shape, strict=True) if n < whole]
        fits = all(1 <= n <= whole for n, whole in zip(self.size, self.shape, strict=True))
        if not fits:
            raise ArgumentError(
                "a patch is larger than the domain",
                where="Patches",
                expected=f"size between (1, 1) and the domain's {self.shape}",
                got=f"size={self.size}",
                remedy="take smaller patches, or the whole domain at once",
            )
        check_settings(
            self,
            {
                "size": all(n % self.multiple == 0 for n in self.size),
                "boundary": self.boundary >= 0 and min(inner) >= 1,
                "overlap": self.overlap >= 0 and all(self.overlap < n for n in shared),
                "window": self.window in WINDOWS,
            },
            what="the cut into patches",
            where="Patches",
            expected=f"sides that are multiples of the network's stride {self.multiple}, places "
            "left between the boundaries, of which fewer than all overlap, window one of "
            f"{', '.join(WINDOWS)}; here {inner[0]} x {inner[1]} of {height} x {width} are left",
            remedy="take other sides, less overlap or a narrower boundary",
        )

    @property
    def inner(self) -> tuple[int, int]:
        """Rows and columns of a patch without its boundary."""
        return self.size[0] - 2 * self.boundary, self.size[1] - 2 * self.boundary

    @property
    def starts(self) -> tuple[tuple[int, int], ...]:
        """First row and column of each patch; negative where it begins outside the domain."""
        rows, columns = self._axes
        return tuple((r - self.boundary, c - self.boundary) for r in rows for c in columns)

    @property
    def _axes(self) -> tuple[list[int], list[int]]:
        """First rows and columns of the patches without their boundaries."""
        axes = []
        for axis in (0, 1):
            whole, inner = self.shape[axis], self.inner[axis]
            stride = inner - self.overlap
            if axis == 1 and self.wraps and inner < whole:
                axes.append(list(range(0, whole, stride)))
            else:
                axes.append([*range(0, whole - inner, stride), whole - inner])
        return axes[0], axes[1]

    def __len__(self) -> int:
        """Return the number N of patches."""
        return len(self.starts)

    def cut(self, x: Tensor) -> Tensor:
        """Cut fields (B, C, H, W) into patches (B N, C, h, w), those of a field in a row."""
        return self.taken(self.continued(x), torch.arange(len(x) * len(self)))

    def cut_at(self, x: Tensor, starts: Tensor) -> Tensor:
        """Cut one patch of each field.

        Parameters
        ----------
        x
            Fields, shape (B, C, H, W).
        starts
            First row and column of each field's patch, shape (B, 2), see `random_starts`.

        Returns
        -------
        Tensor
            Shape (B, C, h, w).
        """
        whole = self.continued(x)
        return torch.stack(
            [self._at(f, r, c) for f, (r, c) in zip(whole, starts.tolist(), strict=True)]
        )

    def random_starts(self, uniforms: Tensor) -> Tensor:
        """Return where random patches for training begin.

        Parameters
        ----------
        uniforms
            Numbers in [0, 1), shape (B, 2).

        Returns
        -------
        Tensor
            First rows and columns, shape (B, 2), int64: of all patches that reach no farther
            outside the domain than ``boundary``, each is as likely as the others.
        """
        counts = [n + 2 * self.boundary - m + 1 for n, m in zip(self.shape, self.size, strict=True)]
        if self.wraps:
            counts[1] = self.shape[1]
        limits = torch.tensor(counts, device=uniforms.device)
        return (uniforms.double() * limits).long() - self.boundary

    def overview(self, x: Tensor) -> Tensor:
        """Resize fields (B, D, H, W) to a patch, shape (B, D, h, w), by averages over areas."""
        return adaptive_avg_pool2d(x, self.size)

    @cached_property
    def positions(self) -> Tensor:
        """Coordinates of the places of the patches in the domain, shape (N, 2, h, w), float32.

        Those of `xappa.nn.unet_blocks.coordinates`, continued as the fields are.
        """
        return self.cut(coordinates(*self.shape)[None])

    def fuse(self, patches: Tensor) -> Tensor:
        """Fuse patches (B N, C, h, w) to fields (B, C, H, W)."""
        index, weight = self._places
        edge, (rows, columns) = self.boundary, self.inner
        inner = patches[..., edge : edge + rows, edge : edge + columns]
        weighted = (inner.unflatten(0, (-1, len(self))) * weight.to(inner)).movedim(1, 2)
        fields = inner.new_zeros(*weighted.shape[:2], math.prod(self.shape))
        fields = fields.index_add(-1, index.to(inner.device), weighted.flatten(2))
        return fields.reshape(*fields.shape[:2], *self.shape)

    def continued(self, x: Tensor) -> Tensor:
        """Continue fields (B, C, H, W) by the boundary, and by a patch where columns go round."""
        edge, width = self.boundary, self.shape[1]
        x = pad(x, (0, 0, edge, edge), mode="reflect") if edge else x
        if not self.wraps:
            return pad(x, (edge, edge, 0, 0), mode="reflect") if edge else x
        at = torch.arange(-edge, width + self.size[1] - edge, device=x.device) % width
        return x.index_select(-1, at)

    def taken(self, whole: Tensor, which: Tensor) -> Tensor:
        """Cut some of the patches.

        Parameters
        ----------
        whole
            What `continued` made of B fields.
        which
            Numbers from 0 to B N - 1, in the order of `cut`, shape (n,).

        Returns
        -------
        Tensor
            Shape (n, C, h, w).
        """
        starts = self.starts
        pairs = [divmod(i, len(starts)) for i in which.tolist()]
        return torch.stack([self._at(whole[b], *starts[n]) for b, n in pairs])

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Where places go, shape (N h' w'), and their normalised weights, (N, 1, h', w')."""
        (height, width), (rows, columns) = self.shape, self.inner
        ramps = [self._ramp(n) for n in (rows, columns)]
        starts = torch.tensor(self.starts)[:, :, None] + self.boundary
        r = (starts[:, 0] + torch.arange(rows))[:, :, None]
        c = (starts[:, 1] + torch.arange(columns))[:, None, :] % width
        index = (r * width + c).flatten()
        weight = (ramps[0][:, None] * ramps[1]).expand(len(starts), rows, columns).flatten()
        total = torch.zeros(height * width, dtype=torch.float64).index_add(0, index, weight)
        return index, (weight / total[index]).reshape(-1, 1, rows, columns)

    def _ramp(self, n: int) -> Tensor:
        """Return the window along a side of n places, before it is normalised, float64."""
        if self.window == "average" or self.overlap == 0:
            return torch.ones(n, dtype=torch.float64)
        at = torch.arange(n, dtype=torch.float64) + 0.5
        inside = torch.minimum(at, n - at).clamp(max=self.overlap)
        return torch.sin(math.pi / 2 * inside / self.overlap).square()

    def _at(self, field: Tensor, row: int, column: int) -> Tensor:
        """Cut a patch of a continued field (C, H', W'), given where it begins in the domain."""
        r, c = row + self.boundary, column + self.boundary
        return field[:, r : r + self.size[0], c : c + self.size[1]]


class PatchedDenoiser(Denoiser):
    """The denoiser of a domain by one of patches; an azula `Denoiser` of fields (B, C, H, W).

    Parameters
    ----------
    denoiser
        The patches' denoiser, of shape (n, C, h, w), such as
        `xappa.diffusion.edm.EDMDenoiser`.
    patches
        How the domain is cut and fused.
    batch
        The most patches in one call of the denoiser, on which its memory depends alone.
    overview
        Whether the condition of the whole domain, resized to a patch, follows the patches' own.
    positions
        Whether the denoiser is told where patches are, by the name ``positions``.

    Raises
    ------
    ArgumentError
        If no patch fits into a batch, or patches are no multiple of the network's stride.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        patches: Patches,
        *,
        batch: int = 16,
        overview: bool = True,
        positions: bool = True,
    ) -> None:
        super().__init__()
        stride = getattr(getattr(denoiser, "network", None), "stride", 1)
        if batch < 1 or any(n % stride for n in patches.size):
            raise ArgumentError(
                "the denoiser cannot take these patches",
                where="PatchedDenoiser",
                expected=f"sides that are multiples of the network's stride {stride}, batch >= 1",
                got=f"patches of {patches.size}, batch={batch}",
                remedy="take other patches",
            )
        self.denoiser, self.patches, self.batch = denoiser, patches, batch
        self.overview, self.positions = overview, positions

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return self.denoiser.schedule

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> DiracPosterior:
        """Return the expected fields.

        Parameters
        ----------
        x_t
            Noisy fields, shape (B, C, H, W).
        t
            Time, shape () or (B).
        condition
            What is known at each place, shape (B, D, H, W).
        labels
            What is known of the whole, shape (B, F).
        **kwargs
            Further arguments of the patches' denoiser, the same for all.
        """
        cut = self.patches
        fields = cut.continued(x_t)
        known = None if condition is None else cut.continued(condition)
        whole = None if condition is None or not self.overview else cut.overview(condition)
        place = cut.positions.to(x_t) if self.positions else None

        def denoised(which: Tensor) -> Tensor:
            field, patch = which // len(cut), which % len(cut)
            told = dict(kwargs)
            if known is not None:
                own = cut.taken(known, which)
                told["condition"] = own if whole is None else torch.cat([own, whole[field]], dim=1)
            if labels is not None:
                told["labels"] = labels[field]
            if place is not None:
                told["positions"] = place[patch]
            at = t[field] if t.ndim else t
            mean: Tensor = self.denoiser(cut.taken(fields, which), at, **told).mean
            return mean

        parts = torch.arange(len(x_t) * len(cut)).split(self.batch)
        if len(parts) > 1 and torch.is_grad_enabled():  # what does not fit is computed again
            done = [checkpoint(denoised, part, use_reentrant=False) for part in parts]
        else:
            done = [denoised(part) for part in parts]
        return DiracPosterior(mean=cut.fuse(torch.cat(done)))
