"""CF metadata of what the SPEEDY model gives, on its own levels and on pressure levels, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.osse.columns import GRAVITY, Columns

__all__ = ["INTERVAL", "VARIABLES", "Geometry", "gaussian_bounds", "on_pressure", "on_sigma"]

#: Hours between states, and of which precipitation is the mean.
INTERVAL = 6
_POINT = "time: point"
_EXTRAPOLATED = "standard lapse rate below the ground (Trenberth et al. 1993)"
#: Standard name, units, long name, cell methods and comment of each variable.
VARIABLES: dict[str, tuple[str, str, str, str, str]] = {
    "u": ("eastward_wind", "m s-1", "eastward wind", _POINT,
          "that of the lowest model level below it"),
    "v": ("northward_wind", "m s-1", "northward wind", _POINT,
          "that of the lowest model level below it"),
    "t": ("air_temperature", "K", "temperature", _POINT, _EXTRAPOLATED),
    "q": ("specific_humidity", "kg kg-1", "specific humidity", _POINT,
          "that of the lowest model level below it"),
    "z": ("geopotential", "m2 s-2", "geopotential", _POINT,
          f"hydrostatic, from virtual temperature and the model's orography; {_EXTRAPOLATED}"),
    "sp": ("surface_air_pressure", "Pa", "surface pressure", _POINT,
           "at the height of the model's orography"),
    "msl": ("air_pressure_at_mean_sea_level", "Pa", "mean sea level pressure", _POINT,
            "reduced with the standard lapse rate (Trenberth et al. 1993)"),
    "pr": ("precipitation_flux", "kg m-2 s-1", "total precipitation rate", "time: mean",
           "convective and large-scale, mean over the interval of time_bnds, which ends at time"),
}  # fmt: skip
_SIGMA = ("u", "v", "t", "q", "sp", "pr")


@dataclass(frozen=True)
class Geometry:
    """Grid and static fields of a model.

    Parameters
    ----------
    latitude
        Gaussian latitudes (Y,), degrees, increasing.
    longitude
        Degrees east (X,).
    sigma, sigma_bounds
        Full levels (K,) and half levels (K + 1,), increasing towards the ground.
    orography
        Height of the model's ground (Y, X), m.
    land
        Share of land (Y, X).
    """

    latitude: npt.NDArray[np.float64]
    longitude: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64]
    sigma_bounds: npt.NDArray[np.float64]
    orography: npt.NDArray[np.float64]
    land: npt.NDArray[np.float64]

    def static(self) -> xr.Dataset:
        """Return grid, bounds, orography and land share, with CF metadata."""
        step = 360.0 / self.longitude.size
        edges = gaussian_bounds(self.latitude.size)
        sides = np.stack([self.longitude - step / 2, self.longitude + step / 2], -1)
        ds = xr.Dataset(
            {
                "orog": (("latitude", "longitude"), self.orography.astype(np.float32)),
                "lsm": (("latitude", "longitude"), self.land.astype(np.float32)),
            },
            {
                "latitude": self.latitude,
                "longitude": self.longitude,
                "lat_bnds": (("latitude", "bnds"), np.stack([edges[:-1], edges[1:]], -1)),
                "lon_bnds": (("longitude", "bnds"), sides),
            },
        )
        ds.latitude.attrs.update(standard_name="latitude", units="degrees_north", axis="Y",
                                 long_name="latitude", bounds="lat_bnds")  # fmt: skip
        ds.longitude.attrs.update(standard_name="longitude", units="degrees_east", axis="X",
                                  long_name="longitude", bounds="lon_bnds")  # fmt: skip
        ds.orog.attrs.update(standard_name="surface_altitude", units="m",
                             long_name="height of the model's ground",
                             comment="truncated to the model's waves, as its dynamics have it:"
                             " it ripples around steep mountains, below zero too")  # fmt: skip
        ds.lsm.attrs.update(standard_name="land_area_fraction", units="1",
                            long_name="share of land")  # fmt: skip
        return ds


def gaussian_bounds(latitudes: int) -> npt.NDArray[np.float64]:
    """Return the bounds (Y + 1,) of cells as large as the weights of Gaussian latitudes, degrees.

    Examples
    --------
    >>> gaussian_bounds(2)
    array([-90.,   0.,  90.])
    """
    weights = np.polynomial.legendre.leggauss(latitudes)[1]
    edges = np.concatenate([[0.0], np.cumsum(weights)]) - 1.0
    return np.asarray(np.rad2deg(np.arcsin(np.clip(np.round(edges, 14), -1.0, 1.0))))


def on_sigma(fields: Mapping[str, Any], times: Any, geometry: Geometry) -> xr.Dataset:
    """Label fields on the model's own levels.

    Parameters
    ----------
    fields
        ``u``, ``v``, ``t``, ``q`` (T, K, Y, X), ``sp`` and, if wanted, ``pr`` (T, Y, X), in the
        units of `VARIABLES`.
    times
        Valid times (T,).
    geometry
        The model's grid.
    """
    ds = geometry.static().assign_coords(sigma=geometry.sigma)
    ds = ds.assign_coords(
        sigma_bnds=(
            ("sigma", "bnds"),
            np.stack([geometry.sigma_bounds[:-1], geometry.sigma_bounds[1:]], -1),
        )
    )
    ds.sigma.attrs.update(
        standard_name="atmosphere_sigma_coordinate", units="1", axis="Z", positive="down",
        long_name="pressure over surface pressure", bounds="sigma_bnds",
        formula_terms="sigma: sigma ps: sp ptop: ptop",
    )  # fmt: skip
    ds["ptop"] = xr.DataArray(0.0, attrs={"units": "Pa", "long_name": "pressure at the top"})
    return _fill(ds, {name: fields[name] for name in _SIGMA if name in fields}, "sigma", times)


def on_pressure(
    fields: Mapping[str, Any], times: Any, geometry: Geometry, levels: Sequence[float]
) -> xr.Dataset:
    """Interpolate fields to pressure levels, and label them.

    Parameters
    ----------
    fields
        ``u``, ``v``, ``t``, ``q`` (T, K, Y, X), ``sp`` and, if wanted, ``pr`` (T, Y, X), in the
        units of `VARIABLES`.
    times
        Valid times (T,).
    geometry
        The model's grid.
    levels
        Pressures in hPa.
    """
    data = {name: np.asarray(values, dtype=np.float64) for name, values in fields.items()}
    phis = GRAVITY * geometry.orography
    columns = Columns(geometry.sigma, data["t"], data["q"], data["sp"], phis)
    found: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in "uvtqz"}
    for level in levels:
        pressure = 100.0 * level
        for name in "uvq":
            found[name].append(columns.at(data[name], pressure))
        found["t"].append(columns.temperature(pressure))
        found["z"].append(columns.geopotential(pressure))
    result: dict[str, Any] = {name: np.stack(values, axis=1) for name, values in found.items()}
    result |= {"sp": data["sp"], "msl": columns.sea_level_pressure}
    if "pr" in data:
        result["pr"] = data["pr"]
    ds = geometry.static().assign_coords(level=np.asarray(levels, dtype=np.float64))
    ds.level.attrs.update(standard_name="air_pressure", units="hPa", axis="Z", positive="down",
                          long_name="pressure")  # fmt: skip
    return _fill(ds, result, "level", times)


def _fill(ds: xr.Dataset, fields: Mapping[str, Any], vertical: str, times: Any) -> xr.Dataset:
    """Add fields, times and the bounds of means to a Dataset of coordinates."""
    ends = np.atleast_1d(np.asarray(times, dtype="datetime64[ns]"))
    ds = ds.assign_coords(time=ends)
    ds.time.attrs.update(standard_name="time", axis="T", long_name="valid time")
    if "pr" in fields:
        bounds = np.stack([ends - np.timedelta64(INTERVAL, "h"), ends], -1)
        ds = ds.assign_coords(time_bnds=(("time", "bnds"), bounds))
        ds.time.attrs["bounds"] = "time_bnds"
    for name, values in fields.items():
        array = np.asarray(values, dtype=np.float32)
        levels = (vertical,) if array.ndim == 4 else ()
        standard, units, long_name, methods, comment = VARIABLES[name]
        attrs = {"standard_name": standard, "units": units, "long_name": long_name}
        attrs |= {"cell_methods": methods}
        if vertical == "level" or not levels:
            attrs["comment"] = comment
        ds[name] = (("time", *levels, "latitude", "longitude"), array, attrs)
    return ds
