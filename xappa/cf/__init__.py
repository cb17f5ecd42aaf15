"""CF metadata: which coordinate plays which role, what a variable holds, and when."""

from __future__ import annotations

from xappa.cf.axes import Axes, find_axes, standard_name
from xappa.cf.quantity import Quantity, identify, is_surface
from xappa.cf.times import (
    canonical_calendar,
    convert_calendar,
    from_seconds,
    holds_text,
    phase,
    text_error,
    timedelta_seconds,
    to_seconds,
)
from xappa.cf.vertical import PRESSURE, SIGMA, pressure_levels, vertical_levels

__all__ = [
    "PRESSURE",
    "SIGMA",
    "Axes",
    "Quantity",
    "canonical_calendar",
    "convert_calendar",
    "find_axes",
    "from_seconds",
    "holds_text",
    "identify",
    "is_surface",
    "phase",
    "pressure_levels",
    "standard_name",
    "text_error",
    "timedelta_seconds",
    "to_seconds",
    "vertical_levels",
]
