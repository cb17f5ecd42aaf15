"""Names of the weights: those of the published checkpoints, and xappa's own.

Both directions are one to one, so that a checkpoint can be written again without loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from xappa.nn.autoencoder import AutoencoderConfig
from xappa.nn.transformer import TransformerConfig

__all__ = ["autoencoder_keys", "renamed", "transformer_keys"]

Value = TypeVar("Value")


def autoencoder_keys(config: AutoencoderConfig) -> dict[str, str]:
    """Return xappa's name of each weight of a published autoencoder."""
    keys: dict[str, str] = {}
    stages = len(config.hid_channels)

    def conv(theirs: str, ours: str) -> None:
        for part in ("weight", "bias"):
            keys[f"{theirs}.{part}"] = f"{ours}.{part}"

    def blocks(theirs: str, ours: str, stage: int, first: int) -> int:
        for k in range(config.hid_blocks[stage]):
            block, own = f"{theirs}.{first + k}", f"{ours}.{stage}.{k}"
            keys[f"{block}.norm.eps"] = f"{own}.norm.eps"
            conv(f"{block}.ffn.0", f"{own}.first")
            conv(f"{block}.ffn.3", f"{own}.second")
        return first + config.hid_blocks[stage]

    for i in range(stages):
        stage = f"encoder.descent.{i}"
        if i == 0:
            conv(f"{stage}.0", "down.0")
        else:
            conv(f"{stage}.0.1" if config.pixel_shuffle else f"{stage}.0", f"down.{i}.conv")
        after = blocks(stage, "encoder", i, 1)
        if i == stages - 1:
            conv(f"{stage}.{after}", "to_latent")
    for j, i in enumerate(reversed(range(stages))):
        stage = f"decoder.ascent.{j}"
        if j == 0:
            conv(f"{stage}.0", "from_latent")
        after = blocks(stage, "decoder", i, 1 if j == 0 else 0)
        if i == 0:
            conv(f"{stage}.{after}", "up.0")
        else:
            conv(f"{stage}.{after}.{0 if config.pixel_shuffle else 1}", f"up.{i}.conv")
    return keys


def transformer_keys(config: TransformerConfig) -> dict[str, str]:
    """Return xappa's name of each weight of a published transformer."""
    keys = {
        "positional_embedding.0.freqs": "position.freqs",
        "diffusion_time_encoder.freqs": "noise_encoding.freqs",
    }

    def dense(theirs: str, ours: str, *parts: str) -> None:
        for part in parts or ("weight", "bias"):
            keys[f"{theirs}.{part}"] = f"{ours}.{part}"

    dense("in_proj", "in_proj")
    dense("out_proj", "out_proj")
    dense("positional_embedding.2", "position_proj")
    for k in range(config.hid_blocks):
        block = f"blocks.{k}"
        if config.rope:
            keys[f"{block}.theta"] = f"{block}.theta"
        dense(f"{block}.ada_zero.0", f"{block}.modulation.0")
        dense(f"{block}.ada_zero.2", f"{block}.modulation.2")
        dense(f"{block}.msa.qkv_proj", f"{block}.attention.qkv", "weight")
        dense(f"{block}.msa.y_proj", f"{block}.attention.out")
        dense(f"{block}.ffn.0", f"{block}.ffn.0")
        dense(f"{block}.ffn.3", f"{block}.ffn.3")
    return keys


def renamed(values: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    """Return values under other names; all names must be there, and no others."""
    return {names[key]: value for key, value in values.items()}
