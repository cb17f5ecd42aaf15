r"""Wind observed as speed and direction, compared as its components.

A direction has no meaningful difference across north, and none at all in calm air; the components

.. math:: u = -s \sin d, \quad v = -s \cos d

have. With independent errors of speed and direction (in radians) their variances are, to first
order, :math:`(\sin d \, \sigma_s)^2 + (s \cos d \, \sigma_d)^2` and the same with sine and cosine
exchanged; their correlation is left out. Where the direction's error is not known both components
have that of the speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from xappa import units
from xappa.cf import identify, standard_name
from xappa.errors import XappaError
from xappa.observe.containers import Found
from xappa.observe.defaults import default_error
from xappa.observe.error import ERROR_COORDINATE, ErrorArgument, has_error, resolve_error
from xappa.observe.flags import rejected_by_flags
from xappa.observe.spec import Place
from xappa.observe.values import present_values

if TYPE_CHECKING:
    from xappa.bridge import StateSpec

__all__ = ["pair_winds"]

SPEED, FROM, TO = "wind_speed", "wind_from_direction", "wind_to_direction"
EASTWARD, NORTHWARD = "eastward_wind", "northward_wind"
#: Attributes of the speed that hold for its components, too: of errors and extents.
_KEPT = ("ancillary_variables", "cell_methods", "featureType")
_OURS = ("xappa_", "bias_", "error_correlation", "correlated_error")


def pair_winds(
    found: Sequence[Found],
    state: StateSpec,
    error: ErrorArgument,
    knows_error: Callable[[Found], bool],
    errors: list[XappaError],
) -> list[Found]:
    """Replace pairs of speed and direction by components, if the state holds those.

    Parameters
    ----------
    found
        The observation arrays.
    state
        What the state holds.
    error
        The argument of that name.
    knows_error
        Whether the error of an array is known by itself.
    errors
        Takes the problems with the errors of speed and direction.

    Returns
    -------
    list of Found
        In the same order, components in the place of the speed.
    """
    held = {variable.standard_name for variable in state.variables}
    if not {EASTWARD, NORTHWARD} <= held or held & {SPEED, FROM, TO}:
        return list(found)
    kinds = [_kind(item) for item in found]
    result, gone = [], set()
    for i, item in enumerate(found):
        if kinds[i] != SPEED or "xappa_operator" in item.array.attrs:
            continue
        for j, other in enumerate(found):
            if kinds[j] in (FROM, TO) and j not in gone and _together(item, other):
                gone.add(j)
                try:
                    pair = _components(item, other, str(kinds[j]), error, knows_error(other))
                except XappaError as problem:
                    errors.append(problem)
                    pair = []
                gone.add(i)
                result += [(i, part) for part in pair]
                break
    kept = [(i, item) for i, item in enumerate(found) if i not in gone]
    return [item for _, item in sorted(kept + result, key=lambda entry: entry[0])]


def _kind(item: Found) -> str | None:
    quantity, _ = identify(item.array)
    return None if quantity is None else quantity.standard_name


def _together(speed: Found, direction: Found) -> bool:
    """Whether two arrays belong to the same container and lie at the same places."""
    if speed.place[:-1] != direction.place[:-1] or speed.dataset is not direction.dataset:
        return False
    a, b = speed.array, direction.array
    return a.dims == b.dims and all(
        name in b.coords and coord.equals(b.coords[name])
        for name, coord in a.coords.items()
        if "standard_error" not in str(coord.attrs.get("standard_name"))
        and name != ERROR_COORDINATE
    )


def _components(
    speed: Found, direction: Found, kind: str, error: ErrorArgument, direction_error: bool
) -> list[Found]:
    own = str(speed.array.attrs.get("units") or "m s-1")
    turn = str(direction.array.attrs.get("units") or "degree")
    s, _ = present_values(speed.array, own, SPEED)
    d, _ = present_values(direction.array, turn, FROM)
    s, d = s.reshape(speed.array.shape), d.reshape(speed.array.shape)
    d = units.convert(d, turn, "radian")
    d = d + (np.pi if kind == TO else 0.0)
    flagged, _ = rejected_by_flags(direction.array, direction.dataset)
    d = np.where(flagged.reshape(d.shape), np.nan, d)
    d = np.where(s == 0, 0.0, d)  # calm air has no direction, and needs none
    assumed = None
    if not has_error(speed, error):
        assumed = default_error(speed, on_levels=_is_sounding(speed))
    sigma = resolve_error(
        speed.array,
        speed.dataset,
        names=speed.names,
        obs_units=own,
        state_units=own,
        error=error if assumed is None else assumed[0],
    ).reshape(s.shape)
    said = f"components from {speed.name!r} and {direction.name!r}"
    across = sigma
    if direction_error:
        angle = resolve_error(
            direction.array,
            direction.dataset,
            names=direction.names,
            obs_units=turn,
            state_units="radian",
            error=error if isinstance(error, (Mapping, xr.Dataset)) else None,
        ).reshape(s.shape)
        # near calm any direction is as likely: neither component is better known than the speed
        across = np.where(s < sigma, np.maximum(s * angle, sigma), s * angle)
    else:
        said += ", with the error of the speed alone"
    if assumed is not None:
        said += f"; {assumed[1]}"
    sine, cosine = np.sin(d), np.cos(d)
    return [
        _part(speed, EASTWARD, -s * sine, np.hypot(sine * sigma, cosine * across), own, said),
        _part(speed, NORTHWARD, -s * cosine, np.hypot(cosine * sigma, sine * across), own, said),
    ]


def _is_sounding(speed: Found) -> bool:
    return any(standard_name(c) == "air_pressure" and c.ndim for c in speed.array.coords.values())


def _part(
    speed: Found, name: str, values: np.ndarray, std: np.ndarray, own: str, said: str
) -> Found:
    aside = [key for key in speed.array.coords if key == ERROR_COORDINATE]
    array = speed.array.drop_vars(aside).copy(data=values).rename(name)
    kept = {k: v for k, v in array.attrs.items() if k in _KEPT or str(k).startswith(_OURS)}
    array.attrs = {"standard_name": name, "units": own, **kept}
    std = np.where(std > 0, std, np.nan)
    deviation = xr.Variable(array.dims, std, {"units": own})
    array = array.assign_coords({ERROR_COORDINATE: deviation})
    place = (*speed.place[:-1], replace(speed.place[-1], key=name)) if speed.place else ()
    if place and place[-1].container in ("list", "tuple"):
        place = (*speed.place[:-1], Place(place[-1].container, (speed.place[-1].key, name)))
    return replace(
        speed,
        array=array,
        place=place,
        name=f"{speed.name}/{name}" if speed.place and len(speed.place) > 1 else name,
        quantified={},
        guesses=(*speed.guesses, said),
        settled=True,
    )
