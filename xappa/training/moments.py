"""Means and standard deviations of coarse and of fine fields, in one pass over blocks of them."""

from __future__ import annotations

import numpy as np
import torch

from xappa.bridge import StateSpec
from xappa.errors import DataError
from xappa.models.corrdiff.model import CorrDiffModel
from xappa.models.corrdiff.pairs import Pairs

__all__ = ["coarse_moments", "fine_moments"]

#: Less of the mean than this is no variation in single precision.
_ROUNDING = 1e-7


class _Moments:
    """Count, mean and sum of squared departures by channel, merged block by block."""

    def __init__(self, channels: int) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(channels), np.zeros(channels)

    def add(self, fields: np.ndarray) -> None:
        """Add fields (n, C, H, W); see `xappa.training.statistics`."""
        values = np.moveaxis(fields, 1, 0).reshape(fields.shape[1], -1).astype(np.float64)
        count = values.shape[1]
        mean = values.mean(1)
        apart, total = mean - self.mean, self.count + count
        self.squares += np.square(values - mean[:, None]).sum(1)
        self.squares += apart**2 * self.count * count / total
        self.mean = self.mean + apart * count / total
        self.count = total

    def std(self, labels: tuple[str, ...], what: str) -> np.ndarray:
        """Return standard deviations (C,).

        Raises
        ------
        DataError
            If a channel does not vary.
        """
        std: np.ndarray = np.sqrt(self.squares / self.count)
        still = std <= _ROUNDING * np.maximum(np.abs(self.mean), 1e-30)
        if still.any():
            raise DataError(
                f"{', '.join(np.array(labels)[still])}: {what} fields that do not vary",
                where="xappa.train_downscaler",
                expected="fields that vary in space or time",
                got="a standard deviation of 0",
                remedy="leave them out: inputs=[...], outputs=[...]",
            )
        return std


def coarse_moments(pairs: Pairs, spec: StateSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations of coarse channels, in their units, shape (C,) each."""
    found = _Moments(spec.n_channels)
    for rows in pairs.blocks():
        found.add(pairs.take(rows)[0])
    return found.mean, found.std(spec.channel_labels, "coarse")


def fine_moments(model: CorrDiffModel, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return those of what fine fields depart by from coarse ones, f(y) - f(b), shape (c,)."""
    spec, scaling = model.target.spec, model.scaling
    found = _Moments(spec.n_channels)
    for rows in pairs.blocks():
        coarse, fine = pairs.take(rows)
        departed = model.given(coarse, pairs.seconds[rows]).departed
        fields = scaling.transformed(torch.as_tensor(fine).float()) - departed
        found.add(fields.numpy())
    return found.mean, found.std(spec.channel_labels, "fine")
