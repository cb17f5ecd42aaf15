"""Interpolation between levels of pressure, as sparse weights along one dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import xarray as xr

from xappa.errors import CoordinateError, VariableMismatchError, XappaWarning, warn
from xappa.regrid.apply import apply_weights, can_average

__all__ = ["Levels"]

Floats = npt.NDArray[np.float64]

# relative difference of pressures that are the same level
_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Levels:
    """Linear interpolation in the logarithm of pressure, from a Dataset's levels to others.

    Parameters
    ----------
    name, dim
        The coordinate of pressure, and its dimension.
    values
        (wanted,) the new levels, in the units of the coordinate.
    weights
        scipy.sparse.csr_array (wanted, present); None where nothing changes.
    """

    name: str = ""
    dim: str = ""
    values: Floats | None = None
    weights: Any = None

    @property
    def changes(self) -> bool:
        """Whether there is anything to interpolate."""
        return self.weights is not None

    @classmethod
    def between(
        cls, coord: xr.DataArray, present: Sequence[float], wanted: Sequence[float], exact: bool
    ) -> Levels:
        """Return the interpolation that a Dataset needs.

        Parameters
        ----------
        coord
            The Dataset's coordinate of pressure.
        present, wanted
            Pa, the levels that it holds and those to come.
        exact
            Whether just `wanted` shall come, in that order; otherwise nothing changes where they
            are among the present ones, and new ones come in the direction of those.

        Raises
        ------
        VariableMismatchError
            If levels lie outside those of the Dataset.
        CoordinateError
            If the Dataset's levels are repeated.
        """
        there, new = np.asarray(present), np.asarray(wanted)
        if not exact:
            new = np.unique(new)
        if not new.size or (exact and _equal(there, new)):
            return cls()
        near = np.isclose(new[:, None], there[None, :], rtol=_SAME, atol=1e-3)
        if near.any(axis=1).all() and not exact:
            return cls()
        low, high = there.min() * (1 - _SAME), there.max() * (1 + _SAME)
        beyond = new[(new < low) | (new > high)]
        if beyond.size:
            raise VariableMismatchError(
                f"levels that are wanted lie outside those of the Dataset: {_hpa(beyond)} hPa",
                where=str(coord.name),
                expected=f"levels around {_hpa(new)} hPa",
                got=f"{_hpa(there)} hPa",
                remedy="add levels; extrapolation is refused",
            )
        if np.unique(there).size < there.size:
            raise CoordinateError(
                "levels are repeated",
                where=str(coord.name),
                expected="each level once",
                got=f"{_hpa(there)} hPa",
                remedy=f"drop them: ds.drop_duplicates('{coord.dims[0]}')",
            )
        if not exact and there[0] > there[-1]:
            new = new[::-1]
        # in the units that the coordinate has
        values = np.round(new * (float(coord.values[0]) / there[0]), 9)
        return cls(str(coord.name), str(coord.dims[0]), values, _log_pressure(there, new))

    def apply(self, ds: xr.Dataset) -> xr.Dataset:
        """Interpolate all numbers along the levels; drop what else lies along them."""
        if self.values is None:
            return ds
        sizes = {self.dim: self.values.size}
        along = [name for name, v in ds.variables.items() if self.dim in v.dims]
        new = {
            name: apply_weights(ds.variables[name], self.weights, sizes)
            for name in along
            if name in ds.data_vars and can_average(ds.variables[name])
        }
        coord = ds.variables[self.name]
        bounds = coord.attrs.get("bounds", coord.encoding.get("bounds"))
        lost = [str(n) for n in along if n in ds.data_vars and n not in {*new, bounds}]
        if lost:
            warn(f"cannot be interpolated, and left out: {', '.join(lost)}", XappaWarning)
        new.pop(bounds, None)
        attrs = {k: v for k, v in coord.attrs.items() if k != "bounds"}
        whole = coord.dtype.kind in "iu" and np.array_equal(self.values, np.round(self.values))
        dtype = coord.dtype if whole or coord.dtype.kind == "f" else np.dtype(np.float64)
        levels = xr.Variable(coord.dims, self.values.astype(dtype), attrs)
        out = ds.drop_vars(along).assign(new).assign_coords({self.name: levels})
        return out[[name for name in ds.data_vars if name in out.data_vars]]


def _equal(a: Floats, b: Floats) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=_SAME, atol=1e-3))


def _log_pressure(present: Floats, wanted: Floats) -> Any:
    """Return the weights (wanted, present), exact where the levels agree."""
    order = np.argsort(present)
    x, t = np.log(present[order]), np.log(wanted)
    if x.size == 1:
        return scipy.sparse.csr_array(np.ones((t.size, 1)))
    j = np.clip(np.searchsorted(x, t, side="right") - 1, 0, x.size - 2)
    s = (t - x[j]) / (x[j + 1] - x[j])
    s = np.where(np.abs(t - x[j]) < _SAME, 0.0, np.where(np.abs(t - x[j + 1]) < _SAME, 1.0, s))
    row = np.tile(np.arange(t.size), 2)
    entries = (np.concatenate([1 - s, s]), (row, np.concatenate([order[j], order[j + 1]])))
    weights = scipy.sparse.csr_array(entries, shape=(wanted.size, present.size))
    weights.eliminate_zeros()
    return weights


def _hpa(levels: Floats) -> str:
    return ", ".join(f"{level / 100:g}" for level in levels)
