"""Which coordinates hold time, latitude, longitude, pressure and members.

Candidates are ranked: CF metadata that cf-xarray recognises come first (standard name, axis,
units), names and data types second. The best rank decides; two equal candidates raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from xappa.cf.names import COORDINATE_NAMES
from xappa.cf.times import holds_text, is_months, text_error
from xappa.cf.vertical import MODEL_LEVELS
from xappa.errors import AmbiguousCoordinateError, ArgumentError, CoordinateError
from xappa.units import compatible, dequantify

__all__ = ["Axes", "find_axes"]

_UNKNOWN = ("", "unknown", "none")
_REFERENCE = "forecast_reference_time"
_PRESSURE_NAMES = ("air_pressure", "pressure")
_STANDARD = {"vertical": "air_pressure", "member": "realization"}


@dataclass(frozen=True)
class Axes:
    """Names of the coordinates that play a role.

    Parameters
    ----------
    time
        Coordinate of valid time; it need not be an index (cfgrib's ``valid_time``), and may be
        scalar.
    time_dim
        Dimension along which valid time varies.
    latitude, longitude
        Coordinates in degrees north and east.
    vertical
        Coordinate of pressure, of any shape.
    member
        Dimension of the ensemble.
    guesses
        Sentences that say what was guessed, and why.
    """

    time: str | None = None
    time_dim: str | None = None
    latitude: str | None = None
    longitude: str | None = None
    vertical: str | None = None
    member: str | None = None
    guesses: tuple[str, ...] = ()


def standard_name(variable: xr.DataArray) -> str | None:
    """Return the standard name, None where it is missing or ``unknown``."""
    name = str(variable.attrs.get("standard_name", "")).strip()
    return None if name.lower() in _UNKNOWN else name


def find_axes(
    obj: xr.Dataset | xr.DataArray,
    *,
    require: Sequence[str] = ("latitude", "longitude"),
    variable: str = "ds",
    where: str | None = None,
) -> Axes:
    """Find the coordinates of time, latitude, longitude, pressure and members.

    Parameters
    ----------
    obj
        Dataset or DataArray.
    require
        Roles (names of the fields of `Axes`) that must be found.
    variable
        What remedies call the object, as in ``ds['lat']``.
    where
        What messages call the object; nothing by default.

    Raises
    ------
    CoordinateError
        If a required role has no candidate, or the coordinate of time holds text.
    AmbiguousCoordinateError
        If several candidates are equally good.

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[0.0]], coords={"lat": [50.0], "lon": [0.0]}, dims=("lat", "lon"))
    >>> find_axes(da).latitude
    'lat'
    """
    obj = dequantify(obj)
    guesses: list[str] = []
    coords = _candidates(obj)
    latitude = _horizontal(obj, coords, "latitude", guesses)
    longitude = _horizontal(obj, coords, "longitude", guesses)
    vertical = _vertical(coords, guesses)
    member = _member(obj, coords, guesses)
    time = _time(obj, coords, guesses)
    if time is None:
        _refuse_text(coords, variable, where)
    time_dim = None if time is None else _time_dim(coords[time])
    axes = Axes(time, time_dim, latitude, longitude, vertical, member, tuple(guesses))
    inside = "" if where is None else f"{where}: "
    place = f"{inside}coordinates {sorted(coords)} with dimensions {list(map(str, obj.dims))}"
    for role in require:
        _require(role, axes, coords, variable, place)
    return axes


def _require(
    role: str, axes: Axes, coords: dict[str, xr.DataArray], variable: str, place: str
) -> None:
    if role not in Axes.__dataclass_fields__ or role == "guesses":
        raise ArgumentError("unknown role of a coordinate", where="require", got=repr(role))
    if getattr(axes, role) is None:
        raise CoordinateError(
            f"no coordinate for {role} was found",
            where=place,
            expected=f"a coordinate with standard_name, units, axis or name of {role}",
            got="none",
            remedy=_naming(role, coords, axes, variable),
        )


def _naming(role: str, coords: dict[str, xr.DataArray], axes: Axes, variable: str) -> str:
    """Return how to say which coordinate plays a role, naming those that may."""
    stated = _STANDARD.get(role, role)
    taken = {getattr(axes, field) for field in Axes.__dataclass_fields__ if field != "guesses"}
    free = [n for n, c in coords.items() if n not in taken and standard_name(c) is None]
    if role in ("latitude", "longitude"):
        limit = 90.0 if role == "latitude" else 360.0
        free = [name for name in free if _within(coords[name], limit)]
    else:
        free = [name for name in free if coords[name].dtype.kind in "iuf"]
    if not free:
        return (
            f"add it: {variable}.assign_coords({role}=(dims, values, dict(standard_name="
            f"{stated!r}))); a variable that holds it becomes a coordinate with set_coords"
        )
    which = "" if len(free) == 1 else f", whichever of {', '.join(free)} it is"
    return f"name it{which}: {variable}[{free[0]!r}].attrs['standard_name'] = {stated!r}"


def _within(coord: xr.DataArray, limit: float) -> bool:
    """Tell whether a coordinate holds numbers within a limit, as degrees do."""
    return coord.dtype.kind in "iuf" and not bool((np.abs(coord.values) > limit).any())


def _candidates(obj: xr.Dataset | xr.DataArray) -> dict[str, xr.DataArray]:
    """Return the coordinates by name, without the bounds of other coordinates."""
    coords = {str(name): coord for name, coord in obj.coords.items()}
    bounds = {
        str(coord.attrs.get("bounds", coord.encoding.get("bounds"))) for coord in coords.values()
    }
    return {name: coord for name, coord in coords.items() if name not in bounds}


def _pick(
    role: str, ranked: Sequence[Sequence[str]], coords: dict[str, xr.DataArray]
) -> str | None:
    """Return the only candidate of the first rank that has any."""
    for names in ranked:
        found = [name for name in dict.fromkeys(names) if name in coords]
        # an index is what the data are laid along; auxiliary coordinates only describe it
        indexes = [name for name in found if coords[name].dims == (name,)]
        best = indexes or [name for name in found if coords[name].ndim] or found
        if len(best) > 1:
            raise _ambiguous(role, best)
        if best:
            return best[0]
    return None


def _ambiguous(role: str, names: Sequence[str]) -> AmbiguousCoordinateError:
    return AmbiguousCoordinateError(
        f"several coordinates may be the {role}",
        where=", ".join(names),
        expected=f"one {role} coordinate",
        got=f"{len(names)} equally good candidates",
        remedy="drop the others, or mark the right one: "
        f"ds[{names[0]!r}].attrs['standard_name'] = {_STANDARD.get(role, role)!r}",
    )


def _cf(obj: xr.Dataset | xr.DataArray, role: str, axis: str | None = None) -> list[str]:
    import cf_xarray  # noqa: F401  # registers the accessor .cf

    found = list(obj.cf.coordinates.get(role, []))
    if axis is not None:
        found += obj.cf.axes.get(axis, [])
    return [str(name) for name in found]


def _named(coords: dict[str, xr.DataArray], role: str) -> list[str]:
    """Return the coordinates known by name only, most usual name first."""
    by_lower = {name.lower(): name for name in coords if standard_name(coords[name]) is None}
    return [by_lower[alias] for alias in COORDINATE_NAMES[role] if alias in by_lower]


def _horizontal(
    obj: xr.Dataset | xr.DataArray,
    coords: dict[str, xr.DataArray],
    role: str,
    guesses: list[str],
) -> str | None:
    stated = [name for name, coord in coords.items() if standard_name(coord) == role]
    name = _pick(role, (stated, _cf(obj, role)), coords)
    if name is None and (named := _named(coords, role)):
        name = _pick(role, (named,), coords)
        guesses.append(f"{name}: taken as {role} by its name")
    return name


def _vertical(coords: dict[str, xr.DataArray], guesses: list[str]) -> str | None:
    stated = [name for name, c in coords.items() if standard_name(c) in _PRESSURE_NAMES]
    by_units = [
        name
        for name, coord in coords.items()
        if standard_name(coord) is None and _has_pressure_units(coord)
    ]
    model = [name for name, c in coords.items() if standard_name(c) in MODEL_LEVELS]
    name = _pick("vertical", (stated, by_units, model), coords)
    if name is None:
        named = [n for n in _named(coords, "vertical") if coords[n].dtype.kind in "iuf"]
        name = _pick("vertical", (named,), coords)
        if name is not None:
            guesses.append(f"{name}: taken as the vertical coordinate by its name")
    return name


def _has_pressure_units(coord: xr.DataArray) -> bool:
    units = str(coord.attrs.get("units", "")).strip()
    if coord.dtype.kind not in "iuf" or not units or " since " in units:
        return False
    # comparing the usual spellings first leaves pint out of most calls
    return units in ("Pa", "hPa", "millibars", "mbar", "mb") or (
        not units.startswith("degree") and units != "1" and compatible(units, "Pa")
    )


def _member(
    obj: xr.Dataset | xr.DataArray, coords: dict[str, xr.DataArray], guesses: list[str]
) -> str | None:
    dims = {str(dim) for dim in obj.dims}
    stated = [
        str(coords[name].dims[0])
        for name in coords
        if standard_name(coords[name]) == "realization" and coords[name].ndim == 1
    ]
    known = {name: coords[name] for name in coords if name in dims}
    known.update(
        {dim: xr.DataArray(np.arange(obj.sizes[dim]), dims=dim) for dim in dims - set(known)}
    )
    name = _pick("member", (stated,), known)
    if name is None and (named := _named(known, "member")):
        name = _pick("member", (named,), known)
        guesses.append(f"{name}: taken as the dimension of members by its name")
    return name


def _time(
    obj: xr.Dataset | xr.DataArray, coords: dict[str, xr.DataArray], guesses: list[str]
) -> str | None:
    usable = {n: c for n, c in coords.items() if standard_name(c) not in (_REFERENCE,)}
    stated = [name for name, coord in usable.items() if standard_name(coord) == "time"]
    varying = [name for name in stated if usable[name].ndim]
    if any(not usable[name].equals(usable[varying[0]].rename(name)) for name in varying[1:]):
        # both say that they are valid time, and they disagree: an index is no better than another
        raise _ambiguous("time", varying)
    name = _pick("time", (stated, [n for n in _cf(obj, "time", "T") if n in usable]), usable)
    if name is not None:
        return name
    name = _pick("time", ([n for n in _named(usable, "time") if _has_times(usable[n])],), usable)
    if name is None:
        # a datetime coordinate with another standard name, such as an issue time, is not valid time
        dated = [n for n, c in usable.items() if standard_name(c) is None and _has_dates(c)]
        name = _pick("time", (dated,), usable)
    if name is not None:
        if name.lower() != "time":
            guesses.append(f"{name}: taken as valid time, because it holds dates")
        return name
    name = _pick(
        "time", ([n for n, c in coords.items() if standard_name(c) == _REFERENCE],), coords
    )
    if name is not None:
        return _reference_time(name, coords, guesses)
    months = [n for n in _named(coords, "month") if is_months(coords[n])]
    name = _pick("time", (months,), coords)
    if name is not None:
        guesses.append(f"{name}: taken as the months of a climatology, in a year of 365 days")
    return name


def _reference_time(name: str, coords: dict[str, xr.DataArray], guesses: list[str]) -> str:
    """Accept a forecast_reference_time as valid time where the forecasts have no length."""
    for step, coord in coords.items():
        if standard_name(coord) != "forecast_period" and step.lower() != "step":
            continue
        values = np.asarray(coord.values)
        if np.any(values != values.dtype.type(0)):
            raise CoordinateError(
                "there is no coordinate of valid time",
                where=f"{name} is a forecast_reference_time, and {step} is not zero",
                expected="a coordinate with standard_name 'time'",
                got=f"{name} and {step}",
                remedy=f"add it: ds.coords['valid_time'] = ds['{name}'] + ds['{step}']",
            )
    guesses.append(f"{name}: a forecast_reference_time taken as valid time, as the step is zero")
    return name


def _refuse_text(coords: dict[str, xr.DataArray], variable: str, where: str | None) -> None:
    """Raise where no times were found because they are text."""
    for name in _named(coords, "time"):
        if holds_text(coords[name]):
            raise text_error(coords[name].rename(name), variable, where)


def _has_dates(coord: xr.DataArray) -> bool:
    if coord.dtype.kind == "M":
        return True
    if coord.dtype.kind != "O" or not coord.size:
        return False
    # cftime objects carry their calendar; other objects, such as strings, do not
    return hasattr(coord.values.ravel()[0], "calendar")


def _has_times(coord: xr.DataArray) -> bool:
    return _has_dates(coord) or " since " in str(coord.attrs.get("units", ""))


def _time_dim(coord: xr.DataArray) -> str | None:
    """Return the dimension along which a time coordinate varies."""
    if coord.ndim == 0:
        return None
    if coord.ndim == 1:
        return str(coord.dims[0])
    long = [str(dim) for dim in coord.dims if coord.sizes[dim] > 1]
    if len(long) > 1:
        raise AmbiguousCoordinateError(
            "valid time varies along several dimensions",
            where=str(coord.name),
            expected="one dimension",
            got=", ".join(long),
            remedy="choose one forecast: ds.isel(time=0), or one lead time: ds.isel(step=0)",
        )
    return long[0] if long else str(coord.dims[0])
