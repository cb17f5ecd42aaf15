"""Sparse weights along dimensions of labelled arrays: lazy, and aware of missing values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial as bind
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.regrid.weights import uncovered

__all__ = ["apply_weights", "can_average"]


def can_average(variable: Any) -> bool:
    """Tell whether weighted means of a variable make sense: numbers that are no flags."""
    return variable.dtype.kind in "fciub" and not {"flag_values", "flag_masks"} & set(
        variable.attrs
    )


def _contract(
    data: npt.NDArray[Any],
    *,
    weights: Any,
    old: int,
    shape: Sequence[int],
    skipna: bool,
    partial: bool,
    dtype: Any,
) -> npt.NDArray[Any]:
    """Apply weights to the last `old` dimensions, flattened; see `apply_weights`."""
    outer = data.shape[: data.ndim - old]
    x = data.reshape(-1, weights.shape[1]).T
    missing = np.isnan(x)
    some = bool(missing.any())
    y = weights @ (np.where(missing, 0, x) if some else x)
    if skipna:
        present = (~missing if some else np.ones((weights.shape[1], 1))).astype(np.float64)
        share = weights @ present
        scale = np.where(np.abs(share - 1.0) < 1e-12, 1.0, np.where(share > 1e-9, share, np.nan))
        y = y / scale
    else:
        bad = uncovered(weights, partial)[:, None]
        if some:
            bad = bad | (abs(weights) @ missing.astype(np.float64) > 0)
        y = np.where(bad, np.nan, y)
    return np.asarray(y.T.reshape(*outer, *shape), dtype=dtype)


def apply_weights(
    variable: xr.Variable,
    weights: Any,
    sizes: Mapping[str, int],
    *,
    along: Sequence[str] | None = None,
    skipna: bool = False,
    partial: bool = False,
) -> xr.Variable:
    """Apply a sparse matrix along dimensions of a variable.

    Parameters
    ----------
    variable
        Numbers; dask-backed ones stay lazy.
    weights
        scipy.sparse array (target, source) over raveled dimensions.
    sizes
        The new dimensions, in the order in which they are raveled, with their sizes.
    along
        The dimensions that they replace, in the order in which they are raveled; by default those
        of the same names.
    skipna
        Whether to average what is present. By default a target that is not wholly covered by
        present values is missing.
    partial
        Whether a target that is covered in part has the sum over that part, rather than being
        missing.

    Returns
    -------
    Variable of the same attributes and order of dimensions, of the same dtype if it is floating,
    float64 otherwise.
    """
    dtype = variable.dtype if variable.dtype.kind in "fc" else np.dtype(np.float64)
    new = list(sizes)
    old = new if along is None else list(along)
    shape = tuple(sizes.values())
    contract = bind(
        _contract,
        weights=weights,
        old=len(old),
        shape=shape,
        skipna=skipna,
        partial=partial,
        dtype=dtype,
    )
    out = xr.apply_ufunc(
        contract,
        variable,
        input_core_dims=[old],
        output_core_dims=[new],
        exclude_dims=set(old),
        dask="parallelized",
        output_dtypes=[dtype],
        dask_gufunc_kwargs={"output_sizes": dict(sizes), "allow_rechunk": True},
        keep_attrs=True,
    )
    return out.transpose(*_order(variable.dims, old, new))  # type: ignore[no-any-return]


def _order(dims: Sequence[Any], old: Sequence[str], new: Sequence[str]) -> list[Any]:
    """Return dimensions with `new` where `old` are: one by one, or all where the first one is."""
    if len(old) == len(new):
        swap = dict(zip(old, new, strict=True))
        return [swap.get(dim, dim) for dim in dims]
    first = next(k for k, dim in enumerate(dims) if dim in old)
    return [*dims[:first], *new, *(dim for dim in dims[first:] if dim not in old)]
