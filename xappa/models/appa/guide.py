r"""Conditioning a learned denoiser on observations of decoded states.

With many observations that see the same latents, SDA's diagonal has to grow: the scale S that its
docstring asks for is the climatological standard deviation :math:`s_i` of each observation times
the root of the largest eigenvalue of :math:`s^{-1} G G^\top s^{-1}`, with the derivative G of the
observations at the mean latent. Power iteration finds it from a few products with G.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from azula.denoise import Denoiser
from torch import Tensor
from torch.nn import functional

from xappa.diffusion.guidance import JFPSDenoiser, MMPSDenoiser, SDADenoiser
from xappa.diffusion.scoped import FixedDates
from xappa.diffusion.switched import SwitchedDenoiser
from xappa.models.appa.precondition import GaussianPreconditioner
from xappa.models.settings import Guidance
from xappa.nn.gaussian import GaussianBlanket

if TYPE_CHECKING:
    from xappa.models.appa.model import AppaModel
    from xappa.models.appa.posterior import LatentPosterior

__all__ = ["Blankets", "ObservationNoise", "bounding_scale", "guided"]

#: Krylov iterations of a learned prior, whose Jacobian is only nearly a covariance.
DEFAULT_ITERATIONS = 3

Observe = Callable[[Tensor], Tensor]
Precondition = Callable[[float], Callable[[Tensor], Tensor]]


class ObservationNoise:
    """An error covariance of all blankets of all members.

    Parameters
    ----------
    diagonal
        Variances, shape (n,) or (B, n).
    beside
        For each of N blankets what its covariance holds beside the diagonal, shape (m, m) in a
        sparse layout with m <= n, or None; rows b, b + N, ... are those of blanket b.
    """

    def __init__(self, diagonal: Tensor, beside: Sequence[Tensor | None] = ()) -> None:
        self.diagonal = diagonal
        self.beside = beside if any(part is not None for part in beside) else ()

    def __matmul__(self, v: Tensor) -> Tensor:
        """Return R v for v of shape (B, n)."""
        product = self.diagonal * v
        for k, part in enumerate(self.beside):
            if part is not None:
                rows = slice(k, None, len(self.beside))
                size = part.shape[0]
                product[rows, :size] += (part.to(v.dtype) @ v[rows, :size].mT).mT
        return product


def guided(
    prior: Denoiser,
    y: Tensor,
    observe: Observe,
    noise: ObservationNoise,
    scale: Tensor,
    method: str,
    guidance: Guidance,
    precondition: Precondition | None = None,
    gaussian: GaussianBlanket | None = None,
) -> Denoiser:
    """Condition a denoiser on observations.

    Parameters
    ----------
    prior
        The denoiser.
    y
        Observations, shape (n) or (B, n).
    observe
        Maps latents (B, T, L) to (B, n).
    noise
        Their error covariance.
    scale
        The scale of ``sda``, shape (n) or (B, n); not used by the others.
    method
        ``"mmps"``, ``"jfps"`` or ``"sda"``.
    guidance
        Further settings.
    precondition
        Of ``mmps`` by ``"gmres"``, see `MMPSDenoiser`.
    gaussian
        Whose covariance stands for Tweedie's where noise is large, with ``mmps``.
    """
    if method == "sda":
        return SDADenoiser(prior, y, observe, noise, scale, gamma=guidance.gamma)
    krylov: dict[str, Any] = {
        "solver": guidance.solver or "gmres",
        "iterations": guidance.iterations or DEFAULT_ITERATIONS,
        "rtol": guidance.rtol,
        "whiten": guidance.whiten,
    }
    if method == "jfps":
        return JFPSDenoiser(prior, y, observe, noise, _unit_covariance(prior), **krylov)
    simple = guidance.covariance == "simple"
    if krylov["solver"] == "gmres" and not simple:
        krylov["precondition"] = precondition
    below = MMPSDenoiser(prior, y, observe, noise, simple=simple, **krylov)
    if gaussian is None or simple or guidance.gaussian_above is None:
        return below
    above = JFPSDenoiser(prior, y, observe, noise, _covariance_of(gaussian, prior), **krylov)
    return SwitchedDenoiser(above, below, guidance.gaussian_above)


def _covariance_of(
    gaussian: GaussianBlanket, prior: Denoiser
) -> Callable[[Tensor, Tensor], Tensor]:
    """Posterior covariance of the Gaussian that a denoiser departs from."""

    def times(v: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = prior.schedule(t)
        return gaussian.covariance(v, sigma / alpha)

    return times


def _unit_covariance(prior: Denoiser) -> Callable[[Tensor, Tensor], Tensor]:
    """Posterior covariance of standardised latents that do not correlate."""

    def times(v: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = prior.schedule(t)
        scaled: Tensor = (sigma**2 / (alpha**2 + sigma**2)).to(v) * v
        return scaled

    return times


def bounding_scale(observe: Observe, scale: Tensor, z: Tensor, *, iterations: int = 24) -> Tensor:
    r"""Return a scale S with :math:`G G^\top \preceq S^2`, proportional to another one.

    Parameters
    ----------
    observe
        Maps latents (B, T, L) to (B, n).
    scale
        Standard deviations that set the proportions, shape (B, n), positive.
    z
        Where the derivative G is taken, shape (B, T, L).
    iterations
        Of the power iteration, whose estimate comes from below; it is raised by a tenth.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        y = observe(z)
    rng = torch.Generator().manual_seed(0)
    v = torch.randn(scale.shape, generator=rng).to(scale)
    largest = torch.ones_like(scale[:, :1])
    for _ in range(iterations):
        v = v / torch.linalg.vector_norm(v, dim=-1, keepdim=True).clamp(min=1e-30)
        (pulled,) = torch.autograd.grad(y, z, v / scale, retain_graph=True)
        v = torch.func.jvp(observe, (z.detach(),), (pulled,))[1] / scale
        largest = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return scale * (1.1 * largest.clamp(min=1e-30)).sqrt()


class Blankets:
    """The observations of the N blankets of a trajectory, side by side.

    Blankets with fewer observations than others are filled up with ones that have neither a
    departure nor a derivative.

    Parameters
    ----------
    parts
        The posterior of each blanket by itself.
    """

    def __init__(self, parts: Sequence[LatentPosterior]) -> None:
        self.parts = parts
        self.size = max(part.variance.size for part in parts)
        values = [part.tensor(part.values) for part in parts]
        batch = max((v.shape[:-1] for v in values), key=len)  # of members, where latents are known
        self.y = self._pad([v.expand(*batch, v.shape[-1]) for v in values])
        self.variance = self._pad([part.tensor(part.variance) for part in parts], 1.0)

    def _pad(self, parts: Sequence[Tensor], value: float = 0.0) -> Tensor:
        """Stack along a new dimension before the last, filled up to the same number."""
        full = [functional.pad(p, (0, self.size - p.shape[-1]), value=value) for p in parts]
        return torch.stack(full, dim=-2)

    @property
    def see_states(self) -> bool:
        """Whether anything but latents is observed."""
        return any(part.operator.n_used for part in self.parts)

    @property
    def _model(self) -> AppaModel:
        return self.parts[0].model

    def observe(self, z: Tensor) -> Tensor:
        """Map the blankets of all members (B N, K, L) to (B N, n); all are decoded together."""
        own = z.unflatten(0, (-1, len(self.parts))).unbind(1)
        seen = [
            z_n[:, torch.as_tensor(part.observed_states, device=z.device)]
            for part, z_n in zip(self.parts, own, strict=True)
        ]
        z_seen = torch.cat(seen, dim=1)
        x = self.parts[0].decode_observed(z_seen)
        states = x.split([s.shape[1] for s in seen], dim=1)
        parts = zip(self.parts, own, states, strict=True)
        return self._pad([part.equivalents(z_n, x_n) for part, z_n, x_n in parts]).flatten(0, 1)

    def guide(self, method: str, guidance: Guidance) -> Callable[[FixedDates], Denoiser]:
        """Return what conditions the denoiser of all blankets of all members."""
        scale = self.variance.new_ones(len(self.parts), self.size)
        if method == "sda":
            first = self.parts[0]
            scale = self._pad([part.tensor(part.climatological) for part in self.parts], 1.0)
            z = scale.new_zeros(len(self.parts), len(first.padded), first.model.latent_size)
            scale = bounding_scale(self.observe, scale, z)

        precondition = (
            self._preconditioner() if method == "mmps" and guidance.precondition else None
        )
        gaussian = None if self.see_states else getattr(self._model.network, "gaussian", None)

        def guide(prior: FixedDates) -> Denoiser:
            members = len(prior.dates) // len(self.parts)
            lead = (members, len(self.parts), self.size)
            y, variance, s = (a.expand(lead).flatten(0, 1) for a in (self.y, self.variance, scale))
            noise = ObservationNoise(variance, [part.correlated for part in self.parts])
            return guided(
                prior, y, self.observe, noise, s, method, guidance, precondition, gaussian
            )

        return guide

    def _preconditioner(self) -> Precondition | None:
        """Return the approximate inverses of all blankets, where there are any."""
        if getattr(self._model.network, "gaussian", None) is None:
            return None
        own = [GaussianPreconditioner(part) for part in self.parts]

        @lru_cache(maxsize=1)  # a step of second order visits its noise level twice in a row
        def precondition(sigma: float) -> Callable[[Tensor], Tensor]:
            inverses = [part.at(sigma) for part in own]

            def apply(v: Tensor) -> Tensor:
                blankets = v.unflatten(0, (-1, len(own))).unbind(1)
                solved = [
                    functional.pad(inverse(each[:, : part.n]), (0, self.size - part.n))
                    for inverse, part, each in zip(inverses, own, blankets, strict=True)
                ]
                return torch.stack(solved, dim=1).flatten(0, 1)

            return apply

        return precondition
