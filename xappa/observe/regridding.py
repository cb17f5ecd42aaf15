"""Observations on another grid, with the weights of regridding that lead there."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xappa.cf import find_axes
from xappa.errors import CoordinateError
from xappa.grid import Grid
from xappa.observe.extent import WEIGHTS
from xappa.regrid import Regridder
from xappa.regrid.domains import agree, domain_of

__all__ = ["with_weights"]

_NAMES = ("S", "row", "col", "src_lat", "src_lon")


def with_weights(obs: xr.DataArray, regridder: Regridder) -> xr.Dataset:
    """Attach weights of regridding to observations: they become their operator.

    What satellites and other models deliver on grids of their own is an observation like any
    other. Bilinear interpolation and conservative means over rectilinear cells need no weights
    (``cell_methods``); this is for all others, such as those of ESMF's files.

    Parameters
    ----------
    obs
        Along the dimensions of the regridder's target, and any others; NaN where there is nothing.
    regridder
        From the grid of the state to that of the observations.

    Returns
    -------
    xarray.Dataset
        The observations and the weights, ``S``, ``row`` and ``col`` (from 1), with the grid that
        they start from. It survives a file.

    Raises
    ------
    CoordinateError
        If the weights do not lead from a rectilinear grid to the observations.

    Examples
    --------
    >>> import numpy as np
    >>> ds = xr.Dataset(coords={"lat": np.arange(50.0, 60.0), "lon": np.arange(0.0, 10.0)})
    >>> coarse = xr.Dataset(coords={"lat": [52.0, 55.0], "lon": [2.0, 5.0]})
    >>> obs = xr.DataArray(np.ones((2, 2)), coarse.coords, ("lat", "lon"), "t2m")
    >>> list(with_weights(obs, Regridder.build(ds, coarse)).data_vars)
    ['t2m', 'S', 'row', 'col', 'src_lat', 'src_lon']
    """
    there = domain_of(obs)
    if not isinstance(regridder.source, Grid) or not agree(regridder.target, there):
        raise CoordinateError(
            "the weights do not lead from a state's grid to the observations",
            where=f"observations {str(obs.name)!r}",
            expected=f"from a rectilinear grid to {there!r}",
            got=f"from {regridder.source!r} to {regridder.target!r}",
            remedy="make weights for them: Regridder.build(ds, obs), or "
            "Regridder.open(path, source=ds, target=obs)",
        )
    axes = find_axes(obs)
    horizontal = dict.fromkeys((*obs[axes.latitude].dims, *obs[axes.longitude].dims))
    entries = regridder.weights.tocoo()
    name = str(obs.name or "observations")
    named = obs.transpose(..., *horizontal).rename(name)
    return (
        named.assign_attrs({WEIGHTS: " ".join(_NAMES)})
        .to_dataset()
        .assign(
            S=("n_s", entries.data, {"long_name": "weights of regridding"}),
            row=("n_s", entries.row.astype(np.int64) + 1, {"long_name": "place, from 1"}),
            col=(
                "n_s",
                entries.col.astype(np.int64) + 1,
                {"long_name": "point of the state, from 1"},
            ),
            src_lat=("src_lat_n", regridder.source.latitude, {"long_name": "rows of the state"}),
            src_lon=(
                "src_lon_n",
                regridder.source.longitude,
                {"long_name": "columns of the state"},
            ),
        )
    )
