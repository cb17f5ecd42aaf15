"""What a step does: rates, averages, clipping, precision, parts of a batch, reports."""

from __future__ import annotations

import math
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from training import TINY, log, weights

import xappa
from xappa.training import AppaTraining
from xappa.training.distributed import Processes
from xappa.training.log import Log
from xappa.training.loop import Run, Stage, fit
from xappa.training.optimisers import OPTIMISERS, averaged, optimiser_of, rate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=60)


class Line(nn.Module):
    """A line through the origin."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.slope * x - 3 * x).square().mean()


def line(steps: int, network: nn.Module) -> Stage:
    def batch(step: int, samples: range) -> tuple[torch.Tensor, ...]:
        return (torch.tensor([1.0 + ((step + sample) % 3) for sample in samples]),)

    return Stage("line", steps, network, network, batch, lambda net: {"slope": float(net.slope)})


def run(config: AppaTraining, **changes) -> Run:
    return Run(config, Processes(0, 1, CPU), 0, {}, None, Log(None), progress=False, **changes)


@pytest.mark.parametrize("optimiser", list(OPTIMISERS))
def test_every_optimiser_finds_the_slope(optimiser) -> None:
    config = AppaTraining(optimiser=optimiser, learning_rate=0.03, weight_decay=0.0, batch=4)
    found = fit(line(1000, Line()), run(config))
    assert float(found.slope.detach()) == pytest.approx(3, abs=0.02)


def test_rates_rise_and_fall() -> None:
    config = AppaTraining(learning_rate=2.0 / 4, warmup=0.1)
    rates = [rate(step, 100, config) for step in range(100)]
    np.testing.assert_allclose(rates[:9], 0.05 * np.arange(1, 10))
    assert np.argmax(rates) == 9
    assert rates[50] == pytest.approx(0.25)
    assert rates[-1] == pytest.approx(0.25 * (1 + math.cos(0.99 * math.pi)))
    linear, constant = (replace(config, decay=decay) for decay in ("linear", "constant"))
    assert rate(75, 100, linear) == pytest.approx(0.125)
    assert rate(75, 100, constant) == 0.5
    assert rate(0, 100, replace(config, warmup=0.0)) == 0.5


def test_the_average_forgets_at_its_rate() -> None:
    network = Line()
    average = averaged(network, 100, AppaTraining(ema=0.9))
    expected = None
    for value in (1.0, 2.0, 5.0):
        network.slope.data.fill_(value)
        average.update_parameters(network)
        expected = value if expected is None else 0.9 * expected + 0.1 * value
    assert float(average.module.slope.detach()) == pytest.approx(expected)
    last = averaged(network, 100, AppaTraining(ema=0.0))
    for value in (1.0, 7.0):
        network.slope.data.fill_(value)
        last.update_parameters(network)
    assert float(last.module.slope.detach()) == 7.0


def test_gradients_are_clipped() -> None:
    config = AppaTraining(
        optimiser="sgd", learning_rate=1.0, warmup=0.0, decay="constant", clip=0.5, ema=0.0
    )
    config = replace(config, weight_decay=0.0, batch=1, log_every=1)
    shared = run(config)
    found = fit(line(1, Line()), shared)
    assert float(found.slope.detach()) == pytest.approx(0.5)  # the gradient is -6
    norms = [value for _, _, name, value in shared.log.rows if name == "gradient_norm"]
    assert norms == [pytest.approx(6.0)]
    free = fit(line(1, Line()), run(replace(config, clip=0.0)))
    assert float(free.slope.detach()) == pytest.approx(6.0)


def test_parts_of_a_batch_make_the_same_step() -> None:
    config = AppaTraining(batch=12, learning_rate=0.1)
    one = fit(line(20, Line()), run(config))
    parts = fit(line(20, Line()), run(replace(config, accumulate=3)))
    torch.testing.assert_close(one.slope, parts.slope)


@pytest.mark.parametrize("change", [{"accumulate": 2}, {"recompute": True}])
def test_less_memory_gives_the_same_weights(weather, change) -> None:
    one = xappa.train(weather, TINY, progress=False)
    other = xappa.train(weather, replace(TINY, **change), progress=False)
    for (name, a), (_, b) in zip(weights(one).items(), weights(other).items(), strict=True):
        # sums in another order; Adam's first steps enlarge what rounding does to tiny gradients
        np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-3, err_msg=name)


def test_half_precision_learns_about_the_same(weather, tmp_path) -> None:
    for precision in ("float32", "bf16"):
        config = replace(TINY, precision=precision)
        model = xappa.train(weather, config, folder=tmp_path / precision, progress=False)
        assert all(value.dtype != np.float16 for value in weights(model).values())
    full, half = (log(tmp_path / precision) for precision in ("float32", "bf16"))
    assert not full.equals(half)
    # bf16 has three digits
    np.testing.assert_allclose(half["autoencoder"], full["autoencoder"], rtol=0.03)


def test_what_the_log_says(weather, tmp_path) -> None:
    config = replace(TINY, log_every=6)
    model = xappa.train(weather, config, folder=tmp_path, progress=False)
    header, *lines = (tmp_path / "log.csv").read_text().splitlines()
    assert header == "stage,step,name,value"
    assert all(line.count(",") == 3 for line in lines)
    # each sixth step, and before each checkpoint
    assert list(log(tmp_path)["autoencoder"].index) == [5, 6, 10, 12, 15, 18, 20, 24]
    assert (log(tmp_path, "samples_per_second") > 0).all()
    assert log(tmp_path, "waiting").between(0, 1).all()
    assert (log(tmp_path, "memory_gib") > 0.01).all()
    error = log(tmp_path, "reconstruction/t2m")["autoencoder"]
    assert list(error.index) == [12, 24]
    # the same error as the bundle's, which is of all states that were set aside, not of four
    assert error.loc[24] == pytest.approx(model.normalisation.reconstruction.item(), rel=0.2)
    assert model.scores["reconstruction"]["t2m"] == pytest.approx(error.loc[24])
    levels = model.scores["denoising"]
    assert list(levels) == [f"sigma={s:g}" for s in (0.01, 0.1, 1.0, 10.0, 100.0)]
    assert all(0.1 < value < 3 for value in levels.values())  # 1 knows mean and variance alone


def test_a_denoiser_of_independent_numbers_has_errors_of_one() -> None:
    from xappa.diffusion.blankets import BlanketDenoiser
    from xappa.diffusion.schedules import schedule_of
    from xappa.training.denoiser import _Objective

    class Nothing(nn.Module):
        def forward(self, x, level, dates):
            return torch.zeros_like(x)

    rng = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(64, 4, 100, generator=rng) for _ in range(2))
    objective = _Objective(BlanketDenoiser(Nothing(), schedule_of("rectified", 1e-3, 1e3)))
    for sigma in (0.1, 1.0, 10.0):
        errors = objective.errors(x, noise, torch.full((64,), sigma), torch.zeros(64, 4, 4))
        # 25600 numbers: the mean square is known to 1 %
        assert float(errors.mean()) == pytest.approx(1, abs=0.03)


def test_other_optimisers_train_a_prior(weather) -> None:
    model = xappa.train(weather, replace(TINY, optimiser="adafactor"), progress=False)
    assert model.provenance["optimiser"] == "adafactor"
    assert isinstance(optimiser_of(Line(), TINY), torch.optim.AdamW)


def test_a_progress_bar_says_the_loss(weather, capsys) -> None:
    xappa.train(weather, replace(TINY, autoencoder_steps=3, denoiser_steps=3), progress=True)
    said = capsys.readouterr().err
    assert "autoencoder" in said
    assert "loss=" in said


def test_tensorboard_is_told_where_it_is_installed(tmp_path, monkeypatch) -> None:
    told = []

    class Writer:
        def __init__(self, folder) -> None:
            told.append(folder.name)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def close(self) -> None:
            told.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr("xappa.training.log.find_spec", lambda name: name)
    report = Log(tmp_path)
    report.rewind({})
    report.write("denoiser", 3, {"loss": 0.5})
    report.close()
    assert told == ["tensorboard", ("denoiser/loss", 0.5, 3), "closed"]


def test_a_torn_log_is_mended(tmp_path) -> None:
    (tmp_path / "log.csv").write_text(
        "stage,step,name,value\nautoencoder,1,loss,2.0\nautoencoder,9,loss,1.0\nautoencoder,10,lo"
    )
    report = Log(tmp_path)
    report.rewind({"autoencoder": 5})
    assert report.rows == [("autoencoder", 1, "loss", 2.0)]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
