"""What tells the observations of an array apart, beside where and when they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from xappa.observe.ancillary import is_companion, on_elements
from xappa.observe.footprint import Footprint
from xappa.observe.positions import Positions

__all__ = ["duplicates", "kinds"]

_CHANNELS = ("channel", "band", "sensor", "instrument", "satellite", "sensor_channel", "wavelength")
_IDENTITIES = ("station", "station_id", "platform", "platform_id", "id", "wmo_id", "stationid")


def kinds(array: xr.DataArray, positions: Positions) -> np.ndarray | None:
    """Return the number (n,) of the kind of each element, such as its channel.

    Elements of different kinds differ along a dimension that no position has, or in a coordinate
    that is named as channels and instruments are.

    Parameters
    ----------
    array
        The observations.
    positions
        Where and when they were made.

    Returns
    -------
    (n,) int64, or None where all are of one kind
    """
    axes = positions.axes
    named = (axes.latitude, axes.longitude, axes.time, axes.vertical)
    placed = {dim for name in named if name for dim in array.coords[name].dims}
    own = [size if dim not in placed else 1 for dim, size in array.sizes.items()]
    numbers = np.arange(int(np.prod(own))).reshape(own)
    kind = np.asarray(np.broadcast_to(numbers, array.shape).reshape(-1))
    apart = [c for n, c in array.coords.items() if str(n).lower() in _CHANNELS and c.ndim]
    for coord in apart:
        flat = on_elements(coord.reset_coords(drop=True), array)
        if flat is not None:
            code, labels = pd.factorize(flat)
            kind = kind * (len(labels) + 1) + code
    return kind if kind.size and (kind != kind[0]).any() else None


def _labels(array: xr.DataArray) -> list[np.ndarray]:
    """Return numbers (n,) of names of stations and instruments."""
    columns = []
    for coord in array.coords.values():
        known = str(coord.name).lower() in _IDENTITIES
        tells = coord.dtype.kind in "OSU" or "cf_role" in coord.attrs or known
        if tells and coord.ndim and not is_companion(coord):
            flat = on_elements(coord.reset_coords(drop=True), array)
            if flat is not None:
                columns.append(np.asarray(pd.factorize(flat)[0]))
    return columns


def duplicates(
    array: xr.DataArray,
    positions: Positions,
    values: np.ndarray,
    kind: np.ndarray | None,
    arguments: Mapping[str, np.ndarray],
    footprint: Footprint | None,
    usable: np.ndarray,
) -> np.ndarray:
    """Tell which elements repeat an earlier one: the same value of the same place, time and kind.

    Parameters
    ----------
    array
        The observations, with the names of stations and instruments.
    positions
        Where and when they were made.
    values
        (n,)
    kind
        (n,) from `kinds`.
    arguments
        (n,) or (n, K), what else they say of themselves.
    footprint
        Over what they are means; None for values at points.
    usable
        (n,) bool, which elements count.

    Returns
    -------
    (n,) bool
    """
    columns = [positions.latitude, positions.longitude % 360.0, positions.time, values]
    columns += [at for at in (positions.pressure, positions.level, kind) if at is not None]
    columns += _labels(array)
    parts: Sequence[np.ndarray | None] = list(arguments.values())
    if footprint is not None:
        parts = [*parts, footprint.interval, footprint.box, footprint.radius, footprint.corners]
    for part in parts:
        if part is not None:
            columns += list(part.reshape(len(part), -1).T)
    table = pd.DataFrame(dict(enumerate(columns)))[usable]
    repeated = np.zeros(usable.shape, bool)
    repeated[usable] = table.duplicated().to_numpy()
    return repeated
