"""Domains cut into patches: partition of unity, equality with the whole, bounded batches."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from azula.denoise import Denoiser, DiracPosterior
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d, pad

from xappa.diffusion.edm import EDMDenoiser
from xappa.diffusion.edm_sampler import EDMSampler
from xappa.diffusion.patches import WINDOWS, PatchedDenoiser, Patches
from xappa.diffusion.sampling import KarrasSchedule, draw_fields
from xappa.errors import ArgumentError
from xappa.nn.unet import UNet, UNetConfig
from xappa.nn.unet_blocks import coordinates


@st.composite
def cuts(draw) -> Patches:
    """Any legal cut of a domain of up to 20 x 20 places."""
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    size = tuple(draw(st.integers(1, n)) for n in shape)
    boundary = draw(st.integers(0, (min(size) - 1) // 2))
    overlap = draw(st.integers(0, min(size) - 2 * boundary - 1))
    return Patches(
        shape,
        size,
        overlap,
        boundary,
        wraps=draw(st.booleans()),
        window=draw(st.sampled_from(WINDOWS)),
    )


@given(cuts())
@settings(max_examples=150, deadline=None)
def test_fusing_what_was_cut_gives_it_back(patches) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *patches.shape)
    cut = patches.cut(x)
    assert cut.shape == (2 * len(patches), 3, *patches.size)
    # Weights add up to 1 in float64, and are rounded to float32: 6e-8 for each patch.
    torch.testing.assert_close(patches.fuse(cut), x, rtol=1e-6, atol=1e-6)
    double = x.double()
    torch.testing.assert_close(patches.fuse(patches.cut(double)), double, rtol=1e-13, atol=1e-13)


@given(cuts())
@settings(max_examples=60, deadline=None)
def test_neighbours_overlap_as_much_as_asked_for(patches) -> None:
    rows, columns = patches._axes
    for axis, starts in enumerate((rows, columns)):
        inner, whole = patches.inner[axis], patches.shape[axis]
        around = [*starts, starts[0] + whole] if patches.wraps and axis == 1 else starts
        shared = [a + inner - b for a, b in pairwise(around)]
        assert all(n >= patches.overlap for n in shared) or len(starts) == 1
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        if not (patches.wraps and axis == 1):
            assert starts[-1] + inner == whole


def test_weights_fall_towards_the_sides() -> None:
    patches = Patches((1, 10), (1, 6), overlap=0)
    assert patches.starts == ((0, 0), (0, 4))
    steps = torch.cat([torch.zeros(1, 1, 1, 6), torch.ones(1, 1, 1, 6)])
    # The last patch is moved back, and shares two places; without a wanted overlap, by halves.
    halves = [0, 0, 0, 0, 0.5, 0.5, 1, 1, 1, 1]
    assert patches.fuse(steps)[0, 0, 0].tolist() == halves
    smooth = replace(patches, overlap=2).fuse(steps)[0, 0, 0]
    # sin^2(pi / 8) and its complement, at a quarter and at three quarters of the overlap
    low = 0.1464466
    expected = torch.tensor([0, 0, 0, 0, low, 1 - low, 1, 1, 1, 1])
    torch.testing.assert_close(smooth, expected, rtol=0, atol=1e-6)
    average = replace(patches, overlap=2, window="average")
    assert average.fuse(steps)[0, 0, 0].tolist() == halves


def test_patches_are_continued_at_the_sides() -> None:
    x = torch.arange(6.0).expand(1, 1, 6, 6)
    patches = Patches((6, 6), (4, 4), overlap=0, boundary=1)
    assert patches.starts[:3] == ((-1, -1), (-1, 1), (-1, 3))
    rows = [p[0, 1].tolist() for p in patches.cut(x)]
    assert rows[:3] == [[1, 0, 1, 2], [1, 2, 3, 4], [3, 4, 5, 4]]
    # Where columns go round, what comes next is known.
    rows = [p[0, 1].tolist() for p in replace(patches, wraps=True).cut(x)]
    assert rows[:3] == [[5, 0, 1, 2], [1, 2, 3, 4], [3, 4, 5, 0]]


@pytest.mark.parametrize("wraps", [False, True])
def test_positions_are_those_of_the_domain(wraps) -> None:
    patches = Patches((6, 9), (4, 5), overlap=1, boundary=1, wraps=wraps)
    place = coordinates(6, 9)
    assert patches.positions.shape == (len(patches), 2, 4, 5)
    torch.testing.assert_close(patches.fuse(patches.positions)[0], place)
    r, c = patches.starts[1]
    assert float(patches.positions[1, 0, 1, 1]) == float(place[0, r + 1, c + 1])
    assert float(patches.positions[0, 1, 1, 0]) == float(place[1, 0, -1 if wraps else 1])


@pytest.mark.parametrize("wraps", [False, True])
def test_random_patches_for_training(wraps) -> None:
    patches = Patches((6, 9), (4, 5), overlap=0, boundary=1, wraps=wraps)
    # Every start in turn: midpoints of as many equal intervals as there are starts.
    down, along = 6 + 2 - 4 + 1, 9 if wraps else 9 + 2 - 5 + 1
    u = torch.cartesian_prod((torch.arange(down) + 0.5) / down, (torch.arange(along) + 0.5) / along)
    starts = patches.random_starts(u)
    expected = torch.cartesian_prod(torch.arange(down), torch.arange(along)) - 1
    assert torch.equal(starts, expected)
    x = torch.randn(len(u), 2, 6, 9)
    cut = patches.cut_at(x, starts)
    assert cut.shape == (len(u), 2, 4, 5)
    # The same patches as those of sampling, where both begin alike.
    place = patches.cut_at(coordinates(6, 9).expand(len(u), 2, 6, 9), starts)
    for n, start in enumerate(patches.starts):
        same = (starts == torch.tensor(start)).all(dim=1).nonzero()
        if len(same):
            assert torch.equal(place[same[0, 0]], patches.positions[n])
    assert int(patches.random_starts(torch.full((1, 2), 1 - 1e-7)).max()) == along - 2


class Local(Denoiser):
    """A nonlinear denoiser that sees two places far, and what it was called with."""

    def __init__(self, wraps: bool) -> None:
        super().__init__()
        self.schedule, self.wraps = KarrasSchedule(0.002, 800.0), wraps
        torch.manual_seed(0)
        self.kernel = torch.randn(2, 3, 5, 5, dtype=torch.float64) / 5
        self.rows: list[int] = []
        self.told: list[dict] = []

    def forward(self, x_t, t, condition=None, labels=None, **kwargs):
        self.rows.append(len(x_t))
        self.told.append({"condition": condition, "labels": labels, "t": t, **kwargs})
        x = torch.cat([x_t, condition[:, :1]], dim=1)
        x = pad(x, (0, 0, 2, 2), mode="reflect")
        x = pad(x, (2, 2, 0, 0), mode="circular" if self.wraps else "reflect")
        level = self.schedule(t)[1].reshape(-1, 1, 1, 1)
        drift = labels.sum(dim=1)[:, None, None, None]
        return DiracPosterior(mean=torch.tanh(conv2d(x, self.kernel)) / (1 + level) + drift)


def fields(height: int, width: int, batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "x_t": torch.randn(batch, 2, height, width, dtype=torch.float64),
        "condition": torch.randn(batch, 2, height, width, dtype=torch.float64),
        "labels": torch.randn(batch, 3, dtype=torch.float64),
    }


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("overlap", [0, 3])
@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_local_denoisers_are_the_same_by_patches(batch, overlap, wraps) -> None:
    denoiser, given = Local(wraps), fields(17, 22)
    t = torch.tensor([0.3, 0.5], dtype=torch.float64)
    whole = denoiser(t=t, **given).mean
    patches = Patches((17, 22), (9, 12), overlap, boundary=2, wraps=wraps)
    denoiser.rows.clear()
    patched = PatchedDenoiser(denoiser, patches, batch=batch)(t=t, **given).mean
    # All within a patch's boundary is context: what is left is rounding.
    torch.testing.assert_close(patched, whole, rtol=1e-12, atol=1e-12)
    assert max(denoiser.rows) <= batch
    assert sum(denoiser.rows) == 2 * len(patches)


def test_patches_are_told_of_the_whole() -> None:
    denoiser, given = Local(False), fields(8, 12)
    patches = Patches((8, 12), (4, 6), overlap=0)
    t = torch.tensor(0.4, dtype=torch.float64)
    PatchedDenoiser(denoiser, patches, batch=100)(t=t, **given)
    (told,) = denoiser.told
    assert told["condition"].shape == (8, 4, 4, 6)
    torch.testing.assert_close(told["condition"][:, :2], patches.cut(given["condition"]))
    # A patch has as many places as the domain has blocks of two by two: their means.
    blocks = given["condition"].unflatten(-1, (6, 2)).unflatten(-3, (4, 2)).mean(dim=(-1, -3))
    torch.testing.assert_close(told["condition"][:, 2:], blocks.repeat_interleave(4, dim=0))
    torch.testing.assert_close(told["labels"], given["labels"].repeat_interleave(4, dim=0))
    torch.testing.assert_close(told["positions"].float(), patches.positions.repeat(2, 1, 1, 1))
    denoiser.told.clear()
    quiet = PatchedDenoiser(denoiser, patches, batch=100, overview=False, positions=False)
    quiet(t=t, **given)
    assert denoiser.told[0]["condition"].shape == (8, 2, 4, 6)
    assert "positions" not in denoiser.told[0]


def test_gradients_go_through_patches_and_their_batches() -> None:
    given, t = fields(9, 10), torch.tensor(0.4, dtype=torch.float64)
    x = given.pop("x_t").requires_grad_()
    denoiser = Local(False)
    patches = Patches((9, 10), (7, 7), overlap=1, boundary=2)
    v = torch.randn_like(x)
    gradients = []
    for each in (denoiser, *(PatchedDenoiser(denoiser, patches, batch=n) for n in (1000, 3))):
        mean = each(x, t, **given).mean
        # twice, as guidance does
        first = torch.autograd.grad(mean, x, v, retain_graph=True)[0]
        torch.testing.assert_close(torch.autograd.grad(mean, x, v)[0], first)
        gradients.append(first)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-12, atol=1e-12)


def test_sampling_a_domain_by_patches() -> None:
    """A local denoiser gives the same samples by patches as for the whole domain."""
    denoiser, known = Local(False), fields(12, 14)
    del known["x_t"]
    patches = Patches((12, 14), (8, 8), overlap=2, boundary=2)
    drawn = [
        draw_fields(
            EDMSampler(each, steps=5, S_churn=2.0, silent=True),
            (2, 12, 14),
            seed=0,
            members=[0, 1],
            times=[0.0, 0.0],
            like=torch.zeros((), dtype=torch.float64),
            **known,
        )
        for each in (denoiser, PatchedDenoiser(denoiser, patches, batch=3))
    ]
    # Five steps of rounding errors, the first of them of values of 800.
    torch.testing.assert_close(*drawn, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("learned", ["sines", "learned"])
def test_networks_by_patches(learned) -> None:
    config = UNetConfig(
        2, 2, condition_channels=4, labels=3, hid_channels=8, multipliers=(1, 2), hid_blocks=1,
        attention_heads=2, mod_features=8, positions=learned,
    )  # fmt: skip
    given = {k: v.float() for k, v in fields(13, 11).items()}
    denoiser = EDMDenoiser(UNet(config).eval())
    torch.nn.init.normal_(denoiser.network.out.weight)
    patched = PatchedDenoiser(denoiser, Patches((13, 11), (8, 6), overlap=2), batch=4)
    x, t = given.pop("x_t"), torch.tensor(0.4)
    with torch.no_grad():
        out = patched(x, t, **given).mean
    assert out.shape == x.shape
    assert bool(out.isfinite().all())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"size": (8, 17)}, r"patch is larger than the domain[\s\S]*size=\(8, 17\)"),
        ({"size": (8, 6), "multiple": 4}, r"bad size[\s\S]*stride 4"),
        ({"boundary": 4}, r"bad boundary[\s\S]*0 x 0 of 12 x 16 are left"),
        ({"overlap": 8}, r"bad overlap[\s\S]*overlap=8"),
        ({"overlap": 6, "boundary": 1}, "bad overlap"),
        ({"window": "hann"}, r"bad window[\s\S]*smooth, average"),
    ],
)
def test_cuts_that_cannot_be(changes, match) -> None:
    with pytest.raises(ArgumentError, match=match):
        Patches(**{"shape": (12, 16), "size": (8, 8), "overlap": 2, **changes})


def test_patches_that_a_network_cannot_take() -> None:
    denoiser = EDMDenoiser(UNet(UNetConfig(1, 1, hid_channels=8, mod_features=8)))
    with pytest.raises(ArgumentError, match=r"stride 16[\s\S]*patches of \(24, 16\)"):
        PatchedDenoiser(denoiser, Patches((32, 32), (24, 16), overlap=2))
    with pytest.raises(ArgumentError, match=r"batch >= 1[\s\S]*batch=0"):
        PatchedDenoiser(denoiser, Patches((32, 32), (16, 16), overlap=2), batch=0)
