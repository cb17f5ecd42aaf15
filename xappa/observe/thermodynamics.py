r"""Thermodynamics of moist air, pointwise and differentiable.

Saturation over water follows Bolton (1980), temperature in K, pressure in Pa,

.. math:: e_s(T) = 611.2 \exp \frac{17.67 \, (T - 273.15)}{T - 29.65} ,

which can be inverted for the dew point, and lies within 0.3 % of Ambaum's (2020) formula from
-25 to 30 degrees Celsius. With :math:`\varepsilon = R_d / R_v`, the vapour pressure is
:math:`e = q p / (\varepsilon + (1 - \varepsilon) q)`, the virtual temperature
:math:`T_v = T (1 + (1/\varepsilon - 1) q)`. torch is not imported: the functions use methods of
tensors alone.

References
----------
Bolton (1980), The computation of equivalent potential temperature, Mon. Wea. Rev. 108, 1046-1053.
Alduchov & Eskridge (1996), Improved Magnus form approximation of saturation vapor pressure,
doi:10.1175/1520-0450(1996)035<0601:IMFAOS>2.0.CO;2.
Ambaum (2020), Accurate, simple equation for saturated vapour pressure over water and ice,
doi:10.1002/qj.3899.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "EPSILON",
    "KAPPA",
    "LAPSE",
    "R_D",
    "STANDARD_TEMPERATURE",
    "G",
    "dew_point",
    "humidity_of",
    "saturation",
    "saturation_over_ice",
    "saturation_vapour_pressure",
    "vapour_pressure",
    "virtual_temperature",
    "wind_speed",
]

R_D = 287.05
"""Gas constant of dry air, J kg-1 K-1."""
EPSILON = 0.62196
"""Ratio of the gas constants of dry air and water vapour."""
G = 9.80665
"""Standard gravity, m s-2."""
KAPPA = 2.0 / 7.0
"""Gas constant over heat capacity of dry air."""
LAPSE = 0.0065
"""Lapse rate of the standard atmosphere, K m-1."""
STANDARD_TEMPERATURE = 288.15
"""Temperature of the standard atmosphere at sea level, K."""
CALM = 1e-3
"""Wind in m s-1 that is added in squares, so that the speed has a gradient at rest."""


# Pointwise formulae -------------------------------------------------------------------------------


def vapour_pressure(q: Tensor, pressure: Tensor) -> Tensor:
    """Pressure of water vapour, Pa, from specific humidity (kg kg-1) and pressure (Pa)."""
    return q * pressure / (EPSILON + (1 - EPSILON) * q)


def saturation_vapour_pressure(temperature: Tensor) -> Tensor:
    """Saturation vapour pressure over water, Pa, from temperature in K (Bolton 1980)."""
    return 611.2 * (17.67 * (temperature - 273.15) / (temperature - 29.65)).exp()


def saturation_over_ice(temperature: Tensor) -> Tensor:
    """Saturation vapour pressure over ice, Pa (Alduchov & Eskridge 1996)."""
    return 611.21 * (22.587 * (temperature - 273.15) / (temperature + 0.71)).exp()


def saturation(temperature: Tensor, phase: str) -> Tensor:
    """Saturation vapour pressure, Pa, over ``"water"``, ``"ice"`` or ``"mixed"``.

    Mixed is over ice below 250.16 K, over water above 273.16 K, and a quadratic blend between, as
    in the IFS.
    """
    water = saturation_vapour_pressure(temperature)
    if phase == "water":
        return water
    ice = saturation_over_ice(temperature)
    share = ((temperature - 250.16) / 23.0).clamp(0, 1) ** 2 if phase == "mixed" else 0.0
    return ice + share * (water - ice)


def dew_point(vapour: Tensor) -> Tensor:
    """Temperature in K at which a vapour pressure (Pa) is that of saturation."""
    ratio = (vapour.clamp(min=1e-6) / 611.2).log()
    return 273.15 + 243.5 * ratio / (17.67 - ratio)


def humidity_of(vapour: Tensor, pressure: Tensor) -> Tensor:
    """Specific humidity, kg kg-1, from vapour pressure and pressure (Pa)."""
    return EPSILON * vapour / (pressure - (1 - EPSILON) * vapour)


def virtual_temperature(temperature: Tensor, q: Tensor) -> Tensor:
    """Virtual temperature, K, from temperature and specific humidity."""
    return temperature * (1 + (1 / EPSILON - 1) * q)


def wind_speed(u: Tensor, v: Tensor) -> Tensor:
    """Speed of the wind; at rest it is 0.001 m s-1 and its gradient zero."""
    return (u * u + v * v + CALM**2).sqrt()
