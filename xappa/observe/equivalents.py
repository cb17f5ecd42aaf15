"""H(ds) on labelled data: numpy in, numpy out; dask in, dask out; no torch for interpolation.

Only the variables that are observed are packed. A lazy state is read one time block after the
other: each block gives its part of the weighted sums, and one task per block of members adds them
up and labels them, so that nothing larger than the observations is ever put together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa import units
from xappa.cf import convert_calendar
from xappa.errors import raise_all
from xappa.observe.block import Block
from xappa.observe.checks import increasing_times, timeless_errors
from xappa.observe.rows import Rows, interpolation_rows
from xappa.observe.spec import Status

if TYPE_CHECKING:
    from xappa.bridge import StateSpec
    from xappa.observe.operator import ObservationOperator

__all__ = ["equivalents"]


@dataclass(frozen=True, eq=False)
class _Finish:
    """From interpolated inputs (m, n_rows) to equivalents in the observations' shape and units."""

    block: Block
    computed: np.ndarray
    dtype: np.dtype[Any]

    def __call__(self, h: np.ndarray) -> np.ndarray:
        spec = self.block.spec
        if not self.block.only_interpolates:
            import torch

            with torch.no_grad():
                h = self.block.from_rows(torch.from_numpy(h), self.computed).numpy()
        out = np.full((len(h), spec.size), np.nan, self.dtype)
        out[:, self.computed] = units.convert(h, spec.state_units, spec.units)
        return out.reshape(len(h), *spec.template.shape)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        from dask.base import normalize_token

        parts = (self.block.spec, self.block.function, self.computed, str(self.dtype))
        return ("xappa.equivalents", normalize_token(parts))


def equivalents(operator: ObservationOperator, ds: xr.Dataset) -> list[xr.DataArray]:
    """Return noise-free equivalents of each observation array, labelled like it.

    Parameters
    ----------
    operator
        The observation operator.
    ds
        States at any times; only the observed variables are needed.

    Returns
    -------
    list of DataArray
        In the order of ``operator.specs``; also where observations are missing or flagged, NaN
        only outside domain, levels and window. A member dimension of `ds` comes first.
    """
    if not operator.specs:
        return []
    from xappa.bridge import Layout, pack

    state = _observed_state(operator)
    layout = Layout.of(ds, state)
    packed = pack(ds, state, layout)
    times = layout.times
    if times is not None and layout.calendar != state.calendar:
        times = np.asarray(convert_calendar(times, layout.calendar, state.calendar))
    times = increasing_times(times)
    raise_all(timeless_errors(operator.specs, times), "the observations do not fit the Dataset")
    has_member = packed.ndim == 5
    data = packed.data if has_member else packed.data[None]
    dtype = data.dtype if data.dtype.kind == "f" else np.dtype(np.float64)
    member = layout.axes.member if has_member else None
    results = []
    for block in operator.blocks:
        # what a column has no value for is known already
        select = np.flatnonzero(block.spec.status != Status.OUTSIDE_LEVELS)
        inside, rows = interpolation_rows(block.spec, state, times, select)
        finish = _Finish(block, select[inside == Status.USED], dtype)
        values = _weighted_sums(rows, data, finish)
        results.append(_labelled(block, values if has_member else values[0], member, ds))
    return results


def _observed_state(operator: ObservationOperator) -> StateSpec:
    """Return the part of the state that is observed, in the state's order."""
    names = {variable.name for spec in operator.specs for variable in spec.inputs}
    kept = tuple(v for v in operator.state.variables if v.name in names)
    return replace(operator.state, variables=kept)


def _labelled(block: Block, values: Any, member: str | None, ds: xr.Dataset) -> xr.DataArray:
    spec = block.spec
    template = spec.template
    dims, coords = tuple(template.dims), dict(template.coords)
    if member is not None:
        if member in ds.coords and member not in dims:
            coords[member] = ds.coords[member].reset_coords(drop=True)
        dims = (member if member not in dims else "realization", *dims)
    labelled = xr.DataArray(values, coords, dims, template.name, dict(template.attrs))
    return units.requantify(labelled, spec.quantified)


def _weighted_sums(rows: Rows, data: Any, finish: _Finish) -> Any:
    """Compute W x of states (m, T, channel, latitude, longitude), and `finish`; lazily if lazy."""
    if isinstance(data, np.ndarray):
        return finish(_sum_rows(data.reshape(len(data), -1), rows.indices, rows.data, rows.indptr))
    import dask.array

    # channels and space in one piece; blocks of members and times as they are
    data = data.rechunk({2: -1, 3: -1, 4: -1})
    starts = np.concatenate([[0], np.cumsum(data.chunks[1])])
    which = np.searchsorted(starts, rows.indices // rows.state_size, side="right") - 1
    row = np.repeat(np.arange(rows.n_rows), rows.counts)
    parts: list[Any] = []
    pieces = []
    for i in np.unique(which):
        here = which == i
        touched, first = np.unique(row[here], return_index=True)
        local = rows.indices[here] - starts[i] * rows.state_size
        indptr = np.append(first, local.size)
        block = data[:, starts[i] : starts[i + 1]].map_blocks(
            _sum_block,
            indices=local,
            weights=rows.data[here],
            indptr=indptr,
            drop_axis=[2, 3, 4],
            chunks=(data.chunks[0], (touched.size,)),
            dtype=np.float64,
            meta=np.empty((0, 0)),
        )
        pieces.append(touched)
        parts += [block, ("member", f"part {i}")]
    shape = finish.block.spec.template.shape
    axes = tuple(f"axis {i}" for i in range(len(shape)))
    if not parts:
        return dask.array.full(
            (data.shape[0], *shape), np.nan, chunks=(data.chunks[0], *shape), dtype=finish.dtype
        )
    return dask.array.blockwise(
        _add_parts,
        ("member", *axes),
        *parts,
        pieces=pieces,
        n_rows=rows.n_rows,
        finish=finish,
        new_axes=dict(zip(axes, shape, strict=True)),
        concatenate=True,
        align_arrays=False,
        dtype=finish.dtype,
        meta=np.empty((0,) * (1 + len(shape)), finish.dtype),
    )


def _sum_block(
    block: np.ndarray, indices: np.ndarray, weights: np.ndarray, indptr: np.ndarray
) -> np.ndarray:
    return _sum_rows(block.reshape(len(block), -1), indices, weights, indptr)


def _sum_rows(
    flat: np.ndarray, indices: np.ndarray, weights: np.ndarray, indptr: np.ndarray
) -> np.ndarray:
    """Compute weighted sums (m, n_rows) in float64; every row has an entry at least."""
    if len(indptr) == 1:
        return np.zeros((len(flat), 0))
    entries = flat[:, indices] * weights
    return np.asarray(np.add.reduceat(entries, indptr[:-1], axis=1))


def _add_parts(
    *parts: np.ndarray, pieces: list[np.ndarray], n_rows: int, finish: _Finish
) -> np.ndarray:
    total = np.zeros((len(parts[0]), n_rows))
    for part, touched in zip(parts, pieces, strict=True):
        total[:, touched] += part
    return finish(total)
