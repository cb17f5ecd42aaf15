r"""Optimisers by name, the learning rate as a function of the step, and the moving average.

With warm-up over w steps of n, the rate of step k is

.. math:: \eta_k = \eta \min \left( \frac{k + 1}{w}, d(k / n) \right), \quad
    d(u) = \tfrac12 (1 + \cos \pi u), \; 1 - u \; \text{or} \; 1 .

As it depends on nothing but the step, a training that goes on after a kill needs no further state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from xappa.training.settings import TrainingSettings

__all__ = ["DECAYS", "OPTIMISERS", "averaged", "optimiser_of", "rate"]

Parameters = Iterable[nn.Parameter]

_BETAS = (0.9, 0.99)

#: Maps from (parameters, largest learning rate, weight decay) to optimisers.
OPTIMISERS: Mapping[str, Callable[[Parameters, float, float], torch.optim.Optimizer]] = {
    "adamw": lambda p, lr, wd: torch.optim.AdamW(p, lr=lr, betas=_BETAS, weight_decay=wd),
    "adam": lambda p, lr, _: torch.optim.Adam(p, lr=lr, betas=_BETAS),
    "radam": lambda p, lr, wd: torch.optim.RAdam(
        p, lr=lr, betas=_BETAS, weight_decay=wd, decoupled_weight_decay=True
    ),
    "adafactor": lambda p, lr, wd: torch.optim.Adafactor(p, lr=lr, weight_decay=wd),
    "sgd": lambda p, lr, wd: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=wd),
}

#: Factors of the learning rate by the share of the steps that are done.
DECAYS: Mapping[str, Callable[[float], float]] = {
    "cosine": lambda u: 0.5 * (1 + math.cos(math.pi * u)),
    "linear": lambda u: 1 - u,
    "constant": lambda _: 1.0,
}


def optimiser_of(module: nn.Module, config: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a network."""
    build = OPTIMISERS[config.optimiser]
    return build(module.parameters(), config.learning_rate, config.weight_decay)


def rate(step: int, steps: int, config: TrainingSettings) -> float:
    """Return the learning rate of a step, counted from 0, of so many.

    Examples
    --------
    >>> from xappa.training import AppaTraining
    >>> [rate(k, 100, AppaTraining(learning_rate=1.0, warmup=0.1)) for k in (0, 9, 50)]
    [0.1, 0.9801468428384715, 0.5]
    """
    warmup = max(1, int(steps * config.warmup))
    return config.learning_rate * min((step + 1) / warmup, DECAYS[config.decay](step / steps))


def averaged(module: nn.Module, steps: int, config: TrainingSettings, *, warm: bool = False) -> Any:
    """Return the exponential moving average of a network's weights.

    It begins with those after the first step; or with those that the network has now, if these
    are worth something: if it has a ``warm`` start.
    """
    decay = 1 - 1 / max(10, steps // 20) if config.ema is None else config.ema
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
    average.n_averaged += int(warm)
    return average
