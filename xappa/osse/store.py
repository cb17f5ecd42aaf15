"""A Zarr store that grows in time, and the checkpoint that lets a run go on from it.

The checkpoint says how many times are complete. What a killed run wrote beyond them is cut off
before the run goes on, so that the store never depends on when it was interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import xarray as xr

from xappa._optional import require
from xappa.errors import DataError
from xappa.osse.speedy import Speedy, SpeedyState

__all__ = ["append", "cut", "load", "save", "seal"]

_FORMAT = 1


def append(path: Path, ds: xr.Dataset, *, group: str | None, chunk: int, since: str) -> None:
    """Write a Dataset behind what a group of a store holds.

    Parameters
    ----------
    path
        The store; made if it is not there.
    ds
        Loaded Dataset with dimension ``time``.
    group
        Group of the store; None is its root.
    chunk
        Times in a chunk; all other dimensions are whole.
    since
        Reference of the time encoding.
    """
    if _holds(path, group):
        moving = [name for name in ds.variables if "time" in ds[name].dims]
        ds[moving].drop_encoding().to_zarr(path, group=group, append_dim="time", consolidated=False)
        return
    from zarr.codecs import BloscCodec

    codec = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=4)
    encoding: dict[str, dict[str, Any]] = {}
    for name, da in ds.variables.items():
        chunks = tuple(chunk if dim == "time" else da.sizes[dim] for dim in da.dims)
        if da.dtype.kind == "M":
            encoding[str(name)] = {
                "units": f"hours since {since}",
                "calendar": "proleptic_gregorian",
                "dtype": "int64",
                "chunks": tuple(4096 if dim == "time" else da.sizes[dim] for dim in da.dims),
            }
        elif da.ndim:
            encoding[str(name)] = {"chunks": chunks, "compressors": [codec], "_FillValue": None}
    mode: Literal["w", "a"] = "w" if group is None else "a"
    ds.to_zarr(path, group=group, mode=mode, encoding=encoding, consolidated=False)


def seal(path: Path, groups: Sequence[str | None]) -> None:
    """Gather the metadata of groups, so that they open fast; the root last, as it holds all."""
    import zarr

    with warnings.catch_warnings():
        # Zarr 3 has no standard for it yet; xarray warns of stores that lack it
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        for group in sorted(groups, key=lambda group: group is None):
            if _holds(path, group):
                zarr.consolidate_metadata(str(path), path=group)


def _holds(path: Path, group: str | None) -> bool:
    folder = path / group if group else path
    return (folder / "time").is_dir()


def cut(path: Path, times: Mapping[str | None, int]) -> None:
    """Cut what groups of a store hold to a number of times each; a group of none is removed.

    Raises
    ------
    DataError
        If a group holds fewer.
    """
    import zarr

    for group, count in sorted(times.items(), key=lambda item: item[1]):
        folder = path / group if group else path
        if not count:
            # a run killed while it made the group may have left any part of it
            shutil.rmtree(folder, ignore_errors=True)
            continue
        if not _holds(path, group):
            raise DataError(
                "the store lacks what its checkpoint says was written",
                where=str(folder),
                expected=f"{count} times",
                got="nothing",
                remedy="restore the store, or delete the checkpoint and start again",
            )
        opened = zarr.open_group(path, path=group, mode="r+", use_consolidated=False)
        for name, array in opened.arrays():
            dims: Any = array.metadata.to_dict().get("dimension_names")
            if not dims or dims[0] != "time":
                continue
            if array.shape[0] < count:
                raise DataError(
                    "the store lacks what its checkpoint says was written",
                    where=f"{path}, {name}",
                    expected=f"{count} times",
                    got=f"{array.shape[0]} times",
                    remedy="restore the store, or delete the checkpoint and start again",
                )
            array.resize((count, *array.shape[1:]))
    seal(path, [*times])


def save(path: Path, state: SpeedyState, settings: Mapping[str, Any], written: list[int]) -> None:
    """Save a state, the settings of its run, and what was written of it.

    The file changes only when the new one is complete: a full disk leaves the old one.
    """
    leaves = require("jax", "the nature run").tree.leaves((state.run, state.precipitation))
    arrays = {f"leaf_{k}": np.asarray(leaf) for k, leaf in enumerate(leaves)}
    head = {
        "format": _FORMAT,
        "settings": dict(settings),
        "written": written,
        "stepped": state.precipitation is not None,
    }
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, head=np.asarray(json.dumps(head)), **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load(path: Path, model: Speedy, settings: Mapping[str, Any]) -> tuple[SpeedyState, list[int]]:
    """Return the state of a checkpoint, and how many times were written in each group.

    Raises
    ------
    DataError
        If the file is damaged, or of a run with other settings.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(str(file["head"]))
            leaves = [file[f"leaf_{k}"] for k in range(len(file.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise _unfit(path, f"{type(error).__name__}: {error}") from error
    differs = sorted(
        key
        for key in settings.keys() | head["settings"].keys()
        if settings.get(key) != head["settings"].get(key)
    )
    if head["format"] != _FORMAT or differs:
        key = differs[0] if differs else "format"
        raise DataError(
            "the checkpoint is of another run",
            where=f"{path}, {key}",
            expected=settings.get(key, _FORMAT),
            got=head["settings"].get(key, head["format"]),
            remedy="go on with the settings of that run, or write to another path",
        )
    return _unflatten(path, model, leaves, head["stepped"]), list(head["written"])


def _unflatten(path: Path, model: Speedy, leaves: list[Any], stepped: bool) -> SpeedyState:
    """Return the state whose leaves are given, checked against a state of the model."""
    jax = require("jax", "the nature run")
    like = model.initial()
    rain = np.zeros(model.geometry.land.T.shape, np.float32) if stepped else None
    shapes, tree = jax.tree.flatten((like.run, rain))
    expected, got = [np.shape(leaf) for leaf in shapes], [leaf.shape for leaf in leaves]
    if expected != got:
        raise _unfit(path, "arrays of other shapes than those of the installed version of jcm")
    run, rain = jax.tree.unflatten(tree, [jax.numpy.asarray(leaf) for leaf in leaves])
    return SpeedyState(run, rain)


def _unfit(path: Path, got: str) -> DataError:
    return DataError(
        "the checkpoint cannot be used",
        where=str(path),
        expected="what an earlier nature run saved",
        got=got,
        remedy="delete it together with its store, and start again",
    )
