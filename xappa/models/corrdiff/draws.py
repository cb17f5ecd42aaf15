"""Drawing the fields of many members and times, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from xappa.device import memory_budget, ran_out_of_memory
from xappa.diffusion.sampling import Sampler
from xappa.models.corrdiff.conditions import Conditions
from xappa.models.corrdiff.model import CorrDiffModel
from xappa.models.corrdiff.posterior import FieldPosterior
from xappa.models.corrdiff.scaling import SIGMA_DATA
from xappa.models.settings import Guidance
from xappa.observe import ObservationOperator

__all__ = ["drawn", "drawn_given", "sampler_of"]

#: In the angle, as the published steps draw too much spread: see docs/benchmarks.md.
_STEPS, _OPTIONS = 18, {"order": 1, "sigma_data": SIGMA_DATA}
#: Fields whose conditions are held at once at most, and their bytes.
_FIELDS, _BYTES = 64, 2**28


def sampler_of(model: CorrDiffModel) -> Sampler:
    """Return the sampler that is taken where none is asked for: with the model's own options."""
    options = {**_OPTIONS, **model.sampling}
    return Sampler("edm", int(options.pop("steps", _STEPS)), options)


def drawn(
    model: CorrDiffModel,
    coarse: np.ndarray,
    seconds: np.ndarray,
    lead: np.ndarray | None,
    members: Sequence[int],
    seed: int,
    sampler: Any,
    bar: Callable[[Any], Any] | None = None,
) -> np.ndarray:
    """Draw fine states.

    Parameters
    ----------
    model
        The downscaling model.
    coarse
        Packed coarse states of b members, shape (b, T, C, h, w); member k of what is drawn goes on
        from member k modulo b.
    seconds, lead
        Valid times and lead times, shape (T,).
    members
        Member numbers, shape (B,).
    seed, sampler
        As for `CorrDiffModel.draw`.
    bar
        Wraps the iterable of batches.

    Returns
    -------
    numpy.ndarray
        Shape (B, T, c, H, W), float32.
    """
    own, count = coarse.shape[:2]
    shape = model.target.spec.shape
    out = np.empty((len(members), count, *shape), np.float32)
    pairs = [(b, t) for t in range(count) for b in range(len(members))]
    size, first, known = model.batch_size(), 0, _Known(model, coarse, seconds, lead)
    rounds: Any = range(0, len(pairs), size)
    bars = iter(rounds if bar is None else bar(rounds))
    while first < len(pairs):
        some = pairs[first : first + size]
        b, t = (np.array(index) for index in zip(*some, strict=True))
        try:
            fields = model.draw(
                known.of(b % own, t), [members[k] for k in b], seconds[t].tolist(), seed, sampler
            )
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not ran_out_of_memory(error):
                raise
            size = max(1, size // 2)
            continue
        out[b, t] = fields.numpy()
        first += size
        next(bars, None)
    next(bars, None)
    return out


class _Known:
    """Conditions by member and time, computed some times at once and kept while they are needed."""

    def __init__(
        self,
        model: CorrDiffModel,
        coarse: np.ndarray,
        seconds: np.ndarray,
        lead: np.ndarray | None,
    ) -> None:
        self.model, self.coarse, self.seconds, self.lead = model, coarse, seconds, lead
        c, height, width = model.target.spec.shape
        channels = 2 * c + coarse.shape[2] + len(model.statics.data_vars)
        fields = min(_FIELDS, _BYTES // (4 * channels * height * width))
        self.each = max(1, min(fields // len(coarse), len(seconds)))
        self._kept: dict[int, Conditions] = {}

    def of(self, b: np.ndarray, t: np.ndarray) -> Conditions:
        """Return what is known of some fields, by member and time, shape (n,) each."""
        parts = []
        for k in np.unique(t // self.each):
            inside = t // self.each == k
            rows = (t[inside] - k * self.each) * len(self.coarse) + b[inside]
            parts.append(self._block(int(k)).rows(torch.as_tensor(rows, device=self.model.device)))
        self._kept = {k: v for k, v in self._kept.items() if k >= t.max() // self.each}
        return parts[0] if len(parts) == 1 else Conditions.joined(parts)

    def _block(self, k: int) -> Conditions:
        if k not in self._kept:
            part = slice(k * self.each, (k + 1) * self.each)
            states = self.coarse[:, part].swapaxes(0, 1)
            times = np.repeat(self.seconds[part], len(self.coarse))
            lead = None if self.lead is None else np.repeat(self.lead[part], len(self.coarse))
            flat = states.reshape(-1, *states.shape[2:])
            self._kept[k] = self.model.conditions(flat, times, lead)
        return self._kept[k]


def drawn_given(
    model: CorrDiffModel,
    coarse: np.ndarray,
    seconds: np.ndarray,
    lead: np.ndarray | None,
    members: Sequence[int],
    seed: int,
    sampler: Any,
    bar: Callable[[Any], Any] | None,
    operator: ObservationOperator,
    guidance: Guidance,
) -> np.ndarray:
    """Draw fine states given observations of them; the arguments are those of `drawn`.

    Parameters
    ----------
    operator
        Of the observations, for all T times.
    guidance
        Settings of MMPS.

    Notes
    -----
    Times are drawn one by one where no observation lies between them, else together.
    """
    own, out = len(coarse), np.empty((len(members), len(seconds), *model.target.spec.shape), "f4")
    parts = _separate(operator, len(seconds))
    rounds = [(part, group) for part in parts for group in _groups(model, members, part, own)]
    for part, group in rounds if bar is None else bar(rounds):
        here = seconds[part]
        observed = ObservationOperator.build(operator.specs, operator.state, here)
        states = coarse[group[0] % own, part]
        conditions = model.conditions(states, here, None if lead is None else lead[part])
        numbers = [members[k] for k in group]
        if observed.n_used:
            posterior = FieldPosterior(model, observed, conditions, here)
            out[group, part] = posterior.draw(numbers, seed, sampler, guidance).numpy()
        else:
            only = None if lead is None else lead[part]
            out[group, part] = drawn(model, states[None], here, only, numbers, seed, sampler)
    return out


def _separate(operator: ObservationOperator, count: int) -> list[slice]:
    """Return the runs of times that observations tie together."""
    rows = operator.rows
    state = rows.indices // rows.state_size
    tied = np.zeros(count, bool)  # to the time before
    for first, last in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        if last > first:
            tied[state[first:last].min() + 1 : state[first:last].max() + 1] = True
    edges = [*np.flatnonzero(~tied).tolist(), count]
    return [slice(a, b) for a, b in pairwise(edges)]


def _groups(
    model: CorrDiffModel, members: Sequence[int], part: slice, own: int
) -> list[np.ndarray]:
    """Return which members are drawn together: of one coarse state, as many as fit."""
    height, width = model.target.spec.grid.shape
    size = (height, width) if model.cutting is None else model.cutting.size
    each = model.network.config.activation_bytes(*size) * (part.stop - part.start)
    most = max(1, memory_budget(model.device) // max(1, each))
    groups = []
    for k in range(own):
        same = np.arange(k, len(members), own)
        groups += [same[i : i + most] for i in range(0, len(same), most)]
    return groups
