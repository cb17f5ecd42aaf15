"""What a training goes on from: the networks and the normalisation of a model.

States are standardised as the model does, and both networks begin with its weights. What becomes of
the latents, in which the denoiser and the Gaussian that it departs from live, follows from the
steps:

- ``autoencoder_steps = 0``: states have the latents that they had. How these are standardised, and
  the Gaussian, stay as they are.
- ``denoiser_steps = 0``: the same, as the encoder is left alone, and the decoder alone goes on.
- Steps for both: latents change. They are standardised anew, the Gaussian is estimated anew, and
  the denoiser goes on from its weights, for latents that are near to those it knows.

Sizes are the model's. What of a configuration was said (in a file's table ``[training]``, or by
values other than the defaults in an `AppaTraining`) must not contradict them; those of presets say
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xappa.bridge import Layout, describe
from xappa.bridge.recognise import as_dataset, step_of, tolerance_of
from xappa.errors import ArgumentError, DataError, TimeStepError
from xappa.models.appa.model import AppaModel, loaded
from xappa.models.appa.normalisation import permitted_gaps
from xappa.models.base import Model
from xappa.models.catalogue import open_model
from xappa.nn.autoencoder import ConvAutoencoder
from xappa.nn.transformer import LatentTransformer
from xappa.training.config import AppaTraining
from xappa.training.latents import Latents
from xappa.training.statistics import Statistics

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Start", "check_steps"]

_WHERE = "start="


@dataclass(frozen=True, eq=False)
class Start:
    """A model that a training goes on from; it is left as it is.

    Parameters
    ----------
    model
        The model.
    """

    model: AppaModel

    @classmethod
    def of(cls, start: AppaModel | str | Path) -> Start:
        """Return the start that a model, its name in the catalogue or its path means.

        Raises
        ------
        ArgumentError
            If it is none of these, or a model that has no networks, or no weights.
        BundleError
            If it cannot be opened.
        """
        # whoever passes a model may pass any
        model: Model = start if isinstance(start, Model) else open_model(start)
        if not isinstance(model, AppaModel) or not model.has_weights:
            raise ArgumentError(
                "a training cannot go on from this model",
                where=_WHERE,
                expected="a latent diffusion prior, such as xappa.train returns, with its weights",
                got=f"{model.name}, of the kind {model.kind!r}"
                + ("" if model.has_weights else ", without weights"),
                remedy="start from another model, or leave start out",
            )
        return cls(model)

    # Settings -------------------------------------------------------------------------------------

    @property
    def sizes(self) -> dict[str, Any]:
        """The settings that are the model's."""
        encoder, network = self.model.autoencoder.config, self.model.network.config
        return {
            "hid_channels": tuple(encoder.hid_channels),
            "hid_blocks": tuple(encoder.hid_blocks),
            "lat_channels": encoder.lat_channels,
            "latent_noise": encoder.latent_noise,
            "saturation": encoder.saturation,
            "blanket": network.blanket_size,
            "channels": network.hid_channels,
            "blocks": network.hid_blocks,
            "heads": network.attention_heads,
            "patch_size": tuple(network.patch_size),
            "mod_features": network.mod_features,
            "window": None if network.window_size is None else tuple(network.window_size),
            "modes": network.modes,
            "schedule": tuple(self.model.schedule),
            "climatology": "channel" if self.model.normalisation.mean[0].size == 1 else "point",
        }

    def settings(self, config: AppaTraining, said: frozenset[str]) -> AppaTraining:
        """Return settings with the model's sizes.

        Parameters
        ----------
        config
            The settings.
        said
            Names of those that somebody chose, see `xappa.training.job.said_in`.

        Raises
        ------
        ArgumentError
            If sizes were said that are not the model's: lists them all.
        """
        sizes = self.sizes
        chosen = {name: getattr(config, name) for name in sizes if name in said}
        chosen = {k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()}
        if wrong := [name for name, value in chosen.items() if value != sizes[name]]:
            raise ArgumentError(
                f"the configuration contradicts the model {self.model.name!r} that it starts from",
                where=", ".join(wrong),
                expected="; ".join(f"{name}={sizes[name]!r}" for name in wrong),
                got="; ".join(f"{name}={chosen[name]!r}" for name in wrong),
                remedy="leave them out, as they are the model's; or train a new one, without start",
            )
        return replace(config, **sizes)

    def keeps_latents(self, config: AppaTraining) -> bool:
        """Whether states have the latents that they had, as the encoder is not trained."""
        return config.autoencoder_steps == 0 or config.denoiser_steps == 0

    def identity(self, config: AppaTraining) -> dict[str, Any]:
        """Return what a training that goes on from a checkpoint must share, besides settings."""
        # the stage of the autoencoder does not look at the denoiser's steps, but for this
        encoder = {"encoder": "kept"} if config.denoiser_steps == 0 else {}
        return {"start": self.model.hash[:16], **encoder}

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the weights come from, the model's own provenance included, JSON-able."""
        own = self.model
        return {"name": own.name, "hash": own.hash, "provenance": own.provenance}

    # Data -----------------------------------------------------------------------------------------

    def fitted(
        self, ds: xr.Dataset, variables: Sequence[str] | None
    ) -> tuple[xr.Dataset, tuple[str, ...]]:
        """Check that a Dataset fits the model; return what of it is used, and what was guessed.

        Parameters
        ----------
        ds
            It may have more variables and levels than the model.
        variables
            Names among which those of the model are looked for; None for all.

        Raises
        ------
        HandshakeError, UnitsError, CoordinateError
            If it does not fit.
        """
        if variables is not None:
            describe(ds, variables=variables)  # raises where there are no such ones
            ds = as_dataset(ds)[[variables] if isinstance(variables, str) else list(variables)]
        spec = self.model.spec
        layout = Layout.of(ds, spec, gaps=True)
        step, _ = step_of(layout.times)
        if step and spec.time_step and step > spec.time_step + tolerance_of(spec.time_step):
            raise TimeStepError(
                "the states are further apart than those that the model knows",
                where=layout.axes.time,
                expected=f"a step of {spec.time_step / 3600:g} hours",
                got=f"{step / 3600:g} hours",
                remedy="take states at the model's time step, or train a new one, without start",
            )
        return ds, layout.guesses

    def statistics(self, own: Statistics) -> Statistics:
        """Return what standardises states: as the model does; tendencies are the data's.

        Raises
        ------
        DataError
            If values are missing where the model knows some.
        """
        mine, spec = self.model.normalisation, self.model.spec
        permitted = permitted_gaps(mine, spec)
        if own.missing is not None and (absent := own.missing & ~permitted).any():
            labels = np.array(spec.channel_labels)[absent.any((1, 2))]
            raise DataError(
                "values are missing where the model knows some",
                where=", ".join(labels),
                expected="a value at every point, but for those that the model knows as missing",
                got=f"{int(absent.sum())} points without any",
                remedy="fill them, or train a new model, without start",
            )
        missing = own.missing if mine.missing is None else mine.missing.astype(bool)
        return Statistics(mine.mean, mine.std, own.tendency, missing)

    # Networks -------------------------------------------------------------------------------------

    def networks(self, config: AppaTraining) -> tuple[ConvAutoencoder, LatentTransformer]:
        """Return copies of the networks, to be trained: without dropout, which has no seed."""
        autoencoder: ConvAutoencoder = _copied(self.model.autoencoder)
        if config.denoiser_steps == 0:
            for part in (autoencoder.down, autoencoder.encoder, autoencoder.to_latent):
                part.requires_grad_(False)
        return autoencoder, _copied(self.model.network)

    def standardised(self, latents: Latents) -> Latents:
        """Return latents that are standardised as the model does."""
        own = self.model.normalisation
        return replace(latents, mean=own.latent_mean, std=own.latent_std)


def _copied(network: Any) -> Any:
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return loaded(type(network), replace(network.config, dropout=0.0), weights)


def check_steps(config: AppaTraining, start: Start | None) -> None:
    """Raise where a stage has no steps, and nothing to keep, or neither has any."""
    none = [n for n in ("autoencoder_steps", "denoiser_steps") if getattr(config, n) == 0]
    if none and start is None:
        raise ArgumentError(
            "a stage without steps keeps what a training starts from, and there is no start",
            where=", ".join(none),
            expected="1 or more, or a model to start from: start='speedy-t31'",
            got="0",
            remedy="give it steps, or pass start",
        )
    if len(none) == 2:
        raise ArgumentError(
            "neither stage has steps: nothing would be trained",
            where=", ".join(none),
            expected="1 or more for one of them",
            got="0 for both",
            remedy="give one of them steps; a model's statistics of other states are had by "
            "model.calibrated(states)",
        )
