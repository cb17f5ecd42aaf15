r"""Drawing from the posterior of an EOF-Gaussian prior: what all methods share.

The components z are drawn by one of the methods; the residual r given z and the observations is
then drawn in closed form (`xappa.models.gaussian`). In observation space each member keeps the
vector

.. math:: w = (R + H D H^\top)^{-1} \left( y - e - H (\mu_r + r') - H (c + E z) \right),

and its residual at any time is :math:`\mu_r + r' + D H^\top w`: states can be decoded one block of
times after another. Draws e and r' are keyed by member and valid time, and shared with the exact
method, for which z and r are then one joint draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import azula.sample
import numpy as np
import scipy.sparse
import torch
from azula.denoise import Denoiser
from torch import Tensor

from xappa.diffusion.guidance import JFPSDenoiser, MMPSDenoiser, SDADenoiser
from xappa.diffusion.linear import DENSE_LIMIT, ExactPosterior, LatentMap, Noise
from xappa.diffusion.markov import GaussianTrajectory
from xappa.diffusion.noise import generator, standard_normal
from xappa.diffusion.sampling import DPSSampler, Sampler, draw
from xappa.models.gaussian import GaussianModel
from xappa.models.settings import Guidance
from xappa.observe import ObservationOperator
from xappa.observe.simulate import observation_noise

__all__ = ["Draws", "GaussianPosterior", "Residual"]


@dataclass(frozen=True)
class Residual:
    """What is known of the residual before the observations.

    Parameters
    ----------
    variance
        D, shape (P,), or (T, P) where it differs between states.
    mean
        Shape (T, P); None for zero.
    """

    variance: np.ndarray
    mean: np.ndarray | None = None

    def at(self, t: int) -> np.ndarray:
        """Return the variance of state t, shape (P,), float64."""
        row = self.variance if self.variance.ndim == 1 else self.variance[t]
        return row.astype(np.float64)

    def at_entries(self, entries: np.ndarray) -> np.ndarray:
        """Return the variance at flat indices into (T, P), float64; zero off the state."""
        flat = self.variance.ravel()
        variance: np.ndarray = np.nan_to_num(flat[entries % flat.size].astype(np.float64))
        return variance


@dataclass(frozen=True, eq=False)
class Draws:
    """Posterior draws, before they are decoded.

    Parameters
    ----------
    latents
        z, shape (B, T, M).
    weights
        w, shape (B, n).
    """

    latents: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """The posterior of a trajectory of an EOF-Gaussian prior.

    Parameters
    ----------
    model
        The prior.
    operator
        The observation operator, built for the T states of the trajectory.
    seconds
        Valid times, shape (T,), in the model's calendar.
    prior
        The distribution of the components, conditioned on the background if there is one.
    residual
        The same of the residual.
    """

    model: GaussianModel
    operator: ObservationOperator
    seconds: np.ndarray
    prior: GaussianTrajectory
    residual: Residual

    # The linear maps ------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> scipy.sparse.csr_array:
        """H, from the P points of T states to the interpolated rows."""
        return self.operator.rows.matrix()

    @cached_property
    def _jacobian(self) -> tuple[scipy.sparse.csr_array, np.ndarray]:
        """Derivative of the pointwise functions at the climatology, and their constant there."""
        rows = self.rows.shape[0]
        if self.operator.only_interpolates:
            return scipy.sparse.eye_array(rows, format="csr"), np.zeros(rows)
        at = torch.as_tensor(self._row_climatology)
        value, jacobian = self.operator.linearised(at)
        return jacobian, value - jacobian @ at.numpy()

    @cached_property
    def _row_climatology(self) -> np.ndarray:
        rows = self.operator.rows
        time, point = np.divmod(rows.indices, rows.state_size)
        return rows.sums(rows.data * self.model.climatology.at_points(self.seconds[time], point))

    @cached_property
    def linear(self) -> scipy.sparse.csr_array:
        """H as it acts on the used observations, linearised where functions are not linear."""
        return (self._jacobian[0] @ self.rows).tocsr()

    @cached_property
    def row_map(self) -> LatentMap:
        """The map from components to interpolated rows: H (c + E z)."""
        return self._latent_map(self.rows, self._row_climatology)

    @cached_property
    def latent_map(self) -> LatentMap:
        """The map from components to observations, linearised where they are not linear."""
        jacobian, constant = self._jacobian
        return self._latent_map(self.linear, jacobian @ self._row_climatology + constant)

    def _latent_map(self, matrix: scipy.sparse.csr_array, offset: np.ndarray) -> LatentMap:
        size = self.operator.rows.state_size
        entries = matrix.tocoo()
        time, point = entries.col // size, entries.col % size
        pairs, which = np.unique(entries.row * len(self.seconds) + time, return_inverse=True)
        # E at the observed points, summed with the weights into one vector per (row, time).
        points, place = np.unique(point, return_inverse=True)
        gather = scipy.sparse.csr_array(
            (entries.data, (which, place)), shape=(len(pairs), len(points))
        )
        basis = gather @ self.model.eofs[points].astype(np.float64)
        return LatentMap(
            torch.as_tensor(offset),
            torch.as_tensor(basis),
            torch.as_tensor(pairs // len(self.seconds)),
            torch.as_tensor(pairs % len(self.seconds)),
            len(self.seconds),
        )

    def observe(self, z: Tensor) -> Tensor:
        """Map components (B, T, M) to equivalents of the observations (B, n); differentiable."""
        return self.operator.from_rows(self.row_map(z))

    @cached_property
    def noise(self) -> Noise:
        """The covariance R + H D H^T."""
        scaled = self.linear.copy()
        scaled.data = scaled.data * np.sqrt(self.residual.at_entries(scaled.indices))
        matrix = scaled @ scaled.T + self.operator.error_covariance
        diagonal = torch.as_tensor(matrix.diagonal())
        if len(diagonal) <= DENSE_LIMIT:
            return Noise(torch.as_tensor(matrix.toarray()), diagonal)
        coo = matrix.tocoo()
        sparse = torch.sparse_coo_tensor(
            torch.as_tensor(np.stack([coo.row, coo.col])),
            torch.as_tensor(coo.data),
            coo.shape,
            check_invariants=True,
        )
        return Noise(sparse.coalesce(), diagonal)

    @cached_property
    def observed(self) -> Tensor:
        """Observations less what the residual's mean explains, shape (n,)."""
        y = self.operator.values
        if self.residual.mean is not None:
            y = y - self.linear @ np.nan_to_num(self.residual.mean).ravel()
        return torch.as_tensor(y)

    @cached_property
    def exact(self) -> ExactPosterior:
        """The closed form."""
        return ExactPosterior(self.prior, self.latent_map, self.observed, self.noise)

    def departures(self) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Return departures y - H(mean), shape (n,), and their covariance R + H B H^T.

        The latter as a function of which observations (m,), to a dense matrix (m, m).
        """
        mean = self.latent_map(self.prior.mean[None])[0]
        g, noise = self.latent_map.dense(), self.noise.matrix
        noise = noise.to_dense() if noise.layout != torch.strided else noise

        def covariance(part: np.ndarray) -> np.ndarray:
            own = g[torch.as_tensor(part)]
            spread = self.prior.covariance_times(own).flatten(1) @ own.flatten(1).mT
            both: np.ndarray = (noise[np.ix_(part, part)] + spread).numpy()
            return both

        return (self.observed - mean).numpy(), covariance

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
        """Draw members from the posterior.

        Parameters
        ----------
        method
            ``"exact"``, ``"mmps"``, ``"jfps"``, ``"sda"`` or ``"dps"``.
        members
            Member numbers.
        seed
            Seed of all streams.
        sampler, guidance
            Settings of the methods by reverse diffusion.
        progress
            Wraps the iterable of steps.
        purpose
            Part of the key of the streams of reverse diffusion.
        """
        noise, residual = self._noise_draws(members, seed)
        if method == "exact" or not self.operator.n_used:
            white = standard_normal(seed, "prior", members, self.seconds, self.model.latent_size)
            z = self.prior.sample(torch.as_tensor(white))
            if guidance.square_root:
                z = self.exact.square_root(z)
            else:
                z = self.exact.perturbed(z, torch.as_tensor(noise + residual))
        else:
            z = draw(
                self._sampler(method, sampler, guidance),
                self.model.latent_size,
                seed=seed,
                members=members,
                times=self.seconds,
                like=self.prior.mean,
                progress=progress,
                purpose=purpose,
            )
        # detached: operators may be modules with weights of their own
        departure = self.observed - torch.as_tensor(noise + residual) - self.observe(z).detach()
        weights = self.noise.solve(departure) if self.operator.n_used else departure
        return Draws(z.numpy(), weights.numpy())

    def _sampler(
        self,
        method: str,
        sampler: Sampler | Callable[[Denoiser], azula.sample.Sampler],
        guidance: Guidance,
    ) -> azula.sample.Sampler:
        prior = self.model.trajectory_denoiser(self.prior)
        y, noise = self.observed, self.noise
        krylov: dict[str, Any] = {
            "solver": guidance.solver or "cg",
            "iterations": guidance.iterations or max(1, min(100, self.operator.n_used)),
            "rtol": guidance.rtol,
            "whiten": guidance.whiten,
        }
        conditioned: Denoiser
        if method == "mmps":
            simple = guidance.covariance == "simple"
            conditioned = MMPSDenoiser(prior, y, self.observe, noise, simple=simple, **krylov)
        elif method == "jfps":
            conditioned = JFPSDenoiser(
                prior, y, self.observe, noise, prior.covariance_times, **krylov
            )
        elif method == "sda":
            conditioned = SDADenoiser(
                prior, y, self.observe, noise, self._overlap, gamma=guidance.gamma
            )
        else:
            return DPSSampler(
                prior,
                y,
                self.observe,
                noise.diagonal,
                zeta=guidance.zeta,
                steps=getattr(sampler, "steps", 64),
                silent=True,
                dtype=torch.float64,
            )
        return sampler(conditioned)

    @cached_property
    def _overlap(self) -> Tensor:
        """Root of the row sums of |G Gᵀ|: how much observations share latents, shape (n,)."""
        g = self.latent_map.dense().flatten(1)
        return torch.cat([(part @ g.mT).abs().sum(1) for part in g.split(1024)]).sqrt()

    def _noise_draws(self, members: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws e of the observation errors and H r' of the residual, each of shape (B, n)."""
        used = self.operator.used
        errors = [
            np.concatenate(
                [np.zeros(0)]
                + [
                    observation_noise(spec, seed, member, purpose="observation perturbation")
                    for spec in self.operator.specs
                ]
            )[used]
            for member in members
        ]
        size = self.operator.rows.state_size
        by_time = self.linear.tocsc()
        residual = np.zeros((len(members), len(used)))
        for t in range(len(self.seconds)):
            part = by_time[:, t * size : (t + 1) * size]
            if part.nnz:
                for b, member in enumerate(members):
                    residual[b] += part @ np.nan_to_num(self.residual_draw(member, t, seed))
        return np.reshape(errors, residual.shape), residual

    def residual_draw(self, member: int, t: int, seed: int) -> np.ndarray:
        """Draw r' at one state for one member, shape (P,)."""
        stream = generator(seed, "residual", member, float(self.seconds[t]))
        variance = self.residual.at(t)
        drawn: np.ndarray = stream.standard_normal(len(variance)) * np.sqrt(variance)
        return drawn

    def decode(
        self, draws: Draws, members: Sequence[int], states: Sequence[int], seed: int
    ) -> np.ndarray:
        """Turn draws into packed states.

        Parameters
        ----------
        draws
            What `draw` returned for these members.
        members
            Member numbers.
        states
            Which of the T states to decode.
        seed
            The seed of the draws.

        Returns
        -------
        numpy.ndarray
            Shape (B, len(states), channel, latitude, longitude), float64.
        """
        states = list(states)
        decoded = self.model.decode_array(draws.latents[:, states], self.seconds[states])
        flat = decoded.reshape(len(members), len(states), -1)
        size = self.operator.rows.state_size
        adjoint = self.linear.T.tocsr()
        for k, t in enumerate(states):
            pull = (adjoint[t * size : (t + 1) * size] @ draws.weights.T).T * self.residual.at(t)
            if self.residual.mean is not None:
                pull = pull + self.residual.mean[t]
            flat[:, k] += pull
            for b, member in enumerate(members):
                flat[b, k] += self.residual_draw(member, t, seed)
        return flat.reshape(decoded.shape)
