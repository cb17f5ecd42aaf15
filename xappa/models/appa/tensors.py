"""Weights from files that are not trusted: tensors are read, and nothing else is."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xappa.errors import BundleError
from xappa.models.appa.config import absent

__all__ = ["check_shape", "read_tensors"]

#: How files of torch.save begin: as a zip archive, or as a bare pickle in those of old.
_PICKLE = b"\x80"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a dictionary of finite tensors, float32.

    Raises
    ------
    BundleError
        If the file is missing or damaged, or holds anything else.
    """
    if not path.is_file():
        raise absent(path)
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(64)
        if not start.startswith(_PICKLE):
            raise _damaged(path, f"{path.stat().st_size} bytes, beginning with {start[:24]!r}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except Exception as error:  # a damaged archive fails in many ways, all of them the file's
        first = (str(error).splitlines() or [""])[0]
        raise _damaged(path, f"{type(error).__name__}: {first}") from error
    if not isinstance(found, dict) or not all(torch.is_tensor(v) for v in found.values()):
        raise BundleError(
            "the file holds no dictionary of tensors",
            where=str(path),
            got=type(found).__name__,
            remedy="take weights saved by torch.save(module.state_dict(), ...)",
        )
    for key, value in found.items():
        _check(key, value, path)
    return {key: value.float() for key, value in found.items()}


def _check(key: Any, value: Tensor, path: Path) -> None:
    problem = None
    if not isinstance(key, str):
        problem = f"the key {key!r}, which is no name"
    elif value.layout != torch.strided or not value.is_floating_point():
        problem = f"{key!r}: {value.dtype}, {value.layout}"
    elif not bool(torch.isfinite(value).all()):
        problem = f"{key!r}: values that are not finite"
    if problem is not None:
        raise BundleError(
            "the file holds what is no weight",
            where=str(path),
            expected="names, and dense tensors of finite real numbers",
            got=problem,
            remedy="copy the file again, or take another checkpoint",
        )


def _damaged(path: Path, got: str) -> BundleError:
    return BundleError(
        "the weights cannot be read: the file is damaged, or no file of weights",
        where=str(path),
        expected="what torch.save(module.state_dict(), ...) writes",
        got=got,
        remedy="copy the file again (of large-file storage, the file itself and not its pointer)",
    )


def _refused(path: Path, error: Exception) -> BundleError:
    # torch's own message says how to run the code in the file, which nobody should.
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
        return _damaged(path, "a pickle that is cut short or malformed")
    return BundleError(
        "the file holds more than tensors, and is not opened",
        where=str(path),
        expected="a dictionary of tensors",
        got=f"code: {named.group(1)}",
        remedy="do not trust it; take weights saved by torch.save(module.state_dict(), ...)",
    )


def check_shape(found: Mapping[str, Tensor], key: str, shape: Any, path: Path) -> None:
    """Check that a tensor is there and has the shape that the configuration gives it.

    Raises
    ------
    BundleError
        If it has not.
    """
    if key not in found or tuple(found[key].shape) != tuple(shape):
        got = f"shape {tuple(found[key].shape)}" if key in found else "nothing"
        raise BundleError(
            f"the weight {key!r} does not fit the configuration",
            where=str(path),
            expected=f"shape {tuple(shape)}",
            got=got,
            remedy="take configuration and weights of the same run",
        )
