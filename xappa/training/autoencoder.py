"""The first stage: an autoencoder of standardised states, smooth by noise on its latents."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from xappa.bridge import StateSpec
from xappa.diffusion.noise import generator
from xappa.nn.autoencoder import AutoencoderConfig, ConvAutoencoder
from xappa.training.config import AppaTraining
from xappa.training.data import TrainingData
from xappa.training.loader import Batch
from xappa.training.loop import Run, Stage
from xappa.training.pool import Pool
from xappa.training.settings import unknown_key
from xappa.training.statistics import Statistics

__all__ = ["autoencoder_config", "autoencoder_stage", "channel_weights"]


def autoencoder_config(spec: StateSpec, config: AppaTraining) -> AutoencoderConfig:
    """Return the sizes of the autoencoder of a state."""
    columns = spec.grid.shape[1]
    factor = 2 ** (len(config.hid_channels) - 1)
    periodic = "periodic" if columns % factor == 0 else "periodic-input"
    return AutoencoderConfig(
        spec.grid.shape,
        spec.n_channels,
        config.lat_channels,
        config.hid_channels,
        config.hid_blocks,
        boundary=periodic if spec.grid.is_periodic else "edge",
        saturation=config.saturation,
        latent_noise=config.latent_noise,
    )


def channel_weights(spec: StateSpec, statistics: Statistics, config: AppaTraining) -> np.ndarray:
    """Return the weights of the channels in the loss, of mean 1, shape (C, 1, 1).

    Raises
    ------
    ArgumentError
        If a variable that is given a weight is none of the state's.
    """
    names = [variable.name for variable in spec.variables]
    for name in config.variable_weights:
        if name not in names:
            raise unknown_key(name, names, "the variable", "variable_weights")
    weights = []
    for variable in spec.variables:
        levels = np.ones(variable.n_channels)
        if config.level_weights == "pressure" and variable.levels is not None:
            levels = np.asarray(variable.levels) / np.mean(variable.levels)
        weights.append(levels * config.variable_weights.get(variable.name, 1.0))
    weight = np.concatenate(weights)[:, None, None]
    if config.tendency_weights:
        weight = weight * (statistics.std / statistics.tendency) ** 2
    scaled: np.ndarray = weight / weight.mean()
    return scaled


class _Objective(nn.Module):
    """Weighted mean square error of what a noisy latent is decoded to."""

    weight: Tensor

    def __init__(self, autoencoder: ConvAutoencoder, weight: np.ndarray, noise: float) -> None:
        super().__init__()
        self.autoencoder, self.noise = autoencoder, noise
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.float32))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return the loss of states (B, C, H, W), with noise (B, c, h, w)."""
        z = self.autoencoder.encode(x)
        out = self.autoencoder.decode(z + self.noise * noise.to(z.dtype))
        return ((out.float() - x).square() * self.weight).mean()


def autoencoder_stage(module: ConvAutoencoder, data: TrainingData, run: Run[AppaTraining]) -> Stage:
    """Return the stage that trains the autoencoder.

    Parameters
    ----------
    module
        The autoencoder, where it is to be trained.
    data
        The states.
    run
        Settings, seed and processes.
    """
    config, spec = run.config, data.spec
    weight = channel_weights(spec, data.statistics, config)
    if config.area_weights:
        area = spec.grid.area_weights()
        weight = weight * (area / area.mean())
    rows, columns, channels = module.config.latent_shape
    module.checkpointing = config.recompute
    pool = Pool(data.train, config.pool, config.batch, run.seed)

    def batch(step: int, samples: range) -> Batch:
        states = data.standardised(pool.take(step, samples))
        noise = [
            generator(run.seed, "latent noise", step, sample).standard_normal(
                (channels, rows, columns), dtype=np.float32
            )
            for sample in samples
        ]
        return torch.from_numpy(states), torch.from_numpy(np.stack(noise))

    objective = _Objective(module, weight, config.latent_noise).to(run.processes.device)
    check = _Reconstruction(data, config.validation_states)
    return Stage("autoencoder", config.autoencoder_steps, module, objective, batch, check)


class _Reconstruction:
    """The error of states that were set aside, by variable, in their units."""

    def __init__(self, data: TrainingData, count: int) -> None:
        self.data, self.count = data, count
        self.states: np.ndarray | None = None

    def __call__(self, module: ConvAutoencoder) -> Mapping[str, float]:
        held, spec, own = self.data.held, self.data.spec, self.data.statistics
        if self.states is None:
            rows = np.linspace(0, len(held) - 1, min(self.count, len(held))).round().astype(int)
            self.states = self.data.standardised(held.take(rows))
        device = next(module.parameters()).device
        present = np.ones(spec.shape) if own.missing is None else ~own.missing
        weight = spec.grid.area_weights() * present
        weight = weight / np.maximum(weight.sum((1, 2), keepdims=True), 1e-300)
        area = torch.from_numpy(weight)
        total = torch.zeros(spec.n_channels, dtype=torch.float64)
        for part in torch.from_numpy(self.states).split(_ROWS):
            lost = module.decode(module.encode(part.to(device))).cpu() - part
            total += (lost.double().square() * area).sum((0, 2, 3))
        mse = (total / len(self.states)).numpy() * own.std[:, 0, 0] ** 2
        return {
            f"reconstruction/{variable.name}": float(
                np.sqrt(mse[spec.slice_of(variable.name)].mean())
            )
            for variable in spec.variables
        }


#: States that are encoded together where no gradient is needed.
_ROWS = 16
