r"""The Gaussian that a denoiser departs from, estimated from latents before it is trained.

The mean is regressed on terms of the dates over all latents; patterns are the leading principal
components of a sample of them (Halko et al. 2011), of which the components are then known at all
times, and give autocovariances up to the blanket's length. What the patterns leave is looked at in
a sample of blankets. The noise that training adds to latents counts with all of it.

References
----------
Halko, Martinsson & Tropp (2011), Finding structure with randomness, doi:10.1137/090771806.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from xappa.models.eof import autocovariance
from xappa.nn.gaussian import TERMS, date_terms
from xappa.training.data import Series
from xappa.training.latents import Latents

__all__ = ["gaussian_of"]

#: Latents that the patterns are estimated from, at most, and blankets for what they leave.
_SAMPLES, _BLANKETS = 8192, 256
#: Bytes of latents that are looked at together.
_BLOCK = 2**26
#: Patterns beyond those that are wanted, and rounds, of the randomised decomposition.
_MORE, _ROUNDS = 16, 3


def gaussian_of(
    latents: Latents, series: Series, dates: np.ndarray, blanket: int, modes: int, noise: float
) -> dict[str, Tensor]:
    """Estimate the arrays of a `xappa.nn.gaussian.GaussianBlanket`.

    Parameters
    ----------
    latents
        Of the states to learn from.
    series
        Those states: which of them follow each other.
    dates
        Date features of the T times, shape (T, 4).
    blanket, modes
        States K and patterns r.
    noise
        Standard deviation of the noise that training adds to latents before they are standardised.

    Returns
    -------
    dict of str to torch.Tensor
        By the names of its buffers, float32.
    """
    terms = date_terms(torch.as_tensor(dates, dtype=torch.float64)).numpy()
    mean = _mean(latents, terms)
    apart = _Anomalies(latents, terms, mean)
    count = min(_SAMPLES, len(latents.train) * len(terms))
    sample = apart.rows(np.linspace(0, apart.count - 1, count).round().astype(int))
    few = min(modes + _MORE, *sample.shape)
    with torch.random.fork_rng([]):  # it starts from random vectors of torch's own generator
        torch.manual_seed(0)
        _, _, found = torch.svd_lowrank(torch.from_numpy(sample), q=few, niter=_ROUNDS)
    patterns = np.zeros((sample.shape[1], modes), np.float32)
    patterns[:, : min(modes, few)] = found[:, :modes].numpy()
    del sample
    components = np.concatenate([part @ patterns for part in apart.blocks()])
    components = components.reshape(len(latents.train), len(terms), modes)
    gamma = autocovariance(components, series.runs, blanket, 0.0)
    channels = len(latents.std)
    kick = np.tile((noise / latents.std) ** 2, mean.shape[1] // channels)
    gamma[0] += patterns.T @ (kick[:, None] * patterns)
    std = np.sqrt(np.maximum(np.einsum("ii->i", gamma[0]), 1e-12))
    rest = _rest(apart, patterns, series, blanket, channels)
    rest[0] += (noise / latents.std) ** 2
    found_arrays = {
        "mean": mean,
        "patterns": patterns,
        "std": std,
        "correlation": gamma / (std[:, None] * std),
        "rest": rest,
    }
    return {name: torch.tensor(a, dtype=torch.float32) for name, a in found_arrays.items()}


def _mean(latents: Latents, terms: np.ndarray) -> np.ndarray:
    """Regress standardised latents on terms of the dates: coefficients (7, L)."""
    square = len(latents.train) * terms.T @ terms
    size = latents.train.shape[-1]
    products = np.zeros((TERMS, size))
    for values in latents.train:
        for times in _slices(len(terms), size):
            products += terms[times].T @ latents.standardised(values[times])
    mean: np.ndarray = np.linalg.pinv(square, hermitian=True) @ products
    return mean


def _slices(length: int, size: int) -> Iterator[slice]:
    step = max(1, _BLOCK // (4 * size))
    for first in range(0, length, step):
        yield slice(first, min(first + step, length))


class _Anomalies:
    """Standardised latents about their mean, row by row: members first, then times."""

    def __init__(self, latents: Latents, terms: np.ndarray, mean: np.ndarray) -> None:
        self.latents, self.terms = latents, terms
        self.mean = mean.astype(np.float32)
        self.count = len(latents.train) * len(terms)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Return some of them, shape (n, L), float32."""
        member, time = np.divmod(rows, len(self.terms))
        values = self.latents.standardised(self.latents.train[member, time])
        anomalies: np.ndarray = values - self.terms[time].astype(np.float32) @ self.mean
        return anomalies

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all of them, in order."""
        for rows in _slices(self.count, self.mean.shape[1]):
            yield self.rows(np.arange(rows.start, rows.stop))


def _rest(
    apart: _Anomalies, patterns: np.ndarray, series: Series, blanket: int, channels: int
) -> np.ndarray:
    """Autocovariances of what the patterns leave, by lag and channel, shape (K, c)."""
    starts = series.starts(blanket)
    total = len(apart.latents.train) * len(starts)
    chosen = np.linspace(0, total - 1, min(_BLANKETS, total)).round().astype(int)
    gamma = np.zeros((blanket, channels))
    for member, start in zip(*np.divmod(chosen, len(starts)), strict=True):
        first = member * len(apart.terms) + starts[start]
        values = apart.rows(np.arange(first, first + blanket))
        values = values - (values @ patterns) @ patterns.T
        cells = values.reshape(blanket, -1, channels)
        for lag in range(blanket):
            pairs = cells[lag:] * cells[: blanket - lag]
            gamma[lag] += pairs.mean((0, 1), dtype=np.float64)
    return gamma / len(chosen)
