"""What a state consists of: variables on levels, a grid, a time step and a calendar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from xappa.cf import PRESSURE
from xappa.errors import VariableMismatchError
from xappa.grid import Grid

__all__ = ["StateSpec", "VariableSpec"]


@dataclass(frozen=True)
class VariableSpec:
    """One variable of a state.

    Parameters
    ----------
    name
        Name in Datasets.
    standard_name
        CF standard name, None where the quantity is not recognised.
    height
        Metres above ground of a near-surface variable, else None.
    units
        Units of the values in the packed state.
    levels
        Pressures in Pa, or what `vertical` says, in stored order; None for a variable without.
    vertical
        What levels are: ``"air_pressure"``, ``"atmosphere_sigma_coordinate"`` or
        ``"model_level_number"``.
    """

    name: str
    standard_name: str | None
    height: float | None
    units: str
    levels: tuple[float, ...] | None
    vertical: str = PRESSURE

    @property
    def n_channels(self) -> int:
        """Number of channels: of levels, or one."""
        return 1 if self.levels is None else len(self.levels)

    @property
    def channel_labels(self) -> tuple[str, ...]:
        """Labels such as ``t@85000``, or the name alone.

        Examples
        --------
        >>> VariableSpec("t", "air_temperature", None, "K", (85000.0, 50000.0)).channel_labels
        ('t@85000', 't@50000')
        """
        if self.levels is None:
            return (self.name,)
        return tuple(f"{self.name}@{level:.12g}" for level in self.levels)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VariableSpec:
        """Return the variable that `dataclasses.asdict` described."""
        levels = data["levels"]
        return cls(
            name=str(data["name"]),
            standard_name=data["standard_name"],
            height=None if data["height"] is None else float(data["height"]),
            units=str(data["units"]),
            levels=None if levels is None else tuple(float(level) for level in levels),
            vertical=str(data.get("vertical", PRESSURE)),
        )

    def describe_levels(self, levels: Sequence[float] | None = None) -> str:
        """Return levels (its own by default) in words: pressures in hPa.

        Examples
        --------
        >>> VariableSpec("t", "air_temperature", None, "K", (85000.0, 50000.0)).describe_levels()
        '850, 500 hPa'
        """
        levels = self.levels or () if levels is None else levels
        if self.vertical == PRESSURE:
            return ", ".join(f"{level / 100:g}" for level in levels) + " hPa"
        return f"{self.vertical} " + ", ".join(f"{level:g}" for level in levels)

    def __str__(self) -> str:
        what = self.standard_name or "not recognised"
        if self.height is not None:
            what += f" at {self.height:g} m"
        if self.levels is not None:
            what += f" on {len(self.levels)} levels"
        return f"{self.name} ({what}, {self.units})"


@dataclass(frozen=True)
class StateSpec:
    """What a state consists of.

    Parameters
    ----------
    variables
        Variables in the order of the channels.
    grid
        The grid, (lat, lon) as stored.
    time_step
        Seconds between states; None for a single state, without time, or where the time axis is
        irregular.
    calendar
        CF name of the calendar.
    """

    variables: tuple[VariableSpec, ...]
    grid: Grid
    time_step: float | None
    calendar: str

    @property
    def n_channels(self) -> int:
        """Number of channels: levels of all variables."""
        return sum(variable.n_channels for variable in self.variables)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channel, lat, lon) of one state."""
        return (self.n_channels, *self.grid.shape)

    @cached_property
    def channels(self) -> tuple[tuple[VariableSpec, float | None], ...]:
        """(variable, level or None) of each channel."""
        return tuple(
            (variable, level)
            for variable in self.variables
            for level in ((None,) if variable.levels is None else variable.levels)
        )

    @property
    def channel_labels(self) -> tuple[str, ...]:
        """Label of each channel, such as ``t@85000`` or ``t2m``."""
        return tuple(label for v in self.variables for label in v.channel_labels)

    def slice_of(self, name: str) -> slice:
        """Return the channels of a variable.

        Raises
        ------
        VariableMismatchError
            If there is no such variable.
        """
        start = 0
        for variable in self.variables:
            if variable.name == name:
                return slice(start, start + variable.n_channels)
            start += variable.n_channels
        raise VariableMismatchError(
            "the state has no such variable",
            expected=", ".join(variable.name for variable in self.variables),
            got=name,
            remedy="use one of its variables",
        )

    def variable(self, name: str) -> VariableSpec:
        """Return a variable by name.

        Raises
        ------
        VariableMismatchError
            If there is no such variable.
        """
        self.slice_of(name)
        return next(variable for variable in self.variables if variable.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return a description that JSON can hold."""
        variables = [asdict(variable) for variable in self.variables]
        for entry in variables:
            entry["levels"] = None if entry["levels"] is None else list(entry["levels"])
        return {
            "variables": variables,
            "grid": self.grid.to_dict(),
            "time_step": self.time_step,
            "calendar": self.calendar,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StateSpec:
        """Return the specification that `to_dict` described."""
        step = data["time_step"]
        return cls(
            variables=tuple(VariableSpec.from_dict(entry) for entry in data["variables"]),
            grid=Grid.from_dict(data["grid"]),
            time_step=None if step is None else float(step),
            calendar=str(data["calendar"]),
        )
