"""Bundles on disk: a folder with ``model.json``, ``weights.safetensors`` and ``statistics.nc``.

Arrays of single precision that half precision holds as they are are kept so (`AppaModel.rounded`).

Nothing in a bundle is code. Opening one checks the format, that the files are whole (by SHA-256),
and that the model built from them has the hash that was written: a damaged or foreign folder gives
an error, never a silent fallback.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from safetensors import SafetensorError

from xappa.bridge import StateSpec
from xappa.errors import BundleError

if TYPE_CHECKING:
    import numpy as np

    from xappa.models.base import Model

__all__ = ["FORMAT", "label_of", "load", "save"]

FORMAT = 1
_JSON, _WEIGHTS, _STATISTICS = "model.json", "weights.safetensors", "statistics.nc"
_ENTRIES: dict[str, type] = {
    "kind": str,
    "name": str,
    "hash": str,
    "spec": dict,
    "arguments": dict,
    "provenance": dict,
    "scores": dict,
    "files": dict,
}
_AGAIN = "copy the bundle again, or make it again with model.save"


def save(model: Model, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model as a bundle; see `Model.save`."""
    path = Path(path)
    try:
        _refuse_to_replace(path, overwrite)
        # written beside its final place and moved there whole: a full disk leaves the old alone
        draft = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        try:
            draft.mkdir(parents=True)
            _write(model, draft)
            if path.exists():
                shutil.rmtree(path)
            draft.rename(path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except BundleError:
        raise
    except (OSError, ValueError, SafetensorError) as error:  # ValueError: a path such as "."
        raise BundleError(
            "the bundle cannot be written",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            remedy="choose a folder in a place that can be written to and has space",
        ) from error
    return path


def _refuse_to_replace(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise BundleError(
            "the folder exists already",
            where=str(path),
            remedy="choose another path, or pass overwrite=True",
        )
    if path.exists() and not (path / _JSON).is_file():
        raise BundleError(
            "what exists there is not a bundle, and is not overwritten",
            where=str(path),
            expected=f"a folder with {_JSON}",
            remedy="choose another path",
        )


def _write(model: Model, folder: Path) -> None:
    """Write the files of a bundle into an empty folder."""
    from importlib.metadata import version

    _write_arrays(model, folder)
    document = {
        "xappa_bundle": FORMAT,
        "kind": model.kind,
        "name": model.name,
        "hash": model.hash,
        "spec": model.spec.to_dict(),
        **model.facts,
        "arguments": model.arguments,
        "provenance": model.provenance,
        "scores": model.scores,
        "files": {name: _sha256(folder / name) for name in (_WEIGHTS, _STATISTICS)},
        "written_by": f"xappa {version('xappa')}",
    }
    (folder / _JSON).write_text(json.dumps(document, indent=2, default=str) + "\n")


def _write_arrays(model: Model, folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(_least(array)) for name, array in model.weights.items()}
    save_file(arrays, folder / _WEIGHTS)
    statistics = model.statistics
    packed = {name: {"zlib": True, "shuffle": True} for name in statistics.data_vars}
    statistics.to_netcdf(folder / _STATISTICS, engine="netcdf4", encoding=packed)


def _least(array: np.ndarray) -> np.ndarray:
    """Return single precision as half precision where that loses nothing."""
    import numpy as np

    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else array


def load(path: str | Path) -> Model:
    """Open a bundle.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    BundleError
        If the folder does not exist, is not a bundle, is damaged, or was written in a format that
        this version cannot read.
    """
    path = Path(path)
    document = _read_document(path)
    for name, digest in document["files"].items():
        if not (path / name).is_file():
            raise BundleError(
                "a file of the bundle is missing",
                where=str(path / name),
                expected=", ".join(sorted(document["files"])),
                remedy=_AGAIN,
            )
        if _sha256(path / name) != digest:
            raise BundleError(
                "a file of the bundle is damaged: its checksum differs",
                where=str(path / name),
                expected=f"sha256 {digest[:16]}…",
                remedy=_AGAIN,
            )
    model = _build(path, document)
    if model.hash != document["hash"]:
        raise BundleError(
            "the bundle does not hold the model that it says it holds",
            where=str(path / _JSON),
            expected=f"hash {document['hash'][:16]}…",
            got=f"hash {model.hash[:16]}…",
            remedy="make the bundle again; its description was edited",
        )
    return model


def label_of(path: Path) -> str:
    """Return the label of a bundle, see `Model.label`, without opening its arrays."""
    document = _read_document(path)
    return f"{document['name']} sha256:{document['hash'][:16]}"


def _read_document(path: Path) -> dict[str, Any]:
    remedy = "pass the path of a folder written by model.save"
    if not path.is_dir():
        raise BundleError("there is no such folder", where=str(path), remedy=remedy)
    try:
        document = json.loads((path / _JSON).read_text())
    except FileNotFoundError:
        raise BundleError(
            "the folder is not a bundle", where=str(path), expected=_JSON, remedy=remedy
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{_JSON} cannot be read", where=str(path / _JSON), got=str(error), remedy=remedy
        ) from error
    if not isinstance(document, dict) or "xappa_bundle" not in document:
        raise BundleError("the folder is not a bundle of xappa", where=str(path), remedy=remedy)
    if document["xappa_bundle"] != FORMAT:
        raise BundleError(
            "the bundle has another format",
            where=str(path / _JSON),
            expected=f"format {FORMAT}",
            got=f"format {document['xappa_bundle']}",
            remedy="update xappa, or save the bundle again with this version",
        )
    _check_entries(path / _JSON, document)
    return document


def _check_entries(where: Path, document: dict[str, Any]) -> None:
    """Raise unless all entries are there, of the right type, and every file has its checksum."""
    if missing := sorted(set(_ENTRIES) - set(document)):
        raise BundleError(
            f"{_JSON} lacks entries",
            where=str(where),
            expected=", ".join(_ENTRIES),
            got=f"no {', '.join(missing)}",
            remedy=_AGAIN,
        )
    for entry, kind in _ENTRIES.items():
        if not isinstance(document[entry], kind):
            raise BundleError(
                f"the entry {entry!r} of {_JSON} cannot be read",
                where=str(where),
                expected="text" if kind is str else "an object with names and values",
                got=repr(document[entry])[:60],
                remedy=_AGAIN,
            )
    files = document["files"]
    unnamed = {_WEIGHTS, _STATISTICS} - set(files)
    plain = all(Path(name).name == name for name in files)
    if unnamed or not plain or not all(isinstance(digest, str) for digest in files.values()):
        raise BundleError(
            f"{_JSON} does not give the checksum of each file",
            where=str(where),
            expected=f"files: the SHA-256 of {_WEIGHTS} and {_STATISTICS}",
            got=repr(files)[:120],
            remedy=_AGAIN,
        )


def _build(path: Path, document: dict[str, Any]) -> Model:
    import xarray as xr
    from safetensors.numpy import load_file

    from xappa.models.kinds import KINDS

    if document["kind"] not in KINDS:
        raise BundleError(
            "the bundle holds a kind of model that is not known",
            where=str(path / _JSON),
            expected=", ".join(sorted(KINDS)),
            got=document["kind"],
            remedy="update xappa",
        )
    try:
        weights = {
            name: array.astype("float32") if array.dtype == "float16" else array
            for name, array in load_file(path / _WEIGHTS).items()
        }
        with xr.open_dataset(path / _STATISTICS, engine="netcdf4") as opened:
            statistics = opened.load()
        return KINDS[document["kind"]].rebuild(
            StateSpec.from_dict(document["spec"]),
            document["arguments"],
            weights,
            statistics,
            name=document["name"],
            provenance=document["provenance"],
            scores=document["scores"],
        )
    except (SafetensorError, LookupError, AttributeError, TypeError, ValueError, OSError) as error:
        raise BundleError(
            "the bundle cannot be read",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            remedy=_AGAIN,
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
