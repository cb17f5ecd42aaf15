"""How states and latents are standardised, and what a denoiser is told of dates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from xappa.cf import phase

__all__ = ["Normalisation", "date_features"]


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
