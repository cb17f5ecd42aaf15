"""The configurations of published Appa checkpoints, read as plain text and checked value by value.

They are YAML with tags that would build Python objects; the tags are read as the plain values below
them, and nothing is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from xappa.errors import BundleError, XappaError
from xappa.nn.autoencoder import AutoencoderConfig
from xappa.nn.transformer import TransformerConfig

__all__ = ["DiffusionConfig", "absent", "autoencoder_config", "diffusion_config"]

Built = TypeVar("Built")

#: What says nothing of the numbers at inference.
_IGNORED_AE = {"checkpointing", "identity_init", "context_channels", "name"}
_IGNORED_BACKBONE = {"checkpointing", "arch", "name"}
_NOTHING = object()


@dataclass(frozen=True)
class DiffusionConfig:
    """What the configuration of a denoiser says.

    Parameters
    ----------
    network
        Sizes of the transformer.
    schedule
        Name of the noise schedule, its least and its largest level.
    hours
        Hours from one state to the next.
    """

    network: TransformerConfig
    schedule: tuple[str, float, float]
    hours: float


def autoencoder_config(path: Path) -> AutoencoderConfig:
    """Read ``ae/config.yaml``.

    Raises
    ------
    BundleError
        If the file is missing, cannot be read, or says something that is not supported.
    """
    given = _Section.of(_read_yaml(path), "ae", path)
    if "ico" in str(given.values.get("name", "")):
        raise BundleError(
            "autoencoders on icosahedral graphs are not supported",
            where=str(path),
            expected="a convolutional autoencoder (cae)",
            got=str(given.values["name"]),
            remedy="take a convolutional checkpoint",
        )
    for key, value in (("stride", 2), ("spatial", 2)):
        if set(given.integers(key, 2, default=value)) != {value}:
            raise bad(path, f"ae: {key} other than {value}")
    resize = given.integer("resize", default=None)
    latent = given.integers("latent_shape", 3, default=None)
    kernel = given.integers("kernel_size", 2, default=3)
    values = {
        "shape": given.integers("shape", 2),
        "in_channels": given.integer("in_channels"),
        "lat_channels": given.integer("lat_channels"),
        "hid_channels": given.integers("hid_channels"),
        "hid_blocks": given.integers("hid_blocks"),
        "patch_size": given.integers("patch_size", 2, default=1),
        "boundary": "torus" if given.flag("periodic", default=False) else "periodic-input",
        "saturation": given.text("saturation", default=None) or "none",
        "saturation_bound": given.number("saturation_bound", default=5.0),
        "kernel_size": kernel[0],
        "pixel_shuffle": given.flag("pixel_shuffle", default=True),
        "ffn_factor": given.integer("ffn_factor", default=1),
        "dropout": given.number("dropout", default=None) or 0.0,
        "latent_noise": given.number("noise_level", default=0.0),
    }
    given.done(_IGNORED_AE)
    if len(set(kernel)) > 1:
        raise bad(path, f"ae: kernel_size {list(kernel)}, not square")
    config = _configured(lambda: AutoencoderConfig(**values), path)
    rows, columns = config.resize
    if rows != columns or resize not in (None, rows):
        raise bad(path, f"ae: resize {resize}, where its stages give {rows} x {columns}")
    if latent is not None and latent != config.latent_shape:
        shape = list(config.latent_shape)
        raise bad(path, f"ae: latent_shape {list(latent)}, where its stages give {shape}")
    return config


def diffusion_config(path: Path, encoder: AutoencoderConfig) -> DiffusionConfig:
    """Read ``denoisers/<run>/<lap>/config.yaml``.

    Raises
    ------
    BundleError
        As for `autoencoder_config`, and if backbone and training disagree.
    """
    document = _read_yaml(path)
    train = _Section.of(document, "train", path)
    given = _Section.of(document, "backbone", path)
    arch, name = (str(given.values.get(key, "vit")) for key in ("arch", "name"))
    if arch != "vit" or "vit" not in name:
        raise BundleError(
            "denoisers on graphs are not supported",
            where=str(path),
            expected="a transformer on latitude and longitude (vit)",
            got=f"{arch}, {name}",
            remedy="take a checkpoint whose denoiser is a vit",
        )
    blanket = train.integer("blanket_size", default=None)
    own = given.integer("blanket_size", default=blanket)
    if own is None or blanket not in (None, own):
        raise bad(path, f"blanket_size is {own} of the backbone, {blanket} of the training")
    window = None
    if given.values.get("window_size") is not None:
        window = given.integers("window_size", 3)
    values = {
        "latent_shape": encoder.latent_shape,
        "blanket_size": own,
        "hid_channels": given.integer("hid_channels"),
        "hid_blocks": given.integer("hid_blocks"),
        "attention_heads": given.integer("attention_heads"),
        "mod_features": given.integer("mod_features"),
        "ffn_factor": given.integer("ffn_factor", default=4),
        "patch_size": given.integers("patch_size", 3, default=1),
        "window_size": window,
        "window_wraps": (True, True, True),  # the mask that the weights were trained with
        "qk_norm": given.flag("qk_norm", default=True),
        "rope": given.flag("rope", default=True),
        "dropout": given.number("dropout", default=None) or 0.0,
    }
    given.done(_IGNORED_BACKBONE | {"window_size"})
    network = _configured(lambda: TransformerConfig(**values), path)
    low, high = train.number("sigma_min"), train.number("sigma_max")
    hours = train.number("blanket_dt", default=1.0)
    if not (0 < low < high and hours > 0):
        raise bad(path, f"train: sigma_min {low}, sigma_max {high}, blanket_dt {hours}")
    return DiffusionConfig(network, (train.text("noise_schedule"), low, high), hours)


class _Section:
    """A section of a configuration, whose values are taken one by one."""

    def __init__(self, values: Mapping[Any, Any], name: str, path: Path) -> None:
        self.values, self.name, self.path = values, name, path
        self.taken: set[Any] = set()

    @classmethod
    def of(cls, document: Mapping[Any, Any], name: str, path: Path) -> _Section:
        section = document.get(name)
        if not isinstance(section, Mapping):
            raise bad(path, f"lacks the section {name!r}")
        return cls(section, name, path)

    def _take(self, key: str, default: Any) -> Any:
        self.taken.add(key)
        value = self.values.get(key, default)
        if value is _NOTHING or (value is None and default is not None):
            raise bad(self.path, f"{self.name}: lacks {key}")
        return value

    def _wrong(self, key: str, expected: str) -> BundleError:
        return bad(self.path, f"{self.name}: {key} is {self.values.get(key)!r}, and no {expected}")

    def integer(self, key: str, default: Any = _NOTHING) -> Any:
        value = self._take(key, default)
        if value is default is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(key, "positive integer")
        return value

    def integers(self, key: str, count: int | None = None, default: Any = _NOTHING) -> Any:
        """Return a tuple of positive integers; one alone stands for ``count`` of them."""
        value = self._take(key, default)
        if value is default is None:
            return None
        if isinstance(value, int) and count is not None:
            value = [value] * count
        good = isinstance(value, (list, tuple)) and len(value) == (count or len(value)) >= 1
        if not good or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in value):
            raise self._wrong(key, f"list of {count or 'some'} positive integers")
        return tuple(value)

    def number(self, key: str, default: Any = _NOTHING) -> Any:
        value = self._take(key, default)
        if value is default is None:
            return None
        try:  # YAML takes 1e-3 for text
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise self._wrong(key, "number >= 0")
        return number

    def flag(self, key: str, default: Any = _NOTHING) -> Any:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: str, default: Any = _NOTHING) -> Any:
        value = self._take(key, default)
        if value is default is None:
            return None
        if not isinstance(value, str):
            raise self._wrong(key, "text")
        return value

    def done(self, ignored: set[str]) -> None:
        """Refuse what was not asked for: it may change the numbers."""
        if unknown := set(self.values) - self.taken - ignored:
            raise bad(self.path, f"{self.name}: unknown {', '.join(sorted(map(str, unknown)))}")


def _configured(build: Callable[[], Built], path: Path) -> Built:
    try:
        return build()
    except XappaError as error:
        raise bad(path, str(error)) from error


def absent(path: Path) -> BundleError:
    """Return the error that a file is not there."""
    return BundleError(
        "a file of the Appa checkpoint is missing",
        where=str(path),
        remedy="copy the whole folder: autoencoder, statistics of the latents, and a denoiser",
    )


def bad(path: Path, got: str) -> BundleError:
    """Return the error that a configuration cannot be used."""
    return BundleError(
        "the configuration of an Appa checkpoint cannot be used",
        where=str(path),
        expected="the layout of the published checkpoints",
        got=got,
        remedy="copy the checkpoint again; if it is of a newer version of Appa, update xappa",
    )


def _read_yaml(path: Path) -> dict[Any, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads tags of Python objects as the plain values below them."""

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
        raise absent(path) from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise bad(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(document, dict):
        raise bad(path, "no mapping")
    return document
