"""What a downscaling model is trained with: one frozen dataclass, and presets of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from xappa.models.corrdiff.scaling import TRANSFORMS
from xappa.nn.unet import POSITIONS
from xappa.training.settings import TrainingSettings, between, whole, wholes

__all__ = ["DownscalingTraining"]

#: What differs from the defaults. "mini" and "paper" are the sizes of `xappa.nn.unet.PRESETS`.
_PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "tiny": MappingProxyType({}),
        "mini": MappingProxyType(
            {
                "hid_channels": 64,
                "multipliers": (1, 2, 2),
                "hid_blocks": 2,
                "mod_features": 256,
                "mean_steps": 5_000,
                "diffusion_steps": 20_000,
                "learning_rate": 5e-4,
            }
        ),
        "paper": MappingProxyType(
            {
                "hid_channels": 128,
                "multipliers": (1, 2, 2, 2, 2),
                "hid_blocks": 4,
                "mod_features": 512,
                "mean_steps": 60_000,
                "diffusion_steps": 400_000,
                "batch": 64,
                "learning_rate": 2e-4,
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


@dataclass(frozen=True)
class DownscalingTraining(TrainingSettings):
    """Sizes of a downscaling model, and how it is trained.

    Parameters
    ----------
    hid_channels, multipliers, hid_blocks, attention, attention_heads, mod_features, dropout,\
 positions
        Of both U-Nets, see `xappa.nn.unet.UNetConfig`.
    mean_steps, diffusion_steps
        Gradient steps of the regression, and of the diffusion model.
    folds
        Parts of the training times. For each a regression is trained on the others, and its
        residuals there are what the diffusion model learns: those of states that a regression was
        trained on are too small. 0 takes these all the same, where data abound. What comes out has
        a regression of its own, trained on all times.
    P_mean, P_std
        Mean and standard deviation of the logarithm of noise levels in training.
    patch
        Rows and columns of patches, for domains that do not fit; None for the whole domain.
    overlap, boundary
        Places that neighbouring patches share, and places at their sides that are context alone.
    transforms
        By variable, a key of `xappa.models.corrdiff.scaling.TRANSFORMS`; by default the root of
        precipitation.
    calibrate
        Members that calibration draws on the data that were set aside; 0 for none.
    **others
        See `xappa.training.settings.TrainingSettings`.

    Raises
    ------
    ArgumentError
        If a value cannot be.
    """

    hid_channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    hid_blocks: int = 1
    attention: tuple[int, ...] = (-1,)
    attention_heads: int = 4
    mod_features: int = 128
    dropout: float = 0.0
    positions: str = "sines"
    mean_steps: int = 800
    diffusion_steps: int = 2000
    folds: int = 2
    P_mean: float = 0.0
    P_std: float = 1.2
    patch: tuple[int, int] | None = None
    overlap: int = 4
    boundary: int = 2
    transforms: Mapping[str, str] = field(default_factory=dict)
    calibrate: int = 8

    presets = _PRESETS
    expected = (
        "whole numbers of 1 or more (folds and calibrate: 0, or 2 and more; overlap, boundary: 0), "
        "a dropout from 0 to below 1, a positive P_std, a patch of two whole numbers; "
        f"positions one of {', '.join(POSITIONS)}; transforms by variable, each one of "
        f"{', '.join(TRANSFORMS)}"
    )

    def defining_of(self, stage: str) -> dict[str, Any]:
        """Return what determines the weights of a stage: regressions know nothing of diffusion."""
        kept = self.defining
        del kept["calibrate"]
        if stage != "diffusion":
            kept = {
                k: v for k, v in kept.items() if k not in ("diffusion_steps", "P_mean", "P_std")
            }
        return kept

    def _checks(self) -> dict[str, bool]:
        names = ("hid_channels", "hid_blocks", "attention_heads", "mod_features")
        good = {name: whole(getattr(self, name)) for name in (*names, "mean_steps")}
        return good | {
            "diffusion_steps": whole(self.diffusion_steps),
            "multipliers": wholes(self.multipliers, least=1),
            "attention": isinstance(self.attention, (tuple, list)),
            "dropout": between(self.dropout, 0, 1) and self.dropout < 1,
            "positions": self.positions in POSITIONS,
            "folds": whole(self.folds, 0) and self.folds != 1,
            "P_mean": between(self.P_mean, -20, 20),
            "P_std": between(self.P_std, 1e-6, 20),
            "patch": self.patch is None or wholes(self.patch, 2, 1),
            "overlap": whole(self.overlap, 0),
            "boundary": whole(self.boundary, 0),
            "transforms": isinstance(self.transforms, Mapping)
            and all(name in TRANSFORMS for name in self.transforms.values()),
            "calibrate": whole(self.calibrate, 0) and self.calibrate != 1,
        }
