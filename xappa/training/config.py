"""What is trained, and how long: one frozen dataclass, and presets of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from xappa.errors import ArgumentError, check_settings
from xappa.nn.autoencoder import SATURATIONS
from xappa.training.optimisers import DECAYS, OPTIMISERS

__all__ = ["PRESETS", "AppaTraining", "unknown_key"]


@dataclass(frozen=True)
class AppaTraining:
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
        Gradient steps of each stage.
    batch
        States, or blankets, in a step, over all processes.
    learning_rate
        The largest one, at the end of the warm-up.
    held_out
        Share of the data, its end, that is set aside.
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
    optimiser
        A key of `xappa.training.optimisers.OPTIMISERS`.
    weight_decay
        Of optimisers that know it.
    clip
        The largest norm of a step's gradient; 0 for any.
    warmup
        Share of the steps in which the learning rate rises.
    decay
        How it falls to zero thereafter: ``"cosine"``, ``"linear"``, or not: ``"constant"``.
    ema
        Decay of the moving average of the weights, which is what is kept; None for a memory of a
        twentieth of the steps, 0 for the last weights.
    accumulate
        Parts that a batch is computed in, one after another, where memory is short.
    recompute
        Whether activations are computed again for the gradient instead of kept.
    precision
        ``"float32"``, or ``"bf16"``: matrix products and convolutions in half precision.
    compile
        Whether ``torch.compile`` is used.
    pool
        Stretches of consecutive states that the autoencoder's batches are drawn from for a while,
        and states in each, so that a store on disk is read stretch by stretch; None draws from all
        states at any time. Of no use where the data fit into memory.
    memory
        GiB of states, or of latents, that may be held in memory; None for at most 4 and half of
        what is free.
    prefetch
        Batches that are made ahead of time.
    log_every, validate_every, checkpoint_every
        Steps from one to the next; 0 for none but at the end.
    validation_states
        States, or blankets, that validation looks at.

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
    batch: int = 16
    learning_rate: float = 1e-3
    held_out: float = 0.1
    saturation: str = "softclip2"
    mod_features: int | None = None
    window: tuple[int, int, int] | None = None
    climatology: str = "point"
    area_weights: bool = True
    level_weights: str = "equal"
    variable_weights: Mapping[str, float] = field(default_factory=dict)
    tendency_weights: bool = False
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: float = 0.05
    decay: str = "cosine"
    ema: float | None = None
    accumulate: int = 1
    recompute: bool = False
    precision: str = "float32"
    compile: bool = False
    pool: tuple[int, int] | None = None
    memory: float | None = None
    prefetch: int = 2
    log_every: int = 10
    validate_every: int = 500
    checkpoint_every: int = 500
    validation_states: int = 64

    def __post_init__(self) -> None:
        check_settings(
            self,
            {**_counts(self), **_numbers(self), **_choices(self)},
            what="the training",
            where="xappa.AppaTraining",
            expected=_EXPECTED,
        )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> AppaTraining:
        """Return a preset, with changes.

        Parameters
        ----------
        name
            One of `PRESETS`: ``"tiny"`` (minutes on two cores), ``"small"`` (hours there),
            ``"base"`` (one GPU), ``"appa"`` (the sizes of the published models).
        **changes
            Fields that are to differ.

        Raises
        ------
        ArgumentError
            If there is no such preset or no such field, or a value cannot be.

        Examples
        --------
        >>> AppaTraining.preset("small", blanket=12).blanket
        12
        """
        if name not in PRESETS:
            raise unknown_key(name, PRESETS, "the preset", "config=")
        known = [entry.name for entry in fields(cls)]
        for key in changes:
            if key not in known:
                raise unknown_key(key, known, "the setting", "xappa.AppaTraining")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in {**PRESETS[name], **changes}.items()
        }
        return cls(**values)

    @property
    def defining(self) -> dict[str, Any]:
        """The settings that determine the weights, JSON-able: those that a resume must share."""
        values = {k: v for k, v in asdict(self).items() if k not in _FREE}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


#: Settings that change neither the batches nor what is made of them.
_FREE = {
    "memory",
    "prefetch",
    "log_every",
    "validate_every",
    "checkpoint_every",
    "validation_states",
}
_EXPECTED = (
    "whole numbers of 1 or more (blanket: 2; modes, steps between reports: 0), tuples of them, "
    "latent_noise from 0 to 10, a positive learning_rate, held_out from 0 to 0.9, warmup from 0 "
    "to 1, ema from 0 to below 1, a clip and a weight_decay of 0 or more, a batch that accumulate "
    f"divides; climatology 'point' or 'channel'; level_weights 'equal' or 'pressure'; optimiser "
    f"one of {', '.join(OPTIMISERS)}; decay one of {', '.join(DECAYS)}; precision 'float32' or "
    f"'bf16'; saturation one of {', '.join(SATURATIONS)}"
)


def unknown_key(key: str, known: Iterable[str], what: str, where: str) -> ArgumentError:
    """Return the error that a name is not known, with the nearest one that is."""
    names = list(known)
    near = get_close_matches(key, names, 1, 0.5)
    return ArgumentError(
        f"{what} {key!r} is not known",
        where=where,
        expected=f"one of {', '.join(names)}",
        got=repr(key),
        remedy=f"write {near[0]!r}" if near else "leave it out, or correct it",
    )


def _whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _wholes(value: Any, count: int | None = None, least: int = 0) -> bool:
    good = isinstance(value, (tuple, list)) and len(value) == (count or len(value)) >= 1
    return good and all(_whole(entry, least) for entry in value)


def _counts(own: AppaTraining) -> dict[str, bool]:
    """Whether each of the whole numbers is good."""
    positive = [*("lat_channels", "channels", "blocks", "heads", "autoencoder_steps")]
    positive += ["denoiser_steps", "batch", "accumulate", "prefetch", "validation_states"]
    good = {name: _whole(getattr(own, name)) for name in positive}
    good["blanket"] = _whole(own.blanket, 2)
    for name in ("modes", "log_every", "validate_every", "checkpoint_every"):
        good[name] = _whole(getattr(own, name), 0)
    good["hid_channels"] = _wholes(own.hid_channels)
    good["hid_blocks"] = _wholes(own.hid_blocks)
    good["patch_size"] = _wholes(own.patch_size, 3)
    good["window"] = own.window is None or _wholes(own.window, 3, 1)
    good["pool"] = own.pool is None or _wholes(own.pool, 2, 1)
    good["mod_features"] = own.mod_features is None or _whole(own.mod_features)
    if good["batch"] and good["accumulate"]:
        good["accumulate"] = own.batch % own.accumulate == 0
    return good


def _numbers(own: AppaTraining) -> dict[str, bool]:
    """Whether each of the other numbers is good."""
    return {
        "latent_noise": _between(own.latent_noise, 0, 10),
        "learning_rate": _between(own.learning_rate, 1e-12, 1),
        "held_out": _between(own.held_out, 0, 0.9),
        "weight_decay": _between(own.weight_decay, 0, 10),
        "clip": _between(own.clip, 0, 1e12),
        "warmup": _between(own.warmup, 0, 1),
        "ema": own.ema is None or (_between(own.ema, 0, 1) and own.ema < 1),
        "memory": own.memory is None or _between(own.memory, 0, 1e9),
    }


def _choices(own: AppaTraining) -> dict[str, bool]:
    """Whether each of the names and switches is good."""
    schedule, weights = own.schedule, own.variable_weights
    return {
        "schedule": isinstance(schedule, (tuple, list)) and len(schedule) == 3,
        "saturation": own.saturation in SATURATIONS,
        "climatology": own.climatology in ("point", "channel"),
        "level_weights": own.level_weights in ("equal", "pressure"),
        "variable_weights": isinstance(weights, Mapping)
        and all(_between(weight, 0, 1e6) for weight in weights.values()),
        "optimiser": own.optimiser in OPTIMISERS,
        "decay": own.decay in DECAYS,
        "precision": own.precision in ("float32", "bf16"),
        **{
            name: isinstance(getattr(own, name), bool)
            for name in ("area_weights", "tendency_weights", "recompute", "compile")
        },
    }


#: What differs from the defaults. The sizes of "appa" are those of the published models (a 313 M
#: autoencoder that keeps 64 numbers of 32 x 32 points, a 223 M transformer over 24 hours); steps
#: and rates are ours.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
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
