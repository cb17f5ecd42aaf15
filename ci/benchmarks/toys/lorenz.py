"""Lorenz's models of 1963 and 1996, and the twin experiments in which DAPPER scores its methods.

References
----------
Lorenz (1963), doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2. Sakov, Oliver & Bertino (2012), An
iterative EnKF for strongly nonlinear systems, doi:10.1175/MWR-D-11-00176.1. Sakov & Oke (2008), A
deterministic formulation of the ensemble Kalman filter, doi:10.1111/j.1600-0870.2007.00299.x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["LORENZ63", "LORENZ96", "Experiment"]

Tendency = Callable[[np.ndarray], np.ndarray]


def lorenz63(x: np.ndarray) -> np.ndarray:
    """Tendency of states (..., 3)."""
    a, b, c = np.moveaxis(x, -1, 0)
    return np.stack([10.0 * (b - a), a * (28.0 - c) - b, a * b - 8.0 / 3.0 * c], axis=-1)


def lorenz96(x: np.ndarray) -> np.ndarray:
    """Tendency of states (..., 40), with the forcing 8."""
    return (np.roll(x, -1, -1) - np.roll(x, 2, -1)) * np.roll(x, 1, -1) - x + 8.0


@dataclass(frozen=True)
class Experiment:
    """A model that is observed everywhere, with errors that are independent.

    Parameters
    ----------
    name
        As DAPPER calls it.
    tendency
        dx/dt of states (..., size).
    size
        Of the state.
    step
        Time step of the fourth-order Runge-Kutta scheme.
    every
        Steps from one observation time to the next.
    variance
        Of the observation errors.
    burn_in
        Observation times that do not count.
    """

    name: str
    tendency: Tendency
    size: int
    step: float
    every: int
    variance: float
    burn_in: int

    def forecast(self, x: np.ndarray) -> np.ndarray:
        """Integrate states (..., size) to the next observation time."""
        h, f = self.step, self.tendency
        for _ in range(self.every):
            k1 = f(x)
            k2 = f(x + h / 2 * k1)
            k3 = f(x + h / 2 * k2)
            k4 = f(x + h * k3)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x

    def trajectories(self, count: int, length: int, seed: int) -> np.ndarray:
        """Return trajectories (count, length, size) at observation times, off the transient."""
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((count, self.size)) + (8.0 if self.size > 3 else 0.0)
        for _ in range(100 if self.size == 3 else 400):
            x = self.forecast(x)
        out = np.empty((count, length, self.size))
        for k in range(length):
            out[:, k] = x
            x = self.forecast(x)
        return out

    def twin(self, times: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a truth (times, size) and observations of it."""
        truth = self.trajectories(1, times, seed)[0]
        noise = np.random.default_rng(seed + 1).standard_normal(truth.shape)
        return truth, truth + np.sqrt(self.variance) * noise

    def rmse(self, analysis: np.ndarray, truth: np.ndarray) -> float:
        """Return the mean over times of the root mean square error over the state, as DAPPER."""
        error = np.sqrt(np.mean((analysis - truth) ** 2, axis=-1))
        return float(error[self.burn_in :].mean())


LORENZ63 = Experiment("Lorenz-63, sakov2012", lorenz63, 3, 0.01, 25, 2.0, 64)
LORENZ96 = Experiment("Lorenz-96, sakov2008", lorenz96, 40, 0.05, 1, 1.0, 400)
