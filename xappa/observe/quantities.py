r"""Quantities that are observed and that states do not hold: operators that come with the library.

The thermodynamics are those of `xappa.observe.thermodynamics`. Layers are hydrostatic,

.. math:: \Phi_2 - \Phi_1 = R_d \int_{p_2}^{p_1} T_v \, \mathrm{d} \ln p ,

with :math:`T_v` linear in the logarithm of pressure between levels. All functions are
differentiable and act on each observation by itself. They use methods of tensors alone, so that
metadata are read without torch.

References
----------
Smith & Weintraub (1953), The constants in the equation for atmospheric refractive index at radio
frequencies, doi:10.1109/JRPROC.1953.274297.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from xappa.observe.registry import RegisteredOperator
from xappa.observe.thermodynamics import (
    KAPPA,
    LAPSE,
    R_D,
    STANDARD_TEMPERATURE,
    G,
    dew_point,
    humidity_of,
    saturation_vapour_pressure,
    vapour_pressure,
    virtual_temperature,
    wind_speed,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OPERATORS"]


# Pointwise formulae -------------------------------------------------------------------------------


def _relative_humidity(temperature: Tensor, q: Tensor, air_pressure: Tensor) -> Tensor:
    return vapour_pressure(q, air_pressure) / saturation_vapour_pressure(temperature)


def _relative_humidity_of_dew_point(temperature: Tensor, dew: Tensor) -> Tensor:
    return saturation_vapour_pressure(dew) / saturation_vapour_pressure(temperature)


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


# Columns ------------------------------------------------------------------------------------------


def _upward(levels: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Order columns (..., n, L) from the ground up."""
    order = levels.argsort(descending=True)
    return levels[order], *(column[..., order] for column in columns)


def between(column: Tensor, log_p: Tensor, at: Tensor) -> Tensor:
    """Interpolate columns linearly in the logarithm of pressure.

    Parameters
    ----------
    column
        Values on levels, shape (..., n, L), from the ground up.
    log_p
        Logarithms of the levels' pressures, shape (L,), falling.
    at
        Logarithms of pressures, shape (n,) or (n, K); beyond the ends, those of the ends.

    Returns
    -------
    Tensor
        Shape (..., n) or (..., n, K).
    """
    points = at if at.ndim == 2 else at[:, None]
    upper = (log_p[None, None, :] > points[..., None]).sum(-1).clamp(1, len(log_p) - 1)
    low, high = log_p[upper - 1], log_p[upper]
    weight = ((points - low) / (high - low)).clamp(0, 1)
    index = upper.expand(*column.shape[:-1], points.shape[-1])
    below, above = column.gather(-1, index - 1), column.gather(-1, index)
    values = below + weight * (above - below)
    return values if at.ndim == 2 else values[..., 0]


def _layers(column: Tensor, log_p: Tensor) -> Tensor:
    """Integrals over the logarithm of pressure, layer by layer from the ground up."""
    return (column[..., 1:] + column[..., :-1]) / 2 * (log_p[:-1] - log_p[1:])


def heights_above_lowest(virtual: Tensor, log_p: Tensor) -> Tensor:
    """Heights in m of the levels above the lowest one, shape (..., n, L)."""
    layers = R_D / G * _layers(virtual, log_p)
    below = layers.new_ones(len(log_p) - 1, len(log_p)).triu(
        1
    )  # which layers lie below which level
    return layers @ below


def _column_water(q: Tensor, levels: Tensor) -> Tensor:
    p, q = _upward(levels, q)
    return ((q[..., 1:] + q[..., :-1]) / 2 * (p[:-1] - p[1:])).sum(-1) / G


def _thickness(
    temperature: Tensor, q: Tensor, levels: Tensor, lower: float, upper: float
) -> Tensor:
    p, t_v = _upward(levels, virtual_temperature(temperature, q))
    return _layer_thickness(t_v, p.log(), lower, upper)


def _dry_thickness(temperature: Tensor, levels: Tensor, lower: float, upper: float) -> Tensor:
    p, t = _upward(levels, temperature)
    return _layer_thickness(t, p.log(), lower, upper)


def _layer_thickness(virtual: Tensor, log_p: Tensor, lower: float, upper: float) -> Tensor:
    height = heights_above_lowest(virtual, log_p)
    ends = log_p.new_tensor([lower, upper]).log()
    # Within a layer T_v is linear in ln p, and the height above its base a quadratic of it.
    at = [_height_at(height, virtual, log_p, end) for end in ends]
    return at[1] - at[0]


def _height_at(height: Tensor, virtual: Tensor, log_p: Tensor, at: Tensor) -> Tensor:
    points = at.expand(virtual.shape[-2])
    layer = (log_p > at).sum().clamp(1, len(log_p) - 1) - 1
    value = between(virtual, log_p, points)
    base = virtual[..., layer]
    return height[..., layer] + R_D / G * (base + value) / 2 * (log_p[layer] - at)


def _sea_level_pressure(geopotential: Tensor, temperature: Tensor, levels: Tensor) -> Tensor:
    """Reduce from the lowest level, with the standard lapse rate below it."""
    p, phi, t = _upward(levels, geopotential, temperature)
    height, low = phi[..., 0] / G, t[..., 0]
    ratio = (1 + LAPSE * height / low).clamp(min=0.1)
    return p[0] * ratio ** (G / (R_D * LAPSE))


def _at_altitude(x: Tensor, geopotential: Tensor, levels: Tensor, altitude: Tensor) -> Tensor:
    """Interpolate linearly in geopotential height."""
    _, x, phi = _upward(levels, x, geopotential)
    return _linear_in_height(x, phi / G, altitude)


def _at_hypsometric_altitude(
    x: Tensor, temperature: Tensor, sea_level: Tensor, levels: Tensor, altitude: Tensor
) -> Tensor:
    """Interpolate linearly in heights that follow from temperature and sea level pressure."""
    p, x, t = _upward(levels, x, temperature)
    # Down to the sea by the standard lapse rate, T_0 = T (p_0 / p)^(R Γ / g).
    exponent = R_D * LAPSE / G
    lowest = t[..., :1] / LAPSE * ((sea_level[..., None] / p[0]) ** exponent - 1)
    return _linear_in_height(x, lowest + heights_above_lowest(t, p.log()), altitude)


def _at_pressure_on_sigma(
    x: Tensor, surface: Tensor, levels: Tensor, air_pressure: Tensor
) -> Tensor:
    """Interpolate linearly in the logarithm of pressure, which is sigma times surface pressure."""
    sigma, x = _upward(levels, x)
    return _linear_in_height(x, (-sigma.log()).expand(x.shape), (surface / air_pressure).log())


def _linear_in_height(x: Tensor, height: Tensor, altitude: Tensor) -> Tensor:
    """Interpolate columns (..., n, L) to altitudes (n,); beyond the ends, the values there."""
    points = altitude.expand(height.shape[:-1])[..., None]
    upper = (height < points).sum(-1, keepdim=True).clamp(1, height.shape[-1] - 1)
    low, high = height.gather(-1, upper - 1), height.gather(-1, upper)
    weight = ((points - low) / (high - low)).clamp(0, 1)
    below, above = x.gather(-1, upper - 1), x.gather(-1, upper)
    return (below + weight * (above - below))[..., 0]


def _weighted(
    column: Tensor, levels: Tensor, weighting_function: Tensor, kernel_pressure: Tensor
) -> Tensor:
    """Sum over the pressures of a kernel; weights that do not sum to one are taken as they are."""
    p, column = _upward(levels, column)
    at = kernel_pressure.expand_as(weighting_function).log()
    return (between(column, p.log(), at) * weighting_function).sum(-1)


def _averaging_kernel(
    column: Tensor,
    levels: Tensor,
    averaging_kernel: Tensor,
    kernel_pressure: Tensor,
    prior_profile: Tensor,
    prior: Tensor,
) -> Tensor:
    """Smooth as a retrieval does: its prior, and the kernel times what differs from that."""
    p, column = _upward(levels, column)
    at = kernel_pressure.expand_as(averaging_kernel).log()
    departure = between(column, p.log(), at) - prior_profile
    return prior + (averaging_kernel * departure).sum(-1)


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
        _sea_level_pressure,
        columns=(_PHI, _T),
    ),
    _operator(
        "atmosphere_mass_content_of_water_vapor",
        {_Q: "1"},
        "kg m-2",
        _column_water,
        linear=True,
        columns=(_Q,),
    ),
    _operator("thickness", {_T: "K", _Q: "1"}, "m", _thickness, columns=(_T, _Q)),
    _operator("dry_thickness", {_T: "K"}, "m", _dry_thickness, linear=True, columns=(_T,)),
    _operator("refractivity", {_T: "K", _Q: "1"}, "1", _refractivity, arguments=_PRESSURE),
    _operator(
        "at_altitude",
        {"*": None, _PHI: "m2 s-2"},
        "*",
        _at_altitude,
        columns=("*", _PHI),
        arguments={"altitude": "m"},
    ),
    _operator(
        "at_hypsometric_altitude",
        {"*": None, _T: "K", "air_pressure_at_mean_sea_level": "Pa"},
        "*",
        _at_hypsometric_altitude,
        columns=("*", _T),
        arguments={"altitude": "m"},
    ),
    _operator(
        "at_pressure_on_sigma",
        {"*": None, _PS: "Pa"},
        "*",
        _at_pressure_on_sigma,
        columns=("*",),
        arguments=_PRESSURE,
    ),
    _operator(
        "toa_brightness_temperature",
        {_T: "K"},
        "K",
        _weighted,
        linear=True,
        columns=(_T,),
        arguments={"weighting_function": "1", "kernel_pressure": "Pa"},
    ),
    _operator(
        "averaging_kernel",
        {"*": None},
        "*",
        _averaging_kernel,
        columns=("*",),
        arguments={
            "averaging_kernel": None,
            "kernel_pressure": "Pa",
            "prior_profile": None,
            "prior": None,
        },
    ),
)
"""All of them; where several give one quantity, the first whose inputs are there is taken."""
