"""Recognition: from a Dataset to the variables, levels and times of a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.bridge.spec import StateSpec, VariableSpec
from xappa.cf import (
    PRESSURE,
    Axes,
    find_axes,
    identify,
    is_surface,
    to_seconds,
    vertical_levels,
)
from xappa.cf import standard_name as stated_name
from xappa.errors import (
    CoordinateError,
    ObservationTypeError,
    VariableMismatchError,
    XappaError,
    raise_all,
)
from xappa.grid import Grid
from xappa.units import dequantify

__all__ = ["Found", "Roles", "describe", "find_variables", "levels_of", "step_of", "times_of"]

# seconds by which time stamps may miss the time step: those stored as float hours do
TIME_TOLERANCE = 1.0


def tolerance_of(step: float) -> float:
    """Return the seconds by which times may miss multiples of a step, short in toy models."""
    return min(TIME_TOLERANCE, step / 1000)


@dataclass(frozen=True)
class Roles:
    """The dimensions of a Dataset by role, None where it has no such dimension."""

    member: str | None
    time: str | None
    vertical: str | None
    latitude: str | None
    longitude: str | None

    @classmethod
    def of(cls, ds: xr.Dataset, axes: Axes) -> Roles:
        """Return the dimensions along which the coordinates in `axes` lie."""

        def dim(name: str | None) -> str | None:
            return str(ds[name].dims[0]) if name is not None and ds[name].ndim == 1 else None

        return cls(
            axes.member, axes.time_dim, dim(axes.vertical), dim(axes.latitude), dim(axes.longitude)
        )

    @property
    def order(self) -> tuple[str | None, ...]:
        """Dimensions in the order of a packed state, before channels are joined."""
        return self.member, self.time, self.vertical, self.latitude, self.longitude


@dataclass(frozen=True)
class Found:
    """A variable of a Dataset, and what was recognised in it."""

    name: str
    standard_name: str | None
    height: float | None
    units: str
    on_levels: bool
    guesses: tuple[str, ...]
    problem: str | None


def find_variables(ds: xr.Dataset, axes: Axes, roles: Roles) -> dict[str, Found]:
    """Return what each data variable of a (dequantified) Dataset holds."""
    return {str(name): _find(da, axes, roles, ds) for name, da in ds.data_vars.items()}


def _find(da: xr.DataArray, axes: Axes, roles: Roles, ds: xr.Dataset) -> Found:
    name = str(da.name)
    quantity, guess = identify(da, name)
    guesses = [] if guess is None else [guess]
    units = str(da.attrs.get("units", "")).strip()
    if not units:
        units = (quantity.units if quantity is not None else "") or "1"
        guesses.append(f"{name}: no units; its values are taken to be in {units!r}")
    surface = quantity is not None and (
        quantity.height is not None or is_surface(quantity.standard_name)
    )
    scalar_level = axes.vertical is not None and ds[axes.vertical].ndim == 0
    on_levels = roles.vertical in da.dims or (scalar_level and not surface)
    return Found(
        name=name,
        standard_name=quantity.standard_name if quantity is not None else stated_name(da),
        height=quantity.height if quantity is not None and roles.vertical not in da.dims else None,
        units=units,
        on_levels=on_levels,
        guesses=tuple(guesses),
        problem=_problem(da, roles, ds),
    )


def _problem(da: xr.DataArray, roles: Roles, ds: xr.Dataset) -> str | None:
    """Return why a variable cannot be part of a state, None if it can."""
    if da.dtype.kind != "f":
        return f"its dtype is {da.dtype}"
    lacking = [dim for dim in (roles.latitude, roles.longitude) if dim and dim not in da.dims]
    if lacking:
        return f"it has no dimension {' and '.join(lacking)}"
    known = set(roles.order)
    extra = [str(dim) for dim in da.dims if dim not in known and ds.sizes[dim] != 1]
    if extra:
        lone = [dim for dim in extra if dim not in ds.coords]
        why = f" ({', '.join(lone)} without coordinate)" if lone else ""
        return f"it has the dimension {', '.join(extra)}, whose role is unknown{why}"
    if roles.time is not None and ds.sizes[roles.time] > 1 and roles.time not in da.dims:
        return f"it does not vary along {roles.time}"
    return None


def as_dataset(ds: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Return a Dataset; a named DataArray becomes its only variable."""
    if isinstance(ds, xr.DataArray):
        return ds.to_dataset(name=ds.name if ds.name is not None else "state")
    if isinstance(ds, xr.Dataset):
        return ds
    raise ObservationTypeError(
        "the state must be an xarray Dataset",
        expected="xarray.Dataset",
        got=type(ds).__name__,
        remedy="wrap the arrays: xr.Dataset({'t2m': da})",
    )


def describe(
    ds: xr.Dataset | xr.DataArray, *, variables: Sequence[str] | None = None
) -> tuple[StateSpec, Axes]:
    """Describe the states that a Dataset holds.

    Parameters
    ----------
    ds
        Dataset on a rectilinear grid, in any order of dimensions; lazy data are not computed.
    variables
        Names of the variables to take; by default all floating-point variables on the grid,
        except those that lack the time dimension that others have.

    Returns
    -------
    spec
        Variables, grid, time step and calendar.
    axes
        The coordinates by role; its `guesses` hold everything that was guessed.

    Raises
    ------
    CoordinateError
        If latitude or longitude is missing, or the grid is not rectilinear.
    VariableMismatchError
        If no variable is left, or a variable of `variables` cannot be used.
    """
    ds = dequantify(as_dataset(ds))
    axes = find_axes(ds)
    grid = Grid.from_dataset(ds, axes)
    roles = Roles.of(ds, axes)
    found = find_variables(ds, axes, roles)
    chosen = _choose(found, variables)
    guesses = list(axes.guesses)
    guesses += [guess for entry in chosen for guess in entry.guesses]
    levels: tuple[float, ...] | None = None
    vertical = PRESSURE
    if any(entry.on_levels for entry in chosen):
        levels, vertical, guess = levels_of(ds, axes)
        guesses += [guess] if guess else []
    times, calendar = times_of(ds, axes, roles)
    step, guess = step_of(times)
    guesses += [guess] if guess else []
    specs = tuple(
        VariableSpec(e.name, e.standard_name, e.height, e.units, levels, vertical)
        if e.on_levels
        else VariableSpec(e.name, e.standard_name, e.height, e.units, None)
        for e in chosen
    )
    return StateSpec(specs, grid, step, calendar), replace(axes, guesses=tuple(guesses))


def _choose(found: dict[str, Found], variables: Sequence[str] | None) -> list[Found]:
    problems: list[XappaError] = []
    if variables is not None:
        names = [variables] if isinstance(variables, str) else list(variables)
        for name in names:
            # a field that does not vary in time is left out by default, but may be asked for
            why = found[name].problem if name in found else "there is no such variable"
            if why is not None and not why.startswith("it does not vary"):
                problems.append(
                    VariableMismatchError(
                        f"{name!r} cannot be part of the state",
                        where="variables",
                        expected="floating-point variables on the grid",
                        got=why,
                        remedy=f"choose among {', '.join(n for n in found) or 'none'}",
                    )
                )
        raise_all(problems, "variables that cannot be used")
        return [found[name] for name in names]
    chosen = [entry for entry in found.values() if entry.problem is None]
    if not chosen:
        reasons = "; ".join(f"{entry.name}: {entry.problem}" for entry in found.values())
        raise VariableMismatchError(
            "the Dataset holds no variable that can be part of a state",
            expected="a floating-point variable with dimensions of latitude and longitude",
            got=reasons or "no variables",
            remedy="look at what was recognised: print(ds.appa)",
        )
    return chosen


def levels_of(ds: xr.Dataset, axes: Axes) -> tuple[tuple[float, ...], str, str | None]:
    """Return the levels in stored order (pressures in Pa), what they are, and what was guessed.

    Raises
    ------
    CoordinateError
        If the vertical coordinate is no pressure or model level, or has several dimensions.
    """
    coord = ds[axes.vertical]
    if coord.ndim > 1:
        raise CoordinateError(
            "the vertical coordinate varies along several dimensions",
            where=str(coord.name),
            expected="levels along one dimension",
            got=f"dimensions {coord.dims}",
            remedy="interpolate to pressure levels",
        )
    levels, kind, guess = vertical_levels(coord)
    return tuple(float(level) for level in np.ravel(levels)), kind, guess


def times_of(
    ds: xr.Dataset, axes: Axes, roles: Roles
) -> tuple[npt.NDArray[np.float64] | None, str]:
    """Return valid times (T,) in seconds, or None, and their calendar.

    Raises
    ------
    CoordinateError
        If a time is missing.
    """
    if axes.time is None:
        return None, "proleptic_gregorian"
    seconds, calendar = to_seconds(ds[axes.time])
    seconds = np.ravel(seconds)
    if not np.all(np.isfinite(seconds)):
        raise CoordinateError(
            "valid times are missing",
            where=f"{axes.time}[{int(np.argmin(np.isfinite(seconds)))}]",
            expected="a time for each state",
            got="NaT",
            remedy=f"drop them: ds.dropna('{roles.time}', subset=['{axes.time}'])",
        )
    return seconds, calendar


def step_of(times: npt.NDArray[np.float64] | None) -> tuple[float | None, str | None]:
    """Return the time step of a time axis (gaps allowed), and a sentence where there is none."""
    if times is None or times.size < 2:
        return None, None
    steps = np.diff(times)
    step = float(steps.min())
    if step > 0:
        multiples = np.round(steps / step)
        if np.all(np.abs(steps - multiples * step) <= tolerance_of(step)):
            whole = step >= 1 and abs(step - round(step)) < 1e-3
            return float(round(step)) if whole else step, None
    return None, (
        f"the time axis has no regular step ({steps.min():g} to {steps.max():g} s);"
        " no time step was taken"
    )
