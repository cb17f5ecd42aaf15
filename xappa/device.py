"""Where learned models run, and how much of the memory there they take at a time."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from xappa.errors import ArgumentError
from xappa.options import get_option

__all__ = [
    "LEAST_BUDGET",
    "chosen_device",
    "in_batches",
    "memory_budget",
    "most_rows",
    "ran_out_of_memory",
]

#: Batches are not made smaller than this many bytes of activations.
LEAST_BUDGET = 2**26
#: Of free memory; the other half is left to solvers, fragments and everyone else.
_SHARE = 0.5
#: The most on a CPU, whose caches gain nothing from larger batches.
_MOST_ON_CPU = 4 * 2**30
#: Of states in a batch of an encoder or a decoder: more do not fit into the caches of a CPU.
_MOST_ROWS_ON_CPU = 64
_MOST_ROWS = 4096


def chosen_device(name: str | None = None) -> torch.device:
    """Return the device of a name; None takes ``xappa.set_options(device=...)``.

    Parameters
    ----------
    name
        ``"auto"`` (CUDA where there is one, else the CPU) or a name of torch's.

    Raises
    ------
    ArgumentError
        If there is no such device, or it cannot compute in float64, as noise levels do.
    """
    name = str(get_option("device") if name is None else name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float64, device=device).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ArgumentError(
            f"there is no device {name!r} that can be used",
            where="xappa.set_options(device=...)",
            expected="'auto', 'cpu', 'cuda', 'cuda:1', ...",
            got=f"{name!r}: {str(error).splitlines()[0]}",
            remedy="choose a device that torch finds here and that computes in float64",
        ) from error
    return device


def memory_budget(device: torch.device) -> int:
    """Return how many bytes of activations a batch may keep on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return max(LEAST_BUDGET, int(_SHARE * (free + held)))
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return _MOST_ON_CPU
    return max(LEAST_BUDGET, min(_MOST_ON_CPU, int(_SHARE * free)))


def most_rows(device: torch.device) -> int:
    """Return how many states a batch may hold at most, whatever the memory."""
    return _MOST_ROWS if device.type == "cuda" else _MOST_ROWS_ON_CPU


def ran_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, after giving back what is cached."""
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    if not known and "can't allocate memory" not in str(error):  # the CPU has no class of its own
        return False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


def in_batches(
    function: Callable[[Tensor], Tensor], rows: np.ndarray, device: torch.device, bytes_each: int
) -> Tensor:
    """Apply a network to rows, as many at a time as memory takes.

    Parameters
    ----------
    function
        Maps (B, ...) to (B, ...), on the device.
    rows
        Shape (N, ...).
    device
        Where the network is.
    bytes_each
        About what one row needs.

    Returns
    -------
    Tensor
        Shape (N, ...), on the CPU.
    """
    budget, first = memory_budget(device), 0
    parts = []
    while first < len(rows):
        size = max(1, min(most_rows(device), budget // max(1, bytes_each)))
        part = torch.as_tensor(rows[first : first + size])
        try:
            parts.append(function(part.to(device)).cpu())
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not ran_out_of_memory(error):
                raise
            budget = bytes_each * max(1, min(size, len(part)) // 2)
        else:
            first += size
    return torch.cat(parts) if parts else function(torch.as_tensor(rows).to(device)).cpu()
