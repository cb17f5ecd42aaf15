r"""Rectilinear grids on the sphere: cells, matching of grids, interpolation, distances.

The area of the cell between the parallels :math:`\phi_1, \phi_2` and meridians that are
:math:`\Delta\lambda` apart is :math:`R^2 \Delta\lambda\,|\sin\phi_2 - \sin\phi_1|`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa._cells import bounds_of, check_axis, check_latitude, check_longitude
from xappa._interpolate import bilinear
from xappa.cf import Axes, find_axes
from xappa.errors import CoordinateError, GridMismatchError
from xappa.units import dequantify

__all__ = ["EARTH_RADIUS", "Grid", "great_circle"]

EARTH_RADIUS = 6_371_000.0
"""Mean radius of the Earth in metres."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# coordinates of one grid that were stored as float32 or rounded in GRIB agree to this fraction of
# a spacing
_TOLERANCE = 1e-3
_REGRID = "bring it to the grid: ds.appa.regrid_like(model)"


def great_circle(
    lat1: npt.ArrayLike, lon1: npt.ArrayLike, lat2: npt.ArrayLike, lon2: npt.ArrayLike
) -> Floats:
    """Return great-circle distances in metres (haversine formula); arguments broadcast.

    Parameters
    ----------
    lat1, lon1, lat2, lon2
        Degrees.

    Examples
    --------
    >>> round(float(great_circle(0.0, 0.0, 0.0, 180.0)) / 1000)
    20015
    """
    a, b, c, d = (np.deg2rad(np.asarray(x, dtype=np.float64)) for x in (lat1, lon1, lat2, lon2))
    h = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
    return np.asarray(2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0))))


@dataclass(frozen=True, eq=False)
class Grid:
    """A rectilinear grid of latitudes and longitudes.

    Parameters
    ----------
    latitude
        (lat,) degrees_north as stored, strictly monotonic in either direction.
    longitude
        (lon,) degrees_east as stored, eastward; one step back at the seam of the convention
        (..., 359.75, 0, ...) is allowed.

    Raises
    ------
    CoordinateError
        If the coordinates are not such.

    Examples
    --------
    >>> import numpy as np
    >>> grid = Grid(np.linspace(58, 50, 33), np.linspace(-10, 2, 49))
    >>> grid
    Grid 33 x 49, 58 to 50 degrees north by -0.25, -10 to 2 degrees east by 0.25, regional
    """

    latitude: Floats
    longitude: Floats

    def __post_init__(self) -> None:
        for name in ("latitude", "longitude"):
            values = np.array(getattr(self, name), dtype=np.float64)
            values.setflags(write=False)
            object.__setattr__(self, name, values)
            check_axis(name, values)
        check_latitude(self.latitude)
        check_longitude(self.longitude, self.unwrapped_longitude)

    @classmethod
    def from_dataset(cls, obj: xr.Dataset | xr.DataArray, axes: Axes | None = None) -> Grid:
        """Return the grid of a Dataset or DataArray.

        Parameters
        ----------
        obj
            Object with one-dimensional coordinates of latitude and longitude.
        axes
            Names of its coordinates; found by CF if None.

        Raises
        ------
        CoordinateError
            If the coordinates are missing or curvilinear.
        """
        obj = dequantify(obj)
        axes = find_axes(obj) if axes is None else axes
        latitude, longitude = obj[axes.latitude], obj[axes.longitude]
        if max(latitude.ndim, longitude.ndim) > 1 or set(latitude.dims) & set(longitude.dims):
            raise CoordinateError(
                "the grid is not rectilinear",
                where=f"{axes.latitude}, {axes.longitude}",
                expected="latitude along one dimension and longitude along another",
                got=f"dimensions {latitude.dims} and {longitude.dims}",
                remedy="regrid to latitudes and longitudes first",
            )
        values = (np.atleast_1d(np.asarray(c.values, np.float64)) for c in (latitude, longitude))
        return cls(*values)

    @classmethod
    def from_dict(cls, data: Mapping[str, Sequence[float]]) -> Grid:
        """Return the grid that `to_dict` described."""
        return cls(np.asarray(data["latitude"]), np.asarray(data["longitude"]))

    def to_dict(self) -> dict[str, list[float]]:
        """Return latitudes and longitudes as lists, for JSON."""
        return {"latitude": self.latitude.tolist(), "longitude": self.longitude.tolist()}

    @property
    def shape(self) -> tuple[int, int]:
        """Number of latitudes and of longitudes."""
        return self.latitude.size, self.longitude.size

    @property
    def size(self) -> int:
        """Number of grid points."""
        return self.latitude.size * self.longitude.size

    @cached_property
    def unwrapped_longitude(self) -> Floats:
        """(lon,) longitudes that increase through the seam, from the first one on."""
        steps = np.diff(self.longitude)
        return self.longitude + 360.0 * np.concatenate([[0.0], np.cumsum(steps < 0)])

    @cached_property
    def is_periodic(self) -> bool:
        """True where the longitudes go round the globe, to within a spacing."""
        if self.longitude.size < 2:
            return False
        lon = self.unwrapped_longitude
        return bool(360.0 - (lon[-1] - lon[0]) <= np.diff(lon).max() * (1 + _TOLERANCE))

    @property
    def has_north_pole(self) -> bool:
        """True where a row lies on the north pole."""
        return bool(np.isclose(self.latitude.max(), 90.0, rtol=0.0, atol=1e-6))

    @property
    def has_south_pole(self) -> bool:
        """True where a row lies on the south pole."""
        return bool(np.isclose(self.latitude.min(), -90.0, rtol=0.0, atol=1e-6))

    @property
    def is_global(self) -> bool:
        """True for a periodic grid whose cells reach both poles."""
        south, north = sorted(self.latitude_bounds[[0, -1]])
        return self.is_periodic and bool(np.allclose([south, north], [-90.0, 90.0]))

    @cached_property
    def latitude_bounds(self) -> Floats:
        """(lat + 1,) bounds of the cells, in the order of `latitude`, within the poles.

        Midway between rows; the outermost cells are as wide outwards as inwards, and reach the
        pole on a periodic grid whose last row is within a spacing of it.
        """
        bounds = bounds_of(self.latitude)
        if self.is_periodic and self.latitude.size > 1:
            for end, spacing in ((0, self.latitude[0] - self.latitude[1]),
                                 (-1, self.latitude[-1] - self.latitude[-2])):  # fmt: skip
                pole = np.copysign(90.0, spacing)
                if abs(pole - self.latitude[end]) <= abs(spacing) * (1 + _TOLERANCE):
                    bounds[end] = pole
        return np.asarray(np.clip(bounds, -90.0, 90.0))

    @cached_property
    def longitude_widths(self) -> Floats:
        """(lon,) widths of the cells in degrees."""
        lon = self.unwrapped_longitude
        if self.is_periodic:
            around = np.concatenate([[lon[-1] - 360.0], lon, [lon[0] + 360.0]])
            return np.asarray((around[2:] - around[:-2]) / 2)
        return np.asarray(np.diff(bounds_of(lon)))

    def area_weights(self) -> Floats:
        """Return the areas of the cells relative to their mean.

        Returns
        -------
        (lat, lon) weights of mean 1.

        Examples
        --------
        >>> import numpy as np
        >>> Grid(np.array([-60.0, 0.0, 60.0]), np.arange(0, 360, 90.0)).area_weights()[:, 0].round(
        ...     3
        ... )
        array([0.75, 1.5 , 0.75])
        """
        rows = np.abs(np.diff(np.sin(np.deg2rad(self.latitude_bounds))))
        weights = rows[:, None] * self.longitude_widths[None, :]
        return np.asarray(weights / weights.mean())

    def match(self, latitude: npt.ArrayLike, longitude: npt.ArrayLike) -> tuple[Integers, Integers]:
        """Return where the rows and columns of another grid lie in this one.

        Parameters
        ----------
        latitude, longitude
            Coordinates of the other grid, (lat',) and (lon',): this grid or a sub-region of it,
            with latitudes in either direction and longitudes in either convention, starting at
            any meridian.

        Returns
        -------
        rows (lat',), columns (lon',)
            Indices into this grid's latitudes and longitudes.

        Raises
        ------
        GridMismatchError
            If a row or column is absent here or is skipped; shows both grids and the first
            difference.

        Examples
        --------
        >>> import numpy as np
        >>> grid = Grid(np.array([10.0, 0.0, -10.0]), np.array([0.0, 90.0, 180.0, 270.0]))
        >>> rows, columns = grid.match([0.0, 10.0], [-90.0, 0.0])
        >>> rows.tolist(), columns.tolist()
        ([1, 0], [3, 0])
        """
        other = Grid(np.atleast_1d(latitude), np.atleast_1d(longitude))
        rows = self._match_axis("latitude", other)
        columns = self._match_axis("longitude", other)
        return rows, columns

    def _match_axis(self, axis: str, other: Grid) -> Integers:
        mine: Floats = getattr(self, axis)
        theirs: Floats = getattr(other, axis)
        turn = 360.0 if axis == "longitude" else None
        gap = np.abs(_difference(theirs[:, None], mine[None, :], turn))
        index = gap.argmin(axis=1)
        spacing = np.abs(_difference(mine[1:], mine[:-1], turn)).min() if mine.size > 1 else 1.0
        far = gap[np.arange(theirs.size), index] > _TOLERANCE * spacing
        if far.any():
            k = int(far.argmax())
            raise self._mismatch(
                other, f"{axis}[{k}] is {theirs[k]:g}, the nearest one here {mine[index[k]]:g}"
            )
        steps = np.diff(index)
        if turn is not None and self.is_periodic:
            steps = (steps + mine.size // 2) % mine.size - mine.size // 2
        skipped = (np.abs(steps) != 1) & (mine.size > 2)
        if skipped.any():
            k = int(skipped.argmax())
            raise self._mismatch(
                other,
                f"{axis} goes from {theirs[k]:g} to {theirs[k + 1]:g} without the values between",
            )
        return np.asarray(index, dtype=np.int64)

    def _mismatch(self, other: Grid, difference: str) -> GridMismatchError:
        return GridMismatchError(
            "the grids do not fit together",
            where=difference,
            expected=f"{self!r}, or a sub-region of it",
            got=repr(other),
            remedy=_REGRID,
        )

    def interpolate(
        self, latitude: npt.ArrayLike, longitude: npt.ArrayLike
    ) -> tuple[Integers, Floats, npt.NDArray[np.bool_]]:
        """Return the weights of bilinear interpolation to points.

        Longitude is periodic on a periodic grid. Poleward of its last row, values are linear
        between that row and the pole, whose value is the zonal mean of the row.

        Parameters
        ----------
        latitude, longitude
            Points (n,) in degrees, of any convention.

        Returns
        -------
        index (n, k) int64
            Into the raveled (lat, lon) grid; k is 4, or the number of longitudes where a point
            lies between the last row and a pole.
        weight (n, k) float64
            Rows sum to 1, or are 0 for points that are not inside.
        inside (n,) bool
            False beyond the outermost cell centres of a regional grid, and for NaN coordinates.
        """
        return bilinear(self, latitude, longitude)

    def distance(
        self, other_lat: npt.ArrayLike | None = None, other_lon: npt.ArrayLike | None = None
    ) -> Floats:
        """Return great-circle distances from the raveled grid points to other points.

        Parameters
        ----------
        other_lat, other_lon
            Points (m,) in degrees; by default the grid points themselves.

        Returns
        -------
        (size, m) metres.
        """
        lat, lon = (x.ravel() for x in np.meshgrid(self.latitude, self.longitude, indexing="ij"))
        to_lat = lat if other_lat is None else np.ravel(np.asarray(other_lat, dtype=np.float64))
        to_lon = lon if other_lon is None else np.ravel(np.asarray(other_lon, dtype=np.float64))
        return great_circle(lat[:, None], lon[:, None], to_lat[None, :], to_lon[None, :])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return np.array_equal(self.latitude, other.latitude) and np.array_equal(
            self.longitude, other.longitude
        )

    def __hash__(self) -> int:
        return hash((self.latitude.tobytes(), self.longitude.tobytes()))

    def __dask_tokenize__(self) -> tuple[str, bytes, bytes]:
        return "xappa.Grid", self.latitude.tobytes(), self.longitude.tobytes()

    def __repr__(self) -> str:
        rows, columns = self.shape
        lat, lon = self.latitude, self.longitude
        kind = "regional"
        if self.is_periodic:
            kind = "global" if self.is_global else "periodic"
        return (
            f"Grid {rows} x {columns}, {lat[0]:g} to {lat[-1]:g} degrees north{_step(lat)},"
            f" {lon[0]:g} to {lon[-1]:g} degrees east{_step(self.unwrapped_longitude)}, {kind}"
        )


def _difference(a: Floats, b: Floats, turn: float | None) -> Floats:
    if turn is None:
        return a - b
    return np.asarray((a - b + turn / 2) % turn - turn / 2)


def _step(values: Floats) -> str:
    if values.size < 2:
        return ""
    steps = np.diff(values)
    regular = np.allclose(steps, steps[0], rtol=1e-3)
    return f" by {steps.mean():g}" if regular else f" by about {steps.mean():.3g}"
