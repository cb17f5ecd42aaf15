"""The networks of Appa: sizes, shapes, boundaries and what attention may see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from xappa.errors import ArgumentError
from xappa.models.appa.era5 import ERA5_STATE, era5_spec
from xappa.models.appa.model import AppaModel
from xappa.models.appa.normalisation import Normalisation
from xappa.nn.autoencoder import BOUNDARIES, AutoencoderConfig, ConvAutoencoder
from xappa.nn.layers import blocks_to_channels, channels_to_blocks
from xappa.nn.transformer import LatentTransformer, TransformerConfig

CAE_F32 = AutoencoderConfig(
    shape=(721, 1440),
    in_channels=71,
    lat_channels=64,
    hid_channels=(64, 128, 256, 512, 768, 1024),
    hid_blocks=(3, 3, 3, 3, 3, 3),
    boundary="periodic-input",
)
VIT_LARGE = TransformerConfig(latent_shape=(23, 47, 64), blanket_size=24)


def count(network: torch.nn.Module) -> float:
    """Millions of trained parameters."""
    return sum(p.numel() for p in network.parameters()) / 1e6


def on_meta(kind, config) -> torch.nn.Module:
    with torch.device("meta"):
        return kind(config)


def test_sizes_of_the_published_models() -> None:
    assert CAE_F32.latent_shape == (23, 47, 64)
    # As the authors' own code counts them: 313.2 and 223.0 million.
    assert count(on_meta(ConvAutoencoder, CAE_F32)) == 313.174727
    assert count(on_meta(LatentTransformer, VIT_LARGE)) == 222.951552


def test_the_published_models_say_their_sizes() -> None:
    """A model of shapes without values has a summary, with the parameters of each part."""
    with torch.device("meta"):
        autoencoder, network = ConvAutoencoder(CAE_F32), LatentTransformer(VIT_LARGE)
    one = np.ones((71, 1, 1))
    model = AppaModel(
        era5_spec((721, 1440), ERA5_STATE[71], 3600.0),
        autoencoder,
        network,
        ("rectified", 1e-3, 1e3),
        Normalisation(0 * one, one, np.zeros(64), np.ones(64), 0 * one),
        name="appa",
    )
    text = model.summary()
    assert "536,126,279" in text
    assert "autoencoder 313,174,727" in text
    assert "denoiser 222,951,552" in text
    assert "721 x 1440" in text
    assert "hash" not in text


def test_shapes_of_the_published_models() -> None:
    autoencoder = on_meta(ConvAutoencoder, CAE_F32)
    z = autoencoder.encode(torch.empty(1, 71, 721, 1440, device="meta"))
    assert z.shape == (1, 64, 23, 47)
    assert autoencoder.decode(z).shape == (1, 71, 721, 1440)
    network = on_meta(LatentTransformer, VIT_LARGE)
    x = torch.empty(2, 24, 23 * 47 * 64, device="meta")
    level, dates = torch.empty(2, device="meta"), torch.empty(2, 24, 4, device="meta")
    assert network(x, level, dates).shape == x.shape


def test_sizes_of_the_first_paper() -> None:
    """1.5 billion parameters: an autoencoder of 500 million and a transformer of a billion."""
    wide = replace(CAE_F32, hid_channels=(96, 192, 384, 640, 960, 1280), lat_channels=64)
    deep = replace(VIT_LARGE, hid_channels=2048, hid_blocks=19, attention_heads=16)
    assert count(on_meta(ConvAutoencoder, wide)) == pytest.approx(500, rel=0.05)
    assert count(on_meta(LatentTransformer, deep)) == pytest.approx(1000, rel=0.05)


@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 2)])
def test_folding_blocks_into_channels(block) -> None:
    x = torch.randn(2, 5, 6, 12)
    folded = blocks_to_channels(x, block)
    assert folded.shape == (2, 5 * block[0] * block[1], 6 // block[0], 12 // block[1])
    assert torch.equal(channels_to_blocks(folded, block), x)
    # The first channels are the block of the first one.
    assert torch.equal(folded[:, 0], x[:, 0, :: block[0], :: block[1]])


def small(**changes) -> AutoencoderConfig:
    given = {
        "shape": (9, 16),
        "in_channels": 3,
        "lat_channels": 4,
        "hid_channels": (8, 12),
        "hid_blocks": (1, 1),
    }
    return AutoencoderConfig(**{**given, **changes})


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pixel_shuffle": False},
        {"patch_size": (1, 2)},
        {"shape": (8, 16), "hid_channels": (6, 8, 8), "hid_blocks": (1, 0, 2)},
        {"shape": (13, 19)},
    ],
)
def test_states_come_back_in_their_shape(boundary, changes) -> None:
    if boundary == "periodic" and changes.get("shape", (9, 16))[1] % 4:
        with pytest.raises(ArgumentError, match=r"bad shape[\s\S]*periodic-input"):
            small(boundary=boundary, **changes)
        return
    config = small(boundary=boundary, **changes)
    autoencoder = ConvAutoencoder(config).eval()
    x = torch.randn(2, 3, *config.shape)
    z = autoencoder.encode(x)
    assert z.shape[1:] == (config.latent_shape[2], *config.latent_shape[:2])
    assert autoencoder.decode(z).shape == x.shape
    assert z.abs().max() < config.saturation_bound
    padded = autoencoder.pad(x)
    assert torch.equal(autoencoder.unpad(padded), x)
    assert padded.shape[-2] % config.resize[0] == padded.shape[-1] % config.resize[1] == 0


def test_a_periodic_autoencoder_does_not_know_where_longitudes_begin() -> None:
    config = small(shape=(8, 16), boundary="periodic")
    autoencoder = ConvAutoencoder(config).eval().double()
    for parameter in autoencoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 3, 8, 16, dtype=torch.float64)
    z = autoencoder.encode(x)
    step = config.resize[1]
    torch.testing.assert_close(autoencoder.encode(x.roll(3 * step, -1)), z.roll(3, -1))
    torch.testing.assert_close(
        autoencoder.decode(z.roll(3, -1)), autoencoder.decode(z).roll(3 * step, -1)
    )


def test_checkpointing_changes_memory_alone() -> None:
    torch.manual_seed(0)
    autoencoder = ConvAutoencoder(small()).eval()
    x = torch.randn(2, 3, 9, 16, requires_grad=True)
    gradients = []
    for checkpointing in (False, True):
        autoencoder.checkpointing = checkpointing
        out = autoencoder.decode(autoencoder.encode(x)).square().sum()
        gradients.append(torch.autograd.grad(out, x)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("wraps", [(False, False, False), (False, False, True)])
def test_attention_windows(wraps) -> None:
    config = TransformerConfig(
        latent_shape=(4, 6, 2),
        blanket_size=4,
        hid_channels=16,
        hid_blocks=1,
        attention_heads=2,
        mod_features=8,
        window_size=(3, 3, 3),
        window_wraps=wraps,
    )
    mask = LatentTransformer(config)._mask(torch.device("cpu")).unflatten(0, (2, 4, 6))
    mask = mask.unflatten(-1, (2, 4, 6))
    assert mask[0, 0, 0, 1, 1, 1]
    assert not mask[0, 0, 0, 0, 3, 0]  # latitudes end
    assert bool(mask[0, 0, 0, 0, 0, 5]) is wraps[2]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"patch_size": (2, 3, 1)}, "bad patch_size"),
        ({"attention_heads": 3}, "bad attention_heads"),
        ({"mod_features": 3}, "bad mod_features"),
    ],
)
def test_transformers_that_cannot_be(changes, match) -> None:
    with pytest.raises(ArgumentError, match=match):
        TransformerConfig(**{"latent_shape": (4, 4, 2), "blanket_size": 4, **changes})


def test_autoencoders_that_cannot_be() -> None:
    for changes in ({"hid_blocks": (1,)}, {"saturation": "sigmoid"}, {"kernel_size": 4}):
        with pytest.raises(ArgumentError, match=f"bad {next(iter(changes))}"):
            small(**changes)
