"""What is known of fine fields before they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xappa.diffusion.patches import Patches
from xappa.models.appa.normalisation import date_features

__all__ = ["LABELS", "Conditions", "Cutting", "labels_of"]

#: Number of what the networks are told of times.
LABELS = 5
#: Days of lead time that the label 1 stands for.
_DAYS = 10.0


@dataclass(frozen=True)
class Cutting:
    """How domains that do not fit are cut into patches, see `xappa.diffusion.patches.Patches`."""

    size: tuple[int, int]
    overlap: int = 4
    boundary: int = 2

    def patches(self, shape: tuple[int, int], stride: int, wraps: bool) -> Patches:
        """Return the patches of a domain."""
        return Patches(shape, self.size, self.overlap, self.boundary, wraps=wraps, multiple=stride)


@dataclass(frozen=True, eq=False)
class Conditions:
    """What is known of N fields before they are drawn.

    Parameters
    ----------
    departed
        What standardised fields depart from, f(b), shape (N, c, H, W).
    known
        Standardised coarse fields on the fine grid and static fields, shape (N, D, H, W).
    labels
        What is known of the whole, shape (N, F).
    mean
        The regression's standardised fields, shape (N, c, H, W); None before it has run.
    centre
        The residuals that the diffusion model expects, shape (N, c, H, W); None where they are not
        asked for.
    """

    departed: Tensor
    known: Tensor
    labels: Tensor
    mean: Tensor | None = None
    centre: Tensor | None = None

    @property
    def condition(self) -> Tensor:
        """What the diffusion model is told at each place: the mean, then what is known."""
        return self.known if self.mean is None else torch.cat([self.mean, self.known], dim=1)

    def on(self, device: torch.device) -> Conditions:
        """Return those on a device."""
        return self._each(lambda part: part.to(device))

    @classmethod
    def joined(cls, parts: Sequence[Conditions]) -> Conditions:
        """Return those of several sets of fields, of which the same is known, one after another."""
        found: dict[str, Any] = {}
        for name in ("departed", "known", "labels", "mean", "centre"):
            own = [getattr(part, name) for part in parts]
            found[name] = None if own[0] is None else torch.cat(own)
        return cls(**found)

    def rows(self, which: Tensor) -> Conditions:
        """Return those of some fields, by number, also repeatedly."""
        return self._each(lambda part: part[which])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditions:
        mean, centre = (None if p is None else change(p) for p in (self.mean, self.centre))
        return Conditions(
            change(self.departed), change(self.known), change(self.labels), mean, centre
        )


def labels_of(
    seconds: np.ndarray, lead: np.ndarray | None, calendar: str, parts: Sequence[str]
) -> np.ndarray:
    """Return what the networks are told of times: shape (N, 5), float32.

    Parameters
    ----------
    seconds
        Valid times, shape (N,).
    lead
        Lead times in seconds, shape (N,); None for analyses.
    calendar
        CF name of the calendar.
    parts
        What was told in training, of ``"year"``, ``"day"`` and ``"lead"``; zeros for the rest.
    """
    dates = date_features(seconds, calendar, tuple(p for p in parts if p != "lead"))
    days = np.zeros(len(dates)) if lead is None or "lead" not in parts else lead / 86400.0
    return np.concatenate([dates, days[:, None] / _DAYS], axis=1).astype(np.float32)
