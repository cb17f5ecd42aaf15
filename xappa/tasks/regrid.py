"""`regrid_like`: a Dataset from another grid, brought to a model's grid and levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse
import xarray as xr

from xappa.bridge import Layout, StateSpec
from xappa.bridge.labels import clean_attrs
from xappa.bridge.recognise import as_dataset, levels_of
from xappa.cf import Axes, find_axes
from xappa.errors import (
    ArgumentError,
    CoordinateError,
    GridMismatchError,
    GuessWarning,
    VariableMismatchError,
    XappaError,
    XappaWarning,
    raise_all,
    warn,
)
from xappa.grid import Grid
from xappa.models.base import Model
from xappa.models.catalogue import remember, resolve
from xappa.regrid import Regridder, apply_weights, can_average
from xappa.tasks.labels import finish
from xappa.units import dequantify, quantified_units, requantify

__all__ = ["regrid_like"]

Floats = npt.NDArray[np.float64]

# relative difference of pressures that are the same level
_SAME = 1e-6


def regrid_like(
    ds: xr.Dataset,
    model: Model | str | Path,
    *,
    method: str | Regridder = "bilinear",
    skipna: bool = False,
    outside: Literal["raise", "nan"] = "raise",
) -> xr.Dataset:
    """Bring a Dataset from another grid to a model's grid and levels.

    Parameters
    ----------
    ds
        Dataset that holds the model's variables on any rectilinear grid, in any units and order of
        dimensions. Dask-backed data stay lazy.
    model
        The model, its name in the catalogue, or the path of its bundle.
    method
        ``"bilinear"``, ``"conservative"`` (area means; to a coarser grid), ``"xesmf:<method>"``,
        or a `Regridder` from the Dataset's grid to the model's, to reuse its weights.
    skipna
        Whether to average the values that are present and renormalise. By default what touches a
        missing value is missing.
    outside
        ``"nan"`` makes those points of the model's grid that the Dataset does not cover missing;
        ``"raise"`` refuses them.

    Returns
    -------
    xarray.Dataset
        ``ds`` with the model's latitudes and longitudes. Where the levels differ, those of the
        model, in the direction of the Dataset's own; values are interpolated linearly in the
        logarithm of pressure. Names, units, order of dimensions, dtypes, other coordinates and
        other variables are those of ``ds``; integers become float64, and flags are left out with a
        warning.

    Raises
    ------
    VariableMismatchError
        If variables are missing, or levels lie outside the Dataset's: extrapolation is refused.
    GridMismatchError
        If the Dataset does not cover the model's grid; says how much of it.
    UnitsError
        If units cannot be converted to the model's.
    CoordinateError
        If the grid is not rectilinear, or levels are repeated.
    ArgumentError, BundleError, MissingDependencyError
        If an argument is not one of the above, the model cannot be opened, or xESMF is missing.

    Examples
    --------
    >>> import xappa
    >>> fine = xappa.testing.weather(times=40)
    >>> coarse = fine.isel(latitude=slice(1, -1, 2), longitude=slice(1, -1, 2))
    >>> model = xappa.fit_gaussian(coarse, modes=2)
    >>> dict(fine.appa.regrid_like(model).sizes)
    {'time': 40, 'latitude': 2, 'longitude': 3}
    """
    model = _model(model, ds, outside)
    original = as_dataset(ds)
    plain = dequantify(original)
    axes = find_axes(plain)
    problems: list[XappaError] = []
    regridder = _regridder(plain, axes, model.spec.grid, method)
    if outside == "raise":
        _check_coverage(regridder, skipna, problems)
    try:
        levels = _Levels.of(plain, axes, model.spec)
    except VariableMismatchError as error:
        problems.append(error)
    raise_all(problems, "the Dataset cannot be brought to the model's grid")
    layout = _handshake(plain, axes, model.spec, levels, regridder)
    for guess in layout.guesses:
        warn(guess, GuessWarning)
    out = regridder(levels.apply(plain), skipna=skipna)
    for variable in out.data_vars.values():
        if layout.roles.latitude in variable.dims:
            variable.attrs = clean_attrs(variable.attrs)
    for entry in layout.fields:
        out[entry.name].attrs = dict(entry.attrs)
    out.attrs = clean_attrs(out.attrs)
    out.encoding = {}
    remember(model)
    facts = {"regrid_method": regridder.method}
    if levels.changes:
        facts["regrid_levels"] = "linear in log-pressure"
    out = _finish(out, layout, model, facts)
    return requantify(out, quantified_units(original))


def _model(model: Any, ds: xr.Dataset, outside: str) -> Model:
    if model is None:
        raise ArgumentError(
            "no model was given",
            where="model=",
            expected="a model, its name in the catalogue, or the path of its bundle",
            got="None",
            remedy="open one with xappa.open_model",
        )
    if outside not in ("raise", "nan"):
        raise ArgumentError(
            "unknown treatment of what the Dataset does not cover",
            where="outside=",
            expected="'raise' or 'nan'",
            got=repr(outside),
            remedy="choose one of these",
        )
    return resolve(model, ds)[0]


def _regridder(ds: xr.Dataset, axes: Axes, target: Grid, method: str | Regridder) -> Regridder:
    if not isinstance(method, Regridder):
        return Regridder.build(Grid.from_dataset(ds, axes), target, method)
    if method.target != target:
        raise GridMismatchError(
            "the weights lead to another grid than the model's",
            where="method=",
            expected=repr(target),
            got=repr(method.target),
            remedy="make them for this model: Regridder.build(ds, model.spec.grid)",
        )
    return method


def _check_coverage(regridder: Regridder, skipna: bool, problems: list[XappaError]) -> None:
    target = regridder.target
    absent = regridder.coverage == 0.0 if skipna else ~regridder.covered
    if not absent.any():
        return
    share = float(np.average(absent, weights=target.area_weights()))
    row, column = np.argwhere(absent)[0]
    problems.append(
        GridMismatchError(
            f"the Dataset does not cover the model's grid: {100 * share:.3g} % of its area,"
            f" {int(absent.sum())} of {target.size} points, are missing",
            where=f"first at {target.latitude[row]:g} degrees north,"
            f" {target.longitude[column]:g} degrees east",
            expected=f"a grid around {target!r}",
            got=repr(regridder.source),
            remedy="take data of a larger region, or outside='nan' to make those points missing",
        )
    )


def _handshake(
    ds: xr.Dataset, axes: Axes, spec: StateSpec, levels: _Levels, regridder: Regridder
) -> Layout:
    """Return the layout of what will come out, found without touching any values."""
    import dask.array as da

    first = {axes.time_dim: slice(0, 1)} if axes.time_dim in ds.dims else {}
    shape = ds.isel(first)
    numbers = {n: v for n, v in shape.data_vars.items() if can_average(v)}
    blank = {n: v.copy(data=da.zeros(v.shape, dtype=v.dtype)) for n, v in numbers.items()}
    # the time step is no matter of the grid
    spec = replace(spec, time_step=None)
    return Layout.of(regridder(levels.apply(shape[list(blank)].assign(blank))), spec)


def _finish(ds: xr.Dataset, layout: Layout, model: Model, facts: Mapping[str, str]) -> xr.Dataset:
    # without fields: regridding does not tell point values from means over time
    return finish(ds, replace(layout, fields=()), model, "regrid_like", **facts)


class _Levels:
    """Linear interpolation in the logarithm of pressure, from a Dataset's levels to a state's."""

    def __init__(self, name: str, dim: str, values: Floats, weights: Any) -> None:
        self.name, self.dim, self.values, self.weights = name, dim, values, weights

    @property
    def changes(self) -> bool:
        """Whether there is anything to interpolate."""
        return self.weights is not None

    @classmethod
    def of(cls, ds: xr.Dataset, axes: Axes, spec: StateSpec) -> _Levels:
        """Return the interpolation that a Dataset needs.

        Raises
        ------
        VariableMismatchError
            If levels of the state lie outside those of the Dataset.
        CoordinateError
            If the Dataset's levels are no pressures along one dimension, or are repeated.
        """
        nothing = cls("", "", np.zeros(0), None)
        wanted = np.unique([level for v in spec.variables for level in v.levels or ()])
        if axes.vertical is None or not wanted.size:
            return nothing
        coord = ds[axes.vertical]
        present = np.asarray(levels_of(ds, axes)[0])
        near = np.isclose(wanted[:, None], present[None, :], rtol=_SAME, atol=1e-3)
        if near.any(axis=1).all():
            return nothing
        low, high = present.min() * (1 - _SAME), present.max() * (1 + _SAME)
        beyond = wanted[(wanted < low) | (wanted > high)]
        if beyond.size:
            raise VariableMismatchError(
                f"levels of the model lie outside those of the Dataset: {_hpa(beyond)} hPa",
                where=axes.vertical,
                expected=f"levels around {_hpa(wanted)} hPa",
                got=f"{_hpa(present)} hPa",
                remedy="add levels; extrapolation is refused",
            )
        if np.unique(present).size < present.size:
            raise CoordinateError(
                "levels are repeated",
                where=axes.vertical,
                expected="each level once",
                got=f"{_hpa(present)} hPa",
                remedy=f"drop them: ds.drop_duplicates('{coord.dims[0]}')",
            )
        if present[0] > present[-1]:
            wanted = wanted[::-1]
        # in the units that the coordinate has
        values = np.round(wanted * (float(coord.values[0]) / present[0]), 9)
        return cls(axes.vertical, str(coord.dims[0]), values, _log_pressure(present, wanted))

    def apply(self, ds: xr.Dataset) -> xr.Dataset:
        """Interpolate all numbers along the levels; drop what else lies along them."""
        if not self.changes:
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
        attrs = {k: v for k, v in clean_attrs(coord.attrs).items() if k != "bounds"}
        whole = coord.dtype.kind in "iu" and np.array_equal(self.values, np.round(self.values))
        dtype = coord.dtype if whole or coord.dtype.kind == "f" else np.dtype(np.float64)
        levels = xr.Variable(coord.dims, self.values.astype(dtype), attrs)
        out = ds.drop_vars(along).assign(new).assign_coords({self.name: levels})
        return out[[name for name in ds.data_vars if name in out.data_vars]]


def _log_pressure(present: Floats, wanted: Floats) -> Any:
    """Return the weights (wanted, present), exact where the levels agree."""
    order = np.argsort(present)
    x, t = np.log(present[order]), np.log(wanted)
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
