"""The observations of an operator as a table: one row each, and what became of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xappa import units
from xappa.cf import from_seconds
from xappa.observe.operator import ObservationOperator
from xappa.observe.spec import ObservationSpec, Status

__all__ = ["observation_table"]


def observation_table(operator: ObservationOperator) -> xr.Dataset:
    """Return all elements of all arrays, one after the other.

    Parameters
    ----------
    operator
        The observations, with statuses and errors as they are used.

    Returns
    -------
    xarray.Dataset
        Along ``obs``: ``observation`` and ``error_std`` in the units of each array,
        ``observation_variance``, ``status`` (a CF flag) and ``reason``; coordinates ``array``,
        ``element``, ``quantity``, ``units``, ``latitude``, ``longitude``, and where they are known
        ``time``, ``air_pressure`` and ``platform``.
    """
    specs = operator.specs
    every = [spec.units for spec in specs]
    unit = every[0] if every and len(set(every)) == 1 else None
    own = {} if unit is None else {"units": unit}
    difference = units.difference_units(unit)
    diff = {} if difference is None else {"units": difference}
    squared = {} if difference is None else {"units": units.squared_units(difference)}

    def joined(parts: list[np.ndarray], dtype: Any = np.float64) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype), *parts])

    def labels(values: list[str]) -> np.ndarray:
        parts = [np.full(s.size, v, object) for s, v in zip(specs, values, strict=True)]
        return joined(parts, object)

    y = joined([units.convert(s.values, s.state_units, s.units) for s in specs])
    std = joined([units.convert(_std(s), s.state_units, s.units, difference=True) for s in specs])
    variance = joined([_variance(operator, k) for k in range(len(specs))])
    status = joined(list(operator.status), np.int8).astype(np.int8)
    reasons = np.array([Status(s).reason for s in range(len(Status))], object)
    data: dict[str, Any] = {
        "observation": ("obs", y, {"long_name": "observed value", **own}),
        "error_std": ("obs", std, {"long_name": "standard deviation of random errors", **diff}),
        "observation_variance": ("obs", variance, {"long_name": "diagonal of R", **squared}),
        "status": ("obs", status, _flags()),
        "reason": ("obs", reasons[status]),
    }
    coords: dict[str, Any] = {
        "array": ("obs", labels([s.name for s in specs])),
        "element": ("obs", joined([np.arange(s.size) for s in specs], np.int64)),
        "quantity": ("obs", labels([s.quantity for s in specs])),
        "units": ("obs", labels(every)),
        "latitude": (
            "obs",
            joined([s.latitude for s in specs]),
            {"standard_name": "latitude", "units": "degrees_north"},
        ),
        "longitude": (
            "obs",
            joined([s.longitude for s in specs]),
            {"standard_name": "longitude", "units": "degrees_east"},
        ),
    }
    time = joined([s.time for s in specs])
    if np.isfinite(time).any():
        about = {"standard_name": "time"}
        coords["time"] = ("obs", from_seconds(time, operator.state.calendar), about)
    if any(s.pressure is not None for s in specs):
        pressure = [np.full(s.size, np.nan) if s.pressure is None else s.pressure for s in specs]
        about = {"standard_name": "air_pressure", "units": "Pa"}
        coords["air_pressure"] = ("obs", joined(pressure), about)
    if any(s.structure is not None and s.structure.bias is not None for s in specs):
        coords["platform"] = ("obs", joined([_platforms(s) for s in specs], object))
    return xr.Dataset(data, coords, {"title": "observations, and an analysis in their space"})


def _flags() -> dict[str, Any]:
    return {
        "standard_name": "status_flag",
        "long_name": "what became of the observation",
        "flag_values": np.array([int(status) for status in Status], np.int8),
        "flag_meanings": " ".join(status.name.lower() for status in Status),
    }


def _variance(operator: ObservationOperator, k: int) -> np.ndarray:
    """Return the diagonal of R in the units of one array; missing where nothing is used."""
    spec, status, block = operator.specs[k], operator.status[k], operator.blocks[k]
    variance = np.full(spec.size, np.nan)
    diagonal = operator.error_covariance.diagonal()[block.used]
    scale = float(units.convert(1.0, spec.state_units, spec.units, difference=True))
    variance[status == Status.USED] = diagonal * scale**2
    return variance


def _std(spec: ObservationSpec) -> np.ndarray:
    """Return standard deviations of random errors, with what a robust likelihood adds."""
    more = None if spec.structure is None else spec.structure.inflation
    return spec.error_std if more is None else np.sqrt(spec.error_std**2 + more)


def _platforms(spec: ObservationSpec) -> np.ndarray:
    bias = None if spec.structure is None else spec.structure.bias
    if bias is None:
        return np.full(spec.size, "", object)
    return np.asarray(np.array(bias.labels, object)[bias.platform])
