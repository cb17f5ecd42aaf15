"""How far each sampling method is from the exact posterior of a Gaussian prior."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from xappa import Guidance, Sampler
from xappa.bridge import Layout
from xappa.diffusion.memberwise import MemberNoise
from xappa.models.posterior import GaussianPosterior, Residual
from xappa.observe import ObservationOperator, read_observations
from xappa.tasks.window import Window

MULTISTEP = Sampler("multistep", 32, {"order": 3})
HEUN = Sampler("heun", 32)

#: Name, method, sampler, guidance.
CASES: list[tuple[str, str, Any, Guidance]] = [
    ("mmps, default", "mmps", MULTISTEP, Guidance()),
    ("mmps, residual 1e-4", "mmps", MULTISTEP, Guidance(rtol=1e-4)),
    ("mmps, 1 iteration", "mmps", MULTISTEP, Guidance(iterations=1, rtol=0.0)),
    ("mmps, 3 iterations", "mmps", MULTISTEP, Guidance(iterations=3, rtol=0.0)),
    ("mmps, 8 iterations", "mmps", MULTISTEP, Guidance(iterations=8, rtol=0.0)),
    ("mmps, 28 iterations", "mmps", MULTISTEP, Guidance(iterations=28, rtol=0.0)),
    ("mmps, Heun 32", "mmps", HEUN, Guidance()),
    ("mmps, multistep 16", "mmps", Sampler("multistep", 16, {"order": 3}), Guidance()),
    ("mmps, DDIM 16", "mmps", Sampler("ddim", 16), Guidance()),
    ("mmps, DDIM 64", "mmps", Sampler("ddim", 64), Guidance()),
    ("mmps, DDPM 64", "mmps", Sampler("ddpm", 64), Guidance()),
    ("jfps, default", "jfps", MULTISTEP, Guidance()),
    ("sda, gamma 1", "sda", MULTISTEP, Guidance(gamma=1.0)),
    ("sda, gamma 0.3, DDPM 256", "sda", Sampler("ddpm", 256), Guidance(gamma=0.3)),
    ("dps, zeta 1, 64 steps", "dps", Sampler("ddpm", 64), Guidance(zeta=1.0)),
    ("dps, zeta 0.3, 256 steps", "dps", Sampler("ddpm", 256), Guidance(zeta=0.3)),
]


def posterior_of(model: Any, ds: xr.Dataset, obs: Any) -> GaussianPosterior:
    layout = Layout.of(ds, model.spec)
    specs = read_observations(obs, model.spec)
    window = Window.of(layout, model, specs)
    operator = ObservationOperator.build(specs, model.spec, window.operator_times)
    prior = model.prior(len(window.seconds))
    return GaussianPosterior(model, operator, window.seconds, prior, Residual(model.residual))


def compare(model: Any, ds: xr.Dataset, obs: Any, pairs: int) -> pd.DataFrame:
    """Return the gaps in mean and spread of every case, in climatological standard deviations."""
    posterior = posterior_of(model, ds, obs)
    exact = posterior.exact
    scale = model.std.mean()
    mean = _fields(model, exact.mean[0])
    eofs = model.eofs.astype(np.float64)
    std = np.sqrt(np.einsum("pm,tmk,pk->tp", eofs, exact.variance().numpy(), eofs, optimize=True))
    rows = []
    for name, method, sampler, guidance in CASES:
        start = time.perf_counter()
        draws = _antithetic(posterior, posterior._sampler(method, sampler, guidance), pairs)
        seconds = time.perf_counter() - start
        fields = _fields(model, draws)
        gap = fields.mean(0) - mean
        spread = fields.std(0)  # the mean of antithetic pairs is no estimate
        rows.append(
            {
                "case": name,
                "gap of the mean (climatological std)": float(np.sqrt((gap**2).mean()) / scale),
                "spread / exact": float(np.sqrt((spread**2).mean() / (std**2).mean())),
                "seconds": seconds,
            }
        )
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def _antithetic(posterior: GaussianPosterior, sampler: Any, pairs: int) -> torch.Tensor:
    times, size = posterior.seconds, posterior.model.latent_size
    with MemberNoise(0, "sampler", range(2 * pairs), times):
        x = sampler.init((2 * pairs, len(times), size), dtype=torch.float64)
        x[pairs:] = -x[:pairs]
        return sampler(x)


def _fields(model: Any, latents: torch.Tensor) -> np.ndarray:
    """Anomalies that the EOFs describe, shape (..., T, P)."""
    return latents.numpy() @ model.eofs.T.astype(np.float64)
