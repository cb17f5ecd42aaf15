"""The handshake of a Dataset with a state, and the labels that lead back to the Dataset."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.bridge.fields import Field, match_variables
from xappa.bridge.labels import template_of, with_new_times
from xappa.bridge.recognise import (
    Roles,
    as_dataset,
    times_of,
    tolerance_of,
)
from xappa.bridge.spec import StateSpec
from xappa.cf import Axes, find_axes
from xappa.errors import (
    GridMismatchError,
    TimeStepError,
    XappaError,
    raise_all,
)
from xappa.grid import Grid
from xappa.units import dequantify, quantified_units

__all__ = ["Field", "Layout"]

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layout:
    """Everything that gives arrays back the labels of a Dataset.

    Parameters
    ----------
    spec
        The state that the Dataset is packed into.
    axes, roles
        Its coordinates and its dimensions by role.
    fields
        Its variables, in the order of the state's.
    times
        (T,) seconds since 1970-01-01 in `calendar`; None without time.
    calendar
        Calendar of the Dataset's times.
    rows, columns
        Indices of its latitudes and longitudes in the state's grid.
    levels
        Indices of the Dataset's levels that the state uses, in stored order.
    member_size
        Number of members; None without a dimension of members.
    template
        Its coordinates and attributes, without data.
    quantified
        Pint units of the variables that were quantified.
    guesses
        Sentences that say what was guessed.
    """

    spec: StateSpec
    axes: Axes
    roles: Roles
    fields: tuple[Field, ...]
    times: Floats | None
    calendar: str
    rows: Integers
    columns: Integers
    levels: tuple[int, ...]
    member_size: int | None
    template: xr.Dataset
    quantified: Mapping[Hashable, Any] = field(default_factory=dict)
    guesses: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, str]:
        """Name in the Dataset of each variable of the state."""
        return {entry.variable.name: entry.name for entry in self.fields}

    @property
    def is_full_grid(self) -> bool:
        """True where the Dataset covers the state's whole grid."""
        return (self.rows.size, self.columns.size) == self.spec.grid.shape

    @property
    def n_times(self) -> int:
        """Number of states, 1 without time."""
        return 1 if self.times is None else self.times.size

    @classmethod
    def of(cls, ds: xr.Dataset | xr.DataArray, spec: StateSpec, *, gaps: bool = False) -> Layout:
        """Check that a Dataset fits a state, and remember its labels.

        Parameters
        ----------
        ds
            Dataset with the variables, levels and time step of `spec`, on its grid or a
            sub-region of it. Lazy data are not computed.
        spec
            The state, such as a model's.
        gaps
            Whether states may be missing between times, as in training data.

        Raises
        ------
        VariableMismatchError, GridMismatchError, UnitsError, TimeStepError, CoordinateError
            One problem is raised as it is, several as an ExceptionGroup that lists them all.
        """
        original = as_dataset(ds)
        quantified = quantified_units(original)
        plain = dequantify(original)
        axes = find_axes(plain)
        roles = Roles.of(plain, axes)
        problems: list[XappaError] = []
        guesses = list(axes.guesses)
        rows, columns = _match_grid(plain, axes, spec, problems)
        fields = match_variables(plain, axes, roles, spec, problems, guesses)
        times, calendar = times_of(plain, axes, roles)
        _check_times(times, spec, axes, gaps, problems)
        raise_all(problems, "the Dataset does not fit the model's state")
        used = sorted({level for entry in fields for level in entry.levels})
        dims = {dim for entry in fields for dim in entry.dims}
        keep = (
            None if roles.vertical is None else (roles.vertical, np.asarray(used, dtype=np.int64))
        )
        return cls(
            spec=spec,
            axes=axes,
            roles=roles,
            fields=fields,
            times=times,
            calendar=calendar,
            rows=rows,
            columns=columns,
            levels=tuple(used),
            member_size=None if roles.member is None else plain.sizes[roles.member],
            template=template_of(plain, dims, keep),
            quantified=quantified,
            guesses=tuple(guesses),
        )

    def with_times(self, seconds: npt.ArrayLike, calendar: str | None = None) -> Layout:
        """Return the layout of the same variables at other valid times, such as a forecast's.

        Valid time becomes the coordinate of its own dimension. Other coordinates that varied
        with time, and those of the former forecast, are dropped.

        Parameters
        ----------
        seconds
            (T,) seconds since 1970-01-01.
        calendar
            Their calendar; by default the layout's own.
        """
        times = np.atleast_1d(np.asarray(seconds, dtype=np.float64))
        calendar = self.calendar if calendar is None else calendar
        former = self.roles.time
        name = former if former is not None else (self.axes.time or "time")
        # months number a climatology: dates need another name
        name = "time" if name == "month" else name
        template = with_new_times(
            self.template, name, former or name, self.axes.time, times, calendar
        )
        fields = tuple(
            replace(entry, dims=_with_time(entry.dims, former, name, self.roles.member))
            for entry in self.fields
        )
        return replace(
            self,
            axes=replace(self.axes, time=name, time_dim=name),
            roles=replace(self.roles, time=name),
            fields=fields,
            times=times,
            calendar=calendar,
            template=template,
        )


def _with_time(
    dims: tuple[str, ...], former: str | None, name: str, member: str | None
) -> tuple[str, ...]:
    if former in dims:
        return tuple(name if dim == former else dim for dim in dims)
    at = dims.index(member) + 1 if member in dims else 0
    return (*dims[:at], name, *dims[at:])


def _match_grid(
    ds: xr.Dataset, axes: Axes, spec: StateSpec, problems: list[XappaError]
) -> tuple[Integers, Integers]:
    try:
        grid = Grid.from_dataset(ds, axes)
        return spec.grid.match(grid.latitude, grid.longitude)
    except GridMismatchError as error:
        problems.append(error)
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


def _check_times(
    times: Floats | None,
    spec: StateSpec,
    axes: Axes,
    gaps: bool,
    problems: list[XappaError],
) -> None:
    if times is None or times.size == 1:
        return
    if not times.size:
        what = "the Dataset holds no states"
        problems.append(
            TimeStepError(what, where=axes.time, expected="one time or more", got="none")
        )
        return
    steps = np.diff(times)
    wrong = steps <= 0
    expected = "times that increase"
    if spec.time_step is not None:
        multiples = np.maximum(np.round(steps / spec.time_step), 1.0) if gaps else 1.0
        wrong |= np.abs(steps - multiples * spec.time_step) > tolerance_of(spec.time_step)
        expected = f"a step of {_duration(spec.time_step)}" + (
            " or multiples of it" if gaps else ""
        )
    if wrong.any():
        k = int(wrong.argmax())
        problems.append(
            TimeStepError(
                "the time axis does not follow the time step of the state",
                where=f"{axes.time}[{k}] to {axes.time}[{k + 1}]",
                expected=expected,
                got=_duration(float(steps[k])),
                remedy="select or resample the times, or ds.sortby the time",
            )
        )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if abs(seconds) >= length:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} seconds"
