"""Values that no atmosphere has: limits by quantity, for the check of gross errors.

They lie outside the records of the World Meteorological Organization's archive of weather and
climate extremes (https://wmo.asu.edu), and catch fill values and wrong units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xappa import units
from xappa.errors import UnitsError

if TYPE_CHECKING:
    from xappa.observe.spec import ObservationSpec

__all__ = ["LIMITS", "beyond_limits", "possible_range"]

#: By standard name: units, least and largest possible value.
LIMITS: dict[str, tuple[str, float, float]] = {
    "air_temperature": ("K", 140.0, 345.0),
    "dew_point_temperature": ("K", 140.0, 312.0),
    "virtual_temperature": ("K", 140.0, 350.0),
    "air_potential_temperature": ("K", 180.0, 5000.0),
    "sea_surface_temperature": ("K", 268.0, 313.0),
    "surface_temperature": ("K", 140.0, 365.0),
    "eastward_wind": ("m s-1", -150.0, 150.0),
    "northward_wind": ("m s-1", -150.0, 150.0),
    "wind_speed": ("m s-1", 0.0, 150.0),
    "wind_from_direction": ("degree", -180.0, 360.0),
    "wind_to_direction": ("degree", -180.0, 360.0),
    "specific_humidity": ("kg kg-1", -1e-3, 0.05),
    "humidity_mixing_ratio": ("kg kg-1", -1e-3, 0.055),
    "relative_humidity": ("1", -0.05, 1.6),
    "surface_air_pressure": ("Pa", 3e4, 1.1e5),
    "air_pressure_at_mean_sea_level": ("Pa", 8.5e4, 1.1e5),
    "geopotential_height": ("m", -1000.0, 90000.0),
    "geopotential": ("m2 s-2", -1e4, 9e5),
    "atmosphere_mass_content_of_water_vapor": ("kg m-2", -1.0, 120.0),
    "toa_brightness_temperature": ("K", 50.0, 370.0),
    "precipitation_amount": ("kg m-2", -1e-3, 5000.0),
    "precipitation_flux": ("kg m-2 s-1", -1e-6, 0.6),
}


def beyond_limits(spec: ObservationSpec) -> np.ndarray:
    """Return which elements (n,) no atmosphere has; none of a quantity without limits."""
    low, high = possible_range(spec.quantity, spec.state_units)
    return np.asarray((spec.values < low) | (spec.values > high))


def possible_range(quantity: str, unit: str) -> tuple[float, float]:
    """Return the least and the largest value of a quantity; infinite where there are no limits.

    >>> possible_range("air_temperature", "degC")[0]
    -133.15
    """
    if quantity not in LIMITS:
        return -np.inf, np.inf
    own, *bounds = LIMITS[quantity]
    try:
        low, high = (round(float(units.convert(bound, own, unit)), 6) for bound in bounds)
    except UnitsError:  # a user's own quantity of the same name
        return -np.inf, np.inf
    return low, high
