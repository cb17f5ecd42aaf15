r"""Reverse diffusion: azula's samplers by name, a schedule for few steps, and member-wise DPS.

The schedule spreads its steps evenly in :math:`\sigma^{1/\rho}` (Karras et al. 2022, equation 5),

.. math:: \alpha_t = 1, \quad
    \sigma_t = \left( \sigma_{\min}^{1/\rho}
        + t \, (\sigma_{\max}^{1/\rho} - \sigma_{\min}^{1/\rho}) \right)^{\rho} .

References
----------
Karras et al. (2022), Elucidating the Design Space of Diffusion-Based Generative Models,
arXiv:2206.00364.
Chung et al. (2022), Diffusion Posterior Sampling for General Noisy Inverse Problems,
arXiv:2209.14687.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import azula.sample
import numpy as np
import torch
from azula.denoise import Denoiser
from azula.noise import Schedule
from torch import Tensor

from xappa.diffusion.edm_sampler import EDMSampler
from xappa.diffusion.memberwise import MemberNoise
from xappa.errors import ArgumentError

__all__ = [
    "SAMPLERS",
    "DPSSampler",
    "KarrasSchedule",
    "LangevinSampler",
    "Sampler",
    "draw",
    "draw_fields",
]


class KarrasSchedule(Schedule):
    """Noise levels evenly spaced in their ρ-th root; float64 throughout.

    Parameters
    ----------
    sigma_min, sigma_max
        The least and the largest noise; standardised latents want at least 100 for the latter.
    rho
        The larger, the more steps go to small noise.
    """

    def __init__(self, sigma_min: float = 1e-3, sigma_max: float = 1e3, rho: float = 7.0) -> None:
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the signal and noise scales at times t of any shape."""
        t = t.double()
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return torch.ones_like(t), (low + t * (high - low)) ** self.rho


class LangevinSampler(azula.sample.PCSampler):
    r"""Predictor-corrector with unadjusted Langevin corrections, as Appa takes them.

    .. math:: x_t \gets x_t + \delta (\alpha_t \hat{x} - x_t) + \sqrt{2 \delta} \, \sigma_t \epsilon

    azula's own corrector shrinks the noise of x_t and refills it instead, which keeps its variance.

    References
    ----------
    Song et al. (2021), Score-Based Generative Modeling through Stochastic Differential Equations,
    arXiv:2011.13456.
    """

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, **kwargs: Any) -> Tensor:
        """Step from time t to time s < t."""
        alpha_s, sigma_s = (a.to(x_t) for a in self.denoiser.schedule(s))
        alpha_t, sigma_t = (a.to(x_t) for a in self.denoiser.schedule(t))
        for _ in range(self.corrections):
            pull = alpha_t * self.denoiser(x_t, t, **kwargs).mean - x_t
            kick = math.sqrt(2 * self.delta) * sigma_t * torch.randn_like(x_t)
            x_t = x_t + self.delta * pull + kick
        x_hat = self.denoiser(x_t, t, **kwargs).mean
        x_s: Tensor = alpha_s * x_hat + sigma_s / sigma_t * (x_t - alpha_t * x_hat)
        return x_s


SAMPLERS: dict[str, type[azula.sample.Sampler]] = {
    "ddim": azula.sample.DDIMSampler,
    "ddpm": azula.sample.DDPMSampler,
    "edm": EDMSampler,
    "euler": azula.sample.EulerSampler,
    "heun": azula.sample.HeunSampler,
    "langevin": LangevinSampler,
    "lms": azula.sample.zABSampler,
    "multistep": azula.sample.xEABSampler,
    "pc": azula.sample.PCSampler,
}


@dataclass(frozen=True)
class Sampler:
    """How the reverse diffusion is integrated.

    Parameters
    ----------
    name
        ``"heun"`` (second order), ``"multistep"`` (exponential Adams-Bashforth), ``"lms"``
        (Adams-Bashforth in the noise level), ``"edm"`` (second order with churn, to zero noise),
        ``"ddim"``, ``"ddpm"``, ``"euler"`` (first order), ``"pc"`` or ``"langevin"``
        (predictor-corrector).
    steps
        Number of steps.
    options
        Further keyword arguments of azula's sampler, such as ``{"order": 3}`` for ``multistep``,
        ``{"eta": 1.0}`` for ``ddim``, ``{"corrections": 2, "delta": 0.01}`` for ``pc``.

    Examples
    --------
    >>> Sampler("multistep", steps=16, options={"order": 3})
    Sampler(name='multistep', steps=16, options={'order': 3})
    """

    name: str = "heun"
    steps: int = 32
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name not in SAMPLERS:
            raise ArgumentError(
                f"unknown sampler {self.name!r}",
                where="sampler=",
                expected=", ".join(sorted(SAMPLERS)),
                got=repr(self.name),
                remedy="use one of the expected names, or a function from denoiser to sampler",
            )
        steps = np.asarray(self.steps)
        if steps.ndim or steps.dtype.kind not in "iu" or steps < 1:  # neither 2.5 nor True
            raise ArgumentError(
                "a sampler takes at least one step, and a whole number of them",
                where="sampler=",
                expected="an integer steps >= 1",
                got=repr(self.steps),
                remedy=f"write for example Sampler({self.name!r}, steps=32)",
            )
        known = _option_names(SAMPLERS[self.name])
        options = {} if self.options is None else self.options
        if not isinstance(options, Mapping) or (set(options) - set(known)):
            raise ArgumentError(
                f"the sampler {self.name!r} does not take these options",
                where="sampler=, options",
                expected=f"a dict with some of {', '.join(known)}",
                got=repr(self.options),
                remedy="correct the names, or leave the options out; the steps are set by steps=",
            )

    def __call__(self, denoiser: Denoiser) -> azula.sample.Sampler:
        """Build azula's sampler for a denoiser."""
        kind = SAMPLERS[self.name]
        return kind(
            denoiser, steps=self.steps, silent=True, dtype=torch.float64, **(self.options or {})
        )


def _option_names(kind: type[azula.sample.Sampler]) -> list[str]:
    """Return the keyword arguments of an azula sampler that `Sampler` does not set itself."""
    names = [
        parameter.name
        for base in kind.__mro__
        if "__init__" in vars(base) and base is not object
        for parameter in inspect.signature(base).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    taken = {"denoiser", "steps", "silent", "dtype"}
    return [name for name in dict.fromkeys(names) if name not in taken]


class DPSSampler(azula.sample.DDPMSampler):
    r"""Diffusion posterior sampling with one norm for each member.

    After each DDPM step, :math:`\zeta \nabla_{x_t} \| R^{-1/2} (y - A(\hat{x})) \|` is subtracted.
    azula's own takes one norm over the whole batch, so that members would influence each other.

    Parameters
    ----------
    denoiser
        The prior's denoiser.
    y
        Observations, shape (n,) or (B, n).
    operator
        The differentiable map from (B, ...) to (B, n).
    variance
        Observation error variances, shape (n,).
    zeta
        Strength of the guidance.
    **kwargs
        Arguments of azula's sampler.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        operator: Callable[[Tensor], Tensor],
        variance: Tensor,
        *,
        zeta: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(denoiser, **kwargs)
        self.y, self.operator, self.variance, self.zeta = y, operator, variance, zeta

    @torch.no_grad()
    def step(self, x_t: Tensor, t: Tensor, s: Tensor, **kwargs: Any) -> Tensor:
        """Step from time t to time s < t."""
        alpha_s, sigma_s = self.denoiser.schedule(s)
        alpha_t, sigma_t = self.denoiser.schedule(t)
        tau = 1 - (alpha_t / alpha_s * sigma_s / sigma_t) ** 2
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = self.denoiser(x_t, t, **kwargs).mean
            misfit = (self.y - self.operator(x_hat)) * self.variance.rsqrt()
            norms = torch.linalg.vector_norm(misfit, dim=-1).sum()
        (gradient,) = torch.autograd.grad(norms, x_t)
        x_t, x_hat = x_t.detach(), x_hat.detach()
        noise = (x_t - alpha_t * x_hat) / sigma_t
        x_s: Tensor = (
            alpha_s * x_hat
            + sigma_s * torch.sqrt(1 - tau) * noise
            + sigma_s * torch.sqrt(tau) * torch.randn_like(x_t)
        )
        return x_s - self.zeta * gradient


def draw(
    sampler: azula.sample.Sampler,
    size: int,
    *,
    seed: int,
    members: Sequence[int],
    times: Sequence[float] | np.ndarray,
    like: Tensor,
    progress: Callable[[Any], Any] | None = None,
    purpose: str = "sampler",
) -> Tensor:
    """Draw trajectories of latents by reverse diffusion, each member from its own streams.

    Parameters
    ----------
    sampler
        An azula sampler around a (guided) denoiser of shape (B, T, L).
    size
        L, the size of a latent state.
    seed, members, times
        The key of the random streams: B members, T valid times in seconds.
    like
        A tensor with the dtype and the device wanted.
    progress
        Wraps the iterable of steps, as `tqdm.tqdm` does.
    purpose
        What the numbers are for: part of the key of the streams.

    Returns
    -------
    Tensor
        Latents, shape (B, T, L).
    """
    shape = (len(members), len(times), size)
    with MemberNoise(seed, purpose, members, times):
        return _drawn(sampler, shape, like, progress)


def draw_fields(
    sampler: azula.sample.Sampler,
    shape: Sequence[int],
    *,
    seed: int,
    members: Sequence[int],
    times: Sequence[float] | np.ndarray,
    like: Tensor,
    progress: Callable[[Any], Any] | None = None,
    purpose: str = "sampler",
    **known: Any,
) -> Tensor:
    """Draw fields that are independent in time, each from the stream of its member and time.

    Parameters
    ----------
    sampler
        An azula sampler around a (guided) denoiser of shape (N, C, H, W).
    shape
        Channels, rows and columns (C, H, W) of a field.
    seed, members, times
        The key of the random streams: field i is that of ``members[i]`` at ``times[i]`` (valid time
        in seconds), N of each. Which fields share a call makes no odds.
    like
        A tensor with the dtype and the device wanted.
    progress, purpose
        As for `draw`.
    **known
        Arguments of the denoiser, such as ``condition`` of shape (N, D, H, W).

    Returns
    -------
    Tensor
        Shape (N, C, H, W).
    """
    with MemberNoise(seed, purpose, members, times, paired=True):
        return _drawn(sampler, (len(members), *shape), like, progress, **known)


def _drawn(
    sampler: azula.sample.Sampler,
    shape: Sequence[int],
    like: Tensor,
    progress: Callable[[Any], Any] | None,
    **known: Any,
) -> Tensor:
    """Draw with the random numbers that are in force."""
    if progress is not None:
        wrap = progress

        def progress_bar(steps: Any) -> Any:
            return wrap(list(steps.unbind()) if torch.is_tensor(steps) else steps)

        sampler.progress_bar = progress_bar
    x = sampler.init(shape, dtype=like.dtype, device=like.device)
    drawn: Tensor = sampler(x, **known)
    return drawn
