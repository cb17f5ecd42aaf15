"""Forecasts and observations brought to the same labels, with weights and the member dimension.

Everything that a score needs to know is decided here once (`pair`), so that the scores themselves
are formulas. Labels are compared, not positions: latitude may run either way, longitudes may be in
either convention and in single precision. Labels that one side has and the other lacks are legal
only if one side holds all labels of the other; a partial overlap is more often a mistake than a
wish.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
import xarray as xr

from xappa import units
from xappa.cf import Axes, find_axes
from xappa.errors import (
    ArgumentError,
    CoordinateError,
    GridMismatchError,
    ObservationTypeError,
    VariableMismatchError,
)
from xappa.grid import Grid
from xappa.units import in_units_of

__all__ = [
    "Dims",
    "Pair",
    "Weights",
    "each_variable",
    "pair",
    "shared_variables",
]

Dims: TypeAlias = str | Iterable[Hashable] | None
Weights: TypeAlias = Literal["area"] | xr.DataArray | None
Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)

# Coordinates that agree to this fraction of their spacing are the same labels.
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Pair:
    """A forecast and the values to verify it against, on the same labels.

    Attributes
    ----------
    fcst
        The forecast, with the member dimension if it has one.
    obs
        The verifying values, in the forecast's units, without a member dimension.
    member
        Name of the member dimension, or None.
    reduce_dims
        The dimensions that the score averages over, in the order of the forecast's.
    weights
        Weights of the average, or None.
    """

    fcst: xr.DataArray
    obs: xr.DataArray
    member: str | None
    reduce_dims: tuple[Hashable, ...]
    weights: xr.DataArray | None

    @property
    def mean(self) -> xr.DataArray:
        """The ensemble mean; NaN where any member is."""
        if self.member is None:
            return self.fcst
        return self.fcst.mean(self.member, skipna=False, keep_attrs=True)

    @property
    def variance(self) -> xr.DataArray:
        """The ensemble variance (over M - 1), NaN where there is nothing to verify against."""
        members = self.require_members()
        variance = self.fcst.var(members, ddof=1, skipna=False)
        return variance.where(self.obs.notnull())

    def require_members(self) -> str:
        """Return the name of the member dimension.

        Raises
        ------
        CoordinateError
            If there is none, or only one member.
        """
        if self.member is None or self.fcst.sizes[self.member] < 2:
            raise CoordinateError(
                "this score needs an ensemble",
                where=f"forecast {self.fcst.name!r}",
                expected="a member dimension (standard_name realization) with at least two members",
                got=f"dimensions {dict(self.fcst.sizes)}",
                remedy="pass an ensemble, or use rmse or bias, which accept a single forecast",
            )
        return self.member

    def average(self, values: xr.DataArray) -> xr.DataArray:
        """Average over the pair's dimensions with its weights, missing values left out."""
        if not self.reduce_dims:
            return values
        if self.weights is None:
            return values.mean(self.reduce_dims)
        return values.weighted(self.weights).mean(self.reduce_dims)


def each_variable(
    score: Callable[[xr.DataArray, xr.DataArray], xr.DataArray], fcst: Labelled, obs: Labelled
) -> Labelled:
    """Apply a score to a pair of arrays, or to each variable that two Datasets share.

    Raises
    ------
    ObservationTypeError
        If the two are not both DataArrays or both Datasets.
    VariableMismatchError
        If two Datasets share no variable.
    """
    if isinstance(fcst, xr.DataArray) and isinstance(obs, xr.DataArray):
        return score(fcst, obs)
    shared = shared_variables(fcst, obs)
    return xr.Dataset({name: score(fcst[name], obs[name]) for name in shared})


def shared_variables(fcst: Any, obs: Any, where: str = "verification") -> list[Hashable]:
    """Return the names of the variables that two Datasets share, in the order of the first.

    Raises
    ------
    ObservationTypeError
        If one of them is no Dataset.
    VariableMismatchError
        If they share no variable.
    """
    if not (isinstance(fcst, xr.Dataset) and isinstance(obs, xr.Dataset)):
        raise ObservationTypeError(
            "forecast and observations are of different kinds",
            where=where,
            expected="two DataArrays or two Datasets",
            got=f"forecast: {_described(fcst)}; observations: {_described(obs)}",
            remedy="select the variable on both sides, as in fcst['t2m']",
        )
    shared = [name for name in fcst.data_vars if name in obs.data_vars]
    if not shared:
        raise VariableMismatchError(
            "forecast and observations share no variable",
            where=where,
            expected=f"one of {sorted(map(str, fcst.data_vars))}",
            got=f"{sorted(map(str, obs.data_vars))}",
            remedy="rename the variables of one side",
        )
    return shared


def _described(obj: Any) -> str:
    """Say what was passed.

    >>> _described(xr.DataArray(1.0, name="t2m")), _described([1])
    ("a DataArray 't2m'", 'a list')
    """
    if isinstance(obj, xr.DataArray):
        return f"a DataArray {obj.name!r}"
    if isinstance(obj, xr.Dataset):
        return f"a Dataset of {list(obj.data_vars)}"
    return f"a {type(obj).__name__}"


def pair(
    fcst: xr.DataArray,
    obs: xr.DataArray,
    *,
    reduce_dims: Dims = None,
    preserve_dims: Dims = None,
    weights: Weights = "area",
) -> Pair:
    """Match a forecast with the values that verify it.

    Parameters
    ----------
    fcst
        The forecast; a member dimension is recognised by its CF metadata or its name.
    obs
        The values to verify against, with the forecast's dimensions (not members) or some of them.
    reduce_dims, preserve_dims
        Dimensions to average over, or to keep; one of the two at most. Neither: average over all.
    weights
        ``"area"``: by grid-cell area if latitude is a dimension; None: none; or a DataArray.

    Raises
    ------
    ArgumentError
        If dimensions are unknown or both arguments are given.
    CoordinateError
        If ``obs`` has a member dimension.
    GridMismatchError
        If the labels match only in part.
    UnitsError
        If the units are of different dimensions.
    """
    fcst, obs = units.dequantify(fcst), units.dequantify(obs)
    axes = find_axes(fcst, require=())
    member = axes.member if axes.member in fcst.dims else None
    _check_single(fcst, obs, member)
    if member is not None and fcst.chunks is not None:
        fcst = fcst.chunk({member: -1})
    obs = in_units_of(fcst, obs, "verification of")
    fcst, obs = _match_labels(fcst, _named_alike(fcst, obs, axes), axes)
    reduced = _reduced(fcst, obs, member, reduce_dims, preserve_dims)
    return Pair(fcst, obs, member, reduced, _weights(weights, fcst, axes, reduced))


def _check_single(fcst: xr.DataArray, obs: xr.DataArray, member: str | None) -> None:
    """Refuse an ensemble as the truth."""
    own = member
    if member not in obs.dims:
        own = find_axes(obs, require=()).member
        if own not in obs.dims or own in fcst.dims:  # "sample" may count observations, not members
            return
    if member is None:
        remedy = "swap the arguments: the forecast comes first, what verifies it second"
    else:
        remedy = f"select a member or take the mean over {own!r}"
    raise CoordinateError(
        "the values to verify against have a member dimension",
        where=f"{obs.name!r}, dimension {own!r}",
        expected="one value at each point",
        got=f"{obs.sizes[own]} members",
        remedy=remedy,
    )


def _named_alike(fcst: xr.DataArray, obs: xr.DataArray, axes: Axes) -> xr.DataArray:
    """Give the axes of ``obs`` the forecast's names, and its levels the forecast's units.

    Otherwise ``level`` and ``pressure`` would be two dimensions, and every level compared with all.
    """
    theirs = find_axes(obs, require=())
    for role in ("latitude", "longitude", "vertical", "time_dim"):
        ours, other = getattr(axes, role), getattr(theirs, role)
        apart = ours in fcst.dims and other in obs.dims and other not in fcst.dims
        if apart and ours not in obs.dims and ours not in obs.coords:
            obs = obs.rename({other: ours})
    z = axes.vertical
    if z in fcst.indexes and z in obs.indexes:
        wanted, given = (str(a[z].attrs.get("units", "")) for a in (fcst, obs))
        if wanted and given and wanted != given and units.compatible(given, wanted):
            values = units.convert(obs[z].values, given, wanted)
            obs = obs.assign_coords({z: (z, values, {**obs[z].attrs, "units": wanted})})
    return obs


def _match_labels(
    fcst: xr.DataArray, obs: xr.DataArray, axes: Axes
) -> tuple[xr.DataArray, xr.DataArray]:
    """Give both the same labels along the dimensions that they share, in the forecast's order."""
    wanted: dict[Hashable, Any] = {}
    for dim in obs.dims:
        if dim not in fcst.dims:
            continue
        if dim not in fcst.indexes or dim not in obs.indexes:
            _check_sizes(dim, fcst, obs)
            continue
        if dim in (axes.latitude, axes.longitude):
            period = 360.0 if dim == axes.longitude else None
            labels = _snap(obs[dim].values, fcst[dim].values, period)
            obs = obs.assign_coords({dim: obs[dim].copy(data=labels)})
        ours, theirs = fcst.indexes[dim], obs.indexes[dim]
        common = ours[ours.isin(theirs)]
        if len(common) < min(len(ours), len(theirs)) or len(common) == 0:
            raise _mismatch(dim, ours, theirs)
        wanted[dim] = common
    return fcst.sel(wanted), obs.sel(wanted)


def _snap(
    labels: np.ndarray[Any, Any], to: np.ndarray[Any, Any], period: float | None
) -> np.ndarray[Any, Any]:
    """Replace labels that equal one of ``to``, but for rounding or a full turn, by that one."""
    distance = np.abs(labels[:, None].astype(float) - to[None, :])
    if period is not None:
        distance = np.abs((distance + period / 2) % period - period / 2)
    nearest = distance.argmin(axis=1)
    spacing = np.abs(np.diff(to)).min() if to.size > 1 else 1.0
    same = distance[np.arange(labels.size), nearest] <= TOLERANCE * spacing
    return np.where(same, to[nearest], labels)


def _check_sizes(dim: Hashable, fcst: xr.DataArray, obs: xr.DataArray) -> None:
    if fcst.sizes[dim] != obs.sizes[dim]:
        raise _mismatch(dim, fcst.sizes[dim], obs.sizes[dim])


def _mismatch(dim: Hashable, ours: Any, theirs: Any) -> GridMismatchError:
    def show(labels: Any) -> str:
        if isinstance(labels, int):
            return f"{labels} without labels"
        return f"{len(labels)} labels, {labels[0]} to {labels[-1]}"

    return GridMismatchError(
        "forecast and observations match only in part",
        where=f"dimension {str(dim)!r}",
        expected=show(ours),
        got=show(theirs),
        remedy="select the labels that both have, or bring both to the same grid and times",
    )


def _reduced(
    fcst: xr.DataArray,
    obs: xr.DataArray,
    member: str | None,
    reduce_dims: Dims,
    preserve_dims: Dims,
) -> tuple[Hashable, ...]:
    """Dimensions to average over."""
    dims = tuple(dict.fromkeys((*fcst.dims, *obs.dims)))
    scored = tuple(dim for dim in dims if dim != member)
    if reduce_dims is not None and preserve_dims is not None:
        raise ArgumentError(
            "reduce_dims and preserve_dims exclude each other",
            where="verification",
            expected="one of the two",
            got=f"reduce_dims={reduce_dims!r}, preserve_dims={preserve_dims!r}",
            remedy="drop one of them",
        )
    if reduce_dims is not None:
        return tuple(d for d in scored if d in _named(reduce_dims, scored))
    if preserve_dims is not None:
        return tuple(d for d in scored if d not in _named(preserve_dims, scored))
    return scored


def _named(dims: str | Iterable[Hashable], among: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
    if dims == "all":
        return among
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    unknown = [name for name in names if name not in among]
    if unknown:
        raise ArgumentError(
            f"unknown dimension {unknown[0]!r}",
            where="reduce_dims or preserve_dims",
            expected=f"some of {among}, or 'all'",
            got=f"{names}",
            remedy="use the dimensions of the forecast, other than the member dimension",
        )
    return names


def _weights(
    weights: Weights, fcst: xr.DataArray, axes: Axes, reduced: tuple[Hashable, ...]
) -> xr.DataArray | None:
    if isinstance(weights, xr.DataArray):
        return weights
    if weights is None:
        return None
    if not isinstance(weights, str) or weights != "area":
        raise ArgumentError(
            "unknown weights",
            where="verification",
            expected="'area', None or a DataArray",
            got=repr(weights),
            remedy="pass weights='area' to weight by grid-cell area",
        )
    latitude = axes.latitude
    # A latitude that belongs to stations, or that is not averaged over, gives no weights.
    if latitude is None or latitude not in reduced or fcst.sizes[latitude] < 2:
        return None
    # All cells of a row have the same area on a regular grid, so that any longitudes do.
    longitude = axes.longitude
    if longitude is not None and longitude in reduced and fcst.sizes[longitude] > 1:
        grid = Grid(_values(fcst, latitude), _values(fcst, longitude))
        return xr.DataArray(grid.area_weights(), dims=(latitude, longitude))
    grid = Grid(_values(fcst, latitude), np.array([0.0, 180.0]))
    return xr.DataArray(grid.area_weights()[:, 0], dims=latitude)


def _values(fcst: xr.DataArray, name: str) -> np.ndarray[Any, Any]:
    return cast("np.ndarray[Any, Any]", np.asarray(fcst[name].values, dtype=np.float64))
