"""A diffusion prior of windows of a small chaotic model, and its posterior by MMPS.

The filter draws the last state of a window of K observation times given the observations up to it;
the smoother the middle one, given those on both sides. Windows of all times are one batch.
"""

from __future__ import annotations

import time

import azula.sample
import numpy as np
import torch
from azula.denoise import KarrasDenoiser
from lorenz import Experiment
from networks import Perceptron, Ring
from torch import nn

from xappa.diffusion.guidance import MMPSDenoiser
from xappa.diffusion.linear import Noise
from xappa.diffusion.sampling import KarrasSchedule

__all__ = ["analyse", "train"]


class Prior:
    """A denoiser of standardised windows (B, K n)."""

    def __init__(self, experiment: Experiment, window: int, width: int, blocks: int) -> None:
        self.experiment, self.window = experiment, window
        self.mean, self.std = np.zeros(experiment.size), np.ones(experiment.size)
        self.schedule = KarrasSchedule(sigma_min=2e-3, sigma_max=100.0)
        backbone: nn.Module = (
            Perceptron(window * experiment.size, width, blocks)
            if experiment.size == 3
            else Ring(window, experiment.size, width, blocks)
        )
        self.denoiser = KarrasDenoiser(backbone, self.schedule)
        #: Windows that are sampled at once.
        self.batch = 8000 if experiment.size == 3 else 256


def train(
    experiment: Experiment,
    *,
    window: int,
    width: int = 384,
    blocks: int = 4,
    steps: int = 6000,
    batch: int = 1024,
    levels: tuple[float, float] | None = None,
    seed: int = 0,
) -> tuple[Prior, float]:
    """Train a prior on trajectories of the model; return it, and the seconds that it took.

    Times of the noise schedule are drawn from the beta distribution of parameters `levels`, or
    uniformly.
    """
    start = time.perf_counter()
    torch.manual_seed(seed)
    data = experiment.trajectories(2000 if experiment.size == 3 else 400, 200, seed)
    prior = Prior(experiment, window, width, blocks)
    prior.mean, prior.std = data.mean((0, 1)), data.std((0, 1))
    x = torch.as_tensor((data - prior.mean) / prior.std, dtype=torch.float32)
    if isinstance(prior.denoiser.backbone, Ring):
        prior.denoiser.backbone.fit(x)
    averaged = torch.optim.swa_utils.AveragedModel(
        prior.denoiser, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    )
    optimizer = torch.optim.AdamW(prior.denoiser.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.05)
    spread = None if levels is None else torch.distributions.Beta(*levels)
    for _ in range(steps):
        which = torch.randint(len(x), (batch,))
        first = torch.randint(x.shape[1] - window, (batch,))
        part = x[which[:, None], first[:, None] + torch.arange(window)].flatten(1)
        t = torch.rand(batch) if spread is None else spread.sample((batch,))
        loss = prior.denoiser.loss(part, t)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(prior.denoiser.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(prior.denoiser)
    prior.denoiser = averaged.module.eval().requires_grad_(False)
    return prior, time.perf_counter() - start


def analyse(
    prior: Prior,
    y: np.ndarray,
    *,
    at: int,
    times: np.ndarray | None = None,
    members: int = 16,
    steps: int = 64,
    iterations: int = 3,
    seed: int = 0,
) -> np.ndarray:
    """Return analyses (chosen times, size): means over members of one state of each window.

    Parameters
    ----------
    prior
        The prior.
    y
        (times, size), observations of the whole state.
    at
        Which state of the window, from 0 to K - 1: K - 1 is a filter, others are smoothers.
    times
        Indices of the times to analyse; None for all.
    members, steps, iterations
        Of the ensemble, of the sampler and of the Krylov solve.
    seed
        Of the draws.
    """
    k, n = prior.window, prior.experiment.size
    times = np.arange(len(y)) if times is None else times
    first = np.clip(times - at, 0, len(y) - k)
    index = first[:, None] + np.arange(k)
    scaled = torch.as_tensor((y - prior.mean) / prior.std)
    variance = torch.as_tensor(prior.experiment.variance / prior.std**2)
    diagonal = variance.repeat(k)
    noise = Noise(torch.diag(diagonal), diagonal)
    generator = torch.Generator().manual_seed(seed)
    out = np.zeros((len(times), n))
    for part in np.array_split(np.arange(len(times)), max(1, len(times) * members // prior.batch)):
        windows = scaled[index[part]].flatten(1).repeat_interleave(members, dim=0)
        guided = MMPSDenoiser(
            prior.denoiser, windows, lambda x: x, noise, solver="gmres", iterations=iterations
        )
        sampler = azula.sample.HeunSampler(guided, steps=steps, silent=True)
        white = torch.randn(windows.shape, generator=generator, dtype=windows.dtype)
        start = white * prior.schedule.sigma_max
        z = sampler(start).reshape(len(part), members, k, n).mean(1).numpy()
        chosen = z[np.arange(len(part)), times[part] - first[part]]
        out[part] = chosen * prior.std + prior.mean
    return out
