r"""The background: a Dataset's own values as an estimate of the state, with an error.

A background error is shaped as the prior is, in space, time and between variables; only its size is
given, at every point, by a standard deviation s times the climatological one. In terms of the
components, :math:`z_b = z + S e` with :math:`S = E^+ \operatorname{diag}(s) E` and e drawn from the
prior; the residual, independent at every point, is combined there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from xappa.bridge import Field, Layout, Roles, StateSpec, pack
from xappa.cf import find_axes
from xappa.diffusion.markov import GaussianTrajectory
from xappa.errors import ArgumentError, BackgroundError
from xappa.models.base import Prior
from xappa.models.gaussian import GaussianModel
from xappa.models.posterior import Residual
from xappa.tasks.window import Window
from xappa.units import convert, dequantify, factor_offset

__all__ = ["condition", "describe_error", "mean_state", "present_background", "relative_error"]


def relative_error(model: Prior, layout: Layout, error: Any, scale: Any) -> np.ndarray | None:
    """Return the background error over the climatological standard deviation, shape (P,).

    Parameters
    ----------
    model
        Gives the climatological standard deviation.
    layout
        The Dataset's layout.
    error
        ``background_error=``: a number in the variable's units (for Datasets of one variable), a
        DataArray, or a Dataset or mapping by variable. DataArrays may vary with level, latitude
        and longitude, and are brought to the model's grid by their coordinates.
    scale
        ``background_error_scale=``: a number or DataArray, or a Dataset or mapping by variable.

    Returns
    -------
    numpy.ndarray or None
        None if neither was given.

    Raises
    ------
    ArgumentError
        If both were given, or one of them does not fit the variables.
    BackgroundError
        If an error is not positive, or the Dataset covers a part of the grid only.
    """
    if error is None and scale is None:
        return None
    if not layout.is_full_grid:
        raise BackgroundError(
            "a background error was given, but the Dataset covers a part of the model's grid only",
            where="the Dataset's grid",
            expected=repr(layout.spec.grid),
            got=f"{layout.rows.size} x {layout.columns.size} of its points",
            remedy="pass states on the whole grid and select afterwards; or pass the background as "
            "observations with an error (a gridded array is one)",
        )
    if error is not None and scale is not None:
        raise ArgumentError(
            "two background errors were given",
            where="background_error=, background_error_scale=",
            expected="one of them",
        )
    argument = "background_error=" if scale is None else "background_error_scale="
    parts = []
    std = model.std.reshape(model.spec.shape)
    for entry in layout.fields:
        channels = model.spec.slice_of(entry.variable.name)
        value = _pick(error if scale is None else scale, entry.name, layout, argument)
        shape = std[channels].shape
        if scale is None:
            field = _in_state_units(value, entry, shape, layout)
            with np.errstate(divide="ignore", invalid="ignore"):
                field = field / std[channels]
        else:
            field = _on_grid(value, entry, shape, layout, argument)
        parts.append(np.where(std[channels] > 0, field, 1.0))
    s = np.concatenate(parts).ravel()
    if not (s > 0).all():
        raise BackgroundError(
            "a background error is not positive",
            where=argument,
            expected="positive standard deviations",
            got=float(np.nanmin(s)) if np.isfinite(s).any() else "NaN",
            remedy="give the background's error, or leave it out to ignore the background",
        )
    return s


def mean_state(packed: xr.DataArray) -> xr.DataArray:
    """Return the background, packed: the mean of an ensemble, whose error is the error given."""
    return packed.mean("member", skipna=False) if "member" in packed.dims else packed


def describe_error(given: Any) -> Any:
    """Return what attributes say of a background error: numbers as they are, fields by their mean.

    >>> describe_error({"t": 1.5, "u": xr.DataArray([1.0, 3.0], attrs={"units": "m s-1"})})
    {'t': 1.5, 'u': 'field of mean 2 m s-1'}
    """
    if given is None:
        return None
    if isinstance(given, (xr.Dataset, Mapping)):
        return {str(name): describe_error(given[name]) for name in given}
    if isinstance(given, xr.DataArray):
        plain = dequantify(given)
        kind = "field of mean " if plain.ndim else ""
        return f"{kind}{float(plain.mean()):g} {plain.attrs.get('units', '')}".strip()
    return str(given) if hasattr(given, "magnitude") else float(given)


def _pick(given: Any, name: str, layout: Layout, argument: str) -> Any:
    if isinstance(given, (xr.Dataset, Mapping)):
        if name not in given:
            raise ArgumentError(
                "a variable has no background error",
                where=f"{argument}[{name!r}]",
                expected=", ".join(entry.name for entry in layout.fields),
                got=", ".join(map(str, given)),
            )
        return given[name]
    if argument == "background_error=" and len(layout.fields) > 1:
        raise ArgumentError(
            "one background error was given for variables of different units",
            where=argument,
            expected="a Dataset or a dict by variable: "
            + ", ".join(f"{entry.name} in {entry.units}" for entry in layout.fields),
            got=type(given).__name__,
            remedy="or give background_error_scale=, in climatological standard deviations",
        )
    return given


def _in_state_units(value: Any, entry: Field, shape: tuple[int, ...], layout: Layout) -> np.ndarray:
    units = entry.units
    if isinstance(value, xr.DataArray):
        units = str(dequantify(value).attrs.get("units", units))
    elif hasattr(value, "magnitude"):
        units, value = str(value.units), value.magnitude
    factor_offset(units, entry.variable.units, where="background_error=")
    field = _on_grid(value, entry, shape, layout, "background_error=")
    converted: np.ndarray = convert(
        field, units, entry.variable.units, difference=True, where="background_error="
    )
    return converted


def _on_grid(
    value: Any, entry: Field, shape: tuple[int, ...], layout: Layout, argument: str
) -> np.ndarray:
    """Return a number or a DataArray as a field (level, latitude, longitude) of the state."""
    if isinstance(value, xr.DataArray) and value.ndim:
        field = _labelled(dequantify(value), entry, layout, argument)
    else:
        try:
            field = np.asarray(value, dtype=float)
        except (TypeError, ValueError):
            field = np.empty((0,))
        if field.ndim:
            raise ArgumentError(
                f"the background error of {entry.name!r} cannot be understood",
                where=argument,
                expected="a number, a pint quantity, or a DataArray with coordinates",
                got=f"{type(value).__name__} {value!r:.60}",
            )
    return np.broadcast_to(field, shape)


def _labelled(value: xr.DataArray, entry: Field, layout: Layout, argument: str) -> np.ndarray:
    """Bring a DataArray to the model's grid and levels, by its own coordinates."""
    scalars = [name for name, coord in value.coords.items() if not coord.ndim]
    probe = value.drop_vars(scalars).squeeze(drop=True).astype(float)
    own = layout.template.coords
    bare = [dim for dim in probe.dims if not any(dim in c.dims for c in probe.coords.values())]
    borrowed = {
        name: coord
        for name, coord in own.items()
        if coord.ndim == 1 and coord.dims[0] in bare and coord.size == probe.sizes[coord.dims[0]]
    }
    probe = probe.assign_coords(borrowed)
    grid = layout.spec.grid
    named = probe.to_dataset(name=entry.variable.name)
    axes = find_axes(named, require=())
    roles = Roles.of(named, axes)
    extra = sorted({str(d) for d in probe.dims} - {roles.vertical, roles.latitude, roles.longitude})
    if extra:
        raise ArgumentError(
            f"the background error of {entry.name!r} varies along {', '.join(extra)}",
            where=argument,
            expected="dimensions of level, latitude and longitude, with coordinates, at most",
            got=f"dimensions {', '.join(map(str, value.dims))}",
            remedy=f"select or average: error.mean({extra[0]!r})",
        )
    if roles.latitude is None:
        probe = probe.expand_dims({"latitude": grid.latitude})
    if roles.longitude is None:
        probe = probe.expand_dims({"longitude": grid.longitude})
    levels = None if roles.vertical is None else entry.variable.levels
    variable = replace(entry.variable, standard_name=None, height=None, levels=levels)
    probe.attrs = {"units": variable.units}
    ds = probe.to_dataset(name=variable.name)
    packed = pack(ds, StateSpec((variable,), grid, None, layout.spec.calendar))
    field: np.ndarray = packed.isel(time=0).values
    return field


def present_background(states: np.ndarray, present: np.ndarray) -> None:
    """Check that a background is whole.

    Parameters
    ----------
    states
        Packed, shape (T, channel, latitude, longitude).
    present
        Which points are part of the state, shape (P,).

    Raises
    ------
    BackgroundError
        If values are missing.
    """
    missing = float((~np.isfinite(states.reshape(len(states), -1)[:, present])).mean())
    if missing > 0:
        raise BackgroundError(
            "a background error was given, but the background is "
            + ("missing" if missing == 1 else "incomplete"),
            where="the Dataset's values",
            expected="a value at every point of the model's grid",
            got=f"{missing:.1%} of the values are NaN or outside the Dataset",
            remedy="leave background_error= out to ignore the background, or fill it",
        )


def condition(
    model: GaussianModel,
    prior: GaussianTrajectory,
    states: np.ndarray,
    relative: np.ndarray,
    window: Window,
) -> tuple[GaussianTrajectory, Residual]:
    """Condition the prior on a background.

    Parameters
    ----------
    model, prior
        The model, and its prior over the window.
    states
        The background, packed, shape (T, channel, latitude, longitude).
    relative
        Its error relative to the climatological standard deviation, shape (P,).
    window
        Where the background's T states lie in the trajectory.

    Raises
    ------
    BackgroundError
        If the background has missing values.
    """
    flat = states.reshape(len(states), -1)
    present_background(states, np.isfinite(model.residual))
    seconds = window.seconds[window.inside]
    z = model.encode_array(states, seconds)
    anomalies = flat - model.climatology(seconds).reshape(len(seconds), -1)
    left = anomalies - model.autoencoder.decode_array(z)
    eofs, weight = model.eofs.astype(np.float64), model.weight.astype(np.float64)
    weighted = eofs.T * weight
    scale = np.linalg.solve(weighted @ eofs, weighted @ (np.nan_to_num(relative)[:, None] * eofs))
    estimate = np.zeros((len(window.seconds), z.shape[-1]))
    estimate[window.inside] = z
    error = model.process.estimate_precision(prior, window.first, window.first + window.size)
    conditioned = prior.with_estimate(torch.as_tensor(estimate), error, torch.as_tensor(scale))
    gain = 1 / (1 + np.nan_to_num(relative, nan=np.inf) ** 2)
    length = len(window.seconds)
    mean = np.zeros((length, flat.shape[-1]))
    mean[window.inside] = np.nan_to_num(left) * gain
    variance = model.residual * (1 - gain)
    if window.size < length:
        # States before and after the background keep the prior's residual.
        each = np.repeat(model.residual[None], length, axis=0)
        each[window.inside] = variance
        variance = each
    return conditioned, Residual(variance, mean)
