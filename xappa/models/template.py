"""Empty Datasets on a model's grid: where to assimilate when there is no background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from xappa.cf import convert_calendar, from_seconds, to_seconds
from xappa.errors import ArgumentError, TimeStepError
from xappa.models.statistics import coordinates, level_coordinates, variable_attrs

if TYPE_CHECKING:
    from xappa.models.base import Model

__all__ = ["template"]

_EPOCH, _SECOND = np.datetime64(0, "us"), np.timedelta64(1, "s")


def template(model: Model, start: Any, stop: Any = None) -> xr.Dataset:
    """Return an empty Dataset on the model's grid; see `Model.template`."""
    spec = model.spec
    seconds = _times(model, start, stop)
    levels = level_coordinates(spec)
    time_attrs = {"standard_name": "time", "axis": "T"}
    coords = {
        "time": ("time", from_seconds(seconds, spec.calendar), time_attrs),
        **dict(levels.values()),
        **coordinates(spec),
    }
    variables = {}
    for variable in spec.variables:
        dims: tuple[str, ...] = ("time", "latitude", "longitude")
        if variable in levels:
            dims = ("time", levels[variable][0], "latitude", "longitude")
        shape = tuple(np.size(coords[dim][1]) for dim in dims)
        attrs = variable_attrs(variable)
        # One NaN seen from everywhere: no memory, and results are computed at once, unlike dask's.
        data = np.broadcast_to(np.float32(np.nan), shape)
        variables[variable.name] = xr.Variable(dims, data, attrs)
    out = xr.Dataset(variables, coords)
    heights = {variable.height for variable in spec.variables}
    if len(heights) == 1 and (height := heights.pop()) is not None:
        # A scalar coordinate belongs to every variable, so that it must be true of all of them.
        attrs = {"standard_name": "height", "units": "m", "positive": "up"}
        out = out.assign_coords(height=((), height, attrs))
    out.attrs = {"Conventions": "CF-1.11", "xappa_model": model.label}
    return out


def _times(model: Model, start: Any, stop: Any) -> np.ndarray:
    calendar = model.spec.calendar
    first = _seconds(start, calendar)
    last = first if stop is None else _seconds(stop, calendar)
    step = model.spec.time_step
    if last < first:
        raise TimeStepError(
            "the template would end before it starts",
            where="model.template",
            expected="stop at or after start",
            got=f"{start} to {stop}",
        )
    if last == first:
        return np.array([first])
    if step is None:
        raise TimeStepError(
            "the model has no time step, so that its templates have a single time",
            where="model.template",
            expected="stop=None",
            got=str(stop),
        )
    return first + step * np.arange(int((last - first) / step + 1e-6) + 1)


def _seconds(time: Any, calendar: str) -> float:
    own = "proleptic_gregorian"
    if hasattr(time, "calendar"):
        values = xr.DataArray(np.array([time], dtype=object), dims="time")
        seconds, own = to_seconds(values)
    else:
        try:
            moment = pd.Timestamp(time.item() if isinstance(time, xr.DataArray) else time)
            if moment.tzinfo is not None:
                moment = moment.tz_convert("UTC").tz_localize(None)
            seconds = (
                np.array([moment.to_datetime64()]).astype("datetime64[us]") - _EPOCH
            ) / _SECOND
        except (ValueError, TypeError) as error:
            raise _no_time(time) from error
    converted = float(convert_calendar(np.asarray(seconds), own, calendar)[0])
    if not np.isfinite(converted):
        raise _no_time(time, f" of the calendar {calendar}")
    return converted


def _no_time(time: Any, kind: str = "") -> ArgumentError:
    return ArgumentError(
        f"this is no time{kind}",
        where="model.template",
        expected="text such as '2021-03-01T06:00', a datetime, or a cftime date",
        got=repr(time),
    )
