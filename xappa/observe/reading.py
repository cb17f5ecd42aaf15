"""Reading observation arrays: CF metadata to `ObservationSpec`, with all problems told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

from xappa.errors import CoordinateError, UnitsError, XappaError, XappaErrors, raise_all
from xappa.observe.airmass import air_mass
from xappa.observe.aloft import is_aloft
from xappa.observe.arguments import read_arguments, said_names
from xappa.observe.column_limits import beyond_columns
from xappa.observe.containers import Found, choose_columns, collect
from xappa.observe.covariance import ErrorStructure
from xappa.observe.defaults import default_error
from xappa.observe.elevation import Orography, at_station_height
from xappa.observe.error import (
    ERROR_COORDINATE,
    ErrorArgument,
    has_error,
    not_by_slip,
    resolve_error,
    said_by_itself,
    unused_error_names,
)
from xappa.observe.extent import Extent, read_footprint
from xappa.observe.flags import rejected_by_flags
from xappa.observe.identity import duplicates, kinds
from xappa.observe.matching import Match, is_recognised, match_quantity
from xappa.observe.positions import Positions, read_positions
from xappa.observe.spec import ObservationSpec, Status
from xappa.observe.structure import read_structure
from xappa.observe.values import read_values
from xappa.observe.winds import pair_winds

if TYPE_CHECKING:
    from xappa.bridge import StateSpec

__all__ = ["read_observations"]

EXTRAPOLATE = "xappa_extrapolate"

_T = TypeVar("_T")


@dataclass
class _Problems:
    """Errors found so far, so that the user hears of all of them at once."""

    errors: list[XappaError] = field(default_factory=list)

    def attempt(self, read: Callable[..., _T], *args: Any, **kwargs: Any) -> _T | None:
        """Call a function; where it raises, keep the error and return None."""
        try:
            return read(*args, **kwargs)
        except XappaErrors as group:
            self.errors.extend(group.errors)
        except XappaError as error:
            self.errors.append(error)
        return None


def read_observations(
    obs: Any,
    state: StateSpec,
    *,
    error: ErrorArgument = None,
    altitude: np.ndarray | None = None,
) -> tuple[ObservationSpec, ...]:
    """Read what observation arrays say of themselves.

    Parameters
    ----------
    obs
        A DataArray; a Dataset, whose ancillary variables are no observations; or lists, tuples
        and dicts of them. Lazy arrays are loaded once; nothing is changed.
    state
        The variables, levels, units, grid and calendar of the state.
    error
        Standard deviation of the observation errors: a number in the observation's units, a pint
        quantity, a DataArray, or a dict by array name or standard name. It goes before what the
        arrays say themselves. Where nobody says it, `xappa.observe.defaults` has one for common
        quantities, and that is said.
    altitude
        (lat, lon) metres of the model's ground, by which stations are corrected for their height
        (`xappa.observe.elevation`); None where it is not known.

    Returns
    -------
    tuple of ObservationSpec
        One per array, in order; empty if there is none.

    Raises
    ------
    ObservationTypeError
        If `obs` holds something else.
    UnknownQuantityError, UnitsError, CoordinateError, ErrorCovarianceError, OperatorError
        If an array cannot be understood; several problems come as one ExceptionGroup.
    """
    found = choose_columns(
        collect(obs),
        recognised=lambda array: is_recognised(array, state),
        has_error=lambda item: has_error(item, error),
    )
    problems = _Problems()
    known = {name for item in found for name in item.names}
    found = pair_winds(
        found, state, error, lambda item: said_by_itself(item, error), problems.errors
    )
    ground = None if altitude is None else Orography(state.grid, altitude)
    specs = [
        _read(item, state, None if item.settled else error, ground, problems) for item in found
    ]
    unused = unused_error_names(error, known)
    if unused is not None:
        problems.errors = [*not_by_slip(problems.errors, found, error), unused]
    raise_all(problems.errors, "the observations cannot be understood")
    return _told_once([spec for spec in specs if spec is not None])


@dataclass(frozen=True)
class _Understood:
    """What metadata say of an array, apart from its values and errors."""

    positions: Positions
    match: Match
    arguments: Mapping[str, np.ndarray]
    extent: Extent
    far: np.ndarray


def _read(
    found: Found,
    state: StateSpec,
    error: ErrorArgument,
    ground: Orography | None,
    problems: _Problems,
) -> ObservationSpec | None:
    """Read one array; what is wrong with it is added to the problems."""
    understood = _understood(found, state, ground, problems)
    if understood is None:
        return None
    positions, match = understood.positions, understood.match
    own = str(found.array.attrs.get("units") or match.units)
    values = problems.attempt(
        read_values, found.array, own, match.units, match.quantity, found.where
    )
    before = len(problems.errors)
    assumed = None
    if not has_error(found, error):
        assumed = default_error(found, on_levels=positions.axes.vertical is not None)
    std = problems.attempt(
        resolve_error,
        found.array,
        found.dataset,
        names=found.names,
        obs_units=own,
        state_units=match.units if values is not None else own,
        error=error if assumed is None else assumed[0],
    )
    if values is None:
        # an error in other units than wrong ones is no problem of its own
        later = problems.errors[before:]
        problems.errors[before:] = [e for e in later if not isinstance(e, UnitsError)]
    if values is None or std is None:
        return None
    place = (positions.latitude, positions.longitude, positions.time)
    structure = problems.attempt(read_structure, found, *place, own, match.units)
    if structure is None:
        return None
    said = () if assumed is None else (assumed[1],)
    found = replace(found, guesses=(*found.guesses, *said, *values[1]))
    spec = problems.attempt(_spec, found, understood, own, values[0], std, structure or None)
    return None if spec is None else problems.attempt(air_mass, spec, found, positions, state)


def _understood(
    found: Found, state: StateSpec, ground: Orography | None, problems: _Problems
) -> _Understood | None:
    """Read where an array was observed, and what; None if that has problems."""
    array, where = found.array, found.where
    positions = problems.attempt(read_positions, array, state, where)
    if positions is None:
        return None
    match = problems.attempt(
        match_quantity,
        array,
        state,
        vertical=None if positions.axes.vertical is None else positions.vertical,
        where=where,
        says=said_names(found, on_levels=positions.pressure is not None),
        aloft=is_aloft(found, positions.axes),
    )
    if match is None:
        return None
    raised = problems.attempt(at_station_height, found, match, positions, state, ground)
    arguments = problems.attempt(read_arguments, found, match.arguments, positions.pressure)
    extent = problems.attempt(read_footprint, found, positions.axes, positions.time, state)
    if raised is None or arguments is None or extent is None:
        return None
    match, heights, far = raised
    return _Understood(positions, match, {**arguments, **heights}, extent, far)


def _spec(
    found: Found,
    understood: _Understood,
    own_units: str,
    values: np.ndarray,
    std: np.ndarray,
    structure: ErrorStructure | None,
) -> ObservationSpec:
    """Put the parts together."""
    array = found.array
    positions, match, extent = understood.positions, understood.match, understood.extent
    kind = kinds(array, positions)
    extrapolates = _extrapolates(array, found.where)
    status, flag_guesses = _statuses(found, understood, values, std, kind, extrapolates)
    columns = match.columns or (False,) * len(match.inputs)
    layered = any(
        variable.levels is not None and not column
        for variable, column in zip(match.inputs, columns, strict=True)
    )
    guesses = [
        *found.guesses,
        *positions.guesses,
        *match.guesses,
        *_unit_guess(array, own_units),
        *flag_guesses,
        *extent.guesses,
        *(() if structure is None else structure.notes),
    ]
    own = f"{array.name}: "
    return ObservationSpec(
        name=found.name,
        quantity=match.quantity,
        operator=match.operator,
        parameters=match.parameters,
        inputs=match.inputs,
        units=own_units,
        values=values,
        error_std=np.where(np.isfinite(std), std, np.nan),
        state_units=match.units,
        latitude=positions.latitude,
        longitude=positions.longitude,
        time=positions.time,
        pressure=positions.pressure if layered else None,
        level=positions.level if layered else None,
        extrapolates=extrapolates,
        status=status,
        template=_template(found, match, own_units),
        guesses=tuple(dict.fromkeys(guess.removeprefix(own) for guess in guesses)),
        has_time=positions.has_time,
        quantified=found.quantified,
        place=found.place,
        columns=match.columns,
        arguments=understood.arguments,
        footprint=extent.footprint,
        structure=structure,
        kind=kind,
    )


def _statuses(
    found: Found,
    understood: _Understood,
    values: np.ndarray,
    std: np.ndarray,
    kind: np.ndarray | None,
    extrapolates: bool,
) -> tuple[np.ndarray, list[str]]:
    """Return the status (n,) of each element as far as metadata tell, and guesses about flags."""
    flagged, guesses = rejected_by_flags(found.array, found.dataset)
    match, arguments = understood.match, understood.arguments
    status = np.zeros(values.size, np.int8)
    if not extrapolates:
        status[beyond_columns(match, arguments, values.size)] = Status.OUTSIDE_LEVELS
    status[~np.isfinite(std)] = Status.NO_ERROR
    status[flagged] = Status.FLAGGED
    for said in arguments.values():
        status[~np.isfinite(said).reshape(len(said), -1).all(axis=1)] = Status.MISSING
    status[understood.far & (status == Status.MISSING)] = Status.HEIGHT
    missing = np.isnan(values)
    # all of a network is missing so far: its flags say what will be
    status[missing & ~(flagged & missing.all())] = Status.MISSING
    usable = status == Status.USED
    repeated = duplicates(
        found.array,
        understood.positions,
        values,
        kind,
        arguments,
        understood.extent.footprint,
        usable,
    )
    status[repeated] = Status.DUPLICATE
    return status, guesses


def _extrapolates(array: xr.DataArray, where: str) -> bool:
    """Read whether values beyond the outermost levels are those there, as the user asked for."""
    given = array.attrs.get(EXTRAPOLATE)
    if given not in (None, "constant"):
        raise CoordinateError(
            "the attribute that asks for extrapolation cannot be read",
            where=f"{where}, attribute {EXTRAPOLATE}",
            expected="'constant': beyond the outermost levels, the values there",
            got=repr(given),
            remedy="drop it to reject observations beyond the levels",
        )
    return given is not None


def _told_once(specs: list[ObservationSpec]) -> tuple[ObservationSpec, ...]:
    """Put the array's name before each guess, and tell once what was guessed of several arrays."""
    about: dict[str, list[str]] = {}
    for spec in specs:
        for guess in spec.guesses:
            about.setdefault(guess, []).append(spec.name)
    told = []
    for spec in specs:
        guesses = []
        for guess in spec.guesses:
            first, *others = about[guess]
            also = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if others[3:] else "")
            if spec.name == first:
                guesses.append(f"{first}: {guess}" + (f" (also {also})" if others else ""))
        told.append(replace(spec, guesses=tuple(guesses)))
    return tuple(told)


def _unit_guess(array: xr.DataArray, units_taken: str) -> list[str]:
    if array.attrs.get("units"):
        return []
    return [f"no units given: taken for {units_taken}, as in the state"]


def _template(found: Found, match: Match, own_units: str) -> xr.DataArray:
    """Return the labels of an array; its values are lazy and take no memory."""
    import dask.array

    array = found.array
    if found.settled:  # errors that were made here: components have different ones
        array = array.drop_vars(ERROR_COORDINATE, errors="ignore")
    dummy = dask.array.full(array.shape, np.nan, chunks=array.shape or -1, dtype=np.float64)
    template = array.copy(data=dummy)
    template.attrs = dict(array.attrs, units=own_units)
    if template.attrs.get("standard_name", "unknown") == "unknown" and match.quantity:
        template.attrs["standard_name"] = match.quantity
    for key in ("_FillValue", "missing_value", "ancillary_variables"):
        template.attrs.pop(key, None)
    template.encoding = {}
    return template
