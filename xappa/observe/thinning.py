r"""Fewer observations: one of each cell (thinning), or the mean of each cell (super-obbing).

Cells are about `length` wide in both directions everywhere on the sphere, and separate for periods
of time, layers of 5 % of the pressure (400 m of altitude), model levels, channels, and platforms
whose biases are estimated. Of a cell with random errors :math:`R_c` a super-observation has the
weights :math:`w_i \propto \sigma_i^{-2}`, the value :math:`w^\top y`, the mean place and time and
the error :math:`w^\top R_c w`; parts of the error that correlate beside independent ones stay as
they are.

References
----------
Lorenc (1981), A global three-dimensional multivariate statistical interpolation scheme,
doi:10.1175/1520-0493(1981)109<0701:AGTDMS>2.0.CO;2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from xappa.grid import EARTH_RADIUS, great_circle
from xappa.observe.spec import ObservationSpec, Status

__all__ = ["superobbed", "thinned"]

_LAYER = 0.05
#: Metres of altitude that are about as deep as such a layer.
_DEPTH = 400.0


def thinned(
    spec: ObservationSpec, used: np.ndarray, length: float, period: float | None
) -> ObservationSpec:
    """Keep one observation of each cell: that of the least error, or the nearest to the centre.

    Parameters
    ----------
    spec
        The observations.
    used
        Which elements may be kept, (m,) int64.
    length
        Width of the cells in metres.
    period
        Length of their periods in seconds; None for each time by itself.

    Returns
    -------
    ObservationSpec
        The others have the status THINNED.
    """
    if not used.size:
        return spec
    cell, away = _cells(spec, used, length, period)
    best = np.lexsort((used, away.round(1), spec.error_std[used], cell))
    first = np.ones(len(best), bool)
    first[1:] = np.diff(cell[best]) != 0
    status = spec.status.copy()
    status[used[best[~first]]] = Status.THINNED
    return replace(spec, status=status)


def superobbed(
    spec: ObservationSpec, used: np.ndarray, length: float, period: float | None
) -> ObservationSpec:
    """Replace the observations of each cell by their mean, which one of them carries.

    Observations that are means over areas or intervals, or that say more of themselves than where
    they are (averaging kernels, altitudes), have no mean of their own kind: they are thinned.

    Parameters
    ----------
    spec, used, length, period
        As of `thinned`.

    Returns
    -------
    ObservationSpec
        The one nearest to the centre of its cell carries value, place and error of the mean; the
        others have the status MERGED.
    """
    if not used.size or spec.footprint is not None or spec.arguments:
        return thinned(spec, used, length, period)
    cell, away = _cells(spec, used, length, period)
    parts = {
        name: getattr(spec, name).copy()
        for name in ("values", "error_std", "latitude", "longitude", "time", "status")
    }
    pressure = None if spec.pressure is None else spec.pressure.copy()
    for members in _groups(cell):
        if len(members) == 1:
            continue
        own = used[members]
        carrier = own[np.argmin(away[members].round(1))]
        w = spec.error_std[own] ** -2.0
        w /= w.sum()
        parts["status"][own] = Status.MERGED
        parts["status"][carrier] = Status.USED
        parts["values"][carrier] = w @ spec.values[own]
        parts["error_std"][carrier] = np.sqrt(w @ (_random(spec, own) @ w))
        parts["time"][carrier] = w @ spec.time[own]
        place = _mean_place(spec.latitude[own], spec.longitude[own], w)
        parts["latitude"][carrier], parts["longitude"][carrier] = place
        if pressure is not None and spec.pressure is not None:
            pressure[carrier] = np.exp(w @ np.log(spec.pressure[own]))
    return replace(spec, **parts, pressure=pressure)


def _random(spec: ObservationSpec, own: np.ndarray) -> np.ndarray:
    """R of what `error_std` holds: all random errors, or those beside correlated ones."""
    std = spec.error_std[own]
    structure = spec.structure
    if structure is None or structure.correlated_std is not None:
        return np.diag(std**2)
    return np.asarray(structure.random_covariance(std, own).toarray())


def _cells(
    spec: ObservationSpec, used: np.ndarray, length: float, period: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each element, (m,) int64, and how far from its centre it is, metres."""
    lat, lon = spec.latitude[used], spec.longitude[used]
    rows = max(1, round(np.pi * EARTH_RADIUS / length))
    row = np.clip(((lat + 90.0) / 180.0 * rows).astype(np.int64), 0, rows - 1)
    middle = (row + 0.5) / rows * 180.0 - 90.0
    around = 2 * np.pi * EARTH_RADIUS * np.cos(np.radians(middle))
    columns = np.maximum(1, np.round(around / length)).astype(np.int64)
    column = ((lon % 360.0) / 360.0 * columns).astype(np.int64) % columns
    away = great_circle(lat, lon, middle, (column + 0.5) / columns * 360.0)
    time = spec.time[used]
    keys = [row, column, np.nan_to_num(time if period is None else np.floor(time / period))]
    pressure = spec.arguments.get("air_pressure", spec.pressure)
    if pressure is not None:
        keys.append(np.round(np.log(pressure[used]) / _LAYER))
    if "altitude" in spec.arguments:
        keys.append(np.round(spec.arguments["altitude"][used] / _DEPTH))
    keys += [part[used] for part in (spec.level, spec.kind) if part is not None]
    if spec.footprint is not None and spec.footprint.interval is not None:
        keys.append(np.diff(spec.footprint.interval[used])[:, 0])
    if spec.structure is not None and spec.structure.bias is not None:
        keys.append(spec.structure.bias.platform[used])
    _, cell = np.unique(np.stack(keys), axis=1, return_inverse=True)
    return np.asarray(cell).reshape(-1), away


def _groups(cell: np.ndarray) -> Iterator[np.ndarray]:
    order = np.argsort(cell, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(cell[order])) + 1)


def _mean_place(lat: np.ndarray, lon: np.ndarray, w: np.ndarray) -> tuple[float, float]:
    """Return the weighted mean of places on the sphere, degrees."""
    phi, lam = np.radians(lat), np.radians(lon)
    x, y, z = (
        w @ part for part in (np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi))
    )
    east = float(np.degrees(np.arctan2(y, x)))
    # in the convention of the observations
    turned = lon[0] + (east - lon[0] + 180.0) % 360.0 - 180.0
    return float(np.degrees(np.arctan2(z, np.hypot(x, y)))), float(turned)
