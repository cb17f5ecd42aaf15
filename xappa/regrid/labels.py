"""Labels of what is regridded: which coordinates go, which come, along which dimensions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from xappa.cf import Axes, find_axes
from xappa.errors import DataError, GridMismatchError, XappaWarning, warn
from xappa.grid import Grid
from xappa.regrid.domains import Curvilinear, Domain, agree, domain_of, lasting

__all__ = ["Horizontal"]


@dataclass(frozen=True)
class Horizontal:
    """The horizontal dimensions of a Dataset, and those that replace them.

    Parameters
    ----------
    old
        Dimensions of the source, in the order in which it is raveled.
    sizes
        Dimensions of the target in that order, with their sizes.
    coords
        The coordinates of the target.
    stale
        Variables that only describe the source: latitudes, longitudes, indexes, bounds of cells.
    """

    old: tuple[str, ...]
    sizes: Mapping[str, int]
    coords: Mapping[Hashable, xr.Variable]
    stale: frozenset[Hashable]

    @classmethod
    def of(cls, ds: xr.Dataset, source: Domain, target: Domain) -> Horizontal:
        """Return what changes when a Dataset is regridded.

        Raises
        ------
        GridMismatchError
            If the Dataset does not lie on the source.
        DataError
            If it lacks a dimension of latitude or longitude, or has one of the target's.
        """
        axes = find_axes(ds)
        found = domain_of(ds, axes)
        turned = isinstance(found, Curvilinear) and not agree(found, source)
        if turned:
            # a Dataset that was transposed has transposed coordinates
            found = Curvilinear(found.latitude.T, found.longitude.T)
        if not agree(found, source):
            raise GridMismatchError(
                "the object is not on the grid that the weights are for",
                expected=repr(source),
                got=repr(domain_of(ds, axes)),
                remedy="make weights for its grid: Regridder.build(ds, target)",
            )
        old = _dims(ds, axes, source)[:: -1 if turned else 1]
        others = {str(dim) for dim in ds.dims} - set(old)
        new = _new_dims(axes, source, target, old)
        if others & set(new):
            raise DataError(
                "the object has a dimension of the target already",
                where=", ".join(sorted(others & set(new))),
                expected=f"dimensions {', '.join(old)} and others than {', '.join(new)}",
                got=f"dimensions {', '.join(map(str, ds.dims))}",
                remedy=f"rename it in one of them: ds.rename({min(others & set(new))}='other')",
            )
        sizes = dict(zip(new, target.shape, strict=True))
        bounds = {c.attrs.get("bounds", c.encoding.get("bounds")) for c in ds.coords.values()}
        stale = frozenset({*bounds, axes.latitude, axes.longitude, *old})
        return cls(old, sizes, _coords(ds, axes, target, old, new), stale)


def _dims(ds: xr.Dataset, axes: Axes, source: Domain) -> tuple[str, ...]:
    if not isinstance(source, Grid):
        return tuple(map(str, ds[axes.latitude].dims))
    dims = tuple(str(d) for a in (axes.latitude, axes.longitude) for d in ds[a].dims)
    if len(dims) < 2:
        raise DataError(
            "a single point or line cannot be regridded",
            where=f"{axes.latitude}, {axes.longitude}",
            expected="dimensions of latitude and longitude",
            got=f"dimensions {list(dims)}",
            remedy=f"ds.expand_dims({[axes.latitude, axes.longitude]})",
        )
    return dims


def _new_dims(axes: Axes, source: Domain, target: Domain, old: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(target, Grid):
        return target.dims
    # a rectilinear target takes the names that the Dataset uses
    return old if isinstance(source, Grid) else (str(axes.latitude), str(axes.longitude))


def _coords(
    ds: xr.Dataset, axes: Axes, target: Domain, old: tuple[str, ...], new: tuple[str, ...]
) -> dict[Hashable, xr.Variable]:
    if not isinstance(target, Grid):
        kept = {n for n, v in ds.variables.items() if not set(v.dims) & set(old)}
        clash = [str(n) for n in target.labels.variables if n in kept]
        if clash:
            warn(f"the object's own are kept, not the target's: {', '.join(clash)}", XappaWarning)
        return {n: v for n, v in target.labels.variables.items() if n not in kept}
    out: dict[Hashable, xr.Variable] = {}
    roles = (("latitude", "degrees_north"), ("longitude", "degrees_east"))
    for (role, unit), dim in zip(roles, new, strict=True):
        name = getattr(axes, role)
        attrs = {"standard_name": role, "units": unit} | lasting(ds[name].attrs)
        out[name] = xr.Variable((dim,), np.array(getattr(target, role)), attrs)
    return out
