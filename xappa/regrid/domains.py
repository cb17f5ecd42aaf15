"""Where values lie: rectilinear grids (`xappa.grid.Grid`), curvilinear grids, lists of places.

All three have a ``shape``, a ``size`` and an order in which they are raveled; sparse weights of
regridding count their points in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.cf import Axes, find_axes
from xappa.errors import CoordinateError
from xappa.grid import Grid, great_circle
from xappa.units import dequantify

__all__ = ["Curvilinear", "Domain", "Places", "agree", "domain_of", "lasting", "points_of"]

Floats = npt.NDArray[np.float64]

# coordinates of one rectilinear grid that were stored as float32 agree to this share of a spacing
_SHARE = 1e-3
# degrees by which the same place may differ elsewhere: float32 holds 360 degrees to 3e-5
_DEGREES = 1e-4
_STALE = ("bounds", "actual_range", "valid_", "GRIB_")


@dataclass(frozen=True, eq=False, repr=False)
class _Located:
    """Latitudes and longitudes point by point, with the labels that belong to them."""

    latitude: Floats
    longitude: Floats
    labels: xr.Dataset = field(default_factory=xr.Dataset)

    _dims: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        lat, lon = (np.array(x, dtype=np.float64) for x in (self.latitude, self.longitude))
        if lat.shape != lon.shape or lat.ndim != len(self._dims) or lat.size == 0:
            raise CoordinateError(
                f"these are no coordinates of {type(self).__name__}",
                where="latitude, longitude",
                expected=f"two arrays of one shape, of {len(self._dims)} dimensions, not empty",
                got=f"shapes {lat.shape} and {lon.shape}",
                remedy="pass one latitude and one longitude for each point",
            )
        if np.nanmax(np.abs(lat), initial=0.0) > 90.0 + 1e-4:
            raise CoordinateError(
                "latitudes lie beyond the poles",
                where="latitude",
                expected="-90 to 90 degrees north",
                got=f"{np.nanmin(lat):g} to {np.nanmax(lat):g}",
                remedy="look whether latitude and longitude, or degrees and metres, were mixed up",
            )
        for name, values in (("latitude", lat), ("longitude", lon)):
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if not self.labels.variables:
            units = {"latitude": "degrees_north", "longitude": "degrees_east"}
            coords = {
                name: (self._dims, values, {"standard_name": name, "units": units[name]})
                for name, values in (("latitude", lat), ("longitude", lon))
            }
            object.__setattr__(self, "labels", xr.Dataset(coords=coords))

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return self.latitude.shape

    @property
    def size(self) -> int:
        """Number of points."""
        return self.latitude.size

    @cached_property
    def axes(self) -> Axes:
        """Which of the labels are latitude and longitude."""
        return find_axes(self.labels)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return tuple(map(str, self.labels[self.axes.latitude].dims))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return (
            np.array_equal(self.latitude, other.latitude, equal_nan=True)
            and np.array_equal(self.longitude, other.longitude, equal_nan=True)
            and self.labels.identical(other.labels)
        )

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.latitude.tobytes(), self.longitude.tobytes()))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        from dask.base import normalize_token

        bits = (self.latitude.tobytes(), self.longitude.tobytes())
        return f"xappa.{type(self).__name__}", *bits, normalize_token(self.labels)

    def _extent(self) -> str:
        if not np.isfinite(self.latitude).any():
            return "nowhere"
        lat, lon = self.latitude, self.longitude
        return (
            f"{np.nanmin(lat):g} to {np.nanmax(lat):g} degrees north,"
            f" {np.nanmin(lon):g} to {np.nanmax(lon):g} degrees east"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Curvilinear(_Located):
    """A grid whose latitudes and longitudes vary along both of its dimensions.

    Parameters
    ----------
    latitude, longitude
        (y, x) degrees_north and degrees_east, in any convention; NaN where there is no point.
    labels
        The coordinates that arrays on the grid have, those two among them; by default
        ``latitude`` and ``longitude`` along ``y`` and ``x``.

    Raises
    ------
    CoordinateError
        If the shapes are others, or latitudes lie beyond the poles.

    Examples
    --------
    >>> import numpy as np
    >>> Curvilinear(*np.meshgrid([50.0, 51.0, 52.0], [-1.0, 1.0]))
    Curvilinear 2 x 3, 50 to 52 degrees north, -1 to 1 degrees east
    """

    _dims: ClassVar[tuple[str, ...]] = ("y", "x")

    @cached_property
    def is_periodic(self) -> bool:
        """Whether the last column is next to the first one."""
        if self.shape[1] < 3:
            return False
        lat, lon = self.latitude, self.longitude
        east = great_circle(lat[:, :-1], lon[:, :-1], lat[:, 1:], lon[:, 1:])
        gap = great_circle(lat[:, -1], lon[:, -1], lat[:, 0], lon[:, 0])
        known = np.isfinite(gap) & np.isfinite(east).all(axis=1)
        return bool(known.any() and np.all(gap[known] <= 1.5 * east[known].max(axis=1)))

    def __repr__(self) -> str:
        return f"Curvilinear {self.shape[0]} x {self.shape[1]}, {self._extent()}"


@dataclass(frozen=True, eq=False, repr=False)
class Places(_Located):
    """A list of places, such as stations or the cells of an unstructured grid.

    Parameters
    ----------
    latitude, longitude
        (n,) degrees_north and degrees_east, in any convention; NaN where unknown.
    labels
        The coordinates that arrays at these places have, those two among them; by default
        ``latitude`` and ``longitude`` along ``points``.

    Raises
    ------
    CoordinateError
        If the shapes are others, or latitudes lie beyond the poles.

    Examples
    --------
    >>> Places([51.5, 48.9], [-0.1, 2.4])
    Places 2, 48.9 to 51.5 degrees north, -0.1 to 2.4 degrees east
    """

    _dims: ClassVar[tuple[str, ...]] = ("points",)

    def __repr__(self) -> str:
        return f"Places {self.size}, {self._extent()}"


Domain: TypeAlias = Grid | Curvilinear | Places


def domain_of(obj: Domain | xr.Dataset | xr.DataArray, axes: Axes | None = None) -> Domain:
    """Return where the values of an object lie.

    Parameters
    ----------
    obj
        A Dataset or DataArray: with latitude along one dimension and longitude along another, both
        along the same two dimensions, or both along the same one. What is such a domain returns
        as it is.
    axes
        Names of its coordinates; found by CF if None.

    Raises
    ------
    CoordinateError
        If the coordinates are missing, or neither of the three.
    """
    if isinstance(obj, (Grid, Curvilinear, Places)):
        return obj
    obj = dequantify(obj)
    axes = find_axes(obj) if axes is None else axes
    lat, lon = obj[axes.latitude], obj[axes.longitude]
    if set(lat.dims) != set(lon.dims) or lat.ndim not in (1, 2):
        return Grid.from_dataset(obj, axes)
    lon = lon.transpose(*lat.dims)
    kind = Places if lat.ndim == 1 else Curvilinear
    return kind(np.asarray(lat.values), np.asarray(lon.values), _labels(obj, lat, lon))


def _labels(obj: xr.Dataset | xr.DataArray, lat: xr.DataArray, lon: xr.DataArray) -> xr.Dataset:
    """Return the coordinates along the dimensions of latitude and longitude, loaded."""
    along = {n: c for n, c in obj.coords.items() if c.ndim and set(c.dims) <= set(lat.dims)}
    # levels of a stacked index are labels of their own, and can be written to files
    stacked = [d for d in lat.dims if d in along and along[d].to_index().nlevels > 1]
    variables = {n: c.variable for n, c in along.items() if n not in stacked}
    variables |= {lat.name: lat.variable, lon.name: lon.variable}
    out = {}
    roles = {lat.name: "latitude", lon.name: "longitude"}
    for name, variable in variables.items():
        attrs = lasting(variable.attrs)
        if name in roles:
            # recognised by its name or units, perhaps: from now on it says so
            attrs["standard_name"] = roles[name]
        out[name] = xr.Variable(variable.dims, np.asarray(variable.values), attrs)
    return xr.Dataset(coords=out)


def lasting(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes without those that describe the range, bounds or grid of old values."""
    return {key: value for key, value in attrs.items() if not str(key).startswith(_STALE)}


def points_of(domain: Domain) -> tuple[Floats, Floats]:
    """Return the raveled latitudes and longitudes (size,) of all points."""
    if isinstance(domain, Grid):
        lat, lon = np.meshgrid(domain.latitude, domain.longitude, indexing="ij")
        return lat.ravel(), lon.ravel()
    return domain.latitude.ravel(), domain.longitude.ravel()


def agree(a: Domain, b: Domain) -> bool:
    """Tell whether two domains are the same places in the same order, to rounding."""
    if type(a) is not type(b) or a.shape != b.shape:
        return False
    north = np.abs(a.latitude - b.latitude)
    east = np.abs((a.longitude - b.longitude + 180.0) % 360.0 - 180.0)
    if isinstance(a, Grid):
        steps = [np.abs(np.diff(x)) for x in (a.latitude, a.unwrapped_longitude)]
        spacing = min((s.min() for s in steps if s.size), default=1.0)
        return bool(max(north.max(), east.max()) <= _SHARE * spacing)
    # meridians are close to one another near the poles
    apart = np.maximum(north, east * np.cos(np.deg2rad(a.latitude)))
    mine, yours = (np.isnan(x.latitude + x.longitude) for x in (a, b))
    return np.array_equal(mine, yours) and bool(np.all(apart[~mine] <= _DEGREES))
