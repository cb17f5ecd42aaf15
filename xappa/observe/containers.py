"""From what the user passes as ``obs`` to a flat list of observation arrays.

``obs`` may be a DataArray, a Dataset (whose ancillary variables, bounds and identifiers are no
observations), or lists, tuples and dicts of them, nested as one likes. Lazy observations are
loaded here, once, into copies. A Dataset made from a table has columns that are no observations
either (`choose_columns`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from xappa import units
from xappa.cf import identify
from xappa.cf.names import COORDINATE_NAMES
from xappa.errors import ObservationTypeError
from xappa.observe.ancillary import ERROR_MODIFIER, ancillary_names, is_companion
from xappa.observe.ragged import is_ragged, spread_instances
from xappa.observe.registry import argument_names
from xappa.observe.spec import Place

__all__ = ["Found", "choose_columns", "collect"]

STRUCTURAL = ("cf_role", "sample_dimension", "instance_dimension", "grid_mapping_name")
"""Attributes of variables that organise a file and are not observations."""
ALTITUDES = (
    "altitude",
    "height_above_mean_sea_level",
    "height_above_geopotential_datum",
    "height_above_reference_ellipsoid",
)
"""Standard names of how high something is: of positions, never of what is observed."""
POSITIONS = ("latitude", "longitude", "time")
_LABELS = (*POSITIONS, "altitude", "height", "surface_altitude", "platform_id", "platform_name")
ERROR_COLUMNS = ("{}_error", "{}_std", "{}_sigma", "error_std", "error")
"""Names of columns that hold the error of the only observed variable of a table."""


@dataclass(frozen=True)
class Found:
    """One observation array and where it was found.

    Parameters
    ----------
    array
        Loaded, without pint.
    dataset
        The Dataset that it comes from, loaded, with its ancillary variables.
    place
        The way to it inside ``obs``.
    name
        Unique among the arrays.
    quantified
        Its pint units and those of its coordinates, by name, where it held quantities.
    guesses
        What was assumed about the Dataset that it comes from.
    settled
        Whether its error is its own, whatever ``error=`` says.
    """

    array: xr.DataArray
    dataset: xr.Dataset | None
    place: tuple[Place, ...]
    name: str
    quantified: Mapping[Hashable, Any]
    guesses: tuple[str, ...] = ()
    settled: bool = False

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"observations {self.name!r}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names under which ``error=`` may know it."""
        own, standard = self.array.name, self.array.attrs.get("standard_name")
        listed = (self.name, own, standard)
        return tuple(dict.fromkeys(str(name) for name in listed if name is not None))


def collect(obs: Any) -> list[Found]:
    """Find the observation arrays in what the user passed.

    Parameters
    ----------
    obs
        DataArray, Dataset, or lists, tuples and dicts of them.

    Returns
    -------
    list of Found
        With unique names; a repeated name gets a number.

    Raises
    ------
    ObservationTypeError
        If something else is found anywhere.

    Examples
    --------
    >>> [found.name for found in collect([xr.DataArray(1.0, name="t"), xr.DataArray(2.0)])]
    ['t', 'observations']
    """
    taken: set[str] = set()
    result = []
    for found in _walk(obs, (), None):
        name, number = found.name, 1
        while name in taken:
            number += 1
            name = f"{found.name}_{number}"
        taken.add(name)
        result.append(replace(found, name=name))
    return result


def _walk(obs: Any, place: tuple[Place, ...], key: str | None) -> Iterator[Found]:
    if isinstance(obs, xr.DataArray):
        if obs.dtype.kind not in "fiu" and not units.is_quantified(obs):
            raise _not_observations(obs, place, f"a DataArray of dtype {obs.dtype}")
        loaded, quantified = _plain(obs)
        yield Found(loaded, None, place, key or str(obs.name or "observations"), quantified)
    elif isinstance(obs, xr.Dataset):
        loaded, quantified = _plain(obs)
        said: tuple[str, ...] = ()
        if is_ragged(loaded):
            loaded, said = _spread_out(loaded)
        loaded = _with_positions(loaded)
        observed = _observed(loaded)
        aside = [n for n, v in loaded.data_vars.items() if n in observed or is_companion(v)]
        others = loaded.drop_vars(aside).drop_attrs(deep=False)
        for name in observed:
            step = Place("dataset", name, dict(obs.attrs), others)
            label = str(name) if key is None else f"{key}/{name}"
            yield Found(loaded[name], loaded, (*place, step), label, quantified, said)
    elif isinstance(obs, Mapping):
        for entry, value in obs.items():
            label = str(entry) if key is None else f"{key}/{entry}"
            yield from _walk(value, (*place, Place("dict", entry)), label)
    elif isinstance(obs, (list, tuple)):
        kind = "tuple" if isinstance(obs, tuple) else "list"
        for i, value in enumerate(obs):
            yield from _walk(value, (*place, Place(kind, i)), key)
    else:
        raise _not_observations(obs, place, f"{type(obs).__module__}.{type(obs).__qualname__}")


def _spread_out(dataset: xr.Dataset) -> tuple[xr.Dataset, tuple[str, ...]]:
    """Spread a ragged array over its samples, and say what became a label of them."""
    spread = spread_instances(dataset)
    labels = [
        str(name)
        for name in dataset.data_vars
        if name in spread.coords
        and dataset[name].dtype.kind == "f"
        and dataset[name].attrs.get("standard_name") not in _LABELS
        and str(name).lower() not in {n for role in POSITIONS for n in COORDINATE_NAMES[role]}
    ]
    said = f"of each instance, and so labels and no observations: {', '.join(labels)}"
    return spread, (said,) if labels else ()


def _not_observations(obs: Any, place: tuple[Place, ...], got: str) -> ObservationTypeError:
    inside = "".join(f"[{step.key!r}]" for step in place)
    return ObservationTypeError(
        f"obs{inside} is no array of observations",
        where=f"obs{inside}",
        expected="a numeric DataArray, a Dataset, or a list, tuple or dict of them",
        got=got,
        remedy="label the values: xr.DataArray(values, dims='station', coords=dict(latitude=…, "
        "longitude=…, time=…), attrs=dict(standard_name=…, units=…))",
    )


def _plain(obs: Any) -> tuple[Any, dict[Hashable, Any]]:
    """Return a loaded copy without pint, and the pint units that it had."""
    return units.dequantify(obs).compute(), units.quantified_units(obs)


def _with_positions(dataset: xr.Dataset) -> xr.Dataset:
    """Make coordinates of positions and names that a file leaves as variables."""
    positions = []
    for name, variable in dataset.data_vars.items():
        if "cf_role" in variable.attrs or variable.dtype.kind in "OSU":
            positions.append(name)  # names of stations stay with what the stations observe
            continue
        standard = variable.attrs.get("standard_name")
        if standard in ALTITUDES:
            positions.append(name)
            continue
        named = any(str(name).lower() in COORDINATE_NAMES[role] for role in POSITIONS)
        if standard in POSITIONS or (standard is None and named) or _is_vertical(variable, dataset):
            positions.append(name)
    return dataset.set_coords(positions)


def _is_vertical(variable: xr.DataArray, dataset: xr.Dataset) -> bool:
    """Whether a variable says how high samples are, and is no observation by itself.

    A station's ``air_pressure`` is an observation; that of a sounding or a flight is a position.
    """
    if "positive" in variable.attrs or str(variable.attrs.get("axis", "")).upper() == "Z":
        return True
    feature = str(dataset.attrs.get("featureType", "")).lower()
    moves = "profile" in feature or "trajectory" in feature
    return moves and variable.attrs.get("standard_name") == "air_pressure"


def _observed(dataset: xr.Dataset) -> list[Any]:
    """Return the names of the variables that are observations."""
    aside: set[str] = set()
    for variable in dataset.variables.values():
        about = {**variable.encoding, **variable.attrs}
        for key in ("bounds", "climatology", "grid_mapping"):
            aside.update(str(about.get(key, "")).split())
    for data in dataset.data_vars.values():
        aside.update(ancillary_names(data))
        aside.update(_named_in_attrs(data))
    wanted = argument_names()
    aside |= {str(n) for n in dataset if n in wanted and identify(dataset[n])[0] is None}
    return [
        name
        for name, data in dataset.data_vars.items()
        if str(name) not in aside
        and data.dtype.kind in "fiu"
        and not is_companion(data)
        and not any(key in data.attrs for key in STRUCTURAL)
    ]


def _named_in_attrs(data: xr.DataArray) -> list[str]:
    """Return names of variables in attributes: weights, correlations, arguments of operators."""
    matrix = "error_correlation_matrix"
    ours = ("xappa_operator_", "xappa_weights", "xappa_footprint_radius", matrix)
    values = [v for k, v in data.attrs.items() if str(k).startswith(ours) and isinstance(v, str)]
    return [name for value in values for name in value.split() if name != data.name]


def choose_columns(
    found: Sequence[Found],
    recognised: Callable[[xr.DataArray], bool],
    has_error: Callable[[Found], bool],
) -> list[Found]:
    """Leave out what is no observation in a Dataset that holds recognised ones.

    A table of stations has columns such as their elevation. Where at least one variable of a
    Dataset is recognised, those that are not are left out, and that is said. If exactly one is
    recognised and its error is not known, a column named after it (`ERROR_COLUMNS`) is its error.

    Parameters
    ----------
    found
        From `collect`.
    recognised
        Tells whether an array says what it measures.
    has_error
        Tells whether the error of an array is known without a column.

    Returns
    -------
    list of Found
        The observations, in order.
    """
    groups: dict[int, list[Found]] = {}
    for item in found:
        # DataArrays of their own are never left out
        groups.setdefault(id(item if item.dataset is None else item.dataset), []).append(item)
    result: list[Found] = []
    for items in groups.values():
        kept = [item for item in items if recognised(item.array)]
        if items[0].dataset is None or not kept:
            result += items
            continue
        aside = [str(item.array.name) for item in items if not any(item is k for k in kept)]
        if len(kept) == 1 and not has_error(kept[0]):
            kept, aside = _with_error(kept[0], aside)
        if aside:
            said = f"not recognised, left out: {', '.join(aside)}"
            kept[0] = replace(kept[0], guesses=(*kept[0].guesses, said))
        result += kept
    return result


def _with_error(item: Found, aside: list[str]) -> tuple[list[Found], list[str]]:
    """Link the only column that is named as the error of the only observed variable."""
    dataset, name = item.dataset, str(item.array.name)
    possible = [column.format(name) for column in ERROR_COLUMNS]
    # whole numbers in such a column may be codes
    named = [c for c in aside if c in possible and dataset is not None and _is_float(dataset[c])]
    if dataset is None or len(named) != 1:
        return [item], aside
    (column,) = named
    quantity = item.array.attrs.get("standard_name", name)
    modified = {"standard_name": f"{quantity} {ERROR_MODIFIER}"}
    dataset = dataset.assign({column: dataset[column].assign_attrs(modified)})
    linked = " ".join([*ancillary_names(item.array), column])
    array = item.array.assign_attrs(ancillary_variables=linked)
    said = f"{column!r} taken as the standard deviation of its error, by its name"
    found = replace(item, array=array, dataset=dataset, guesses=(*item.guesses, said))
    return [found], [other for other in aside if other != column]


def _is_float(array: xr.DataArray) -> bool:
    return array.dtype.kind == "f"
