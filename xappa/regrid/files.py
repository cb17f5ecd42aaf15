"""Weights in NetCDF files: S, row and col (from 1), with or without the grids on both sides.

Three layouts are read, all without xESMF:

- what `write_weights` writes: ``src_lat``, ``src_lon``, ``dst_lat``, ``dst_lon`` of any domain,
  rows and columns over the raveled domains; other files may hold the same;
- ESMF_RegridWeightGen's: centres ``yc_a``, ``xc_a``, ``yc_b``, ``xc_b`` and ``src_grid_dims``,
  ``dst_grid_dims``, fastest dimension first;
- xESMF's: no grids, which are to be passed.

xESMF marks a target that nothing covers by a NaN in the first column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse
import xarray as xr

from xappa.errors import ArgumentError, CoordinateError, DataError, GridMismatchError
from xappa.grid import Grid
from xappa.regrid.domains import Curvilinear, Domain, Places, agree, domain_of

__all__ = ["Weights", "read_weights", "write_weights"]

_SIDES = ("src", "dst")
_ESMF = {"src": ("yc_a", "xc_a", "src_grid_dims"), "dst": ("yc_b", "xc_b", "dst_grid_dims")}
_LABEL = "label"
_WHOLE = "xappa_partial"


class Weights(NamedTuple):
    """What a file of weights holds; the fields of `xappa.regrid.Regridder`."""

    weights: Any
    source: Domain
    target: Domain
    method: str
    partial: bool


def write_weights(path: str | Path, made: Weights) -> None:
    """Write weights and both domains; see `Regridder.save`."""
    entries = made.weights.tocoo()
    variables: dict[str, Any] = {
        "S": ("n_s", entries.data),
        "row": ("n_s", (entries.row + 1).astype(np.int32), {"long_name": "target, from 1"}),
        "col": ("n_s", (entries.col + 1).astype(np.int32), {"long_name": "source, from 1"}),
    }
    for side, domain in zip(_SIDES, (made.source, made.target), strict=True):
        variables |= _grid_variables(side, domain)
    about = {"title": "weights of regridding, made by xappa", "method": made.method}
    xr.Dataset(variables, attrs=about | {_WHOLE: int(made.partial)}).to_netcdf(path)


def _grid_variables(side: str, domain: Domain) -> dict[str, Any]:
    lat, lon = f"{side}_lat", f"{side}_lon"
    if isinstance(domain, Grid):
        return {
            lat: (lat, domain.latitude, {"units": "degrees_north"}),
            lon: (lon, domain.longitude, {"units": "degrees_east"}),
        }
    names = {domain.axes.latitude: lat, domain.axes.longitude: lon}
    out = {}
    for name, variable in domain.labels.variables.items():
        dims = [f"{side}_{dim}" for dim in variable.dims]
        attrs = variable.attrs | {"xappa_name": str(name)}
        out[names.get(str(name), f"{side}_{_LABEL}_{name}")] = (dims, variable.values, attrs)
    return out


def read_weights(path: str | Path, source: Any, target: Any) -> Weights:
    """Return what a file holds, on the domains that were passed; see `Regridder.open`."""
    ds = _load(path)
    domains = []
    for side, given in zip(_SIDES, (source, target), strict=True):
        held = _domain(ds, side, path)
        passed = None if given is None else domain_of(given)
        domains.append(_choose(held, passed, side, path))
    begin, end = domains
    weights = _matrix(ds, (end.size, begin.size), path)
    method = next((ds.attrs[k] for k in ("method", "map_method") if k in ds.attrs), "unknown")
    return Weights(weights, begin, end, str(method), bool(ds.attrs.get(_WHOLE, True)))


def _load(path: str | Path) -> xr.Dataset:
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    wanted = {"S", "row", "col", *(name for names in _ESMF.values() for name in names)}
    try:
        with xr.open_dataset(path) as file:
            sides = tuple(f"{side}_" for side in _SIDES)
            names = [n for n in file.variables if n in wanted or str(n).startswith(sides)]
            ds = file[names].load()
    # what is raised depends on the engine that tries last
    except Exception as error:
        raise _damaged(path, "a NetCDF file", f"{type(error).__name__}: {error}") from error
    absent = [name for name in ("S", "row", "col") if name not in ds.variables]
    if absent:
        raise _damaged(path, "the variables S, row, col", f"no {', '.join(absent)}")
    return ds


def _matrix(ds: xr.Dataset, shape: tuple[int, int], path: str | Path) -> Any:
    row, col, value = (np.asarray(ds[name].values) for name in ("row", "col", "S"))
    if value.ndim != 1 or value.dtype.kind not in "fiu":
        raise _damaged(path, "weights along one dimension", f"{value.dtype} along {ds['S'].dims}")
    for index, size in ((row, shape[0]), (col, shape[1])):
        whole = index.shape == value.shape and index.dtype.kind in "fiu"
        whole = whole and np.array_equal(index, np.round(index))
        if not whole or (index.size and not 1 <= index.min() <= index.max() <= size):
            raise _damaged(path, f"indices from 1 to {size}", "others, or another number of them")
    row, col = row.astype(np.int64) - 1, col.astype(np.int64) - 1
    lone = np.bincount(row, minlength=shape[0])[row] == 1
    unmapped = np.isnan(value) & lone & (col == 0)
    row, col, value = row[~unmapped], col[~unmapped], value[~unmapped].astype(np.float64)
    if not np.all(np.isfinite(value)):
        raise _damaged(path, "finite weights", f"{int(np.sum(~np.isfinite(value)))} not finite")
    return scipy.sparse.csr_array((value, (row, col)), shape=shape)


def _choose(held: Domain | None, passed: Domain | None, side: str, path: str | Path) -> Domain:
    """Return the domain that was passed, else the file's; they must not contradict each other."""
    word = {"src": "source", "dst": "target"}[side]
    if passed is None:
        if held is None:
            raise ArgumentError(
                f"the file does not say what its {word} is",
                where=str(path),
                expected=f"{side}_lat and {side}_lon, or the grids of ESMF_RegridWeightGen",
                got="S, row and col alone, as xESMF writes",
                remedy=f"pass it: Regridder.open(path, {word}=ds)",
            )
        return held
    if held is not None and not agree(held, passed):
        raise GridMismatchError(
            f"the file's weights are for another {word}",
            where=str(path),
            expected=repr(held),
            got=repr(passed),
            remedy=f"leave out {word}=, or make the weights again",
        )
    return passed


def _domain(ds: xr.Dataset, side: str, path: str | Path) -> Domain | None:
    """Return the domain that a file describes, None if it describes none."""
    names = [f"{side}_lat", f"{side}_lon"]
    if all(name in ds.variables for name in names):
        lat, lon = (ds[name] for name in names)
        try:
            if lat.ndim == lon.ndim == 1 and lat.dims != lon.dims:
                return Grid(lat.values, lon.values)
            labels = _labels(ds, side, lat.dims)
            if lat.ndim == 1:
                return Places(lat.values, lon.values, labels)
            return Curvilinear(lat.values, lon.values, labels)
        except ValueError as error:
            got = f"{side}_lat along {lat.dims}, {side}_lon along {lon.dims}: {error}"
            raise _damaged(path, "a grid, curvilinear grid or list of places", got) from error
    if all(name in ds.variables for name in _ESMF[side]):
        return _esmf_domain(ds, side, path)
    if any(name in ds.variables for name in (*names, *_ESMF[side])):
        whole = f"{' and '.join(names)}, or {', '.join(_ESMF[side])}"
        raise _damaged(path, whole, "only some of them")
    return None


def _labels(ds: xr.Dataset, side: str, dims: tuple[Any, ...]) -> xr.Dataset:
    """Return the coordinates of a domain, under the names that they had."""
    standard = {f"{side}_lat": "latitude", f"{side}_lon": "longitude"}
    coords = {}
    for name, variable in ds.variables.items():
        label = name in standard or str(name).startswith(f"{side}_{_LABEL}_")
        if not label or not set(variable.dims) <= set(dims):
            continue
        attrs = dict(variable.attrs)
        if name in standard and "xappa_name" not in attrs:
            attrs |= {"standard_name": standard[str(name)]}
        short = [str(dim).removeprefix(f"{side}_") for dim in variable.dims]
        own = attrs.pop("xappa_name", str(name).removeprefix(f"{side}_"))
        coords[own] = xr.Variable(short, variable.values, attrs)
    return xr.Dataset(coords=coords)


def _esmf_domain(ds: xr.Dataset, side: str, path: str | Path) -> Domain:
    lat, lon = (_degrees(ds[name]) for name in _ESMF[side][:2])
    dims = ds[_ESMF[side][2]]
    shape = tuple(int(n) for n in np.ravel(dims.values)[::-1])
    if lat.shape != lon.shape or lat.ndim != 1 or len(shape) > 2 or np.prod(shape) != lat.size:
        got = f"{dims.name} {shape[::-1]}, {lat.size} latitudes, {lon.size} longitudes"
        raise _damaged(path, "as many centres as the grid has points", got)
    try:
        if len(shape) == 1:
            return Places(lat, lon)
        lat, lon = lat.reshape(shape), lon.reshape(shape)
        if np.ptp(lat, axis=1).max() < 1e-9 and np.ptp(lon, axis=0).max() < 1e-9:
            return Grid(lat[:, 0], lon[0])
        return Curvilinear(lat, lon)
    except CoordinateError as error:
        raise _damaged(path, "coordinates in degrees or radians", str(error)) from error


def _degrees(centres: xr.DataArray) -> npt.NDArray[np.float64]:
    values = np.asarray(centres.values, dtype=np.float64)
    radians = str(centres.attrs.get("units", "")).lower().startswith("rad")
    return np.rad2deg(values) if radians else values


def _damaged(path: str | Path, expected: str, got: str) -> DataError:
    return DataError(
        "the file holds no weights that can be used",
        where=str(path),
        expected=expected,
        got=got,
        remedy="make them again: Regridder.build(source, target).save(path)",
    )
