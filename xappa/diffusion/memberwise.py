"""Member-wise noise inside azula's samplers.

azula's samplers draw their noise with `torch.randn_like`. The `MemberNoise` mode intercepts that
call and serves numbers from the streams of `xappa.diffusion.noise`, one stream for each member and
valid time, drawn on the CPU in float64 and then moved: CUDA's own streams differ between devices
and batch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xappa.diffusion.noise import generator

__all__ = ["MemberNoise"]


class MemberNoise(TorchFunctionMode):
    """Serve `torch.randn_like` from one random stream per member and valid time.

    Within the mode, ``torch.randn_like(x)`` for ``x`` of shape (B, T, ...) returns the next numbers
    of the streams keyed by (seed, purpose, member, valid time); for any other shape it raises, so
    that no noise can slip in from the global generator.

    Parameters
    ----------
    seed, purpose
        See `xappa.diffusion.noise.generator`.
    members
        The B member numbers of the batch.
    times
        The T valid times in seconds.
    paired
        Whether members and times are pairs instead, N of each: ``x`` of shape (N, ...) then takes
        its row i from the stream of ``members[i]`` at ``times[i]``. The numbers are the same.

    Examples
    --------
    >>> x = torch.zeros(2, 1, 3)
    >>> with MemberNoise(0, "sampler", members=[0, 1], times=[0.0]):
    ...     both = torch.randn_like(x)
    >>> with MemberNoise(0, "sampler", members=[1], times=[0.0]):
    ...     alone = torch.randn_like(x[:1])
    >>> bool(torch.equal(both[1:], alone))
    True
    """

    def __init__(
        self,
        seed: int,
        purpose: str,
        members: Sequence[int],
        times: Sequence[float] | np.ndarray,
        *,
        paired: bool = False,
    ) -> None:
        super().__init__()
        keys = zip(members, times, strict=True) if paired else product(members, times)
        self._streams = [generator(seed, purpose, int(m), float(time)) for m, time in keys]
        #: What tensors have to begin with: members and valid times, or the number of pairs.
        self.batch_shape = (len(members),) if paired else (len(members), len(times))

    def draw(self, shape: Sequence[int]) -> np.ndarray:
        """Return the next standard normal numbers, shape (B, T, ...) or (N, ...), float64."""
        lead = len(self.batch_shape)
        if tuple(shape[:lead]) != self.batch_shape:
            what = "(members, times)" if lead == 2 else "(pairs of member and time,)"
            raise ValueError(
                f"member-wise noise was set up for {what} = {self.batch_shape}, "
                f"but a tensor of shape {tuple(shape)} was asked for"
            )
        rest = tuple(shape[lead:])
        numbers = [g.standard_normal(rest) for g in self._streams]
        return np.reshape(numbers, tuple(shape))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn_like:
            like: Tensor = args[0] if args else kwargs["input"]
            return torch.as_tensor(self.draw(like.shape)).to(like)
        return func(*args, **kwargs)
