r"""The background: a Dataset's own values as an estimate of the state, with an error.

A background error is shaped as the prior is, in space, time and between variables; only its size is
given, at every point, by a standard deviation s times the climatological one. In terms of the
components, :math:`z_b = z + S e` with :math:`S = E^+ \operatorname{diag}(s) E` and e drawn from the
prior; the residual, independent at every point, is combined there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from xappa.bridge import Layout
from xappa.diffusion.markov import GaussianTrajectory
from xappa.errors import ArgumentError, BackgroundError
from xappa.models.gaussian import GaussianModel
from xappa.models.posterior import Residual
from xappa.tasks.window import Window
from xappa.units import convert, factor_offset

__all__ = ["condition", "relative_error"]


def relative_error(
    model: GaussianModel, layout: Layout, error: Any, scale: Any
) -> np.ndarray | None:
    """Return the background error over the climatological standard deviation, shape (P,).

    Parameters
    ----------
    model
        Gives the climatological standard deviation.
    layout
        The Dataset's layout.
    error
        ``background_error=``: a number in the variable's units (for Datasets of one variable), a
        DataArray, or a Dataset or mapping by variable, each broadcast over the variable.
    scale
        ``background_error_scale=``: a number, or a mapping by variable.

    Returns
    -------
    numpy.ndarray or None
        None if neither was given.

    Raises
    ------
    ArgumentError
        If both were given, or one of them does not fit the variables.
    BackgroundError
        If an error is not positive.
    """
    if error is None and scale is None:
        return None
    if error is not None and scale is not None:
        raise ArgumentError(
            "two background errors were given",
            where="background_error=, background_error_scale=",
            expected="one of them",
        )
    argument = "background_error=" if scale is None else "background_error_scale="
    parts = []
    std = model.std.reshape(model.state_shape)
    for entry in layout.fields:
        channels = model.spec.slice_of(entry.variable.name)
        value = _pick(error if scale is None else scale, entry.name, layout, argument)
        shape = std[channels].shape
        if scale is None:
            field = _in_state_units(value, entry, layout, shape)
            with np.errstate(divide="ignore", invalid="ignore"):
                field = field / std[channels]
        else:
            field = np.broadcast_to(np.asarray(value, dtype=float), shape)
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


def _pick(given: Any, name: str, layout: Layout, argument: str) -> Any:
    if isinstance(given, (xr.Dataset, dict)):
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


def _in_state_units(value: Any, entry: Any, layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    units = entry.units
    if isinstance(value, xr.DataArray):
        units = value.attrs.get("units", units)
        order = [layout.roles.vertical, layout.roles.latitude, layout.roles.longitude]
        field = value.transpose(*[dim for dim in order if dim in value.dims])
        index = tuple(slice(None) if dim in value.dims else None for dim in order)
        array = np.asarray(field.values, dtype=float)[index]
        if array.shape[0] > 1:
            array = array[list(entry.levels)]
        full = np.full((array.shape[0], *shape[1:]), np.nan)
        rows = layout.rows if array.shape[1] > 1 else np.arange(shape[1])
        columns = layout.columns if array.shape[2] > 1 else np.arange(shape[2])
        full[:, rows[:, None], columns] = array
        array = full
    elif hasattr(value, "magnitude"):
        units, array = str(value.units), np.asarray(value.magnitude, dtype=float)
    else:
        array = np.asarray(value, dtype=float)
    factor_offset(units, entry.variable.units, where="background_error=")
    array = convert(array, units, entry.variable.units, difference=True, where="background_error=")
    return np.broadcast_to(array, shape)


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
        The background, packed, shape ([B,] T, channel, latitude, longitude).
    relative
        Its error relative to the climatological standard deviation, shape (P,).
    window
        Where the background's T states lie in the trajectory.

    Raises
    ------
    BackgroundError
        If the background has missing values.
    """
    flat = states.reshape(*states.shape[:-3], -1)
    part = np.isfinite(model.residual)
    missing = float((~np.isfinite(flat[..., part])).mean())
    if missing > 0:
        raise BackgroundError(
            "a background error was given, but the background is "
            + ("missing" if missing == 1 else "incomplete"),
            where="the Dataset's values",
            expected="a value at every point of the model's grid",
            got=f"{missing:.1%} of the values are NaN or outside the Dataset",
            remedy="leave background_error= out to ignore the background, or fill it",
        )
    seconds = window.seconds[window.inside]
    z = model.encode_array(states, seconds)
    anomalies = flat - model.climatology(seconds).reshape(len(seconds), -1)
    left = anomalies - model.autoencoder.decode_array(z)
    eofs, weight = model.eofs.astype(np.float64), model.weight.astype(np.float64)
    weighted = eofs.T * weight
    scale = np.linalg.solve(weighted @ eofs, weighted @ (np.nan_to_num(relative)[:, None] * eofs))
    estimate = np.zeros((*z.shape[:-2], len(window.seconds), z.shape[-1]))
    estimate[..., window.inside, :] = z
    error = model.process.estimate_precision(prior, window.first, window.first + window.size)
    conditioned = prior.with_estimate(torch.as_tensor(estimate), error, torch.as_tensor(scale))
    gain = 1 / (1 + np.nan_to_num(relative, nan=np.inf) ** 2)
    length = len(window.seconds)
    mean = np.zeros((*flat.shape[:-2], length, flat.shape[-1]))
    mean[..., window.inside, :] = np.nan_to_num(left) * gain
    variance = model.residual * (1 - gain)
    if window.size < length:
        # States before and after the background keep the prior's residual.
        each = np.repeat(model.residual[None], length, axis=0)
        each[window.inside] = variance
        variance = each
    return conditioned, Residual(variance, mean)
