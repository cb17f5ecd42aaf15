"""Weights of a method by name: built in, or made by xESMF."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import xarray as xr

from xappa._optional import require
from xappa.errors import ArgumentError, CoordinateError
from xappa.grid import Grid
from xappa.regrid.domains import Domain, Places, domain_of, points_of
from xappa.regrid.weights import bilinear_weights, conservative_weights, longitude_bounds

__all__ = ["build_weights"]

_BUILT_IN = ("bilinear", "conservative")
_PREFIX = "xesmf:"


def build_weights(
    source: Domain | xr.Dataset | xr.DataArray,
    target: Domain | xr.Dataset | xr.DataArray,
    method: str,
) -> Any:
    """Return the weights of a method by name; see `xappa.regrid.Regridder.build`."""
    if isinstance(method, str) and method.startswith(_PREFIX):
        return _xesmf_weights(source, target, method.removeprefix(_PREFIX))
    if method not in _BUILT_IN:
        raise ArgumentError(
            "unknown method of regridding",
            where="method=",
            expected="'bilinear', 'conservative', or 'xesmf:<method>' such as 'xesmf:patch'",
            got=repr(method),
            remedy="choose one of these; others come from weight files: Regridder.open(path)",
        )
    begin, end = domain_of(source), domain_of(target)
    if not isinstance(begin, Grid):
        raise _not_built_in(method, "a rectilinear source", begin)
    if method == "bilinear":
        return bilinear_weights(begin, *points_of(end))
    if not isinstance(end, Grid):
        raise _not_built_in(method, "a rectilinear target", end)
    return conservative_weights(begin, end)


def _not_built_in(method: str, expected: str, got: Domain) -> ArgumentError:
    return ArgumentError(
        f"there are no built-in {method} weights between these",
        where="method=",
        expected=expected,
        got=repr(got),
        remedy=f"method='{_PREFIX}{method}' where xESMF is installed, or a weight file:"
        " Regridder.open(path)",
    )


def _xesmf_weights(source: Any, target: Any, name: str) -> Any:
    begin, end = domain_of(source), domain_of(target)
    xesmf = require("xesmf", f"regridding by the method '{_PREFIX}{name}'")
    corners = name.startswith("conservative")
    made = xesmf.Regridder(
        _for_xesmf(begin, source, corners),
        _for_xesmf(end, target, corners),
        name,
        periodic=not isinstance(begin, Places) and begin.is_periodic,
        locstream_in=isinstance(begin, Places),
        locstream_out=isinstance(end, Places),
        # rows without weights are found again in the matrix
        unmapped_to_nan=False,
    )
    return scipy.sparse.csr_array(made.weights.data.to_scipy_sparse())


def _for_xesmf(domain: Domain, obj: Any, corners: bool) -> xr.Dataset:
    """Return the coordinates as xESMF names them, with the corners of cells where it needs them."""
    if isinstance(domain, Grid):
        coords = {"lat": domain.latitude, "lon": domain.unwrapped_longitude}
        bounds = {"lat_b": domain.latitude_bounds, "lon_b": longitude_bounds(domain)}
        return xr.Dataset(coords=coords | bounds)
    dims = ("points",) if isinstance(domain, Places) else ("y", "x")
    located = {"lat": (dims, domain.latitude), "lon": (dims, domain.longitude)}
    if corners and not isinstance(domain, Places):
        found = _corners(domain, obj)
        located |= {n: (("y_b", "x_b"), found[n]) for n in ("lat_b", "lon_b")}
    return xr.Dataset(coords=located)


def _corners(domain: Domain, obj: Any) -> dict[str, npt.NDArray[np.float64]]:
    """Return the corners (y + 1, x + 1) of curvilinear cells, which centres do not define."""
    shape = tuple(n + 1 for n in domain.shape)
    names = ("lat_b", "lon_b")
    found = {
        n: np.asarray(obj[n].values) for n in names if isinstance(obj, xr.Dataset) and n in obj
    }
    got = {n: values.shape for n, values in found.items()}
    if got != dict.fromkeys(names, shape):
        raise CoordinateError(
            "conservative regridding needs the corners of curvilinear cells",
            where="lat_b, lon_b",
            expected=f"variables of shape {shape} in the Dataset",
            got=", ".join(f"{n} of shape {s}" for n, s in got.items()) or "none",
            remedy="add them; cf_xarray.bounds_to_vertices makes them from CF bounds",
        )
    return found
