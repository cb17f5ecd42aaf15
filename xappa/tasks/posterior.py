"""The posterior of a window, for each kind of model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xappa.errors import ArgumentError, OperatorError
from xappa.models.appa.estimate import LatentEstimate
from xappa.models.appa.model import AppaModel
from xappa.models.appa.posterior import LatentPosterior
from xappa.models.base import Prior
from xappa.models.gaussian import GaussianModel
from xappa.models.posterior import GaussianPosterior, Residual
from xappa.observe import ObservationOperator, ObservationSpec
from xappa.tasks.arguments import cannot
from xappa.tasks.background import condition, present_background
from xappa.tasks.window import Window

__all__ = ["Posterior", "check_exact", "posterior_given", "posterior_of"]

Posterior = GaussianPosterior | LatentPosterior


def posterior_of(
    model: Prior,
    operator: ObservationOperator,
    window: Window,
    background: np.ndarray | None,
    relative: np.ndarray | None,
) -> Posterior:
    """Return the posterior over a window.

    Parameters
    ----------
    model
        The prior.
    operator
        The observation operator of the window's states.
    window
        The trajectory.
    background
        Packed states of the window's inside, (T, channel, latitude, longitude), or None.
    relative
        The background's error in climatological standard deviations, shape (P,), or None.

    Raises
    ------
    ArgumentError
        If the model cannot assimilate.
    BackgroundError
        If the background has missing values.
    """
    if isinstance(model, GaussianModel):
        prior, residual = model.prior(len(window.seconds)), Residual(model.residual)
        if background is not None and relative is not None:
            prior, residual = condition(model, prior, background, relative, window)
        return GaussianPosterior(model, operator, window.seconds, prior, residual)
    if not isinstance(model, AppaModel):
        raise cannot(model, "assimilate")
    estimate = None
    if background is not None and relative is not None:
        present = np.isfinite(model.std)
        present_background(background, present)
        # One error for all latents: each of them says something of all variables.
        variance = np.mean(relative[present] ** 2, keepdims=True)
        latents = model.encode_array(background, window.seconds[window.inside])
        states = np.arange(*window.inside.indices(len(window.seconds)))
        estimate = LatentEstimate(states, latents, variance)
    return LatentPosterior(model, operator, window.seconds, estimate)


def posterior_given(
    model: Prior,
    window: Window,
    background: np.ndarray | None,
    relative: np.ndarray | None,
    specs: Sequence[ObservationSpec],
) -> Posterior:
    """Return the posterior given observation arrays; see `posterior_of`."""
    operator = ObservationOperator.build(specs, model.spec, window.operator_times)
    return posterior_of(model, operator, window, background, relative)


def check_exact(model: Prior, operator: ObservationOperator) -> None:
    """Check that the posterior is known in closed form.

    Raises
    ------
    ArgumentError
        If the prior is not Gaussian.
    OperatorError
        If an observation is not linear in the state.
    """
    if not isinstance(model, GaussianModel):
        raise ArgumentError(
            "the posterior of a learned prior is not known in closed form",
            where="method=",
            expected="mmps, jfps, sda or dps",
            got="exact",
            remedy="leave method= out, which takes mmps",
        )
    if operator.n_used and not operator.is_linear:
        names = [block.spec.name for block in operator.blocks if not block.is_linear]
        raise OperatorError(
            "the exact method needs observations that are linear in the state",
            where=", ".join(names),
            expected="linear operators",
            got="a nonlinear one",
            remedy="use method='mmps'",
        )
