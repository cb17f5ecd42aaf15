"""Observations: CF metadata define the operator H and the error covariance R.

`read_observations` turns arrays into `ObservationSpec`; `ObservationOperator.build` places them on
a trajectory; `simulate` draws observations of a known state. None of it needs torch, except to
apply an operator to tensors.
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
from xappa.observe.operator import ObservationOperator
from xappa.observe.reading import read_observations
from xappa.observe.registry import (
    RegisteredOperator,
    get_operator,
    register_operator,
    registered_operators,
    unregister_operator,
)
from xappa.observe.rows import Rows
from xappa.observe.simulate import observation_noise, simulate
from xappa.observe.sources import from_bufr, from_frame, from_ioda
from xappa.observe.spec import ObservationSpec, Status

__all__ = [
    "ObservationOperator",
    "ObservationSpec",
    "Orbit",
    "RegisteredOperator",
    "Rows",
    "Status",
    "equal_area_stations",
    "from_bufr",
    "from_frame",
    "from_ioda",
    "geostationary",
    "get_operator",
    "gridded_orbiter",
    "ground_track",
    "observation_noise",
    "polar_orbiter",
    "radiosondes",
    "random_stations",
    "read_observations",
    "register_operator",
    "registered_operators",
    "simulate",
    "stations_from_table",
    "unregister_operator",
    "visible",
]
