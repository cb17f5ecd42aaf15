"""Observations from IODA, the files of JEDI: groups of variables along locations and channels.

``ObsValue/airTemperature`` holds values, ``ObsError/airTemperature`` the standard deviations of
their errors, ``QualityMarker`` or ``PreQC`` a marker, ``MetaData`` where and when. Older files name
variables in snake case, or keep groups in the names of variables (``air_temperature@ObsValue``).

What is missing holds a fill value, whatever the attributes say: floats beyond 1e30, integers
within ten of the ends of their type.

References
----------
- JEDI documentation, IODA conventions, https://jointcenterforsatellitedataassimilation-jedi-docs
  .readthedocs-hosted.com/en/latest/inside/conventions
- IODA, ``share/ioda/yaml/validation/ObsSpace.yaml``, https://github.com/JCSDA/ioda
- PrepBUFR quality markers, https://www.emc.ncep.noaa.gov/mmb/data_processing/prepbufr.doc/table_7.htm
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xappa.errors import (
    CoordinateError,
    DataError,
    GuessWarning,
    ObservationTypeError,
    UnknownQuantityError,
    warn,
)
from xappa.observe.ancillary import ERROR_MODIFIER
from xappa.observe.sources.ioda_names import NO_UNITS, QUANTITIES
from xappa.observe.sources.layout import (
    LARGEST,
    POSITION_ATTRS,
    checked_longitude,
    implied_units,
    quality_flag,
)
from xappa.units import convert

__all__ = ["from_ioda"]

_LOCATION, _CHANNEL = ("Location", "nlocs"), ("Channel", "nchans")
_MARKERS = ("QualityMarker", "PreQC")
_USABLE = range(4)
_MISSING_TEXT = ("*** MISSING ***", "_", "")
#: Names in MetaData of what places observations, the first that holds anything first.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "latitude": ("latitude",),
    "longitude": ("longitude",),
    "air_pressure": ("pressure", "air_pressure"),
    "altitude": ("height", "altitude", "stationElevation", "station_elevation"),
}
_TIME, _TEXT_TIME, _OFFSET = "dateTime", "datetime", "time"
_STATION = ("stationIdentification", "station_id", "satelliteIdentifier")
_CHANNEL_NUMBER = ("sensorChannelNumber", "sensor_channel")


def from_ioda(
    source: str | os.PathLike[str] | xr.DataTree | xr.Dataset | Mapping[str, xr.Dataset],
    *,
    variables: Sequence[str] | None = None,
) -> xr.Dataset:
    """Read observations in IODA's layout, of any of its versions.

    The errors of ``ObsError`` come along, and the markers of ``QualityMarker`` (or ``PreQC``, its
    former name) as flags: 0 to 3 may be used, all others are rejected, as GSI does with PrepBUFR's
    markers (0 keep, 1 good, 2 not checked, 3 suspect, 4 to 15 rejected); a missing one rejects
    nothing. JEDI's own filter takes only 0 unless it is told another limit.

    Parameters
    ----------
    source
        Path of a NetCDF file; or its groups, as a DataTree or a dict of Datasets by name; or a
        Dataset whose variables name their groups (``latitude@MetaData``).
    variables
        Names in ``ObsValue`` to read; by default all that are known.

    Returns
    -------
    xarray.Dataset
        The variables under their own names, along ``Location`` (and ``Channel``), with latitude,
        longitude, time, and as far as known air_pressure (Pa), altitude (m), station and channel
        as coordinates. What `assimilate` and `operator` take; no location at all is legal.

    Raises
    ------
    DataError
        If a group is missing or empty, or the file cannot be read.
    CoordinateError
        If ``MetaData`` lacks positions or times.
    UnknownQuantityError
        If no variable is known, or one that is asked for is not there.
    ObservationTypeError
        If `source` is something else.

    Warns
    -----
    GuessWarning
        If variables are not known: they are left out.

    Examples
    --------
    >>> place = {"latitude": ("Location", [50.0]), "longitude": ("Location", [0.0])}
    >>> time = ("Location", [0], {"units": "seconds since 2020-01-01T00:00:00Z"})
    >>> groups = {
    ...     "MetaData": xr.Dataset({**place, "dateTime": time}),
    ...     "ObsValue": xr.Dataset({"airTemperature": ("Location", [280.0], {"units": "K"})}),
    ... }
    >>> from_ioda(groups).airTemperature.standard_name
    'air_temperature'
    """
    groups, attrs = _groups(source)
    observed, meta = _needed(groups, "ObsValue"), _needed(groups, "MetaData")
    names = _chosen(observed, variables)
    location = _dimension(meta, observed)
    coords = _coordinates(meta, location, attrs)
    data: dict[Hashable, xr.Variable] = {}
    for name in names:
        data.update(_variable(name, observed[name], groups))
    dims = {dim for variable in data.values() for dim in variable.dims}
    coords = {n: v for n, v in coords.items() if set(v.dims) <= dims}
    ds = xr.Dataset(data, coords)
    old = {_LOCATION[1]: _LOCATION[0], _CHANNEL[1]: _CHANNEL[0]}
    return ds.rename_dims({a: b for a, b in old.items() if a in ds.dims and b not in ds.dims})


def _groups(source: Any) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Return groups by name, undecoded if they come from a file, and global attributes."""
    if isinstance(source, (str, os.PathLike)):
        groups = _open(source)
    elif isinstance(source, xr.DataTree):
        groups = {node.path: node.to_dataset(inherit=False) for node in source.subtree}
    elif isinstance(source, xr.Dataset):
        groups = {"/": source}
    elif isinstance(source, Mapping) and all(isinstance(v, xr.Dataset) for v in source.values()):
        groups = {str(name): ds for name, ds in source.items()}
    else:
        raise ObservationTypeError(
            "from_ioda wants the groups of an IODA file",
            where="source",
            expected="a path, a DataTree, a Dataset, or a dict of Datasets by group",
            got=f"{type(source).__module__}.{type(source).__qualname__}",
            remedy="xr.open_datatree(path), or from_ioda(path)",
        )
    named = {name.strip("/").rpartition("/")[2]: ds for name, ds in groups.items()}
    root = named.pop("", xr.Dataset())
    for name, variable in root.variables.items():
        plain, at, group = str(name).partition("@")
        if at:
            named[group] = named.get(group, xr.Dataset()).assign({plain: variable})
    return named, dict(root.attrs)


def _open(path: str | os.PathLike[str]) -> dict[str, xr.Dataset]:
    """Read all groups; fill values and times stay as they are stored."""
    wanted = ("", "MetaData", "ObsValue", "ObsError", *_MARKERS)
    try:
        opened = xr.open_groups(path, engine="netcdf4", mask_and_scale=False, decode_times=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            "the file cannot be read",
            where=str(path),
            expected="NetCDF-4 with groups, as IODA writes it",
            got=str(error).splitlines()[0],
            remedy="check that the file is whole; ODB files have to be converted first",
        ) from error
    try:
        return {
            name: ds.load()
            for name, ds in opened.items()
            if name.strip("/").rpartition("/")[2] in wanted
        }
    finally:
        for ds in opened.values():
            ds.close()


def _needed(groups: Mapping[str, xr.Dataset], name: str) -> xr.Dataset:
    if name in groups and groups[name].variables:
        return groups[name]
    there = ", ".join(f"{key} ({len(ds.variables)})" for key, ds in groups.items())
    raise DataError(
        f"the group {name} is {'empty' if name in groups else 'missing'}",
        where=f"group {name}",
        expected="variables in the groups MetaData and ObsValue",
        got=f"groups with their numbers of variables: {there or 'none'}",
        remedy="check that it is an observation file of IODA, not a diagnostic or a bias file",
    )


def _chosen(observed: xr.Dataset, variables: Sequence[str] | None) -> list[str]:
    """Return the names of the variables to read."""
    there = [str(name) for name in observed.variables if name not in (*_LOCATION, *_CHANNEL)]
    wanted = (
        there if variables is None else [variables] if isinstance(variables, str) else variables
    )
    known = [name for name in wanted if name in there and name in QUANTITIES]
    left = [name for name in wanted if name not in known]
    if not known or (variables is not None and left):
        raise UnknownQuantityError(
            "no variable in ObsValue is known" if variables is None else f"{left[0]} is not known",
            where="group ObsValue",
            expected="such as airTemperature, windEastward, specificHumidity, stationPressure",
            got=", ".join(there),
            remedy="rename it, as IODA's conventions have it",
        )
    if left:
        warn(f"variables that are not known are left out: {', '.join(left[:8])}", GuessWarning)
    return known


def _dimension(meta: xr.Dataset, observed: xr.Dataset) -> str:
    """Return the name of the dimension of locations, which both groups have with one size."""
    for name in _LOCATION:
        if name in meta.sizes and meta.sizes[name] == observed.sizes.get(name):
            return name
    raise CoordinateError(
        "MetaData and ObsValue do not have the same locations",
        where="groups MetaData and ObsValue",
        expected=f"a dimension {_LOCATION[0]!r} (once {_LOCATION[1]!r}) of one size in both",
        got=f"{dict(meta.sizes)} and {dict(observed.sizes)}",
        remedy="check that the file is whole, or rename the dimension",
    )


def _numbers(variable: xr.DataArray) -> np.ndarray:
    """Return values as float64; NaN for fill values."""
    stored = np.asarray(variable.values)
    if stored.dtype.kind not in "iuf":
        return np.full(stored.shape, np.nan)
    values = stored.astype(np.float64)
    with np.errstate(invalid="ignore"):
        missing = ~(np.abs(values) < LARGEST)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize > 1:
        limits = np.iinfo(stored.dtype)
        low = stored < limits.min + 10 if stored.dtype.kind == "i" else False
        missing |= low | (stored > limits.max - 10)
    for key in ("_FillValue", "missing_value"):
        given = variable.attrs.get(key, variable.encoding.get(key))
        if isinstance(given, (int, float, np.number)):
            missing |= stored == given
    values[missing] = np.nan
    return values


def _coordinates(
    meta: xr.Dataset, location: str, attrs: Mapping[str, Any]
) -> dict[str, xr.Variable]:
    """Return coordinates from MetaData."""
    coords = {}
    for role, names in _PLACES.items():
        values = None
        for name in (n for n in names if n in meta.variables and meta[n].dims == (location,)):
            found = _in_units(role, _numbers(meta[name]), meta[name])
            values = found if values is None else np.where(np.isnan(values), found, values)
        if values is None and role in ("latitude", "longitude"):
            raise _lacks(role, meta)
        needed = role in ("latitude", "longitude") or (values is not None and not values.size)
        if values is not None and (needed or np.isfinite(values).any()):
            values = checked_longitude(values) if role == "longitude" else values
            coords[role] = xr.Variable((location,), values, dict(POSITION_ATTRS[role]))
    times = _times(meta, attrs)
    coords["time"] = xr.Variable((location,), times, dict(POSITION_ATTRS["time"]))
    for role, names in (("station", _STATION), ("channel", _CHANNEL_NUMBER)):
        label = next((n for n in names if n in meta.variables), None)
        if label is not None and meta[label].ndim == 1:
            coords[role] = _label(meta[label])
    return coords


def _in_units(role: str, values: np.ndarray, variable: xr.DataArray) -> np.ndarray:
    """Return pressures in Pa, and all else as it is: degrees and metres."""
    if role != "air_pressure":
        return values
    values = np.where(values > 0, values, np.nan)
    units = str(variable.attrs.get("units", "")).strip()
    units = units or implied_units("air_pressure", "Pa", values, str(variable.name))
    return np.asarray(convert(values, units, "Pa", where=f"MetaData/{variable.name}"))


def _label(variable: xr.DataArray) -> xr.Variable:
    """Return names or numbers, as they are."""
    if variable.dtype.kind in "iuf":
        return xr.Variable(variable.dims, variable.values)
    text = [v.decode() if isinstance(v, bytes) else str(v) for v in variable.values]
    return xr.Variable(variable.dims, np.array([t.strip() for t in text], dtype=object))


def _lacks(role: str, meta: xr.Dataset) -> CoordinateError:
    return CoordinateError(
        f"MetaData has no {role}",
        where="group MetaData",
        expected="latitude, longitude and dateTime along the locations",
        got=", ".join(map(str, meta.variables)),
        remedy=f"add {role} to the group, along the dimension of the locations",
    )


def _times(meta: xr.Dataset, attrs: Mapping[str, Any]) -> np.ndarray:
    """Return times; NaT, so that they are rejected and counted, where missing."""
    import pandas as pd

    if _TIME in meta.variables and meta[_TIME].dtype.kind in "iuf":
        return _counted(meta[_TIME], str(meta[_TIME].attrs.get("units", "")))
    if _OFFSET in meta.variables and "date_time" in attrs and _TEXT_TIME not in meta.variables:
        start = pd.to_datetime(str(attrs["date_time"]), format="%Y%m%d%H")
        return _counted(meta[_OFFSET], f"hours since {start:%Y-%m-%dT%H:%M:%S}")
    name = next((n for n in (_TIME, _TEXT_TIME) if n in meta.variables), None)
    if name is None:
        raise _lacks("dateTime", meta)
    if meta[name].dtype.kind == "M":
        return meta[name].values.astype("datetime64[ns]")
    text = [v.decode() if isinstance(v, bytes) else str(v) for v in meta[name].values]
    given = [None if t.strip() in _MISSING_TEXT else t for t in text]
    times = pd.to_datetime(pd.Series(given, dtype=object), utc=True, errors="coerce")
    stamps: np.ndarray = times.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]")
    return stamps


def _counted(variable: xr.DataArray, units: str) -> np.ndarray:
    """Return dates of numbers that count since one."""
    counts = _numbers(variable)
    known = np.isfinite(counts)
    try:
        if " since " not in units:
            raise ValueError(units)
        filled = xr.Variable(variable.dims, np.where(known, counts, 0.0), {"units": units})
        dates = xr.decode_cf(xr.Dataset({"time": filled})).time.values.astype("datetime64[ns]")
    except (ValueError, TypeError, OverflowError) as error:
        raise CoordinateError(
            "times cannot be read",
            where=f"MetaData/{variable.name}",
            expected="units such as 'seconds since 1970-01-01T00:00:00Z'",
            got=repr(units),
            remedy="correct the attribute 'units'",
        ) from error
    dates[~known] = np.datetime64("NaT")
    stamps: np.ndarray = dates
    return stamps


def _variable(
    name: str, array: xr.DataArray, groups: Mapping[str, xr.Dataset]
) -> dict[Hashable, xr.Variable]:
    """Return a variable, the standard deviation of its error and its flag."""
    standard_name, canonical, short_name, operator = QUANTITIES[name]
    values = _numbers(array)
    units = str(array.attrs.get("units", "")).strip()
    if units.lower() in NO_UNITS:
        units = implied_units(standard_name, canonical, values, f"ObsValue/{name}")
    said = {"standard_name": standard_name, "units": units, "short_name": short_name}
    said["xappa_operator"] = operator
    attrs: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    result: dict[Hashable, xr.Variable] = {}
    error = groups.get("ObsError", xr.Dataset()).variables.get(name)
    if error is not None and error.dims == array.dims:
        std = _numbers(groups["ObsError"][name])
        own = str(error.attrs.get("units", "")).strip()
        own = units if own.lower() in NO_UNITS else own
        about = {"standard_name": f"{standard_name} {ERROR_MODIFIER}", "units": own}
        result[f"{name}_error"] = xr.Variable(array.dims, np.where(std > 0, std, np.nan), about)
    for group in _MARKERS:
        marker = groups.get(group, xr.Dataset()).variables.get(name)
        if marker is not None and marker.dims == array.dims:
            codes = _numbers(groups[group][name])
            result[f"{name}_quality"] = quality_flag(codes, _USABLE, [str(d) for d in array.dims])
            break
    if result:
        attrs["ancillary_variables"] = " ".join(map(str, result))
    return {name: xr.Variable(array.dims, values, attrs), **result}
