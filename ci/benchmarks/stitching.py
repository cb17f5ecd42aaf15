"""Gap of stitched blankets from the exact posterior, for AR(1) priors of known covariance.

The network is the exact denoiser of a blanket; what remains is what stitching loses. A
deterministic sampler with the full Krylov solve is affine in its initial noise, so that pushing a
basis through it gives the mean and the covariance without sampling error.

    python ci/benchmarks/stitching.py [--length 20] [--blanket 8] [--steps 64]
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import pandas as pd
import torch
from azula.sample import HeunSampler
from markdown import markdown
from torch import Tensor, nn

from xappa.diffusion.blankets import BlanketDenoiser, Cut, TrajectoryDenoiser
from xappa.diffusion.guidance import MMPSDenoiser
from xappa.diffusion.linear import Noise
from xappa.diffusion.schedules import schedule_of
from xappa.diffusion.scoped import BlanketwiseDenoiser
from xappa.models.settings import STITCHINGS


class Exact(nn.Module):
    """The network whose preconditioned denoiser is that of N(0, C)."""

    def __init__(self, covariance: np.ndarray) -> None:
        super().__init__()
        self.values, self.vectors = torch.linalg.eigh(torch.as_tensor(covariance))

    def forward(self, x: Tensor, level: Tensor, dates: Tensor) -> Tensor:
        sigma = torch.exp(level / 10)[:, None]
        x_t = x.flatten(1) * (1 + sigma**2).sqrt()
        mean = ((x_t @ self.vectors) * (self.values / (self.values + sigma**2))) @ self.vectors.mT
        return ((mean - x_t / (1 + sigma**2)) * (1 + sigma**2).sqrt() / sigma)[..., None]


def autoregressive(length: int, rho: float) -> np.ndarray:
    return rho ** np.abs(np.subtract.outer(np.arange(length), np.arange(length)))


def moments(denoiser, length: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of what a deterministic sampler makes of Gaussian noise."""
    sampler = HeunSampler(denoiser, steps=steps, silent=True, dtype=torch.float64)
    _, sigma = denoiser.schedule(torch.ones((), dtype=torch.float64))
    noise = torch.cat([torch.zeros(1, length), torch.eye(length)]).double()
    out = sampler((noise * (1 + sigma**2).sqrt())[..., None])[..., 0].numpy()
    linear = (out[1:] - out[0]).T
    return out[0], linear @ linear.T


class Rows:
    """A diagonal R that repeats for the blankets of each member."""

    def __init__(self, diagonal: Tensor) -> None:
        self.diagonal = diagonal

    def __matmul__(self, v: Tensor) -> Tensor:
        return self.diagonal * v


def gaps(rho: float, cut: Cut, steps: int) -> dict[str, float]:
    """Gaps of the prior, and of the posterior guided in both scopes."""
    length, prior = cut.length, autoregressive(cut.length, rho)
    base = BlanketDenoiser(
        Exact(autoregressive(cut.blanket, rho)), schedule_of("loglinear", 1e-3, 1e3)
    )
    dates = torch.zeros(length, 4)
    stitched = TrajectoryDenoiser(base, dates, cut)
    _, covariance = moments(stitched, length, steps)
    found = {"prior covariance": np.abs(covariance - prior).max()}

    seen = np.arange(0, length, 5)  # every fifth state
    y = torch.as_tensor(np.random.default_rng(0).standard_normal(len(seen)) * 1.5)
    variance = torch.full((len(seen),), 0.04, dtype=torch.float64)
    gain = prior[:, seen] @ np.linalg.inv(prior[np.ix_(seen, seen)] + 0.04 * np.eye(len(seen)))
    mean, posterior = gain @ y.numpy(), prior - gain @ prior[seen]
    krylov = {"solver": "gmres", "iterations": len(seen), "rtol": 0.0}

    whole = MMPSDenoiser(
        stitched, y, lambda z: z[:, seen, 0], Noise(torch.diag(variance), variance), **krylov
    )
    inside = torch.stack(
        [((torch.as_tensor(seen) >= s) & (torch.as_tensor(seen) < s + cut.blanket)).double()
         for s in cut.starts]
    )  # fmt: skip

    def guide(denoiser):
        members = len(denoiser.dates) // len(cut.starts)
        mask = inside.repeat(members, 1)
        index = torch.as_tensor(np.clip(seen - np.array(cut.starts)[:, None], 0, cut.blanket - 1))

        def observe(z: Tensor) -> Tensor:
            return mask * torch.gather(z[..., 0], 1, index.repeat(members, 1))

        rows = Rows(torch.where(mask > 0, variance, 1.0))
        return MMPSDenoiser(denoiser, mask * y, observe, rows, **krylov)

    for scope, guided in (
        ("trajectory", whole),
        ("blanket", BlanketwiseDenoiser(base, dates, cut, guide)),
    ):
        m, c = moments(guided, length, steps)
        std = np.sqrt(np.diag(posterior))
        found[f"{scope}: mean"] = float(np.sqrt((((m - mean) / std) ** 2).mean()))
        found[f"{scope}: spread"] = float((np.sqrt(np.diag(c)) / std).mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--blanket", type=int, default=8)
    parser.add_argument("--steps", type=int, default=64)
    arguments = parser.parse_args()
    rows = []
    strides = (2, 4, 6)
    for rho, stride, stitching in itertools.product((0.5, 0.9, 0.98), strides, STITCHINGS):
        cut = Cut(arguments.length, arguments.blanket, stride, stitching)
        overlap = arguments.blanket - stride
        found = gaps(rho, cut, arguments.steps)
        rows.append({"rho": rho, "overlap": overlap, "stitching": stitching, **found})
        print(rows[-1], flush=True)
    alone = Cut(arguments.blanket, arguments.blanket, 1)
    for rho in (0.5, 0.9, 0.98):
        found = gaps(rho, alone, arguments.steps)
        rows.append({"rho": rho, "overlap": "one blanket", "stitching": "", **found})
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
