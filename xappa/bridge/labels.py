"""Labels of the output: which attributes, encodings and coordinates of the input come back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.cf import from_seconds

__all__ = ["TIME_ENCODING", "clean_attrs", "member_coordinate", "template_of", "with_new_times"]

# an old packing would corrupt new values, and ranges describe the old ones
_DROPPED_ATTRS = ("actual_range", "scale_factor", "add_offset", "_FillValue", "missing_value")
_DROPPED_PREFIXES = ("GRIB_", "valid_")
TIME_ENCODING = ("units", "calendar", "dtype")
MEMBER_ATTRS = {"standard_name": "realization", "long_name": "ensemble member"}


def clean_attrs(attrs: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Return attributes without those that describe the input's storage or range."""
    return {
        key: value
        for key, value in attrs.items()
        if str(key) not in _DROPPED_ATTRS and not str(key).startswith(_DROPPED_PREFIXES)
    }


def _holds_times(variable: xr.Variable) -> bool:
    return variable.dtype.kind in "mMO" or " since " in str(variable.attrs.get("units", ""))


def template_of(
    ds: xr.Dataset, dims: set[str], levels: tuple[str, npt.NDArray[np.int64]] | None
) -> xr.Dataset:
    """Return the coordinates (and their bounds) of a Dataset without its data.

    Parameters
    ----------
    ds
        Dequantified Dataset.
    dims
        Dimensions of the variables that will be put back.
    levels
        (dimension, indices) of the levels to keep, or None for all.
    """
    bounds = {
        coord.attrs.get("bounds", coord.encoding.get("bounds")) for coord in ds.coords.values()
    }
    mappings = {da.attrs.get("grid_mapping", da.encoding.get("grid_mapping"))
                for da in ds.data_vars.values()}  # fmt: skip
    described = [str(name) for name in ds.data_vars if name in bounds | mappings]
    kept = [
        str(name)
        for name, coord in ds.coords.items()
        if not coord.ndim or dims & {str(dim) for dim in coord.dims}
    ]
    unkept = [name for name in ds.coords if str(name) not in kept]
    template = ds[described].drop_vars(unkept, errors="ignore")
    absent = [name for name in kept if name not in template.coords]
    template = template.assign_coords({name: ds.coords[name] for name in absent})
    template = template.drop_vars(
        [n for n, v in template.data_vars.items() if v.ndim and not dims & set(map(str, v.dims))]
    )
    if levels is not None and levels[0] in template.dims:
        template = template.isel({levels[0]: levels[1]})
    template = template.copy()
    for variable in template.variables.values():
        if variable.chunks is None:
            variable.load()
        keep = TIME_ENCODING if _holds_times(variable) else ()
        variable.encoding = {k: v for k, v in variable.encoding.items() if k in keep}
    template.attrs = clean_attrs(ds.attrs)
    template.encoding = {}
    return template


def member_coordinate(name: str, size: int, attrs: Mapping[Hashable, Any] | None) -> xr.Variable:
    """Return the coordinate 0, 1, ... of a dimension of members."""
    return xr.Variable((name,), np.arange(size), dict(MEMBER_ATTRS if attrs is None else attrs))


def with_new_times(
    template: xr.Dataset,
    name: str,
    dim: str,
    old: str | None,
    seconds: npt.NDArray[np.float64],
    calendar: str,
) -> xr.Dataset:
    """Return the template with other valid times.

    Parameters
    ----------
    template
        From `template_of`.
    name
        Name of the new coordinate and of its dimension.
    dim
        The dimension it replaces.
    old
        The coordinate of valid time that it replaces.
    seconds, calendar
        The new times.
    """
    values = from_seconds(seconds, calendar)
    attrs: dict[Hashable, Any] = {"standard_name": "time", "long_name": "valid time"}
    encoding: dict[Hashable, Any] = {}
    if old is not None and old in template.variables:
        former = template.variables[old]
        if former.dtype.kind == "M" and values.dtype.kind == "M":
            values = values.astype(former.dtype)
        if former.attrs.get("standard_name") == "time" or old == name:
            attrs |= {
                k: v for k, v in former.attrs.items() if k not in ("units", "calendar", "bounds")
            }
            attrs["standard_name"] = "time"
        encoding = {k: former.encoding[k] for k in ("units", "calendar") if k in former.encoding}
    along = [n for n, v in template.variables.items() if dim in v.dims or n in (old, name)]
    # a step of the former times says nothing of the new ones
    along += [
        n
        for n, c in template.coords.items()
        if c.attrs.get("standard_name") in ("forecast_period", "forecast_reference_time")
        and n not in along
    ]
    out = template.drop_vars(along)
    variable = xr.Variable((name,), values, attrs, encoding)
    out = out.assign_coords({name: variable})
    if old is None or old == name or old not in along:
        return out
    # cfgrib's valid_time stays beside the index, so that analysis and forecast concatenate
    return out.assign_coords({old: variable})
