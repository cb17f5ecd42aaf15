"""Coarse and fine states of the same times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import Layout, StateSpec, pack
from xappa.bridge.recognise import as_dataset
from xappa.cf import convert_calendar, timedelta_seconds
from xappa.errors import CoordinateError, DataError, TimeStepError
from xappa.models.corrdiff.target import Target

__all__ = ["Pairs", "lead_seconds", "pairs_of"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Coarse and fine states, in memory or not.

    Parameters
    ----------
    coarse
        Shape (T, C, h, w), numpy or dask.
    fine
        Shape (T, c, H, W).
    seconds
        Valid times, shape (T,), in the calendar of the coarse states.
    lead
        Lead times of the coarse states in seconds, shape (T,); None for analyses.
    """

    coarse: Any
    fine: Any
    seconds: np.ndarray
    lead: np.ndarray | None

    def __len__(self) -> int:
        return len(self.seconds)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coarse and fine states by number, shape (n,), in any order; checked.

        Raises
        ------
        DataError
            If values are missing.
        """
        if isinstance(self.coarse, np.ndarray) and isinstance(self.fine, np.ndarray):
            return self._whole(self.coarse[rows], self.fine[rows], rows)
        import dask

        order, back = np.unique(rows, return_inverse=True)
        coarse, fine = dask.compute(self.coarse[order], self.fine[order])
        return self._whole(np.asarray(coarse)[back], np.asarray(fine)[back], rows)

    def _whole(
        self, coarse: np.ndarray, fine: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        for what, states in (("coarse", coarse), ("fine", fine)):
            gaps = ~np.isfinite(states)
            if gaps.any():
                state = int(np.unravel_index(gaps.argmax(), gaps.shape)[0])
                raise DataError(
                    f"{what} states have missing values",
                    where=f"state {int(rows[state])} of the common times",
                    expected="a value at every point",
                    got=f"{int(gaps[state].sum())} missing values",
                    remedy="fill them, or drop the times: ds.dropna('time')",
                )
        return coarse, fine

    def cut(self, rows: np.ndarray | slice) -> Pairs:
        """Return the pairs of some times."""
        lead = None if self.lead is None else self.lead[rows]
        return Pairs(self.coarse[rows], self.fine[rows], self.seconds[rows], lead)

    def held(self, budget: int) -> Pairs:
        """Return the pairs in memory, if they fit into so many bytes."""
        if self.coarse.nbytes + self.fine.nbytes > budget:
            return self
        return replace(self, coarse=np.asarray(self.coarse), fine=np.asarray(self.fine))

    def blocks(self, size: int = 64) -> Sequence[np.ndarray]:
        """Return the numbers of all pairs in blocks that are looked at together."""
        return np.split(np.arange(len(self)), np.arange(size, len(self), size))


def pairs_of(coarse: xr.Dataset, fine: xr.Dataset, spec: StateSpec, target: Target) -> Pairs:
    """Return the states of the times that two Datasets have in common.

    Parameters
    ----------
    coarse, fine
        The Datasets; lazy data are not computed.
    spec, target
        What coarse and fine states consist of.

    Raises
    ------
    HandshakeError, UnitsError, CoordinateError
        If one does not fit.
    TimeStepError
        If their calendars differ.
    DataError
        If they have no times in common.
    """
    layout = Layout.of(coarse, replace(spec, time_step=None), gaps=True)
    if layout.times is None or layout.member_size is not None:
        raise CoordinateError(
            "coarse states must have a time, and no members",
            where="coarse",
            expected="one coarse state for each time",
            got="no time" if layout.times is None else f"{layout.member_size} members",
            remedy="select one member, or assign a coordinate with standard_name 'time'",
        )
    states = pack(as_dataset(coarse), layout.spec, layout).data
    others, seconds, calendar = target.pack(fine)
    there = convert_calendar(seconds, calendar, layout.calendar)
    if not np.isfinite(there).all() or not np.array_equal(there, seconds):
        raise TimeStepError(
            "the calendars of coarse and fine states differ",
            where="time",
            expected=layout.calendar,
            got=calendar,
            remedy="convert one of them: fine.convert_calendar(...)",
        )
    _, first, second = np.intersect1d(np.round(layout.times), np.round(there), return_indices=True)
    if not len(first):
        raise DataError(
            "coarse and fine states have no times in common",
            where="time",
            expected="the same valid times in both, or some of them",
            got=f"{len(layout.times)} and {len(there)} times that differ",
            remedy="select or interpolate times, so that they agree to the second",
        )
    lead = lead_seconds(layout)
    return Pairs(
        states[first],
        others[second],
        layout.times[first],
        None if lead is None else lead[first],
    )


def lead_seconds(layout: Layout) -> np.ndarray | None:
    """Return the lead times of a Dataset's states in seconds, shape (T,); None for none."""
    for coord in layout.template.coords.values():
        if coord.attrs.get("standard_name") != "forecast_period":
            continue
        values = np.asarray(coord.values)
        if values.dtype.kind == "m":
            lead = values / np.timedelta64(1, "s")
        else:
            lead = values.astype(float) * timedelta_seconds(f"1 {coord.attrs.get('units', 's')}")
        return np.broadcast_to(lead.ravel(), (layout.n_times,))
    return None
