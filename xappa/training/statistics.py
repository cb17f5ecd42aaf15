r"""What standardises states, in one pass over blocks of them.

Blocks are merged by the update of Chan et al., in float64: with counts n, means m and sums of
squared departures M,

.. math:: m = m_a + \delta \frac{n_b}{n}, \quad M = M_a + M_b + \delta^2 \frac{n_a n_b}{n}, \quad
    \delta = m_b - m_a .

The mean is that of each point (a climatology), or of each channel. The standard deviation is one
number for each channel, so that its pattern is kept: points by themselves would all weigh alike.
That of the changes from one state to the next, the tendencies, is known as well.

References
----------
Chan, Golub & LeVeque (1983), The American Statistician 37, doi:10.1080/00031305.1983.10483115.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xappa.bridge import StateSpec
from xappa.errors import DataError
from xappa.models.samples import check_missing

if TYPE_CHECKING:
    from xappa.training.data import Series

__all__ = ["Statistics", "statistics_of"]

#: Less of the mean than this is no variation in single precision.
_ROUNDING = 1e-7


@dataclass(frozen=True, eq=False)
class Statistics:
    """What standardises states.

    Parameters
    ----------
    mean
        In units, shape (C, H, W), or (C, 1, 1) for the mean of each channel.
    std, tendency
        Area-weighted standard deviation of states about their mean, and of the changes from one
        state to the next, shape (C, 1, 1); the latter NaN where no states follow each other.
    missing
        Points that are never present, shape (C, H, W), or None.
    """

    mean: np.ndarray
    std: np.ndarray
    tendency: np.ndarray
    missing: np.ndarray | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, to be kept."""
        kept = {"mean": self.mean, "std": self.std, "tendency": self.tendency}
        return kept if self.missing is None else {**kept, "missing": self.missing}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Statistics:
        """Return what `arrays` described."""
        return cls(arrays["mean"], arrays["std"], arrays["tendency"], arrays.get("missing"))


def statistics_of(series: Series, climatology: str) -> Statistics:
    """Compute the statistics of a series, block by block.

    Parameters
    ----------
    series
        The states.
    climatology
        What is taken for the mean: that of each ``"point"``, or of each ``"channel"``.

    Raises
    ------
    DataError
        If values are missing at some times but not at others, or a channel does not vary.
    """
    moments = _Moments.of(series)
    spec = series.spec
    check_missing(moments.always.ravel(), moments.ever.ravel(), spec, "xappa.train")
    always = moments.always
    area = spec.grid.area_weights() * always
    total = np.maximum(area.sum((1, 2)), 1e-300)[:, None, None]

    def over_area(values: np.ndarray) -> np.ndarray:
        mean: np.ndarray = (values * area).sum((1, 2), keepdims=True) / total
        return mean

    mean, variance = np.where(always, moments.mean, 0.0), moments.squares / moments.count
    if climatology == "channel":
        central = over_area(mean)
        mean, variance = central, variance + (moments.mean - central) ** 2
    std = np.sqrt(over_area(variance))
    _check_variance(std, np.abs(mean), always, spec)
    with np.errstate(invalid="ignore"):
        tendency = np.sqrt(over_area(moments.changes) / np.array(moments.pairs or np.nan))
    std = np.where(std > 0, std, 1.0)
    return Statistics(mean, std, tendency, None if always.all() else ~always)


def _check_variance(std: np.ndarray, size: np.ndarray, always: np.ndarray, spec: StateSpec) -> None:
    """Raise if there is no variation beyond rounding where there are values at all."""
    flat = (std[:, 0, 0] <= _ROUNDING * size.max((1, 2))) & always.any((1, 2))
    if flat.any():
        labels = [label for label, none in zip(spec.channel_labels, flat, strict=True) if none]
        raise DataError(
            "values do not vary in time, and cannot be learnt",
            where=", ".join(labels),
            expected="a standard deviation above zero",
            got=f"{std[flat].max():g}",
            remedy="leave the variable or the level out (variables=[...]); what is static belongs "
            "to the grid",
        )


@dataclass
class _Moments:
    """Running moments at every point, shape (C, H, W)."""

    mean: np.ndarray
    squares: np.ndarray
    changes: np.ndarray
    always: np.ndarray
    ever: np.ndarray
    count: int = 0
    pairs: int = 0

    @classmethod
    def of(cls, series: Series) -> _Moments:
        shape = series.spec.shape
        mean, squares, changes = (np.zeros(shape) for _ in range(3))
        own = cls(mean, squares, changes, np.ones(shape, bool), np.zeros(shape, bool))
        last: np.ndarray | None = None
        for times in series.blocks():
            block = series.block(times)
            present = np.isfinite(block)
            own.always &= present.all((0, 1))
            own.ever |= present.any((0, 1))
            states = np.where(present, block, 0.0).astype(np.float64)
            own.add(states.reshape(-1, *shape))
            for a, b in _following(series, times, states, last):
                own.changes += ((b - a) ** 2).sum((0, 1))
                own.pairs += a.shape[0] * a.shape[1]
            last = states[:, -1:]
        return own

    def add(self, states: np.ndarray) -> None:
        """Merge the moments of states (n, C, H, W)."""
        n = self.count + len(states)
        mean = states.mean(0)
        departures = states - mean
        squares = np.einsum("n...,n...->...", departures, departures)
        delta = mean - self.mean
        self.squares += squares + delta**2 * (self.count * len(states) / n)
        self.mean = self.mean + delta * (len(states) / n)
        self.count = n


def _following(
    series: Series, times: slice, states: np.ndarray, last: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield states and those that follow them, one time step later, (B, n, C, H, W) each."""
    joined = states if last is None else np.concatenate([last, states], 1)
    first = times.start - (last is not None)
    for run in series.runs:
        low, high = max(run.start, first) - first, min(run.stop, times.stop) - first
        if high - low > 1:
            yield joined[:, low : high - 1], joined[:, low + 1 : high]
