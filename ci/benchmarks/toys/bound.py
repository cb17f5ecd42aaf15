r"""What the observations of a window can tell of its states at best, about the truth.

With M_k the tangent-linear model from the first state of a window to its k-th, C the covariance of
the climate and R that of the observation errors,

.. math:: P_0 = \left( C^{-1} + \sum_k M_k^\top R^{-1} M_k \right)^{-1}, \quad
    P_k = M_k P_0 M_k^\top .

No estimate from the window alone is better by much while errors grow linearly; filters, which
remember what came before the window, may be.
"""

from __future__ import annotations

import numpy as np
from lorenz import Experiment

__all__ = ["bound"]


def _tangent(experiment: Experiment, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Return the derivative (n, n) of the next state by central differences."""
    moved = step * np.eye(experiment.size)
    ahead, behind = experiment.forecast(x + moved), experiment.forecast(x - moved)
    derivative: np.ndarray = ((ahead - behind) / (2 * step)).T
    return derivative


def bound(experiment: Experiment, window: int, at: int, cases: int = 30) -> float:
    """Return the mean root mean square error of state `at` of windows of K states."""
    windows = experiment.trajectories(cases, window, seed=5)
    climate = np.cov(windows[:, :: max(1, window - 1)].reshape(-1, experiment.size).T)
    errors = []
    for states in windows:
        maps = [np.eye(experiment.size)]
        for x in states[:-1]:
            maps.append(_tangent(experiment, x) @ maps[-1])
        told = sum(m.T @ m for m in maps) / experiment.variance
        covariance = maps[at] @ np.linalg.inv(np.linalg.inv(climate) + told) @ maps[at].T
        errors.append(np.sqrt(np.trace(covariance) / experiment.size))
    return float(np.mean(errors))
