"""How states and latents are standardised, and what a denoiser is told of dates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from xappa.bridge import StateSpec
from xappa.cf import phase
from xappa.errors import DataError

__all__ = ["Normalisation", "date_features", "permitted_gaps", "without_gaps"]

_OF_THE_SEA = "sea_surface_temperature"


def date_features(
    seconds: np.ndarray, calendar: str, parts: tuple[str, ...] = ("year", "day")
) -> np.ndarray:
    """Return what the denoiser is told of dates: shape (T, 4), float64.

    Sine and cosine of the progress of the year, then of the (UTC) day.

    Parameters
    ----------
    seconds
        Valid times, shape (T,), seconds since 1970-01-01.
    calendar
        CF name of their calendar.
    parts
        What the denoiser was told of in training; zeros stand for the rest. From a single season
        it would learn states by heart with their dates.

    Examples
    --------
    >>> date_features(np.array([0.0, 21600.0]), "standard").round(3).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.004, 1.0, 1.0, 0.0]]
    """
    day, year = (2 * np.pi * part for part in phase(np.asarray(seconds, float), calendar))
    told = {"year": [np.sin(year), np.cos(year)], "day": [np.sin(day), np.cos(day)]}
    nothing = [np.zeros_like(day)] * 2
    return np.stack([f for name in told for f in (told[name] if name in parts else nothing)], -1)


@dataclass(frozen=True, eq=False)
class Normalisation:
    """How states and latents are standardised, and what the autoencoder loses.

    Parameters
    ----------
    mean, std
        Of each channel of a state, in its units, shape (C, 1, 1), or (C, H, W) for those of each
        point.
    latent_mean, latent_std
        Of each channel of a latent, shape (c,).
    reconstruction
        Standard deviation of the autoencoder's error, in the state's units, shape as ``std``.
    missing
        Points that are never present (sea temperature over land), shape (C, H, W), or None. They
        are encoded as the mean, and decoded as NaN.
    """

    mean: np.ndarray
    std: np.ndarray
    latent_mean: np.ndarray
    latent_std: np.ndarray
    reconstruction: np.ndarray
    missing: np.ndarray | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that a bundle keeps."""
        kept = {
            "state_mean": self.mean,
            "state_std": self.std,
            "latent_mean": self.latent_mean,
            "latent_std": self.latent_std,
            "reconstruction_std": self.reconstruction,
        }
        return kept if self.missing is None else {**kept, "missing": self.missing}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Normalisation:
        """Return what `arrays` described."""
        return cls(
            arrays["state_mean"],
            arrays["state_std"],
            arrays["latent_mean"],
            arrays["latent_std"],
            arrays["reconstruction_std"],
            arrays.get("missing"),
        )


def permitted_gaps(normalisation: Normalisation, spec: StateSpec) -> np.ndarray:
    """Return where values may be missing, shape (C, H, W) or (C, 1, 1).

    That is where the model knows that nothing is ever present; as long as it knows nothing of
    that, in the temperature of the sea, as for the published models.
    """
    if normalisation.missing is not None:
        known: np.ndarray = normalisation.missing.astype(bool)
        return known
    of_sea = [variable.standard_name == _OF_THE_SEA for variable, _ in spec.channels]
    return np.array(of_sea)[:, None, None]


def without_gaps(states: np.ndarray, normalisation: Normalisation, spec: StateSpec) -> np.ndarray:
    """Return states whose permitted gaps hold the mean, as in training; see `permitted_gaps`.

    Parameters
    ----------
    states
        Packed states, shape (N, channel, latitude, longitude).
    normalisation, spec
        Those of the model.

    Returns
    -------
    numpy.ndarray
        Of the same shape, float32.

    Raises
    ------
    DataError
        If other values are missing.
    """
    gaps = ~np.isfinite(states)
    if (unknown := gaps & ~permitted_gaps(normalisation, spec)).any():
        raise DataError(
            "values are missing, and an autoencoder needs whole states",
            where="encode",
            expected="a value at every point of the model's grid",
            got=f"{int(unknown.sum())} missing values",
            remedy="fill them, take whole states, or assimilate the values as observations; of "
            "what is never present (sea temperature over land) model.calibrated(states) learns",
        )
    mean = np.broadcast_to(normalisation.mean, states.shape)
    return np.where(gaps, mean, states).astype(np.float32)
