"""Sparse weights along dimensions of labelled arrays: lazy, and aware of missing values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.regrid.weights import TOLERANCE

__all__ = ["apply_weights", "can_average"]


def can_average(variable: Any) -> bool:
    """Tell whether weighted means of a variable make sense: numbers that are no flags."""
    return variable.dtype.kind in "fciub" and not {"flag_values", "flag_masks"} & set(
        variable.attrs
    )


def _contract(
    data: npt.NDArray[Any], *, weights: Any, shape: Sequence[int], skipna: bool, dtype: Any
) -> npt.NDArray[Any]:
    """Apply weights to the last dimensions, flattened; see `apply_weights`."""
    outer = data.shape[: data.ndim - len(shape)]
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
        bad = weights.sum(axis=1)[:, None] < 1.0 - TOLERANCE
        if some:
            bad = bad | (abs(weights) @ missing.astype(np.float64) > 0)
        y = np.where(bad, np.nan, y)
    return np.asarray(y.T.reshape(*outer, *shape), dtype=dtype)


def apply_weights(
    variable: xr.Variable,
    weights: Any,
    sizes: dict[str, int],
    *,
    skipna: bool = False,
) -> xr.Variable:
    """Apply a sparse matrix along dimensions of a variable.

    Parameters
    ----------
    variable
        Numbers; dask-backed ones stay lazy.
    weights
        scipy.sparse array (target, source) over the raveled dimensions in `sizes`.
    sizes
        The dimensions, in the order in which they are raveled, with their new sizes.
    skipna
        Whether to average what is present. By default a target that is not wholly covered by
        present values is missing.

    Returns
    -------
    Variable of the same attributes and order of dimensions, of the same dtype if it is floating,
    float64 otherwise.
    """
    dtype = variable.dtype if variable.dtype.kind in "fc" else np.dtype(np.float64)
    dims = list(sizes)
    shape = tuple(sizes.values())
    out = xr.apply_ufunc(
        partial(_contract, weights=weights, shape=shape, skipna=skipna, dtype=dtype),
        variable,
        input_core_dims=[dims],
        output_core_dims=[dims],
        exclude_dims=set(dims),
        dask="parallelized",
        output_dtypes=[dtype],
        dask_gufunc_kwargs={"output_sizes": sizes, "allow_rechunk": True},
        keep_attrs=True,
    )
    return out.transpose(*variable.dims)  # type: ignore[no-any-return]
