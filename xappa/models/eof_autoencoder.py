r"""EOFs as an autoencoder: :math:`z = (E^\top W E)^{-1} E^\top W a` and :math:`a = E z`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["EOFAutoencoder"]


class EOFAutoencoder(nn.Module):
    """Encode anomalies to standardised principal components, and decode them.

    Parameters
    ----------
    eofs
        E, shape (P, M).
    residual
        Variance that the EOFs leave, shape (P,); NaN where a point is not part of the state.
    weight
        W, shape (P,).
    """

    eofs: Tensor
    weight: Tensor

    def __init__(self, eofs: np.ndarray, residual: np.ndarray, weight: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("eofs", torch.as_tensor(eofs))
        self.register_buffer("weight", torch.as_tensor(weight))
        self._residual = residual
        root = eofs * np.sqrt(weight, dtype=np.float64)[:, None]
        self._gram = root.T @ root

    def encode(self, anomalies: Tensor) -> Tensor:
        """Map complete anomalies of shape (..., P) to components (..., M), float64."""
        right = (anomalies.double() * self.weight.double()) @ self.eofs.double()
        gram = torch.as_tensor(self._gram, device=right.device)
        latents: Tensor = torch.linalg.solve(gram, right.unsqueeze(-1)).squeeze(-1)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Map components of shape (..., M) to anomalies (..., P)."""
        return latents @ self.eofs.to(latents).mT

    def encode_array(self, anomalies: np.ndarray) -> np.ndarray:
        """Map anomalies of shape (N, P), with NaN where missing, to components (N, M)."""
        present = np.isfinite(anomalies)
        wanted = np.isfinite(self._residual) & (self.weight.numpy() > 0)
        out = np.empty((len(anomalies), self.eofs.shape[1]))
        complete = present[:, wanted].all(axis=1)
        if complete.any():
            filled = np.where(present[complete], anomalies[complete], 0.0)
            out[complete] = self.encode(torch.as_tensor(filled)).numpy()
        for i in np.flatnonzero(~complete):
            out[i] = self._expected(anomalies[i], present[i] & wanted)
        return out

    def decode_array(self, latents: np.ndarray) -> np.ndarray:
        """Map components (..., M) to anomalies (..., P), NaN where a point is not of the state."""
        anomalies = self.decode(torch.as_tensor(np.asarray(latents, dtype=np.float64))).numpy()
        anomalies[..., ~np.isfinite(self._residual)] = np.nan
        return anomalies

    def weighted(self, present: np.ndarray) -> np.ndarray:
        """Return D⁻¹ E at the points of a mask (P,), shape (points, M), float64."""
        eofs = self.eofs.numpy()[present].astype(np.float64)
        floor = 1e-6 * np.einsum("pm,pm->p", eofs, eofs).mean() if len(eofs) else 1.0
        weighted: np.ndarray = eofs / np.maximum(self._residual[present], floor)[:, None]
        return weighted

    def _expected(self, anomaly: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Return the components expected given part of a state: (I + Eᵀ D⁻¹ E)⁻¹ Eᵀ D⁻¹ a."""
        weighted = self.weighted(present)
        information = weighted.T @ self.eofs.numpy()[present]
        result: np.ndarray = np.linalg.solve(
            np.eye(weighted.shape[1]) + information, anomaly[present] @ weighted
        )
        return result
