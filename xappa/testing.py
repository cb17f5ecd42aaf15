"""Small synthetic Datasets, and helpers for the tests of xappa and of what is built on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["raise_if_dask_computes", "weather"]


def weather(
    times: int = 48,
    latitudes: int = 6,
    longitudes: int = 8,
    *,
    start: str = "2001-01-01",
    step_hours: int = 6,
    seed: int = 0,
) -> xr.Dataset:
    """Return smooth random fields of 2 m temperature that drift eastwards, with a diurnal cycle.

    Parameters
    ----------
    times, latitudes, longitudes
        Sizes.
    start
        First time.
    step_hours
        Hours between states.
    seed
        Seed of the fields.

    Returns
    -------
    xarray.Dataset
        ``t2m`` (time, latitude, longitude), K, float32, on a regional grid, with CF metadata.
    """
    rng = np.random.default_rng(seed)
    lat = np.linspace(60.0, 50.0, latitudes)
    lon = np.linspace(-10.0, 4.0, longitudes)
    hours = step_hours * np.arange(times)
    field = np.zeros((times, latitudes, longitudes))
    for k in range(1, 4):
        amplitude = np.zeros((times, 2))
        for t in range(1, times):
            amplitude[t] = 0.9 * amplitude[t - 1] + rng.standard_normal(2)
        x = k * (np.radians(lon) * 12 - hours[:, None] / 20) + rng.uniform(0, 6)
        y = np.cos(k * np.radians(lat) * 9 + rng.uniform(0, 6))
        wave = amplitude[:, :1] * np.cos(x) + amplitude[:, 1:] * np.sin(x)
        field += wave[:, None, :] * y[:, None] / k
    field += 2 * np.cos(2 * np.pi * (hours - 14) / 24)[:, None, None]
    field += 285 - 0.5 * (lat - 50)[:, None] + 0.3 * rng.standard_normal(field.shape)
    first = np.datetime64(start, "ns")
    return xr.Dataset(
        {
            "t2m": (
                ("time", "latitude", "longitude"),
                field.astype(np.float32),
                {"standard_name": "air_temperature", "units": "K", "long_name": "2 m temperature"},
            )
        },
        {
            "time": ("time", first + hours * np.timedelta64(1, "h"), {"standard_name": "time"}),
            "latitude": (
                "latitude",
                lat,
                {"standard_name": "latitude", "units": "degrees_north"},
            ),
            "longitude": (
                "longitude",
                lon,
                {"standard_name": "longitude", "units": "degrees_east"},
            ),
            "height": ((), 2.0, {"standard_name": "height", "units": "m", "positive": "up"}),
        },
    )


def raise_if_dask_computes(most: int = 0) -> Any:
    """Return a context in which dask may compute at most so many times.

    Parameters
    ----------
    most
        The number of computations that are allowed.
    """
    import dask

    count = 0

    def scheduler(graph: Any, keys: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count > most:
            raise RuntimeError(f"dask computed {count} times, more than the {most} allowed")
        get: Callable[..., Any] = dask.get
        return get(graph, keys, **kwargs)

    return dask.config.set(scheduler=scheduler)
