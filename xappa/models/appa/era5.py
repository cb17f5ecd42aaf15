"""The states of the published Appa models: ERA5 on the surface and on pressure levels."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from xappa.bridge import StateSpec, VariableSpec
from xappa.errors import BundleError
from xappa.grid import Grid

__all__ = ["ERA5_STATE", "era5_spec", "plain_spec", "read_statistics"]

#: name, standard name, height above ground in metres, units
_SURFACE: tuple[tuple[str, str, float | None, str], ...] = (
    ("2m_temperature", "air_temperature", 2.0, "K"),
    ("10m_u_component_of_wind", "eastward_wind", 10.0, "m s-1"),
    ("10m_v_component_of_wind", "northward_wind", 10.0, "m s-1"),
    ("mean_sea_level_pressure", "air_pressure_at_mean_sea_level", None, "Pa"),
    ("sea_surface_temperature", "sea_surface_temperature", None, "K"),
    ("total_precipitation", "lwe_thickness_of_precipitation_amount", None, "m"),
)
_ON_LEVELS = (
    ("temperature", "air_temperature", "K"),
    ("u_component_of_wind", "eastward_wind", "m s-1"),
    ("v_component_of_wind", "northward_wind", "m s-1"),
    ("geopotential", "geopotential", "m2 s-2"),
    ("specific_humidity", "specific_humidity", "kg kg-1"),
)
_13 = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
_37 = (
    *(1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350, 400, 450),
    *(500, 550, 600, 650, 700, 750, 775, 800, 825, 850, 875, 900, 925, 950, 975, 1000),
)
#: Levels in hPa by the number of channels.
ERA5_STATE: dict[int, tuple[int, ...]] = {
    len(_SURFACE) + len(_ON_LEVELS) * len(levels): levels for levels in (_13, _37)
}


def _grid(shape: tuple[int, int]) -> Grid:
    """Return a global grid: with poles for an odd number of rows, between them for an even one."""
    rows, columns = shape
    half = 0.0 if rows % 2 else 90.0 / rows
    return Grid(np.linspace(90 - half, half - 90, rows), np.arange(columns) * 360.0 / columns)


def era5_spec(shape: tuple[int, int], levels: tuple[int, ...], time_step: float) -> StateSpec:
    """Return the state of the published models: six variables at the surface and five on levels.

    Parameters
    ----------
    shape
        Rows and columns of the grid.
    levels
        Pressure levels, hPa.
    time_step
        Seconds.
    """
    pressures = tuple(100.0 * level for level in levels)
    surface = [VariableSpec(name, cf, z, units, None) for name, cf, z, units in _SURFACE]
    upper = [VariableSpec(name, cf, None, units, pressures) for name, cf, units in _ON_LEVELS]
    return StateSpec((*surface, *upper), _grid(shape), time_step, "proleptic_gregorian")


def plain_spec(
    shape: tuple[int, int], channels: int, time_step: float, like: StateSpec | None = None
) -> StateSpec:
    """Return a state of standardised channels, named after those of another state or numbered."""
    if like is not None:
        variables = tuple(replace(v, units="1", standard_name=None) for v in like.variables)
    else:
        variables = tuple(
            VariableSpec(f"channel_{k}", None, None, "1", None) for k in range(channels)
        )
    return StateSpec(variables, _grid(shape), time_step, "proleptic_gregorian")


def read_statistics(path: Path, spec: StateSpec) -> tuple[np.ndarray, np.ndarray]:
    """Read means and standard deviations of the channels, float64, from the authors' Zarr store.

    Raises
    ------
    BundleError
        If a variable or level is missing, or the store cannot be read.
    """
    import xarray as xr

    try:
        with warnings.catch_warnings():
            # The authors' stores are consolidated; copies need not be.
            warnings.simplefilter("ignore", RuntimeWarning)
            with xr.open_zarr(path) as opened:
                stats = opened.load()
        found = []
        for variable in spec.variables:
            array = stats[variable.name]
            if variable.levels is not None:
                array = array.sel(level=[level / 100 for level in variable.levels])
            found.append(array.transpose("statistic", ...).values.reshape(2, -1))
        names = [str(name) for name in stats["statistic"].values]
        values = np.concatenate(found, axis=1).astype(np.float64)
        return values[names.index("mean")], values[names.index("std")]
    except (KeyError, ValueError, OSError) as error:
        raise BundleError(
            "the statistics of the states cannot be read",
            where=str(path),
            expected="mean and std of " + ", ".join(v.name for v in spec.variables),
            got=f"{type(error).__name__}: {error}",
            remedy="copy the store again",
        ) from error
