"""The regridder: a sparse map between two domains, built once and applied many times."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse
import xarray as xr

from xappa.errors import ArgumentError, DataError, XappaWarning, warn
from xappa.grid import Grid
from xappa.regrid.apply import apply_weights, can_average
from xappa.regrid.build import build_weights
from xappa.regrid.domains import Domain, domain_of, lasting
from xappa.regrid.files import Weights, read_weights, write_weights
from xappa.regrid.labels import Horizontal
from xappa.regrid.weights import uncovered
from xappa.units import dequantify, quantified_units, requantify

if TYPE_CHECKING:
    from xappa.regrid.tensors import RegridOperator

__all__ = ["Regridder"]

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Labelled = TypeVar("Labelled", bound=xr.Dataset | xr.DataArray)

_ANONYMOUS = "__xappa_regrid__"


@dataclass(frozen=True, eq=False, repr=False)
class Regridder:
    """A sparse linear map from one domain to another.

    Parameters
    ----------
    weights
        scipy.sparse array (target.size, source.size) over the raveled domains. A row sums to the
        covered share of its target.
    source, target
        Where values lie before and after: a `xappa.grid.Grid`, `Curvilinear` or `Places`.
    method
        What the weights are: ``"bilinear"``, ``"conservative"``, ``"xesmf:<method>"``, or what a
        file says.
    partial
        Whether a target that is covered in part has the sum over that part, as from ESMF, rather
        than being missing.

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
    source: Domain
    target: Domain
    method: str
    partial: bool = False

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
        # one width of indices, so that equal weights have equal bits
        small = max(weights.nnz, *weights.shape) < 2**31
        width = np.dtype(np.int32 if small else np.int64)
        parts = (weights.data, weights.indices.astype(width), weights.indptr.astype(width))
        weights = scipy.sparse.csr_array(parts, shape=weights.shape)
        for array in (weights.data, weights.indices, weights.indptr):
            array.setflags(write=False)
        object.__setattr__(self, "weights", weights)

    @classmethod
    def build(
        cls,
        source: Domain | xr.Dataset | xr.DataArray,
        target: Domain | xr.Dataset | xr.DataArray,
        method: str = "bilinear",
    ) -> Regridder:
        """Make the weights.

        Parameters
        ----------
        source, target
            Objects with coordinates of latitude and longitude: along two dimensions (a grid), both
            along the same two (a curvilinear grid), or both along one (places); or a
            `xappa.grid.Grid`, `Curvilinear` or `Places`.
        method
            ``"bilinear"`` from a rectilinear grid to any target; ``"conservative"`` between
            rectilinear grids; or ``"xesmf:<method>"`` for all that xESMF can. Its conservative
            methods want the corners of curvilinear cells as ``lat_b`` and ``lon_b``.

        Raises
        ------
        ArgumentError
            If there is no such method, or not between such domains.
        CoordinateError
            If coordinates are missing, ambiguous or of other dimensions.
        MissingDependencyError
            If xESMF is asked for and is not installed.
        """
        weights = build_weights(source, target, method)
        return cls(weights, domain_of(source), domain_of(target), method)

    @cached_property
    def coverage(self) -> Floats:
        """Share of each target that the source covers, from 0 to 1, in the shape of the target."""
        return np.asarray(self.weights.sum(axis=1)).reshape(self.target.shape)

    @property
    def covered(self) -> Booleans:
        """Whether each target is covered, in its shape, to within the rounding of coordinates."""
        return ~uncovered(self.weights).reshape(self.target.shape)

    def __call__(self, obj: Labelled, *, skipna: bool = False) -> Labelled:
        """Regrid a DataArray, or all of a Dataset that lies on the grid.

        Parameters
        ----------
        obj
            On the source, in any order of dimensions. Dask-backed data stay lazy.
        skipna
            Whether to average the values that are present and renormalise. By default a target is
            missing if its weights touch a missing value, or if it is not wholly covered (with
            `partial`: not at all).

        Returns
        -------
        like `obj`
            On the target, with the names, attributes, dtypes and order of dimensions of `obj`;
            integers become float64, and what GRIB said of the old grid goes. A rectilinear target
            takes the names that `obj` has for latitude and longitude; others bring their dimensions
            and coordinates. What varies along only one of the dimensions of the source, such as
            their bounds, is dropped.

        Raises
        ------
        GridMismatchError
            If `obj` is not on the source.
        DataError
            If a DataArray holds no numbers, or flags; or a dimension of the target is there
            already.
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
        change = Horizontal.of(ds, self.source, self.target)
        touched = [n for n, v in ds.variables.items() if set(change.old) & set(v.dims)]
        new: dict[Hashable, xr.Variable] = {
            n: self._variable(ds.variables[n], change, skipna)
            for n in touched
            if n not in change.stale
            and set(change.old) <= set(ds.variables[n].dims)
            and can_average(ds.variables[n])
        }
        lost = [str(n) for n in touched if n in ds.data_vars and n not in {*new, *change.stale}]
        if lost:
            warn(f"cannot be regridded, and left out: {', '.join(lost)}", XappaWarning)
        coords = [n for n in ds.coords if n in new]
        out = ds.drop_vars(touched).assign(new).set_coords(coords).assign_coords(change.coords)
        return out[[n for n in ds.data_vars if n in out.data_vars]]

    def _variable(self, variable: xr.Variable, change: Horizontal, skipna: bool) -> xr.Variable:
        out = apply_weights(
            variable,
            self.weights,
            change.sizes,
            along=change.old,
            skipna=skipna,
            partial=self.partial,
        )
        out.attrs = lasting(out.attrs)
        if not isinstance(self.source, Grid):
            # the projection of the source is not the target's
            out.attrs.pop("grid_mapping", None)
        return out

    def operator(self) -> RegridOperator:
        """Return the same map for tensors, differentiable, with its adjoint.

        Targets that are missing in `__call__` are NaN, and take part in no gradient.
        """
        # torch is imported only where it is used
        from xappa.regrid.tensors import RegridOperator

        missing = uncovered(self.weights, self.partial)
        return RegridOperator(self.weights, self.source.shape, self.target.shape, missing)

    def save(self, path: str | Path) -> Path:
        """Write the weights and both domains to a NetCDF file: S, row, col, as ESMF does.

        Parameters
        ----------
        path
            The file; an existing one is replaced.
        """
        made = Weights(self.weights, self.source, self.target, self.method, self.partial)
        write_weights(path, made)
        return Path(path)

    @classmethod
    def open(
        cls,
        path: str | Path,
        source: Domain | xr.Dataset | xr.DataArray | None = None,
        target: Domain | xr.Dataset | xr.DataArray | None = None,
    ) -> Regridder:
        """Read what `save` wrote, or a weight file of ESMF or xESMF; neither needs be installed.

        Parameters
        ----------
        path
            The file. Weights that xappa did not write give what ESMF gives, also for targets that
            are covered in part (`partial`).
        source, target
            As for `build`; needed where the file does not hold them, as those of xESMF's
            ``Regridder.to_netcdf``.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        DataError
            If the file is damaged, or holds no weights.
        ArgumentError
            If neither the file nor an argument says what the source or the target is.
        GridMismatchError
            If the file and an argument disagree.
        """
        return cls(*read_weights(path, source, target))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Regridder):
            return NotImplemented
        ends = self.source == other.source and self.target == other.target
        return ends and self._bits() == other._bits()

    def __hash__(self) -> int:
        return hash(self._bits())

    def _bits(self) -> tuple[Any, ...]:
        arrays = (self.weights.data, self.weights.indices, self.weights.indptr)
        return self.method, self.partial, *(array.tobytes() for array in arrays)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        ends = (self.source.__dask_tokenize__(), self.target.__dask_tokenize__())
        return "xappa.Regridder", ends, *self._bits()

    def __repr__(self) -> str:
        area = self.target.area_weights() if isinstance(self.target, Grid) else None
        share = 100.0 * float(np.average(self.covered, weights=area))
        return (
            f"Regridder {self.method}, {share:.3g} % of the target covered,"
            f" {self.weights.nnz} weights\n  from {self.source!r}\n  to   {self.target!r}"
        )
