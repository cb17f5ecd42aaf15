"""Errors that are assumed where nobody says any: a table by quantity and kind of platform.

They are what operational centres assume of conventional observations, rounded, with what a grid
of some tens of kilometres does not represent. Whoever knows better should say so: the table is used
with a warning only. Quantities whose errors differ too much between instruments, such as
brightness temperatures and refractivities, are not in it.

References
----------
ECMWF (2023), IFS documentation CY48R1, part I: Observations, doi:10.21957/0f360ba4ca, chapter 2.
Kalnay et al. (1996), The NCEP/NCAR 40-year reanalysis project,
doi:10.1175/1520-0477(1996)077<0437:TNYRP>2.0.CO;2.
"""

from __future__ import annotations

import xarray as xr

from xappa.cf import identify
from xappa.observe.containers import Found

__all__ = ["DEFAULT_ERRORS", "default_error"]

#: By standard name: units, and the error of observations near the surface (point, timeSeries), of
#: soundings (profile, timeSeriesProfile) and along trajectories (aircraft).
DEFAULT_ERRORS: dict[str, tuple[str, float, float, float]] = {
    "air_temperature": ("K", 2.0, 1.0, 1.2),
    "eastward_wind": ("m s-1", 2.0, 2.0, 2.5),
    "northward_wind": ("m s-1", 2.0, 2.0, 2.5),
    "wind_speed": ("m s-1", 2.0, 2.0, 2.5),
    "surface_air_pressure": ("Pa", 100.0, 100.0, 100.0),
    "air_pressure_at_mean_sea_level": ("Pa", 100.0, 100.0, 100.0),
    "specific_humidity": ("kg kg-1", 1e-3, 1e-3, 1e-3),
    "relative_humidity": ("1", 0.15, 0.15, 0.15),
    "dew_point_temperature": ("K", 2.5, 2.5, 2.5),
    "geopotential_height": ("m", 10.0, 15.0, 15.0),
    "geopotential": ("m2 s-2", 98.0, 147.0, 147.0),
    "sea_surface_temperature": ("K", 0.5, 0.5, 0.5),
    "atmosphere_mass_content_of_water_vapor": ("kg m-2", 3.0, 3.0, 3.0),
}

_KINDS = ("stations", "soundings", "trajectories")


def default_error(found: Found, *, on_levels: bool) -> tuple[xr.DataArray, str] | None:
    """Return the error that is assumed for an array, and a sentence that says so.

    Parameters
    ----------
    found
        The observations. Their ``featureType`` tells the kind of platform; without it, those at
        pressures are soundings.
    on_levels
        Whether they have a pressure coordinate.

    Returns
    -------
    (DataArray, str) or None
        A number with units; None where the quantity is not in the table.
    """
    quantity, _ = identify(found.array)
    if quantity is None or quantity.standard_name not in DEFAULT_ERRORS:
        return None
    unit, *errors = DEFAULT_ERRORS[quantity.standard_name]
    kind = _kind(found, on_levels)
    value = errors[kind]
    said = (
        f"no error is given: {value:g} {unit} assumed, the default for {quantity.standard_name} "
        f"of {_KINDS[kind]} (pass error=, or set the attribute error_std)"
    )
    return xr.DataArray(value, attrs={"units": unit}), said


def _kind(found: Found, on_levels: bool) -> int:
    attrs = {} if found.dataset is None else found.dataset.attrs
    feature = str(found.array.attrs.get("featureType", attrs.get("featureType", ""))).lower()
    if feature.startswith("trajectory"):
        return 2
    if feature:
        return 1 if "profile" in feature else 0
    return 1 if on_levels else 0
