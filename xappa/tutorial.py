"""Sample data for documentation, tests and first steps."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from xappa._optional import require
from xappa.errors import ArgumentError, DataError

__all__ = ["find_file", "open_dataset"]


@dataclass(frozen=True)
class _Sample:
    """A sample file: its name, what xarray's tutorial calls it, and how to open it."""

    file: str
    tutorial: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)


_GRIB = {"engine": "cfgrib", "backend_kwargs": {"indexpath": ""}}
_SAMPLES = {
    "era5-uk": _Sample("era5-2mt-2019-03-uk.grib", "era5-2mt-2019-03-uk.grib", _GRIB),
    "era5-members": _Sample("era5-levels-members.grib", None, _GRIB),
    "eraint-uvz": _Sample("eraint_uvz.nc", "eraint_uvz"),
    "era5-tl31": _Sample("era5_tl31_19590102T00.nc", None),
    "speedy-t31": _Sample("speedy-t31.nc", None),
    "speedy-t31-network": _Sample("speedy-t31-network.nc", None),
}


def open_dataset(name: str, **kwargs: Any) -> xr.Dataset:
    """Open a sample Dataset.

    Those of SPEEDY come with xappa. Others are looked for in the folder of the environment variable
    ``XAPPA_DATA_DIR``, then in ``../shared/data`` beside the project; failing that, what xarray's
    tutorial data offer is downloaded.

    Parameters
    ----------
    name
        ``"speedy-t31"``: states of SPEEDY, 28 channels, global, T31, 6-hourly, three days of a year
        that the model of that name did not learn from; ``"speedy-t31-network"``: 200 radiosondes
        with the errors of their observations, for ``ds.appa.observe``;
        ``"era5-uk"``: ERA5 2 m temperature over the British Isles, hourly, March 2019, 0.25°;
        ``"era5-members"``: ERA5 ensemble, z and t at 500 and 850 hPa, global, 3°;
        ``"eraint-uvz"``: ERA-Interim u, v and z, January and July means, global, 0.75°;
        ``"era5-tl31"``: one ERA5 state on 37 levels, global, T31.
    **kwargs
        Passed to `xarray.open_dataset`, such as ``chunks={}``.

    Raises
    ------
    ArgumentError
        If there is no sample of that name.
    DataError
        If the file is not at hand and cannot be downloaded.
    MissingDependencyError
        If the file is GRIB and cfgrib is not installed.
    """
    if name not in _SAMPLES:
        raise ArgumentError(
            f"there is no sample Dataset {name!r}",
            where="xappa.tutorial.open_dataset",
            expected=", ".join(_SAMPLES),
            got=name,
            remedy="use one of the expected names; open a file of your own with xr.open_dataset",
        )
    sample = _SAMPLES[name]
    arguments = {**sample.arguments, **kwargs}
    if arguments.get("engine") == "cfgrib":
        require("cfgrib", "opening GRIB files")
    path = find_file(sample.file)
    if path is not None:
        return xr.open_dataset(path, **arguments)
    if sample.tutorial is None:
        raise DataError(
            f"the file of the sample {name!r} is not at hand",
            where=sample.file,
            expected=f"the file in one of {', '.join(map(str, _folders()))}",
            remedy="set the environment variable XAPPA_DATA_DIR to the folder that holds it",
        )
    require("pooch", "downloading sample data")
    try:
        return xr.tutorial.open_dataset(sample.tutorial, **arguments)
    except Exception as error:
        raise DataError(
            f"the sample {name!r} is not at hand and could not be downloaded",
            where=sample.file,
            got=f"{type(error).__name__}: {error}",
            remedy="set the environment variable XAPPA_DATA_DIR to a folder that holds the file",
        ) from error


def find_file(file: str) -> Path | None:
    """Return the path of a sample file if it is at hand."""
    return next((folder / file for folder in _folders() if (folder / file).is_file()), None)


def _folders() -> Iterator[Path]:
    yield Path(__file__).with_name("samples")
    if folder := os.environ.get("XAPPA_DATA_DIR"):
        yield Path(folder)
    yield Path(__file__).resolve().parents[2] / "shared" / "data"
    yield Path.cwd().parent / "shared" / "data"
