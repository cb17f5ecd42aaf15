r"""Climatology: the mean with the annual and the diurnal cycle that the data can tell apart.

At every point the mean is a sum of harmonics of the time of year and of the (UTC) time of day,

.. math:: c(t) = \sum_f b_f \, \phi_f(t), \quad
    \phi \in \{1, \cos 2\pi k d, \sin 2\pi k d, \cos 2\pi j a, \dots\},

fitted by least squares; d and a are the fractions of the day and of the year. Which harmonics are
used follows from the sampling: no diurnal cycle from fewer than five days, no annual cycle from
less than a year, and no wave that is not longer than twice the widest gap between the hours, or
seasons, present. (Of a diurnal wave that is just twice as long, the cosine from the first hour on.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xappa.cf import phase

__all__ = ["Climatology", "SeasonalTerms", "regress"]

_DAY = 86400.0
#: Beyond this condition number of the design, least squares would amplify noise.
_WORST_CONDITION = 100.0


@dataclass(frozen=True)
class SeasonalTerms:
    """Which harmonics describe the mean.

    Parameters
    ----------
    diurnal
        Number of harmonics of the day.
    nyquist
        Fraction of the day at which the cosine of the last of them has its crest, where that is
        sampled at its Nyquist frequency, so that only a cosine remains; else None.
    annual
        Number of harmonics of the year; each diurnal harmonic then varies with the first of them.
    calendar
        The calendar of the times.
    """

    diurnal: int = 0
    nyquist: float | None = None
    annual: int = 0
    calendar: str = "proleptic_gregorian"

    @classmethod
    def choose(cls, seconds: np.ndarray, calendar: str, time_step: float | None) -> SeasonalTerms:
        """Choose the harmonics that times (shape (T,), seconds) can tell apart."""
        if time_step is None or len(seconds) < 3:
            return cls(calendar=calendar)
        day, year = phase(np.asarray(seconds, dtype=float), calendar)
        span = float(np.max(seconds) - np.min(seconds)) + time_step
        annual = diurnal = 0
        nyquist: float | None = None
        if span >= 360 * _DAY and len(seconds) >= 24:
            annual = min(2, math.ceil(0.5 / _widest_gap(year)) - 1)
        if span >= 5 * _DAY and time_step < _DAY:
            gap = _widest_gap(day)
            diurnal = min(3, math.ceil(0.5 / gap - 1e-6) - 1)
            hours = np.unique(np.round(day * _DAY) % _DAY) / _DAY
            if diurnal < 3 and len(hours) == 2 * (diurnal + 1) and gap * len(hours) < 1 + 1e-6:
                diurnal, nyquist = diurnal + 1, float(hours[0])
        for terms in (
            cls(diurnal, nyquist, annual, calendar),
            cls(diurnal, nyquist, 0, calendar),
            cls(0, None, annual, calendar),
        ):
            # Hours and seasons may both be there, and not all hours in each season.
            if np.linalg.cond(terms.design(seconds)) < _WORST_CONDITION:
                return terms
        return cls(calendar=calendar)

    def design(self, seconds: np.ndarray) -> np.ndarray:
        """Return the basis functions at times of shape (T,): shape (T, F)."""
        day, year = phase(np.asarray(seconds, dtype=float), self.calendar)
        seasonal = [np.ones_like(day)]
        for k in range(1, self.annual + 1):
            seasonal += [np.cos(2 * np.pi * k * year), np.sin(2 * np.pi * k * year)]
        columns = list(seasonal)
        for k in range(1, self.diurnal + 1):
            if self.nyquist is not None and k == self.diurnal:
                waves = [np.cos(2 * np.pi * k * (day - self.nyquist))]
            else:
                waves = [np.cos(2 * np.pi * k * day), np.sin(2 * np.pi * k * day)]
            modulation = seasonal[:3] if self.annual else seasonal[:1]
            columns += [wave * factor for wave in waves for factor in modulation]
        return np.stack(columns, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {
            "diurnal": self.diurnal,
            "nyquist": self.nyquist,
            "annual": self.annual,
            "calendar": self.calendar,
        }

    def __str__(self) -> str:
        parts = ["mean"]
        parts += [f"annual cycle ({self.annual} harmonics)"] if self.annual else []
        parts += [f"diurnal cycle ({self.diurnal} harmonics)"] if self.diurnal else []
        return " + ".join(parts)


def _widest_gap(phases: np.ndarray) -> float:
    """Return the widest gap between phases in [0, 1), which go round, as a fraction.

    >>> round(_widest_gap(np.array([0.0, 0.25, 0.5])), 6)
    0.5
    """
    around = np.unique(np.round(phases, 6) % 1.0)
    return float(np.diff(np.append(around, around[0] + 1.0)).max())


def regress(states: Any, seconds: np.ndarray, terms: SeasonalTerms) -> Any:
    """Fit the harmonics by least squares.

    Parameters
    ----------
    states
        Shape (B, T, P), numpy or dask: B series of T states at P points.
    seconds
        Times, shape (T,).
    terms
        The harmonics.

    Returns
    -------
    array
        Coefficients, shape (F, P), lazy if the states are.
    """
    solve = np.linalg.pinv(terms.design(seconds))
    return solve @ states.mean(axis=0)


@dataclass(frozen=True, eq=False)
class Climatology:
    """The mean state as a function of time.

    Parameters
    ----------
    terms
        The harmonics.
    coefficients
        Shape (F, channel, latitude, longitude), in the state's units.
    """

    terms: SeasonalTerms
    coefficients: np.ndarray

    def __call__(self, seconds: np.ndarray) -> np.ndarray:
        """Return the mean at times (T,): shape (T, channel, latitude, longitude), float64."""
        design = self.terms.design(seconds)
        return np.tensordot(design, self.coefficients.astype(np.float64), axes=1)

    def at_points(self, seconds: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return the mean at (time, point) pairs.

        Parameters
        ----------
        seconds
            Times, shape (P,).
        points
            Flat indices into (channel, latitude, longitude), shape (P,).
        """
        flat = self.coefficients.reshape(len(self.coefficients), -1)[:, points].astype(np.float64)
        mean: np.ndarray = np.einsum("pf,fp->p", self.terms.design(seconds), flat)
        return mean
