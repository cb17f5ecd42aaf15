r"""Which states a step's batch holds: a function of seed, step and sample, and of nothing else.

Without a pool, all states are as likely at any step. A store on disk, whose chunks hold many
times, would be read over and over. With a pool of n stretches of l consecutive states each,
stretches enter in a random order, and leave after n others have entered, so that each is read once
in a round and its states are drawn once on average.
"""

from __future__ import annotations

import numpy as np

from xappa.diffusion.noise import generator
from xappa.training.data import Series

__all__ = ["Pool"]


class Pool:
    """Draw states for the steps of a training.

    Parameters
    ----------
    series
        The states.
    pool
        Stretches in the pool, and states in a stretch; None to draw from all.
    batch
        States in a step, over all processes.
    seed
        The seed.
    """

    def __init__(self, series: Series, pool: tuple[int, int] | None, batch: int, seed: int) -> None:
        self.series, self.batch, self.seed = series, batch, seed
        self.stretches = [] if pool is None else _cut(series, pool[1])
        if pool is not None:
            self.size = min(pool[0], len(self.stretches))
            self.steps, self.entering = max(1, pool[1] // batch), max(1, batch // pool[1])
        self._held: dict[int, np.ndarray] = {}
        self._order: dict[int, np.ndarray] = {}

    def take(self, step: int, samples: range) -> np.ndarray:
        """Return the states of some samples of a step's batch, shape (n, C, H, W)."""
        rng = generator(self.seed, "autoencoder batch", step)
        if not self.stretches:
            return self.series.take(rng.integers(len(self.series), size=self.batch)[samples])
        first = step // self.steps * self.entering
        entries = range(first, first + self.size)
        sizes = [len(self.stretches[self._number(entry)]) for entry in entries]
        drawn = rng.integers(sum(sizes), size=self.batch)[samples]
        self._fill(entries)
        ends = np.cumsum(sizes)
        which = np.searchsorted(ends, drawn, side="right")
        within = drawn - (ends - sizes)[which]
        return np.stack([self._held[first + k][i] for k, i in zip(which, within, strict=True)])

    def _number(self, entry: int) -> int:
        """Return which stretch enters as the so many-th: a new order in each round."""
        turn, place = divmod(entry, len(self.stretches))
        if turn not in self._order:
            rng = generator(self.seed, "stretches", turn)
            self._order[turn] = rng.permutation(len(self.stretches))
        return int(self._order[turn][place])

    def _fill(self, entries: range) -> None:
        for entry in [entry for entry in self._held if entry not in entries]:
            del self._held[entry]
        for entry in entries:
            if entry not in self._held:
                self._held[entry] = self.series.take(self.stretches[self._number(entry)])


def _cut(series: Series, length: int) -> list[np.ndarray]:
    """Cut the series into stretches of states without a gap, by the numbers of the states."""
    pieces = [
        np.arange(start, min(start + length, run.stop))
        for run in series.runs
        for start in range(run.start, run.stop, length)
    ]
    return [m * series.times + piece for m in range(series.states.shape[0]) for piece in pieces]
