"""Training on several processes, with what torch brings.

``torchrun --nproc-per-node 8 -m xappa train config.toml`` starts a process for each device; each
computes its share of a batch, and gradients are averaged (`DistributedDataParallel`). That is
torch's own engine: nothing else has to be installed, and the loop stays one that can be read;
Lightning Fabric would add a dependency for the same calls. Sharded weights (FSDP) are not needed:
the two stages are trained one after the other, and the larger of the published ones takes 6 GB with
its gradient, its optimiser's moments and its average.

Batches and noise are keyed by step and sample, so that the processes together see what one alone
would. What is read or computed once for all is handed on from the first process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xappa.device import chosen_device
from xappa.errors import TrainingError

__all__ = ["Processes", "processes"]

Value = TypeVar("Value")

#: How long processes wait while the first one goes through the data, or validates.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Processes:
    """The processes of a training, seen from one of them.

    Parameters
    ----------
    rank, size
        Which one this is, from 0, and how many there are.
    device
        Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def share(self, batch: int, parts: int) -> range:
        """Return the samples of a batch that this process computes.

        Raises
        ------
        TrainingError
            If they cannot be shared evenly.
        """
        if batch % (self.size * parts):
            raise TrainingError(
                "the batch cannot be shared evenly",
                where="batch",
                expected=f"a multiple of {self.size} processes x {parts} parts",
                got=str(batch),
                remedy="choose another batch, accumulate, or number of processes",
            )
        own = batch // self.size
        return range(self.rank * own, (self.rank + 1) * own)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are averaged over the processes."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a value, detached, over the processes."""
        value = value.detach().clone()
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def add(self, values: Tensor) -> None:
        """Add up an array on the CPU over the processes, in place."""
        if self.size > 1:
            there = values.to(self.device)
            dist.all_reduce(there)
            values.copy_(there)

    def from_first(self, value: Value | None) -> Value:
        """Return what the first process holds."""
        held: list[Any] = [value]
        if self.size > 1:
            dist.broadcast_object_list(held, src=0, device=self.device)
        result: Value = held[0]
        return result

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, or be the only one.

    A process group that exists already is used, and left as it is.
    """
    device = chosen_device()
    joined = dist.is_available() and dist.is_initialized()
    if not joined and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(0, 1, device)
        return
    if str(device) == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not joined:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if not joined:
            dist.destroy_process_group()
