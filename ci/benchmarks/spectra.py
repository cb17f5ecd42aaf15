r"""Kinetic energy by total wavenumber, from winds on a Gaussian grid.

With :math:`\mu = \sin \varphi`, normalised :math:`P_l^m`, and the Fourier coefficients :math:`U_m`,
:math:`V_m` of :math:`u \cos \varphi`, :math:`v \cos \varphi`, integration by parts gives vorticity
and divergence without differences on the grid,

.. math:: a \zeta_l^m = \int \frac{i m V_m P_l^m + U_m H_l^m}{1 - \mu^2} d\mu, \quad
    a \delta_l^m = \int \frac{i m U_m P_l^m - V_m H_l^m}{1 - \mu^2} d\mu, \quad
    H_l^m = (1 - \mu^2) \frac{d P_l^m}{d \mu},

and the energy :math:`E_l = \sum_m (|a \zeta_l^m|^2 + |a \delta_l^m|^2) / (4 l (l + 1))`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["kinetic_energy"]

Array = npt.NDArray[np.float64]


def kinetic_energy(u: Array, v: Array, latitude: Array, waves: int = 31) -> Array:
    """Return kinetic energy by total wavenumber (..., waves + 1), whose sum is the global mean.

    Parameters
    ----------
    u, v
        Winds (..., Y, X), m/s.
    latitude
        Gaussian latitudes (Y,), degrees, increasing.
    waves
        Largest total wavenumber.
    """
    mu, weight = np.polynomial.legendre.leggauss(latitude.size)
    if not np.allclose(np.sin(np.deg2rad(latitude)), mu, atol=1e-6):
        raise ValueError("the latitudes are not Gaussian, from south to north")
    cosine = np.sqrt(1 - mu**2)
    modes = [np.fft.rfft(x * cosine[:, None], axis=-1) / x.shape[-1] for x in (u, v)]
    energy = np.zeros((*u.shape[:-2], waves + 1))
    for m in range(waves + 1):
        p, h = _legendre(m, waves, mu)
        scale = weight / (1 - mu**2)
        um, vm = (x[..., m] * scale for x in modes)
        zeta = 1j * m * vm @ p.T + um @ h.T
        delta = 1j * m * um @ p.T - vm @ h.T
        l = np.arange(m, waves + 1)  # noqa: E741
        both = np.abs(zeta) ** 2 + np.abs(delta) ** 2
        energy[..., m:] += (1 if m == 0 else 2) * both / np.maximum(4 * l * (l + 1), 1)
    return energy


def _legendre(m: int, waves: int, mu: Array) -> tuple[Array, Array]:
    """Return P_l^m and H_l^m for l from m to `waves` (L, Y); the mean square of P is one half."""

    def a(l: int) -> float:  # noqa: E741
        return float(np.sqrt((l * l - m * m) / (4.0 * l * l - 1.0)))

    start = np.full_like(mu, np.sqrt(0.5))
    for k in range(1, m + 1):
        start = start * np.sqrt((2 * k + 1) / (2 * k)) * np.sqrt(1 - mu**2)
    p = [start]
    for l in range(m + 1, waves + 2):  # noqa: E741
        before = p[-2] * a(l - 1) if len(p) > 1 else 0.0
        p.append((mu * p[-1] - before) / a(l))
    h = [
        (l + 1) * a(l) * (p[l - m - 1] if l > m else 0.0) - l * a(l + 1) * p[l - m + 1]
        for l in range(m, waves + 1)  # noqa: E741
    ]
    return np.stack(p[:-1]), np.stack(h)
