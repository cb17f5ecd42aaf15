r"""An approximate inverse of R + A V Aᵀ, from the Gaussian that a denoiser departs from.

Where the denoiser departs from a Gaussian (`xappa.nn.gaussian`), that Gaussian's posterior
covariance at noise level :math:`\sigma` is known, and with it what a Krylov solve needs many
iterations to find out. With the derivative :math:`A_0` of the observations at the climatological
latent, patterns V and the eigenvectors Q of the components' covariance :math:`\Gamma`,

.. math:: M = \tilde R + U B B^\top U^\top, \quad U = A_0 V, \quad
    B = Q \operatorname{diag} \left( \frac{\lambda \sigma^2}{\lambda + \sigma^2} \right)^{1/2},

.. math:: \tilde R = \operatorname{diag} \left( R_{ii} + \sum_l (A_0)_{il}^2 \gamma_l \right)

where :math:`\gamma` is the posterior variance of what the patterns leave, of which the sum is
estimated by random probes of each channel. Of latents that are known themselves, U is V, and the
sum the variance of their channel. M is inverted by the identity of Woodbury, in the space of the
components. It decides how fast the solve converges, and not what it converges to.

The derivative of the decoder at the climatological latent is a property of the model, and is
computed once: the fields that patterns and probes are decoded to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xappa.errors import ArgumentError
from xappa.nn.gaussian import GaussianBlanket, date_terms

if TYPE_CHECKING:
    from xappa.models.appa.estimate import LatentEstimate
    from xappa.models.appa.model import AppaModel
    from xappa.models.appa.posterior import LatentPosterior

__all__ = ["GaussianPreconditioner", "decoded_patterns"]

#: Random probes of each latent channel, and derivatives that are computed together.
_PROBES, _TOGETHER = 4, 16


def decoded_patterns(model: AppaModel) -> Tensor:
    """Return what patterns, then probes of each channel, are decoded to, (r + 4 c, P).

    To first order about the climatological latent of no date in particular, in the state's units.
    """
    network, middle = _gaussian(model), _middle(model)
    channels = network.rest.shape[1]
    signs = torch.as_tensor(
        np.random.default_rng(0).choice([-1.0, 1.0], (_PROBES, model.latent_size)),
        dtype=torch.float32,
    )
    one = torch.eye(channels).repeat(1, model.latent_size // channels)  # channels come last
    probes = (signs[:, None] * one).flatten(0, 1).to(model.device)
    directions = torch.cat([network.patterns.T, probes])
    found = []
    for part in directions.split(_TOGETHER):
        point = middle.repeat(len(part), 1)
        with torch.no_grad():
            found.append(torch.func.jvp(model.decode_tensor, (point,), (part,))[1].flatten(1))
    return torch.cat(found)


def _gaussian(model: AppaModel) -> GaussianBlanket:
    network = model.network.gaussian
    if network is None:
        raise ArgumentError(
            "the model's denoiser departs from no Gaussian",
            where=model.name,
            expected="a model that was trained with modes",
            remedy="train one: xappa.AppaTraining(modes=256)",
        )
    return network


def _middle(model: AppaModel) -> Tensor:
    """Return the climatological latent of no date in particular, (1, L)."""
    mean = _gaussian(model).mean
    latent: Tensor = date_terms(mean.new_zeros(1, 4)) @ mean
    return latent


class GaussianPreconditioner:
    """Approximately inverts R + A V Aᵀ for the observations of one blanket.

    Parameters
    ----------
    part
        The posterior of the blanket, whose denoiser departs from a Gaussian.
    """

    def __init__(self, part: LatentPosterior) -> None:
        model, operator = part.model, part.operator
        network = self.gaussian = _gaussian(model)
        self.variance = part.tensor(part.variance)
        patterns = model.decoded_patterns
        modes = self.modes = network.patterns.shape[1]
        states, size = operator.rows.shape[0], operator.rows.state_size
        with torch.no_grad():
            at = model.decode_tensor(_middle(model)).expand(states, -1, -1, -1)
        _, slope = operator.linearised(operator.interpolate(at))
        weights = (slope @ operator.rows.matrix()).tocsc()
        fields = patterns.T.cpu().numpy()
        self.seen: list[tuple[Tensor, Tensor]] = []
        channels = network.rest.shape[1]
        rest = np.zeros((operator.n_used, channels))
        for state in range(states):
            of_state = weights[:, state * size : (state + 1) * size].tocsr()
            rows = np.flatnonzero(np.diff(of_state.indptr))
            decoded = of_state[rows] @ fields
            places = torch.as_tensor(rows, device=model.device)
            self.seen.append((places, part.tensor(decoded[:, :modes])))
            probes = decoded[:, modes:].reshape(len(rows), _PROBES, channels)
            rest[rows] += (probes**2).mean(1)
        if part.estimate is not None:
            rest = np.concatenate([rest, self._see_latents(part.estimate, operator.n_used)])
        self.rest = part.tensor(rest)

    def _see_latents(self, estimate: LatentEstimate, first: int) -> np.ndarray:
        """Add states whose latents are known, as observations from a first row on.

        Returns which of the rest's variances they see, shape (m, c).
        """
        patterns = self.gaussian.patterns
        size, modes = patterns.shape
        channels = self.gaussian.rest.shape[1]
        own = np.tile(np.eye(channels), (size // channels, 1))
        if estimate.patterns is not None:  # components, of which the rest is no part
            patterns = torch.cat([torch.eye(modes).to(patterns), torch.zeros_like(patterns)])
            own = np.concatenate([np.zeros((modes, channels)), own])
        for k, state in enumerate(estimate.states):
            rows, seen = self.seen[state]
            more = torch.arange(len(patterns), device=rows.device) + (first + k * len(patterns))
            self.seen[state] = torch.cat([rows, more]), torch.cat([seen, patterns.to(seen)])
        return np.tile(own, (len(estimate.states), 1))

    @property
    def n(self) -> int:
        """Number of observations, known latents included."""
        return len(self.variance)

    def at(self, sigma: float) -> Inverse:
        """Return the approximate inverse at a noise level."""
        return Inverse(self, sigma)


class Inverse:
    """The inverse of M at a noise level.

    Parameters
    ----------
    of
        What does not depend on it.
    sigma
        The noise level.
    """

    def __init__(self, of: GaussianPreconditioner, sigma: float) -> None:
        self.of = of
        vectors, values, _, levels = of.gaussian.spectra()
        left = (levels / (levels / sigma**2 + 1)).mean(-1)
        self.diagonal = of.variance + of.rest @ left.to(of.rest)
        self.root = vectors * (values / (values / sigma**2 + 1)).sqrt()
        inner = self.root.new_zeros(self.root.shape)
        modes = of.modes
        scaled = [(rows, u / self.diagonal[rows, None].sqrt()) for rows, u in of.seen]
        for i, (rows_i, u_i) in enumerate(scaled):
            for j, (rows_j, u_j) in enumerate(scaled[: i + 1]):
                both = _shared(rows_i, rows_j) if i != j else None
                if both is not None and not len(both[0]):
                    continue
                a, b = (u_i, u_j) if both is None else (u_i[both[0]], u_j[both[1]])
                here = slice(i * modes, (i + 1) * modes), slice(j * modes, (j + 1) * modes)
                inner[here] = a.T @ b
                inner[here[1], here[0]] = inner[here].T
        self.factor = _factor(self.root, inner)

    def __call__(self, v: Tensor) -> Tensor:
        """Return the inverse times v, shape (B, n)."""
        scaled = v / self.diagonal
        modes = self.of.modes
        pulled = torch.cat([scaled[:, rows] @ u for rows, u in self.of.seen], dim=1) @ self.root
        solved = torch.cholesky_solve(pulled.T, self.factor).T @ self.root.T
        back = torch.zeros_like(v)
        for k, (rows, u) in enumerate(self.of.seen):
            back.index_add_(1, rows, solved[:, k * modes : (k + 1) * modes] @ u.T)
        return scaled - back / self.diagonal


#: What is added to the diagonal step by step, in units of its largest entry, until it is enough.
_SHIFTS = (0.0, 1e-6, 9e-6, 9e-5, 9e-4)


def _factor(root: Tensor, inner: Tensor) -> Tensor:
    """Return the Cholesky factor of I + B' U' R^-1 U B, shifted where rounding asks for it."""
    system = root.T @ (inner @ root)
    system.diagonal().add_(1.0)
    largest = system.diagonal().max().clone()
    for shift in _SHIFTS:
        if shift:
            system.diagonal().add_(shift * largest)
        factor, failed = torch.linalg.cholesky_ex(system)
        if not int(failed):
            break
    found: Tensor = factor
    return found


def _shared(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return where two sorted sets of rows hold the same ones."""
    _, first, second = np.intersect1d(a.cpu().numpy(), b.cpu().numpy(), True, True)
    return torch.as_tensor(first, device=a.device), torch.as_tensor(second, device=a.device)
