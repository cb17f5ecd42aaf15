"""What a network measures and how well, read from the arguments that all networks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa import units
from xappa.cf import Axes, to_seconds
from xappa.diffusion.noise import seed_of
from xappa.errors import ArgumentError, CoordinateError, ErrorCovarianceError, XappaError, raise_all

if TYPE_CHECKING:
    from xappa.bridge import StateSpec, VariableSpec

__all__ = ["Channel", "Errors", "Instrument", "Variables", "count_problem", "read_instrument"]

#: The name of a variable, several names, or errors by name.
Variables = str | Sequence[str] | Mapping[str, float]
#: In the units of the variable, or by name.
Errors = float | Mapping[str, float] | None


@dataclass(frozen=True)
class Channel:
    """One variable as an instrument measures it.

    Parameters
    ----------
    variable
        The variable of the state.
    units, long_name
        Of the Dataset's own variable.
    error, bias_std
        Standard deviations in `units`; no bias if None.
    levels
        Pa, that are measured; None for a variable without levels.
    """

    variable: VariableSpec
    units: str
    long_name: str
    error: float
    bias_std: float | None
    levels: tuple[float, ...] | None


@dataclass(frozen=True)
class Instrument:
    """What a network measures, in which domain.

    Parameters
    ----------
    where
        The function that the user called, for messages.
    channels
        The variables.
    alone
        Whether the user asked for one variable, as a DataArray.
    state, axes
        Grid and calendar of the Dataset, and its coordinates by role.
    window
        Seconds, first and last time of the Dataset; None without time.
    dropout
        Share of the reports that are missing.
    seed
        What draws them; None where none is missing.
    """

    where: str
    channels: tuple[Channel, ...]
    alone: bool
    state: StateSpec
    axes: Axes
    window: tuple[float, float] | None
    dropout: float
    seed: int | None

    def need_window(self) -> tuple[float, float]:
        """Return the window.

        Raises
        ------
        CoordinateError
            If the Dataset has no times.
        """
        if self.window is None:
            raise CoordinateError(
                "a satellite needs times, and the Dataset has none",
                where=self.where,
                expected="a time coordinate",
                got="none",
                remedy="add it: ds.expand_dims(time=[...])",
            )
        return self.window


def read_instrument(
    ds: xr.Dataset,
    variable: Variables,
    error: Errors,
    *,
    where: str,
    bias_std: Errors = None,
    dropout: float = 0.0,
    seed: int | None = None,
    pressure: Sequence[float] | None = None,
    problems: Sequence[XappaError] = (),
) -> Instrument:
    """Read and check the arguments that all networks share.

    Parameters
    ----------
    ds
        Gives domain, times, units and metadata.
    variable, error, bias_std, dropout, seed, pressure
        As the user gave them.
    where
        The function that the user called.
    problems
        What else is wrong, to be told along.

    Raises
    ------
    ArgumentError
        If a variable is not there, `dropout` is no share, or `bias_std` is not positive.
    ErrorCovarianceError
        If an error is missing or not positive.
    """
    from xappa.bridge import describe

    found = list(problems)
    names = [variable] if isinstance(variable, str) else [str(name) for name in variable]
    by_name = variable if isinstance(variable, Mapping) else None
    found += _unknown(ds, names, where)
    errors, more = _by_variable(by_name if error is None else error, names, "error", where)
    found += more
    biases, more = _by_variable(bias_std, names, "bias_std", where)
    found += more
    found += _share(dropout, where)
    raise_all(found, f"{where} cannot make this network")
    state, axes = describe(ds, variables=names)
    channels = []
    for observed in state.variables:
        own = units.dequantify(ds[observed.name])
        levels = observed.levels if pressure is None else tuple(float(p) for p in pressure)
        channels.append(
            Channel(
                observed,
                str(own.attrs.get("units") or observed.units),
                str(own.attrs.get("long_name", observed.name)),
                errors[observed.name],
                biases.get(observed.name),
                None if observed.levels is None else levels,
            )
        )
    drawn = seed_of(seed) if dropout else None
    window = _window(ds, axes)
    alone = isinstance(variable, str)
    return Instrument(where, tuple(channels), alone, state, axes, window, dropout, drawn)


def count_problem(n: int, what: str, where: str) -> list[XappaError]:
    """Return the error that says that a number is negative, if it is."""
    if n >= 0:
        return []
    return [
        ArgumentError(
            f"a network has no negative number of {what}",
            where=where,
            expected="n >= 0",
            got=f"n={n}",
        )
    ]


def _unknown(ds: xr.Dataset, names: list[str], where: str) -> list[XappaError]:
    absent = [name for name in names if name not in ds.data_vars]
    if names and not absent:
        return []
    return [
        ArgumentError(
            f"a network cannot observe {', '.join(map(repr, absent)) or 'nothing'}",
            where=f"{where}, variable=",
            expected=f"a variable among {', '.join(map(str, ds.data_vars))}",
            got=", ".join(map(repr, names)) or "no name",
            remedy="name variables of the Dataset",
        )
    ]


def _by_variable(
    given: Any, names: list[str], word: str, where: str
) -> tuple[dict[str, float], list[XappaError]]:
    """Return standard deviations by variable, and what is wrong with them."""
    kind: type[XappaError] = ErrorCovarianceError if word == "error" else ArgumentError
    if given is None and word == "bias_std":
        return {}, []
    if not isinstance(given, Mapping):
        if given is None or len(names) != 1:
            remedy = f"give one each: {word}={{{', '.join(f'{name!r}: ...' for name in names)}}}"
            expected = "a number in the units of the variable; one each, by name, for several"
            what = f"the {word} of a network is not known"
            return {}, [kind(what, where=where, expected=expected, got=given, remedy=remedy)]
        given = dict.fromkeys(names, given)
    strange = [str(name) for name in given if name not in names]
    missing = [name for name in names if name not in given] if word == "error" else []
    found: list[XappaError] = []
    if strange or missing:
        what = f"the {word} of a network is not that of its variables"
        got = ", ".join(map(str, given)) or "none"
        remedy = f"correct the names in {word}="
        found.append(kind(what, where=where, expected=", ".join(names), got=got, remedy=remedy))
    for name in names:
        if name in given and not (np.isfinite(given[name]) and given[name] > 0):
            found.append(
                kind(
                    f"the {word} of a network is not positive",
                    where=f"{where}, {name}",
                    expected=f"{word} > 0, in the units of the variable",
                    got=given[name],
                    remedy="give the instruments' standard deviation",
                )
            )
    return {str(name): float(value) for name, value in given.items()}, found


def _share(dropout: float, where: str) -> list[XappaError]:
    if 0 <= dropout < 1:
        return []
    return [
        ArgumentError(
            "the share of missing reports is no share",
            where=f"{where}, dropout=",
            expected="0 <= dropout < 1",
            got=dropout,
        )
    ]


def _window(ds: xr.Dataset, axes: Axes) -> tuple[float, float] | None:
    if axes.time is None:
        return None
    seconds, _ = to_seconds(ds[axes.time])
    if not seconds.size or not np.isfinite(seconds).any():
        return None
    return float(np.nanmin(seconds)), float(np.nanmax(seconds))
