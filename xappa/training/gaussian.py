r"""The Gaussian that a denoiser departs from, estimated from latents before it is trained.

The mean is regressed on terms of the dates over all latents; patterns are the leading principal
components of a sample of them (Halko et al. 2011), of which the components are then known at all
times, and give autocovariances up to the blanket's length. What the patterns leave is looked at in
a sample of blankets. The noise that training adds to latents counts with all of it.

Few states look more alike than they are: patterns leave less of them than of others, and their
components seem to be correlated. The last fifth of the states says by how much. Of a Gaussian that
is estimated from the others it tells the variance that the patterns leave outside the sample, and
the shrinkage of correlations between components with which the fifth is denoised best; with both
the Gaussian of all states is corrected. With many states nothing changes.

References
----------
Halko, Martinsson & Tropp (2011), Finding structure with randomness, doi:10.1137/090771806.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from xappa.models.eof import autocovariance
from xappa.nn.gaussian import TERMS, GaussianBlanket, date_terms
from xappa.training.data import Series
from xappa.training.latents import Latents

__all__ = ["gaussian_of"]

#: Latents that the patterns are estimated from, at most, and blankets for what they leave.
_SAMPLES, _BLANKETS = 8192, 256
#: Share of the times that the others judge; blankets that they are judged by, at most.
_FITTED, _JUDGES = 0.8, 64
#: What is tried, and noise levels at which.
_SHRINKAGES, _INFLATIONS = (0.0, 0.1, 0.3, 1.0), (1.0, 1.5, 3.0)
_LEVELS = (0.1, 0.3, 1.0, 3.0)
#: Bytes of latents that are looked at together.
_BLOCK = 2**26
#: Patterns beyond those that are wanted, and rounds, of the randomised decomposition.
_MORE, _ROUNDS = 16, 3


@dataclass(frozen=True, eq=False)
class Correction:
    """What is wrong with the Gaussian of a sample.

    Parameters
    ----------
    shrinkage
        Share of the covariances between components that are not there outside.
    inflation
        Factor of the components' covariances.
    excess
        Factors of the variances that the patterns leave, by channel, shape (c,).
    """

    shrinkage: float
    inflation: float
    excess: np.ndarray


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
    apart = _Anomalies(latents, terms, _mean(latents, terms))
    kick = (noise / latents.std) ** 2
    starts = series.starts(blanket)
    correction = _outside(apart, series.runs, starts, (blanket, modes), kick)
    return _Sample(apart, series.runs, starts, blanket, modes).arrays(kick, correction)


def _outside(
    apart: _Anomalies,
    runs: Sequence[slice],
    starts: np.ndarray,
    sizes: tuple[int, int],
    kick: np.ndarray,
) -> Correction:
    """Return what states outside a sample tell of it."""
    cut = round(_FITTED * len(apart.terms))
    inner = [slice(run.start, min(run.stop, cut)) for run in runs if run.start < cut]
    before, after = starts[starts + sizes[0] <= cut], starts[starts >= cut]
    if not len(before) or not len(after):
        return Correction(1.0, 1.0, np.ones_like(kick))
    part = _Sample(apart, inner, before, *sizes)
    there, here = apart.left(part.patterns, after, sizes[0]), part.rest
    excess = np.maximum(there[0] / np.maximum(here[0], 1e-12), 1.0)
    x = np.stack(list(apart.blankets(after, sizes[0], _JUDGES)))
    rng = np.random.default_rng(0)
    x = x + np.sqrt(np.tile(kick, x.shape[-1] // len(kick))) * rng.standard_normal(x.shape)
    white = rng.standard_normal(x.shape)
    errors = {}
    for tried in product(_SHRINKAGES, _INFLATIONS):
        gaussian = GaussianBlanket((1, x.shape[-1] // len(kick), len(kick)), *sizes)
        gaussian.load_state_dict(part.arrays(kick, Correction(*tried, excess)))
        errors[tried] = _error(gaussian, x, white)
    return Correction(*min(errors, key=lambda tried: errors[tried]), excess)


def _error(gaussian: GaussianBlanket, x: np.ndarray, white: np.ndarray) -> float:
    """Return the weighted denoising error of blankets about their mean, over noise levels."""
    clean = torch.as_tensor(x, dtype=torch.float32)
    when = torch.zeros(*x.shape[:2], 4)
    gaussian.mean.zero_()
    total = 0.0
    for sigma in _LEVELS:
        noisy = clean + sigma * torch.as_tensor(white, dtype=torch.float32)
        found = gaussian(noisy, torch.full((len(x),), sigma), when)
        total += (sigma**-2 + 1) * float((found - clean).square().mean())
    return total


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
        self.members = len(latents.train)
        self.size = latents.train.shape[-1]

    def rows(self, members: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return some of them, shape (n, L), float32."""
        values = self.latents.standardised(self.latents.train[members, times])
        anomalies: np.ndarray = values - self.terms[times].astype(np.float32) @ self.mean
        return anomalies

    def components(self, patterns: np.ndarray) -> np.ndarray:
        """Return the components of all of them, shape (B, T, M)."""
        out = np.zeros((self.members, len(self.terms), patterns.shape[1]), np.float32)
        for member in range(self.members):
            for times in _slices(len(self.terms), self.size):
                which = np.arange(times.start, times.stop)
                out[member, times] = self.rows(np.full_like(which, member), which) @ patterns
        return out

    def chosen(self, starts: np.ndarray, count: int) -> Iterator[tuple[int, int]]:
        """Yield members and starts of at most so many blankets, evenly spread."""
        total = self.members * len(starts)
        numbers = np.linspace(0, total - 1, min(count, total)).round().astype(int)
        for number in numbers:
            member, place = divmod(int(number), len(starts))
            yield member, int(starts[place])

    def blankets(self, starts: np.ndarray, length: int, count: int) -> Iterator[np.ndarray]:
        """Yield at most so many blankets (K, L)."""
        for member, start in self.chosen(starts, count):
            yield self.rows(np.full(length, member), np.arange(start, start + length))

    def left(self, patterns: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
        """Return autocovariances of what patterns leave, by lag and channel, shape (K, c)."""
        channels = len(self.latents.std)
        gamma, count = np.zeros((length, channels)), 0
        for values in self.blankets(starts, length, _BLANKETS):
            values = values - (values @ patterns) @ patterns.T
            cells = values.reshape(length, -1, channels)
            for lag in range(length):
                pairs = cells[lag:] * cells[: length - lag]
                gamma[lag] += pairs.mean((0, 1), dtype=np.float64)
            count += 1
        return gamma / count


class _Sample:
    """What some of the states tell: patterns, components and what is left.

    Parameters
    ----------
    apart
        All states.
    runs
        The parts of the times that are looked at, without gaps.
    starts
        First times of blankets among them.
    blanket, modes
        States K and patterns r.
    """

    def __init__(
        self,
        apart: _Anomalies,
        runs: Sequence[slice],
        starts: np.ndarray,
        blanket: int,
        modes: int,
    ) -> None:
        self.runs, self.blanket, self.mean = runs, blanket, apart.mean
        times = np.concatenate([np.arange(run.start, run.stop) for run in runs])
        total = apart.members * len(times)
        numbers = np.linspace(0, total - 1, min(_SAMPLES, total)).round().astype(int)
        self.patterns = _leading(
            apart.rows(numbers // len(times), times[numbers % len(times)]), modes
        )
        self.components = apart.components(self.patterns)
        self.rest = apart.left(self.patterns, starts, blanket)

    def arrays(self, kick: np.ndarray, correction: Correction) -> dict[str, Tensor]:
        """Return the buffers of the Gaussian, with the variance of training's noise (c)."""
        gamma = autocovariance(self.components, self.runs, self.blanket, correction.shrinkage)
        gamma = gamma * correction.inflation
        patterns = self.patterns
        everywhere = np.tile(kick, len(patterns) // len(kick))
        gamma[0] += patterns.T @ (everywhere[:, None] * patterns)
        std = np.sqrt(np.maximum(np.einsum("ii->i", gamma[0]), 1e-12))
        rest = self.rest * correction.excess
        rest[0] += kick
        found = {
            "mean": self.mean,
            "patterns": patterns,
            "std": std,
            "correlation": gamma / (std[:, None] * std),
            "rest": rest,
        }
        return {name: torch.tensor(a, dtype=torch.float32) for name, a in found.items()}


def _leading(sample: np.ndarray, modes: int) -> np.ndarray:
    """Return the leading principal components of rows (n, L), shape (L, r), zero beyond rank n."""
    few = min(modes + _MORE, *sample.shape)
    with torch.random.fork_rng([]):  # it starts from random vectors of torch's own generator
        torch.manual_seed(0)
        _, _, found = torch.svd_lowrank(torch.from_numpy(sample), q=few, niter=_ROUNDS)
    patterns = np.zeros((sample.shape[1], modes), np.float32)
    patterns[:, : min(modes, few)] = found[:, :modes].numpy()
    return patterns
