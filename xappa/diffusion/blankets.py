r"""Denoising trajectories of any length with a network that knows blankets of K states.

A blanket's denoiser is preconditioned as Karras et al. (2022) do for data of unit variance,

.. math:: \hat{x}(x_t) = \frac{x_t}{1 + \sigma_t^2}
    + \frac{\sigma_t}{\sqrt{1 + \sigma_t^2}}
    \operatorname{net} \left( \frac{x_t}{\sqrt{1 + \sigma_t^2}}, 10 \ln \sigma_t \right) .

A network may know what a Gaussian of the same mean and covariance would be expected to be
(`xappa.nn.gaussian`): that takes the place of the first term, and is told to the network, too.

A trajectory of T states is cut into blankets that overlap, the blankets of all members are denoised
in one batch, and the results are stitched: each state is taken from one blanket, or averaged.

============  ==================================================================================
symmetrical   from the blanket in which the state is farthest from an end
causal        from the first blanket that holds the state, which sees as much past as there is
average       the mean over all blankets that hold the state
============  ==================================================================================

Stitching is an approximation: states farther apart than a blanket do not know of each other within
one call, though they do over the steps of the reverse diffusion (Rozet & Louppe 2023).

References
----------
Karras et al. (2022), arXiv:2206.00364. Rozet & Louppe (2023), arXiv:2306.10574.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xappa.errors import ArgumentError

__all__ = ["BlanketDenoiser", "Cut", "TrajectoryDenoiser"]

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class BlanketDenoiser(Denoiser):
    """The preconditioned denoiser of blankets; an azula `Denoiser`.

    Parameters
    ----------
    network
        Maps blankets (B, K, L), noise levels (B) and date features (B, K, 4) to (B, K, L); if it
        has an attribute ``gaussian`` that is not None, that maps unscaled blankets, noise levels
        and dates to what is expected of a Gaussian, which the network takes as its last argument.
    schedule
        The noise schedule.
    batch
        The most blankets in one call of the network; None for all at once.
    """

    def __init__(
        self, network: torch.nn.Module, schedule: Schedule, batch: int | None = None
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.batch = network, schedule, batch

    def at(self, x_t: Tensor, sigma: Tensor, dates: Tensor) -> Tensor:
        """Return the expected latents.

        Parameters
        ----------
        x_t
            Noisy blankets, shape (B, K, L).
        sigma
            Noise levels, shape () or (B).
        dates
            Date features, shape (B, K, 4).
        """
        sigma = sigma.double().expand(len(x_t))
        total = (1 + sigma**2).sqrt()
        level = (10 * sigma.log()).to(x_t)
        scale, skip, out = (a.to(x_t)[:, None, None] for a in (1 / total, total**-2, sigma / total))
        gaussian = getattr(self.network, "gaussian", None)
        guess = skip * x_t if gaussian is None else gaussian(x_t, sigma, dates)
        told = (scale * x_t, level, dates, *(() if gaussian is None else (guess,)))
        expected: Tensor = guess + out * self._called(told)
        return expected

    def _called(self, told: tuple[Tensor, ...]) -> Tensor:
        """Call the network on as many blankets at once as it may see."""
        if self.batch is None or len(told[0]) <= self.batch:
            result: Tensor = self.network(*told)
            return result
        batches = zip(*(part.split(self.batch) for part in told), strict=True)
        if torch.is_grad_enabled():  # what does not fit is computed again for its gradient
            parts = [checkpoint(self.network, *b, use_reentrant=False) for b in batches]
        else:
            parts = [self.network(*b) for b in batches]
        return torch.cat(parts)

    def forward(self, x_t: Tensor, t: Tensor, dates: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return the expected latents given x_t (B, K, L) at time t, of shape () or (B)."""
        _, sigma = self.schedule(t)
        return DiracPosterior(mean=self.at(x_t, sigma, dates))


@dataclass(frozen=True)
class Cut:
    """How a trajectory is cut into blankets and stitched again.

    Parameters
    ----------
    length
        States T of the trajectory.
    blanket
        States K of a blanket, at most T.
    stride
        States from one blanket to the next; the last one is moved back to the trajectory's end
        where the stride does not divide.
    stitching
        ``"symmetrical"``, ``"causal"`` or ``"average"``.
    """

    length: int
    blanket: int
    stride: int
    stitching: str = "symmetrical"

    def __post_init__(self) -> None:
        if not (1 <= self.blanket <= self.length and 1 <= self.stride <= self.blanket):
            raise ArgumentError(
                "the trajectory cannot be cut so",
                where="guidance=, overlap",
                expected=f"blankets of at most {self.length} states that overlap by 0 to "
                f"{self.blanket - 1}",
                got=f"blankets of {self.blanket}, overlap {self.blanket - self.stride}",
                remedy="choose another overlap, or leave it out for half a blanket",
            )

    @property
    def starts(self) -> list[int]:
        """First state of each blanket."""
        last = self.length - self.blanket
        return [*range(0, last, self.stride), last]

    def unfold(self, x: Tensor) -> Tensor:
        """Cut x of shape (B, T, ...) into blankets, shape (B N, K, ...)."""
        parts = [x[:, start : start + self.blanket] for start in self.starts]
        return torch.stack(parts, dim=1).flatten(0, 1)

    def fold(self, x: Tensor) -> Tensor:
        """Stitch blankets (B N, K, ...) to a trajectory (B, T, ...)."""
        x = x.unflatten(0, (-1, len(self.starts)))
        if self.stitching == "average":
            out = x.new_zeros(x.shape[0], self.length, *x.shape[3:])
            count = x.new_zeros(self.length, *[1] * (x.ndim - 3))
            for n, start in enumerate(self.starts):
                here = slice(start, start + self.blanket)
                out[:, here] = out[:, here] + x[:, n]
                count[here] += 1
            return out / count
        parts = [x[:, n, begin:end] for n, begin, end in self._taken()]
        return torch.cat(parts, dim=1)

    def _taken(self) -> list[tuple[int, int, int]]:
        """Which states (begin to end, within it) are taken from which blanket."""
        taken, done = [], 0
        for n, start in enumerate(self.starts):
            end = start + self.blanket
            if self.stitching == "symmetrical" and n + 1 < len(self.starts):
                # half of the overlap with the next one, the earlier half if it is odd
                following = self.starts[n + 1]
                end = following + (end - following) // 2
            taken.append((n, done - start, end - start))
            done = end
        return taken


class TrajectoryDenoiser(Denoiser):
    """The stitched denoiser of a trajectory; an azula `Denoiser` of latents (B, T, L).

    Parameters
    ----------
    denoiser
        The blankets' denoiser.
    dates
        Date features of the T states, shape (T, 4).
    cut
        How the trajectory is cut and stitched.
    """

    def __init__(self, denoiser: BlanketDenoiser, dates: Tensor, cut: Cut) -> None:
        super().__init__()
        self.denoiser, self.dates, self.cut = denoiser, dates, cut

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return self.denoiser.schedule

    def at(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        """Return the expected latents given x_t (B, T, L) at a noise level of shape () or (B)."""
        blankets = self.cut.unfold(x_t)
        dates = self.cut.unfold(self.dates.expand(len(x_t), *self.dates.shape))
        if sigma.ndim:
            sigma = sigma.repeat_interleave(len(self.cut.starts))
        return self.cut.fold(self.denoiser.at(blankets, sigma, dates))

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return the expected latents given x_t (B, T, L) at time t, of shape () or (B)."""
        _, sigma = self.schedule(t)
        return DiracPosterior(mean=self.at(x_t, sigma))
