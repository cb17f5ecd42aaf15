"""What observation metadata say, as frozen data: the step between labelled arrays and operators.

An `ObservationSpec` describes one observation array of n elements (its C-order ravel): what was
measured (quantity, operator, inputs taken from the state), where and when, how well, and which
elements may be used. Nothing here knows the trajectory's times or torch; `ObservationOperator`
adds those.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from xappa.bridge import VariableSpec
    from xappa.observe.covariance import ErrorStructure
    from xappa.observe.footprint import Footprint

__all__ = ["ObservationSpec", "Place", "Status", "assemble"]


class Status(enum.IntEnum):
    """What became of one observation: used, or the first reason why not.

    >>> Status.OUTSIDE_DOMAIN.reason
    'outside domain'
    """

    USED = 0
    MISSING = 1
    FLAGGED = 2
    OUTSIDE_DOMAIN = 3
    OUTSIDE_LEVELS = 4
    OUTSIDE_WINDOW = 5
    NO_ERROR = 6
    DEPARTURE = 7
    DUPLICATE = 8
    GROSS_ERROR = 9
    BACKGROUND = 10
    THINNED = 11
    MERGED = 12
    HEIGHT = 13

    @property
    def reason(self) -> str:
        """The status in words, as reports print it."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Place:
    """One step of the way to an array inside what the user passed as ``obs``.

    Parameters
    ----------
    container
        ``"dataset"``, ``"dict"``, ``"list"`` or ``"tuple"``.
    key
        Variable name, dict key or position.
    attrs
        Global attributes, if the container is a Dataset.
    others
        If it is a Dataset, those of its variables that say something about the observations and
        are none: bounds, weighting functions, correlations.
    """

    container: str
    key: Hashable
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    others: xr.Dataset | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class ObservationSpec:
    """One observation array, flattened in C order to n elements.

    Parameters
    ----------
    name
        Unique among the arrays of one operator; keys the noise of simulated observations.
    quantity
        Standard name of what was observed.
    operator
        ``"identity"`` (interpolation of a state variable), or the name of a registered operator.
    parameters
        Keyword arguments of the registered operator, from ``xappa_operator_*`` attributes.
    inputs
        The state variables that the operator takes.
    units
        Units of the observation array.
    values, error_std
        (n,) float64, in `state_units`: observed values and standard deviations of their errors.
    state_units
        Units in which observation and equivalent are compared.
    latitude, longitude
        (n,) float64, degrees north and east.
    time
        (n,) float64, seconds since 1970-01-01 in the state's calendar; NaN where unknown.
    pressure
        (n,) float64, Pa, or None for quantities at a single level or at a model's levels.
    level
        (n,) float64, values of the model's vertical coordinate, or None.
    extrapolates
        Whether beyond the outermost levels the values there are taken.
    kind
        (n,) int64, numbers that tell channels and instruments apart; None for one kind.
    status
        (n,) int8, values of `Status` as far as they are known without the trajectory's times.
    template
        The labels (dims, coords, attrs, name); its values are a lazy dummy.
    guesses
        Sentences: what was assumed and why.
    has_time
        False where the array has no time coordinate, so that it belongs to the only state.
    quantified
        The pint units of the array and its coordinates, by name, where it held quantities.
    place
        The way to the array inside ``obs``.
    columns
        Which inputs are taken on all their levels; empty where none is.
    arguments
        What the array says of its elements for the operator, each of shape (n,) or (n, K).
    footprint
        The areas and intervals that its elements are means of; None for values at points.
    structure
        Biases and correlations of its errors; None where they are independent.
    """

    name: str
    quantity: str
    operator: str
    parameters: Mapping[str, Any]
    inputs: tuple[VariableSpec, ...]
    units: str
    values: np.ndarray
    error_std: np.ndarray
    state_units: str
    latitude: np.ndarray
    longitude: np.ndarray
    time: np.ndarray
    pressure: np.ndarray | None
    status: np.ndarray
    template: xr.DataArray
    guesses: tuple[str, ...] = ()
    has_time: bool = True
    quantified: Mapping[Hashable, Any] = field(default_factory=dict)
    place: tuple[Place, ...] = ()
    columns: tuple[bool, ...] = ()
    arguments: Mapping[str, np.ndarray] = field(default_factory=dict)
    footprint: Footprint | None = None
    structure: ErrorStructure | None = None
    level: np.ndarray | None = None
    extrapolates: bool = False
    kind: np.ndarray | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of rows that each input takes for one observation."""
        columns = self.columns or (False,) * len(self.inputs)
        nodes = self.footprint.nodes if self.footprint is not None else 1
        return tuple(
            nodes * (len(variable.levels or (None,)) if column else 1)
            for variable, column in zip(self.inputs, columns, strict=True)
        )

    @property
    def is_extreme(self) -> bool:
        """Whether its elements are maxima or minima over intervals."""
        return self.footprint is not None and self.footprint.is_extreme

    @property
    def span(self) -> np.ndarray:
        """(n, 2) seconds, the first and the last time that each element sees."""
        if self.footprint is not None and self.footprint.interval is not None:
            return self.footprint.interval
        return np.stack([self.time, self.time], axis=1)

    @property
    def size(self) -> int:
        """Number n of elements."""
        return int(self.values.size)

    @property
    def is_template(self) -> bool:
        """Whether all values are NaN: a network to be filled by `simulate`."""
        return bool(np.isnan(self.values).all())

    @property
    def height(self) -> float | None:
        """Metres above ground of the inputs, if they are near-surface quantities."""
        heights = {variable.height for variable in self.inputs}
        return heights.pop() if len(heights) == 1 else None

    def __dask_tokenize__(self) -> tuple[object, ...]:
        from dask.base import normalize_token

        arrays = (self.values, self.error_std, self.latitude, self.longitude, self.time)
        labels = (self.template.dims, self.template.coords.to_dataset(), self.template.attrs)
        return (
            "xappa.ObservationSpec",
            (self.name, self.quantity, self.operator, self.units, self.state_units),
            normalize_token(dict(self.parameters)),
            tuple(repr(variable) for variable in self.inputs),
            normalize_token((*arrays, self.pressure, self.level, self.status)),
            self.extrapolates,
            normalize_token((self.columns, dict(self.arguments), self.footprint, self.structure)),
            normalize_token(labels),
        )


def assemble(
    places: Sequence[tuple[Place, ...]],
    arrays: Sequence[xr.DataArray],
    *,
    whole: bool = False,
) -> Any:
    """Put arrays back into the kind of container that they were taken from.

    Parameters
    ----------
    places
        For each array, the way to it.
    arrays
        The arrays, in the same order.
    whole
        Whether Datasets get back what else they held about the observations.

    Returns
    -------
    DataArray, Dataset, list, tuple or dict
        An empty list if there is no array.

    Examples
    --------
    >>> x = xr.DataArray(1.0)
    >>> sorted(assemble([(Place("dict", "a"),), (Place("dict", "b"),)], [x, x]))
    ['a', 'b']
    """
    if not arrays:
        return []
    if not places[0]:
        return arrays[0]
    first = places[0][0]
    groups: dict[Hashable, list[int]] = {}
    for i, place in enumerate(places):
        groups.setdefault(place[0].key, []).append(i)
    inside = {
        key: assemble([places[i][1:] for i in members], [arrays[i] for i in members], whole=whole)
        for key, members in groups.items()
    }
    if first.container == "dataset":
        made = xr.Dataset(inside, attrs=dict(first.attrs))
        if not whole or first.others is None:
            return made
        more = {n: v for n, v in first.others.variables.items() if n not in made.variables}
        return made.assign(more).set_coords([n for n in more if n in first.others.coords])
    if first.container == "dict":
        return inside
    return (tuple if first.container == "tuple" else list)(inside.values())
