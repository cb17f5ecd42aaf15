"""The axes of a rectilinear grid: what they must be, and the bounds of their cells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xappa.errors import CoordinateError

__all__ = ["bounds_of", "check_axis", "check_latitude", "check_longitude"]

Floats = npt.NDArray[np.float64]


def bounds_of(centres: Floats) -> Floats:
    """Return (n + 1,) bounds midway between centres; the outermost cells are symmetric."""
    if centres.size == 1:
        return np.asarray(centres[0] + np.array([-0.5, 0.5]))
    middle = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def check_axis(name: str, values: Floats) -> None:
    """Raise unless the values are finite and one-dimensional."""
    if values.ndim != 1 or values.size == 0 or not np.all(np.isfinite(values)):
        raise CoordinateError(
            f"the {name}s of a grid must be finite numbers along one dimension",
            where=name,
            expected="shape (n,), n >= 1, no NaN",
            got=f"shape {values.shape}, {int(np.sum(~np.isfinite(values)))} not finite",
            remedy="use a rectilinear grid without missing coordinates",
        )


def check_latitude(lat: Floats) -> None:
    """Raise unless latitudes are monotonic and on the Earth."""
    steps = np.diff(lat)
    if np.abs(lat).max() > 90.0 + 1e-4:
        raise CoordinateError(
            "latitudes lie beyond the poles",
            where="latitude",
            expected="-90 to 90 degrees north",
            got=f"{lat.min():g} to {lat.max():g}",
            remedy="look whether latitude and longitude, or degrees and metres, were mixed up",
        )
    if not (np.all(steps > 0) or np.all(steps < 0)):
        k = int(np.argmin(steps * np.sign(steps.sum()) > 0))
        raise CoordinateError(
            "latitudes are not monotonic",
            where=f"latitude[{k}] and latitude[{k + 1}]",
            expected="all increasing or all decreasing",
            got=f"{lat[k]:g}, {lat[k + 1]:g}",
            remedy="sort and drop repeated rows: ds.sortby('latitude').drop_duplicates('latitude')",
        )


def check_longitude(lon: Floats, unwrapped: Floats) -> None:
    """Raise unless longitudes go eastward, once round the globe at most."""
    steps = np.diff(lon)
    if np.sum(steps < 0) > 1 or np.any(steps == 0):
        bad = steps <= 0
        k = int(bad.argmax())
        raise CoordinateError(
            "longitudes do not increase eastward",
            where=f"longitude[{k}] and longitude[{k + 1}]",
            expected="increasing values, with one seam at most",
            got=f"{lon[k]:g}, {lon[k + 1]:g}",
            remedy="sort them: ds.sortby('longitude')",
        )
    widest = np.diff(unwrapped).max() if lon.size > 2 else 0.0
    if widest > 180.0:
        k = int(np.diff(unwrapped).argmax())
        raise CoordinateError(
            "the longitudes leave out more than half of the globe between two neighbours",
            where=f"longitude[{k}] and longitude[{k + 1}]",
            expected="neighbours in space next to each other, across Greenwich too",
            got=f"{lon[k]:g}, {lon[k + 1]:g}",
            remedy="if values and labels belong together, "
            "ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby('longitude'); but "
            "cfgrib sorts the labels of such grids and not their values: then give the labels in "
            "the order of the file, ds.assign_coords(longitude=[...])",
        )
    span = unwrapped[-1] - unwrapped[0]
    smallest = np.diff(unwrapped).min() if lon.size > 1 else 360.0
    if span > 360.0 - 0.5 * min(smallest, 360.0):
        raise CoordinateError(
            "longitudes go round the globe more than once",
            where="longitude",
            expected="each meridian once",
            got=f"{lon[0]:g} to {lon[-1]:g}, {lon.size} values",
            remedy="drop the repeated meridian: ds.isel(longitude=slice(None, -1))",
        )
