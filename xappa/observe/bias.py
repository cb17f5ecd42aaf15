r"""Biases of platforms, linear in known predictors (variational bias correction).

The bias of platform j in the observation i is

.. math:: b_i = \sum_k \beta_{jk} \, p_{ik}, \qquad \beta_{jk} \sim \mathcal N(0, \sigma_k^2),

with :math:`p_{i0} = 1` (a constant offset) and further predictors that the observations carry, such
as a scan angle, or that describe the air mass, such as a thickness. Predictors are centred and
scaled to a standard deviation of one over the array, so that :math:`\sigma_k` is in the units of
the observations.

Biases need no iteration: with :math:`P B P^\top` in R, the analysis is exactly the one that
estimates them along with the state (Dee 2005). What they are given the observations y follows from
the analysis x,

.. math:: E[\beta \mid y] = B P^\top (P B P^\top + R_0)^{-1} \left( y - E[H(x) \mid y] \right),

where :math:`R_0` is the covariance of the random errors.

References
----------
Dee (2005), Bias and data assimilation, doi:10.1256/qj.05.137. Auligné, McNally & Dee (2007),
Adaptive bias correction for satellite data in a numerical weather prediction system,
doi:10.1002/qj.56.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from xappa.diffusion.noise import generator

if TYPE_CHECKING:
    from xappa.observe.spec import ObservationSpec

__all__ = ["CONSTANT", "BiasModel"]

CONSTANT = "constant"


@dataclass(frozen=True, eq=False)
class BiasModel:
    """Biases of the n elements of one array.

    Parameters
    ----------
    platform
        (n,) int64, number of the platform of each element.
    labels
        What the platforms are called, by number.
    predictors
        By name, (n,) each, as they are given; the constant is not among them.
    std
        (1 + K,) standard deviations of the coefficients of the constant and of the K predictors, in
        the state's units.
    air_mass
        Predictors that are quantities of the state, by name: how they are computed. Their values in
        `predictors` are missing until `with_predictors` gives them.
    """

    platform: np.ndarray
    labels: tuple[str, ...]
    predictors: Mapping[str, np.ndarray]
    std: np.ndarray
    air_mass: Mapping[str, ObservationSpec] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The predictors, the constant first."""
        return (CONSTANT, *self.predictors)

    def with_predictors(self, values: Mapping[str, np.ndarray]) -> BiasModel:
        """Return biases whose air-mass predictors are known, (n,) each."""
        return replace(self, predictors={**self.predictors, **values})

    @property
    def scaled(self) -> np.ndarray:
        """(n, 1 + K) predictors, centred and scaled; zero where they are not known."""
        columns = [np.ones(len(self.platform))]
        for values in self.predictors.values():
            known = np.isfinite(values)
            inside = values[known]
            spread = inside.std() if inside.size else 0.0
            mean = inside.mean() if inside.size else 0.0
            scale = 1 / spread if spread > 1e-12 * (1 + abs(mean)) else 0.0
            columns.append(np.where(known, (values - mean) * scale, 0.0))
        return np.stack(columns, axis=1)

    def design(self, select: np.ndarray) -> scipy.sparse.csr_array:
        """Return P times the root of B of some elements: (m, platforms x (1 + K)), sparse."""
        weight = self.scaled[select] * self.std
        k = weight.shape[1]
        row = np.repeat(np.arange(len(select)), k)
        column = (self.platform[select][:, None] * k + np.arange(k)).ravel()
        shape = (len(select), len(self.labels) * k)
        return scipy.sparse.csr_array((weight.ravel(), (row, column)), shape=shape)

    def draw(self, seed: int, purpose: str, *keys: str | int) -> np.ndarray:
        """Return biases (n,), drawn once for each platform."""
        k = len(self.std)
        drawn = [
            generator(seed, f"{purpose} bias", *keys, number).standard_normal(k)
            for number in range(len(self.labels))
        ]
        beta = np.reshape(drawn, (len(self.labels), k)) * self.std
        return self.of(beta)

    def estimate(
        self, departure: np.ndarray, select: np.ndarray, random: scipy.sparse.csr_array
    ) -> np.ndarray:
        """Estimate the coefficients from departures of the analysis.

        Parameters
        ----------
        departure
            (m,) observation minus mean analysis.
        select
            (m,) int64, which elements.
        random
            (m, m) covariance of their random errors.

        Returns
        -------
        (platforms, 1 + K)
            The mean of the coefficients given the observations; zero of platforms without any.
        """
        from scipy.sparse.linalg import spsolve

        k = len(self.std)
        shape = (len(self.labels), k)
        if not len(select):
            return np.zeros(shape)
        p = self.design(select)
        weighted = scipy.sparse.csr_array(
            np.reshape(spsolve(random.tocsc(), p.toarray()), (len(select), -1))
        )
        precision = (p.T @ weighted).toarray() + np.eye(p.shape[1])
        white = np.linalg.solve(precision, weighted.T @ departure)
        return np.asarray(white.reshape(shape) * self.std)

    def of(self, beta: np.ndarray) -> np.ndarray:
        """Return the biases (n,) of all elements, given coefficients (platforms, 1 + K)."""
        return np.asarray((beta[self.platform] * self.scaled).sum(axis=1))

    def describe(self) -> str:
        """Return what it is in words, for reports."""
        count = len(self.labels)
        said = f"biases of {count} platform{'s' if count > 1 else ''}"
        return said + (f" by {', '.join(self.predictors)}" if self.predictors else "")

    def __dask_tokenize__(self) -> tuple[object, ...]:
        from dask.base import normalize_token

        parts = (self.platform, self.labels, dict(self.predictors), self.std, dict(self.air_mass))
        return ("xappa.BiasModel", normalize_token(parts))
