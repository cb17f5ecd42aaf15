r"""Columns of the atmosphere: integrals, layers, and values between levels, differentiable.

Columns x have shape (..., n, L), their levels shape (L,) in any order. Layers are hydrostatic,

.. math:: \Phi_2 - \Phi_1 = R_d \int_{p_2}^{p_1} T_v \, \mathrm{d} \ln p ,

with :math:`T_v` linear in the logarithm of pressure between levels. torch is not imported: the
functions use methods of tensors alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xappa.observe.thermodynamics import LAPSE, R_D, G, virtual_temperature

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "at_altitude",
    "at_hypsometric_altitude",
    "at_pressure_on_sigma",
    "averaging_kernel",
    "between",
    "column_water",
    "dry_thickness",
    "heights_above_lowest",
    "sea_level_pressure",
    "thickness",
    "weighted_sum",
]


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


def column_water(q: Tensor, levels: Tensor) -> Tensor:
    """Water vapour of the column, kg m-2, from specific humidity on levels."""
    p, q = _upward(levels, q)
    return ((q[..., 1:] + q[..., :-1]) / 2 * (p[:-1] - p[1:])).sum(-1) / G


def thickness(temperature: Tensor, q: Tensor, levels: Tensor, lower: float, upper: float) -> Tensor:
    """Thickness in m of the layer between two pressures in Pa."""
    p, t_v = _upward(levels, virtual_temperature(temperature, q))
    return _layer_thickness(t_v, p.log(), lower, upper)


def dry_thickness(temperature: Tensor, levels: Tensor, lower: float, upper: float) -> Tensor:
    """Thickness in m of the layer between two pressures in Pa, from temperature alone."""
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


def sea_level_pressure(geopotential: Tensor, temperature: Tensor, levels: Tensor) -> Tensor:
    """Reduce from the lowest level, with the standard lapse rate below it."""
    p, phi, t = _upward(levels, geopotential, temperature)
    height, low = phi[..., 0] / G, t[..., 0]
    ratio = (1 + LAPSE * height / low).clamp(min=0.1)
    return p[0] * ratio ** (G / (R_D * LAPSE))


def at_altitude(x: Tensor, geopotential: Tensor, levels: Tensor, altitude: Tensor) -> Tensor:
    """Interpolate linearly in geopotential height."""
    _, x, phi = _upward(levels, x, geopotential)
    return _linear_in_height(x, phi / G, altitude)


def at_hypsometric_altitude(
    x: Tensor, temperature: Tensor, sea_level: Tensor, levels: Tensor, altitude: Tensor
) -> Tensor:
    """Interpolate linearly in heights that follow from temperature and sea level pressure."""
    p, x, t = _upward(levels, x, temperature)
    # Down to the sea by the standard lapse rate, T_0 = T (p_0 / p)^(R Γ / g).
    exponent = R_D * LAPSE / G
    lowest = t[..., :1] / LAPSE * ((sea_level[..., None] / p[0]) ** exponent - 1)
    return _linear_in_height(x, lowest + heights_above_lowest(t, p.log()), altitude)


def at_pressure_on_sigma(
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


def weighted_sum(
    column: Tensor, levels: Tensor, weighting_function: Tensor, kernel_pressure: Tensor
) -> Tensor:
    """Sum over the pressures of a kernel; weights that do not sum to one are taken as they are."""
    p, column = _upward(levels, column)
    at = kernel_pressure.expand_as(weighting_function).log()
    return (between(column, p.log(), at) * weighting_function).sum(-1)


def averaging_kernel(
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
