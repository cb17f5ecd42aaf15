"""Weights in NetCDF files, in the layout of ESMF: S, row and col (from 1) with both grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import xarray as xr

from xappa.errors import DataError
from xappa.grid import Grid

__all__ = ["read_weights", "write_weights"]

_LAYOUT = ("S", "row", "col", "src_lat", "src_lon", "dst_lat", "dst_lon")


def write_weights(path: str | Path, weights: Any, source: Grid, target: Grid, method: str) -> None:
    """Write weights (target.size, source.size) and grids; see `Regridder.save`."""
    entries = weights.tocoo()
    variables: dict[str, Any] = {
        "S": ("n_s", entries.data),
        "row": ("n_s", (entries.row + 1).astype(np.int32), {"long_name": "target, from 1"}),
        "col": ("n_s", (entries.col + 1).astype(np.int32), {"long_name": "source, from 1"}),
    }
    for prefix, grid in (("src", source), ("dst", target)):
        lat, lon = f"{prefix}_lat", f"{prefix}_lon"
        variables[lat] = (lat, grid.latitude, {"units": "degrees_north"})
        variables[lon] = (lon, grid.longitude, {"units": "degrees_east"})
    about = {"title": "weights of regridding, made by xappa", "method": method}
    xr.Dataset(variables, attrs=about).to_netcdf(path)


def read_weights(path: str | Path) -> tuple[Any, Grid, Grid, str]:
    """Return weights, source, target and method; see `Regridder.open`."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    try:
        with xr.open_dataset(path) as file:
            ds = file.load()
    # what is raised depends on the engine that tries last
    except Exception as error:
        raise _damaged(path, "a NetCDF file", f"{type(error).__name__}: {error}") from error
    absent = [name for name in _LAYOUT if name not in ds.variables]
    if absent:
        raise _damaged(path, f"the variables {', '.join(_LAYOUT)}", f"no {', '.join(absent)}")
    source, target = (_grid(ds, prefix, path) for prefix in ("src", "dst"))
    row, col, value = (ds[name].values for name in ("row", "col", "S"))
    for index, size in ((row, target.size), (col, source.size)):
        if index.size != value.size or (index.size and not 1 <= index.min() <= index.max() <= size):
            raise _damaged(path, f"indices from 1 to {size}", "others, or another number of them")
    if not np.all(np.isfinite(value)):
        raise _damaged(path, "finite weights", f"{int(np.sum(~np.isfinite(value)))} not finite")
    entries = (value.astype(np.float64), (row.astype(np.int64) - 1, col.astype(np.int64) - 1))
    weights = scipy.sparse.csr_array(entries, shape=(target.size, source.size))
    return weights, source, target, str(ds.attrs.get("method", "unknown"))


def _grid(ds: xr.Dataset, prefix: str, path: str | Path) -> Grid:
    lat, lon = ds[f"{prefix}_lat"], ds[f"{prefix}_lon"]
    if lat.ndim != 1 or lon.ndim != 1 or lat.dims == lon.dims:
        got = f"{prefix}_lat along {lat.dims}, {prefix}_lon along {lon.dims}"
        raise _damaged(path, "rectilinear grids", got)
    return Grid(lat.values, lon.values)


def _damaged(path: str | Path, expected: str, got: str) -> DataError:
    return DataError(
        "the file holds no weights that can be used",
        where=str(path),
        expected=expected,
        got=got,
        remedy="make them again: Regridder.build(source, target).save(path)",
    )
