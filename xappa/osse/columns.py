r"""Columns of a sigma model on pressure levels, in closed form.

Between its full levels :math:`\sigma_k` and the ground (:math:`\sigma = 1`) a column is linear in
:math:`x = \ln(p / p_s)`, so that the nodes :math:`x_k = \ln \sigma_k` are the same everywhere. At
the ground, wind and humidity are those of the lowest level, and temperature goes down to it with
the standard lapse rate :math:`\Gamma = 6.5` K/km, :math:`T_* = T_K \sigma_K^{-R \Gamma / g}`.

Geopotential is the hydrostatic integral of that profile of virtual temperature
:math:`T_v = T (1 + (R_v / R - 1) q)` from the orography :math:`\Phi_s` up: quadratic in :math:`x`,

.. math:: \Phi(x) = \Phi_{k+1} + R \left[T_{v,k+1} d
    + \tfrac12 (T_{v,k} - T_{v,k+1}) d^2 / D\right], \quad d = x_{k+1} - x, \; D = x_{k+1} - x_k.

Below the ground there is no air. What meteorological centres write there is written here: wind
and humidity of the lowest level; with :math:`a = R \Gamma / g`,

.. math:: T(x) = T_* e^{a x}, \quad \Phi(x) = \Phi_s - R T_{v*} (e^{a x} - 1) / a,

where :math:`\Gamma` is reduced under high ground and, for the mean sea level pressure

.. math:: p_{msl} = p_s \exp\left[\frac{\Phi_s}{R T_*} \frac{\ln(1 + y)}{y}\right],
    \quad y = \Gamma \Phi_s / (g T_*),

under warm and cold ground (Trenberth et al. 1993, whose series in :math:`x` are summed here).

References
----------
Trenberth, K. E., J. C. Berry and L. E. Buja (1993): Vertical interpolation and truncation of
model-coordinate data. NCAR Technical Note TN-396+STR. https://doi.org/10.5065/D6HX19NH
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["GRAVITY", "LAPSE_RATE", "R_DRY", "R_VAPOUR", "Columns"]

#: m s-2, J kg-1 K-1, J kg-1 K-1: those of the model. K m-1: that of the standard atmosphere.
GRAVITY, R_DRY, R_VAPOUR, LAPSE_RATE = 9.81, 1004.64 * 2 / 7, 461.51, 0.0065
# K: below the first, and above the second, surface temperatures are unfit for the reduction
_COLD, _WARM = 255.0, 290.5
# m, m, K: between these heights the reduced lapse rate sets in, which this temperature limits
_HIGH, _HIGHER, _PLATEAU = 2000.0, 2500.0, 298.0

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """Columns of air on sigma levels.

    Parameters
    ----------
    sigma
        Full levels (K,), increasing towards the ground.
    t
        Temperature (..., K, Y, X), K.
    q
        Specific humidity (..., K, Y, X), kg/kg.
    ps
        Surface pressure (..., Y, X), Pa.
    phis
        Geopotential of the ground (Y, X), m2 s-2.
    """

    sigma: Array
    t: Array
    q: Array
    ps: Array
    phis: Array

    @property
    def nodes(self) -> Array:
        """ln(p / ps) of the full levels and of the ground (K + 1,)."""
        return np.append(np.log(self.sigma), 0.0)

    @property
    def surface_temperature(self) -> Array:
        """Temperature at the ground (..., Y, X), K."""
        a = R_DRY * LAPSE_RATE / GRAVITY
        return np.asarray(self.t[..., -1, :, :] * self.sigma[-1] ** -a)

    @property
    def sea_level_pressure(self) -> Array:
        """Pressure reduced to mean sea level (..., Y, X), Pa."""
        ground, lapse = _reduction(self.surface_temperature, self.phis)
        y = lapse * self.phis / (GRAVITY * ground)
        safe = np.where(np.abs(y) < 1e-12, 1.0, y)
        ratio = np.where(np.abs(y) < 1e-12, 1.0, np.log1p(y) / safe)
        return np.asarray(self.ps * np.exp(self.phis / (R_DRY * ground) * ratio))

    def at(self, values: Array, pressure: float) -> Array:
        """Return values of the full levels (..., K, Y, X) at a pressure in Pa (..., Y, X).

        Below the ground, and between it and the lowest level, they are those of the lowest level.
        """
        index, weight, _ = self._position(pressure)
        return _between(_with(values, values[..., -1, :, :]), index, weight)

    def temperature(self, pressure: float) -> Array:
        """Return temperature at a pressure in Pa (..., Y, X), K."""
        index, weight, x = self._position(pressure)
        ground = self.surface_temperature
        inside = _between(_with(self.t, ground), index, weight)
        below = ground * np.exp(self._exponent(ground) * np.maximum(x, 0.0))
        return np.where(x > 0, below, inside)

    def geopotential(self, pressure: float) -> Array:
        """Return geopotential at a pressure in Pa (..., Y, X), m2 s-2."""
        index, weight, x = self._position(pressure)
        tv, phi = self._hydrostatic
        upper, lower = _take(tv, index), _take(tv, index + 1)
        width = np.diff(self.nodes)[index]
        d = (1.0 - weight) * width
        inside = _take(phi, index + 1) + R_DRY * (
            lower * d + 0.5 * (upper - lower) * d * (1.0 - weight)
        )
        a, depth = self._exponent(self.surface_temperature), np.maximum(x, 0.0)
        safe = np.where(a < 1e-12, 1.0, a)
        grown = np.where(a < 1e-12, depth, np.expm1(safe * depth) / safe)
        below = self.phis - R_DRY * tv[..., -1, :, :] * grown
        return np.where(x > 0, below, inside)

    @property
    def _hydrostatic(self) -> tuple[Array, Array]:
        """Virtual temperature and geopotential at the nodes (..., K + 1, Y, X)."""
        factor = 1.0 + (R_VAPOUR / R_DRY - 1.0) * self.q
        tv = _with(self.t * factor, self.surface_temperature * factor[..., -1, :, :])
        width = np.diff(self.nodes)[:, None, None]
        layers = 0.5 * R_DRY * (tv[..., :-1, :, :] + tv[..., 1:, :, :]) * width
        above = np.flip(np.cumsum(np.flip(layers, -3), -3), -3)
        ground = np.broadcast_to(self.phis, self.ps.shape)
        return tv, _with(above + ground[..., None, :, :], ground)

    def _position(self, pressure: float) -> tuple[npt.NDArray[np.intp], Array, Array]:
        """Return the node above, the weight of the node below, and ln(p / ps), each (..., Y, X)."""
        nodes = self.nodes
        x = np.log(pressure / self.ps)
        index = np.clip(np.searchsorted(nodes, x) - 1, 0, nodes.size - 2)
        weight = (np.clip(x, nodes[0], 0.0) - nodes[index]) / np.diff(nodes)[index]
        return index, weight, x

    def _exponent(self, ground: Array) -> Array:
        """Return R Gamma / g below the ground (..., Y, X), less under high ground."""
        height = np.maximum(self.phis / GRAVITY, 0.0)
        level = ground + LAPSE_RATE * height
        share = np.clip((height - _HIGH) / (_HIGHER - _HIGH), 0.0, 1.0)
        level = (1.0 - share) * level + share * np.minimum(level, _PLATEAU)
        lapse = np.maximum(level - ground, 0.0) / np.maximum(height, 1.0)
        return np.asarray(R_DRY / GRAVITY * np.where(height > _HIGH, lapse, LAPSE_RATE))


def _reduction(ground: Array, phis: Array) -> tuple[Array, Array]:
    """Return the surface temperature and the lapse rate of the reduction to sea level."""
    height = phis / GRAVITY
    level = ground + LAPSE_RATE * height
    hot, hotter = level > _WARM, ground > _WARM
    safe = np.where(np.abs(height) < 1.0, 1.0, height)
    lapse = np.where(hot & ~hotter & (np.abs(height) >= 1.0), (_WARM - ground) / safe, LAPSE_RATE)
    lapse = np.where(hot & hotter, 0.0, lapse)
    ground = np.where(hot & hotter, 0.5 * (_WARM + ground), ground)
    return np.where(ground < _COLD, 0.5 * (_COLD + ground), ground), lapse


def _with(values: Array, ground: Array) -> Array:
    """Return values of the full levels with those at the ground below them."""
    return np.concatenate([values, ground[..., None, :, :]], axis=-3)


def _take(values: Array, index: npt.NDArray[np.intp]) -> Array:
    return np.take_along_axis(values, index[..., None, :, :], axis=-3)[..., 0, :, :]


def _between(values: Array, index: npt.NDArray[np.intp], weight: Array) -> Array:
    return (1.0 - weight) * _take(values, index) + weight * _take(values, index + 1)
