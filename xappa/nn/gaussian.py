r"""The denoiser of a Gaussian over blankets of latents: what a network departs from.

A latent is taken for

.. math:: z_k = m(\text{date}_k) + V a_k + e_k

with a mean that follows the date, components a of r orthonormal patterns V (L, r), Gaussian and
correlated among each other and in time, and a rest e orthogonal to V, correlated in time alone,
each channel in its own way. Given :math:`z_t = z + \sigma \epsilon`, the expected components are

.. math:: \Gamma (\Gamma + \sigma^2 I)^{-1} V^\top (z_t - m)

with their covariance :math:`\Gamma` over the K states, of which the eigenvectors are computed once,
and the rest is filtered in time likewise. Where the noise is large, hardly anything is left for a
network to add (Wang & Vastola 2024): it need not learn means, variances and linear relations.

References
----------
Wang & Vastola (2024), The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion
Models and its Applications, arXiv:2412.09726.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xappa.diffusion.markov import block_toeplitz

__all__ = ["GaussianBlanket", "date_terms"]

#: Terms of the mean: a constant, two harmonics of the year and one of the day.
TERMS = 7


def date_terms(dates: Tensor) -> Tensor:
    """Return what the mean is linear in, shape (..., 7), given date features (..., 4)."""
    sine, cosine = dates[..., 0], dates[..., 1]
    second = [2 * sine * cosine, (cosine + sine) * (cosine - sine)]
    return torch.stack(
        [torch.ones_like(sine), sine, cosine, *second, *dates[..., 2:].unbind(-1)], -1
    )


class GaussianBlanket(nn.Module):
    """Expected latents of a blanket, were it Gaussian. Buffers alone: nothing in it is trained.

    Parameters
    ----------
    latent_shape
        Rows, columns and channels (h, w, c) of a latent.
    blanket_size
        States K of a blanket.
    modes
        Patterns r.
    """

    mean: Tensor
    patterns: Tensor
    std: Tensor
    correlation: Tensor
    rest: Tensor

    def __init__(self, latent_shape: tuple[int, int, int], blanket_size: int, modes: int) -> None:
        super().__init__()
        rows, columns, channels = latent_shape
        size = rows * columns * channels
        self.register_buffer("mean", torch.zeros(TERMS, size))
        self.register_buffer("patterns", torch.zeros(size, modes))
        # Autocovariances of components, in parts that half precision can hold: their standard
        # deviations, and by lag k the correlations of a_{t+k} (rows) with a_t.
        self.register_buffer("std", torch.ones(modes))
        self.register_buffer("correlation", torch.zeros(blanket_size, modes, modes))
        # Autocovariances of the rest, by lag and channel.
        self.register_buffer("rest", torch.zeros(blanket_size, channels))
        self._kept: tuple[torch.device, tuple[Tensor, ...]] | None = None

    def forward(self, x: Tensor, sigma: Tensor, dates: Tensor) -> Tensor:
        """Return the expected latents.

        Parameters
        ----------
        x
            Noisy blankets, shape (B, K, L).
        sigma
            Noise levels, shape (B).
        dates
            Date features, shape (B, K, 4).
        """
        with torch.autocast(x.device.type, enabled=False):
            x = x if x.dtype.itemsize >= 4 else x.float()
            mean = date_terms(dates.to(x)) @ self.mean.to(x)
            expected: Tensor = mean + self._gain(x - mean, sigma)
            return expected

    def covariance(self, v: Tensor, sigma: Tensor) -> Tensor:
        r"""Return :math:`\operatorname{Cov}[z \mid z_t] \, v` at a noise level.

        Parameters
        ----------
        v
            Shape (B, K, L).
        sigma
            Noise level, shape () or (B).
        """
        sigma = sigma.to(v).expand(len(v))
        covered: Tensor = sigma[:, None, None] ** 2 * self._gain(v, sigma)
        return covered

    def _gain(self, apart: Tensor, sigma: Tensor) -> Tensor:
        r"""Return :math:`C (C + \sigma^2 I)^{-1}` times blankets (B, K, L) about their mean."""
        vectors, values, turn, levels = (part.to(apart) for part in self.spectra())
        noise = sigma.to(apart)[:, None] ** 2
        patterns = self.patterns.to(apart)
        components = apart @ patterns
        rest = apart - components @ patterns.T
        known = (components.flatten(1) @ vectors) * (values / (values + noise))
        components = (known @ vectors.T).unflatten(1, components.shape[1:])
        rest = self._filtered(rest, turn, levels, noise)
        gained: Tensor = rest + (components - rest @ patterns) @ patterns.T
        return gained

    def _filtered(self, rest: Tensor, turn: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """Filter the rest (B, K, L) in time, given eigenvectors (c, K, K) and -values (c, K)."""
        cells = rest.unflatten(-1, (-1, len(turn)))
        gains = levels / (levels + noise[..., None])
        known = torch.einsum("bknc,ckj->bjnc", cells, turn) * gains.mT[:, :, None]
        return torch.einsum("bjnc,ckj->bknc", known, turn).flatten(-2)

    @torch.no_grad()
    def spectra(self) -> tuple[Tensor, ...]:
        """Eigenvectors and -values of the components (K r) and of the rest (c, K), kept."""
        if self._kept is None or self._kept[0] != self.std.device:
            scale = self.std.double()
            components = block_toeplitz(self.correlation.double() * scale[:, None] * scale)
            rest = torch.stack([block_toeplitz(own[:, None, None]) for own in self.rest.double().T])
            values, vectors = torch.linalg.eigh(components)
            levels, turn = torch.linalg.eigh(rest)
            found = (vectors, values.clamp_min(0), turn, levels.clamp_min(0))
            self._kept = self.std.device, tuple(part.float() for part in found)
        return self._kept[1]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept = None
        super()._load_from_state_dict(*args, **kwargs)
