r"""The stages of a downscaling model: regressions of the mean, and diffusion of what they leave.

A regression learns standardised fields by mean squared error. The diffusion model learns residuals
of the times that a regression was *not* trained on: training times are cut into runs that go to the
folds in turn, and those of a fold are told by the regression that all others trained.

Of domains that are cut, a step sees one random patch of each field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xappa.diffusion.edm import EDMDenoiser, noise_levels
from xappa.diffusion.noise import generator
from xappa.models.corrdiff.model import CorrDiffModel
from xappa.models.corrdiff.pairs import Pairs
from xappa.models.corrdiff.scaling import SIGMA_DATA
from xappa.nn.unet import UNet
from xappa.training.downscaling import DownscalingTraining
from xappa.training.loader import Batch
from xappa.training.loop import Run, Stage

__all__ = ["Samples", "diffusion_stage", "fold_of", "mean_stage", "told_means"]

#: Runs of times for each fold, so that all of them see all seasons, or days.
_RUNS = 6
#: Noise levels at which validation looks.
_LEVELS = (0.05, 0.2, 0.5, 1.0, 5.0)


def fold_of(count: int, folds: int) -> np.ndarray:
    """Return the fold of each of so many times, shape (T,); all -1 without folds.

    >>> fold_of(12, 2).tolist()
    [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    """
    if not folds:
        return np.full(count, -1)
    run = np.arange(count) * (_RUNS * folds) // count
    return run % folds


@dataclass(frozen=True, eq=False)
class Samples:
    """Standardised fields with what is known of them.

    Parameters
    ----------
    model
        Knows how fields are standardised and brought to the fine grid; its networks are not used.
    pairs
        The states.
    means
        What regressions tell of each, (T, c, H, W), numpy or memory-mapped; None before.
    """

    model: CorrDiffModel
    pairs: Pairs
    means: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is drawn, (n, c, H, W), what is known, (n, D, H, W), and labels (n, F).

        That is standardised fields, or with means their residuals in diffusion's units, the means
        then being known, too.
        """
        model, order = self.model, np.sort(rows)
        coarse, fine = self.pairs.take(order)
        lead = None if self.pairs.lead is None else self.pairs.lead[order]
        given = model.given(coarse, self.pairs.seconds[order], lead)
        fields = model.scaling.fine(torch.as_tensor(fine).float(), given.departed)
        if self.means is not None:
            mean = torch.from_numpy(np.asarray(self.means[order], np.float32))
            fields = (fields - mean) / model.scaling.residual_scale(fields)
            given = replace(given, mean=mean)
        back = torch.from_numpy(np.searchsorted(order, rows))
        return fields[back], given.condition[back], given.labels[back]

    def patched(
        self, fields: Tensor, known: Tensor, uniforms: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a random patch of each field, of what is known, and its positions (n, 2, h, w)."""
        from xappa.nn.unet_blocks import coordinates

        cut = self.model.patches
        where = coordinates(*fields.shape[-2:])[None].expand(len(fields), -1, -1, -1)
        if cut is None:
            return fields, known, where
        starts = cut.random_starts(torch.from_numpy(uniforms))
        own = torch.cat([cut.cut_at(known, starts), cut.overview(known)], dim=1)
        return cut.cut_at(fields, starts), own, cut.cut_at(where, starts)


class _Regression(nn.Module):
    """Mean squared error of the fields that a regression tells."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, fields: Tensor, known: Tensor, labels: Tensor, where: Tensor) -> Tensor:
        """Return the loss."""
        told = self.network(known, labels=labels, positions=where)
        error: Tensor = (told.float() - fields).square().mean()
        return error


def mean_stage(
    name: str, network: UNet, samples: Samples, held: Samples, rows: np.ndarray, run: Any
) -> Stage:
    """Return the stage that trains a regression.

    Parameters
    ----------
    name
        Of the stage.
    network
        The regression, where it is to be trained.
    samples, rows
        What it learns from: the times of these numbers.
    held
        What it is judged by.
    run
        Settings, seed and processes.
    """
    config: DownscalingTraining = run.config
    network.checkpointing = config.recompute

    def batch(step: int, samples_: range) -> Batch:
        rng = generator(run.seed, f"{name} batch", step)
        numbers = rows[rng.integers(len(rows), size=config.batch)]
        uniforms = rng.uniform(size=(config.batch, 2))
        fields, known, labels = samples.take(numbers[samples_.start : samples_.stop])
        fields, known, where = samples.patched(fields, known, uniforms[samples_.start :])
        return fields, known, labels, where

    check = _Judged(held, config)
    return Stage(name, config.mean_steps, network, _Regression(network), batch, check)


class _Judged:
    """Root mean square error of what a regression tells, by channel, in standardised numbers."""

    def __init__(self, held: Samples, config: DownscalingTraining) -> None:
        self.held, self.config = held, config

    def __call__(self, network: UNet) -> Mapping[str, float]:
        total: Any = 0.0
        rows = _some(self.held, self.config)
        for part in np.array_split(rows, -(-len(rows) // self.config.batch)):
            fields, _, _ = self.held.take(part)
            told = told_means(self.held, network, part)
            total = total + (torch.from_numpy(told) - fields).square().mean((2, 3)).sum(0)
        labels = self.held.model.target.spec.channel_labels
        error = (total / len(rows)).sqrt().tolist()
        return {f"error/{label}": value for label, value in zip(labels, error, strict=True)}


def _some(held: Samples, config: DownscalingTraining) -> np.ndarray:
    count = min(config.validation_states, len(held))
    rows: np.ndarray = np.linspace(0, len(held) - 1, count).round().astype(int)
    return rows


@torch.no_grad()
def told_means(samples: Samples, network: UNet, rows: np.ndarray) -> np.ndarray:
    """Return what a regression tells of some times, shape (n, c, H, W), float32."""
    model, pairs = samples.model, samples.pairs
    device = next(network.parameters()).device
    coarse, _ = pairs.take(rows)
    given = model.given(
        coarse, pairs.seconds[rows], None if pairs.lead is None else pairs.lead[rows]
    )
    told = model.told(given.on(device), network.eval())
    means: np.ndarray = told.float().cpu().numpy()
    return means


class _Diffusion(nn.Module):
    """Weighted squared error of denoised residuals."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.denoiser = EDMDenoiser(network, sigma_data=SIGMA_DATA)

    def forward(
        self,
        fields: Tensor,
        known: Tensor,
        labels: Tensor,
        where: Tensor,
        sigma: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Return the loss."""
        told = {"condition": known, "labels": labels, "positions": where}
        return self.denoiser.loss(fields, sigma, noise, **told).mean()


def diffusion_stage(
    network: UNet, samples: Samples, held: Samples, run: Run[DownscalingTraining]
) -> Stage:
    """Return the stage that trains the diffusion model; see `mean_stage`.

    The samples know their means.
    """
    config = run.config
    network.checkpointing = config.recompute

    def batch(step: int, which: range) -> Batch:
        rng = generator(run.seed, "diffusion batch", step)
        numbers = rng.integers(len(samples), size=config.batch)
        uniforms = rng.uniform(size=(config.batch, 2))
        # spread evenly over the levels
        levels = (rng.uniform() + rng.permutation(config.batch)) / config.batch
        fields, known, labels = samples.take(numbers[which.start : which.stop])
        fields, known, where = samples.patched(fields, known, uniforms[which.start :])
        sigma = _levels(levels[which.start : which.stop], config)
        noise = [_white(run.seed, step, k, tuple(fields.shape[1:])) for k in which]
        return fields, known, labels, where, sigma, torch.from_numpy(np.stack(noise))

    objective = _Diffusion(network)
    check = _ByLevel(held, config, run.seed)
    return Stage("diffusion", config.diffusion_steps, network, objective, batch, check)


def _white(seed: int, step: int, sample: int, shape: tuple[int, ...]) -> np.ndarray:
    stream = generator(seed, "diffusion noise", step, sample)
    return stream.standard_normal(shape, dtype=np.float32)


def _levels(uniforms: np.ndarray, config: DownscalingTraining) -> Tensor:
    inside = np.clip(uniforms, 1e-6, 1 - 1e-6)
    normals = torch.special.ndtri(torch.from_numpy(inside))
    return noise_levels(normals, P_mean=config.P_mean, P_std=config.P_std).float()


class _ByLevel:
    """The error of denoised residuals that were set aside, by noise level."""

    def __init__(self, held: Samples, config: DownscalingTraining, seed: int) -> None:
        self.held, self.config, self.seed = held, config, seed

    def __call__(self, network: UNet) -> Mapping[str, float]:
        device = next(network.parameters()).device
        denoiser, found = EDMDenoiser(network, sigma_data=SIGMA_DATA), {}
        rows = _some(self.held, self.config)
        for sigma in _LEVELS:
            errors = []
            for part in np.array_split(rows, -(-len(rows) // self.config.batch)):
                fields, known, labels = self.held.take(part)
                half = np.full((len(part), 2), 0.5)
                fields, known, where = self.held.patched(fields, known, half)
                white = generator(self.seed, "validation", int(part[0]), sigma)
                noise = torch.from_numpy(white.standard_normal(fields.shape, dtype=np.float32))
                told = {"condition": known, "labels": labels, "positions": where}
                on = {name: value.to(device) for name, value in told.items()}
                levels = torch.full((len(part),), sigma, device=device)
                errors.append(denoiser.loss(fields.to(device), levels, noise.to(device), **on))
            found[f"denoising/sigma={sigma:g}"] = float(torch.cat(errors).mean())
        return found
