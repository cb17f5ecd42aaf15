r"""Choosing a Gaussian prior's parameters by cross-validation within the training data.

A covariance that was estimated from few independent states looks better on those states than on any
others. Localisation radius, shrinkage and inflation are therefore chosen as those that give the
largest likelihood to windows that the estimate has not seen: the data are cut into consecutive
blocks; each block in turn is held out, together with a gap on both sides of it as wide as the
weather is persistent, so that it cannot be interpolated from its neighbours in time (hv-block
cross-validation, Racine 2000). The likelihood is that of noisy observations at random points,

.. math:: \log p(y) = -\tfrac{1}{2} \left( y^\top S^{-1} y + \log \det S \right) + \text{const}.

References
----------
Racine (2000), Consistent cross-validatory model-selection for dependent data: hv-block
cross-validation, doi:10.1016/S0304-4076(00)00030-0.
Dee (1995), On-line estimation of error covariance parameters for atmospheric data assimilation,
doi:10.1175/1520-0493(1995)123<1128:OLEOEC>2.0.CO;2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve

from xappa.diffusion.markov import StationaryProcess
from xappa.models.climatology import SeasonalTerms, regress
from xappa.models.eof import Expansion, autocovariance, expand, segments
from xappa.models.localisation import gaspari_cohn

__all__ = ["Candidates", "Choice", "Training", "choose"]

_POINTS = 40
#: Standard deviation of the noise on held-out points, in climatological standard deviations.
_NOISE = 0.3


@dataclass(frozen=True, eq=False)
class Training:
    """What is fitted to.

    Parameters
    ----------
    states
        Shape (B, T, P): B series of T states at P points.
    seconds
        Times, shape (T,).
    time_step
        Seconds between states.
    terms
        The harmonics of the climatology.
    weight
        EOF weights, shape (P,).
    latitude, longitude
        Where the points are, degrees, shape (P,).
    """

    states: np.ndarray
    seconds: np.ndarray
    time_step: float
    terms: SeasonalTerms
    weight: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray


@dataclass(frozen=True)
class Candidates:
    """The values among which to choose; ``None`` as a radius means no localisation."""

    radii: Sequence[float | None]
    shrinkages: Sequence[float]
    inflations: Sequence[float]


@dataclass(frozen=True)
class Choice:
    """The values chosen, and the mean log-likelihood per observation that they reached."""

    radius: float | None
    shrinkage: float
    inflation: float
    score: float
    gap: float


@dataclass(frozen=True, eq=False)
class _Fold:
    """One held-out block: the expansion of the rest, and observations of the block."""

    expansion: Expansion
    runs: list[slice]
    observed: np.ndarray  # (windows, steps, points)
    eofs: np.ndarray  # (points, M)
    residual: np.ndarray  # (points,)
    series: int
    noise: np.ndarray  # (points,)


def persistence(components: np.ndarray, runs: Sequence[slice]) -> int:
    """Return the lag at which the correlation of the leading component has vanished.

    Parameters
    ----------
    components
        Principal components, shape (B, T, M).
    runs
        The parts of the T states that have no gaps.
    """
    length = max(run.stop - run.start for run in runs)
    gamma = autocovariance(components[..., :1], runs, max(2, length // 4), 1.0)[:, 0, 0]
    vanished = np.flatnonzero(gamma <= 0)
    return int(vanished[0]) if len(vanished) else len(gamma)


def choose(
    training: Training, modes: int, blanket: int, candidates: Candidates, folds: int = 4
) -> Choice:
    """Choose radius, shrinkage and inflation by hv-block cross-validation.

    Parameters
    ----------
    training
        The data.
    modes, blanket
        EOFs and lags of the estimates.
    candidates
        The values to choose from.
    folds
        Number of held-out blocks.
    """
    length = len(training.seconds)
    everything = _estimate(training, np.arange(length), modes)
    runs = segments(training.seconds, training.time_step)
    series = training.states.shape[0]
    pcs = everything.components.reshape(series, length, -1)
    gap = min(persistence(pcs, runs), length // (2 * folds))
    steps = max(blanket, min(24, length // (2 * folds)))
    points = _random_points(training)
    edges = np.linspace(0, length, folds + 1).astype(int)
    parts = [_fold(training, slice(a, b), gap, steps, points, modes) for a, b in pairwise(edges)]
    lat, lon = np.radians(training.latitude[points]), np.radians(training.longitude[points])
    cosine = np.sin(lat)[:, None] * np.sin(lat) + np.cos(lat)[:, None] * np.cos(lat) * np.cos(
        lon[:, None] - lon
    )
    distance = 6371e3 * np.arccos(np.clip(cosine, -1, 1))
    lagged = {
        shrinkage: [_point_covariances(part, blanket, steps, shrinkage) for part in parts]
        for shrinkage in candidates.shrinkages
    }

    def score(
        radius: float | None, shrinkage: float, inflations: Sequence[float]
    ) -> dict[tuple[float | None, float, float], np.ndarray]:
        rho = 1.0 if radius is None else gaspari_cohn(distance, radius)
        pairs = zip(parts, lagged[shrinkage], strict=True)
        by_fold = np.array([_log_likelihoods(part, c * rho, inflations) for part, c in pairs])
        return {
            (radius, shrinkage, inflation): by_fold[:, k] for k, inflation in enumerate(inflations)
        }

    # Radius and shrinkage first, with a few inflations; then all inflations for the best of them.
    few = candidates.inflations[:: max(1, len(candidates.inflations) // 3)]
    scores: dict[tuple[float | None, float, float], np.ndarray] = {}
    for radius in candidates.radii:
        for shrinkage in candidates.shrinkages:
            scores |= score(radius, shrinkage, few)
    radius, shrinkage, _ = max(scores, key=lambda key: float(scores[key].mean()))
    scores |= score(radius, shrinkage, candidates.inflations)
    key = _prefer(scores)
    return Choice(*key, float(scores[key].mean()), gap * training.time_step)


def _prefer(
    scores: dict[tuple[float | None, float, float], np.ndarray],
) -> tuple[float | None, float, float]:
    """Take the best candidate, but the largest inflation within one standard error of it.

    The folds are few, and the weather to come need not resemble them: of inflations that they
    cannot tell apart the largest is the safest, as an ensemble with too little spread does more
    harm than one with too much. (The one-standard-error rule of Breiman et al. 1984.)
    """
    best = max(scores, key=lambda key: float(scores[key].mean()))
    chosen = best
    for key, values in scores.items():
        if key[:2] != best[:2] or key[2] <= chosen[2]:
            continue
        loss = scores[best] - values
        if loss.mean() <= loss.std(ddof=1) / np.sqrt(len(loss)):
            chosen = key
    return chosen


def _random_points(training: Training) -> np.ndarray:
    rng = np.random.default_rng(0)
    valid = np.flatnonzero(training.weight > 0)
    probability = training.weight[valid] / training.weight[valid].sum()
    count = min(_POINTS, len(valid))
    return np.sort(rng.choice(valid, count, replace=False, p=probability))


def _estimate(training: Training, index: np.ndarray, modes: int) -> Expansion:
    states = training.states[:, index]
    design = training.terms.design(training.seconds[index])
    coefficients = regress(states, training.seconds[index], training.terms)
    anomalies = (states - design @ coefficients).reshape(-1, states.shape[-1])
    freedom = max(1, len(anomalies) - design.shape[1])
    return expand(anomalies, training.weight, modes, freedom)


def _fold(
    training: Training, block: slice, gap: int, steps: int, points: np.ndarray, modes: int
) -> _Fold:
    length = len(training.seconds)
    kept = np.r_[0 : max(0, block.start - gap), min(length, block.stop + gap) : length]
    expansion = _estimate(training, kept, modes)
    states = training.states[:, kept][..., points]
    coefficients = regress(states, training.seconds[kept], training.terms)
    held = np.arange(block.start, block.stop)
    truth = training.states[:, held][..., points] - (
        training.terms.design(training.seconds[held]) @ coefficients
    )
    windows = len(held) // steps
    noise = _NOISE * np.sqrt(expansion.variance[points])
    rng = np.random.default_rng(block.start)
    observed = truth[:, : windows * steps].reshape(-1, steps, len(points))
    observed = observed + noise * rng.standard_normal(observed.shape)
    return _Fold(
        expansion,
        segments(training.seconds[kept], training.time_step),
        observed,
        expansion.eofs[points],
        expansion.residual[points],
        training.states.shape[0],
        noise,
    )


def _point_covariances(part: _Fold, blanket: int, steps: int, shrinkage: float) -> np.ndarray:
    """Covariances between the points at every lag of a window, shape (steps, n, n)."""
    pcs = part.expansion.components
    pcs = pcs.reshape(part.series, -1, pcs.shape[-1])
    gamma = autocovariance(pcs, part.runs, blanket, shrinkage)
    extended = StationaryProcess(torch.as_tensor(regularise(gamma))).extend(steps).numpy()
    result: np.ndarray = part.eofs @ extended @ part.eofs.T
    return result


def regularise(gamma: np.ndarray) -> np.ndarray:
    """Add a small nugget at lag 0, so that the block-Toeplitz matrix is safely invertible."""
    gamma = gamma.copy()
    gamma[0] += 1e-6 * np.eye(gamma.shape[1])
    return gamma


def _log_likelihoods(part: _Fold, lagged: np.ndarray, inflations: Sequence[float]) -> list[float]:
    """Mean log-density of the held-out observations, per observation, for each inflation."""
    steps, n = len(lagged), lagged.shape[1]
    toeplitz = np.empty((steps, n, steps, n))
    for i in range(steps):
        for j in range(i + 1):
            toeplitz[i, :, j] = lagged[i - j]
            toeplitz[j, :, i] = lagged[i - j].T
    covariance = toeplitz.reshape(steps * n, -1)
    diagonal = np.diag_indices(steps * n)
    y = part.observed.reshape(len(part.observed), -1)
    found = []
    for inflation in inflations:
        s = inflation * covariance
        s[diagonal] += np.tile(inflation * part.residual + part.noise**2, steps)
        factor = cho_factor(s, lower=True, overwrite_a=True, check_finite=False)
        quadratic = np.einsum("wi,wi->", y, cho_solve(factor, y.T, check_finite=False).T)
        logdet = 2 * np.log(np.diag(factor[0])).sum()
        found.append(float(-0.5 * (quadratic / len(y) + logdet) / (steps * n)))
    return found
