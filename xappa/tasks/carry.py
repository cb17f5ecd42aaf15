"""What one cycle tells the next, for each kind of prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from xappa.diffusion.markov import Initial
from xappa.models.appa.carry import message
from xappa.models.appa.estimate import LatentEstimate
from xappa.models.appa.model import AppaModel
from xappa.models.appa.posterior import LatentPosterior
from xappa.models.base import Prior
from xappa.models.gaussian import GaussianModel
from xappa.models.posterior import Draws, GaussianPosterior, Residual
from xappa.observe import ObservationOperator, ObservationSpec
from xappa.tasks.arguments import cannot
from xappa.tasks.posterior import Posterior

__all__ = ["Carry", "GaussianCarry", "LatentCarry", "carry_of"]


class Carry(Protocol):
    """What is known from the cycles before."""

    def begin(self, end: int) -> tuple[int, int]:
        """Begin a cycle.

        Parameters
        ----------
        end
            Its last state.

        Returns
        -------
        first, seen
            The first state of its trajectory, and the last one whose observations are known
            already; -1 for none.
        """

    def posterior(self, specs: Sequence[ObservationSpec], states: slice) -> Posterior:
        """Return the posterior of the states of a cycle, given its observations."""

    def keep(self, draws: Draws, end: int) -> None:
        """Keep what the cycle of the last posterior tells, given what was drawn from it."""


class GaussianCarry:
    """The exact distribution of the last states.

    Parameters
    ----------
    model
        The prior.
    seconds
        Valid times of the whole period, shape (T,).
    """

    def __init__(self, model: GaussianModel, seconds: np.ndarray) -> None:
        self.model, self.seconds = model, seconds
        self.initial: Initial | None = None
        self.done = 0
        self._last: GaussianPosterior | None = None

    def begin(self, end: int) -> tuple[int, int]:
        """Begin a cycle; see `Carry`."""
        known = 0 if self.initial is None else self.initial.mean.shape[0]
        return self.done - known, self.done - 1

    def posterior(self, specs: Sequence[ObservationSpec], states: slice) -> GaussianPosterior:
        """Return the posterior of a cycle; see `Carry`."""
        model, window = self.model, self.seconds[states]
        operator = ObservationOperator.build(specs, model.spec, window)
        prior = model.process.trajectory(len(window), self.initial)
        self._last = GaussianPosterior(model, operator, window, prior, Residual(model.residual))
        return self._last

    def keep(self, draws: Draws, end: int) -> None:
        """Keep what a cycle tells; see `Carry`. What was drawn does not matter."""
        if self._last is None:
            return
        length, exact = self._last.prior.length, self._last.exact
        last = slice(length - min(max(1, self.model.process.order), length), length)
        precision = torch.linalg.inv(exact.covariance(last))
        self.initial, self.done = Initial(exact.mean[0, last], precision), end + 1


class LatentCarry:
    """Messages about the last states of the cycles that lie within a blanket.

    A cycle begins with the earliest of these states, so that as many observations as a blanket
    holds are seen together, and the message, which is approximate, is of what is long ago.

    Parameters
    ----------
    model
        The prior.
    seconds
        Valid times of the whole period, shape (T,).
    inflation
        Of the ensembles' standard deviation.
    """

    def __init__(self, model: AppaModel, seconds: np.ndarray, inflation: float = 1.0) -> None:
        self.model, self.seconds, self.inflation = model, seconds, inflation
        self.told: dict[int, LatentEstimate] = {}

    def begin(self, end: int) -> tuple[int, int]:
        """Begin a cycle; see `Carry`."""
        if end < self.model.blanket or not self.told:
            return 0, -1
        within = [k for k in self.told if k > end - self.model.blanket]
        first = min(within) if within else max(self.told)
        return first, first

    def posterior(self, specs: Sequence[ObservationSpec], states: slice) -> LatentPosterior:
        """Return the posterior of a cycle; see `Carry`."""
        window = self.seconds[states]
        operator = ObservationOperator.build(specs, self.model.spec, window)
        estimate = self.told.get(states.start) if states.stop > self.model.blanket else None
        return LatentPosterior(self.model, operator, window, estimate)

    def keep(self, draws: Draws, end: int) -> None:
        """Keep what a cycle tells; see `Carry`."""
        last = draws.latents[:, -1]
        told = message(self.model, last, float(self.seconds[end]), self.inflation)
        self.told = {k: v for k, v in self.told.items() if k > end - self.model.blanket}
        self.told[end] = told


def carry_of(model: Prior, seconds: np.ndarray, inflation: float) -> Carry:
    """Return what is known before the first cycle: nothing.

    Raises
    ------
    ArgumentError
        If the model cannot be cycled.
    """
    if isinstance(model, GaussianModel):
        return GaussianCarry(model, seconds)
    if isinstance(model, AppaModel):
        return LatentCarry(model, seconds, inflation)
    raise cannot(model, "cycle")
