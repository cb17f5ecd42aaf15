r"""Training of a latent diffusion prior, in two stages, from a Dataset that fits into memory.

1. The autoencoder: mean squared error of standardised states, weighted by area, with noise added to
   the latents so that the decoder is smooth.
2. The denoiser of blankets of latents: denoising score matching with the loss weight
   :math:`1 / \sigma_t^2 + 1` (Andry et al. 2025, arXiv:2504.18720), at times drawn uniformly on the
   noise schedule, with latents that the noise of stage 1 is added to. An exponential moving average
   of the weights is what is kept.

The last part of the data is set aside: from it the reconstruction error is estimated, which belongs
to the error of observations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from xappa.bridge import describe
from xappa.cf import from_seconds
from xappa.device import chosen_device
from xappa.diffusion.blankets import BlanketDenoiser
from xappa.diffusion.noise import generator, seed_of
from xappa.diffusion.schedules import schedule_of
from xappa.errors import ArgumentError, GuessWarning, check_settings, warn
from xappa.models.appa.calibration import reconstruction_error
from xappa.models.appa.model import AppaModel
from xappa.models.appa.normalisation import Normalisation, date_features
from xappa.models.catalogue import remember
from xappa.nn.autoencoder import AutoencoderConfig, ConvAutoencoder
from xappa.nn.transformer import LatentTransformer, TransformerConfig
from xappa.progress import progress_bar
from xappa.training.data import TrainingData

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["AppaTraining", "train"]

Network = TypeVar("Network", bound=nn.Module)

_YEAR = 360 * 86400.0


@dataclass(frozen=True)
class AppaTraining:
    """Sizes of a latent diffusion prior, and how long it is trained.

    Parameters
    ----------
    hid_channels, hid_blocks
        Channels and residual blocks of each stage of the autoencoder, the finest first; each stage
        after the first halves the resolution.
    lat_channels
        Channels of a latent.
    latent_noise
        Standard deviation of the noise on latents in training.
    blanket
        States K of a blanket.
    channels, blocks, heads
        Of the transformer.
    patch_size
        States, rows and columns of latents in a token.
    schedule
        Noise schedule, its least and its largest level.
    autoencoder_steps, denoiser_steps
        Gradient steps of each stage.
    batch
        States, or blankets, in a step.
    learning_rate
        Of AdamW, at the end of a short warm-up; it falls to zero along a cosine.
    held_out
        Share of the data, its end, that is set aside.
    """

    hid_channels: tuple[int, ...] = (32, 64, 96, 96)
    hid_blocks: tuple[int, ...] = (1, 1, 1, 1)
    lat_channels: int = 8
    latent_noise: float = 0.05
    blanket: int = 8
    channels: int = 128
    blocks: int = 4
    heads: int = 4
    patch_size: tuple[int, int, int] = (2, 1, 1)
    schedule: tuple[str, float, float] = ("rectified", 1e-3, 1e3)
    autoencoder_steps: int = 800
    denoiser_steps: int = 1500
    batch: int = 16
    learning_rate: float = 1e-3
    held_out: float = 0.1

    def __post_init__(self) -> None:
        least = {
            "lat_channels": 1,
            "blanket": 2,
            "channels": 1,
            "blocks": 1,
            "heads": 1,
            "autoencoder_steps": 1,
            "denoiser_steps": 1,
            "batch": 1,
        }
        good = {name: _whole(getattr(self, name), value) for name, value in least.items()}
        for name in ("hid_channels", "hid_blocks", "patch_size"):
            values = getattr(self, name)
            good[name] = isinstance(values, (tuple, list)) and len(values) > 0
            good[name] = good[name] and all(_whole(value, 0) for value in values)
        good["latent_noise"] = _between(self.latent_noise, 0, 10)
        good["learning_rate"] = _between(self.learning_rate, 1e-12, 1)
        good["held_out"] = _between(self.held_out, 0, 0.9)
        check_settings(
            self,
            good,
            what="the training",
            where="xappa.AppaTraining",
            expected="whole numbers of 1 or more (blanket: 2), tuples of them, latent_noise"
            " from 0 to 10, a positive learning_rate, held_out from 0 to 0.9",
        )


def train(
    ds: xr.Dataset,
    config: AppaTraining | None = None,
    *,
    variables: list[str] | None = None,
    seed: int | None = 0,
    name: str = "appa",
    progress: bool | None = None,
) -> AppaModel:
    """Train a latent diffusion prior on a Dataset.

    Parameters
    ----------
    ds
        Training data: complete states, at regular times but for gaps; they are held in memory.
    config
        Sizes and steps; by default small ones, for minutes on two cores.
    variables
        Names of the variables to use; all gridded ones by default.
    seed
        Of the first weights, the batches and the noise; None draws one, which is recorded.
    name
        The model's name.
    progress
        Whether progress bars are shown; None follows ``xappa.set_options(progress=...)``.

    Returns
    -------
    AppaModel
        A bundle: it can be saved, opened, printed and used like any other.

    Raises
    ------
    ArgumentError
        If ``config`` or ``seed`` is not usable.
    DataError
        If values are missing at some times but not at others, or too few states follow each other.
    CoordinateError, UnitsError
        If the Dataset's metadata cannot be understood.

    References
    ----------
    Andry et al. (2025), arXiv:2504.18720.
    """
    config = AppaTraining() if config is None else config
    if not isinstance(config, AppaTraining):
        raise ArgumentError(
            "config is no configuration",
            where="config=",
            expected="xappa.AppaTraining(...), or None for small sizes",
            got=type(config).__name__,
            remedy="write for example xappa.AppaTraining(denoiser_steps=5000)",
        )
    seed = seed_of(seed)
    spec, axes = describe(ds, variables=variables)
    for guess in axes.guesses:
        warn(guess, GuessWarning)
    data = TrainingData.read(ds, spec, config.held_out, config.blanket)
    device = chosen_device()
    # Layers draw their first weights from torch's own generator, which is left as it was.
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type="cuda"):
        torch.manual_seed(seed)
        encoder = _autoencoder(data, config)
        network = LatentTransformer(_transformer(encoder.config, config))
    autoencoder = _fit_autoencoder(encoder.to(device), data, config, seed, progress)
    latents, mean, std = _latents(autoencoder, data, config)
    cells = latents.shape[-1] // len(std)
    noisy = torch.as_tensor(np.tile(config.latent_noise / std, cells)).float().to(device)
    parts = ("year", "day") if data.span >= _YEAR else ("day",)
    dates = torch.as_tensor(date_features(data.seconds, spec.calendar, parts)).float().to(device)
    denoiser = _fit_denoiser(
        network.to(device), latents, noisy, dates, data, config, seed, progress
    )
    model = AppaModel(
        spec,
        autoencoder,
        denoiser,
        config.schedule,
        Normalisation(data.mean, data.std, mean, std, 0 * data.std, data.missing),
        parts,
        name=name,
        provenance={
            "method": "xappa.train",
            "states": int(data.states.shape[0] * data.states.shape[1]),
            "period": [str(t)[:16] for t in from_seconds(data.seconds[[0, -1]], spec.calendar)],
            "seed": seed,
            **asdict(config),
        },
    )
    lost = reconstruction_error(model, data.held_out())
    return remember(model.with_normalisation(reconstruction=lost))  # type: ignore[return-value]


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


# Stages -------------------------------------------------------------------------------------------


def _autoencoder(data: TrainingData, config: AppaTraining) -> ConvAutoencoder:
    rows, columns = data.spec.grid.shape
    factor = 2 ** (len(config.hid_channels) - 1)
    periodic = "periodic" if columns % factor == 0 else "periodic-input"
    return ConvAutoencoder(
        AutoencoderConfig(
            (rows, columns),
            data.spec.n_channels,
            config.lat_channels,
            config.hid_channels,
            config.hid_blocks,
            boundary=periodic if data.spec.grid.is_periodic else "edge",
            latent_noise=config.latent_noise,
        )
    )


def _transformer(encoder: AutoencoderConfig, config: AppaTraining) -> TransformerConfig:
    return TransformerConfig(
        encoder.latent_shape,
        config.blanket,
        config.channels,
        config.blocks,
        config.heads,
        mod_features=config.channels // 2,
        patch_size=config.patch_size,
        window_wraps=(False, False, encoder.boundary != "edge"),
    )


def _fit(
    module: Network,
    loss: Callable[[], Tensor],
    steps: int,
    config: AppaTraining,
    progress: bool | None,
    what: str,
) -> Network:
    """Minimise a loss that draws its own batches; return the averaged network."""
    optimiser = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
    warmup = max(1, steps // 20)

    def rate(step: int) -> float:
        return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    decay = 1 - 1 / max(10, steps // 20)
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
    module.train()
    bar = progress_bar(progress, what)
    rounds: Any = range(steps) if bar is None else bar(range(steps))
    for _ in rounds:
        value = loss()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(module)
        if bar is not None:
            rounds.set_postfix(loss=f"{float(value.detach()):.3g}")
    return cast(Network, average.module.eval())


def _fit_autoencoder(
    module: ConvAutoencoder,
    data: TrainingData,
    config: AppaTraining,
    seed: int,
    progress: bool | None,
) -> ConvAutoencoder:
    device = next(module.parameters()).device
    area = torch.as_tensor(data.spec.grid.area_weights(), dtype=torch.float32, device=device)
    area = area / area.mean()
    flat = data.states[:, : data.kept].flatten(0, 1)
    rng = generator(seed, "train autoencoder")

    def loss() -> Tensor:
        x = flat[torch.as_tensor(rng.integers(len(flat), size=config.batch))].to(device)
        z = module.encode(x)
        noise = torch.as_tensor(rng.standard_normal(z.shape), dtype=z.dtype, device=device)
        out = module.decode(z + config.latent_noise * noise)
        return ((out - x).square() * area).mean()

    return _fit(module, loss, config.autoencoder_steps, config, progress, "autoencoder")


@torch.no_grad()
def _latents(
    module: ConvAutoencoder, data: TrainingData, config: AppaTraining
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Return standardised latents (B, T, h w c) and their means and standard deviations (c)."""
    device = next(module.parameters()).device
    parts = [
        module.encode(part.to(device)).movedim(1, -1)
        for part in data.states[:, : data.kept].flatten(0, 1).split(64)
    ]
    z = torch.cat(parts)
    mean = z.mean((0, 1, 2))
    std = (z.var((0, 1, 2)) + config.latent_noise**2).sqrt()
    latents = ((z - mean) / std).flatten(1).unflatten(0, (data.states.shape[0], -1))
    return latents, mean.double().cpu().numpy(), std.double().cpu().numpy()


def _fit_denoiser(
    module: LatentTransformer,
    latents: Tensor,
    latent_noise: Tensor,
    dates: Tensor,
    data: TrainingData,
    config: AppaTraining,
    seed: int,
    progress: bool | None,
) -> LatentTransformer:
    device = next(module.parameters()).device
    schedule = schedule_of(*config.schedule)
    starts = data.starts(config.blanket)
    rng = generator(seed, "train denoiser")
    denoiser = BlanketDenoiser(module, schedule)

    def loss() -> Tensor:
        member = torch.as_tensor(rng.integers(latents.shape[0], size=config.batch))
        first = starts[rng.integers(len(starts), size=config.batch)]
        index = torch.as_tensor(first[:, None] + np.arange(config.blanket))
        x = latents[member[:, None].to(device), index.to(device)]
        kick = torch.as_tensor(rng.standard_normal(x.shape), dtype=x.dtype, device=device)
        x = x + latent_noise * kick  # what the latents' standard deviation counts with
        _, sigma = schedule(torch.as_tensor(rng.uniform(size=config.batch)))
        noise = torch.as_tensor(rng.standard_normal(x.shape), dtype=x.dtype, device=device)
        levels = sigma.to(x)
        out = denoiser.at(x + levels[:, None, None] * noise, levels, dates[index.to(device)])
        error = (out - x).square().mean((1, 2))
        weighted: Tensor = error * (1 / levels**2 + 1)
        return weighted.mean()

    return _fit(module, loss, config.denoiser_steps, config, progress, "denoiser")
