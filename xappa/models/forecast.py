r"""Continuing trajectories with an EOF-Gaussian prior.

The latents of the last states are drawn given the states' values, the latents ahead follow from the
prior's Markov process, and the residual of each state ahead is drawn anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
import torch

from xappa.diffusion.noise import generator, standard_normal
from xappa.errors import DataError
from xappa.models.gaussian import GaussianModel

__all__ = ["continued", "decoded", "past_latents"]


def past_latents(
    model: GaussianModel,
    last: np.ndarray,
    seconds: np.ndarray,
    members: Sequence[int],
    seed: int,
) -> np.ndarray:
    """Draw latents (B, n, M) of the last packed states that have values."""
    last = last.reshape(-1, *last.shape[-4:])
    known = np.isfinite(last).any(axis=(-3, -2, -1)).all(axis=0)
    if not known[-1]:
        raise DataError(
            "the state that the forecast starts from is missing",
            where="the last time of the Dataset",
            expected="values",
            got="NaN",
            remedy="select the times that hold values: ds.isel(time=slice(None, n))",
        )
    # Only what follows the last gap: a state without values is no state to condition upon.
    first = int(np.flatnonzero(~known)[-1]) + 1 if not known.all() else 0
    return _past(model, last[:, first:], seconds[first:], members, seed).numpy()


def continued(
    model: GaussianModel, past: np.ndarray, ahead: np.ndarray, members: Sequence[int], seed: int
) -> np.ndarray:
    """Draw latents (B, steps, M) at the times ahead, given those of the last states (B, n, M)."""
    known = torch.as_tensor(np.asarray(past, np.float64))
    white = torch.as_tensor(standard_normal(seed, "forecast", members, ahead, model.latent_size))
    order = max(1, model.process.order)
    for k in range(len(ahead)):
        state = model.process.step(known[:, -order:], white[:, k])
        known = torch.cat([known, state[:, None]], dim=1)
    return known[:, -len(ahead) :].numpy()


def _past(
    model: GaussianModel,
    states: np.ndarray,
    seconds: np.ndarray,
    members: Sequence[int],
    seed: int,
) -> torch.Tensor:
    r"""Draw the latents (B, n, M) of n states, given their values at the points that are present.

    With the values :math:`a = E_p z + r_p` at the points p of each state, the precision of the
    latents is that of the prior and :math:`E_p^\top D_p^{-1} E_p` for each state: from complete
    states there is next to nothing left to draw, from a part of the grid there is.
    """
    n, size = len(seconds), model.latent_size
    anomalies = (states - model.climatology(seconds)).reshape(len(states), n, -1)
    identity = np.eye(n * size).reshape(-1, n, size)
    prior = np.linalg.inv(
        model.prior(n).covariance_times(torch.as_tensor(identity)).reshape(-1, n * size).numpy()
    )
    white = standard_normal(seed, "forecast start", members, seconds, size)
    parts: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    drawn = np.empty(white.shape)
    for i, own in enumerate(anomalies):
        precision, pull = prior.copy(), np.zeros((n, size))
        for t, anomaly in enumerate(own):
            present = np.isfinite(anomaly) & np.isfinite(model.residual)
            key = present.tobytes()
            if key not in parts:
                weighted = model.autoencoder.weighted(present)
                parts[key] = weighted, weighted.T @ model.eofs[present]
            weighted, information = parts[key]
            here = slice(t * size, (t + 1) * size)
            precision[here, here] += information
            pull[t] = anomaly[present] @ weighted
        root = np.linalg.cholesky(precision)
        mean = np.linalg.solve(precision, pull.ravel())
        # Copies of a member follow each other at a distance of the number of members.
        copies = white[i :: len(anomalies)].reshape(-1, n * size)
        drawn[i :: len(anomalies)] = (
            mean + scipy.linalg.solve_triangular(root.T, copies.T, lower=False).T
        ).reshape(-1, n, size)
    return torch.as_tensor(drawn)


def decoded(
    model: GaussianModel, latents: np.ndarray, ahead: np.ndarray, members: Sequence[int], seed: int
) -> np.ndarray:
    """Decode latents (B, steps, M) to packed states, with draws of the residual."""
    states = model.decode_array(latents, ahead)
    flat = states.reshape(len(members), len(ahead), -1)
    std = np.sqrt(model.residual.astype(np.float64))
    for b, member in enumerate(members):
        for k, time in enumerate(ahead):
            stream = generator(seed, "forecast residual", member, float(time))
            flat[b, k] += stream.standard_normal(len(std)) * std
    return states
