r"""Drawing from the posterior of a latent diffusion prior.

Observations :math:`y = H(x) + e` of states :math:`x = \operatorname{dec}(z) + r` are observations
of latents, :math:`y = H(\operatorname{dec}(z)) + e'`, whose error holds what the autoencoder loses,

.. math:: R' = R + \operatorname{diag} \left( \textstyle\sum_j |h_{ij}| \rho_j \right)^2 ,

with the standard deviation :math:`\rho` of the reconstruction error of the observed channels, which
is taken to be the same at neighbouring points. Latents themselves may be observed, too: states that
were encoded (a background, the past of a forecast) with an error in latent space, which is
correlated in physical space as decoded noise is.

Only states with observations are decoded, each once in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import azula.sample
import numpy as np
import torch
from azula.denoise import Denoiser
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from xappa.device import LEAST_BUDGET, memory_budget, most_rows, ran_out_of_memory
from xappa.diffusion.blankets import BlanketDenoiser, Cut, TrajectoryDenoiser
from xappa.diffusion.sampling import DPSSampler, Sampler, draw
from xappa.diffusion.scoped import BlanketwiseDenoiser
from xappa.models.appa.estimate import LatentEstimate
from xappa.models.appa.guide import Blankets, ObservationNoise, bounding_scale, guided
from xappa.models.appa.model import AppaModel
from xappa.models.posterior import Draws
from xappa.models.settings import Guidance
from xappa.observe import ObservationOperator
from xappa.observe.rows import Rows

__all__ = ["LatentPosterior"]

#: Krylov iterations where latents alone are observed, so that no state is decoded.
LATENT_ITERATIONS = 10


@dataclass(frozen=True, eq=False)
class LatentPosterior:
    """The posterior of a trajectory of a latent diffusion prior.

    Parameters
    ----------
    model
        The prior.
    operator
        The observation operator, built for the T states of the trajectory.
    seconds
        Valid times, shape (T,), in the model's calendar.
    estimate
        Latents that are known, if any are.
    budget
        Bytes of activations that are kept for gradients at a time; None for what the device has.
    """

    model: AppaModel
    operator: ObservationOperator
    seconds: np.ndarray
    estimate: LatentEstimate | None = None
    budget: int | None = None

    @cached_property
    def padded(self) -> np.ndarray:
        """Valid times with as many states after the last as make up one blanket."""
        step = float(self.model.spec.time_step or 3600.0)
        more = max(0, self.model.blanket - len(self.seconds))
        return np.concatenate([self.seconds, self.seconds[-1] + step * np.arange(1, more + 1)])

    # The observations -----------------------------------------------------------------------------

    @cached_property
    def observed_states(self) -> np.ndarray:
        """Which of the T states have observations."""
        rows = self.operator.rows
        states: np.ndarray = np.unique(rows.indices // rows.state_size)
        return states

    @cached_property
    def _compact(self) -> ObservationOperator:
        """The operator for the observed states alone."""
        rows = self.operator.rows
        time, point = np.divmod(rows.indices, rows.state_size)
        place = np.searchsorted(self.observed_states, time)
        shape = (len(self.observed_states), *rows.shape[1:])
        compact = Rows(shape, rows.indptr, place * rows.state_size + point, rows.data)
        own = self.operator
        times = own.times[self.observed_states]
        return ObservationOperator(own.specs, own.state, times, own.status, compact, own.functions)

    def observe(self, z: Tensor) -> Tensor:
        """Map latents (B, T, L) to equivalents of all observations (B, n); differentiable."""
        states = torch.as_tensor(self.observed_states, device=z.device)
        return self.equivalents(z, self.decode_observed(z[:, states]))

    def equivalents(self, z: Tensor, x: Tensor) -> Tensor:
        """Map latents (B, T, L) and decoded observed states (B, o, ...) to equivalents (B, n)."""
        parts = [z.new_zeros(len(z), 0)]
        if self.operator.n_used:
            parts.append(self._compact.apply(x))
        if self.estimate is not None:
            parts.append(self.estimate.equivalents(z))
        return torch.cat(parts, dim=1)

    def decode_observed(self, z: Tensor) -> Tensor:
        """Decode latents (B, o, L) to states (B, o, channel, latitude, longitude)."""
        if not z.shape[1]:
            return z.new_zeros(len(z), 0, *self.model.spec.shape)
        x: Tensor = self._decode(z.flatten(0, 1)).unflatten(0, (len(z), -1))
        return x

    def _decode(self, z: Tensor) -> Tensor:
        """Decode latents (N, L), recomputing activations where they would not fit."""
        each = self.model.activation_bytes
        size = max(1, min(most_rows(self.model.device), self.memory // each))
        if len(z) * each <= self.memory or not torch.is_grad_enabled():
            return torch.cat([self.model.decode_tensor(part) for part in z.split(size)])
        parts = [
            checkpoint(self.model.decode_tensor, part, use_reentrant=False)
            for part in z.split(size)
        ]
        return torch.cat(parts)

    @cached_property
    def values(self) -> np.ndarray:
        """Observed values, then known latents, shape (n,) or (B, n)."""
        y = self.operator.values
        if self.estimate is None:
            return y
        known = self.estimate.values
        lead = np.broadcast_to(y, (*known.shape[:-1], len(y)))
        return np.concatenate([lead, known], axis=-1)

    @cached_property
    def variance(self) -> np.ndarray:
        """Error variances, with what the autoencoder loses, shape (n,)."""
        lost = self._scaled("reconstruction")
        variance: np.ndarray = self.operator.error_covariance.diagonal() + lost**2
        if self.estimate is None:
            return variance
        return np.concatenate([variance, self.estimate.variances])

    @cached_property
    def correlated(self) -> Tensor | None:
        """What R holds beside its diagonal, shape (n, n) in a sparse layout; None for nothing."""
        if self.operator.errors_are_independent:
            return None
        beside = self.operator.error_covariance.tocoo()
        off = beside.row != beside.col
        entries = np.stack([beside.row[off], beside.col[off]])
        return torch.sparse_coo_tensor(
            torch.as_tensor(entries),
            torch.as_tensor(beside.data[off], dtype=torch.float32),
            (self.variance.size, self.variance.size),
            check_invariants=True,
        ).to(self.model.device)

    def _scaled(self, name: str) -> np.ndarray:
        """Carry a standard deviation of states to the observations, shape (n_used,)."""
        rows = self.operator.rows
        points = rows.indices % rows.state_size
        std = self.model.at_points(name, points)
        at_rows = rows.sums(np.abs(rows.data) * std)
        if self.operator.only_interpolates:
            return at_rows
        # Pointwise functions: to first order, at the mean of what they see.
        mean = self.model.at_points("mean", points)
        at = torch.as_tensor(rows.sums(rows.data * mean))
        scaled: np.ndarray = abs(self.operator.linearised(at)[1]) @ at_rows
        return scaled

    def departures(self) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Return departures from the climatology, (n_used,), and their variances.

        The latter as a function of which observations (m,), to a diagonal matrix (m, m): how
        learned states correlate is not known.
        """
        rows = self.operator.rows
        points = rows.indices % rows.state_size
        at = torch.as_tensor(rows.sums(rows.data * self.model.at_points("mean", points)))
        mean, _ = self.operator.linearised(at)
        variance = self.variance[: len(mean)] + self._scaled("std") ** 2
        return self.operator.values - mean, lambda part: np.diag(variance[part])

    # Draws ----------------------------------------------------------------------------------------

    def draw(
        self,
        method: str,
        members: Sequence[int],
        seed: int,
        sampler: Sampler | Callable[[Denoiser], azula.sample.Sampler],
        guidance: Guidance,
        progress: Callable[[Any], Any] | None = None,
        purpose: str = "sampler",
    ) -> Draws:
        """Draw members from the posterior; see `GaussianPosterior.draw`.

        ``purpose`` is part of the key of the random streams.

        Members are drawn in as many batches as memory asks for, smaller ones where it runs out;
        they do not know of each other.
        """
        parts: list[Tensor] = []
        own, first = replace(self, budget=self.memory), 0
        while first < len(members):
            size = own._members_at_once(len(members) - first, guidance)
            batch = slice(first, first + size)
            try:
                sampler_of_batch = own._of_members(batch)._sampler(method, sampler, guidance)
                drawn = draw(
                    sampler_of_batch,
                    self.model.latent_size,
                    seed=seed,
                    members=members[batch],
                    times=self.padded,
                    like=torch.zeros((), device=self.model.device),
                    progress=progress,
                    purpose=purpose,
                )
            except (RuntimeError, MemoryError) as error:
                if own.memory <= LEAST_BUDGET or not ran_out_of_memory(error):
                    raise
                own = replace(own, budget=own.memory // 2)
            else:
                parts.append(drawn.cpu())
                first += size
        latents = torch.cat(parts)[:, : len(self.seconds)].numpy()
        return Draws(latents, np.zeros((len(members), 0)))

    @property
    def memory(self) -> int:
        """Bytes of activations that are kept for gradients at a time."""
        return memory_budget(self.model.device) if self.budget is None else self.budget

    def _members_at_once(self, count: int, guidance: Guidance) -> int:
        """How many members fit; of one that does not, parts are computed again."""
        blankets = self.cut(guidance).starts
        ends = [np.arange(k, k + self.model.blanket) for k in blankets]
        decoded = sum(int(np.isin(self.observed_states, states).sum()) for states in ends)
        each = decoded * self.model.activation_bytes
        each += len(blankets) * self.model.network.config.activation_bytes
        return max(1, min(count, self.memory // each))

    def _of_members(self, batch: slice) -> LatentPosterior:
        """Return the posterior of some members, where each has latents of its own."""
        estimate = self.estimate
        return self if estimate is None else replace(self, estimate=estimate.of_members(batch))

    def cut(self, guidance: Guidance) -> Cut:
        """Return how the trajectory is cut into blankets and stitched."""
        blanket = self.model.blanket
        overlap = blanket // 2 if guidance.overlap is None else guidance.overlap
        return Cut(len(self.padded), blanket, blanket - overlap, guidance.stitching)

    def _sampler(
        self,
        method: str,
        sampler: Sampler | Callable[[Denoiser], azula.sample.Sampler],
        guidance: Guidance,
    ) -> azula.sample.Sampler:
        dates, cut = self.model.dates(self.padded), self.cut(guidance)
        network = self.model.network
        batch = max(1, self.memory // network.config.activation_bytes)
        blankets = BlanketDenoiser(network, self.model.denoiser.schedule, batch)
        prior = TrajectoryDenoiser(blankets, dates, cut)
        if not self.operator.n_used and self.estimate is None:
            return sampler(prior)
        if method == "dps":
            return DPSSampler(
                prior,
                self.tensor(self.values),
                self.observe,
                self.tensor(self.variance),
                zeta=guidance.zeta,
                steps=getattr(sampler, "steps", 64),
                silent=True,
                dtype=torch.float64,
            )
        if not self.operator.n_used and guidance.iterations is None:
            guidance = replace(guidance, iterations=LATENT_ITERATIONS)
        if guidance.scope == "blanket":
            parts = [self._of_blanket(slice(k, k + cut.blanket)) for k in cut.starts]
            guide = Blankets(parts).guide(method, guidance)
            return sampler(BlanketwiseDenoiser(blankets, dates, cut, guide))
        scale = torch.ones((), device=self.model.device)
        if method == "sda":
            own = self.tensor(self.climatological)[None]
            scale = bounding_scale(self.observe, own, self._mean())
        noise = ObservationNoise(self.tensor(self.variance), [self.correlated])
        y = self.tensor(self.values)
        return sampler(guided(prior, y, self.observe, noise, scale, method, guidance))

    def _mean(self) -> Tensor:
        """Return the mean of standardised latents, shape (1, T, L)."""
        shape = (1, len(self.padded), self.model.latent_size)
        return torch.zeros(shape, device=self.model.device)

    def tensor(self, values: np.ndarray) -> Tensor:
        """Return an array as float32 where the networks are."""
        return torch.as_tensor(values, dtype=torch.float32, device=self.model.device)

    def _of_blanket(self, states: slice) -> LatentPosterior:
        """Return the posterior of one blanket, given the observations within it."""
        seconds = self.padded[states]
        operator = ObservationOperator.build(self.operator.specs, self.model.spec, seconds)
        estimate = None if self.estimate is None else self.estimate.within(states)
        return LatentPosterior(self.model, operator, seconds, estimate, self.budget)

    @cached_property
    def climatological(self) -> np.ndarray:
        """Climatological standard deviation of each observation, 1 of latents, shape (n,)."""
        own = self._scaled("std")
        known = 0 if self.estimate is None else self.estimate.variances.size
        return np.concatenate([own, np.ones(known)])

    def decode(
        self, draws: Draws, members: Sequence[int], states: Sequence[int], seed: int
    ) -> np.ndarray:
        """Turn draws into packed states; see `GaussianPosterior.decode`."""
        states = list(states)
        return self.model.decode_array(draws.latents[:, states], self.seconds[states])
