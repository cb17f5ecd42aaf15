"""The conditional U-Net: shapes, boundaries, what its output depends on, and memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from xappa.diffusion.edm import EDMDenoiser
from xappa.errors import ArgumentError
from xappa.nn.unet import UNet, UNetConfig
from xappa.nn.unet_blocks import Places, continued, coordinates

TINY = UNetConfig(
    in_channels=2,
    out_channels=3,
    condition_channels=1,
    labels=4,
    hid_channels=8,
    multipliers=(1, 2, 2),
    hid_blocks=1,
    attention_heads=2,
    mod_features=8,
    position_features=4,
)


def perturbed(config: UNetConfig) -> UNet:
    """A network none of whose weights are zero, in float64."""
    torch.manual_seed(0)
    network = UNet(config).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(height: int = 8, width: int = 12, batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "x": torch.randn(batch, 2, height, width, dtype=torch.float64),
        "level": torch.linspace(-1, 1, batch, dtype=torch.float64),
        "condition": torch.randn(batch, 1, height, width, dtype=torch.float64),
        "labels": torch.randn(batch, 4, dtype=torch.float64),
    }


def test_sizes_of_the_presets() -> None:
    with torch.device("meta"):
        paper = UNet(UNetConfig.preset("paper", 4, 4, condition_channels=16, labels=6))
        mini = UNet(UNetConfig.preset("mini", 4, 4, condition_channels=16))
    # So that a change of the architecture does not go unseen: 88.7 and 8.1 million parameters.
    assert sum(p.numel() for p in paper.parameters()) / 1e6 == pytest.approx(88.7, abs=0.1)
    assert sum(p.numel() for p in mini.parameters()) / 1e6 == pytest.approx(8.1, abs=0.1)
    assert (paper.stride, mini.stride) == (16, 4)
    assert paper.config.widths == (128, 256, 256, 256, 256)
    assert [paper.config.attends(i) for i in range(5)] == [False] * 4 + [True]
    x = torch.empty(2, 4, 448, 448, device="meta")
    known = torch.empty(2, 16, 448, 448, device="meta")
    level, labels = torch.empty(2, device="meta"), torch.empty(2, 6, device="meta")
    assert paper(x, level, known, labels).shape == x.shape


@pytest.mark.parametrize("boundary", ["edge", "periodic"])
@pytest.mark.parametrize("positions", ["none", "sines", "learned"])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 13), (1, 1), (2, 5)])
def test_fields_of_any_size(height, width, positions, boundary) -> None:
    network = perturbed(replace(TINY, positions=positions, boundary=boundary))
    out = network(**inputs(height, width))
    assert out.shape == (2, 3, height, width)
    assert bool(out.isfinite().all())


def test_fields_are_continued_by_reflection_or_go_round() -> None:
    x = torch.arange(5.0).reshape(1, 1, 1, 5)
    assert continued(x, 8, "edge")[0, 0, 0].tolist() == [1, 0, 1, 2, 3, 4, 3, 2]
    assert continued(x, 8, "periodic")[0, 0, 0].tolist() == [4, 0, 1, 2, 3, 4, 0, 1]
    # as often as it takes
    assert continued(x[..., :2], 8, "edge")[0, 0, 0].tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    assert continued(x[..., :4], 4, "edge").shape == (1, 1, 4, 4)


def test_coordinates_and_sines_meet_where_longitudes_go_round() -> None:
    place = coordinates(3, 4)
    torch.testing.assert_close(place[0, :, 0], torch.tensor([-2 / 3, 0, 2 / 3]))
    # A turn is from -1 to 1.
    seam = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    ends = torch.stack([0 * seam, seam])[None, :, None]
    for learned in (False, True):
        torch.manual_seed(0)
        joined = Places(8, "periodic", learned=learned).double()(ends).detach()
        torch.testing.assert_close(joined[..., 0], joined[..., 1])
        apart = Places(8, "edge", learned=learned).double()(ends).detach()
        assert float((apart[..., 0] - apart[..., 1]).abs().max()) > 0.1


@pytest.mark.parametrize("positions", ["none", "sines", "learned"])
def test_a_periodic_network_does_not_know_where_longitudes_begin(positions) -> None:
    network = perturbed(replace(TINY, positions=positions, boundary="periodic"))
    given = inputs(8, 16)
    place = coordinates(8, 16).double()
    step = network.stride
    rolled = {k: v.roll(step, -1) if v.ndim == 4 else v for k, v in given.items()}
    out = network(**given, positions=place).detach()
    shifted = network(**rolled, positions=place.roll(step, -1))
    torch.testing.assert_close(shifted, out.roll(step, -1), rtol=1e-10, atol=1e-10)
    assert float((out - out.roll(step, -1)).abs().max()) > 1e-3
    torch.testing.assert_close(network(**given), out)


def test_fields_of_a_batch_do_not_know_each_other() -> None:
    network, given = perturbed(TINY), inputs(batch=3)
    together = network(**given)
    alone = [network(**{k: v[i : i + 1] for k, v in given.items()}) for i in range(3)]
    # Batched products round differently; nothing else may differ.
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("positions", ["sines", "learned"])
def test_gradients_reach_all_parameters(positions) -> None:
    network = perturbed(replace(TINY, positions=positions))
    given = inputs(33, 33)  # more places than are learned, so that all of those are seen
    for level in (given["level"], None):  # regression trains all of them, too
        network.zero_grad()
        network(**{**given, "level": level}).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            if name == "level_proj.weight" and level is None:
                continue  # the sines of a level of 0 are 0
            spread = parameter.grad.abs().flatten(1).amax(-1) if parameter.ndim > 1 else None
            assert float(parameter.grad.abs().max()) > 0, name
            assert spread is None or bool((spread > 0).all()), name


@pytest.mark.parametrize("name", ["x", "level", "condition", "labels"])
def test_the_output_depends_on_all_that_is_told(name) -> None:
    network, given = perturbed(TINY), inputs()
    out = network(**given).detach()
    changed = network(**{**given, name: given[name] + 0.5}).detach()
    assert float((changed - out).abs().amax(dim=(1, 2, 3)).min()) > 1e-4
    moved = network(**given, positions=0.5 * coordinates(8, 12)).detach()
    assert float((moved - out).abs().max()) > 1e-4


def test_at_first_nothing_is_predicted() -> None:
    network = UNet(TINY)
    out = network(**{k: v.float() for k, v in inputs().items()})
    assert float(out.detach().abs().max()) == 0


def test_checkpointing_changes_memory_alone() -> None:
    network, given = perturbed(TINY), inputs()
    gradients = []
    for checkpointing in (False, True):
        network.checkpointing = checkpointing
        out = network(**given).square().sum()
        gradients.append(torch.autograd.grad(out, list(network.parameters())))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (32, 32)),
        ({"attention": ()}, (32, 32)),
        ({"multipliers": (1, 2, 2, 2, 2), "hid_blocks": 4, "boundary": "periodic"}, (64, 32)),
        ({"attention": (0, 1, 2)}, (16, 16)),
        ({}, (30, 31)),
    ],
)
def test_the_estimate_of_memory(changes, size) -> None:
    config = UNetConfig(4, 4, **{"hid_channels": 16, "multipliers": (1, 2, 2), **changes})
    network = UNet(config)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(a: torch.Tensor) -> torch.Tensor:
        if a.untyped_storage().data_ptr() not in own:
            kept[a.untyped_storage().data_ptr()] = a
        return a

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda a: a):
        network(torch.randn(1, 4, *size), torch.zeros(1))
    measured = sum(a.untyped_storage().nbytes() for a in kept.values())
    # About: batches are sized by it, and shrink if they do not fit.
    assert measured == pytest.approx(config.activation_bytes(*size), rel=0.15)


def test_the_denoiser_of_a_network() -> None:
    network = perturbed(replace(TINY, out_channels=2))
    given = inputs()
    denoiser = EDMDenoiser(network)
    sigma = (4 * given.pop("level")).exp()
    x = given.pop("x")
    place = coordinates(8, 12)
    out = denoiser.at(x, sigma, **given, positions=place)
    scale = (0.25 + sigma**2).rsqrt()[:, None, None, None]
    told = network(scale * x, sigma.log() / 4, **given)
    expected = 0.25 * scale**2 * x + 0.5 * sigma[:, None, None, None] * scale * told
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"in_channels": 0}, "bad in_channels"),
        ({"labels": -1}, "bad labels"),
        ({"hid_channels": 6}, r"bad hid_channels[\s\S]*hid_channels=6"),
        ({"multipliers": ()}, "bad multipliers"),
        ({"attention": (3,)}, r"bad attention[\s\S]*-3 to 2"),
        ({"attention_heads": 3}, "bad attention_heads"),
        ({"mod_features": 7}, "bad mod_features"),
        ({"dropout": 1.0}, "bad dropout"),
        ({"positions": "spline"}, r"bad positions[\s\S]*sines, learned"),
        ({"position_features": 6}, "bad position_features"),
        ({"boundary": "torus"}, r"bad boundary[\s\S]*edge, periodic"),
    ],
)
def test_networks_that_cannot_be(changes, match) -> None:
    with pytest.raises(ArgumentError, match=match):
        replace(TINY, **changes)


def test_presets_and_inputs_that_are_not_there() -> None:
    with pytest.raises(ArgumentError, match=r"no U-Net 'huge'[\s\S]*paper, mini"):
        UNetConfig.preset("huge", 1, 1)
    given = inputs()
    del given["labels"]
    with pytest.raises(ArgumentError, match=r"the condition and 4 labels[\s\S]*and 0 labels"):
        perturbed(TINY)(**given)
