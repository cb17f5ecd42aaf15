"""Building a downscaling model again from what a bundle holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from xappa.models.corrdiff.conditions import Cutting
from xappa.models.corrdiff.scaling import Scaling
from xappa.models.corrdiff.target import Target
from xappa.nn.unet import UNet, UNetConfig

__all__ = ["parts_of"]

Parts = tuple[Target, xr.Dataset, UNet, UNet, Scaling]


def parts_of(
    arguments: Mapping[str, Any], weights: Mapping[str, np.ndarray], statistics: xr.Dataset
) -> tuple[Parts, dict[str, Any]]:
    """Return the parts of a `CorrDiffModel` after its spec, and what it keeps by name.

    Parameters
    ----------
    arguments, weights, statistics
        See `xappa.models.base.Model.rebuild`.
    """
    statistics = statistics.drop_encoding()
    target = Target.rebuild(arguments["target"], statistics.coords.to_dataset())
    cutting = arguments["cutting"]
    if cutting is not None:
        cutting = Cutting(**{**cutting, "size": tuple(cutting["size"])})
    transforms = tuple(arguments["transforms"])
    parts = (
        target,
        statistics,
        _loaded(arguments["regression"], weights, "regression"),
        _loaded(arguments["network"], weights, "diffusion"),
        Scaling.from_arrays(weights, transforms, tuple(arguments["baseline"])),
    )
    return parts, {
        "label_parts": arguments["label_parts"],
        "cutting": cutting,
        "sampling": arguments["sampling"],
    }


def _loaded(config: Mapping[str, Any], weights: Mapping[str, np.ndarray], part: str) -> UNet:
    """Return a network with the weights of a bundle."""
    sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    network = UNet(UNetConfig(**sizes))
    own = {k: torch.tensor(v) for k, v in weights.items() if k.startswith(f"{part}.")}
    network.load_state_dict({k.removeprefix(f"{part}."): v for k, v in own.items()})
    return network
