"""Names of variables in IODA, as data: those of its conventions, then those of older versions.

References
----------
JEDI documentation, IODA conventions, and IODA, ``share/ioda/yaml/validation/ObsSpace.yaml``,
https://github.com/JCSDA/ioda.
"""

from __future__ import annotations

__all__ = ["NO_UNITS", "QUANTITIES", "Quantity"]

Quantity = tuple[str, str, str | None, str | None]
"""CF standard name, units, GRIB short name that tells a height, operator."""

_TABLE: tuple[tuple[str, Quantity], ...] = (
    ("airTemperature air_temperature", ("air_temperature", "K", None, None)),
    ("airTemperatureAt2M air_temperature_at_2m", ("air_temperature", "K", "2t", None)),
    ("virtualTemperature virtual_temperature", ("virtual_temperature", "K", None, None)),
    ("dewpointTemperature dewpoint_temperature dew_point_temperature",
     ("dew_point_temperature", "K", None, None)),
    ("dewpointTemperatureAt2M", ("dew_point_temperature", "K", "2d", None)),
    ("potentialTemperature", ("air_potential_temperature", "K", None, None)),
    ("specificHumidity specific_humidity", ("specific_humidity", "1", None, None)),
    ("specificHumidityAt2M", ("specific_humidity", "1", "2sh", None)),
    ("relativeHumidity relative_humidity", ("relative_humidity", "1", None, None)),
    ("relativeHumidityAt2M", ("relative_humidity", "1", "2r", None)),
    ("waterVaporMixingRatio", ("humidity_mixing_ratio", "1", None, None)),
    ("windEastward eastward_wind", ("eastward_wind", "m s-1", None, None)),
    ("windNorthward northward_wind", ("northward_wind", "m s-1", None, None)),
    ("windEastwardAt10M", ("eastward_wind", "m s-1", "10u", None)),
    ("windNorthwardAt10M", ("northward_wind", "m s-1", "10v", None)),
    ("windSpeed wind_speed", ("wind_speed", "m s-1", None, None)),
    ("windSpeedAt10M", ("wind_speed", "m s-1", "10si", None)),
    ("windDirection wind_direction", ("wind_from_direction", "degree", None, None)),
    ("windDirectionAt10M", ("wind_from_direction", "degree", "10wdir", None)),
    ("stationPressure surfacePressure surface_pressure",
     ("surface_air_pressure", "Pa", None, None)),
    ("pressureReducedToMeanSeaLevel", ("air_pressure_at_mean_sea_level", "Pa", None, None)),
    ("geopotentialHeight geopotential_height", ("geopotential_height", "m", None, None)),
    ("seaSurfaceTemperature sea_surface_temperature",
     ("sea_surface_temperature", "K", None, None)),
    ("skinTemperature", ("surface_temperature", "K", None, None)),
    ("precipitableWater", ("atmosphere_mass_content_of_water_vapor", "kg m-2", None, None)),
    ("brightnessTemperature brightness_temperature",
     ("toa_brightness_temperature", "K", None, None)),
    ("atmosphericRefractivity refractivity", ("refractivity", "1", None, "refractivity")),
)  # fmt: skip
QUANTITIES = {name: quantity for names, quantity in _TABLE for name in names.split()}
NO_UNITS = ("", "unitless", "none", "n units", "invalid n units", "1")
"""Spellings of units, in lower case, that say nothing."""
