"""What a latent diffusion prior is trained with: one frozen dataclass, and presets of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from xappa.nn.autoencoder import SATURATIONS
from xappa.training.settings import TrainingSettings, between, whole, wholes

__all__ = ["AppaTraining"]

#: What differs from the defaults. The sizes of "appa" are those of the published models (a 313 M
#: autoencoder that keeps 64 numbers of 32 x 32 points, a 223 M transformer over 24 hours); steps
#: and rates are ours.
_PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": MappingProxyType({}),
        "small": MappingProxyType(
            {
                "hid_channels": (48, 96, 128, 160),
                "hid_blocks": (2, 2, 2, 2),
                "lat_channels": 16,
                "blanket": 12,
                "channels": 256,
                "blocks": 6,
                "autoencoder_steps": 10_000,
                "denoiser_steps": 20_000,
                "learning_rate": 5e-4,
            }
        ),
        "base": MappingProxyType(
            {
                "hid_channels": (64, 128, 256, 384, 512),
                "hid_blocks": (2, 2, 2, 2, 2),
                "lat_channels": 32,
                "blanket": 16,
                "channels": 768,
                "blocks": 12,
                "heads": 12,
                "mod_features": 256,
                "autoencoder_steps": 100_000,
                "denoiser_steps": 200_000,
                "batch": 32,
                "learning_rate": 2e-4,
                "precision": "bf16",
                "ema": 0.9995,
                "warmup": 0.01,
                "validate_every": 2000,
                "checkpoint_every": 1000,
            }
        ),
        "appa": MappingProxyType(
            {
                "hid_channels": (64, 128, 256, 512, 768, 1024),
                "hid_blocks": (3, 3, 3, 3, 3, 3),
                "lat_channels": 64,
                "blanket": 24,
                "channels": 1024,
                "blocks": 16,
                "heads": 8,
                "mod_features": 256,
                "autoencoder_steps": 200_000,
                "denoiser_steps": 400_000,
                "batch": 64,
                "learning_rate": 1e-4,
                "climatology": "channel",
                "level_weights": "pressure",
                "precision": "bf16",
                "recompute": True,
                "ema": 0.9999,
                "warmup": 0.01,
                "validate_every": 5000,
                "checkpoint_every": 1000,
            }
        ),
    }
)


_OF_DENOISER = {
    *("channels", "blocks", "heads", "patch_size", "modes", "schedule"),
    *("mod_features", "window", "denoiser_steps"),
}


@dataclass(frozen=True)
class AppaTraining(TrainingSettings):
    """Sizes of a latent diffusion prior, and how it is trained.

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
    modes
        Patterns of latents of a Gaussian that the denoiser departs from, so that it need not learn
        what is linear (`xappa.nn.gaussian`); 0 for one of unit variance.
    schedule
        Noise schedule, its least and its largest level.
    autoencoder_steps, denoiser_steps
        Gradient steps of each stage; 0 keeps what a training starts from, see `xappa.train`.
    saturation
        How latents are bounded: a key of `xappa.nn.autoencoder.SATURATIONS`.
    mod_features
        Features of the noise level in the transformer; None for half of its channels.
    window
        Tokens in time, latitude and longitude that a token attends to; None for all.
    climatology
        What is subtracted from states: the mean of each ``"point"``, or of each ``"channel"``.
    area_weights
        Whether the autoencoder's errors weigh by the area of their cells.
    level_weights
        ``"equal"``, or ``"pressure"``: the levels of a variable weigh by their value, so that the
        lower atmosphere counts most; their mean stays 1.
    variable_weights
        Weights of variables by name, 1 where not given.
    tendency_weights
        Whether channels weigh by the variance of their states over that of their changes from one
        state to the next, so that what changes slowly is learnt as sharply as what changes fast.
    pool
        Stretches of consecutive states that the autoencoder's batches are drawn from for a while,
        and states in each, so that a store on disk is read stretch by stretch; None draws from all
        states at any time. Of no use where the data fit into memory.
    **others
        See `xappa.training.settings.TrainingSettings`.

    Raises
    ------
    ArgumentError
        If a value cannot be.
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
    modes: int = 0
    schedule: tuple[str, float, float] = ("rectified", 1e-3, 1e3)
    autoencoder_steps: int = 800
    denoiser_steps: int = 1500
    saturation: str = "softclip2"
    mod_features: int | None = None
    window: tuple[int, int, int] | None = None
    climatology: str = "point"
    area_weights: bool = True
    level_weights: str = "equal"
    variable_weights: Mapping[str, float] = field(default_factory=dict)
    tendency_weights: bool = False
    pool: tuple[int, int] | None = None

    presets = _PRESETS
    can_start = True
    expected = (
        "whole numbers of 1 or more (blanket: 2; modes, steps: 0), tuples of them, latent_noise "
        "from 0 to 10; climatology 'point' or 'channel'; level_weights 'equal' or 'pressure'; "
        f"saturation one of {', '.join(SATURATIONS)}"
    )

    def defining_of(self, stage: str) -> dict[str, Any]:
        """Return what determines the weights of a stage: another denoiser may follow one."""
        if stage != "autoencoder":
            return self.defining
        return {k: v for k, v in self.defining.items() if k not in _OF_DENOISER}

    def _checks(self) -> dict[str, bool]:
        schedule, weights = self.schedule, self.variable_weights
        good = {
            name: whole(getattr(self, name))
            for name in ("lat_channels", "channels", "blocks", "heads")
        }
        return good | {
            "blanket": whole(self.blanket, 2),
            "modes": whole(self.modes, 0),
            "autoencoder_steps": whole(self.autoencoder_steps, 0),
            "denoiser_steps": whole(self.denoiser_steps, 0),
            "hid_channels": wholes(self.hid_channels),
            "hid_blocks": wholes(self.hid_blocks),
            "patch_size": wholes(self.patch_size, 3),
            "window": self.window is None or wholes(self.window, 3, 1),
            "pool": self.pool is None or wholes(self.pool, 2, 1),
            "mod_features": self.mod_features is None or whole(self.mod_features),
            "latent_noise": between(self.latent_noise, 0, 10),
            "schedule": isinstance(schedule, (tuple, list)) and len(schedule) == 3,
            "saturation": self.saturation in SATURATIONS,
            "climatology": self.climatology in ("point", "channel"),
            "level_weights": self.level_weights in ("equal", "pressure"),
            "variable_weights": isinstance(weights, Mapping)
            and all(between(weight, 0, 1e6) for weight in weights.values()),
            "area_weights": isinstance(self.area_weights, bool),
            "tendency_weights": isinstance(self.tendency_weights, bool),
        }
