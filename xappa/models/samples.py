"""Training data as samples: packed states, their climatology and the anomalies from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xappa.bridge import Layout, StateSpec, pack
from xappa.errors import DataError, GuessWarning, warn
from xappa.models.climatology import SeasonalTerms, regress

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Samples", "check_missing", "present_points", "read_samples"]


@dataclass(frozen=True, eq=False)
class Samples:
    """States to learn from, numpy or dask, without missing values.

    Parameters
    ----------
    states
        Shape (B, T, P): B series of T states at P points.
    seconds
        Times, shape (T,).
    terms
        The harmonics of the climatology.
    coefficients
        Of the climatology, shape (F, P).
    anomalies
        Shape (B T, P).
    freedom
        Degrees of freedom of the anomalies.
    mask
        Which points are part of the state, shape (P,).
    spec
        What the points are.
    rotated
        Whether the anomalies are rotations of a single state.
    """

    states: Any
    seconds: np.ndarray
    terms: SeasonalTerms
    coefficients: np.ndarray
    anomalies: Any
    freedom: int
    mask: np.ndarray
    spec: StateSpec
    rotated: bool = False

    @property
    def series(self) -> int:
        """Number of series B."""
        return int(self.anomalies.shape[0]) // len(self.seconds)

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.anomalies.shape[0])


def read_samples(ds: xr.Dataset, spec: StateSpec) -> Samples:
    """Pack training data and remove their climatology.

    Parameters
    ----------
    ds
        Training data.
    spec
        What `describe` says of them.

    Raises
    ------
    DataError
        If values are missing at some times only, or if a single state is all there is and its
        grid does not go round the globe.
    """
    layout = Layout.of(ds, spec, gaps=True)
    packed = pack(ds, spec, layout)
    if "member" not in packed.dims:
        packed = packed.expand_dims("member")
    packed = packed.transpose("member", "time", "channel", "latitude", "longitude")
    data = packed.data.astype(np.float64)
    states = data.reshape(*data.shape[:2], -1)
    seconds = np.zeros(1) if layout.times is None else layout.times
    mask = present_points(states, spec, "xappa.fit_gaussian")
    if not isinstance(states, np.ndarray):
        states = states.rechunk({1: "auto", 2: -1})
    states = _fill(states)
    if states.shape[0] * states.shape[1] == 1:
        return _rotations(np.asarray(states), seconds, mask, spec)
    terms = SeasonalTerms.choose(seconds, spec.calendar, spec.time_step)
    coefficients = np.asarray(regress(states, seconds, terms))
    anomalies = states - terms.design(seconds) @ coefficients
    anomalies = anomalies.reshape(-1, anomalies.shape[-1])
    freedom = max(1, anomalies.shape[0] - len(coefficients))
    return Samples(states, seconds, terms, coefficients, anomalies, freedom, mask, spec)


def present_points(states: Any, spec: StateSpec, where: str) -> np.ndarray:
    """Return at which points values are always present, shape (P,); elsewhere they never are.

    Parameters
    ----------
    states
        Training data, shape (B, T, P), numpy or dask.
    spec
        What the points are.
    where
        The function that was called, for the error.

    Raises
    ------
    DataError
        If values are missing at some times but not at others, or always and everywhere.
    """
    present = np.isfinite(states)
    always, ever = present.all(axis=(0, 1)), present.any(axis=(0, 1))
    if not isinstance(states, np.ndarray):
        import dask

        always, ever = dask.compute(always, ever)
    check_missing(always, ever, spec, where)
    mask: np.ndarray = always
    return mask


def check_missing(always: np.ndarray, ever: np.ndarray, spec: StateSpec, where: str) -> None:
    """Raise unless each point is always present or never, and some are.

    Parameters
    ----------
    always, ever
        Whether a value is there at all times, or at some, shape (P,).
    spec, where
        As for `present_points`.

    Raises
    ------
    DataError
        See `present_points`.
    """
    if not ever.any():
        raise DataError(
            "the training data are empty: every value is missing",
            where=where,
            expected="finite values",
        )
    if sometimes := int((ever & ~always).sum()):
        per_channel = (ever & ~always).reshape(spec.n_channels, -1).sum(axis=1)
        worst = spec.channel_labels[int(per_channel.argmax())]
        raise DataError(
            "values are missing at some times but not at others",
            where=f"{worst} and others" if (per_channel > 0).sum() > 1 else worst,
            expected="points that are always present, or never (sea points of a land field)",
            got=f"{sometimes} points that are missing at some times",
            remedy="interpolate (ds.interpolate_na), drop the times (ds.dropna), or leave the "
            "variable out (variables=[...])",
        )


def _fill(states: Any) -> Any:
    if isinstance(states, np.ndarray):
        return np.where(np.isfinite(states), states, 0.0)
    import dask.array as da

    return da.where(da.isfinite(states), states, 0.0)


def _rotations(
    states: np.ndarray, seconds: np.ndarray, mask: np.ndarray, spec: StateSpec
) -> Samples:
    """Take the rotations of one global state about the Earth's axis as samples."""
    if not spec.grid.is_periodic:
        raise DataError(
            "a prior cannot be fitted to a single state of a region",
            where="xappa.fit_gaussian",
            expected="two or more states, or one state on a global grid",
            got="1 state",
            remedy="pass a Dataset with more times or members",
        )
    warn(
        "there is a single state: its rotations about the Earth's axis serve as samples, "
        "that is, statistics are taken to be the same at all longitudes",
        GuessWarning,
    )
    shape = (spec.n_channels, *spec.grid.shape)
    field, present = states.reshape(shape), mask.reshape(shape)
    count = np.maximum(present.sum(axis=-1, keepdims=True), 1)
    zonal = np.where(present, field, 0.0).sum(axis=-1, keepdims=True) / count
    anomaly = np.where(present, field - zonal, 0.0)
    anomalies = np.stack([np.roll(anomaly, k, axis=-1).ravel() for k in range(shape[-1])])
    coefficients = np.broadcast_to(zonal, shape).reshape(1, -1)
    return Samples(
        states,
        seconds,
        SeasonalTerms(calendar=spec.calendar),
        coefficients,
        anomalies * mask,
        len(anomalies),
        mask,
        spec,
        rotated=True,
    )
