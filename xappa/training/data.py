"""Training data: standardised states in memory, and what standardised them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xappa.bridge import Layout, StateSpec, pack
from xappa.errors import DataError
from xappa.models.eof import segments
from xappa.models.samples import present_points

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["TrainingData"]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """States to learn from.

    Parameters
    ----------
    states
        Standardised, shape (B, T, C, H, W), float32; zero where they are never present.
    seconds
        Valid times, shape (T,).
    mean, std
        What standardised them, shapes (C, H, W) and (C, 1, 1).
    missing
        Points that are never present, shape (C, H, W), or None.
    spec
        Variables, grid and time step.
    kept
        The first so many of the T states are for training, the others are held out.
    runs
        The parts of the former that have no gaps.
    """

    states: Tensor
    seconds: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    missing: np.ndarray | None
    spec: StateSpec
    kept: int
    runs: list[slice]

    @property
    def span(self) -> float:
        """Seconds from the first state to the last one."""
        return float(self.seconds[-1] - self.seconds[0])

    @classmethod
    def read(cls, ds: xr.Dataset, spec: StateSpec, held_out: float, blanket: int) -> TrainingData:
        """Read a Dataset into memory.

        Parameters
        ----------
        ds
            Training data.
        spec
            What `xappa.bridge.describe` says of them.
        held_out
            Share of the times, their end, that is set aside.
        blanket
            States that must follow each other somewhere.

        Raises
        ------
        DataError
            If values are missing at some times only, or too few states follow each other.
        """
        layout = Layout.of(ds, spec, gaps=True)
        if layout.times is None or spec.time_step is None:
            raise DataError(
                "a prior of trajectories needs states at regular times",
                where="xappa.train",
                expected="a time axis",
                remedy="train on a series of states",
            )
        packed = pack(ds, spec, layout)
        if "member" not in packed.dims:
            packed = packed.expand_dims("member")
        states = packed.transpose("member", "time", ...).values.astype(np.float64)
        flat = states.reshape(*states.shape[:2], -1)
        always = present_points(flat, spec, "xappa.train").reshape(spec.shape)
        kept = round(len(layout.times) * (1 - held_out))
        runs = segments(layout.times[:kept], spec.time_step)
        if not any(run.stop - run.start >= blanket for run in runs):
            raise DataError(
                "too few states follow each other",
                where="xappa.train",
                expected=f"runs of {blanket} states or more",
                got=f"{max((r.stop - r.start for r in runs), default=0)}",
                remedy="train on a longer series, or with a shorter blanket",
            )
        with np.errstate(invalid="ignore"):
            mean = np.where(always, states[:, :kept].mean(axis=(0, 1)), 0.0)
            variance = np.where(always, states[:, :kept].var(axis=(0, 1)), 0.0)
        # One deviation for a channel keeps its pattern; points by themselves would all weigh alike.
        area = spec.grid.area_weights() * always
        std = np.sqrt((variance * area).sum((1, 2)) / np.maximum(area.sum((1, 2)), 1e-300))
        std = np.where(std > 0, std, 1.0)[:, None, None]
        scaled = np.where(always, (states - mean) / std, 0.0)
        missing: np.ndarray | None = None if always.all() else np.logical_not(always)
        tensor = torch.as_tensor(scaled, dtype=torch.float32)
        return cls(tensor, layout.times, mean, std, missing, spec, kept, runs)

    def held_out(self) -> np.ndarray:
        """Return the states that were set aside, or all if none were, (N, C, H, W), in units."""
        held = self.states[:, self.kept :] if self.kept < self.states.shape[1] else self.states
        states: np.ndarray = held.flatten(0, 1).double().numpy() * self.std + self.mean
        return states if self.missing is None else np.where(self.missing, np.nan, states)

    def starts(self, length: int) -> np.ndarray:
        """First states of all runs of a length within the training part."""
        parts = [np.arange(run.start, run.stop - length + 1) for run in self.runs]
        return np.concatenate(parts)
