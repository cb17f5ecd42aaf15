"""What comes out of downscaling: variables on a grid of their own, rectilinear or curvilinear.

States are packed and described as all others are, by a `StateSpec`, whose grid has to be
rectilinear. A curvilinear one is stood for by an *index grid*, made-up latitudes and longitudes by
row and column, which nobody sees: what comes out has the coordinates of the true one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import Layout, StateSpec, VariableSpec, describe, pack
from xappa.bridge.recognise import as_dataset
from xappa.cf import find_axes
from xappa.errors import CoordinateError, DataError, GridMismatchError, VariableMismatchError
from xappa.grid import Grid
from xappa.models.statistics import level_coordinates, variable_attrs
from xappa.regrid.domains import Curvilinear, Domain, Places, agree, domain_of
from xappa.units import dequantify

__all__ = ["Target", "statics_of"]

#: What the dimensions of an index grid are called.
_ROW, _COLUMN = "latitude", "longitude"


@dataclass(frozen=True, eq=False)
class Target:
    """Variables on a grid.

    Parameters
    ----------
    spec
        Variables, in the order of the channels, with the grid, or an index grid that stands for a
        curvilinear one.
    domain
        The grid.
    coords
        Its coordinates, as what comes out has them; no data variables.
    """

    spec: StateSpec
    domain: Grid | Curvilinear
    coords: xr.Dataset

    @classmethod
    def of(cls, ds: xr.Dataset, variables: Sequence[str] | None = None) -> Target:
        """Describe what a Dataset holds.

        Parameters
        ----------
        ds
            Fine states, on a rectilinear or a curvilinear grid.
        variables
            Names of the variables to take; None for all that vary.

        Raises
        ------
        CoordinateError
            If it is on neither kind of grid.
        VariableMismatchError
            If no variable is left, or one cannot be used.
        """
        plain = dequantify(as_dataset(ds))
        domain = domain_of(plain)
        if isinstance(domain, Places):
            raise CoordinateError(
                "a list of places cannot be downscaled to, as convolutions need neighbours",
                where="fine",
                expected="a rectilinear or a curvilinear grid",
                got=repr(domain),
                remedy="downscale to a grid, and interpolate to the places",
            )
        spec, _ = describe(_indexed(plain, domain), variables=variables)
        if variables is None:
            names = sorted(variable.name for variable in spec.variables)
            spec, _ = describe(_indexed(plain, domain), variables=names)
        return cls(spec, domain, _coordinates(plain))

    @property
    def dims(self) -> tuple[str, str]:
        """Names of the dimensions of the grid."""
        axes = find_axes(self.coords)
        first = self.coords[axes.latitude].dims
        both = first if len(first) == 2 else (*first, *self.coords[axes.longitude].dims)
        return str(both[0]), str(both[1])

    @property
    def channel_variables(self) -> tuple[VariableSpec, ...]:
        """The variable of each channel."""
        return tuple(variable for variable, _ in self.spec.channels)

    def pack(self, ds: xr.Dataset) -> tuple[Any, np.ndarray, str]:
        """Pack a Dataset of fine states.

        Returns
        -------
        states, seconds, calendar
            Shape (T, C, H, W), numpy or dask; valid times (T,).

        Raises
        ------
        HandshakeError, UnitsError, CoordinateError
            If it does not fit.
        """
        plain = dequantify(as_dataset(ds))
        self.check(domain_of(plain), "the fine Dataset")
        indexed = _indexed(plain, self.domain)
        layout = Layout.of(indexed, self.spec, gaps=True)
        states = pack(indexed, self.spec, layout)
        if layout.member_size is not None:
            raise CoordinateError(
                "the fine states have members, of which none belongs to a coarse state",
                where=str(layout.roles.member),
                expected="one fine state for each time",
                got=f"{layout.member_size} members",
                remedy="select one: fine.isel(member=0)",
            )
        seconds = np.zeros(1) if layout.times is None else layout.times
        return states.data, seconds, layout.calendar

    def check(self, domain: Domain, where: str) -> None:
        """Check that something lies on this grid.

        Raises
        ------
        GridMismatchError
            If it does not.
        """
        if not agree(domain, self.domain):
            raise GridMismatchError(
                "the grid is not the one that is downscaled to",
                where=where,
                expected=repr(self.domain),
                got=repr(domain),
                remedy="bring it there: ds.appa.regrid_like(fine)",
            )

    def label(
        self, states: Any, dims: tuple[str, ...], coords: Mapping[Any, Any], dtype: Any
    ) -> xr.Dataset:
        """Label packed states.

        Parameters
        ----------
        states
            Shape (..., channel, H, W), numpy or dask.
        dims
            Names of the leading dimensions.
        coords
            Coordinates along these.
        dtype
            Of what comes out.
        """
        levels = level_coordinates(self.spec)
        out = {}
        for variable in self.spec.variables:
            part = states[(slice(None),) * len(dims) + (self.spec.slice_of(variable.name),)]
            own = [*dims, *([levels[variable][0]] if variable in levels else []), *self.dims]
            if variable not in levels:
                part = part[(slice(None),) * len(dims) + (0,)]
            out[variable.name] = xr.Variable(own, part.astype(dtype), variable_attrs(variable))
        places = {name: coord.variable for name, coord in self.coords.coords.items()}
        ds = xr.Dataset(out, {**dict(levels.values()), **places, **coords})
        heights = {variable.height for variable in self.spec.variables}
        if len(heights) == 1 and (height := heights.pop()) is not None:
            attrs = {"standard_name": "height", "units": "m", "positive": "up"}
            ds = ds.assign_coords(height=((), height, attrs))
        return ds

    def to_dict(self) -> dict[str, Any]:
        """Return a description that JSON can hold; the coordinates are kept apart."""
        return {"spec": self.spec.to_dict()}

    @classmethod
    def rebuild(cls, data: Mapping[str, Any], coords: xr.Dataset) -> Target:
        """Return what `to_dict` and `coords` described."""
        domain = domain_of(coords)
        if isinstance(domain, Places):
            raise TypeError("the coordinates are those of a list of places")
        return cls(StateSpec.from_dict(data["spec"]), domain, coords)

    @cached_property
    def is_periodic(self) -> bool:
        """Whether the last column is next to the first one."""
        return bool(self.domain.is_periodic)


def statics_of(ds: xr.Dataset, target: Target, names: Sequence[str] | None) -> xr.Dataset:
    """Return the fields of a Dataset that do not change in time: orography, the share of land.

    Parameters
    ----------
    ds
        Has them.
    target
        On whose grid they are.
    names
        Which; None for all floating-point fields on the grid without time, level or members.

    Raises
    ------
    VariableMismatchError
        If one is missing, or varies.
    DataError
        If one holds NaN.
    GridMismatchError
        If they lie on another grid.
    """
    plain = dequantify(as_dataset(ds))
    target.check(domain_of(plain), "the static fields")
    axes = find_axes(plain)
    flat = set(plain[axes.latitude].dims) | set(plain[axes.longitude].dims)
    fit = [
        str(name)
        for name, field in plain.data_vars.items()
        if set(field.dims) == flat and field.dtype.kind == "f"
    ]
    wanted = sorted(fit) if names is None else list(names)
    if lacking := [name for name in wanted if name not in fit]:
        raise VariableMismatchError(
            f"{', '.join(lacking)}: no static field of the fine Dataset",
            where="statics=",
            expected=f"some of {', '.join(sorted(fit)) or '(there are none)'}",
            got=", ".join(lacking),
            remedy="static fields are floating-point, on the fine grid, and do not vary in time",
        )
    if not wanted:
        return xr.Dataset()
    found = plain[wanted].transpose(*target.dims).load()
    if gaps := [name for name in wanted if not np.isfinite(found[name].values).all()]:
        raise DataError(
            f"{', '.join(gaps)}: a static field has missing values",
            where="statics=",
            expected="a value at every point",
            got="NaN",
            remedy="fill it, or leave it out: statics=[...]",
        )
    return found.drop_vars([name for name in found.coords if name not in target.coords.coords])


def _indexed(ds: xr.Dataset, domain: Domain) -> xr.Dataset:
    """Return a Dataset with the coordinates of an index grid, if its own are curvilinear."""
    if not isinstance(domain, Curvilinear):
        return ds
    axes = find_axes(ds)
    rows, columns = ds[axes.latitude].dims
    flat = {rows, columns}
    ds = ds.drop_vars([name for name, c in ds.coords.items() if flat & set(c.dims)])
    ds = ds.rename({rows: _ROW, columns: _COLUMN})
    height, width = domain.shape
    north = np.linspace(-80.0, 80.0, height) if height > 1 else np.zeros(1)
    east = np.linspace(0.0, 300.0, width) if width > 1 else np.zeros(1)
    return ds.assign_coords(
        {
            _ROW: (_ROW, north, {"standard_name": "latitude", "units": "degrees_north"}),
            _COLUMN: (_COLUMN, east, {"standard_name": "longitude", "units": "degrees_east"}),
        }
    )


def _coordinates(ds: xr.Dataset) -> xr.Dataset:
    """Return the coordinates along the dimensions of the grid, loaded, without bounds."""
    axes = find_axes(ds)
    flat = set(ds[axes.latitude].dims) | set(ds[axes.longitude].dims)
    kept = {n: c for n, c in ds.coords.items() if c.ndim and set(c.dims) <= flat}
    out = xr.Dataset(coords={n: c.variable.load() for n, c in kept.items()}).drop_encoding()
    for name, role in ((axes.latitude, "latitude"), (axes.longitude, "longitude")):
        out[name].attrs.setdefault("standard_name", role)
        out[name].attrs.pop("bounds", None)
    return out
