"""Observations: sources, and simulated networks.

``xappa.obs.from_frame(table)``, ``xappa.obs.from_ioda(path)``, ``xappa.obs.radiosondes(ds)``: each
returns arrays whose metadata say what `ds.appa.assimilate` needs to know.
"""

from __future__ import annotations

from xappa.observe.networks import (
    Orbit,
    equal_area_stations,
    geostationary,
    gridded_orbiter,
    ground_track,
    polar_orbiter,
    radiosondes,
    random_stations,
    stations_from_table,
    visible,
)
from xappa.observe.regridding import with_weights
from xappa.observe.sources import from_bufr, from_frame, from_ioda

__all__ = [
    "Orbit",
    "equal_area_stations",
    "from_bufr",
    "from_frame",
    "from_ioda",
    "geostationary",
    "gridded_orbiter",
    "ground_track",
    "polar_orbiter",
    "radiosondes",
    "random_stations",
    "stations_from_table",
    "visible",
    "with_weights",
]
