"""`regrid_like`: a Dataset from another grid, brought to a model's or Dataset's grid and levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from xappa.bridge import Layout, StateSpec
from xappa.bridge.labels import clean_attrs
from xappa.bridge.recognise import as_dataset, levels_of
from xappa.cf import PRESSURE, Axes, find_axes
from xappa.errors import (
    ArgumentError,
    GridMismatchError,
    GuessWarning,
    VariableMismatchError,
    XappaError,
    raise_all,
    warn,
)
from xappa.grid import Grid
from xappa.models.base import Model
from xappa.models.catalogue import model_of, remember
from xappa.regrid import Regridder, agree, can_average, domain_of
from xappa.regrid.domains import points_of
from xappa.regrid.levels import Levels
from xappa.tasks.labels import finish, versions
from xappa.units import dequantify, quantified_units, requantify

__all__ = ["regrid_like"]


def regrid_like(
    ds: xr.Dataset,
    model: Model | str | Path | xr.Dataset | xr.DataArray,
    *,
    method: str | Regridder = "bilinear",
    skipna: bool = False,
    outside: Literal["raise", "nan"] = "raise",
) -> xr.Dataset:
    """Bring a Dataset from another grid to the grid and levels of a model or of another Dataset.

    Parameters
    ----------
    ds
        Dataset on any rectilinear grid, in any units and order of dimensions; on any other where
        `method` is a `Regridder` or xESMF's. To fit a model it holds the model's variables.
        Dask-backed data stay lazy.
    model
        The model, its name in the catalogue, or the path of its bundle; or a Dataset or DataArray
        on the grid that is wanted: rectilinear, curvilinear, or places along one dimension.
    method
        ``"bilinear"``, ``"conservative"`` (area means; to a coarser grid), ``"xesmf:<method>"``,
        or a `Regridder` from the Dataset's grid to the other, to reuse its weights.
    skipna
        Whether to average the values that are present and renormalise. By default what touches a
        missing value is missing.
    outside
        ``"nan"`` makes those points of the grid that the Dataset does not cover missing, also where
        the weights come from ESMF; ``"raise"`` refuses them.

    Returns
    -------
    xarray.Dataset
        ``ds`` on the other grid. A model's levels come in the direction of the Dataset's own, and
        levels besides them stay where the model's are among the Dataset's; another Dataset's
        levels, if both have levels of pressure, come as they are there. Values are interpolated
        linearly in the logarithm of pressure. Names, units, order of dimensions, dtypes, other
        coordinates and other variables are those of ``ds``; integers become float64, and flags are
        left out with a warning.

    Raises
    ------
    VariableMismatchError
        If variables are missing, or levels lie outside the Dataset's: extrapolation is refused.
    GridMismatchError
        If the Dataset does not cover the grid, says how much of it; or if weights that were given
        are for other grids.
    UnitsError
        If units cannot be converted to the model's.
    CoordinateError
        If a grid is not recognised, or levels are repeated.
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
    >>> dict(fine.appa.regrid_like(coarse).sizes)
    {'time': 40, 'latitude': 2, 'longitude': 3}
    """
    _check_outside(outside)
    original = as_dataset(ds)
    plain = dequantify(original)
    axes = find_axes(plain)
    target: Grid | xr.Dataset | xr.DataArray
    if isinstance(model, (xr.Dataset, xr.DataArray)):
        target = dequantify(model)
        wanted, exact = _levels_like(target, plain, axes), True
    else:
        model = _model(model)
        target = model.spec.grid
        layered = [v for v in model.spec.variables if v.vertical == PRESSURE]
        wanted, exact = [level for v in layered for level in v.levels or ()], False
    regridder = _regridder(plain, target, method)
    levels = _plan(plain, axes, regridder, (wanted, exact), skipna=skipna, outside=outside)
    facts = {"regrid_method": regridder.method}
    if levels.changes:
        facts["regrid_levels"] = "linear in log-pressure"
    if isinstance(model, (xr.Dataset, xr.DataArray)):
        out = _written(_regridded(plain, axes, regridder, levels, skipna), facts)
    else:
        layout = _handshake(plain, axes, model.spec, levels, regridder)
        for guess in layout.guesses:
            warn(guess, GuessWarning)
        out = _regridded(plain, axes, regridder, levels, skipna)
        for entry in layout.fields:
            out[entry.name].attrs = dict(entry.attrs)
        remember(model)
        out = _finish(out, layout, model, facts)
    return requantify(out, quantified_units(original))


def _plan(
    ds: xr.Dataset,
    axes: Axes,
    regridder: Regridder,
    wanted: tuple[Sequence[float], bool],
    *,
    skipna: bool,
    outside: str,
) -> Levels:
    """Return what is to be done with the levels; raise all that stands in the way at once."""
    problems: list[XappaError] = []
    if outside == "raise":
        _check_coverage(regridder, skipna, problems)
    try:
        levels = Levels()
        if axes.vertical is not None and wanted[0]:
            present, kind, _ = levels_of(ds, axes)
            if kind == PRESSURE:
                levels = Levels.between(ds[axes.vertical], present, *wanted)
    except VariableMismatchError as error:
        problems.append(error)
    raise_all(problems, "the Dataset cannot be brought to the other grid")
    return levels


def _regridded(
    ds: xr.Dataset, axes: Axes, regridder: Regridder, levels: Levels, skipna: bool
) -> xr.Dataset:
    out = regridder(levels.apply(ds), skipna=skipna)
    horizontal = {*ds[axes.latitude].dims, *ds[axes.longitude].dims}
    changed = [n for n in out.data_vars if horizontal & set(ds[n].dims)]
    for name in [*changed, *([levels.name] if levels.changes else [])]:
        out[name].attrs = clean_attrs(out[name].attrs)
    out.attrs = clean_attrs(out.attrs)
    out.encoding = {}
    return out


def _levels_like(like: xr.Dataset | xr.DataArray, ds: xr.Dataset, axes: Axes) -> list[float]:
    """Return the levels (Pa) of another Dataset, none unless both have levels of pressure."""
    theirs = find_axes(like)
    if theirs.vertical is None or like[theirs.vertical].ndim != 1:
        return []
    if axes.vertical is None or ds[axes.vertical].ndim != 1:
        return []
    wanted, kind, _ = levels_of(like.coords.to_dataset(), theirs)
    return list(wanted) if kind == PRESSURE else []


def _written(ds: xr.Dataset, facts: Mapping[str, str]) -> xr.Dataset:
    """Say in the attributes of a new Dataset how it was made; no model was needed."""
    said = ", ".join(f"{key}={value}" for key, value in facts.items())
    former = str(ds.attrs.get("history", ""))
    line = f"xappa: regrid_like ({said})"
    own = {k: v for k, v in ds.attrs.items() if not str(k).startswith("xappa_")}
    made = {f"xappa_{key}": value for key, value in facts.items()}
    history = f"{former}\n{line}" if former else line
    ds.attrs = own | made | {"xappa_versions": versions(), "history": history}
    return ds


def _check_outside(outside: str) -> None:
    if outside not in ("raise", "nan"):
        raise ArgumentError(
            "unknown treatment of what the Dataset does not cover",
            where="outside=",
            expected="'raise' or 'nan'",
            got=repr(outside),
            remedy="choose one of these",
        )


def _model(model: Any) -> Model:
    if model is None:
        raise ArgumentError(
            "no model was given",
            where="model=",
            expected="a model, its name in the catalogue, the path of its bundle, or a Dataset",
            got="None",
            remedy="open one with xappa.open_model",
        )
    return model_of(model)


def _regridder(
    ds: xr.Dataset, target: Grid | xr.Dataset | xr.DataArray, method: str | Regridder
) -> Regridder:
    if not isinstance(method, Regridder):
        return Regridder.build(ds, target, method)
    there = domain_of(target)
    if not agree(method.target, there):
        raise GridMismatchError(
            "the weights lead to another grid than the model's or Dataset's",
            where="method=",
            expected=repr(there),
            got=repr(method.target),
            remedy="make them for it: Regridder.build(ds, target)",
        )
    # with the labels of this target; what is covered in part is not covered
    return replace(method, target=there, partial=False)


def _check_coverage(regridder: Regridder, skipna: bool, problems: list[XappaError]) -> None:
    target = regridder.target
    absent = regridder.coverage == 0.0 if skipna else ~regridder.covered
    if not absent.any():
        return
    area = target.area_weights() if isinstance(target, Grid) else None
    share = float(np.average(absent, weights=area))
    lat, lon = (x[absent.ravel()][0] for x in points_of(target))
    problems.append(
        GridMismatchError(
            f"the Dataset does not cover the grid: {100 * share:.3g} % of its"
            f" {'points' if area is None else 'area'}, {int(absent.sum())} of {target.size} points,"
            " are missing",
            where=f"first at {lat:g} degrees north, {lon:g} degrees east",
            expected=f"a grid around {target!r}",
            got=repr(regridder.source),
            remedy="take data of a larger region, or outside='nan' to make those points missing",
        )
    )


def _handshake(
    ds: xr.Dataset, axes: Axes, spec: StateSpec, levels: Levels, regridder: Regridder
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
