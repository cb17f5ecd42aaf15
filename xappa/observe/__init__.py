"""Observations: CF metadata define the operator H and the error covariance R.

`read_observations` turns arrays into `ObservationSpec`; `ObservationOperator.build` places them on
a trajectory; `simulate` draws observations of a known state. None of it needs torch, except to
apply an operator to tensors. Sources and networks for users are in `xappa.obs`.
"""

from __future__ import annotations

from xappa.observe.networks import random_stations
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
from xappa.observe.sources import from_frame
from xappa.observe.spec import ObservationSpec, Status

__all__ = [
    "ObservationOperator",
    "ObservationSpec",
    "RegisteredOperator",
    "Rows",
    "Status",
    "from_frame",
    "get_operator",
    "observation_noise",
    "random_stations",
    "read_observations",
    "register_operator",
    "registered_operators",
    "simulate",
    "unregister_operator",
]
