"""Ragged arrays of CF's discrete sampling geometries, spread out over their samples.

Files of stations, profiles and trajectories of different lengths hold all samples one after
another, and say which belongs to which instance in one of two ways:

- contiguous: a count for each instance (attribute ``sample_dimension``);
- indexed: the number of the instance for each sample (attribute ``instance_dimension``).

Time series of profiles and trajectories of profiles combine them: counts from profiles to samples,
indices from stations or trajectories to profiles. What is known of an instance (its position, its
name) becomes a coordinate of all its samples.

References
----------
CF Conventions 1.11, chapter 9 and appendix H, https://cfconventions.org.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import xarray as xr

from xappa.errors import CoordinateError

__all__ = ["is_ragged", "spread_instances"]

COUNT, INDEX = "sample_dimension", "instance_dimension"


def is_ragged(ds: xr.Dataset) -> bool:
    """Whether a Dataset holds a ragged array.

    >>> counts = ("profile", [2, 1], {"sample_dimension": "obs"})
    >>> is_ragged(xr.Dataset({"row_size": counts, "t": ("obs", [1.0, 2.0, 3.0])}))
    True
    """
    return any(COUNT in v.attrs or INDEX in v.attrs for v in ds.variables.values())


def spread_instances(ds: xr.Dataset) -> xr.Dataset:
    """Give every sample what is known of its instance.

    Parameters
    ----------
    ds
        A Dataset with count or index variables. Without any, it is returned as it is.

    Returns
    -------
    xarray.Dataset
        Variables of the samples, with those of their instances as coordinates along the sample
        dimension; counts and indices are gone.

    Raises
    ------
    CoordinateError
        If counts do not add up to the samples, or an index belongs to no instance.

    Examples
    --------
    >>> counts = ("profile", [2, 1], {"sample_dimension": "obs"})
    >>> where = {"lat": ("profile", [10.0, 20.0]), "row_size": counts}
    >>> spread_instances(xr.Dataset({"t": ("obs", [1.0, 2.0, 3.0]), **where})).lat.values
    array([10., 10., 20.])
    """
    for name in [n for n, v in ds.variables.items() if COUNT in v.attrs]:
        counts = ds[name]
        sample = str(counts.attrs[COUNT])
        _check_dims(ds, name, sample, COUNT)
        index = np.repeat(np.arange(counts.size), _counts(counts, ds.sizes[sample]))
        ds = _spread(ds.drop_vars([name]), str(counts.dims[0]), sample, index)
    for name in [n for n, v in ds.variables.items() if INDEX in v.attrs]:
        numbers = ds[name]
        instance = str(numbers.attrs[INDEX])
        _check_dims(ds, name, instance, INDEX)
        index = _indices(numbers, ds.sizes[instance])
        ds = _spread(ds.drop_vars([name]), instance, str(numbers.dims[0]), index)
    return ds


def _check_dims(ds: xr.Dataset, name: Hashable, dim: str, key: str) -> None:
    if dim not in ds.sizes or ds[name].ndim != 1:
        raise CoordinateError(
            f"{name!r} does not describe a ragged array",
            where=str(name),
            expected=f"one dimension, and {key} naming a dimension of the Dataset: "
            + ", ".join(map(str, ds.sizes)),
            got=f"dimensions {list(ds[name].dims)}, {key} {dim!r}",
            remedy="correct the attribute, or drop the variable",
        )


def _whole_numbers(array: xr.DataArray) -> np.ndarray:
    """Return whole numbers, which decoding may have made floats; -1 for missing ones."""
    values = np.asarray(array.values)
    if values.dtype.kind not in "iuf":
        values = np.full(values.shape, -1)
    known = np.isfinite(values)
    whole = np.where(known, values, -1).astype(np.int64)
    whole[known & (whole != values)] = -1
    return whole


def _counts(counts: xr.DataArray, samples: int) -> np.ndarray:
    numbers = _whole_numbers(counts)
    if (numbers < 0).any() or numbers.sum() != samples:
        bad = int((numbers < 0).sum())
        raise CoordinateError(
            "the counts of a ragged array do not add up",
            where=str(counts.name),
            expected=f"whole numbers that add up to the {samples} samples along "
            f"{counts.attrs[COUNT]!r}",
            got=f"{bad} missing, negative or broken counts" if bad else f"{numbers.sum()}",
            remedy="correct the counts: one for each instance, the number of its samples",
        )
    return numbers


def _indices(indices: xr.DataArray, instances: int) -> np.ndarray:
    numbers = _whole_numbers(indices)
    outside = (numbers < 0) | (numbers >= instances)
    if outside.any():
        raise CoordinateError(
            "an index of a ragged array belongs to no instance",
            where=str(indices.name),
            expected=f"0 to {instances - 1}, counted from zero",
            got=f"{int(outside.sum())} others, such as {indices.values[outside][0]}",
            remedy="count instances from zero, and drop samples of none",
        )
    return numbers


def _spread(ds: xr.Dataset, instance: str, sample: str, index: np.ndarray) -> xr.Dataset:
    """Carry variables from instances to samples; ``index`` is the instance of each sample."""
    own = {name: v for name, v in ds.variables.items() if instance in v.dims}
    carried = {}
    for name, variable in own.items():
        dims = [sample if dim == instance else dim for dim in variable.dims]
        values = variable.isel({instance: index}).values
        carried[name] = xr.Variable(dims, values, variable.attrs)
    return ds.drop_vars(list(own)).assign_coords(carried)
