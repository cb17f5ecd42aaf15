"""CorrDiff: downscaling by a regression of the mean and a diffusion model of what it leaves."""

from __future__ import annotations

from xappa.models.corrdiff.model import CorrDiffModel

__all__ = ["CorrDiffModel"]
