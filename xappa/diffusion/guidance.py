r"""Conditioning a denoiser on observations: Denoiser → Denoiser.

Given a prior's denoiser :math:`\hat{x}(x_t) = \operatorname{E}[x \mid x_t]` and observations
:math:`y \sim \mathcal{N}(A(x), R)`, each class here returns a denoiser of the posterior,
:math:`\operatorname{E}[x \mid x_t, y]`, or an approximation of it. azula's step samplers then draw
from the posterior unchanged. With :math:`V_t = \operatorname{Cov}[x \mid x_t]` and A linear,

.. math:: \operatorname{E}[x \mid x_t, y]
    = \hat{x} + V_t A^\top (R + A V_t A^\top)^{-1} (y - A \hat{x})

is exact for a Gaussian prior. The methods differ in what stands for :math:`V_t` and for the solve:

=====  ==================================================================================
MMPS   Tweedie's covariance :math:`\tfrac{\sigma_t^2}{\alpha_t} \nabla \hat{x}`, Krylov solve
JFPS   a covariance known beforehand, :math:`(\Sigma^{-1} + \alpha_t^2 / \sigma_t^2)^{-1}`
SDA    Tweedie's covariance outside the solve, a diagonal inside it
=====  ==================================================================================

References
----------
Rozet et al. (2024), Learning Diffusion Priors from Observations by Expectation Maximization,
arXiv:2405.13712 (MMPS).
Rozet & Louppe (2023), Score-based Data Assimilation, arXiv:2306.10574 (SDA).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from torch import Tensor

from xappa.diffusion.krylov import Solution, cg, gmres

__all__ = ["JFPSDenoiser", "MMPSDenoiser", "NoiseCovariance", "SDADenoiser"]

SOLVERS = {"cg": cg, "gmres": gmres}


def _vjp(output: Tensor, of: Tensor, v: Tensor) -> Tensor:
    """Vector-Jacobian product that keeps the graph for the next one."""
    gradient: Tensor = torch.autograd.grad(output, of, v, retain_graph=True)[0]
    return gradient


def _prior_free(alpha: Tensor, sigma: Tensor) -> Tensor:
    """Posterior variance of data of unit variance."""
    return sigma**2 / (alpha**2 + sigma**2)


class NoiseCovariance(Protocol):
    """What guidance needs of an observation error covariance R of n observations."""

    @property
    def diagonal(self) -> Tensor:
        """Variances, shape (n,)."""

    def __matmul__(self, v: Tensor) -> Tensor:
        """R v for v of shape (B, n)."""


class _Guided(Denoiser):
    """A denoiser conditioned on observations.

    Parameters
    ----------
    denoiser
        The prior's denoiser, of latents with shape (B, ...).
    y
        Observations, shape (n,) or (B, n).
    operator
        The differentiable map A from (B, ...) to (B, n).
    noise
        The error covariance R.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        operator: Callable[[Tensor], Tensor],
        noise: NoiseCovariance,
    ) -> None:
        super().__init__()
        self.denoiser, self.y, self.operator, self.noise = denoiser, y, operator, noise

    @property
    def schedule(self) -> Schedule:
        """The prior's noise schedule."""
        return self.denoiser.schedule


class _KrylovGuided(_Guided):
    r"""Guidance that solves (R + A V Aᵀ) u = y - A(x̂), the step V Aᵀ u being a by-product.

    Parameters
    ----------
    denoiser, y, operator, noise
        See `_Guided`.
    solver
        ``"cg"`` for symmetric covariances, ``"gmres"`` otherwise.
    iterations
        The most iterations.
    rtol
        Relative residual at which a member stops.
    whiten
        Whether the system is scaled by the standard deviations of R, so that few iterations do
        for observations of different units and errors; the methods as published do not.
    precondition
        Maps a noise level :math:`\sigma_t / \alpha_t` to an approximate inverse of R + A V Aᵀ, a
        map of (B, n), which is applied from the right; with ``"gmres"`` alone.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        operator: Callable[[Tensor], Tensor],
        noise: NoiseCovariance,
        *,
        solver: str = "cg",
        iterations: int = 100,
        rtol: float = 1e-2,
        whiten: bool = True,
        precondition: Callable[[float], Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        super().__init__(denoiser, y, operator, noise)
        self.solver, self.iterations, self.rtol = SOLVERS[solver], iterations, rtol
        self.whiten, self.precondition = whiten, precondition
        self.last: Solution | None = None

    def _solve(
        self,
        x_hat: Tensor,
        y_hat: Tensor,
        adjoint: Callable[[Tensor], Tensor],
        covariance: Callable[[Tensor], Tensor],
        t: Tensor,
    ) -> Solution:
        """Return (R + A V Aᵀ)⁻¹ (y - ŷ), with V Aᵀ times it, of the shape of x̂, as by-product."""
        scale = self.noise.diagonal.rsqrt() if self.whiten else y_hat.new_ones(())
        unscaled = self._unscaled(scale, t)

        def product(v: Tensor) -> tuple[Tensor, Tensor]:
            v = unscaled(v)
            vatv = covariance(adjoint(v))
            avatv = torch.func.jvp(self.operator, (x_hat,), (vatv,))[1]
            return scale * (self.noise @ v + avatv), vatv

        departure = scale * (self.y - y_hat).detach()
        self.last = self.solver(product, departure, iterations=self.iterations, rtol=self.rtol)
        return replace(self.last, solution=unscaled(self.last.solution))

    def _unscaled(self, scale: Tensor, t: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the map from the unknowns of the solve to u."""
        if self.precondition is None:
            return lambda v: scale * v
        alpha, sigma = self.schedule(t)
        inverse = self.precondition(float(sigma / alpha))
        return lambda v: inverse(v / scale)


class MMPSDenoiser(_KrylovGuided):
    r"""Moment-matching posterior sampling.

    :math:`V_t = \tfrac{\sigma_t^2}{\alpha_t} \nabla_{x_t} \hat{x}` through automatic
    differentiation. Exact for a Gaussian prior and a linear operator when the solve is complete.

    Parameters
    ----------
    denoiser, y, operator, noise, solver, iterations, rtol, whiten
        As for `JFPSDenoiser`.
    simple
        Whether :math:`\sigma_t^2 / (\alpha_t^2 + \sigma_t^2)`, the posterior variance of data of
        unit variance that do not correlate, stands for :math:`V_t` in the solve: cheaper, as the
        denoiser is then differentiated once.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        operator: Callable[[Tensor], Tensor],
        noise: NoiseCovariance,
        *,
        simple: bool = False,
        **krylov: Any,
    ) -> None:
        super().__init__(denoiser, y, operator, noise, **krylov)
        self.simple = simple

    @torch.no_grad()
    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return the posterior mean given x_t of shape (B, ...) at time t of shape ()."""
        alpha, sigma = self.schedule(t)
        gamma, simple = ((a).to(x_t) for a in (sigma**2 / alpha, _prior_free(alpha, sigma)))
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = self.denoiser(x_t, t, **kwargs).mean
            x_out = x_hat.detach().requires_grad_()
            y_hat = self.operator(x_out)

        def adjoint(v: Tensor) -> Tensor:
            return _vjp(y_hat, x_out, v)

        def tweedie(v: Tensor) -> Tensor:
            # Tweedie's covariance is symmetric, so that the vector-Jacobian product serves.
            return _vjp(x_hat, x_t, gamma * v)

        value = x_hat.detach()
        if self.simple:
            found = self._solve(value, y_hat, adjoint, lambda v: simple * v, t)
            return DiracPosterior(mean=value + tweedie(adjoint(found.solution)))
        found = self._solve(value, y_hat, adjoint, tweedie, t)
        return DiracPosterior(mean=value + found.by_product)


class JFPSDenoiser(_KrylovGuided):
    r"""Jacobian-free posterior sampling.

    Parameters
    ----------
    denoiser, y, operator, noise, solver, iterations, rtol, whiten
        See `xappa.diffusion.guidance`: the prior's denoiser of latents (B, ...); observations (n)
        or (B, n); the differentiable map from (B, ...) to (B, n); the error covariance R; ``"cg"``
        or ``"gmres"``; the most iterations; the relative residual at which a member stops; and
        whether the system is scaled by R.
    covariance
        Maps (v, t) to :math:`V_t v`. With a Gaussian prior's own covariance the result equals
        that of `MMPSDenoiser`, without differentiating the denoiser.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        operator: Callable[[Tensor], Tensor],
        noise: NoiseCovariance,
        covariance: Callable[[Tensor, Tensor], Tensor],
        **krylov: Any,
    ) -> None:
        super().__init__(denoiser, y, operator, noise, **krylov)
        self.covariance = covariance

    @torch.no_grad()
    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return the posterior mean given x_t of shape (B, ...) at time t of shape ()."""
        x_hat = self.denoiser(x_t, t, **kwargs).mean
        with torch.enable_grad():
            x_out = x_hat.detach().requires_grad_()
            y_hat = self.operator(x_out)

        def adjoint(v: Tensor) -> Tensor:
            return _vjp(y_hat, x_out, v)

        found = self._solve(x_hat, y_hat, adjoint, lambda v: self.covariance(v, t), t)
        return DiracPosterior(mean=x_hat + found.by_product)


class SDADenoiser(_Guided):
    r"""Score-based data assimilation.

    .. math:: \hat{x} + \tfrac{\sigma_t^2}{\alpha_t} \nabla_{x_t} \log
        \mathcal{N} \left( y \mid A(\hat{x}),
        \operatorname{diag}(R) + \gamma \tfrac{\sigma_t^2}{\alpha_t^2} S^2 \right)

    Parameters
    ----------
    denoiser, y, operator, noise
        As for `MMPSDenoiser`; correlations in R are left out, as the method does.
    scale
        :math:`S`, shape (n,): 1 for observations in standardised units that do not overlap, as in
        the paper. Where observations share latents, :math:`S_i^2 = \sum_j |G G^\top|_{ij}` for the
        derivative G of A bounds :math:`G V_t G^\top \preceq \tfrac{\sigma_t^2}{\alpha_t^2} S^2`,
        without which the guidance overshoots and the reverse diffusion diverges.
    gamma
        :math:`\gamma`; at least 1 keeps that bound.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        operator: Callable[[Tensor], Tensor],
        noise: NoiseCovariance,
        scale: Tensor,
        *,
        gamma: float = 1.0,
    ) -> None:
        super().__init__(denoiser, y, operator, noise)
        self.scale, self.gamma = scale, gamma

    @torch.no_grad()
    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return the posterior mean given x_t of shape (B, ...) at time t of shape ()."""
        alpha, sigma = self.schedule(t)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = self.denoiser(x_t, t, **kwargs).mean
            y_hat = self.operator(x_hat)
        variance = self.noise.diagonal + self.gamma * (sigma / alpha * self.scale) ** 2
        weighted = ((self.y - y_hat) / variance).detach()
        (gradient,) = torch.autograd.grad(y_hat, x_t, weighted)
        return DiracPosterior(mean=x_hat.detach() + sigma**2 / alpha * gradient)
