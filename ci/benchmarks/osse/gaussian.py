r"""The EOF-Gaussian posterior of weeks of many observations, in the form of information.

`xappa.fit_gaussian` gives components z_t, a Gaussian process of order p, and a residual r_t, white
with the variances D: :math:`x_t = c_t + E z_t + r_t`. `ds.appa.assimilate` solves for the
observations, of which a window has tens of thousands here. For the components the observations of
a time are the information

.. math:: J_t = G_t^\top \tilde R_t^{-1} G_t, \quad
    h_t = G_t^\top \tilde R_t^{-1} (y_t - H_t c_t), \quad
    G_t = H_t E, \quad \tilde R_t = R_t + H_t D H_t^\top,

600 by 600, whatever their number, so that the same posterior is at hand for weeks at once:

- *OI*: precision :math:`\Gamma_0^{-1} + J_t`, with the observations of one time alone;
- *filter*: the Kalman filter of the companion form of p states;
- *smoother*: :math:`\Lambda + \operatorname{diag}(J_1 \dots J_T)` is block-tridiagonal.

The residual given z and y is drawn by Matheron's rule. That it is the same posterior as that of
`ds.appa.assimilate` is checked on a part that is small enough (`check`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
import torch
import xarray as xr
from networks import select

import xappa
from xappa.bridge import Layout, unpack
from xappa.diffusion.blocktridiagonal import BlockTridiagonalCovariance
from xappa.models.gaussian import GaussianModel
from xappa.models.posterior import GaussianPosterior, Residual
from xappa.observe import ObservationOperator, read_observations

__all__ = ["KINDS", "Gaussian", "check"]

KINDS = ("oi", "filter", "smoother")
#: Times that are smoothed at once, and those on both sides of them whose observations count too.
WINDOW, HALO = 40, 12


@dataclass(frozen=True, eq=False)
class Information:
    """What the observations of one time say.

    Parameters
    ----------
    j, h
        J (M, M) and h (M,).
    basis, offset, y
        G (n, M), H c (n,) and the observations (n,).
    operator
        H (n, P), sparse.
    error
        R (n, n), sparse.
    residual
        D (P,).
    """

    j: np.ndarray
    h: np.ndarray
    basis: np.ndarray
    offset: np.ndarray
    y: np.ndarray
    operator: scipy.sparse.csr_array
    error: scipy.sparse.csr_array
    residual: np.ndarray

    @cached_property
    def factor(self) -> scipy.sparse.linalg.SuperLU:
        return _factor(self.operator, self.error, self.residual)

    def draw_residual(self, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw r given components (N, M) and the observations: (N, P)."""
        root = np.sqrt(self.residual)
        prior = rng.standard_normal((len(z), root.size)) * root
        noise = rng.standard_normal((len(z), self.y.size)) * np.sqrt(self.error.diagonal())
        left = self.y - self.offset - noise - z @ self.basis.T - (self.operator @ prior.T).T
        return prior + (self.operator.T @ self.factor.solve(left.T)).T * self.residual


def _factor(
    h: scipy.sparse.csr_array, r: scipy.sparse.csr_array, d: np.ndarray
) -> scipy.sparse.linalg.SuperLU:
    scaled = h * np.sqrt(d)[None]
    total = scipy.sparse.csc_matrix(scaled @ scaled.T + r)
    return scipy.sparse.linalg.splu(
        total, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}
    )


class Gaussian:
    """The posterior of all times given one network.

    Parameters
    ----------
    model
        From `xappa.fit_gaussian`.
    obs
        The networks.
    template
        Gives times, grid and labels.
    """

    def __init__(
        self, model: GaussianModel, obs: Sequence[xr.Dataset], template: xr.Dataset
    ) -> None:
        self.model, self.obs, self.template = model, obs, template
        self.times: pd.DatetimeIndex = template.indexes["time"]
        self.seconds = np.asarray(Layout.of(self.template, model.spec).times)
        size = model.latent_size
        self.j, self.h = np.empty((len(self.times), size, size)), np.empty((len(self.times), size))
        for k in range(len(self.times)):
            found = self.information(k)
            self.j[k], self.h[k] = found.j, found.h

    def information(self, k: int) -> Information:
        """Return what the observations of the k-th time say."""
        model = self.model
        given = select(list(self.obs), self.times[k], self.times[k])
        specs = read_observations(given, model.spec)
        now = self.seconds[k : k + 1]
        operator = ObservationOperator.build(specs, model.spec, now)
        parts = GaussianPosterior(model, operator, now, model.prior(1), Residual(model.residual))
        residual = np.nan_to_num(model.residual).astype(np.float64)
        basis = parts.latent_map.dense()[:, 0].numpy()
        offset, y = parts.latent_map.offset.numpy(), parts.observed.numpy()
        factor = _factor(parts.linear, operator.error_covariance, residual)
        pull = factor.solve(basis)
        return Information(
            basis.T @ pull,
            pull.T @ (y - offset),
            basis,
            offset,
            y,
            parts.linear,
            operator.error_covariance,
            residual,
        )

    def components(self, kind: str, members: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the means (T, M) and draws (N, T, M) of the components."""
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        white = rng.standard_normal((members, len(self.times), self.model.latent_size))
        if kind == "smoother":
            return self._smoother(white)
        steps = self._oi() if kind == "oi" else self._filter()
        means, draws = [], []
        for k, (mean, covariance) in enumerate(steps):
            root = np.linalg.cholesky((covariance + covariance.T) / 2)
            means.append(mean)
            draws.append(mean + white[:, k] @ root.T)
        return np.stack(means), np.stack(draws, axis=1)

    def _oi(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        prior = np.linalg.inv(self.model.autocovariance[0])
        for j, h in zip(self.j, self.h, strict=True):
            covariance = np.linalg.inv(prior + j)
            yield covariance @ h, covariance

    def _filter(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        process, size = self.model.process, self.model.latent_size
        mean = np.zeros(0)
        covariance = np.zeros((0, 0))
        for t, (j, h) in enumerate(zip(self.j, self.h, strict=True)):
            order = min(t, process.order)
            a, q = (part.numpy() for part in process.predictors[order])
            n = order * size
            row = a.transpose(1, 0, 2).reshape(size, n)
            past, spread = mean[:n], covariance[:n, :n]
            cross = row @ spread
            covariance = np.block([[cross @ row.T + q, cross], [cross.T, spread]])
            mean = np.concatenate([row @ past, past])
            first = covariance[:, :size]
            gain = np.linalg.solve((np.eye(size) + j @ first[:size]).T, first.T).T
            mean = mean + gain @ (h - j @ mean[:size])
            covariance = covariance - gain @ (j @ first.T)
            covariance = (covariance + covariance.T) / 2
            yield mean[:size], covariance[:size, :size]

    def _smoother(self, white: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Smooth windows of times with those around them, to spare memory."""
        means, draws = np.empty_like(white[0]), np.empty_like(white)
        for first in range(0, len(self.times), WINDOW):
            stop = min(first + WINDOW, len(self.times))
            part = slice(max(0, first - HALO), min(stop + HALO, len(self.times)))
            inside = slice(first - part.start, stop - part.start)
            mean, drawn = self._window(part, white[:, part])
            means[first:stop], draws[:, first:stop] = mean[inside], drawn[:, inside]
        return means, draws

    def _window(self, part: slice, white: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prior = self.model.prior(part.stop - part.start)
        diagonal, size = prior.precision.diagonal, self.model.latent_size
        for t, j in enumerate(self.j[part]):
            block, place = divmod(t, prior.span)
            at = slice(place * size, (place + 1) * size)
            diagonal[block, at, at] += torch.as_tensor(j)
        precision = BlockTridiagonalCovariance(diagonal, prior.precision.lower)
        mean = prior.unblock(precision.solve(prior.block(torch.as_tensor(self.h[part]))))
        about = prior.unblock(precision.inv.color(prior.block(torch.as_tensor(white))))
        return mean.numpy(), (mean + about).numpy()

    def states(self, draws: np.ndarray, k: int, seed: int, information: Information) -> xr.Dataset:
        """Decode draws (N, T, M) at the k-th time, with the residual drawn."""
        rng = np.random.default_rng([seed, 7, k])
        decoded = self.model.decode_array(draws[:, k : k + 1], self.seconds[k : k + 1])
        residual = information.draw_residual(draws[:, k], rng)
        values = decoded + residual.reshape(decoded.shape)
        layout = Layout.of(self.template.isel(time=[k]), self.model.spec)
        dims = ("member", "time", "channel", "latitude", "longitude")
        ds: xr.Dataset = unpack(xr.DataArray(values, dims=dims), layout)
        return ds


def check(gaussian: Gaussian, count: int = 3) -> float:
    """Return the largest difference of a smoother's mean from that of `ds.appa.assimilate`.

    Of the first `count` states, given their observations, in standard deviations of the components.
    """
    times = gaussian.times[:count]
    template = gaussian.template.isel(time=slice(count))
    small = Gaussian(gaussian.model, gaussian.obs, template)
    mean, _ = small.components("smoother", 1, 0)
    specs = read_observations(select(list(gaussian.obs), times[0], times[-1]), gaussian.model.spec)
    operator = ObservationOperator.build(specs, gaussian.model.spec, small.seconds)
    exact = GaussianPosterior(
        gaussian.model, operator, small.seconds, gaussian.model.prior(count),
        Residual(gaussian.model.residual),
    ).exact  # fmt: skip
    return float(np.abs(exact.mean[0].numpy() - mean).max())


def load(path: str) -> GaussianModel:
    model = xappa.open_model(path)
    assert isinstance(model, GaussianModel)
    return model
