r"""Downscaling that knows of observations: residuals drawn given both.

Fine fields are a function of the residual r alone, :math:`y = f^{-1}(\mu + \rho r)`, so that
observations :math:`o = H(y) + e` are observations of r, and the denoiser of residuals is guided by
them as any other is (`xappa.diffusion.guidance`). The fields of several times are a trajectory
whose states do not know of each other, but for observations between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import azula.sample
import numpy as np
import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from torch import Tensor

from xappa.diffusion.sampling import draw
from xappa.models.appa.guide import ObservationNoise, guided
from xappa.models.corrdiff.conditions import Conditions
from xappa.models.corrdiff.model import CorrDiffModel
from xappa.models.settings import Guidance
from xappa.observe import ObservationOperator

__all__ = ["FieldPosterior"]


class _Trajectory(Denoiser):
    """The denoiser of the fields of T times, flattened: (B, T, L).

    Parameters
    ----------
    denoiser
        Of fields (N, c, H, W).
    conditions
        Of the T fields.
    """

    def __init__(self, denoiser: Denoiser, conditions: Conditions) -> None:
        super().__init__()
        self.denoiser, self.conditions = denoiser, conditions

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return self.denoiser.schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return the expected residuals given x_t (B, T, L) at time t of shape ()."""
        shape = self.conditions.departed.shape[1:]
        times = torch.arange(x_t.shape[1], device=x_t.device).repeat(len(x_t))
        told = self.conditions.rows(times)
        mean = self.denoiser(
            x_t.reshape(-1, *shape), t, condition=told.condition, labels=told.labels
        ).mean
        return DiracPosterior(mean=mean.reshape(x_t.shape))


@dataclass(frozen=True, eq=False)
class FieldPosterior:
    """The posterior of the fine fields of T times.

    Parameters
    ----------
    model
        The downscaling model.
    operator
        Of the observations, built for the T times.
    conditions
        What is known of the fields.
    seconds
        Valid times, shape (T,).
    """

    model: CorrDiffModel
    operator: ObservationOperator
    conditions: Conditions
    seconds: np.ndarray

    def observe(self, x: Tensor) -> Tensor:
        """Map residuals (B, T, L) to equivalents of the observations (B, n); differentiable."""
        return self.operator.apply(self._fields(x))

    def _fields(self, x: Tensor) -> Tensor:
        shape = self.conditions.departed.shape[1:]
        times = torch.arange(x.shape[1], device=x.device).repeat(len(x))
        fields = self.model.fields(x.reshape(-1, *shape), self.conditions.rows(times))
        return fields.reshape(*x.shape[:2], *shape)

    @cached_property
    def noise(self) -> ObservationNoise:
        """R of the observations."""
        matrix, like = self.operator.error_covariance, self.conditions.departed
        diagonal = torch.as_tensor(matrix.diagonal()).to(like)
        if self.operator.errors_are_independent:
            return ObservationNoise(diagonal)
        coo = matrix.tocoo()
        off = coo.row != coo.col
        beside = torch.sparse_coo_tensor(
            torch.as_tensor(np.stack([coo.row[off], coo.col[off]])),
            torch.as_tensor(coo.data[off], dtype=torch.float32),
            coo.shape,
            check_invariants=True,
        ).to(like.device)
        return ObservationNoise(diagonal, [beside])

    def draw(
        self,
        members: Sequence[int],
        seed: int,
        sampler: Callable[[Denoiser], azula.sample.Sampler],
        guidance: Guidance,
        progress: Callable[[Any], Any] | None = None,
    ) -> Tensor:
        """Draw fine fields in their units, shape (B, T, c, H, W), on the CPU.

        Parameters
        ----------
        members
            Member numbers, all in one batch.
        seed, sampler, progress
            As for `CorrDiffModel.draw`, whose random numbers these are.
        guidance
            Settings of MMPS.
        """
        like = self.conditions.departed
        prior = _Trajectory(self.model.prior(self.conditions), self.conditions)
        y = torch.as_tensor(self.operator.values).to(like)
        scale = torch.ones((), device=like.device)
        conditioned = guided(prior, y, self.observe, self.noise, scale, "mmps", guidance)
        drawn = draw(
            sampler(conditioned),
            like[0].numel(),
            seed=seed,
            members=members,
            times=self.seconds,
            like=like,
            progress=progress,
            purpose="downscale",
        )
        with torch.no_grad():
            return self._fields(drawn).cpu()
