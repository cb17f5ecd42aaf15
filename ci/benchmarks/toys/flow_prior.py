"""Training a diffusion prior of short windows of Kolmogorov flow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import torch
from navier_stokes import KolmogorovFlow
from torch import Tensor
from unet import UNet

from xappa.diffusion.blankets import BlanketDenoiser
from xappa.diffusion.sampling import KarrasSchedule

__all__ = ["denoising_errors", "train", "untrained"]


def untrained(window: int, widths: tuple[int, ...]) -> BlanketDenoiser:
    """Return the denoiser of windows (B, K, 2 n n) before it is trained."""
    return BlanketDenoiser(UNet(window, widths=widths), KarrasSchedule(2e-3, 80.0))


def _windows(data: Tensor, window: int, batch: int) -> Tensor:
    """Draw windows (B, K, 2, n, n), moved along x and by whole waves of the forcing along y."""
    which = torch.randint(len(data), (batch,))
    first = torch.randint(data.shape[1] - window + 1, (batch,))
    x = data[which[:, None], first[:, None] + torch.arange(window)]
    n = x.shape[-1]
    along, waves = int(torch.randint(n, ())), int(torch.randint(4, ()))
    x = x.roll((along, waves * n // 4), (-2, -1))
    turned = torch.rand(batch, 1, 1, 1, 1) < 0.5
    # The flow looks the same turned by half a circle: the forcing and the velocity change sign.
    return torch.where(turned, -x.flip((-2, -1)), x)


def train(
    flow: KolmogorovFlow,
    *,
    window: int,
    widths: tuple[int, ...],
    trajectories: int,
    length: int,
    steps: int,
    batch: int,
    rate: float = 1e-3,
    seed: int = 0,
) -> tuple[BlanketDenoiser, float, float]:
    """Train a prior; return it with the seconds that the data and the training took."""
    start = time.perf_counter()
    data = torch.cat([flow.trajectories(1, length, seed=seed + i) for i in range(trajectories)])
    simulated = time.perf_counter() - start
    torch.manual_seed(seed)
    denoiser = untrained(window, widths)
    network = cast(UNet, denoiser.network)
    network.gaussian.fit(data)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.05)
    for _ in range(steps):
        x = _windows(data, window, batch).flatten(2)
        sigma = torch.exp(1.5 * torch.randn(batch) - 0.7)
        noisy = x + sigma[:, None, None] * torch.randn_like(x)
        error = (denoiser.at(noisy, sigma, x.new_zeros(batch, window, 4)) - x).square().mean((1, 2))
        loss = (error * (1 + sigma**-2)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(network)
    denoiser.network = averaged.module.eval().requires_grad_(False)
    return denoiser, simulated, time.perf_counter() - start - simulated


def denoising_errors(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, levels: list[float]
) -> list[float]:
    """Return the root mean square error of windows x (B, K, 2, n, n) denoised of each level."""
    x = x.flatten(2)
    generator = torch.Generator().manual_seed(0)
    errors = []
    for level in levels:
        noisy = x + level * torch.randn(x.shape, generator=generator)
        sigma = torch.full((len(x),), level)
        expected = denoise(noisy, sigma, x.new_zeros(len(x), x.shape[1], 4))
        errors.append(float((expected - x).square().mean().sqrt()))
    return errors
