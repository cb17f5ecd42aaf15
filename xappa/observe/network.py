"""Simulated observing networks: where and when instruments measure, before they have measured.

A network is an observation array like any other, with CF metadata and all values NaN, so that
``ds.appa.operator(network)`` prints it and ``ds.appa.observe(network, seed=0)`` fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa import units
from xappa.cf import Axes, from_seconds, to_seconds
from xappa.diffusion.noise import generator
from xappa.errors import ArgumentError, ErrorCovarianceError

__all__ = ["random_stations"]


def random_stations(
    ds: xr.Dataset,
    n: int,
    *,
    variable: str,
    error: float,
    seed: int,
    times: npt.ArrayLike | xr.DataArray | None = None,
    pressure: Sequence[float] | None = None,
) -> xr.DataArray:
    """Place stations at random, with equal density everywhere in the domain of a Dataset.

    Parameters
    ----------
    ds
        Gives domain, times, units and metadata; its values are not looked at.
    n
        Number of stations.
    variable
        Name of the variable of `ds` that the stations observe.
    error
        Standard deviation of the observation error, in the units of the variable.
    seed
        Seed of the positions; station k is the same for every `n`.
    times
        When the stations report; by default at all times of `ds`. They need not be times of
        `ds`: states are interpolated.
    pressure
        Pa, for a variable on levels: the levels that each station reports (a radiosonde); by
        default all levels of `ds`.

    Returns
    -------
    DataArray
        Dims (time, station), or (time, air_pressure, station) on levels, without time where `ds`
        has none; all NaN. A timeSeries (timeSeriesProfile) of CF discrete sampling geometries.

    Raises
    ------
    ArgumentError
        If `n` is negative, or `ds` has no such variable.
    ErrorCovarianceError
        If `error` is not positive.

    Examples
    --------
    >>> import xappa.observe
    >>> lat, lon = np.linspace(58, 50, 9), np.linspace(-10, 2, 13)
    >>> t2m = ("latitude", "longitude"), np.zeros((9, 13)), {"units": "K"}
    >>> ds = xr.Dataset({"t2m": t2m}, {"latitude": lat, "longitude": lon})
    >>> network = xappa.observe.random_stations(ds, 4, variable="t2m", error=0.5, seed=0)
    >>> network.dims, float(network.height), bool(network.isnull().all())
    (('station',), 2.0, True)
    """
    from xappa.bridge import describe

    if n < 0 or variable not in ds.data_vars:
        raise ArgumentError(
            f"{n} stations that observe {variable!r} cannot be placed",
            where="random_stations",
            expected=f"n >= 0, and a variable among {', '.join(map(str, ds.data_vars))}",
            got=f"n={n}, variable={variable!r}",
            remedy="name a variable of the Dataset",
        )
    if not error > 0:
        raise ErrorCovarianceError(
            "the error of a network is not positive",
            where="random_stations",
            expected="error > 0, in the units of the variable",
            got=error,
            remedy="give the instruments' standard deviation",
        )
    state, axes = describe(ds, variables=[variable])
    observed = state.variables[0]
    latitude, longitude = _positions(state.grid, n, seed)
    coords: dict[str, Any] = {
        "station": (
            "station",
            [f"station {k:03d}" for k in range(n)],
            {"cf_role": "timeseries_id"},
        ),
        "latitude": ("station", latitude, _about("latitude", "degrees_north")),
        "longitude": ("station", longitude, _about("longitude", "degrees_east")),
    }
    dims = ["station"]
    if observed.levels is not None:
        levels = np.asarray(observed.levels if pressure is None else pressure, dtype=np.float64)
        coords["air_pressure"] = ("air_pressure", levels, _about("air_pressure", "Pa", "down"))
        dims.insert(0, "air_pressure")
    elif observed.height is not None:
        coords["height"] = ((), observed.height, _about("height", "m", "up"))
    time = _times(ds, axes, times)
    if time is not None:
        coords["time"] = time
        dims[:0] = [str(dim) for dim in time.dims]
    attrs = {
        "units": str(units.dequantify(ds[variable]).attrs.get("units") or observed.units),
        "error_std": float(error),
        "featureType": "timeSeries" if observed.levels is None else "timeSeriesProfile",
        "long_name": str(ds[variable].attrs.get("long_name", variable)),
    }
    if observed.standard_name:
        attrs["standard_name"] = observed.standard_name
    sizes = {"station": n, "air_pressure": len(coords.get("air_pressure", ((), ()))[1])}
    sizes["time"] = 1 if time is None else time.size
    shape = [sizes[dim] for dim in dims]
    return xr.DataArray(np.full(shape, np.nan), coords, dims, variable, attrs)


def _positions(grid: Any, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw random points, uniform in area, in the domain spanned by cell centres."""
    low, high = np.sin(np.deg2rad([grid.latitude.min(), grid.latitude.max()]))
    first, last = float(grid.longitude[0]), float(grid.longitude[-1])
    if grid.is_periodic:
        last = first + 360.0
    draws = generator(seed, "stations").random((n, 2))  # row by row: the same for every n
    latitude = np.rad2deg(np.arcsin(low + (high - low) * draws[:, 0]))
    return latitude, first + (last - first) * draws[:, 1]


def _times(
    ds: xr.Dataset, axes: Axes, times: npt.ArrayLike | xr.DataArray | None
) -> xr.DataArray | None:
    """Return the time coordinate of the network: a vector, a scalar, or None."""
    if times is None and axes.time is None:
        return None
    given = ds[axes.time] if times is None else times
    values = np.asarray(given.values if isinstance(given, xr.DataArray) else given)
    if values.dtype.kind in "US":
        values = values.astype("datetime64[ns]")
    if values.dtype.kind in "iuf" and isinstance(given, xr.DataArray):
        values = from_seconds(*to_seconds(given))  # months of a climatology, or undecoded numbers
    attrs = {"standard_name": "time", "axis": "T"}
    return xr.DataArray(values, dims=("time",) * values.ndim, name="time", attrs=attrs)


def _about(standard_name: str, unit: str, positive: str | None = None) -> dict[str, str]:
    attrs = {"standard_name": standard_name, "units": unit}
    return attrs if positive is None else {**attrs, "positive": positive}
