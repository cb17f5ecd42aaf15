r"""What a cycle of a latent diffusion prior tells the ones after it: a message about one state.

An ensemble of latents, drawn given all observations up to its time, has mean m and variance P. As
the prior knows its own mean :math:`\mu` and variance C, and says them again in the next cycle,
what is passed on is the likelihood: an observation of the latent with

.. math:: R = \left( P^{-1} - C^{-1} \right)^{-1} = C \frac{\rho}{1 - \rho}, \quad
    y = \mu + \frac{m - \mu}{1 - \rho}, \quad \rho = P / C .

Errors are taken to be independent where the prior is: between the patterns of the Gaussian that the
denoiser departs from, and, of what these leave, between latents, or, without such a Gaussian,
between latents of mean 0 and variance 1. The ratio :math:`\rho` is averaged over patterns of like
variance and over places, as an ensemble is small, and raised by 1/B for the mean of B members.
"""

from __future__ import annotations

import numpy as np
import torch

from xappa.models.appa.estimate import LatentEstimate
from xappa.models.appa.model import AppaModel
from xappa.nn.gaussian import GaussianBlanket, date_terms

__all__ = ["message"]

#: Patterns on each side over which variances are averaged, and the largest ratio of variances.
_NEIGHBOURS, _LARGEST = 8, 0.99


def message(
    model: AppaModel, latents: np.ndarray, second: float, inflation: float = 1.0
) -> LatentEstimate:
    """Return what an ensemble tells of a state, as an estimate of the first state of a trajectory.

    Parameters
    ----------
    model
        The prior.
    latents
        Of B members, shape (B, L).
    second
        Valid time.
    inflation
        Factor of the ensemble's standard deviation, for what it does not know of its own errors.
    """
    z = latents.astype(np.float64)
    more = inflation**2 * (1 + 1 / len(z))
    gaussian = getattr(model.network, "gaussian", None)
    if gaussian is None:
        channels = len(model.normalisation.latent_std)
        ratio = _pooled(z, channels) * more
        told, variance = _likelihood(z.mean(0), 0.0, np.ones(z.shape[1]), _tiled(ratio, z.shape[1]))
        return LatentEstimate(np.zeros(1, int), told[None].astype(np.float32), variance)
    return _in_patterns(model, gaussian, z, second, more)


def _in_patterns(
    model: AppaModel, gaussian: GaussianBlanket, z: np.ndarray, second: float, more: float
) -> LatentEstimate:
    """Return the message in components of the Gaussian's patterns and in what these leave."""
    patterns = gaussian.patterns.double().cpu().numpy()
    dates = model.dates(np.array([second])).to(gaussian.mean)
    with torch.no_grad():
        mean = (date_terms(dates) @ gaussian.mean).double().cpu().numpy()[0]
    of_components = gaussian.std.double().cpu().numpy() ** 2
    of_rest = gaussian.rest[0].double().cpu().numpy()
    components, left = _split(z, patterns)
    middle, mean_left = _split(mean, patterns)
    ratio = _smoothed(components.var(0, ddof=1) / np.maximum(of_components, 1e-12)) * more
    told, variance = _likelihood(components.mean(0), middle, of_components, ratio)
    size = z.shape[1]
    ratio = _tiled(_pooled(left, len(of_rest)) / np.maximum(of_rest, 1e-12) * more, size)
    rest, beside = _likelihood(left.mean(0), mean_left, _tiled(of_rest, size), ratio)
    whole = patterns @ told + _split(rest, patterns)[1]
    return LatentEstimate(
        np.zeros(1, int),
        whole[None].astype(np.float32),
        np.concatenate([variance, beside]),
        patterns.astype(np.float32),
    )


def _split(z: np.ndarray, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the components of latents (..., L), and what they leave."""
    components = z @ patterns
    return components, z - components @ patterns.T


def _likelihood(
    m: np.ndarray, mean: np.ndarray | float, variance: np.ndarray, ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return y and the diagonal of R."""
    ratio = np.clip(ratio, 1e-4, _LARGEST)
    return mean + (m - mean) / (1 - ratio), variance * ratio / (1 - ratio)


def _pooled(z: np.ndarray, channels: int) -> np.ndarray:
    """Return the variance over members of latents (B, h w c), averaged over places: (c,)."""
    pooled: np.ndarray = z.var(0, ddof=1).reshape(-1, channels).mean(0)
    return pooled


def _tiled(values: np.ndarray, size: int) -> np.ndarray:
    return np.tile(values, size // len(values))


def _smoothed(ratio: np.ndarray) -> np.ndarray:
    """Average over neighbours, fewer of them at the ends."""
    window = np.ones(2 * _NEIGHBOURS + 1)
    smooth: np.ndarray = np.convolve(ratio, window, "same") / np.convolve(
        np.ones_like(ratio), window, "same"
    )
    return smooth[: len(ratio)]
