r"""The latent diffusion prior: an autoencoder of states and a denoiser of blankets of latents.

A state x is standardised by channel and encoded; the latent is standardised by latent channel,

.. math:: z = \frac{\operatorname{enc}((x - \mu) / s) - m}{v} , \quad
    x \approx \mu + s \operatorname{dec}(m + v z) ,

where :math:`v^2` includes the variance of the noise that training added to latents. The denoiser
knows K consecutive latents and their dates. What the autoencoder loses has a standard deviation by
channel, estimated from data and kept in the bundle: it is part of the observations' error.

Latents of a state are flat, in the order (row, column, channel).

References
----------
Andry et al. (2025), Appa: Bending Weather Dynamics with Latent Diffusion Models for Global Data
Assimilation, arXiv:2504.18720.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from xappa.bridge import StateSpec
from xappa.device import in_batches
from xappa.diffusion.blankets import BlanketDenoiser
from xappa.diffusion.schedules import schedule_of
from xappa.errors import ArgumentError
from xappa.models.appa.normalisation import Normalisation, date_features, without_gaps
from xappa.models.base import Prior
from xappa.nn.autoencoder import AutoencoderConfig, ConvAutoencoder
from xappa.nn.transformer import LatentTransformer, TransformerConfig

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["AppaModel", "loaded"]

Network = TypeVar("Network", bound=torch.nn.Module)

#: Of standardised latents that were encoded; without any, guidance would be stiff.
_LEAST_VARIANCE = 1e-4


class AppaModel(Prior):
    """A latent diffusion prior over trajectories.

    Parameters
    ----------
    spec
        Variables, grid and time step.
    autoencoder
        Encoder and decoder of standardised states.
    network
        The transformer that denoises blankets.
    schedule
        Name of the noise schedule, its least and its largest noise level.
    normalisation
        Means and standard deviations.
    date_parts
        What of the dates the denoiser is told, see `date_features`.
    **labels
        ``name``, ``provenance`` and ``scores``, see `Model`.
    """

    kind = "appa"
    default_method = "mmps"
    has_networks = True
    latent_dtype = np.float32

    def __init__(
        self,
        spec: StateSpec,
        autoencoder: ConvAutoencoder,
        network: LatentTransformer,
        schedule: tuple[str, float, float],
        normalisation: Normalisation,
        date_parts: tuple[str, ...] = ("year", "day"),
        **labels: Any,
    ) -> None:
        super().__init__(spec, **labels)
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.network = network.eval().requires_grad_(False)
        self.schedule = schedule
        self.normalisation = normalisation
        self.date_parts = date_parts
        self._levels = schedule_of(*schedule)

    # Sizes ----------------------------------------------------------------------------------------

    @property
    def blanket(self) -> int:
        """Number K of states that the denoiser knows jointly."""
        return self.network.config.blanket_size

    @property
    def latent_size(self) -> int:
        """Number of values in the latent of one state, h w c."""
        rows, columns, channels = self.autoencoder.config.latent_shape
        return rows * columns * channels

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Number of channels, latitudes and longitudes."""
        return self.spec.shape

    @property
    def std(self) -> np.ndarray:
        """Climatological standard deviation at every point, shape (P,); NaN off the state."""
        std = np.broadcast_to(self.normalisation.std, self.spec.shape).copy()
        if self.normalisation.missing is not None:
            std[self.normalisation.missing.astype(bool)] = np.nan
        return std.ravel()

    @property
    def latent_variance(self) -> np.ndarray:
        """Variance of the noise on standardised latents, shape (L,), with a floor of 1e-4.

        It is the error with which an encoded state is known.
        """
        noise = self.autoencoder.config.latent_noise / self.normalisation.latent_std
        rows, columns, _ = self.autoencoder.config.latent_shape
        return np.tile(np.maximum(noise**2, _LEAST_VARIANCE), rows * columns)

    def expected(self, seconds: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return climatological means and standard deviations at (time, flat point) pairs."""
        return self.at_points("mean", points), self.at_points("std", points)

    def at_points(self, name: str, points: np.ndarray) -> np.ndarray:
        """Return a statistic of `Normalisation` at flat points of the state."""
        field = np.broadcast_to(getattr(self.normalisation, name), self.spec.shape)
        values: np.ndarray = field.ravel()[points]
        return values

    @property
    def activation_bytes(self) -> int:
        """About what decoding one state keeps for its gradient."""
        return self.autoencoder.config.activation_bytes

    @property
    def parameter_counts(self) -> dict[str, int]:
        """Number of trained parameters of each part."""
        return {
            "autoencoder": sum(p.numel() for p in self.autoencoder.parameters()),
            "denoiser": sum(p.numel() for p in self.network.parameters()),
        }

    @property
    def has_weights(self) -> bool:
        """Whether the networks have values, and not only shapes (on the meta device)."""
        return self.device.type != "meta"

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device) -> AppaModel:
        """Move the networks to a device, and return the model."""
        if device != self.device:
            self.__dict__.pop("decoded_patterns", None)
        self.autoencoder.to(device)
        self.network.to(device)
        return self

    @cached_property
    def denoiser(self) -> BlanketDenoiser:
        """The denoiser of blankets, an azula `Denoiser` of latents (B, K, L)."""
        return BlanketDenoiser(self.network, self._levels)

    @cached_property
    def decoded_patterns(self) -> Tensor:
        """What the patterns of the denoiser's Gaussian are decoded to, see `precondition`."""
        from xappa.models.appa.precondition import decoded_patterns

        return decoded_patterns(self)

    def dates(self, seconds: np.ndarray) -> Tensor:
        """Return the date features of times (T,): shape (T, 4), float64, where the networks are."""
        features = date_features(seconds, self.spec.calendar, self.date_parts)
        return torch.as_tensor(features, device=self.device)

    # States and latents ---------------------------------------------------------------------------

    def decode_tensor(self, z: Tensor) -> Tensor:
        """Decode standardised latents, differentiably.

        Parameters
        ----------
        z
            Shape (N, L).

        Returns
        -------
        Tensor
            States in their units, shape (N, channel, latitude, longitude).
        """
        shape = self.autoencoder.config.latent_shape
        z = z.unflatten(-1, shape) * self._of("latent_std", z) + self._of("latent_mean", z)
        x = self.autoencoder.decode(z.movedim(-1, 1))
        return x * self._of("std", x) + self._of("mean", x)

    def encode_tensor(self, x: Tensor) -> Tensor:
        """Encode complete states (N, channel, latitude, longitude) to latents (N, L)."""
        x = (x - self._of("mean", x)) / self._of("std", x)
        z = self.autoencoder.encode(x).movedim(1, -1)
        return ((z - self._of("latent_mean", z)) / self._of("latent_std", z)).flatten(1)

    def _of(self, name: str, like: Tensor) -> Tensor:
        return torch.as_tensor(getattr(self.normalisation, name)).to(like)

    @torch.no_grad()
    def encode_array(self, states: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Map packed states to standardised latents.

        Parameters
        ----------
        states
            Shape (..., T, channel, latitude, longitude), complete but for points that the model
            knows as missing.
        seconds
            Valid times, shape (T,); not used.

        Returns
        -------
        numpy.ndarray
            Latents, shape (..., T, L), float32.

        Raises
        ------
        DataError
            If values are missing.
        """
        flat = without_gaps(states.reshape(-1, *self.spec.shape), self.normalisation, self.spec)
        latents = in_batches(self.encode_tensor, flat, self.device, self._bytes_each)
        return latents.numpy().reshape(*states.shape[:-3], self.latent_size)

    @torch.no_grad()
    def decode_array(self, latents: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Map latents (..., T, L) to packed states (..., T, channel, latitude, longitude)."""
        flat = np.asarray(latents, dtype=np.float32).reshape(-1, self.latent_size)
        decoded = in_batches(self.decode_tensor, flat, self.device, self._bytes_each)
        states = decoded.double().numpy().reshape(*latents.shape[:-1], *self.spec.shape)
        if self.normalisation.missing is not None:
            states[..., self.normalisation.missing.astype(bool)] = np.nan
        return states

    @property
    def _bytes_each(self) -> int:
        # without gradients, activations are dropped as soon as the next ones are there
        return self.activation_bytes // 4

    # The bundle -----------------------------------------------------------------------------------

    @property
    def arguments(self) -> dict[str, Any]:
        """What besides the arrays is needed to build the model again."""
        return {
            "autoencoder": asdict(self.autoencoder.config),
            "network": asdict(self.network.config),
            "schedule": list(self.schedule),
            "date_parts": list(self.date_parts),
        }

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The arrays of the bundle."""
        parts = {"autoencoder": self.autoencoder, "denoiser": self.network}
        networks = {
            f"{part}.{key}": value.cpu().numpy()
            for part, module in parts.items()
            for key, value in module.state_dict().items()
        }
        return {**networks, **self.normalisation.arrays}

    @property
    def statistics(self) -> xr.Dataset:
        """Mean, standard deviation and reconstruction error of each channel, on the grid."""
        from xappa.models.statistics import labelled

        own = self.normalisation

        def field(values: np.ndarray) -> np.ndarray:
            return np.broadcast_to(values, self.spec.shape)

        return labelled(
            self.spec,
            {
                "mean": (field(own.mean), "mean of the training data"),
                "standard_deviation": (field(own.std), "standard deviation of the training data"),
                "reconstruction_standard_deviation": (
                    field(own.reconstruction),
                    "standard deviation of what the autoencoder loses",
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
    ) -> AppaModel:
        """Build the model from what a bundle holds."""
        autoencoder = _tuples(AutoencoderConfig, arguments["autoencoder"])
        network = _tuples(TransformerConfig, arguments["network"])

        def part(name: str) -> dict[str, Tensor]:
            own = {k: v for k, v in weights.items() if k.startswith(f"{name}.")}
            return {k.removeprefix(f"{name}."): torch.tensor(v) for k, v in own.items()}

        name, low, high = arguments["schedule"]
        return cls(
            spec,
            loaded(ConvAutoencoder, autoencoder, part("autoencoder")),
            loaded(LatentTransformer, network, part("denoiser")),
            (str(name), float(low), float(high)),
            Normalisation.from_arrays(weights),
            tuple(arguments["date_parts"]),
            **labels,
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is not known of the model, and matters to its analyses."""
        if np.any(self.normalisation.reconstruction):
            return ()
        return (
            f"what the autoencoder of {self.name} loses is not known, and observations are taken "
            "as if it lost nothing; model = model.calibrated(states) estimates it from states",
        )

    def calibrated(self, ds: xr.Dataset) -> AppaModel:
        """Return the model with what a Dataset of states tells of it; the networks are shared.

        That is the standard deviation of the autoencoder's error in each channel (area-weighted
        root mean square), which becomes part of the observations' error, and the points that are
        never present (sea temperature over land), which are decoded as missing.

        Parameters
        ----------
        ds
            Complete states that the autoencoder was not trained on, a few dozen or more.

        Raises
        ------
        HandshakeError, UnitsError, CoordinateError
            If ``ds`` does not fit the model.
        DataError
            If values are missing at some times but not at others.
        """
        from xappa.models.appa.calibration import calibrated

        return calibrated(self, ds)

    def inflated(self, factor: float) -> AppaModel:
        """Return the model with wider departures from the mean latent; the networks are shared.

        What multiplicative inflation is to an ensemble: a prior that learnt from few states, or
        from another season, is narrower than what it will meet.

        Parameters
        ----------
        factor
            How much wider, positive; 1 changes nothing.

        Raises
        ------
        ArgumentError
            If it is no positive number.
        """
        if isinstance(factor, (bool, str)) or not np.isreal(factor) or not 0 < factor < np.inf:
            raise ArgumentError(
                "the inflation is no positive number",
                where="inflated",
                expected="a number such as 1.2",
                got=repr(factor),
            )
        return self.with_normalisation(latent_std=factor * self.normalisation.latent_std)

    def rounded(self) -> AppaModel:
        """Return the model with weights that half precision holds: a bundle of half the size.

        Networks compute as before, in the precision that the device and the options ask for.
        """
        own = self.normalisation
        single = replace(own, mean=own.mean.astype(np.float32), std=own.std.astype(np.float32))
        return self._copied(_halved(self.autoencoder), _halved(self.network), single)

    def with_normalisation(self, **changes: np.ndarray | None) -> AppaModel:
        """Return the model with other statistics (see `Normalisation`); the networks are shared."""
        changed = replace(self.normalisation, **changes)  # type: ignore[arg-type]
        return self._copied(self.autoencoder, self.network, changed)

    def _copied(
        self, autoencoder: ConvAutoencoder, network: LatentTransformer, normalisation: Normalisation
    ) -> AppaModel:
        """Return the model with other parts, and all labels."""
        return AppaModel(
            self.spec,
            autoencoder,
            network,
            self.schedule,
            normalisation,
            self.date_parts,
            name=self.name,
            provenance=self.provenance,
            scores=self.scores,
        )


def loaded(kind: Any, config: Any, weights: Mapping[str, Tensor]) -> Any:
    """Build a network around weights, without initialising others first."""
    with torch.device("meta"):
        network = kind(config)
    network.load_state_dict(weights, assign=True)
    return network


def _halved(network: Network) -> Network:
    """Copy a network, its weights rounded to half precision."""
    copy = deepcopy(network)
    copy.load_state_dict({name: value.half().float() for name, value in copy.state_dict().items()})
    return copy


def _tuples(kind: Any, values: Mapping[str, Any]) -> Any:
    """Build a configuration from JSON, which knows lists for tuples."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
