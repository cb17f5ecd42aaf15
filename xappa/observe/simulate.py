"""Simulated observations: equivalents of a known state plus noise drawn from R.

The noise of an array at one valid time is one stream, keyed by (seed, array name, member, valid
time), and is drawn for all its observations there, used or not. So the same observation receives
the same noise whatever the window, the other arrays, the chunks or the flags.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from xappa import units
from xappa.diffusion.noise import generator, member_keys
from xappa.observe.ancillary import ERROR_MODIFIER, modifier
from xappa.observe.equivalents import equivalents
from xappa.observe.error import ERROR_COORDINATE
from xappa.observe.flags import rejected_by_flags
from xappa.observe.operator import ObservationOperator
from xappa.observe.spec import ObservationSpec, Status, assemble

__all__ = ["observation_noise", "simulate"]


def simulate(operator: ObservationOperator, ds: xr.Dataset, *, seed: int) -> Any:
    """Simulate the observations that a network would make of a known state.

    Parameters
    ----------
    operator
        The observation operator of real observations, or of a network: an array whose values are
        all NaN is filled everywhere but where flags among its coordinates say that there is no
        report; an array with some values keeps its gaps, and loses what its flags reject.
    ds
        The true states, on the operator's grid. May be lazy, and may have members, each of which
        is observed with noise of its own.
    seed
        Seed of the noise; the same seed gives the same noise.

    Returns
    -------
    DataArray, Dataset, list, tuple or dict
        As the observations were given, in their units. The errors go along: as coordinate
        ``error_std`` of a DataArray, as ancillary variable in a Dataset. NaN where nothing can be
        observed or the error is not known.

    Raises
    ------
    HandshakeError
        If `ds` does not fit the operator's state.
    """
    arrays, places = [], []
    for spec, exact in zip(operator.specs, equivalents(operator, ds), strict=True):
        in_dataset = bool(spec.place) and spec.place[-1].container == "dataset"
        noisy = _with_noise(spec, exact, seed)
        error = _error_array(spec)
        if in_dataset:
            name = f"{spec.place[-1].key}_error_std"
            noisy.attrs["ancillary_variables"] = name
            place = (*spec.place[:-1], _sibling(spec, name))
            arrays += [noisy, error.rename(name)]
            places += [spec.place, place]
        else:
            arrays.append(noisy.assign_coords({ERROR_COORDINATE: error}))
            places.append(spec.place)
    return assemble(places, arrays, whole=True)


def observation_noise(
    spec: ObservationSpec, seed: int, member: int | None = None, *, purpose: str = "observation"
) -> np.ndarray:
    """Draw the errors of one observation array from R.

    Parameters
    ----------
    spec
        The observation array.
    seed
        The user's seed.
    member
        Number of the member that is observed, if there are members.
    purpose
        What the noise is for: streams of different purposes are independent.

    Returns
    -------
    (n,) float64
        In `spec.state_units`; NaN where the error is not known.
    """
    noise = np.zeros(spec.size)
    keys: tuple[str | int, ...] = (spec.name,) if member is None else (spec.name, member)
    times, which, counts = np.unique(spec.time, return_inverse=True, return_counts=True)
    order, begin = np.argsort(which, kind="stable"), 0
    for time, count in zip(times, counts, strict=True):
        moment = "no time" if np.isnan(time) else float(time)
        stream = generator(seed, purpose, *keys, moment)
        noise[order[begin : begin + count]] = stream.standard_normal(count)
        begin += count
    if spec.structure is None:
        return np.asarray(noise * spec.error_std)
    return spec.structure.draw(spec.error_std, noise, seed, purpose, *keys)


def _with_noise(spec: ObservationSpec, exact: xr.DataArray, seed: int) -> xr.DataArray:
    """Add noise to equivalents, and leave the gaps of real observations open."""
    plain = units.dequantify(exact)
    shape = spec.template.shape
    if plain.ndim > len(shape):
        # The member dimension comes first.
        labels = plain.coords.get(plain.dims[0])
        members = member_keys(None if labels is None else labels.values, plain.shape[0])
        drawn = np.stack([observation_noise(spec, seed, member) for member in members])
        drawn = drawn.reshape(len(members), *shape)
    else:
        drawn = observation_noise(spec, seed).reshape(shape)
    drawn = units.convert(drawn, spec.state_units, spec.units, difference=True)
    gaps = _gaps(spec).reshape(shape)
    data = plain.data + np.where(gaps, np.nan, drawn).astype(plain.dtype)
    noisy = plain.copy(data=data)
    stale = [name for name, coord in noisy.coords.items() if _is_error(name, coord)]
    noisy = noisy.drop_vars(stale)
    said = f"xappa: simulated observations, noise drawn from R with seed {seed}"
    history = noisy.attrs.get("history")
    noisy.attrs["history"] = said if not history else f"{history}\n{said}"
    noisy.attrs["xappa_seed"] = seed if seed < 2**63 else str(seed)
    for key in ("error_std", "standard_error"):
        noisy.attrs.pop(key, None)
    return units.requantify(noisy, {k: u for k, u in spec.quantified.items() if k not in stale})


def _gaps(spec: ObservationSpec) -> np.ndarray:
    """Return (n,) bool, which elements are not observed."""
    rejected = spec.status == Status.FLAGGED
    if not spec.is_template:
        return np.asarray(rejected | (spec.status == Status.MISSING))
    # all of a network is missing so far: its flags say what will be
    return np.asarray(rejected | rejected_by_flags(spec.template, None)[0])


def _is_error(name: Hashable, coord: xr.DataArray) -> bool:
    return name == ERROR_COORDINATE or modifier(coord) == ERROR_MODIFIER


def _error_array(spec: ObservationSpec) -> xr.DataArray:
    """Return standard deviations in the observations' units; a scalar where all are equal."""
    std = units.convert(spec.error_std, spec.state_units, spec.units, difference=True)
    attrs = {"standard_name": f"{spec.quantity} {ERROR_MODIFIER}", "units": spec.units}
    attrs["long_name"] = "standard deviation of the observation error"
    if std.size and (std == std[0]).all():
        return xr.DataArray(std[0], attrs=attrs)
    positions = {
        name: coord for name, coord in spec.template.coords.items() if not _is_error(name, coord)
    }
    shape = spec.template.shape
    return xr.DataArray(std.reshape(shape), positions, spec.template.dims, None, attrs)


def _sibling(spec: ObservationSpec, name: str) -> Any:
    from dataclasses import replace

    return replace(spec.place[-1], key=name)
