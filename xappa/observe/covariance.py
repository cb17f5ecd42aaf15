r"""Errors that are not independent: biases of platforms, and correlations in space and time.

The errors of one array are

.. math:: e = P b + s + r, \quad R = P B P^\top + \Sigma_s C \Sigma_s + \Sigma_r^2

with biases :math:`P b` that are linear in known predictors (`xappa.observe.bias`), errors s that
correlate and errors r that do not. C is the product of a matrix between channels and of functions
of the distance in space and in time:

==============  ===========================================================================
exponential     :math:`\exp(-r / L)`
gaspari_cohn    the fifth-order function of Gaspari & Cohn (1999), equation 4.10, that vanishes
                beyond 2 c; :math:`c = L \sqrt{10/3} / 2`, so that it is about
                :math:`\exp(-r^2 / 2 L^2)` near zero
==============  ===========================================================================

References
----------
Gaspari & Cohn (1999), doi:10.1002/qj.49712555417.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse

from xappa.diffusion.noise import generator
from xappa.errors import ErrorCovarianceError
from xappa.grid import great_circle
from xappa.observe.bias import BiasModel

__all__ = ["CORRELATIONS", "DENSE_LIMIT", "Channels", "ErrorStructure", "gaspari_cohn"]

CORRELATIONS = ("exponential", "gaspari_cohn")
#: The most correlated observations of one array, whose matrix is dense.
DENSE_LIMIT = 6000


def gaspari_cohn(ratio: np.ndarray) -> np.ndarray:
    """Return the correlation at distances in units of c; zero beyond 2.

    >>> gaspari_cohn(np.array([0.0, 1.0, 2.0])).round(4)
    array([1.    , 0.2083, 0.    ])
    """
    r = np.abs(np.asarray(ratio, dtype=np.float64))
    near = ((((-r / 4 + 0.5) * r + 0.625) * r - 5 / 3) * r * r) + 1
    with np.errstate(divide="ignore"):
        far = ((((r / 12 - 0.5) * r + 0.625) * r + 5 / 3) * r - 5) * r + 4 - 2 / (3 * r)
    return np.where(r <= 1, near, np.where(r < 2, far, 0.0))


def _correlation(distance: np.ndarray, length: float, function: str) -> np.ndarray:
    if function == "exponential":
        return np.exp(-distance / length)
    return gaspari_cohn(distance / (length * np.sqrt(10 / 3) / 2))


@dataclass(frozen=True, eq=False)
class Channels:
    """Correlations between the K channels of an instrument.

    Parameters
    ----------
    matrix
        (K, K), symmetric and positive definite with ones on the diagonal.
    channel
        (n,) int64, which channel each element is of.
    view
        (n,) int64, which elements were seen together: one number for each place and time.
    """

    matrix: np.ndarray
    channel: np.ndarray
    view: np.ndarray

    def correlation(self, select: np.ndarray) -> scipy.sparse.csr_array:
        """Return the correlation of some elements, sparse (m, m): zero between views."""
        order = np.argsort(self.view[select], kind="stable")
        view, channel = self.view[select][order], self.channel[select][order]
        # of each element, all elements of the same view: pairs by counting
        first = np.searchsorted(view, view, side="left")
        count = np.searchsorted(view, view, side="right") - first
        row = np.repeat(np.arange(len(view)), count)
        column = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
        entries = self.matrix[channel[row], channel[column]]
        shape = (len(select), len(select))
        return scipy.sparse.csr_array((entries, (order[row], order[column])), shape=shape)

    def draw(self, white: np.ndarray) -> np.ndarray:
        """Return errors (n,) that correlate between channels, from white noise (n,)."""
        views, place = np.unique(self.view, return_inverse=True)
        table = np.zeros((len(views), len(self.matrix)))
        table[place, self.channel] = white
        drawn: np.ndarray = (table @ np.linalg.cholesky(self.matrix).T)[place, self.channel]
        return drawn


@dataclass(frozen=True, eq=False)
class ErrorStructure:
    """How the errors of the n elements of one array hang together.

    Parameters
    ----------
    bias
        Biases of platforms; None for none.
    length
        Correlation length in metres, or None for errors that do not correlate in space.
    period
        The same in time, in seconds.
    function
        One of `CORRELATIONS`.
    correlated_std
        (n,) standard deviation of the errors that correlate, in the state's units; None if all of
        the random errors do.
    latitude, longitude, time
        (n,) degrees and seconds.
    channels
        Correlations between channels; None for none.
    nugget
        Share of the correlated variance that is independent all the same: where observations
        coincide, they would otherwise have the very same error.
    inflation
        (n,) variances that a robust likelihood adds to random errors; None for none.
    notes
        Sentences: what was assumed.
    """

    bias: BiasModel | None
    length: float | None
    period: float | None
    function: str
    correlated_std: np.ndarray | None
    latitude: np.ndarray
    longitude: np.ndarray
    time: np.ndarray
    channels: Channels | None = None
    nugget: float = 0.0
    inflation: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @property
    def spreads(self) -> bool:
        """Whether random errors correlate in space or time."""
        return self.length is not None or self.period is not None

    @property
    def correlates(self) -> bool:
        """Whether random errors correlate."""
        return self.spreads or self.channels is not None

    def correlation(self, select: np.ndarray) -> np.ndarray:
        """Return C of some elements, dense (m, m); elements at unknown places stand alone."""
        lat, lon, time = (part[select] for part in (self.latitude, self.longitude, self.time))
        known = np.isfinite(lat) & np.isfinite(lon) & (np.isfinite(time) | (self.period is None))
        matrix = np.ones((len(select), len(select)))
        if self.length is not None:
            at = (np.where(known, part, 0.0) for part in (lat, lon))
            phi, lam = at
            distance = great_circle(phi[:, None], lam[:, None], phi, lam)
            matrix *= _correlation(distance, self.length, self.function)
        else:  # places by themselves
            place = np.unique(np.stack([lat, lon]), axis=1, return_inverse=True)[1].reshape(-1)
            matrix *= place[:, None] == place
        if self.period is not None:
            seconds = np.where(known, time, 0.0)
            matrix *= _correlation(np.abs(seconds[:, None] - seconds), self.period, self.function)
        else:
            matrix *= time[:, None] == time
        matrix[~known] = 0.0
        matrix[:, ~known] = 0.0
        if self.channels is not None:
            channel = self.channels.channel[select]
            matrix *= self.channels.matrix[np.ix_(channel, channel)]
        matrix *= 1 - self.nugget
        np.fill_diagonal(matrix, 1.0)
        return matrix

    def covariance(self, std: np.ndarray, select: np.ndarray) -> scipy.sparse.csr_array:
        """Return R of some elements.

        Parameters
        ----------
        std
            (m,) standard deviations of their random errors.
        select
            (m,) int64, which elements.
        """
        matrix = self.random_covariance(std, select)
        if self.bias is None:
            return matrix
        p = self.bias.design(select)
        return scipy.sparse.csr_array(matrix + p @ p.T)

    def random_covariance(self, std: np.ndarray, select: np.ndarray) -> scipy.sparse.csr_array:
        """Return R without biases; see `covariance`."""
        matrix = self._uninflated(std, select)
        if self.inflation is None:
            return matrix
        return scipy.sparse.csr_array(matrix + scipy.sparse.diags_array(self.inflation[select]))

    def _uninflated(self, std: np.ndarray, select: np.ndarray) -> scipy.sparse.csr_array:
        matrix = scipy.sparse.csr_array(scipy.sparse.diags_array(std**2))
        if not self.correlates:
            return matrix
        own = std if self.correlated_std is None else self.correlated_std[select]
        if self.spreads or self.channels is None:
            correlation = scipy.sparse.csr_array(self.correlation(select))
        else:
            correlation = self.channels.correlation(select)
        scale = scipy.sparse.diags_array(own)
        correlated = scipy.sparse.csr_array(scale @ correlation @ scale)
        if self.correlated_std is None:
            return correlated
        return scipy.sparse.csr_array(matrix + correlated)

    @cached_property
    def _root(self) -> np.ndarray:
        matrix = self.correlation(np.arange(len(self.latitude)))
        # the functions are positive definite; rounding of places that coincide is not
        values, vectors = np.linalg.eigh(matrix)
        if values[0] < -1e-6 * values[-1]:
            raise ErrorCovarianceError(
                "the correlation of observation errors is not positive definite",
                where="errors of observations",
                expected="eigenvalues >= 0",
                got=f"a least one of {values[0]:.2e}",
                remedy="take the exponential function, or a shorter correlation",
            )
        root: np.ndarray = vectors * np.sqrt(np.clip(values, 0, None))
        return root

    def _correlated(self, white: np.ndarray) -> np.ndarray:
        if self.spreads or self.channels is None:
            return np.asarray(self._root @ white)
        return self.channels.draw(white)

    def draw(
        self, std: np.ndarray, white: np.ndarray, seed: int, purpose: str, *keys: str | int
    ) -> np.ndarray:
        """Return errors (n,) of all elements from white noise (n,), and the rest by ``keys``."""
        error: np.ndarray = white * std
        if self.correlates and self.correlated_std is None:
            error = self._correlated(white) * std
        elif self.correlates and self.correlated_std is not None:
            more = generator(seed, f"{purpose} correlated", *keys).standard_normal(len(white))
            error = error + self._correlated(more) * self.correlated_std
        if self.inflation is not None:
            more = generator(seed, f"{purpose} inflation", *keys).standard_normal(len(white))
            error = error + more * np.sqrt(self.inflation)
        if self.bias is not None:
            error = error + self.bias.draw(seed, purpose, *keys)
        return error

    def describe(self) -> str:
        """Return what it is in words, for reports."""
        said = [] if self.bias is None else [self.bias.describe()]
        near = [] if self.length is None else [f"{self.length / 1000:g} km"]
        near += [] if self.period is None else [f"{self.period / 3600:g} h"]
        if near:
            said.append(f"correlated over {' and '.join(near)} ({self.function})")
        if self.channels is not None:
            said.append(f"correlated between {len(self.channels.matrix)} channels")
        return ", ".join(said)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        from dask.base import normalize_token

        places = (self.latitude, self.longitude, self.time)
        arrays = (self.correlated_std, self.inflation, *places)
        about = (self.length, self.period, self.function, self.nugget)
        parts = (self.bias, None if self.channels is None else self.channels.__dict__)
        return ("xappa.ErrorStructure", *about, normalize_token((arrays, parts)))
