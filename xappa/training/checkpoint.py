"""Checkpoints: what a training needs to go on after any step, in files that are whole or absent.

A file is written beside its final place, forced to the disk, and renamed: whoever is killed, and
whatever is full, the former one is there until the new one is. Checkpoints hold tensors, numbers
and text, and are read as such; they hold no state of random generators, as there is none: batches
and noise are functions of the step.
"""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import torch

from xappa.errors import ArgumentError, CheckpointError

__all__ = [
    "kept_identity",
    "load_arrays",
    "load_checkpoint",
    "save_arrays",
    "save_checkpoint",
    "write_whole",
]

_FORMAT = 1
_REMEDY = (
    "go on as it began, train in another folder, or start afresh: resume=False (--restart) "
    "replaces what is there"
)


def write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that it is whole, or as it was.

    Parameters
    ----------
    path
        Where.
    write
        Writes the content to a binary file.

    Raises
    ------
    CheckpointError
        If it cannot be written: the disk is full, or it may not be written to.
    """
    draft = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer raises the latter
        raise CheckpointError(
            "the training cannot be saved; what was saved before is as it was",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            remedy="make space, or choose a folder that can be written to, and train again: it "
            "goes on from the last checkpoint",
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def save_checkpoint(path: Path, identity: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Parameters
    ----------
    path
        The file.
    identity
        What a training that goes on from it must share, JSON-able.
    content
        Numbers and tensors.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    document = {"xappa_checkpoint": _FORMAT, "identity": json.dumps(identity), **content}
    held = io.BytesIO()
    torch.save(document, held)
    write_whole(path, lambda file: _write(file, held.getbuffer()))


def _write(file: IO[bytes], content: memoryview) -> None:
    file.write(content)


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read a checkpoint; None if there is none.

    Raises
    ------
    CheckpointError
        If the file is damaged or no checkpoint.
    ArgumentError
        If it belongs to another training; names what differs.
    """
    document = _read(path)
    if document is not None:
        there = json.loads(document.pop("identity"))
        _check_identity(path, there, json.loads(json.dumps(identity)))
    return document


def kept_identity(path: Path) -> dict[str, Any]:
    """Return what a training that goes on from a checkpoint must share; nothing if there is none.

    Raises
    ------
    CheckpointError
        If the file is damaged or no checkpoint.
    """
    document = _read(path)
    return {} if document is None else dict(json.loads(document["identity"]))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise _damaged(path, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    if not isinstance(document, dict) or document.get("xappa_checkpoint") != _FORMAT:
        raise _damaged(path, "another content")
    return document


def _damaged(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        "the checkpoint cannot be read",
        where=str(path),
        expected="a checkpoint that xappa.train wrote",
        got=got,
        remedy="copy it again, or start afresh with resume=False (--restart)",
    )


def _check_identity(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise if a checkpoint belongs to another training."""
    names = sorted(n for n in {*there, *here} if there.get(n) != here.get(n))
    if names:
        raise ArgumentError(
            "the folder holds the checkpoint of another training",
            where=str(path),
            expected="; ".join(f"{name}={_short(there.get(name))}" for name in names),
            got="; ".join(f"{name}={_short(here.get(name))}" for name in names),
            remedy=_REMEDY,
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def save_arrays(path: Path, identity: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, and what they belong to.

    Raises
    ------
    CheckpointError
        If they cannot be written.
    """
    kept: dict[str, Any] = {"identity": np.array(json.dumps(identity)), **arrays}
    write_whole(path, lambda file: np.savez(file, **kept))


def load_arrays(path: Path, identity: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """Read arrays; None where there are none, or they belong to something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, KeyError, EOFError):
        return None  # they can be computed again
    label = arrays.pop("identity", None)
    return arrays if label is not None and str(label) == json.dumps(identity) else None
