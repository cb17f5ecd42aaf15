"""Two processes train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from training import TINY, log, weights

import xappa
from xappa.errors import TrainingError
from xappa.training.distributed import Processes, processes

STEPS = {"hid_channels": [4, 6], "hid_blocks": [1, 1], "blocks": 1, "channels": 16, "blanket": 4}
STEPS |= {"heads": 2, "autoencoder_steps": 10, "denoiser_steps": 10, "log_every": 1}

SCRIPT = """
import sys, os, warnings
sys.path.insert(0, sys.argv[1])
import numpy as np, xappa
from dataclasses import replace
from training import TINY, weights
config = replace(TINY, **eval(sys.argv[3]))
model = xappa.train(xappa.testing.weather(times=60), config, seed=5, folder=sys.argv[2],
                    progress=False)
np.savez(sys.argv[2] + "/rank" + os.environ.get("RANK", "0") + ".npz", **weights(model))
"""


def torchrun(*arguments: object) -> None:
    """Run a script, or a module, in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    weather = xappa.testing.weather(times=60)
    config = replace(TINY, accumulate=2, memory=0.0)
    model = xappa.train(weather, config, seed=5, folder=one, progress=False)
    (tmp_path / "script.py").write_text(SCRIPT)
    changes = {"accumulate": 2, "memory": 0.0}
    torchrun(tmp_path / "script.py", Path(__file__).parent, two, repr(changes))
    alike(one, two)
    ranks = [dict(np.load(two / f"rank{rank}.npz")) for rank in (0, 1)]
    for name, value in weights(model).items():
        np.testing.assert_array_equal(ranks[0][name], ranks[1][name])
        # Adam's first steps enlarge what rounding does to tiny gradients
        np.testing.assert_allclose(ranks[0][name], value, rtol=1e-2, atol=2e-3, err_msg=name)
    # One process goes on with what two have done.
    again = xappa.train(weather, config, seed=5, folder=two, progress=False)
    for name, value in weights(again).items():
        if name.startswith(("autoencoder", "denoiser")):
            np.testing.assert_array_equal(value, ranks[0][name])


def alike(one: Path, two: Path) -> None:
    """The same loss curve, to what the order of sums changes."""
    a, b = log(one), log(two)
    assert a.index.equals(b.index)
    np.testing.assert_allclose(a, b, rtol=1e-4)


@pytest.mark.slow
def test_the_command_line_in_two_processes(tmp_path) -> None:
    weather = xappa.testing.weather(times=60)
    weather.to_netcdf(tmp_path / "weather.nc")
    settings = "\n".join(f"{k} = {v}" for k, v in STEPS.items())
    text = f"[data]\npath = 'weather.nc'\n[training]\n{settings}\n"
    (tmp_path / "short.toml").write_text(text)
    config = xappa.AppaTraining(**STEPS)
    model = xappa.train(weather, config, folder=tmp_path / "one", progress=False)
    run = ("-m", "xappa", "train", tmp_path / "short.toml", "--output", tmp_path / "two")
    torchrun(*run)
    alike(tmp_path / "one", tmp_path / "two")
    found = xappa.open_model(tmp_path / "two" / "model")
    assert found.name == "short"
    np.testing.assert_array_equal(found.normalisation.mean, model.normalisation.mean)


def test_a_group_that_exists_is_used(tmp_path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        with processes() as together:
            assert (together.rank, together.size, together.first) == (0, 1, True)
            assert together.from_first(3) == 3
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


def test_batches_are_shared_evenly() -> None:
    cpu = torch.device("cpu")
    shares = [Processes(rank, 3, cpu).share(12, 2) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(TrainingError, match=r"multiple of 3 processes x 2 parts[\s\S]*got: 16"):
        Processes(0, 3, cpu).share(16, 2)
