"""Whether Kolmogorov flow is integrated well: divergence, energy, spectrum, time step."""

from __future__ import annotations

import numpy as np
import torch
from navier_stokes import KolmogorovFlow
from torch import Tensor

__all__ = ["checks"]


def _spectrum(u: Tensor) -> Tensor:
    """Return the energy in each whole wavenumber of velocities (2, N, N)."""
    n = u.shape[-1]
    energy = (torch.fft.fft2(u) / n**2).abs().square().sum(0) / 2
    k = torch.fft.fftfreq(n, 1 / n)
    radius = (k[:, None] ** 2 + k**2).sqrt().round().long()
    return torch.zeros(n).index_add(0, radius.flatten(), energy.flatten())


def checks(flow: KolmogorovFlow, states: int = 128, skip: int = 64) -> dict[str, float]:
    """Return figures of one trajectory, of `states` after `skip` others.

    The divergence is relative to the root mean square vorticity, the change with half the time step
    to the greatest speed after one state; the slope is of wavenumbers 6 to 24.
    """
    w = flow.start(1, torch.Generator().manual_seed(0))
    energies, spectra, speeds, divergences = [], [], [], []
    for state in range(skip + states):
        w = flow.forecast(w)
        if state >= skip:
            u = flow.velocities(w)[0]
            energies.append(float(u.square().sum(0).mean() / 2))
            speeds.append(float(u.abs().sum(0).max()))
            spectra.append(_spectrum(u))
            vorticity = torch.fft.irfft2(w, s=(flow.size, flow.size))
            divergences.append(float(flow.divergence(w).abs().max() / vorticity.std()))
    mean = torch.stack(spectra).mean(0).numpy()
    k = np.arange(6, 25)
    finer = KolmogorovFlow(flow.size, speed=2 * flow.speed)
    ahead, same = (f.velocities(f.forecast(w)) for f in (flow, finer))
    return {
        "least energy": min(energies),
        "greatest energy": max(energies),
        "greatest |u| + |v|": max(speeds),
        "relative divergence": max(divergences),
        "slope of the spectrum": float(np.polyfit(np.log(k), np.log(mean[6:25]), 1)[0]),
        "energy at the last wavenumber over that at 4": float(mean[flow.size // 3] / mean[4]),
        "change with half the time step": float((ahead - same).abs().max() / ahead.abs().max()),
    }
