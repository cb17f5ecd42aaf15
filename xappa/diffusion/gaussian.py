r"""The analytic denoiser of a Gaussian trajectory.

For :math:`z \sim \mathcal{N}(m, \Lambda^{-1})` and
:math:`z_t \sim \mathcal{N}(\alpha_t z, \sigma_t^2 I)`, the posterior is Gaussian with

.. math::
    \operatorname{Cov}[z \mid z_t] & = V_t
        = \left( \Lambda + \tfrac{\alpha_t^2}{\sigma_t^2} I \right)^{-1} \\
    \operatorname{E}[z \mid z_t] & = m + V_t \, \tfrac{\alpha_t}{\sigma_t^2} (z_t - \alpha_t m) .

Its Jacobian satisfies Tweedie's second formula,
:math:`V_t = \tfrac{\sigma_t^2}{\alpha_t} \nabla_{z_t} \operatorname{E}[z \mid z_t]`, as that of any
exact denoiser does: what holds for a learned prior can be tested on this one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from azula.denoise import Denoiser, DiracPosterior
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import Schedule
from torch import Tensor

from xappa.diffusion.blocktridiagonal import InverseBlockTridiagonalCovariance
from xappa.diffusion.markov import GaussianTrajectory

__all__ = ["GaussianTrajectoryDenoiser"]


class GaussianTrajectoryDenoiser(Denoiser):
    """The exact denoiser of a Gaussian trajectory; an azula `Denoiser`.

    Parameters
    ----------
    prior
        The distribution of the latents, T states of size M.
    schedule
        A noise schedule.
    """

    # A Heun step visits each noise level twice; a Krylov solve many times.
    _KEPT_FACTORS = 2

    def __init__(self, prior: GaussianTrajectory, schedule: Schedule) -> None:
        super().__init__()
        self.prior = prior
        self.schedule = schedule
        self._factors: OrderedDict[float, InverseBlockTridiagonalCovariance] = OrderedDict()

    def covariance(self, t: Tensor) -> InverseBlockTridiagonalCovariance:
        """Return the posterior covariance V_t over superblocks of states.

        Parameters
        ----------
        t
            The time, shape ().
        """
        alpha, sigma = (x.double() for x in self.schedule(t.double()))
        ratio = float(alpha / sigma)
        if ratio not in self._factors:
            shifted = self.prior.precision + IsotropicCovariance(ratio**2)
            self._factors[ratio] = shifted.inv
            while len(self._factors) > self._KEPT_FACTORS:
                self._factors.popitem(last=False)
        return self._factors[ratio]

    def covariance_times(self, v: Tensor, t: Tensor) -> Tensor:
        """Return V_t v for v of shape (B, T, M)."""
        return self.prior.unblock(self.covariance(t) @ self.prior.block(v))

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """Return the posterior mean of the latents.

        Parameters
        ----------
        x_t
            Noisy latents, shape (B, T, M).
        t
            The time, shape (), or (B) with equal entries.
        """
        t = t.reshape(-1)[0]
        alpha, sigma = self.schedule(t.double())
        pull = alpha / sigma**2 * (x_t - alpha * self.prior.mean)
        return DiracPosterior(mean=self.prior.mean + self.covariance_times(pull, t))
