r"""The EOF-Gaussian prior: climatology, principal components over blankets, and a residual.

A state at time t is

.. math:: x_t = c_t + E z_t + r_t

with the climatology c, standardised principal components z of M area-weighted EOFs E, and what the
EOFs leave, r: independent at every point and time, so that the prior's variance is right
everywhere. The components are a stationary Gaussian process, known over blankets of K states and
extended beyond (`xappa.diffusion.markov`). For observations that are linear in the state,
:math:`y = H x + e`, everything about the posterior is known in closed form. Summing out r,

.. math:: y = H c + H E z + e', \quad e' \sim \mathcal{N}(0, R + H D H^\top),

gives the posterior of z; and r given z and y is Gaussian again:

.. math:: r = r' + D H^\top (R + H D H^\top)^{-1} (y - e - H (c + E z + r'))

for prior draws r' and e. Every sampling method of this model differs only in how it draws z.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from azula.denoise import Denoiser
from azula.noise import Schedule
from torch import Tensor

from xappa.bridge import StateSpec
from xappa.diffusion.gaussian import GaussianTrajectoryDenoiser
from xappa.diffusion.markov import GaussianTrajectory, StationaryProcess
from xappa.diffusion.sampling import KarrasSchedule
from xappa.models.base import Prior
from xappa.models.climatology import Climatology, SeasonalTerms
from xappa.models.eof_autoencoder import EOFAutoencoder

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["GaussianModel"]


class GaussianModel(Prior):
    """A Gaussian prior over trajectories; see `fit_gaussian`.

    Parameters
    ----------
    spec
        Variables, grid and time step; P = channels × latitudes × longitudes points.
    climatology
        The mean state as a function of time.
    eofs
        E, shape (P, M), float32, in the state's units for components of unit variance.
    residual
        Variance of r, shape (P,), float64; NaN where a point is not part of the state.
    weight
        The weights of the EOFs' inner product, shape (P,), float64: inverse variances of trace
        constituents exceed what float32 can hold.
    autocovariance
        Of the components over a blanket, shape (K, M, M), float64.
    **labels
        ``name``, ``provenance`` and ``scores``, see `Model`.
    """

    kind = "gaussian"
    default_method = "exact"

    def __init__(
        self,
        spec: StateSpec,
        climatology: Climatology,
        eofs: np.ndarray,
        residual: np.ndarray,
        weight: np.ndarray,
        autocovariance: np.ndarray,
        **labels: Any,
    ) -> None:
        super().__init__(spec, **labels)
        self.climatology = climatology
        self.eofs, self.residual, self.weight = eofs, residual, weight
        self.autocovariance = autocovariance
        self.process = StationaryProcess(torch.as_tensor(autocovariance))
        self.autoencoder = EOFAutoencoder(eofs, residual, weight)

    @property
    def blanket(self) -> int:
        """Number K of states over which the prior was fitted."""
        return len(self.autocovariance)

    @property
    def latent_size(self) -> int:
        """Number M of principal components."""
        return int(self.eofs.shape[1])

    @property
    def std(self) -> np.ndarray:
        """Prior standard deviation at every point, shape (P,), float64; NaN off the state."""
        explained = np.einsum("pm,pm->p", self.eofs, self.eofs, dtype=np.float64)
        std: np.ndarray = np.sqrt(explained + self.residual)
        return std

    def expected(self, seconds: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return climatological means and standard deviations at (time, flat point) pairs."""
        return self.climatology.at_points(seconds, points), self.std[points]

    def prior(self, length: int) -> GaussianTrajectory:
        """Return the distribution of the components of ``length`` consecutive states."""
        return self.process.trajectory(length)

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of the denoiser."""
        return KarrasSchedule(sigma_min=1e-3, sigma_max=300.0)

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser of one blanket, an azula `Denoiser` of latents (B, K, M)."""
        return self.trajectory_denoiser(self.prior(self.blanket))

    def trajectory_denoiser(self, prior: GaussianTrajectory) -> GaussianTrajectoryDenoiser:
        """Return the analytic denoiser of a trajectory of any length."""
        return GaussianTrajectoryDenoiser(prior, self.schedule)

    def encode_array(self, states: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Map packed states to standardised principal components.

        Parameters
        ----------
        states
            Shape (..., T, channel, latitude, longitude). NaN are missing: the components are then
            those expected given what is present.
        seconds
            Valid times, shape (T,).

        Returns
        -------
        numpy.ndarray
            Components, shape (..., T, M), float64.
        """
        anomalies = states - self.climatology(seconds)
        lead = anomalies.shape[: -len(self.state_shape)]
        return self.autoencoder.encode_array(anomalies.reshape(-1, self.eofs.shape[0])).reshape(
            *lead, self.latent_size
        )

    def decode_array(self, latents: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Map principal components to packed states.

        Parameters
        ----------
        latents
            Shape (..., T, M).
        seconds
            Valid times, shape (T,).

        Returns
        -------
        numpy.ndarray
            States, shape (..., T, channel, latitude, longitude), float64; NaN where a point is not
            part of the state.
        """
        anomalies = self.autoencoder.decode_array(np.asarray(latents))
        shape = (*latents.shape[:-1], *self.state_shape)
        states: np.ndarray = anomalies.reshape(shape) + self.climatology(seconds)
        return states

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Number of channels, latitudes and longitudes."""
        return (self.spec.n_channels, *self.spec.grid.shape)

    def eofs_at(self, points: np.ndarray) -> Tensor:
        """Return the rows of E at flat state indices, shape (n, M), float64."""
        return torch.as_tensor(self.eofs[points].astype(np.float64))

    @property
    def arguments(self) -> dict[str, Any]:
        """What besides the arrays is needed to build the model again."""
        return {"climatology": self.climatology.terms.to_dict()}

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The arrays of the bundle."""
        return {
            "eofs": self.eofs,
            "residual": self.residual,
            "weight": self.weight,
            "autocovariance": self.autocovariance,
            "climatology": self.climatology.coefficients,
        }

    @property
    def statistics(self) -> xr.Dataset:
        """Climatological mean, standard deviation and residual on the model's grid."""
        from xappa.models.statistics import labelled

        shape = self.state_shape
        return labelled(
            self.spec,
            {
                "mean": (self.climatology.coefficients[0], "climatological mean"),
                "standard_deviation": (self.std.reshape(shape), "prior standard deviation"),
                "residual_standard_deviation": (
                    np.sqrt(self.residual).reshape(shape),
                    "standard deviation that the EOFs leave",
                ),
            },
        )

    @classmethod
    def rebuild(
        cls,
        spec: StateSpec,
        arguments: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        statistics: xr.Dataset,
        **labels: Any,
    ) -> GaussianModel:
        """Build the model from what a bundle holds."""
        terms = SeasonalTerms(**arguments["climatology"])
        return cls(
            spec,
            Climatology(terms, weights["climatology"]),
            weights["eofs"],
            weights["residual"],
            weights["weight"],
            weights["autocovariance"],
            **labels,
        )
