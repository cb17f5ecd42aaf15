"""Between a labelled Dataset and one array (member, time, channel, latitude, longitude).

Only slices, concatenations and affine maps are applied, so that dask arrays stay lazy and values
come back bit for bit where units agree.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.bridge.labels import member_coordinate
from xappa.bridge.layout import Field, Layout
from xappa.bridge.recognise import as_dataset
from xappa.bridge.spec import StateSpec
from xappa.errors import ArgumentError
from xappa.units import convert, dequantify, requantify

__all__ = ["pack", "unpack"]

_MEMBER, _TIME, _LEVEL, _LAT, _LON = range(5)
_MISSING = -1


def pack(
    ds: xr.Dataset | xr.DataArray, spec: StateSpec, layout: Layout | None = None
) -> xr.DataArray:
    """Pack a Dataset into one array of states.

    Parameters
    ----------
    ds
        Dataset that fits `spec`.
    spec
        Variables, units, levels and grid of the result.
    layout
        The handshake of `ds` with `spec`; made here if None, and gaps in time are then allowed.

    Returns
    -------
    DataArray (["member",] "time", "channel", "latitude", "longitude"), float64 or float32 as the
    variables, in the units of `spec`; NaN where `ds` does not cover the grid. Lazy if `ds` is.

    Raises
    ------
    HandshakeError
        If `layout` is None and the Dataset does not fit; see `Layout.of`.
    """
    layout = Layout.of(ds, spec, gaps=True) if layout is None else layout
    plain = dequantify(as_dataset(ds))
    dtype = np.result_type(np.float32, *(np.dtype(entry.dtype) for entry in layout.fields))
    rows = _inverse(layout.rows, spec.grid.shape[0])
    columns = _inverse(layout.columns, spec.grid.shape[1])
    n_member = 1 if layout.member_size is None else layout.member_size
    parts = []
    for entry in layout.fields:
        block = _ordered(plain[entry.name], entry, layout)
        if entry.levels:
            block = _take(block, entry.levels, _LEVEL)
        block = _take(_take(block, rows, _LAT), columns, _LON)
        block = convert(block, entry.units, entry.variable.units, where=entry.name)
        shape = (n_member, layout.n_times, *block.shape[2:])
        parts.append(_broadcast(block, shape).astype(dtype))
    data = _concatenate(parts, _LEVEL)
    dims = ["member", "time", "channel", "latitude", "longitude"]
    if layout.member_size is None:
        data, dims = data[0], dims[1:]
    return xr.DataArray(data, dims=dims, coords=_coordinates(layout), name="state")


def _coordinates(layout: Layout) -> dict[str, Any]:
    grid = layout.spec.grid
    coords: dict[str, Any] = {
        "channel": list(layout.spec.channel_labels),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    if layout.axes.time is not None:
        times = layout.template[layout.axes.time].variable
        coords["time"] = ("time", np.ravel(times.values))
    if layout.roles.member is not None and layout.roles.member in layout.template.coords:
        coords["member"] = ("member", layout.template[layout.roles.member].values)
    return coords


def _ordered(da: xr.DataArray, entry: Field, layout: Layout) -> Any:
    """Return the data as (member, time, level, lat, lon), of length 1 where a dimension lacks."""
    order = layout.roles.order
    variable = da.variable
    extra = [dim for dim in variable.dims if dim not in order]
    variable = variable.isel(dict.fromkeys(extra, 0))
    present = [dim for dim in order if dim in variable.dims]
    data = variable.transpose(*present).data
    index = tuple(slice(None) if dim in variable.dims else None for dim in order)
    return data[index]


def _inverse(index: npt.NDArray[np.int64], size: int) -> list[int]:
    """Return, for each of `size` places, where `index` points there, or _MISSING."""
    inverse = np.full(size, _MISSING)
    inverse[index] = np.arange(index.size)
    return [int(i) for i in inverse]


def _runs(index: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Split indices into runs (first, length, step); missing ones have step 0."""
    start = 0
    while start < len(index):
        stop, step = start + 1, 0
        if index[start] == _MISSING:
            while stop < len(index) and index[stop] == _MISSING:
                stop += 1
        else:
            step = 1
            if stop < len(index) and _MISSING not in index[start : stop + 1]:
                difference = index[stop] - index[start]
                step = difference if difference in (1, -1) else 1
            while stop < len(index) and index[stop] != _MISSING:
                if index[stop] - index[stop - 1] != step:
                    break
                stop += 1
        yield index[start], stop - start, step
        start = stop


def _take(data: Any, index: Sequence[int], axis: int) -> Any:
    """Take indices along an axis, NaN where _MISSING, through slices that keep dask lazy."""
    size = data.shape[axis]
    pieces = []
    for first, length, step in _runs(index):
        if step == 0:
            pieces.append(_blank(data, length, axis))
            continue
        if (first, length, step) == (0, size, 1):
            pieces.append(data)
            continue
        end = first + length * step
        cut = slice(first, None if end < 0 else end, step)
        pieces.append(data[(slice(None),) * axis + (cut,)])
    return pieces[0] if len(pieces) == 1 else _concatenate(pieces, axis)


def _is_dask(data: Any) -> bool:
    return type(data).__module__.startswith("dask.")


def _dask() -> Any:
    import dask.array

    return dask.array


def _blank(data: Any, length: int, axis: int) -> Any:
    shape = (*data.shape[:axis], length, *data.shape[axis + 1 :])
    if not _is_dask(data):
        return np.full(shape, np.nan, dtype=data.dtype)
    chunks = (*data.chunks[:axis], (length,), *data.chunks[axis + 1 :])
    return _dask().full(shape, np.nan, dtype=data.dtype, chunks=chunks)


def _concatenate(pieces: Sequence[Any], axis: int) -> Any:
    if not any(_is_dask(piece) for piece in pieces):
        return np.concatenate(pieces, axis=axis)
    return _dask().concatenate(pieces, axis=axis)


def _broadcast(data: Any, shape: tuple[int, ...]) -> Any:
    if data.shape == shape:
        return data
    if not _is_dask(data):
        return np.broadcast_to(data, shape)
    return _dask().broadcast_to(data, shape)


def unpack(
    packed: xr.DataArray,
    layout: Layout,
    *,
    history: str | None = None,
    member_dim: str | None = None,
) -> xr.Dataset:
    """Give packed states the labels of the Dataset that `layout` remembers.

    Parameters
    ----------
    packed
        (["member",] "time", "channel", "latitude", "longitude") as from `pack`; lazy or not.
    layout
        The handshake with the Dataset.
    history
        A line that is appended to the attribute ``history``.
    member_dim
        Name of a dimension of members that the Dataset did not have; ``"member"`` by default.

    Returns
    -------
    Dataset with the variables, dimension order, orientation, levels, units, dtypes, coordinates,
    attributes and time encoding of the Dataset. A new dimension of members comes first.

    Raises
    ------
    ArgumentError
        If the shape of `packed` is not that of the layout.
    """
    n_member = packed.sizes.get("member")
    _check_shape(packed, layout)
    dims = ("time", "channel", "latitude", "longitude")
    data = packed.transpose(*(("member",) if n_member is not None else ()), *dims).data
    if n_member is None:
        data = data[None]
    data = _take(data, [int(i) for i in layout.rows], _LAT)
    data = _take(data, [int(i) for i in layout.columns], _LON)
    name = None
    if n_member is not None:
        name = layout.roles.member or member_dim or "member"
    variables = {}
    for entry in layout.fields:
        channels = layout.spec.slice_of(entry.variable.name)
        variables[entry.name] = _restore(data[:, :, channels], entry, layout, name)
    template = _with_members(layout, name, n_member)
    out = template.assign(variables)
    if history is not None:
        former = str(out.attrs.get("history", ""))
        out.attrs["history"] = f"{former}\n{history}" if former else history
    return requantify(out, layout.quantified)


def _check_shape(packed: xr.DataArray, layout: Layout) -> None:
    expected = {"time": layout.n_times, "channel": layout.spec.n_channels}
    expected |= dict(zip(("latitude", "longitude"), layout.spec.grid.shape, strict=True))
    got = {str(dim): size for dim, size in packed.sizes.items() if dim != "member"}
    if got != expected:
        raise ArgumentError(
            "the packed states do not have the shape of the layout",
            where="packed",
            expected=f"{expected}, with or without 'member'",
            got=str(dict(packed.sizes)),
            remedy="use the layout of the Dataset that was packed, or layout.with_times",
        )


def _restore(data: Any, entry: Field, layout: Layout, member: str | None) -> xr.Variable:
    """Return one variable from its channels (member, time, level, lat, lon)."""
    roles = layout.roles
    if entry.levels:
        places = {level: k for k, level in enumerate(entry.levels)}
        data = _take(data, [places.get(level, _MISSING) for level in layout.levels], _LEVEL)
    data = convert(data, entry.variable.units, entry.units, where=entry.name)
    data = data.astype(np.dtype(entry.dtype), copy=False)
    order = [member, roles.time, roles.vertical if entry.levels else None]
    order += [roles.latitude, roles.longitude]
    index = tuple(0 if dim is None else slice(None) for dim in order)
    present = [dim for dim in order if dim is not None]
    # dimensions of length 1 whose role is unknown come back where they were
    extra = [dim for dim in entry.dims if dim not in roles.order]
    data = data[index][(None,) * len(extra)]
    variable = xr.Variable([*extra, *present], data, dict(entry.attrs))
    stored = [dim for dim in entry.dims if dim in variable.dims]
    added = [dim for dim in present if dim not in entry.dims]
    return variable.transpose(*added, *stored)


def _with_members(layout: Layout, name: str | None, size: int | None) -> xr.Dataset:
    """Return the template with the coordinate of the members that came out."""
    template = layout.template.copy()
    own = layout.roles.member
    if own is not None and size == layout.member_size:
        return template
    attrs: dict[Hashable, Any] | None = None
    if own is not None:
        attrs = dict(template[own].attrs) if own in template.coords else None
        template = template.drop_vars([n for n, v in template.variables.items() if own in v.dims])
    if name is None or size is None:
        return template
    # a scalar realization number of the input would contradict the new members
    clash = [
        n
        for n, c in template.coords.items()
        if n == name or c.attrs.get("standard_name") == "realization"
    ]
    template = template.drop_vars(clash)
    return template.assign_coords({name: member_coordinate(name, size, attrs)})
