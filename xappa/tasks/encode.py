"""`encode` and `decode`: Datasets to labelled latents, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import Layout, pack, unpack
from xappa.errors import DataError
from xappa.models.base import Model, Prior
from xappa.models.catalogue import remember, resolve
from xappa.tasks.labels import finish, warn_of_guesses
from xappa.tasks.lazy import by_time
from xappa.tasks.window import in_calendar
from xappa.units import quantities, requantify

__all__ = ["decode", "encode", "holds_latents", "read_latents", "with_units_of"]

_LAYOUT = "xappa_layout"


def encode(ds: xr.Dataset, model: Model | str | Path | None = None) -> xr.Dataset:
    """Encode the states of a Dataset to latents.

    Parameters
    ----------
    ds
        States on the model's grid. With a Gaussian prior missing values are allowed: the latents
        are then those expected given what is present. Dask-backed data stay lazy.
    model
        The model; None resolves as `xappa.models.catalogue.resolve` says.

    Returns
    -------
    xarray.Dataset
        ``latent`` ([member,] time, mode), standardised, float64 (of a Gaussian prior) or float32
        (of a learned one), with the coordinates of ``ds``; what `decode` needs to give back the
        labels of ``ds`` goes along.

    Raises
    ------
    NoModelError, HandshakeError
        If there is no model, or ``ds`` does not fit it.
    DataError
        If values are missing and the model is a learned one, whose autoencoder needs whole states.
    """
    model, _ = resolve(model, ds)
    layout = Layout.of(ds, model.spec)
    warn_of_guesses(ds, layout, model)
    packed = pack(ds, model.spec, layout)
    seconds = in_calendar(layout, model)
    dtype = model.latent_dtype
    data = by_time(model.encode_array, packed.data, seconds, (model.latent_size,), 3, dtype)
    template = layout.template
    dims: list[str] = []
    if layout.member_size is not None:
        dims.append(str(layout.roles.member))
    if layout.roles.time is not None:
        dims.append(str(layout.roles.time))
    else:
        data = data[..., 0, :]
    attrs = {"long_name": f"latents of {model.name}", "units": "1"}
    out = template.assign(latent=xr.Variable((*dims, "mode"), data, attrs))
    out = out.assign_coords(mode=("mode", np.arange(model.latent_size)))
    remember(model)
    out = finish(out, replace(layout, fields=()), model, "encode")
    out.attrs[_LAYOUT] = json.dumps(_describe(layout), default=_plain)
    return out


def _describe(layout: Layout) -> list[dict[str, Any]]:
    """Return what coordinates do not say of the variables, in a form that JSON can hold."""
    return [
        {
            "name": e.name,
            "dims": e.dims,
            "dtype": e.dtype,
            "attrs": {"units": e.units, **e.attrs},
            "quantified": e.name in layout.quantified,
        }
        for e in layout.fields
    ]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


def _skeleton(z: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with the variables that were encoded, without their values."""
    import dask.array as da

    out = z.drop_vars(["latent", "mode"], errors="ignore")
    entries = json.loads(z.attrs[_LAYOUT])
    known = {dim for entry in entries for dim in entry["dims"]} | {"mode"}
    added = [dim for dim in z["latent"].dims if dim not in known]
    for entry in entries:
        # a selection, or a mean over members, may have taken dimensions away
        dims = [*added, *(dim for dim in entry["dims"] if dim in z.sizes)]
        data = da.zeros([z.sizes[dim] for dim in dims], dtype=entry["dtype"])
        out[entry["name"]] = xr.Variable(dims, data, entry["attrs"])
    return out


def decode(z: xr.Dataset, model: Model | str | Path | None = None) -> xr.Dataset:
    """Decode latents to the Dataset that they came from.

    Parameters
    ----------
    z
        What `encode` returned, possibly after arithmetic, selection or a file.
    model
        The model; None takes the one that encoded, if it is at hand.

    Returns
    -------
    xarray.Dataset
        States with the labels of the Dataset that was encoded.

    Raises
    ------
    DataError
        If ``z`` holds no latents of this model.
    """
    model, _ = resolve(model, z)
    layout, data = read_latents(z, model, "decode")
    seconds = in_calendar(layout, model)
    states = by_time(model.decode_array, data, seconds, model.spec.shape, 1)
    dims: tuple[str, ...] = ("time", "channel", "latitude", "longitude")
    if layout.member_size is not None:
        dims = ("member", *dims)
    out = unpack(xr.DataArray(states, dims=dims), layout)
    return with_units_of(z, finish(out, layout, model, "decode"))


def holds_latents(ds: xr.Dataset) -> bool:
    """Whether a Dataset is what `encode` returned."""
    return "latent" in ds and _LAYOUT in ds.attrs


def read_latents(z: xr.Dataset, model: Prior, where: str) -> tuple[Layout, Any]:
    """Return the layout of the states that were encoded, and the latents ([member,] time, mode).

    Raises
    ------
    DataError
        If ``z`` holds no latents of this model.
    """
    if not holds_latents(z):
        raise DataError(
            "the Dataset holds no latents",
            where=where,
            expected=f"a variable 'latent' and the attribute {_LAYOUT!r}, as encode writes them",
            got=", ".join(map(str, z.data_vars)) or "no variables",
            remedy="pass what ds.appa.encode(model) returned",
        )
    if z.sizes["mode"] != model.latent_size:
        raise DataError(
            "the latents are those of another model",
            where="latent",
            expected=f"{model.latent_size} modes",
            got=z.sizes["mode"],
            remedy=f"{where} with the model that encoded",
        )
    layout = Layout.of(_skeleton(z), model.spec)
    latent = z["latent"]
    order: list[Any] = [layout.roles.member] if layout.member_size is not None else []
    order += [layout.roles.time] if layout.roles.time is not None else []
    data = latent.transpose(*order, "mode").data
    return layout, data[..., None, :] if layout.roles.time is None else data


def with_units_of(z: xr.Dataset, out: xr.Dataset) -> xr.Dataset:
    """Give variables that were pint quantities before they were encoded their units again."""
    entries = json.loads(z.attrs[_LAYOUT])
    units = {e["name"]: e["attrs"]["units"] for e in entries if e["quantified"]}
    return requantify(out, quantities(units)) if units else out
