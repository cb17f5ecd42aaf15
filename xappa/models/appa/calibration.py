"""What a Dataset of states tells of a model: what its autoencoder loses, where nothing is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xappa.bridge import Layout, pack
from xappa.models.samples import present_points

if TYPE_CHECKING:
    import xarray as xr

    from xappa.models.appa.model import AppaModel

__all__ = ["calibrated", "reconstruction_error"]

_STATES_AT_ONCE = 64


def calibrated(model: AppaModel, ds: xr.Dataset) -> AppaModel:
    """Return a model with what is lost and what is missing; see `AppaModel.calibrated`."""
    packed = pack(ds, model.spec, Layout.of(ds, model.spec, gaps=True))
    states = packed.data.reshape(-1, *model.spec.shape)
    flat = states.reshape(1, len(states), -1)
    present = present_points(flat, model.spec, "calibrated").reshape(model.spec.shape)
    known = model.with_normalisation(missing=None if present.all() else np.logical_not(present))
    return known.with_normalisation(reconstruction=reconstruction_error(known, states))


def reconstruction_error(model: AppaModel, states: Any) -> np.ndarray:
    """Return the standard deviation of what the autoencoder loses, by channel.

    Parameters
    ----------
    model
        The model, which knows what points are missing.
    states
        Packed states, shape (N, channel, latitude, longitude), numpy or dask.

    Returns
    -------
    numpy.ndarray
        Area-weighted root mean square error in the state's units, shape (C, 1, 1).
    """
    missing, now = model.normalisation.missing, np.zeros(0)
    present = np.ones(model.spec.shape, bool) if missing is None else ~missing.astype(bool)
    area = model.spec.grid.area_weights() * present
    total = np.zeros(model.spec.n_channels)
    for first in range(0, len(states), _STATES_AT_ONCE):
        part = np.asarray(states[first : first + _STATES_AT_ONCE], dtype=np.float64)
        lost = model.decode_array(model.encode_array(part, now), now) - part
        total += (np.where(present, lost, 0.0) ** 2 * area).sum((0, 2, 3))
    mean = total / len(states) / np.maximum(area.sum((1, 2)), 1e-300)
    std: np.ndarray = np.sqrt(mean)[:, None, None]
    return std
