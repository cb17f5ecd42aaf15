"""The regridder: a sparse map between two grids, built once and applied many times."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse
import xarray as xr

from xappa.cf import Axes, find_axes
from xappa.errors import ArgumentError, DataError, GridMismatchError, XappaWarning, warn
from xappa.grid import Grid
from xappa.regrid.apply import apply_weights, can_average
from xappa.regrid.files import read_weights, write_weights
from xappa.regrid.weights import TOLERANCE, build_weights
from xappa.units import dequantify, quantified_units, requantify

__all__ = ["Regridder"]

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Labelled = TypeVar("Labelled", bound=xr.Dataset | xr.DataArray)

_ANONYMOUS = "__xappa_regrid__"


@dataclass(frozen=True, eq=False, repr=False)
class Regridder:
    """A sparse linear map from one rectilinear grid to another.

    Parameters
    ----------
    weights
        scipy.sparse array (target.size, source.size) over the raveled (lat, lon) grids. A row sums
        to the covered share of its target.
    source, target
        The grids.
    method
        What the weights are: ``"bilinear"``, ``"conservative"`` or ``"xesmf:<method>"``.

    Raises
    ------
    ArgumentError
        If the weights do not have that shape, or are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> fine = Grid(np.arange(-88.0, 90, 4), np.arange(0.0, 360, 4))
    >>> coarse = Grid(np.arange(-80.0, 90, 20), np.arange(0.0, 360, 20))
    >>> regridder = Regridder.build(fine, coarse, "conservative")
    >>> regridder
    Regridder conservative, 100 % of the target covered, 4050 weights
      from Grid 45 x 90, -88 to 88 degrees north by 4, 0 to 356 degrees east by 4, global
      to   Grid 9 x 18, -80 to 80 degrees north by 20, 0 to 340 degrees east by 20, global
    """

    weights: Any
    source: Grid
    target: Grid
    method: str

    def __post_init__(self) -> None:
        weights = scipy.sparse.csr_array(self.weights, dtype=np.float64, copy=True)
        expected = (self.target.size, self.source.size)
        if weights.shape != expected or not np.all(np.isfinite(weights.data)):
            raise ArgumentError(
                "the weights do not fit the grids",
                where="weights",
                expected=f"finite numbers of shape {expected}, (target, source)",
                got=f"shape {weights.shape}, {int(np.sum(~np.isfinite(weights.data)))} not finite",
                remedy="build them: Regridder.build(source, target)",
            )
        weights.sum_duplicates()
        weights.eliminate_zeros()
        for array in (weights.data, weights.indices, weights.indptr):
            array.setflags(write=False)
        object.__setattr__(self, "weights", weights)

    @classmethod
    def build(
        cls,
        source: Grid | xr.Dataset | xr.DataArray,
        target: Grid | xr.Dataset | xr.DataArray,
        method: str = "bilinear",
    ) -> Regridder:
        """Make the weights.

        Parameters
        ----------
        source, target
            Grids, or objects on them.
        method
            ``"bilinear"``, ``"conservative"``, or ``"xesmf:<method>"`` for the methods of xESMF.

        Raises
        ------
        ArgumentError
            If there is no such method.
        CoordinateError
            If a grid is not rectilinear.
        MissingDependencyError
            If xESMF is asked for and is not installed.
        """
        source, target = (
            grid if isinstance(grid, Grid) else Grid.from_dataset(grid) for grid in (source, target)
        )
        return cls(build_weights(source, target, method), source, target, method)

    @cached_property
    def coverage(self) -> Floats:
        """(lat, lon) share of each target that the source covers, from 0 to 1."""
        return np.asarray(self.weights.sum(axis=1)).reshape(self.target.shape)

    @property
    def covered(self) -> Booleans:
        """(lat, lon) whether each target is covered, to within the rounding of coordinates."""
        return np.asarray(self.coverage >= 1.0 - TOLERANCE)

    def __call__(self, obj: Labelled, *, skipna: bool = False) -> Labelled:
        """Regrid a DataArray, or all of a Dataset that lies on the grid.

        Parameters
        ----------
        obj
            On the source grid, in any order of dimensions. Dask-backed data stay lazy.
        skipna
            Whether to average the values that are present and renormalise. By default a target is
            missing if its weights touch a missing value, or if it is not wholly covered.

        Returns
        -------
        like `obj`
            On the target grid, with the names, attributes, dtypes and order of dimensions of `obj`;
            integers become float64. What varies along only one of latitude and longitude, such as
            their bounds, is dropped.

        Raises
        ------
        GridMismatchError
            If `obj` is not on the source grid.
        DataError
            If a DataArray holds no numbers, or flags.
        """
        units = quantified_units(obj)
        plain: Any = dequantify(obj)
        if isinstance(plain, xr.Dataset):
            return requantify(self._dataset(plain, skipna), units)  # type: ignore[return-value]
        if not can_average(plain):
            raise DataError(
                "only numbers can be regridded",
                where=str(plain.name),
                expected="floating-point or integer values that are no flags",
                got=f"dtype {plain.dtype}, attributes {', '.join(map(str, plain.attrs)) or 'none'}",
                remedy="convert it before: (da == flag).astype(float)",
            )
        ds = self._dataset(plain.to_dataset(name=_ANONYMOUS), skipna)
        return requantify(ds[_ANONYMOUS].rename(plain.name), units)  # type: ignore[return-value]

    def _dataset(self, ds: xr.Dataset, skipna: bool) -> xr.Dataset:
        axes = find_axes(ds)
        self._check(Grid.from_dataset(ds, axes))
        dims = [str(d) for a in (axes.latitude, axes.longitude) for d in ds[a].dims]
        if len(dims) < 2:
            raise DataError(
                "a single point or line cannot be regridded",
                where=f"{axes.latitude}, {axes.longitude}",
                expected="dimensions of latitude and longitude",
                got=f"dimensions {dims}",
                remedy=f"ds.expand_dims({[axes.latitude, axes.longitude]})",
            )
        sizes = dict(zip(dims, self.target.shape, strict=True))
        bounds = {c.attrs.get("bounds", c.encoding.get("bounds")) for c in ds.coords.values()}
        touched = [n for n, v in ds.variables.items() if set(dims) & set(v.dims)]
        new: dict[Hashable, xr.Variable] = {
            n: apply_weights(ds.variables[n], self.weights, sizes, skipna=skipna)
            for n in touched
            if set(dims) <= set(ds.variables[n].dims) and can_average(ds.variables[n])
        }
        lost = [str(n) for n in touched if n in ds.data_vars and n not in {*new, *bounds}]
        if lost:
            warn(f"cannot be regridded, and left out: {', '.join(lost)}", XappaWarning)
        new |= _horizontal(ds, axes, self.target)
        out = ds.drop_vars(touched).assign(new).set_coords([n for n in ds.coords if n in new])
        return out[[n for n in ds.data_vars if n in out.variables]]

    def _check(self, grid: Grid) -> None:
        mine = self.source
        apart = np.inf
        if grid.shape == mine.shape:
            east = (grid.longitude - mine.longitude + 180.0) % 360.0 - 180.0
            steps = [np.abs(np.diff(x)) for x in (mine.latitude, mine.unwrapped_longitude)]
            spacing = min((s.min() for s in steps if s.size), default=1.0)
            north = grid.latitude - mine.latitude
            apart = max(np.abs(north).max(), np.abs(east).max()) / spacing
        if apart > TOLERANCE:
            raise GridMismatchError(
                "the object is not on the grid that the weights are for",
                expected=repr(mine),
                got=repr(grid),
                remedy="make weights for its grid: Regridder.build(ds, target)",
            )

    def save(self, path: str | Path) -> Path:
        """Write the weights and grids to a NetCDF file, in the layout of ESMF's weight files.

        Parameters
        ----------
        path
            The file; an existing one is replaced.
        """
        write_weights(path, self.weights, self.source, self.target, self.method)
        return Path(path)

    @classmethod
    def open(cls, path: str | Path) -> Regridder:
        """Read what `save` wrote, or an ESMF weight file between rectilinear grids.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        DataError
            If the file is damaged, holds no weights, or its grids are not rectilinear.
        """
        return cls(*read_weights(path))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Regridder):
            return NotImplemented
        return self.__dask_tokenize__() == other.__dask_tokenize__()

    def __hash__(self) -> int:
        return hash(self.__dask_tokenize__())

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        arrays = (self.weights.data, self.weights.indices, self.weights.indptr)
        grids = (self.source.__dask_tokenize__(), self.target.__dask_tokenize__())
        return "xappa.Regridder", self.method, grids, *(array.tobytes() for array in arrays)

    def __repr__(self) -> str:
        share = 100.0 * float(np.average(self.covered, weights=self.target.area_weights()))
        return (
            f"Regridder {self.method}, {share:.3g} % of the target covered,"
            f" {self.weights.nnz} weights\n  from {self.source!r}\n  to   {self.target!r}"
        )


def _horizontal(ds: xr.Dataset, axes: Axes, target: Grid) -> dict[Hashable, xr.Variable]:
    """Return the coordinates of the target under the names that the Dataset uses."""
    out: dict[Hashable, xr.Variable] = {}
    for role, unit in (("latitude", "degrees_north"), ("longitude", "degrees_east")):
        name = getattr(axes, role)
        stale = ("bounds", "actual_range", "valid_min", "valid_max", "valid_range")
        attrs = {k: v for k, v in ds[name].attrs.items() if k not in stale}
        attrs = {"standard_name": role, "units": unit} | attrs
        out[name] = xr.Variable(ds[name].dims, np.array(getattr(target, role)), attrs)
    return out
