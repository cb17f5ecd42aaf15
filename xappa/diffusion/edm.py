r"""Diffusion as Karras et al. (2022) set it up: preconditioning and loss.

Data :math:`x` of standard deviation :math:`\sigma_d`, which in downscaling are what a regression
leaves, are seen through noise, :math:`x_\sigma = x + \sigma \epsilon`. The denoiser is

.. math:: D(x_\sigma; \sigma) = c_\text{skip} \, x_\sigma
    + c_\text{out} \operatorname{net} \left( c_\text{in} \, x_\sigma, c_\text{noise} \right),

.. math:: c_\text{skip} = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}, \quad
    c_\text{out} = \frac{\sigma \, \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
    c_\text{in} = \frac{1}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
    c_\text{noise} = \tfrac{1}{4} \ln \sigma,

so that what the network sees, and what it has to tell, are of unit variance at every level. With
the weight :math:`\lambda(\sigma) = (\sigma^2 + \sigma_d^2) / (\sigma \sigma_d)^2` the network's own
errors count equally, :math:`\lambda c_\text{out}^2 = 1`; levels are drawn from
:math:`\ln \sigma \sim \mathcal{N}(P_\text{mean}, P_\text{std}^2)`.

References
----------
Karras et al. (2022), Elucidating the Design Space of Diffusion-Based Generative Models,
arXiv:2206.00364.
Mardani et al. (2025), Residual corrective diffusion modeling for km-scale atmospheric downscaling,
arXiv:2309.15214.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.nn.utils import get_module_dtype
from azula.noise import Schedule
from torch import Tensor

from xappa.diffusion.sampling import KarrasSchedule
from xappa.errors import ArgumentError

__all__ = [
    "EDMDenoiser",
    "Preconditioning",
    "loss_weight",
    "noise_levels",
    "preconditioning",
]

#: The schedule's ends and exponent, as CorrDiff takes them.
SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 800.0, 7.0


class Preconditioning(NamedTuple):
    """The factors of `EDMDenoiser` at some noise levels, all of their shape and dtype."""

    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor


def preconditioning(sigma: Tensor, sigma_data: float = 0.5) -> Preconditioning:
    r"""Return :math:`c_\text{skip}, c_\text{out}, c_\text{in}, c_\text{noise}`.

    Parameters
    ----------
    sigma
        Noise levels above 0, any shape, in the units of the data.
    sigma_data
        Standard deviation of the data.
    """
    total = sigma.square() + sigma_data**2
    return Preconditioning(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data * total.rsqrt(),
        into=total.rsqrt(),
        noise=sigma.log() / 4,
    )


def loss_weight(sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    r"""Return :math:`\lambda(\sigma)`, the weight of squared errors of the denoised.

    Parameters
    ----------
    sigma
        Noise levels above 0, any shape.
    sigma_data
        Standard deviation of the data.

    Examples
    --------
    >>> float(loss_weight(torch.tensor(0.5, dtype=torch.float64)))
    8.0
    """
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def noise_levels(normals: Tensor, *, P_mean: float = 0.0, P_std: float = 1.2) -> Tensor:
    r"""Return log-normal noise levels for training, :math:`\exp(P_\text{mean} + P_\text{std} z)`.

    Parameters
    ----------
    normals
        Standard normal numbers z, any shape; from uniform ones, ``torch.special.ndtri(u)``, which
        stratified ``u`` spread evenly over the levels.
    P_mean, P_std
        Mean and standard deviation of the levels' logarithm.

    Examples
    --------
    >>> noise_levels(torch.tensor([0.0, 1.0]), P_mean=0.0, P_std=1.0)
    tensor([1.0000, 2.7183])
    """
    return torch.exp(P_mean + P_std * normals)


class EDMDenoiser(Denoiser):
    """The preconditioned denoiser of fields; an azula `Denoiser`.

    Parameters
    ----------
    network
        Maps noisy fields (B, C, H, W), levels (B), a condition (B, D, H, W) or None and labels
        (B, F) or None, the last two by the names ``condition`` and ``labels``, to (B, C, H, W).
    schedule
        The noise schedule; None for a `KarrasSchedule` from 0.002 to 800 with an exponent of 7.
    sigma_data
        Standard deviation of the data.

    Notes
    -----
    The factors are computed in float64, and applied in float32 at least, whatever the dtype of the
    network: half precision would round away what is left of the data at large noise.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        schedule: Schedule | None = None,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise ArgumentError(
                "the data have no spread",
                where="EDMDenoiser",
                expected="sigma_data > 0",
                got=f"sigma_data={sigma_data!r}",
                remedy="give the standard deviation of the data",
            )
        self.network, self.sigma_data = network, float(sigma_data)
        default = KarrasSchedule(SIGMA_MIN, SIGMA_MAX, RHO)
        self.schedule = default if schedule is None else schedule

    def at(
        self,
        x_t: Tensor,
        sigma: Tensor,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the expected fields.

        Parameters
        ----------
        x_t
            Noisy fields, shape (B, C, H, W).
        sigma
            Noise levels above 0, shape () or (B).
        condition
            What is known at each place, shape (B, D, H, W).
        labels
            What is known of the whole, shape (B, F).
        **kwargs
            Further arguments of the network, such as ``positions``.

        Returns
        -------
        Tensor
            Shape and dtype of x_t.
        """
        full = torch.promote_types(x_t.dtype, torch.float32)
        inner = get_module_dtype(self.network) or full
        factors = preconditioning(sigma.double().expand(len(x_t)), self.sigma_data)
        skip, out, into = (c.to(x_t.device, full)[:, None, None, None] for c in factors[:3])
        told = self.network(
            (into * x_t.to(full)).to(inner),
            factors.noise.to(x_t.device, inner),
            condition=None if condition is None else condition.to(inner),
            labels=None if labels is None else labels.to(inner),
            **kwargs,
        )
        expected: Tensor = skip * x_t.to(full) + out * told.to(full)
        return expected.to(x_t.dtype)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> DiracPosterior:
        """Return the expected fields given x_t (B, C, H, W) at time t, of shape () or (B).

        The other arguments are those of `at`.
        """
        _, sigma = self.schedule(t)
        return DiracPosterior(mean=self.at(x_t, sigma, condition, labels, **kwargs))

    def loss(self, x: Tensor, sigma: Tensor, noise: Tensor, **kwargs: Any) -> Tensor:
        """Return the weighted squared errors of each field, averaged over its values.

        Parameters
        ----------
        x
            Fields without noise, shape (B, C, H, W).
        sigma
            Noise levels, shape (B), see `noise_levels`.
        noise
            Standard normal numbers, shape of x.
        **kwargs
            Arguments of `at`: ``condition``, ``labels``.

        Returns
        -------
        Tensor
            Shape (B,).
        """
        levels = sigma.to(x)[:, None, None, None]
        errors = self.at(x + levels * noise, sigma, **kwargs) - x
        weight = loss_weight(sigma.double(), self.sigma_data).to(x)
        return weight * errors.square().mean(dim=(1, 2, 3))
