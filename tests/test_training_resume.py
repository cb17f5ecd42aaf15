"""A training that is killed goes on to the same weights; what it saves is whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from training import TINY, log, weights

import xappa
from xappa.errors import ArgumentError, CheckpointError, TrainingError
from xappa.training import checkpoint
from xappa.training.loop import _Trainer


class KilledError(Exception):
    """What a kill is here."""


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=60)


@pytest.fixture(scope="module")
def whole(weather, tmp_path_factory):
    """A training that nobody interrupts, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return xappa.train(weather, TINY, seed=5, folder=folder, progress=False), folder


def same(model, other) -> None:
    for (name, a), (_, b) in zip(weights(model).items(), weights(other).items(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.fixture
def kill(monkeypatch):
    """Return a function that has a training killed before a step."""

    def at(stage: str, step: int) -> None:
        def dying(self, objective, number, batch, before=_Trainer._step):
            if (self.stage.name, number) == (stage, step):
                raise KilledError
            before(self, objective, number, batch)

        monkeypatch.setattr(_Trainer, "_step", dying)

    yield at
    monkeypatch.undo()


DRAWN = np.random.default_rng(20).integers(1, 24, size=2)


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        ("autoencoder", 3),  # before the first checkpoint
        ("autoencoder", int(DRAWN[0])),
        ("denoiser", 0),
        ("denoiser", int(DRAWN[1])),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    weather, whole, stage, step, kill, monkeypatch, tmp_path
) -> None:
    kill(stage, step)
    with pytest.raises(KilledError):
        xappa.train(weather, TINY, seed=5, folder=tmp_path, progress=False)
    monkeypatch.undo()
    model = xappa.train(weather, TINY, seed=5, folder=tmp_path, progress=False)
    same(model, whole[0])
    # The log, too, is that of one training: no step is missing, none is there twice.
    for name in ("loss", "gradient_norm", "reconstruction/t2m", "denoising/sigma=1"):
        np.testing.assert_array_equal(log(tmp_path, name), log(whole[1], name))
        assert log(tmp_path, name).index.equals(log(whole[1], name).index)


def test_what_is_complete_is_not_trained_again(weather, whole, monkeypatch) -> None:
    monkeypatch.setattr(_Trainer, "train", None)
    model, folder = whole
    same(xappa.train(weather, TINY, seed=5, folder=folder, progress=False), model)
    # None takes the seed of what goes on; how often it is reported is of no matter.
    rarely = replace(TINY, log_every=7, checkpoint_every=0, memory=0.0)
    again = xappa.train(weather, rarely, seed=None, folder=folder, progress=False)
    assert again.provenance["seed"] == 5


def test_without_a_folder_nothing_is_written(weather, whole, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    same(xappa.train(weather, TINY, seed=5, progress=False), whole[0])
    assert not list(tmp_path.iterdir())


SCRIPT = """
import sys, xappa
sys.path.insert(0, {tests!r})
from training import TINY
from dataclasses import replace
xappa.train(xappa.testing.weather(times=60), replace(TINY, denoiser_steps=4000), seed=5,
            folder={folder!r}, progress=False)
"""


def test_a_process_that_is_killed_leaves_a_checkpoint(weather, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "killed"
    code = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=env)
    deadline = time.monotonic() + 60
    while not (folder / "denoiser.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    longer = replace(TINY, denoiser_steps=4000)
    there = torch.load(folder / "denoiser.pt", weights_only=True)["step"]
    assert 0 < there < 4000
    # As far as the same steps go, both are the same: up to a few after the checkpoint.
    until = there + 7
    done = []

    def stop(self, objective, number, batch, before=_Trainer._step):
        if self.stage.name == "denoiser" and number == until:
            done.append({k: v.clone() for k, v in self.average.state_dict().items()})
            raise KilledError
        before(self, objective, number, batch)

    monkeypatch.setattr(_Trainer, "_step", stop)
    for place in (folder, tmp_path / "whole"):
        with pytest.raises(KilledError):
            xappa.train(weather, longer, seed=5, folder=place, progress=False)
    for name, value in done[0].items():
        # other processes, other threads: equal but for the order of sums
        torch.testing.assert_close(value, done[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"learning_rate": 2e-3}, r"learning_rate=0.001[\s\S]*learning_rate=0.002"),
        ({"hid_channels": (4, 8)}, r"hid_channels=\[4, 6\][\s\S]*hid_channels=\[4, 8\]"),
        ({"denoiser_steps": 30, "blocks": 2}, r"denoiser.pt[\s\S]*blocks=1; denoiser_steps=24"),
    ],
)
def test_another_configuration_does_not_go_on(weather, whole, change, match) -> None:
    with pytest.raises(ArgumentError, match=match):
        xappa.train(weather, replace(TINY, **change), seed=5, folder=whole[1], progress=False)


def test_other_data_and_seeds_do_not_go_on(weather, whole) -> None:
    with pytest.raises(ArgumentError, match=r"seed=5[\s\S]*seed=6[\s\S]*resume=False"):
        xappa.train(weather, TINY, seed=6, folder=whole[1], progress=False)
    with pytest.raises(ArgumentError, match="data="):
        xappa.train(weather + 1, TINY, seed=5, folder=whole[1], progress=False)


def test_another_denoiser_on_the_same_autoencoder(weather, whole, tmp_path) -> None:
    for name in ("autoencoder.pt", "log.csv"):
        (tmp_path / name).write_bytes((whole[1] / name).read_bytes())
    deeper = replace(TINY, blocks=2)
    model = xappa.train(weather, deeper, seed=5, folder=tmp_path, progress=False)
    ours, theirs = weights(model), weights(whole[0])
    for name in (name for name in theirs if name.startswith("autoencoder")):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert log(tmp_path)["autoencoder"].equals(log(whole[1])["autoencoder"])


def test_the_order_of_variables_is_no_other_training(tmp_path) -> None:
    """Stores list their variables in any order."""
    weather = xappa.testing.weather(times=60)
    weather["a"] = 2 * weather.t2m
    names = list(weather.data_vars)
    config = replace(TINY, autoencoder_steps=2, denoiser_steps=2)
    first = xappa.train(weather[names], config, folder=tmp_path)
    again = xappa.train(weather[names[::-1]], config, folder=tmp_path)
    assert first.hash == again.hash


def test_a_restart_replaces_what_is_there(weather, tmp_path) -> None:
    short = replace(TINY, autoencoder_steps=3, denoiser_steps=3)
    xappa.train(weather, TINY, seed=5, folder=tmp_path, progress=False)
    xappa.train(weather, short, seed=6, folder=tmp_path, resume=False, progress=False)
    assert len(log(tmp_path)) == 6


def test_a_full_disk_leaves_the_previous_checkpoint(weather, whole, tmp_path, monkeypatch) -> None:
    saved = 0

    def full(file, content, before=checkpoint._write) -> None:
        nonlocal saved
        saved += 1
        if saved == 3:
            file.write(content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        before(file, content)

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(CheckpointError, match=r"cannot be saved[\s\S]*No space left[\s\S]*space"):
        xappa.train(weather, TINY, seed=5, folder=tmp_path, progress=False)
    monkeypatch.undo()
    assert torch.load(tmp_path / "autoencoder.pt", weights_only=True)["step"] == 10
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    same(xappa.train(weather, TINY, seed=5, folder=tmp_path, progress=False), whole[0])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-500]),
        lambda path: path.write_bytes(b"no checkpoint"),
        lambda path: torch.save({"step": 3}, path),
        lambda path: torch.save(Path("/"), path),
    ],
)
def test_damaged_checkpoints_are_refused(weather, whole, damage, tmp_path) -> None:
    path = tmp_path / "autoencoder.pt"
    path.write_bytes((whole[1] / path.name).read_bytes())
    damage(path)
    with pytest.raises(CheckpointError, match=r"cannot be read[\s\S]*autoencoder.pt[\s\S]*restart"):
        xappa.train(weather, TINY, seed=5, folder=tmp_path, progress=False)


def test_a_folder_that_cannot_be_written_to(weather, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be saved"):
        xappa.train(weather, TINY, folder=tmp_path / "file", progress=False)


def test_a_training_that_diverges_says_so(weather) -> None:
    wild = replace(TINY, optimiser="sgd", learning_rate=1.0, clip=0.0, warmup=0.0, decay="constant")
    with pytest.raises(
        TrainingError, match=r"diverged[\s\S]*autoencoder, step[\s\S]*learning rate"
    ):
        xappa.train(weather * 1, replace(wild, autoencoder_steps=200), progress=False)


def test_latents_beyond_memory_are_kept_in_a_file(weather, whole, tmp_path, monkeypatch) -> None:
    config = replace(TINY, memory=0.0)
    same(xappa.train(weather, config, seed=5, folder=tmp_path, progress=False), whole[0])
    assert np.load(tmp_path / "latents.npy", mmap_mode="r").shape == (1, 54, 24)
    monkeypatch.setattr("xappa.training.latents._Encoder._fill", None)  # they are not made again
    xappa.train(weather, config, seed=5, folder=tmp_path, progress=False)
