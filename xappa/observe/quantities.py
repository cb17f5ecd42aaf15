r"""Quantities that are observed and that states do not hold: operators that come with the library.

The thermodynamics are those of `xappa.observe.thermodynamics`, integrals and layers those of
`xappa.observe.columns`. All functions are differentiable and act on each observation by itself.
They use methods of tensors alone, so that metadata are read without torch.

References
----------
Smith & Weintraub (1953), The constants in the equation for atmospheric refractive index at radio
frequencies, doi:10.1109/JRPROC.1953.274297.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from xappa.observe.columns import (
    at_altitude,
    at_hypsometric_altitude,
    at_pressure_on_sigma,
    averaging_kernel,
    column_water,
    dry_thickness,
    sea_level_pressure,
    thickness,
    weighted_sum,
)
from xappa.observe.registry import RegisteredOperator
from xappa.observe.thermodynamics import (
    KAPPA,
    LAPSE,
    R_D,
    STANDARD_TEMPERATURE,
    G,
    dew_point,
    humidity_of,
    saturation,
    saturation_vapour_pressure,
    vapour_pressure,
    virtual_temperature,
    wind_speed,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OPERATORS"]


def _relative_humidity(
    temperature: Tensor, q: Tensor, air_pressure: Tensor, over: str = "water"
) -> Tensor:
    return vapour_pressure(q, air_pressure) / saturation(temperature, over)


def _relative_humidity_of_dew_point(
    temperature: Tensor, dew: Tensor, over: str = "water"
) -> Tensor:
    return saturation_vapour_pressure(dew) / saturation(temperature, over)


def _dew_point(q: Tensor, air_pressure: Tensor) -> Tensor:
    return dew_point(vapour_pressure(q, air_pressure))


def _dew_point_of_humidity(temperature: Tensor, relative: Tensor) -> Tensor:
    return dew_point(relative * saturation_vapour_pressure(temperature))


def _humidity_of_dew_point(dew: Tensor, air_pressure: Tensor) -> Tensor:
    return humidity_of(saturation_vapour_pressure(dew), air_pressure)


def _humidity_of_relative(temperature: Tensor, relative: Tensor, air_pressure: Tensor) -> Tensor:
    return humidity_of(relative * saturation_vapour_pressure(temperature), air_pressure)


def _mixing_ratio(q: Tensor) -> Tensor:
    return q / (1 - q)


def _potential_temperature(temperature: Tensor, air_pressure: Tensor) -> Tensor:
    return temperature * (1e5 / air_pressure) ** KAPPA


def _height(geopotential: Tensor) -> Tensor:
    return geopotential / G


def _geopotential(height: Tensor) -> Tensor:
    return height * G


def _refractivity(temperature: Tensor, q: Tensor, air_pressure: Tensor) -> Tensor:
    vapour = vapour_pressure(q, air_pressure)
    return 0.776 * air_pressure / temperature + 3.73e3 * vapour / temperature**2


def _station_pressure(sea_level: Tensor, temperature: Tensor, altitude: Tensor) -> Tensor:
    # The temperature at the station, and the standard lapse rate down to the sea.
    below = temperature + LAPSE * altitude
    return sea_level * (temperature / below).clamp(min=1e-3) ** (G / (R_D * LAPSE))


def _at_station_height(temperature: Tensor, height_above_model: Tensor) -> Tensor:
    return temperature - LAPSE * height_above_model


def _pressure_at_station_height(
    pressure: Tensor, temperature: Tensor, height_above_model: Tensor
) -> Tensor:
    ratio = (1 - LAPSE * height_above_model / temperature).clamp(min=0.1)
    return pressure * ratio ** (G / (R_D * LAPSE))


def _pressure_at_standard_height(
    pressure: Tensor, height_above_model: Tensor, model_altitude: Tensor
) -> Tensor:
    return _pressure_at_station_height(
        pressure, STANDARD_TEMPERATURE - LAPSE * model_altitude, height_above_model
    )


# The table ----------------------------------------------------------------------------------------

_T, _Q, _PS = "air_temperature", "specific_humidity", "surface_air_pressure"
_TD, _RH, _PHI = "dew_point_temperature", "relative_humidity", "geopotential"
_PRESSURE = {"air_pressure": "Pa"}


def _operator(
    name: str,
    inputs: Mapping[str, str | None],
    units: str,
    function: Callable[..., Any],
    *,
    quantity: str | None = None,
    linear: bool = False,
    columns: tuple[str, ...] = (),
    arguments: Mapping[str, str | None] | None = None,
) -> RegisteredOperator:
    return RegisteredOperator(
        name,
        tuple(inputs.items()),
        units,
        function,
        linear,
        quantity,
        columns,
        tuple((arguments or {}).items()),
    )


OPERATORS: tuple[RegisteredOperator, ...] = (
    _operator(
        "wind_speed", {"eastward_wind": "m s-1", "northward_wind": "m s-1"}, "m s-1", wind_speed
    ),
    _operator(
        "relative_humidity", {_T: "K", _Q: "1"}, "1", _relative_humidity, arguments=_PRESSURE
    ),
    _operator(
        "relative_humidity_near_surface",
        {_T: "K", _Q: "1", _PS: "Pa"},
        "1",
        _relative_humidity,
        quantity=_RH,
    ),
    _operator(
        "relative_humidity_from_dew_point",
        {_T: "K", _TD: "K"},
        "1",
        _relative_humidity_of_dew_point,
        quantity=_RH,
    ),
    _operator("dew_point_temperature", {_Q: "1"}, "K", _dew_point, arguments=_PRESSURE),
    _operator("dew_point_near_surface", {_Q: "1", _PS: "Pa"}, "K", _dew_point, quantity=_TD),
    _operator(
        "dew_point_from_relative_humidity",
        {_T: "K", _RH: "1"},
        "K",
        _dew_point_of_humidity,
        quantity=_TD,
    ),
    _operator(
        "specific_humidity_from_relative_humidity",
        {_T: "K", _RH: "1"},
        "1",
        _humidity_of_relative,
        quantity=_Q,
        arguments=_PRESSURE,
    ),
    _operator(
        "specific_humidity_from_dew_point",
        {_TD: "K", _PS: "Pa"},
        "1",
        _humidity_of_dew_point,
        quantity=_Q,
    ),
    _operator("humidity_mixing_ratio", {_Q: "1"}, "1", _mixing_ratio),
    _operator("virtual_temperature", {_T: "K", _Q: "1"}, "K", virtual_temperature),
    _operator(
        "air_potential_temperature", {_T: "K"}, "K", _potential_temperature, arguments=_PRESSURE
    ),
    _operator("geopotential_height", {_PHI: "m2 s-2"}, "m", _height, linear=True),
    _operator("geopotential", {"geopotential_height": "m"}, "m2 s-2", _geopotential, linear=True),
    _operator(
        "surface_air_pressure",
        {"air_pressure_at_mean_sea_level": "Pa", _T: "K"},
        "Pa",
        _station_pressure,
        arguments={"altitude": "m"},
    ),
    _operator(
        "air_temperature_at_station_height",
        {_T: "K"},
        "K",
        _at_station_height,
        linear=True,
        arguments={"height_above_model": "m"},
    ),
    _operator(
        "surface_air_pressure_at_station_height",
        {_PS: "Pa", _T: "K"},
        "Pa",
        _pressure_at_station_height,
        arguments={"height_above_model": "m"},
    ),
    _operator(
        "surface_air_pressure_at_standard_height",
        {_PS: "Pa"},
        "Pa",
        _pressure_at_standard_height,
        linear=True,
        arguments={"height_above_model": "m", "model_altitude": "m"},
    ),
    _operator(
        "air_pressure_at_mean_sea_level",
        {_PHI: "m2 s-2", _T: "K"},
        "Pa",
        sea_level_pressure,
        columns=(_PHI, _T),
    ),
    _operator(
        "atmosphere_mass_content_of_water_vapor",
        {_Q: "1"},
        "kg m-2",
        column_water,
        linear=True,
        columns=(_Q,),
    ),
    _operator("thickness", {_T: "K", _Q: "1"}, "m", thickness, columns=(_T, _Q)),
    _operator("dry_thickness", {_T: "K"}, "m", dry_thickness, linear=True, columns=(_T,)),
    _operator("refractivity", {_T: "K", _Q: "1"}, "1", _refractivity, arguments=_PRESSURE),
    _operator(
        "at_altitude",
        {"*": None, _PHI: "m2 s-2"},
        "*",
        at_altitude,
        columns=("*", _PHI),
        arguments={"altitude": "m"},
    ),
    _operator(
        "at_hypsometric_altitude",
        {"*": None, _T: "K", "air_pressure_at_mean_sea_level": "Pa"},
        "*",
        at_hypsometric_altitude,
        columns=("*", _T),
        arguments={"altitude": "m"},
    ),
    _operator(
        "at_pressure_on_sigma",
        {"*": None, _PS: "Pa"},
        "*",
        at_pressure_on_sigma,
        columns=("*",),
        arguments=_PRESSURE,
    ),
    _operator(
        "toa_brightness_temperature",
        {_T: "K"},
        "K",
        weighted_sum,
        linear=True,
        columns=(_T,),
        arguments={"weighting_function": "1", "kernel_pressure": "Pa"},
    ),
    _operator(
        "averaging_kernel",
        {"*": None},
        "*",
        averaging_kernel,
        linear=True,
        columns=("*",),
        arguments={
            "averaging_kernel": None,
            "kernel_pressure": "Pa",
            "prior_profile": "*",
            "prior": "*",
        },
    ),
)
"""All of them; where several give one quantity, the first whose inputs are there is taken."""
