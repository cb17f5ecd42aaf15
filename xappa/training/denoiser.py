r"""The second stage: a denoiser of blankets of latents, by denoising score matching.

Latents get the noise of the first stage, which their standard deviation counts with. Times are
uniform on the noise schedule, spread evenly over a batch, and errors weigh by
:math:`1 / \sigma_t^2 + 1` (Andry et al. 2025, arXiv:2504.18720). So weighted, the error of a
denoiser that knows nothing but mean and variance is 1 at every noise level.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from xappa.diffusion.blankets import BlanketDenoiser
from xappa.diffusion.noise import generator
from xappa.diffusion.schedules import schedule_of
from xappa.models.appa.normalisation import date_features
from xappa.nn.autoencoder import AutoencoderConfig
from xappa.nn.transformer import LatentTransformer, TransformerConfig
from xappa.training.config import AppaTraining
from xappa.training.data import Series, TrainingData
from xappa.training.latents import Latents
from xappa.training.loader import Batch
from xappa.training.loop import Run, Stage

__all__ = ["denoiser_stage", "transformer_config"]

#: Noise levels at which validation looks, where the schedule has them.
_LEVELS = (0.01, 0.1, 1.0, 10.0, 100.0)


def transformer_config(encoder: AutoencoderConfig, config: AppaTraining) -> TransformerConfig:
    """Return the sizes of the transformer of an autoencoder's latents."""
    return TransformerConfig(
        encoder.latent_shape,
        config.blanket,
        config.channels,
        config.blocks,
        config.heads,
        mod_features=config.mod_features or config.channels // 2,
        patch_size=config.patch_size,
        window_size=config.window,
        window_wraps=(False, False, encoder.boundary != "edge"),
        modes=config.modes,
    )


class _Objective(nn.Module):
    """Weighted mean square error of denoised blankets."""

    def __init__(self, denoiser: BlanketDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def errors(self, x: Tensor, noise: Tensor, sigma: Tensor, dates: Tensor) -> Tensor:
        """Return the errors (B) of blankets (B, K, L) at noise levels (B)."""
        levels = sigma.to(x)
        out = self.denoiser.at(x + levels[:, None, None] * noise, levels, dates)
        error = (out.float() - x).square().mean((1, 2))
        weighted: Tensor = error * (1 / levels**2 + 1)
        return weighted

    def forward(self, x: Tensor, noise: Tensor, sigma: Tensor, dates: Tensor) -> Tensor:
        """Return the loss."""
        return self.errors(x, noise, sigma, dates).mean()


class _Blankets:
    """Blankets of standardised, noisy latents with their dates."""

    def __init__(
        self,
        latents: Latents,
        values: np.ndarray,
        series: Series,
        parts: tuple[str, ...],
        run: Run[AppaTraining],
    ) -> None:
        self.latents, self.values, self.config = latents, values, run.config
        self.starts = series.starts(run.config.blanket)
        self.dates = date_features(series.seconds, series.spec.calendar, parts).astype(np.float32)
        cells = values.shape[-1] // len(latents.std)
        self.kick = np.tile(run.config.latent_noise / latents.std, cells).astype(np.float32)

    def take(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Return a blanket (K, L), noise of the same shape, and its dates (K, 4).

        Numbers count members first, then starts.
        """
        member, start = divmod(number, len(self.starts))
        times = slice(self.starts[start], self.starts[start] + self.config.blanket)
        clean = self.latents.standardised(self.values[member, times])
        kick, noise = rng.standard_normal((2, *clean.shape), dtype=np.float32)
        return clean + self.kick * kick, noise, self.dates[times]

    def __len__(self) -> int:
        return len(self.values) * len(self.starts)


def denoiser_stage(
    network: LatentTransformer,
    latents: Latents,
    data: TrainingData,
    parts: tuple[str, ...],
    run: Run[AppaTraining],
) -> Stage:
    """Return the stage that trains the denoiser.

    Parameters
    ----------
    network
        The transformer, where it is to be trained.
    latents
        What it learns from.
    data
        What they were encoded from.
    parts
        What of the dates it is told, see `date_features`.
    run
        Settings, seed and processes.
    """
    config = run.config
    schedule = schedule_of(*config.schedule)
    blankets = _Blankets(latents, latents.train, data.train, parts, run)
    network.checkpointing = config.recompute

    def batch(step: int, samples: range) -> Batch:
        rng = generator(run.seed, "denoiser batch", step)
        numbers = rng.integers(len(blankets), size=config.batch)
        times = (rng.uniform() + np.arange(config.batch) / config.batch) % 1.0
        _, sigma = schedule(torch.from_numpy(times[samples]))
        taken = [
            blankets.take(int(numbers[sample]), generator(run.seed, "denoiser noise", step, sample))
            for sample in samples
        ]
        x, noise, dates = (torch.from_numpy(np.stack(part)) for part in zip(*taken, strict=True))
        return x, noise, sigma, dates

    held = _Blankets(latents, latents.held, data.held, parts, run)
    check = _ByLevel(held if len(held) else blankets, config, run.seed)
    objective = _Objective(BlanketDenoiser(network, schedule))
    return Stage("denoiser", config.denoiser_steps, network, objective, batch, check)


class _ByLevel:
    """The weighted error of blankets that were set aside, by noise level."""

    def __init__(self, blankets: _Blankets, config: AppaTraining, seed: int) -> None:
        self.blankets, self.config, self.seed = blankets, config, seed

    def __call__(self, network: LatentTransformer) -> Mapping[str, float]:
        name, low, high = self.config.schedule
        device = next(network.parameters()).device
        objective = _Objective(BlanketDenoiser(network, schedule_of(name, low, high)))
        count = min(self.config.validation_states, len(self.blankets))
        numbers = np.linspace(0, len(self.blankets) - 1, count).round().astype(int)
        found = {}
        for sigma in (level for level in _LEVELS if low <= level <= high):
            errors = []
            for some in np.array_split(numbers, -(-count // self.config.batch)):
                taken = [
                    self.blankets.take(int(n), generator(self.seed, "validation", int(n), sigma))
                    for n in some
                ]
                x, noise, dates = (
                    torch.from_numpy(np.stack(part)).to(device) for part in zip(*taken, strict=True)
                )
                levels = torch.full((len(x),), sigma, device=device)
                errors.append(objective.errors(x, noise, levels, dates))
            found[f"denoising/sigma={sigma:g}"] = float(torch.cat(errors).mean())
        return found
