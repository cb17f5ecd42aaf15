"""Simulated observing networks: where and when instruments measure, before they have measured.

A network is an observation array like any other, with CF metadata and all values NaN, so that
``ds.appa.operator(network)`` prints it and ``ds.appa.observe(network, seed=0)`` fills it. A report
that an instrument fails to send is marked by a flag (coordinate ``status_flag``), and stays NaN.
"""

from __future__ import annotations

from xappa.observe.networks.geostationary import geostationary
from xappa.observe.networks.orbiters import gridded_orbiter, polar_orbiter
from xappa.observe.networks.orbits import Orbit, ground_track, visible
from xappa.observe.networks.radiosondes import RADIOSONDE_ERRORS, radiosondes
from xappa.observe.networks.stations import (
    equal_area_stations,
    random_stations,
    stations_from_table,
)

__all__ = [
    "RADIOSONDE_ERRORS",
    "Orbit",
    "equal_area_stations",
    "geostationary",
    "gridded_orbiter",
    "ground_track",
    "polar_orbiter",
    "radiosondes",
    "random_stations",
    "stations_from_table",
    "visible",
]
