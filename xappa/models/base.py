"""What every model is: networks or covariances, with all that they need to be used, as a bundle.

A model holds no xarray objects of the user's: it works on packed states, arrays of shape
(..., time, channel, latitude, longitude) in the order, units and orientation of its `StateSpec`.
Most are priors over trajectories of latents (`Prior`); a downscaling model is none.
"""

from __future__ import annotations

import abc
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from xappa.bridge import StateSpec
from xappa.formatting import model_html, model_text

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

__all__ = ["Model", "Prior"]


class Model(abc.ABC):
    """A bundle: weights, statistics and the contract of its grid, variables and time step.

    Parameters
    ----------
    spec
        Variables, levels, units, grid and time step of the states that it is given.
    name
        A short name.
    provenance
        How the model came about, JSON-able.
    scores
        Scores that the model reached, JSON-able.
    """

    kind: ClassVar[str]
    #: Whether it holds networks, which run on the device of the options.
    has_networks: ClassVar[bool] = False

    def __init__(
        self,
        spec: StateSpec,
        *,
        name: str,
        provenance: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec = spec
        self.name = name
        self.provenance = dict(provenance or {})
        self.scores = dict(scores or {})
        self._hash: str | None = None

    # What a kind of model defines ----------------------------------------------------------------

    @property
    @abc.abstractmethod
    def arguments(self) -> dict[str, Any]:
        """What besides the arrays is needed to build the model again, JSON-able."""

    @property
    @abc.abstractmethod
    def weights(self) -> dict[str, np.ndarray]:
        """The arrays that are kept in ``weights.safetensors``."""

    @property
    @abc.abstractmethod
    def statistics(self) -> xr.Dataset:
        """Labelled statistics on the model's grid, kept in ``statistics.nc``."""

    @classmethod
    @abc.abstractmethod
    def rebuild(
        cls,
        spec: StateSpec,
        arguments: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        statistics: xr.Dataset,
        **labels: Any,
    ) -> Model:
        """Build the model from what a bundle holds."""

    # What follows from it ------------------------------------------------------------------------

    @property
    def hash(self) -> str:
        """SHA-256 of all that determines the model's numbers, hexadecimal."""
        if self._hash is None:
            digest = hashlib.sha256()
            head = {"kind": self.kind, "spec": self.spec.to_dict(), "arguments": self.arguments}
            digest.update(json.dumps(head, sort_keys=True).encode())
            for name, array in sorted(self.weights.items()):
                digest.update(f"{name}{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
            self._hash = digest.hexdigest()
        return self._hash

    @property
    def has_weights(self) -> bool:
        """Whether the model has values, and not only shapes."""
        return True

    @property
    def label(self) -> str:
        """Name and hash, as written to the attributes of every output."""
        return f"{self.name} sha256:{self.hash[:16]}"

    @property
    def parameter_counts(self) -> dict[str, int]:
        """Number of values in each part of the weights."""
        return {name: int(array.size) for name, array in self.weights.items()}

    @property
    def n_parameters(self) -> int:
        """Number of values in the weights."""
        return sum(self.parameter_counts.values())

    def to(self, device: Any) -> Model:
        """Move networks to a device of torch's, if there are any, and return the model."""
        return self

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the model as a bundle, a folder that `xappa.open_model` opens.

        Parameters
        ----------
        path
            The folder to create.
        overwrite
            Whether an existing bundle there may be replaced.

        Raises
        ------
        BundleError
            If the folder exists and is not to be replaced.
        """
        from xappa.models.bundle import save

        return save(self, path, overwrite=overwrite)

    def template(self, start: Any, stop: Any = None) -> xr.Dataset:
        """Return an empty Dataset on the model's grid, levels and time step.

        Parameters
        ----------
        start, stop
            First and last valid time (anything that pandas reads, or cftime); ``stop`` defaults to
            ``start``.

        Returns
        -------
        xarray.Dataset
            The model's variables, all NaN (read-only, of no size in memory), with CF metadata.

        Raises
        ------
        TimeStepError
            If the model has no time step and more than one time is asked for, or ``stop`` is
            before ``start``.
        ArgumentError
            If ``start`` or ``stop`` is no time.
        """
        from xappa.models.template import template

        return template(self, start, stop)

    @property
    def description(self) -> tuple[tuple[str, str], ...]:
        """What besides variables, grid and parameters tells of a kind of model: names and texts."""
        return ()

    @property
    def facts(self) -> dict[str, Any]:
        """Numbers that a bundle's description repeats for those who read it, JSON-able."""
        return {}

    def summary(self) -> str:
        """Return a text that says what the model is, its sizes and parameter counts."""
        return model_text(self)

    def __repr__(self) -> str:
        return model_text(self)

    def _repr_html_(self) -> str:
        return model_html(self)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return (type(self).__name__, self.hash)


class Prior(Model):
    """A prior over trajectories of latents: what observations are assimilated into.

    Parameters
    ----------
    spec, name, provenance, scores
        See `Model`.
    """

    #: How ``assimilate`` draws where no method is asked for.
    default_method: ClassVar[str]
    #: Of latents, as `encode_array` returns them.
    latent_dtype: ClassVar[type[np.floating[Any]]] = np.float64

    @property
    @abc.abstractmethod
    def blanket(self) -> int:
        """Number K of consecutive states that the prior knows jointly."""

    @property
    @abc.abstractmethod
    def latent_size(self) -> int:
        """Size of the latent of one state."""

    @property
    @abc.abstractmethod
    def std(self) -> np.ndarray:
        """Climatological standard deviation at every point, shape (P,); NaN off the state."""

    @abc.abstractmethod
    def expected(self, seconds: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return climatological means and standard deviations at (time, flat point) pairs."""

    @abc.abstractmethod
    def encode_array(self, states: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Map packed states (..., T, channel, latitude, longitude) to latents (..., T, L)."""

    @abc.abstractmethod
    def decode_array(self, latents: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Map latents (..., T, L) to packed states (..., T, channel, latitude, longitude)."""

    @property
    def description(self) -> tuple[tuple[str, str], ...]:
        """Length of a blanket and size of latents; see `Model.description`."""
        states = "state" if self.blanket == 1 else "states"
        channels = "channel" if self.spec.n_channels == 1 else "channels"
        each = f"{self.latent_size} for each state of {self.spec.n_channels} {channels}"
        return ("blanket", f"{self.blanket} {states}"), ("latents", each)

    @property
    def facts(self) -> dict[str, Any]:
        """The same in numbers; see `Model.facts`."""
        return {"blanket": self.blanket, "latent_size": self.latent_size}

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is not known of the model, and matters to its analyses: said as warnings."""
        return ()
