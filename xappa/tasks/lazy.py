"""Lazy tasks: dask in, dask out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import Layout

__all__ = ["by_time", "decode_lazily", "is_lazy", "time_chunks"]


def is_lazy(ds: xr.Dataset) -> bool:
    """Whether any variable of a Dataset is backed by dask."""
    return any(ds[name].chunks is not None for name in ds.data_vars)


def time_chunks(ds: xr.Dataset, layout: Layout) -> tuple[int, ...]:
    """Return the chunks of a lazy Dataset along its time dimension."""
    chunks = ds.unify_chunks().chunks
    return chunks.get(layout.roles.time, (1,) * layout.n_times)


def decode_lazily(
    sample: Callable[[Any], Any],
    decode: Callable[[Any, slice], np.ndarray],
    background: Any,
    token: Sequence[Any],
    shape: tuple[int, ...],
    chunks: Sequence[int],
) -> Any:
    """Build a dask array (member, time, ...) that samples once and decodes by blocks of times.

    Parameters
    ----------
    sample
        Draws the latents, given the background as an array or None.
    decode
        Turns what ``sample`` returned into the states of a slice of times.
    background
        The packed background, dask or numpy or None.
    token
        What determines the result, for dask's keys.
    shape
        Shape of the result.
    chunks
        Numbers of states in each block.
    """
    import dask
    import dask.array as da
    from dask.base import tokenize

    key = tokenize(*token, background)
    drawn = dask.delayed(sample, pure=True)(background, dask_key_name=f"xappa-sample-{key}")
    parts = []
    edges = np.concatenate([[0], np.cumsum(chunks)]).astype(int)
    for first, last in pairwise(edges):
        # Results of the same draws in other chunks may be computed together with this one.
        name = f"xappa-decode-{key}-{first}-{last}"
        states = slice(int(first), int(last))
        block = dask.delayed(decode, pure=True)(drawn, states, dask_key_name=name)
        size = (shape[0], int(last - first), *shape[2:])
        parts.append(da.from_delayed(block, size, dtype=np.float64))
    return da.concatenate(parts, axis=1)


def by_time(
    function: Callable[..., np.ndarray],
    data: Any,
    seconds: np.ndarray,
    trailing: tuple[int, ...],
    dims: int,
    dtype: Any = np.float64,
) -> Any:
    """Map a function of (states, seconds) over blocks of times, lazily if the data are lazy.

    Parameters
    ----------
    function
        Maps (..., T, <dims axes>) and (T,) to (..., T, *trailing).
    data
        Shape (..., T, <dims axes>), numpy or dask.
    seconds
        Times, shape (T,).
    trailing
        The trailing shape of the result.
    dims
        Number of axes after time.
    dtype
        Of the result.
    """
    if isinstance(data, np.ndarray):
        return function(data, seconds)
    import dask.array as da

    axis = data.ndim - dims - 1
    data = data.rechunk({k: -1 for k in range(axis + 1, data.ndim)})

    def block(x: np.ndarray, block_info: Any = None) -> np.ndarray:
        start, stop = block_info[0]["array-location"][axis]
        return function(x, seconds[start:stop])

    return da.map_blocks(
        block,
        data,
        dtype=dtype,
        chunks=(*data.chunks[: axis + 1], *((n,) for n in trailing)),
        drop_axis=list(range(axis + 1, data.ndim)) if len(trailing) != dims else None,
        new_axis=list(range(axis + 1, axis + 1 + len(trailing))) if len(trailing) != dims else None,
        meta=np.empty((0,) * (axis + 1 + len(trailing)), dtype),
    )
