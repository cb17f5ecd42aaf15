"""Training data: states that are read when they are needed, and what standardises them.

What fits into the memory that is allowed is read once; of anything larger, only the states of a
batch are read, and of a store on disk only the chunks that hold them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xappa.bridge import Layout, StateSpec, pack
from xappa.bridge.recognise import as_dataset
from xappa.device import memory_budget
from xappa.errors import DataError, GridMismatchError
from xappa.models.eof import segments
from xappa.training.statistics import Statistics

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Series", "TrainingData", "allowed", "open_series"]

#: Bytes of states that are looked at together in a pass over all of them.
_BLOCK = 2**26
_WHERE = "xappa.train"


def allowed(memory: float | None, processes: int = 1) -> int:
    """Return how many bytes of data one of so many processes may hold; see `TrainingSettings`."""
    budget = memory_budget(torch.device("cpu")) if memory is None else int(memory * 2**30)
    return budget // processes


@dataclass(frozen=True, eq=False)
class Series:
    """Series of states in their units, in memory or not.

    Parameters
    ----------
    states
        Shape (B, T, C, H, W), numpy or dask; NaN where nothing is.
    seconds
        Valid times, shape (T,).
    spec
        Variables, grid and time step.
    """

    states: Any
    seconds: np.ndarray
    spec: StateSpec

    def __len__(self) -> int:
        return int(self.states.shape[0] * self.states.shape[1])

    @property
    def times(self) -> int:
        """Number of times T."""
        return len(self.seconds)

    @property
    def lazy(self) -> bool:
        """Whether states are read when they are needed."""
        return not isinstance(self.states, np.ndarray)

    @cached_property
    def runs(self) -> list[slice]:
        """The parts of the T times that have no gaps."""
        return segments(self.seconds, self.spec.time_step)

    def cut(self, times: slice) -> Series:
        """Return the series at some of its times."""
        return replace(self, states=self.states[:, times], seconds=self.seconds[times])

    def starts(self, length: int) -> np.ndarray:
        """First times of all runs of a length."""
        parts = [np.arange(run.start, run.stop - length + 1) for run in self.runs]
        return np.concatenate(parts) if parts else np.zeros(0, int)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return states by their numbers b T + t.

        Parameters
        ----------
        rows
            Shape (n,), in any order.

        Returns
        -------
        numpy.ndarray
            Shape (n, C, H, W). Lazy states are computed in one go, each chunk once.
        """
        if not self.lazy:
            taken: np.ndarray = self.states[rows // self.times, rows % self.times]
            return taken
        import dask

        unique, back = np.unique(rows, return_inverse=True)
        breaks = (np.diff(unique) != 1) | (unique[1:] % self.times == 0)
        runs = np.split(unique, np.flatnonzero(breaks) + 1)
        parts = [
            self.states[run[0] // self.times, run[0] % self.times : run[-1] % self.times + 1]
            for run in runs
        ]
        states: np.ndarray = np.concatenate(dask.compute(*parts))[back]
        return states

    def block(self, times: slice) -> np.ndarray:
        """Return the states of some times, shape (B, t, C, H, W)."""
        return np.asarray(self.states[:, times])

    def blocks(self) -> Iterator[slice]:
        """Yield all times in blocks that end where chunks do, so that each chunk is read once."""
        most = max(1, _BLOCK * self.times // max(1, self.states.nbytes))
        ends = np.arange(most, self.times + most, most).clip(max=self.times)
        if self.lazy:
            ends = np.array(list(accumulate(self.states.chunks[1])))
        first = 0
        for end, following in zip(ends, [*ends[1:], np.inf], strict=True):
            if following - first > most:
                yield slice(first, int(end))
                first = int(end)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a prior is trained on, and what it is judged by.

    Parameters
    ----------
    train, held
        States to learn from, and those that were set aside; the same if none were.
    statistics
        What standardises them.
    """

    train: Series
    held: Series
    statistics: Statistics

    @property
    def spec(self) -> StateSpec:
        """Variables, grid and time step."""
        return self.train.spec

    @property
    def seconds(self) -> np.ndarray:
        """Valid times of all states, without those that were given for validation alone."""
        return self.train.seconds

    def standardised(self, states: np.ndarray) -> np.ndarray:
        """Return standardised states, float32; zero where nothing ever is."""
        own, dtype = self.statistics, states.dtype
        scaled = (states - own.mean.astype(dtype)) / own.std.astype(dtype)
        if own.missing is not None:
            scaled = np.where(own.missing, 0.0, scaled)
        result: np.ndarray = scaled.astype(np.float32)
        return result


def open_series(ds: xr.Dataset, spec: StateSpec, budget: int) -> Series:
    """Pack a Dataset; read it if it fits into memory.

    Parameters
    ----------
    ds
        The Dataset: numpy or dask, or opened and not yet read.
    spec
        Variables, grid and time step.
    budget
        Bytes of states that may be held.

    Raises
    ------
    DataError
        If it has no time axis, or one without a step.
    HandshakeError, UnitsError, CoordinateError
        If it does not fit, or covers a part of the grid alone.
    """
    layout = Layout.of(ds, spec, gaps=True)
    if not layout.is_full_grid:
        raise GridMismatchError(
            "the Dataset covers a part of the grid, and a training needs whole states",
            where=_WHERE,
            expected="{} latitudes x {} longitudes".format(*spec.grid.shape),
            got=f"{layout.rows.size} x {layout.columns.size}",
            remedy="take states on the whole grid",
        )
    if layout.times is None or spec.time_step is None:
        steps = np.diff(layout.times) if layout.times is not None else np.zeros(0)
        raise DataError(
            "a prior of trajectories needs states at regular times",
            where=_WHERE,
            expected="a time axis whose steps are multiples of the least one",
            got=f"steps of {steps.min():g} to {steps.max():g} s" if steps.size else "one time",
            remedy="train on a series of states; select or resample its times",
        )
    ds, members = as_dataset(ds), layout.member_size or 1
    each = members * int(np.prod(spec.shape)) * 4
    chunked = any(variable.chunks for variable in ds.variables.values())
    if each * layout.n_times > budget and not chunked:
        # what xarray opened without dask would be read as a whole
        ds = ds.chunk({layout.roles.time: max(1, _BLOCK // each)})
    packed = pack(ds, spec, layout)
    if "member" not in packed.dims:
        packed = packed.expand_dims("member")
    states = packed.transpose("member", "time", "channel", "latitude", "longitude").data
    fits = states.nbytes <= budget
    spec = replace(spec, calendar=layout.calendar)  # which the times count in
    return Series(np.asarray(states) if fits else states, layout.times, spec)


def split(
    whole: Series, held_out: float, validation: Series | None, blanket: int
) -> tuple[Series, Series]:
    """Return the states to learn from and those that are set aside.

    Raises
    ------
    DataError
        If nowhere in the former so many states follow each other.
    """
    kept = whole.times if validation is not None else round(whole.times * (1 - held_out))
    train = whole.cut(slice(kept))
    longest = _longest(train.runs)
    if longest < blanket:
        raise DataError(
            "too few states follow each other",
            where=_WHERE,
            expected=f"runs of {blanket} states or more, without a gap in time",
            got=f"{longest}, in {len(train.runs)} runs",
            remedy="train on a longer series, fill its gaps, or take a shorter blanket",
        )
    if validation is not None:
        return train, validation
    return train, whole.cut(slice(kept, None)) if kept < whole.times else train


def _longest(runs: Sequence[slice]) -> int:
    return max((run.stop - run.start for run in runs), default=0)
