r"""Stations that do not stand on the model's ground: corrections for the difference in height.

Where the Dataset holds its orography (``surface_altitude``, or the geopotential of the surface) and
the observations say their altitude, h metres above the model's ground,

.. math:: T = T_m - \Gamma h, \qquad p = p_m \left( 1 - \frac{\Gamma h}{T_m} \right)^{g / R\Gamma}

with the lapse rate :math:`\Gamma` = 6.5 K km-1. Differences beyond 1500 m are no correction any
more: those observations are left out and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xappa.cf import standard_name
from xappa.grid import Grid
from xappa.observe.arguments import Argument, read_arguments
from xappa.observe.containers import Found
from xappa.observe.matching import Match
from xappa.observe.positions import Positions

if TYPE_CHECKING:
    from xappa.bridge import StateSpec

__all__ = ["LARGEST_DIFFERENCE", "Orography", "at_station_height"]

#: Metres beyond which the height of a station is not corrected for.
LARGEST_DIFFERENCE = 1500.0
TEMPERATURE, PRESSURE = "air_temperature", "surface_air_pressure"
_ALTITUDES = ("surface_altitude", "altitude", "height_above_mean_sea_level")
_NAMES = ("elevation", "elev", "altitude", "station_elevation", "station_altitude", "alt", "zstn")
#: Metres above ground up to which a temperature belongs to the ground's height.
_NEAR = 20.0
#: Metres of altitude between which there is ground.
_DEEPEST, _HIGHEST = -500.0, 9000.0


@dataclass(frozen=True, eq=False)
class Orography:
    """Altitudes of a model's ground.

    Parameters
    ----------
    grid
        The state's grid.
    altitude
        (lat, lon) metres; NaN where unknown.
    """

    grid: Grid
    altitude: np.ndarray

    def at(self, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        """Return altitudes (n,) of places, interpolated as the state is; NaN where unknown."""
        index, weight, inside = self.grid.interpolate(latitude, longitude)
        values = np.where(weight > 0, self.altitude.ravel()[index], 0.0)
        return np.where(inside, (weight * values).sum(axis=1), np.nan)


def at_station_height(
    found: Found, match: Match, positions: Positions, state: StateSpec, ground: Orography | None
) -> tuple[Match, dict[str, np.ndarray], np.ndarray]:
    """Correct near-surface temperature and surface pressure for the height of the station.

    Parameters
    ----------
    found, match, positions
        The observations, and what was understood of them.
    state
        The state's variables.
    ground
        The model's orography, if it is known.

    Returns
    -------
    match
        With the operator that corrects, or as it was.
    arguments
        (n,) ``height_above_model`` for the operator, or nothing; zero where it is not known, and
        missing where it is too much.
    far : (n,) bool
        Observations whose heights differ too much.
    """
    nothing = np.zeros(found.array.size, bool)
    altitude = None if ground is None else _altitude(found, positions)
    (variable, *more) = match.inputs
    near = variable.height is not None and variable.height <= _NEAR
    corrects = match.operator == "identity" and (
        (match.quantity == TEMPERATURE and near) or match.quantity == PRESSURE
    )
    if altitude is None or ground is None or not corrects or more or variable.levels is not None:
        return match, {}, nothing
    below = ground.at(positions.latitude, positions.longitude)
    height = altitude - below
    far = np.abs(height) > LARGEST_DIFFERENCE
    unknown = int((~np.isfinite(height)).sum())
    height = np.where(far, np.nan, np.nan_to_num(height))
    arguments = {"height_above_model": height}
    guesses = match.guesses
    if unknown:
        guesses += (f"the height above the model's ground of {unknown} is not known, taken as 0",)
    corrected = replace(match, guesses=guesses)
    if match.quantity == TEMPERATURE:
        name = "air_temperature_at_station_height"
        return replace(corrected, operator=name, units="K"), arguments, far
    warm = [v for v in state.variables if v.standard_name == TEMPERATURE and v.levels is None]
    if warm:
        corrected = replace(corrected, inputs=(variable, warm[0]))
        name = "surface_air_pressure_at_station_height"
    else:
        name = "surface_air_pressure_at_standard_height"
        arguments["model_altitude"] = np.nan_to_num(below)
    return replace(corrected, operator=name, units="Pa"), arguments, far


def _altitude(found: Found, positions: Positions) -> np.ndarray | None:
    """Return the altitudes (n,) in m that observations say of themselves, or None."""
    coords = found.array.coords
    vertical = positions.axes.vertical
    named = [n for n, c in coords.items() if standard_name(c) in _ALTITUDES and n != vertical]
    named += [n for n in coords if str(n).lower() in _NAMES and n != vertical and n not in named]
    if not named:
        return None
    wanted = [Argument(str(named[0]), "altitude", "m")]
    altitude = read_arguments(found, wanted, None)["altitude"]
    # beyond any ground there is: a fill value
    return np.where((altitude > _DEEPEST) & (altitude < _HIGHEST), altitude, np.nan)
