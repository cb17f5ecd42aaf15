"""Twin experiments: a nature run to train on and to observe, and its model to forecast with."""

from xappa.osse.nature import nature_run
from xappa.osse.speedy import Speedy, SpeedyState

__all__ = ["Speedy", "SpeedyState", "nature_run"]
