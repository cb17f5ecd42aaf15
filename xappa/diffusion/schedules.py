r"""Noise schedules of latent diffusion, with :math:`\alpha_t = 1`, in float64 throughout.

In single precision the rectified schedule misses its end by 1e-5 of :math:`\sigma_{\max}`, and half
precision misplaces every level.
"""

from __future__ import annotations

import abc
import math

import torch
from azula.noise import Schedule
from torch import Tensor

from xappa.errors import ArgumentError

__all__ = ["SCHEDULES", "LogLinearSchedule", "LogLogitSchedule", "RectifiedSchedule", "schedule_of"]


class _Levels(Schedule):
    """A schedule of noise levels from ``sigma_min`` at t = 0 to ``sigma_max`` at t = 1.

    Parameters
    ----------
    sigma_min, sigma_max
        The least and the largest standard deviation of the noise.
    """

    def __init__(self, sigma_min: float = 1e-3, sigma_max: float = 1e3) -> None:
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)

    @abc.abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise levels at times t, of any shape, float64."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the signal and noise scales at times t of any shape, float64."""
        t = t.double()
        return torch.ones_like(t), self.sigma(t)


class LogLinearSchedule(_Levels):
    r""":math:`\sigma_t = \sigma_{\min}^{1 - t} \sigma_{\max}^{t}`."""

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise levels at times t."""
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return torch.exp(low + (high - low) * t)


class LogLogitSchedule(_Levels):
    r""":math:`\sigma_t = \sqrt{\sigma_{\min} \sigma_{\max}} \exp(\rho \operatorname{logit} t')`.

    t' runs from :math:`\epsilon` to :math:`1 - \epsilon`, where
    :math:`\epsilon = (\sigma_{\min} / \sigma_{\max})^{1 / 2 \rho}`; so the ends are met nearly.

    Parameters
    ----------
    sigma_min, sigma_max
        The least and the largest noise level.
    spread
        :math:`\rho`: the larger, the fewer levels lie in the middle.
    """

    def __init__(
        self, sigma_min: float = 1e-3, sigma_max: float = 1e3, spread: float = 2.0
    ) -> None:
        super().__init__(sigma_min, sigma_max)
        self.spread = spread

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise levels at times t."""
        eps = (self.sigma_min / self.sigma_max) ** (0.5 / self.spread)
        middle = math.log(self.sigma_min * self.sigma_max) / 2
        return torch.exp(self.spread * torch.logit(eps + (1 - 2 * eps) * t) + middle)


class RectifiedSchedule(_Levels):
    r""":math:`\sigma_t = (t + (1 - t) \sigma_{\min}) / (1 - t + t / \sigma_{\max})`."""

    def sigma(self, t: Tensor) -> Tensor:
        """Return the noise levels at times t."""
        return (t + (1 - t) * self.sigma_min) / (1 - t + t / self.sigma_max)


#: Names as the published models write them.
SCHEDULES: dict[str, type[_Levels]] = {
    "rectified": RectifiedSchedule,
    "loglinear": LogLinearSchedule,
    "loglogit": LogLogitSchedule,
}


def schedule_of(name: str, sigma_min: float, sigma_max: float) -> Schedule:
    """Return the schedule of a name.

    Raises
    ------
    ArgumentError
        If there is none of that name, or the levels do not increase from above zero.
    """
    if name not in SCHEDULES or not 0 < sigma_min < sigma_max:
        raise ArgumentError(
            "there is no such noise schedule",
            where="noise schedule",
            expected=f"one of {', '.join(SCHEDULES)}, with 0 < sigma_min < sigma_max",
            got=f"{name!r} from {sigma_min} to {sigma_max}",
            remedy="correct the name or the levels",
        )
    return SCHEDULES[name](sigma_min, sigma_max)
