"""Folders of published Appa checkpoints: read safely, and written again.

The layout is that of the authors' project,

    autoencoders/<ae>/<lap>/config.yaml
    autoencoders/<ae>/<lap>/latents/<dump>/ae/{config.yaml,model.pth}
    autoencoders/<ae>/<lap>/latents/<dump>/stats.pth
    autoencoders/<ae>/<lap>/latents/<dump>/denoisers/<run>/<lap>/{config.yaml,model_best.pth}
    data/stats_*.zarr

Weights are read with ``torch.load(weights_only=True)``: a pickle with code in it is refused. The
configurations hold tags that would build Python objects; they are read as plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from xappa.errors import BundleError, GuessWarning, warn
from xappa.models.appa.era5 import ERA5_STATE, era5_spec, plain_spec, read_statistics
from xappa.models.appa.keys import autoencoder_keys, renamed, transformer_keys
from xappa.models.appa.model import AppaModel, loaded
from xappa.models.appa.normalisation import Normalisation
from xappa.nn.autoencoder import AutoencoderConfig, ConvAutoencoder
from xappa.nn.transformer import LatentTransformer, TransformerConfig

__all__ = ["find_checkpoint", "open_checkpoint", "state_dicts"]

Configuration = TypeVar("Configuration")

_LAYOUT = ("autoencoders", "*", "*", "latents", "*", "denoisers", "*", "*", "config.yaml")
#: What the authors' code takes for granted, and what says nothing of the numbers at inference.
_FIXED = {"kernel_size": 3, "stride": 2, "spatial": 2, "periodic": False}
_IGNORED = {"checkpointing", "identity_init", "context_channels", "name"}


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
        If there are several denoisers.
    """
    folder = folder.resolve()
    # The layout from any depth on: no search through all that else may lie there.
    patterns = ["/".join(_LAYOUT[k:]) for k in range(len(_LAYOUT))]
    configs = {path for pattern in patterns for path in folder.glob(pattern)}
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
    return Layout(found[0]) if found else None


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
    encoder = _autoencoder_config(layout.dump / "ae" / "config.yaml")
    document = _read_yaml(layout.denoiser / "config.yaml")
    network = _network_config(document, encoder, layout.denoiser / "config.yaml")
    train = _section(document, "train", layout.denoiser / "config.yaml")
    stats = _tensors(layout.dump / "stats.pth")
    for key in ("mean", "std"):
        _expect_shape(stats, key, (encoder.lat_channels,), layout.dump / "stats.pth")
    noise = encoder.latent_noise
    spec, mean, std = _states(layout, encoder, float(train.get("blanket_dt", 1)) * 3600)
    normalisation = Normalisation(
        mean[:, None, None],
        std[:, None, None],
        stats["mean"].double().numpy(),
        np.sqrt(stats["std"].double().numpy() ** 2 + noise**2),
        np.zeros((encoder.in_channels, 1, 1)),
    )
    weights = layout.dump / "ae" / "model.pth"
    best = layout.denoiser / "model_best.pth"
    best = best if best.is_file() else layout.denoiser / "model_last.pth"
    levels = ("noise_schedule", "sigma_min", "sigma_max")
    if missing := [key for key in levels if key not in train]:
        raise _bad(layout.denoiser / "config.yaml", f"train: lacks {', '.join(missing)}")
    return AppaModel(
        spec,
        _load(ConvAutoencoder, encoder, autoencoder_keys(encoder), weights),
        _load(LatentTransformer, network, transformer_keys(network), best),
        (str(train["noise_schedule"]), float(train["sigma_min"]), float(train["sigma_max"])),
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


# Configurations -----------------------------------------------------------------------------------


def _autoencoder_config(path: Path) -> AutoencoderConfig:
    given = dict(_section(_read_yaml(path), "ae", path))
    if "ico" in str(given.get("name", "")):
        raise BundleError(
            "autoencoders on icosahedral graphs are not supported",
            where=str(path),
            expected="a convolutional autoencoder (cae)",
            got=str(given["name"]),
            remedy="take a convolutional checkpoint",
        )
    for key, value in _FIXED.items():
        if given.pop(key, value) != value:
            raise _bad(path, f"ae: {key} other than {value}")
    for key in _IGNORED:
        given.pop(key, None)
    resize, latent = given.pop("resize", None), given.pop("latent_shape", None)
    given["latent_noise"] = float(given.pop("noise_level", 0.0))
    given["saturation"] = given.get("saturation") or "none"
    given["dropout"] = float(given.get("dropout") or 0.0)
    config = _configured(AutoencoderConfig, {**given, "boundary": "periodic-input"}, path)
    factor = config.resize[0]
    if resize not in (None, factor) or config.resize[0] != config.resize[1]:
        raise _bad(path, f"ae: resize {resize}, where its stages give {factor}")
    if latent is not None and tuple(latent) != config.latent_shape:
        raise _bad(path, f"ae: latent_shape {latent}, where its stages give {config.latent_shape}")
    return config


def _network_config(
    document: Mapping[str, Any], encoder: AutoencoderConfig, path: Path
) -> TransformerConfig:
    given = dict(_section(document, "backbone", path))
    if given.pop("arch", "vit") != "vit" or "vit" not in str(given.pop("name", "vit")):
        raise BundleError(
            "denoisers on graphs are not supported",
            where=str(path),
            expected="a transformer on latitude and longitude (vit)",
            remedy="take a checkpoint whose denoiser is a vit",
        )
    given.pop("checkpointing", None)
    given["dropout"] = float(given.get("dropout") or 0.0)
    for key in ("patch_size", "window_size"):
        if isinstance(given.get(key), int):
            given[key] = [given[key]] * 3
    given.setdefault("blanket_size", _section(document, "train", path).get("blanket_size"))
    fixed = {"latent_shape": encoder.latent_shape, "window_wraps": (True, True, True)}
    return _configured(TransformerConfig, {**given, **fixed}, path)


def _configured(
    kind: Callable[..., Configuration], given: Mapping[str, Any], path: Path
) -> Configuration:
    """Build a configuration; unknown and missing keys, and bad values, are named."""
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise _bad(path, str(error)) from error


def _section(document: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    section = document.get(name)
    if not isinstance(section, Mapping):
        raise _bad(path, f"lacks the section {name!r}")
    return section


def _bad(path: Path, got: str) -> BundleError:
    return BundleError(
        "the configuration of an Appa checkpoint cannot be used",
        where=str(path),
        expected="the layout of the published checkpoints",
        got=got,
        remedy="copy the checkpoint again; if it is of a newer version of Appa, update xappa",
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads tags of Python objects as the plain values below them; nothing is called."""

    def plain(loader: Any, _: str, node: Any) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node)
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node)
        return loader.construct_scalar(node)

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", plain)
    try:
        document = yaml.load(path.read_text(), Loader=Loader)
    except FileNotFoundError:
        raise _absent(path) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise _bad(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(document, dict):
        raise _bad(path, "no mapping")
    return document


# Weights ------------------------------------------------------------------------------------------


def _absent(path: Path) -> BundleError:
    return BundleError(
        "a file of the Appa checkpoint is missing",
        where=str(path),
        remedy="copy the whole folder: autoencoder, statistics of the latents, and a denoiser",
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    """Read a dictionary of tensors; anything else in the file is refused."""
    import pickle

    if not path.is_file():
        raise _absent(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BundleError(
            "the file holds more than tensors, and is not opened",
            where=str(path),
            expected="a dictionary of tensors",
            got=str(error).splitlines()[0],
            remedy="do not trust it; take weights saved by torch.save(module.state_dict(), ...)",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise BundleError(
            "the weights cannot be read",
            where=str(path),
            got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            remedy="copy the file again",
        ) from error
    if not isinstance(found, dict) or not all(torch.is_tensor(v) for v in found.values()):
        raise BundleError(
            "the file holds no dictionary of tensors",
            where=str(path),
            got=type(found).__name__,
            remedy="take weights saved by torch.save(module.state_dict(), ...)",
        )
    return found


def _expect_shape(found: Mapping[str, Tensor], key: str, shape: Any, path: Path) -> None:
    if key not in found or tuple(found[key].shape) != tuple(shape):
        got = f"shape {tuple(found[key].shape)}" if key in found else "nothing"
        raise BundleError(
            f"the weight {key!r} does not fit the configuration",
            where=str(path),
            expected=f"shape {tuple(shape)}",
            got=got,
            remedy="take configuration and weights of the same run",
        )


def _load(kind: Any, config: Any, keys: Mapping[str, str], path: Path) -> Any:
    """Load weights into a network under xappa's names; keys and shapes must all agree."""
    found = _tensors(path)
    if extra := sorted(set(found) - set(keys)):
        raise BundleError(
            f"the weights hold keys that the configuration does not know: {len(extra)}",
            where=str(path),
            expected=f"{len(keys)} keys",
            got=", ".join(extra[:3]) + (", …" if len(extra) > 3 else ""),
            remedy="take configuration and weights of the same run",
        )
    with torch.device("meta"):
        expected = kind(config).state_dict()
    for theirs, ours in keys.items():
        _expect_shape(found, theirs, expected[ours].shape, path)
    return loaded(kind, config, renamed({key: found[key].float() for key in keys}, keys))


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
        if stores:
            return (spec, *read_statistics(stores[0], spec))
        spec = plain_spec(encoder.shape, encoder.in_channels, step, like=spec)
    warn(
        "the statistics of the states are not in the folder: states are taken and given "
        "standardised (zero mean, unit variance)",
        GuessWarning,
    )
    return spec, np.zeros(encoder.in_channels), np.ones(encoder.in_channels)
