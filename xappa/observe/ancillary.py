"""Variables that say something about an observation array: its errors and its quality flags.

CF links them through the attribute ``ancillary_variables`` (xarray moves it to the encoding when it
decodes all coordinates). Coordinates of the array count as well, because a DataArray can carry
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr

__all__ = [
    "ERROR_MODIFIER",
    "FLAG_NAMES",
    "ancillary_names",
    "companions",
    "is_companion",
    "modifier",
    "on_elements",
    "unlinked_flags",
]

ERROR_MODIFIER = "standard_error"
FLAG_NAMES = frozenset({"quality_flag", "status_flag", "aggregate_quality_flag"})
MODIFIERS = frozenset(
    {ERROR_MODIFIER, "status_flag", "quality_flag", "number_of_observations", "detection_minimum"}
)


def modifier(array: xr.DataArray) -> str | None:
    """Return the modifier after the blank in a standard name, or the name itself if it is a flag's.

    >>> modifier(xr.DataArray(1.0, attrs={"standard_name": "air_temperature standard_error"}))
    'standard_error'
    """
    name = str(array.attrs.get("standard_name", "")).split()
    if len(name) == 1 and name[0] in FLAG_NAMES:
        return name[0]
    return name[-1] if len(name) > 1 and name[-1] in MODIFIERS else None


def ancillary_names(array: xr.DataArray) -> list[str]:
    """Return the names that the array's ``ancillary_variables`` lists."""
    listed = array.attrs.get("ancillary_variables") or array.encoding.get("ancillary_variables")
    return str(listed).split() if listed else []


def is_companion(array: xr.DataArray) -> bool:
    """Tell whether a variable describes another one instead of being an observation itself."""
    return modifier(array) is not None


def companions(
    array: xr.DataArray, dataset: xr.Dataset | None
) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield the ancillary variables of an array in its Dataset, then its coordinates.

    Variables that are not listed count if their standard name is that of the array, which must be
    the only one of its kind, with a modifier.

    Yields
    ------
    name, variable
        A coordinate that is listed as an ancillary variable comes once.
    """
    listed = ancillary_names(array)
    for name in listed:
        if dataset is not None and name in dataset.variables:
            yield name, dataset[name].reset_coords(drop=True)
        elif name in array.coords:
            yield name, array.coords[name].reset_coords(drop=True)
    if dataset is not None:
        for name in _unlisted(array, dataset):
            if name not in listed:
                yield name, dataset[name].reset_coords(drop=True)
    for key, coordinate in array.coords.items():
        if key not in listed:
            yield str(key), coordinate.reset_coords(drop=True)


def _unlisted(array: xr.DataArray, dataset: xr.Dataset) -> list[str]:
    """Return variables whose standard names name the array's quantity and a modifier."""
    quantity = array.attrs.get("standard_name")
    names = [str(data.attrs.get("standard_name", "")) for data in dataset.data_vars.values()]
    if quantity is None or names.count(quantity) != 1:
        return []
    wanted = {f"{quantity} {modifier}" for modifier in MODIFIERS}
    return [str(key) for key, name in zip(dataset.data_vars, names, strict=True) if name in wanted]


def unlinked_flags(dataset: xr.Dataset) -> list[str]:
    """Return quality flags that no variable lists, so that nobody knows what they are about."""
    listed = {name for data in dataset.data_vars.values() for name in ancillary_names(data)}
    return [
        str(name)
        for name, data in dataset.data_vars.items()
        if data.attrs.get("standard_name") in FLAG_NAMES and name not in listed
    ]


def on_elements(values: xr.DataArray, array: xr.DataArray) -> np.ndarray | None:
    """Return values of another array at each element of an array, or None where dims do not fit.

    Parameters
    ----------
    values
        Its dims must be some of those of `array`, with the same sizes and labels.
    array
        The observations.

    Returns
    -------
    ndarray or None
        (n,), the ravel in the dim order of `array`.
    """
    sizes = {str(dim): size for dim, size in array.sizes.items()}
    if any(sizes.get(str(dim)) != size for dim, size in values.sizes.items()):
        return None
    for dim in values.dims:
        both = dim in values.indexes and dim in array.indexes
        if both and not values.indexes[dim].equals(array.indexes[dim]):
            return None
    ordered = values.transpose(*(dim for dim in array.dims if dim in values.dims))
    shape = [array.sizes[dim] if dim in values.dims else 1 for dim in array.dims]
    return np.broadcast_to(ordered.values.reshape(shape), array.shape).reshape(-1)
