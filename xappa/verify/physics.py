r"""Physical consistency of states: spectra, geostrophic and hydrostatic balance, mass of dry air.

A generative prior learns balance from data and is not told of it: these are for comparing its
analyses and forecasts, member by member, with states of the model or the reanalysis it learnt from.
None is zero for real states: winds are not geostrophic, and few levels resolve no layer exactly.

With the geopotential :math:`\Phi`, the Coriolis parameter f and the Earth's radius a, the
geostrophic wind is

.. math:: u_g = - \frac{1}{f a} \frac{\partial \Phi}{\partial \varphi}, \quad
    v_g = \frac{1}{f a \cos \varphi} \frac{\partial \Phi}{\partial \lambda},

by centred differences. Hydrostatic balance between levels asks for

.. math:: \Phi_2 - \Phi_1 = R_d \overline{T_v} \ln(p_1 / p_2), \quad T_v = T (1 + 0.608 q) .

References
----------
Holton & Hakim (2013), An Introduction to Dynamic Meteorology, doi:10.1016/C2009-0-63394-8;
Trenberth & Smith (2005), The mass of the atmosphere, doi:10.1175/JCLI-3299.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xappa.cf import Axes, find_axes, identify, pressure_levels
from xappa.errors import CoordinateError, VariableMismatchError
from xappa.grid import EARTH_RADIUS
from xappa.units import convert, squared_units

__all__ = ["dry_mass", "geostrophic_imbalance", "hydrostatic_residual", "zonal_spectrum"]

ROTATION, GRAVITY, R_DRY = 7.2921e-5, 9.80665, 287.05
#: Degrees from the equator within which there is no geostrophic wind to speak of.
TROPICS = 15.0


def zonal_spectrum(
    field: xr.DataArray, *, latitudes: tuple[float, float] | None = None
) -> xr.DataArray:
    """Variance by zonal wavenumber, averaged over latitudes.

    Parameters
    ----------
    field
        On a grid that goes round the globe.
    latitudes
        Southern and northern end of those that count; None for all. They weigh by their cosine.

    Returns
    -------
    xarray.DataArray
        In squared units, longitude and latitude replaced by the dimension ``wavenumber`` (0 to half
        of the number of longitudes): its sum from 1 on is the variance along circles of latitude.

    Raises
    ------
    CoordinateError
        If there are no regular longitudes that go round the globe.

    Examples
    --------
    >>> import xappa
    >>> x = np.arange(0.0, 360.0, 10.0)
    >>> wave = xr.DataArray(
    ...     2 * np.cos(np.deg2rad(3 * x))[None], {"latitude": [45.0], "longitude": x}
    ... )
    >>> xappa.verify.zonal_spectrum(wave).round(6).values[:5].tolist()
    [0.0, 0.0, 0.0, 2.0, 0.0]
    """
    axes = find_axes(field, where="zonal_spectrum")
    x, y = str(axes.longitude), str(axes.latitude)
    _check_round(field[x])
    if latitudes is not None:
        inside = (field[y] >= min(latitudes)) & (field[y] <= max(latitudes))
        field = field.isel({y: np.flatnonzero(inside.values)})
    if field.chunks is not None:
        field = field.chunk({x: -1})

    def power(values: np.ndarray) -> np.ndarray:
        modes = np.fft.rfft(values, axis=-1) / values.shape[-1]
        twice = np.full(modes.shape[-1], 2.0)
        twice[0] = 1.0
        if values.shape[-1] % 2 == 0:
            twice[-1] = 1.0
        found: np.ndarray = twice * np.abs(modes) ** 2
        return found

    count = field.sizes[x] // 2 + 1
    spectrum = xr.apply_ufunc(
        power,
        field,
        input_core_dims=[[x]],
        output_core_dims=[["wavenumber"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {"wavenumber": count}},
    )
    mean = spectrum.weighted(np.cos(np.deg2rad(field[y]))).mean(y)
    mean = mean.assign_coords(wavenumber=("wavenumber", np.arange(count)))
    mean.wavenumber.attrs["long_name"] = "zonal wavenumber"
    attrs = {"long_name": f"variance of {field.name or 'the field'} by zonal wavenumber"}
    if "units" in field.attrs:
        attrs["units"] = squared_units(field.attrs["units"])
    named: xr.DataArray = mean.assign_attrs(attrs)
    return named


def geostrophic_imbalance(ds: xr.Dataset) -> xr.DataArray:
    """How far winds are from geostrophic ones, by latitude and level.

    Parameters
    ----------
    ds
        With both winds and the geopotential (or its height) on levels.

    Returns
    -------
    xarray.DataArray
        Root mean square of the ageostrophic wind over that of the wind, over all dimensions but
        latitude and level (members count one by one); NaN within 15 degrees of the equator.

    Raises
    ------
    VariableMismatchError
        If a variable is missing.
    CoordinateError
        If there is no grid.
    """
    where = "geostrophic_imbalance"
    axes = find_axes(ds, where=where)
    x, y = str(axes.longitude), str(axes.latitude)
    u = _find(ds, "eastward_wind", "m s-1", where)
    v = _find(ds, "northward_wind", "m s-1", where)
    geopotential = _geopotential(ds, where)
    latitude = np.deg2rad(ds[y].astype(float))
    f = 2 * ROTATION * np.sin(latitude)
    per_radian = 180 / np.pi
    u_g = -geopotential.differentiate(y) * per_radian / (f * EARTH_RADIUS)
    v_g = _along(geopotential, x) * per_radian / (f * EARTH_RADIUS * np.cos(latitude))
    apart = (u - u_g) ** 2 + (v - v_g) ** 2
    kept = {y, *_vertical(axes, u)}
    over = [dim for dim in apart.dims if dim not in kept]
    ratio = np.sqrt(apart.mean(over) / (u**2 + v**2).mean(over))
    ratio = ratio.where(abs(ds[y]) > TROPICS)
    about = {"long_name": "ageostrophic wind over wind", "units": "1"}
    named: xr.DataArray = ratio.rename("geostrophic_imbalance").assign_attrs(about)
    return named


def hydrostatic_residual(ds: xr.Dataset) -> xr.DataArray:
    """Mean temperature of layers from thickness, less that from temperature and humidity.

    Parameters
    ----------
    ds
        With geopotential (or its height) and temperature on pressure levels, two or more; with
        specific humidity, temperatures are virtual ones.

    Returns
    -------
    xarray.DataArray
        In K, the vertical dimension replaced by ``layer``, the geometric mean of the pressures of
        its ends in Pa. A mean that is not zero is that of few levels: the temperature between two
        is taken to be linear in the logarithm of pressure.

    Raises
    ------
    VariableMismatchError
        If a variable is missing.
    CoordinateError
        If there are fewer than two levels.
    """
    where = "hydrostatic_residual"
    axes = find_axes(ds, where=where)
    temperature = _find(ds, "air_temperature", "K", where)
    humidity = _find(ds, "specific_humidity", "1", where, optional=True)
    if humidity is not None:
        temperature = temperature * (1 + 0.608 * humidity)
    geopotential = _geopotential(ds, where)
    (z,) = _vertical(axes, temperature)
    pressure, _ = pressure_levels(ds[z])
    if pressure.size < 2:
        raise CoordinateError(
            "balance needs layers",
            where=where,
            expected="two levels or more",
            got=f"{pressure.size}",
        )
    lower, upper = ({z: slice(None, -1)}, {z: slice(1, None)})

    def bare(da: xr.DataArray) -> xr.DataArray:
        return da.drop_vars(z)

    depth = xr.DataArray(np.log(pressure[:-1] / pressure[1:]), dims=z)
    thickness = bare(geopotential.isel(upper)) - bare(geopotential.isel(lower))
    layer = 0.5 * (bare(temperature.isel(upper)) + bare(temperature.isel(lower)))
    residual = (thickness / (R_DRY * depth) - layer).rename({z: "layer"})
    middle = np.sqrt(pressure[:-1] * pressure[1:])
    about = {"standard_name": "air_pressure", "units": "Pa", "positive": "down"}
    residual = residual.assign_coords(layer=("layer", middle, about))
    return residual.rename("hydrostatic_residual").assign_attrs(
        long_name="temperature from thickness less temperature", units="K"
    )


def dry_mass(ds: xr.Dataset) -> xr.DataArray:
    """Mean surface pressure of dry air, which no weather changes.

    Parameters
    ----------
    ds
        With surface pressure, and specific humidity on pressure levels, on a global grid. Humidity
        is taken to be constant below the lowest level and none above the highest.

    Returns
    -------
    xarray.DataArray
        In Pa, over all dimensions but latitude, longitude and level.

    Raises
    ------
    VariableMismatchError
        If a variable is missing.
    CoordinateError
        If there is no grid.
    """
    where = "dry_mass"
    axes = find_axes(ds, where=where)
    x, y = str(axes.longitude), str(axes.latitude)
    surface = _find(ds, "surface_air_pressure", "Pa", where)
    humidity = _find(ds, "specific_humidity", "1", where)
    (z,) = _vertical(axes, humidity)
    pressure, _ = pressure_levels(ds[z])
    humidity = humidity.isel({z: np.argsort(pressure)}).drop_vars(z)
    pressure = np.sort(pressure)
    # layers around the levels, cut off at the ground
    edges = np.concatenate([[pressure[0]], 0.5 * (pressure[1:] + pressure[:-1]), [np.inf]])
    top, bottom = (xr.DataArray(part, dims=z) for part in (edges[:-1], edges[1:]))
    water = (humidity * (np.minimum(bottom, surface) - top).clip(min=0)).sum(z)
    area = np.cos(np.deg2rad(ds[y].astype(float)))
    mean: xr.DataArray = (surface - water).weighted(area).mean((y, x))
    about = {"long_name": "mean surface pressure of dry air", "units": "Pa"}
    return mean.rename("dry_mass").assign_attrs(about)


def _find(ds: xr.Dataset, name: str, units: str, where: str, *, optional: bool = False) -> Any:
    """Return the variable of a quantity that is not one near the surface, in some units."""
    for key, da in ds.data_vars.items():
        quantity, _ = identify(da, str(key))
        if quantity is not None and quantity.standard_name == name and quantity.height is None:
            values = da.astype(float)
            if "units" in da.attrs:
                values = values.copy(data=convert(values.data, da.attrs["units"], units))
            return values.assign_attrs(units=units)
    if optional:
        return None
    raise VariableMismatchError(
        f"there is no {name}",
        where=where,
        expected=f"a variable of standard name {name}",
        got=", ".join(map(str, ds.data_vars)) or "none",
        remedy="set its attribute standard_name, or hand over a Dataset that has it",
    )


def _geopotential(ds: xr.Dataset, where: str) -> xr.DataArray:
    """Return the geopotential, m2 s-2, also where its height is given."""
    height = _find(ds, "geopotential_height", "m", where, optional=True)
    if height is not None:
        found: xr.DataArray = GRAVITY * height
        return found
    geopotential: xr.DataArray = _find(ds, "geopotential", "m2 s-2", where)
    return geopotential


def _vertical(axes: Axes, da: xr.DataArray) -> tuple[str, ...]:
    """Return the vertical dimension of a variable, if it has one."""
    return (str(axes.vertical),) if axes.vertical in da.dims else ()


def _along(da: xr.DataArray, x: str) -> xr.DataArray:
    """Differentiate along longitudes, per degree; around the globe where they go round."""
    step = _step_around(da[x])
    if step is None:
        return da.differentiate(x)
    return (da.roll({x: -1}) - da.roll({x: 1})) / (2 * step)


def _step_around(x: xr.DataArray) -> float | None:
    """Return the step of regular longitudes that go round the globe; None for others."""
    step = np.diff(x.values.astype(float))
    if step.size and np.allclose(step, step[0]) and np.isclose(abs(step[0]) * x.size, 360.0):
        return float(step[0])
    return None


def _check_round(x: xr.DataArray) -> None:
    if _step_around(x) is None:
        raise CoordinateError(
            "a zonal spectrum needs circles of latitude",
            where=f"longitude {x.name!r}",
            expected="regular longitudes that go round the globe",
            got=f"{x.size} from {float(x.min()):g} to {float(x.max()):g} degrees",
            remedy="regrid to a global grid: xappa.regrid",
        )
