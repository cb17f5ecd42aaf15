"""The arrays of a network: all NaN, with coordinates, errors and the reports that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa import units
from xappa.cf import PRESSURE, from_seconds, timedelta_seconds, to_seconds
from xappa.diffusion.noise import generator
from xappa.errors import ArgumentError
from xappa.observe.networks.instruments import Channel, Instrument

__all__ = [
    "FLAG",
    "about",
    "dates",
    "flags",
    "metres",
    "network",
    "regular_times",
    "time_coordinate",
    "with_dropouts",
]

FLAG = "status_flag"
VALID, MISSING = 0, 1


def network(
    instrument: Instrument,
    coords: Mapping[str, Any],
    dims: Sequence[str],
    *,
    levels_before: str,
    attrs: Mapping[str, Any],
) -> Any:
    """Return the arrays of a network.

    Parameters
    ----------
    instrument
        What is measured.
    coords
        Coordinates other than levels and height.
    dims
        The dims of a variable without levels.
    levels_before
        The dim before which levels come.
    attrs
        Attributes that are the same for all variables.

    Returns
    -------
    DataArray, or a Dataset where the user asked for several variables
    """
    sizes = {dim: size for part in coords.values() for dim, size in _sizes(part).items()}
    heights = {channel.variable.height for channel in instrument.channels}
    # scalar coordinates of a Dataset are those of all its variables; names tell heights apart
    height = heights.pop() if len(heights) == 1 else None
    arrays: dict[str, xr.DataArray] = {}
    levels: dict[tuple[float, ...], str] = {}
    for channel in instrument.channels:
        own, at = dict(coords), list(dims)
        if channel.levels is not None:
            kind = channel.variable.vertical
            label, unit = (kind, "Pa") if kind == PRESSURE else ("level", "1")
            first = label if not levels else f"{label}_{channel.variable.name}"
            name = levels.setdefault(channel.levels, first)
            own[name] = (name, np.array(channel.levels), about(kind, unit, "down"))
            at.insert(at.index(levels_before), name)
        elif height is not None:
            own["height"] = ((), height, about("height", "m", "up"))
        shape = [len(channel.levels or ()) if dim not in sizes else sizes[dim] for dim in at]
        said = _attrs(instrument, channel, own) | dict(attrs)
        name = channel.variable.name
        arrays[name] = xr.DataArray(np.full(shape, np.nan), own, at, name, said)
    return next(iter(arrays.values())) if instrument.alone else xr.Dataset(arrays)


def _sizes(coordinate: Any) -> dict[str, int]:
    if isinstance(coordinate, xr.DataArray):
        return {str(dim): size for dim, size in coordinate.sizes.items()}
    dims, values = coordinate[:2]
    dims = (dims,) if isinstance(dims, str) else tuple(dims)
    return dict(zip(dims, np.shape(values), strict=True))


def _attrs(instrument: Instrument, channel: Channel, coords: Mapping[str, Any]) -> dict[str, Any]:
    attrs: dict[str, Any] = {"units": channel.units, "error_std": channel.error}
    attrs["long_name"] = channel.long_name
    if channel.variable.standard_name:
        attrs["standard_name"] = channel.variable.standard_name
    if channel.bias_std is not None:
        attrs["bias_error_std"] = channel.bias_std
        attrs["bias_platform"] = "platform" if "platform" in coords else "station"
    if FLAG in coords:
        attrs["ancillary_variables"] = FLAG
    if instrument.seed is not None:
        attrs["xappa_network_seed"] = instrument.seed
    return attrs


def about(standard_name: str, unit: str, positive: str | None = None) -> dict[str, str]:
    """Return the attributes of a coordinate."""
    attrs = {"standard_name": standard_name, "units": unit}
    return attrs if positive is None else {**attrs, "positive": positive}


def flags(missing: np.ndarray, dims: Sequence[str]) -> tuple[Any, np.ndarray, dict[str, Any]]:
    """Return the coordinate that says which reports are missing.

    Parameters
    ----------
    missing
        bool, along `dims`.
    dims
        Dims of the network, without levels.
    """
    attrs = {
        "standard_name": "status_flag",
        "long_name": "whether a report was sent",
        "flag_values": np.array([VALID, MISSING], np.int8),
        "flag_meanings": "valid missing",
    }
    return tuple(dims), np.where(missing, MISSING, VALID).astype(np.int8), attrs


def with_dropouts(
    instrument: Instrument, kind: str, times: npt.ArrayLike | None, shape: Sequence[int]
) -> np.ndarray | None:
    r"""Draw which reports are missing.

    The draws of one time are a stream of their own: a report is missing whatever the window, and
    whatever the number of stations behind its own.

    Parameters
    ----------
    instrument
        Says how many are missing, and the seed.
    kind
        The kind of network, so that networks of one seed differ.
    times
        (T,) seconds, or None.
    shape
        Of the reports of one time.

    Returns
    -------
    bool (T, \*shape), without T if `times` is None or a scalar; None where none is missing
    """
    if instrument.seed is None:
        return None
    moments = [None] if times is None else np.atleast_1d(times).tolist()
    drawn = np.empty((len(moments), *shape), bool)
    for k, moment in enumerate(moments):
        known = moment is not None and np.isfinite(moment)
        stream = generator(instrument.seed, "dropout", kind, moment if known else "no time")
        drawn[k] = stream.random(tuple(shape)) < instrument.dropout
    return drawn if np.ndim(times if times is not None else 0.0) else drawn[0]


def time_coordinate(ds: xr.Dataset, name: str | None, times: Any) -> xr.DataArray | None:
    """Return the time coordinate of a network: a vector, a scalar, or None.

    Parameters
    ----------
    ds
        Gives the times unless `times` does.
    name
        Its time coordinate.
    times
        What the user asked for.
    """
    if times is None and name is None:
        return None
    return dates(ds[name] if times is None else times)


def dates(times: npt.ArrayLike | xr.DataArray) -> xr.DataArray:
    """Return times as a coordinate ``time``, a vector or a scalar.

    Parameters
    ----------
    times
        datetime64, text, cftime, or a coordinate.
    """
    values = np.asarray(times.values if isinstance(times, xr.DataArray) else times)
    if values.dtype.kind in "US":
        values = values.astype("datetime64[ns]")
    if values.dtype.kind in "iuf" and isinstance(times, xr.DataArray):
        values = from_seconds(*to_seconds(times))  # months of a climatology, or undecoded numbers
    attrs = {"standard_name": "time", "axis": "T"}
    return xr.DataArray(values, dims=("time",) * values.ndim, name="time", attrs=attrs)


def regular_times(instrument: Instrument, interval: Any) -> np.ndarray:
    """Return the multiples of an interval since 1970-01-01 in the window.

    Parameters
    ----------
    instrument
        Has the window.
    interval
        A duration such as ``"6h"``.

    Returns
    -------
    (T,) float64 seconds

    Raises
    ------
    ArgumentError
        If the interval is not positive.
    CoordinateError
        If the Dataset has no times.
    """
    step = timedelta_seconds(interval)
    if not step > 0:
        raise ArgumentError(
            "the time between observations is not positive",
            where=f"{instrument.where}, interval=",
            expected="a duration such as '6h'",
            got=repr(interval),
        )
    first, last = instrument.need_window()
    # a microsecond of slack: times that were stored as days are not exact multiples
    begin, end = np.ceil(first / step - 1e-9), np.floor(last / step + 1e-9)
    return np.asarray(np.clip(np.arange(begin, end + 1) * step, first, last))


def metres(given: float | str, where: str) -> float:
    """Return a length: metres, or text with a unit such as ``"800 km"``.

    Raises
    ------
    ArgumentError
        If it cannot be read, or is not positive.

    Examples
    --------
    >>> metres("800 km", "altitude=")
    800000.0
    """
    try:
        value = units.metres(given)
    except (TypeError, ValueError):
        value = np.nan
    if not (np.isfinite(value) and value > 0):
        raise ArgumentError(
            "this is no length",
            where=where,
            expected="metres, or a length such as '800 km', positive",
            got=repr(given),
        )
    return value
