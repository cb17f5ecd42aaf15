"""Folders of published Appa checkpoints: read safely, and written again.

The layout is that of the authors' project,

    autoencoders/<ae>/<lap>/config.yaml
    autoencoders/<ae>/<lap>/latents/<dump>/ae/{config.yaml,model.pth}
    autoencoders/<ae>/<lap>/latents/<dump>/stats.pth
    autoencoders/<ae>/<lap>/latents/<dump>/denoisers/<run>/<lap>/{config.yaml,model_best.pth}
    data/stats_*.zarr

Weights are read by `xappa.models.appa.tensors`, which refuses a pickle with code in it, and
configurations by `xappa.models.appa.config`, as plain text.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xappa.errors import BundleError, GuessWarning, warn
from xappa.models.appa.config import absent, autoencoder_config, diffusion_config
from xappa.models.appa.era5 import ERA5_STATE, era5_spec, plain_spec, read_statistics
from xappa.models.appa.keys import autoencoder_keys, renamed, transformer_keys
from xappa.models.appa.model import AppaModel, loaded
from xappa.models.appa.normalisation import Normalisation
from xappa.models.appa.tensors import check_shape, read_tensors
from xappa.nn.autoencoder import AutoencoderConfig, ConvAutoencoder
from xappa.nn.transformer import LatentTransformer

__all__ = ["find_checkpoint", "open_checkpoint", "state_dicts"]

_LAYOUT = ("autoencoders", "*", "*", "latents", "*", "denoisers", "*", "*", "config.yaml")


@dataclass(frozen=True)
class Layout:
    """Where the files of a checkpoint are.

    Parameters
    ----------
    denoiser
        Folder of the denoiser's configuration and weights.
    """

    denoiser: Path

    @property
    def dump(self) -> Path:
        """Folder of the latents, their statistics and the autoencoder that made them."""
        return self.denoiser.parents[2]

    @property
    def autoencoder(self) -> Path:
        """Folder of the autoencoder's training."""
        return self.denoiser.parents[4]

    @property
    def project(self) -> Path:
        """The project's root."""
        return self.denoiser.parents[7]


def find_checkpoint(folder: Path) -> Layout | None:
    """Find the denoiser in a folder: the project's root, any folder below it, or its own.

    Returns
    -------
    Layout or None
        None if this is no folder of Appa checkpoints.

    Raises
    ------
    BundleError
        If there are several denoisers, or none beside an autoencoder and its latents.
    """
    folder = folder.resolve()
    configs = _from_any_depth(folder, _LAYOUT)
    found = sorted(p.parent for p in configs if p.parents[2].name == "denoisers")
    if len(found) > 1:
        listed = "\n".join(str(path.relative_to(folder)) for path in found)
        raise BundleError(
            "the folder holds several Appa checkpoints",
            where=str(folder),
            expected="one denoiser",
            got=listed,
            remedy="pass the path of one of them",
        )
    if not found and (lacking := _lacking(folder)) is not None:
        raise absent(lacking)
    return Layout(found[0]) if found else None


def _from_any_depth(folder: Path, parts: tuple[str, ...]) -> set[Path]:
    """Find files of the layout; there is no search through all that else may lie there."""
    patterns = ["/".join(parts[k:]) for k in range(len(parts))]
    return {path for pattern in patterns for path in folder.glob(pattern)}


def _lacking(folder: Path) -> Path | None:
    """Return the file that lacks where parts of the layout are found."""
    for name in ("model_best.pth", "model_last.pth"):
        for path in _from_any_depth(folder, (*_LAYOUT[:-1], name)):
            if path.parents[2].name == "denoisers":
                return path.with_name("config.yaml")
    for name in ("stats.pth", "ae"):
        for path in _from_any_depth(folder, (*_LAYOUT[:5], name)):
            if path.parents[1].name == "latents":
                return path.parent / "denoisers" / "<run>" / "<lap>" / "config.yaml"
    return None


def open_checkpoint(layout: Layout, name: str | None = None) -> AppaModel:
    """Open a published checkpoint.

    Parameters
    ----------
    layout
        From `find_checkpoint`.
    name
        A name for the model.

    Raises
    ------
    BundleError
        If a file is missing or damaged, holds other keys or shapes than its configuration says, or
        more than tensors; or if the model is of a kind that is not supported.

    Warns
    -----
    GuessWarning
        If the statistics of the states are not there, so that states are standardised.
    """
    encoder = autoencoder_config(layout.dump / "ae" / "config.yaml")
    diffusion = diffusion_config(layout.denoiser / "config.yaml", encoder)
    network = diffusion.network
    latent_mean, latent_std = _latent_statistics(layout.dump / "stats.pth", encoder)
    spec, mean, std = _states(layout, encoder, diffusion.hours * 3600)
    normalisation = Normalisation(
        mean[:, None, None],
        std[:, None, None],
        latent_mean,
        np.sqrt(latent_std**2 + encoder.latent_noise**2),
        np.zeros((encoder.in_channels, 1, 1)),
    )
    weights = layout.dump / "ae" / "model.pth"
    best = layout.denoiser / "model_best.pth"
    best = best if best.is_file() else layout.denoiser / "model_last.pth"
    return AppaModel(
        spec,
        _load(ConvAutoencoder, encoder, autoencoder_keys(encoder), weights),
        _load(LatentTransformer, network, transformer_keys(network), best),
        diffusion.schedule,
        normalisation,
        name=name or f"appa-{layout.denoiser.parent.name}",
        provenance={
            "method": "published Appa checkpoint",
            "autoencoder": "/".join(layout.autoencoder.parts[-2:]),
            "denoiser": "/".join(layout.denoiser.parts[-2:]),
        },
    )


def state_dicts(model: AppaModel) -> dict[str, dict[str, Tensor]]:
    """Return a model's weights under the names of the published checkpoints.

    Returns
    -------
    dict
        ``autoencoder`` (``ae/model.pth``) and ``denoiser`` (``model_best.pth``).
    """
    keys = {
        "autoencoder": (model.autoencoder, autoencoder_keys(model.autoencoder.config)),
        "denoiser": (model.network, transformer_keys(model.network.config)),
    }
    return {
        part: renamed(dict(module.state_dict()), {ours: theirs for theirs, ours in names.items()})
        for part, (module, names) in keys.items()
    }


# Weights ------------------------------------------------------------------------------------------


def _latent_statistics(path: Path, encoder: AutoencoderConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations of the raw latents, shape (c,)."""
    found = read_tensors(path)
    _no_others(found, {"mean", "std"}, path)
    for key in ("mean", "std"):
        check_shape(found, key, (encoder.lat_channels,), path)
    mean, std = (found[key].double().numpy() for key in ("mean", "std"))
    if not (std > 0).all():
        raise BundleError(
            "standard deviations of the latents are not positive",
            where=str(path),
            got=str(std[std <= 0]),
            remedy="copy the file again, or take another checkpoint",
        )
    return mean, std


def _no_others(found: Mapping[str, Tensor], keys: Collection[str], path: Path) -> None:
    if extra := sorted(set(found) - set(keys)):
        raise BundleError(
            f"the weights hold keys that the configuration does not know: {len(extra)}",
            where=str(path),
            expected=f"{len(keys)} keys",
            got=", ".join(extra[:3]) + (", …" if len(extra) > 3 else ""),
            remedy="take configuration and weights of the same run",
        )


def _load(kind: Any, config: Any, keys: Mapping[str, str], path: Path) -> Any:
    """Load weights into a network under xappa's names; keys and shapes must all agree."""
    found = read_tensors(path)
    _no_others(found, keys, path)
    with torch.device("meta"):
        expected = kind(config).state_dict()
    for theirs, ours in keys.items():
        check_shape(found, theirs, expected[ours].shape, path)
    return loaded(kind, config, renamed(found, keys))


# States -------------------------------------------------------------------------------------------


def _states(
    layout: Layout, encoder: AutoencoderConfig, step: float
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return what the channels are, and their means and standard deviations."""
    levels = ERA5_STATE.get(encoder.in_channels)
    if levels is None:
        spec = plain_spec(encoder.shape, encoder.in_channels, step)
    else:
        spec = era5_spec(encoder.shape, levels, step)
        stores = sorted((layout.project / "data").glob("stats_*.zarr"))
        if len(stores) > 1:
            raise BundleError(
                "there are statistics of several data sets, and nothing says which were used",
                where=str(layout.project / "data"),
                expected="one stats_*.zarr",
                got=", ".join(store.name for store in stores),
                remedy="keep those of the training data alone",
            )
        if stores:
            return (spec, *read_statistics(stores[0], spec))
        spec = plain_spec(encoder.shape, encoder.in_channels, step, like=spec)
    warn(
        "the statistics of the states are not in the folder: states are taken and given "
        "standardised (zero mean, unit variance), from north to south",
        GuessWarning,
    )
    return spec, np.zeros(encoder.in_channels), np.ones(encoder.in_channels)
