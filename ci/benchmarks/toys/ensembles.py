r"""Ensemble Kalman filters: the transform filter in the space of the members, whole or local.

For anomalies X (N, n) and their equivalents Y (N, m) of N members, scaled by the root of R,

.. math:: \tilde{P} = \left( (N - 1) I / \lambda + Y R^{-1} Y^\top \right)^{-1}, \quad
    \bar{w} = \tilde{P} Y R^{-1} (y - \bar{y}), \quad W = \sqrt{(N - 1) \tilde{P}} .

The local filter analyses each point by itself, with observation errors that grow with the distance
(Hunt et al. 2007).

References
----------
Hunt, Kostelich & Szunyogh (2007), Efficient data assimilation for spatiotemporal chaos: A local
ensemble transform Kalman filter, doi:10.1016/j.physd.2006.11.008.
"""

from __future__ import annotations

import numpy as np
from lorenz import Experiment

__all__ = ["etkf", "letkf"]


def _transform(y: np.ndarray, d: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return mean weights (N,) and the transform (N, N), given anomalies y (N, m)."""
    n = len(y)
    scaled = y * precision
    values, vectors = np.linalg.eigh((n - 1) * np.eye(n) + scaled @ y.T)
    mean = (vectors / values) @ vectors.T @ (scaled @ d)
    return mean, (vectors * np.sqrt((n - 1) / values)) @ vectors.T


def _first(start: np.ndarray, members: int, rng: np.random.Generator) -> np.ndarray:
    """Return members (N, n) close about a state, as DAPPER starts."""
    return start + np.sqrt(1e-3) * rng.standard_normal((members, start.size))


def _rotation(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation that keeps the mean, (N, N)."""
    basis = np.linalg.qr(np.column_stack([np.ones(n), rng.standard_normal((n, n - 1))]))[0]
    turn = np.eye(n)
    turn[1:, 1:] = np.linalg.qr(rng.standard_normal((n - 1, n - 1)))[0]
    return basis @ turn @ basis.T


def etkf(
    experiment: Experiment,
    y: np.ndarray,
    start: np.ndarray,
    members: int,
    inflation: float,
    seed: int = 0,
) -> np.ndarray:
    """Return the analyses (times, size) of the symmetric square-root filter, with rotations."""
    rng = np.random.default_rng(seed)
    ensemble = _first(start, members, rng)
    precision = np.full(experiment.size, 1 / experiment.variance)
    means = np.empty_like(y)
    for k, observed in enumerate(y):
        ensemble = experiment.forecast(ensemble) if k else ensemble
        mean = ensemble.mean(0)
        anomalies = ensemble - mean
        w, transform = _transform(anomalies, observed - mean, precision)
        means[k] = mean + w @ anomalies
        turned = _rotation(members, rng) @ transform
        ensemble = means[k] + inflation * turned @ anomalies
    return means


def letkf(
    experiment: Experiment,
    y: np.ndarray,
    start: np.ndarray,
    members: int,
    inflation: float,
    radius: float,
    seed: int = 0,
) -> np.ndarray:
    """Return the analyses (times, size) of the local filter on a circle.

    The taper is the function of Gaspari and Cohn, of support 2 `radius` sqrt(10 / 3) / 2.
    """
    from xappa.observe.covariance import gaspari_cohn

    rng = np.random.default_rng(seed)
    ensemble = _first(start, members, rng)
    n = experiment.size
    apart = np.abs(np.arange(n)[:, None] - np.arange(n))
    taper = gaspari_cohn(np.minimum(apart, n - apart) / (radius * np.sqrt(10 / 3) / 2))
    means = np.empty_like(y)
    for k, observed in enumerate(y):
        ensemble = experiment.forecast(ensemble) if k else ensemble
        mean = ensemble.mean(0)
        anomalies, new = ensemble - mean, np.empty_like(ensemble)
        turn = _rotation(members, rng)
        for i in range(n):
            near = taper[i] > 1e-3
            precision = taper[i, near] / experiment.variance
            w, transform = _transform(anomalies[:, near], (observed - mean)[near], precision)
            means[k, i] = mean[i] + w @ anomalies[:, i]
            new[:, i] = means[k, i] + inflation * (turn @ transform @ anomalies[:, i])
        ensemble = new
    return means
