"""Where networks run, and what happens when memory does not suffice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xappa
from xappa.device import LEAST_BUDGET, chosen_device, in_batches, memory_budget, ran_out_of_memory
from xappa.errors import ArgumentError

CPU = torch.device("cpu")


def test_devices() -> None:
    assert chosen_device("cpu") == CPU
    assert chosen_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("tpu", "cuda:99", "meta"):
        with pytest.raises(ArgumentError, match=f"there is no device '{name}'"):
            chosen_device(name)
    with xappa.set_options(device="nowhere"), pytest.raises(ArgumentError, match="nowhere"):
        chosen_device()


def test_budget() -> None:
    assert LEAST_BUDGET <= memory_budget(CPU) <= 4 * 2**30


def test_what_running_out_of_memory_is() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert ran_out_of_memory(caught.value)
    assert ran_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not ran_out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.parametrize("fits", [1, 3, 100])
def test_batches_shrink(fits) -> None:
    sizes = []

    def double(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * x

    rows = np.arange(20.0).reshape(10, 2)
    np.testing.assert_array_equal(in_batches(double, rows, CPU, 100), 2 * rows)
    assert sum(size for size in sizes if size <= fits) == 10


def test_other_errors_are_not_hidden() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        in_batches(broken, np.zeros((4, 2)), CPU, 100)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        in_batches(_never, np.zeros((4, 2)), CPU, 100)


def _never(x: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")
