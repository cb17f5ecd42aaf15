"""SPEEDY as a forecast model: from one labelled state to the next.

The model is that of the package ``jcm`` (SPEEDY's physics on a spectral core, in JAX) at T31 with
8 sigma levels, over the climatology of sea surface temperature, sea ice, snow and soil that comes
with it. It has seasons and no hours of the day: SPEEDY's sun is that of the daily mean.

References
----------
Molteni, F. (2003): Atmospheric simulations using a GCM with simplified physical parametrizations.
I: model climatology and variability in multi-decadal experiments. Climate Dynamics 20, 175-191.
https://doi.org/10.1007/s00382-002-0268-2
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa._optional import require
from xappa.cf import find_axes
from xappa.errors import ArgumentError, DataError, VariableMismatchError
from xappa.osse.climatology import daily
from xappa.osse.columns import GRAVITY, R_DRY
from xappa.osse.labels import INTERVAL, Geometry, on_sigma

__all__ = ["Speedy", "SpeedyState"]

#: Pa, of the standard atmosphere
SEA_LEVEL_PRESSURE = 101325.0


@dataclass(frozen=True)
class SpeedyState:
    """A state of the model, complete: stepping on from it repeats the run bit by bit.

    Parameters
    ----------
    run
        jcm's ``RunState``: spectral fields, what physics carries from step to step, clock.
    precipitation
        Mean rate over the last step (X, Y), kg m-2 s-1; None before the first one.
    """

    run: Any
    precipitation: Any = None

    @property
    def time(self) -> np.datetime64:
        """Valid time, to the second."""
        delta = self.run.time.delta
        days, seconds = int(delta.days), int(delta.seconds)
        return np.datetime64(days * 86400 + seconds, "s")


class Speedy:
    """The model, compiled at the first step (half a minute).

    Raises
    ------
    MissingDependencyError
        If ``jcm`` is not installed; the extra ``osse`` brings it.

    Examples
    --------
    >>> model = Speedy()  # doctest: +SKIP
    >>> state = model.initial(seed=0, time="2001-01-01")  # doctest: +SKIP
    >>> model.to_dataset(model.step(state, hours=6))  # doctest: +SKIP
    """

    def __init__(self) -> None:
        purpose = "the SPEEDY model"
        coords = require("jcm.physics.speedy.speedy_coords", purpose).get_speedy_coords(
            layers=8, spectral_truncation=31
        )
        folder = resources.files("jcm") / "data" / "bc" / "t30" / "clim"
        with _quiet(), resources.as_file(folder) as path:
            terrain = require("jcm.terrain", purpose).TerrainData.from_file(
                str(path / "terrain.nc"), coords=coords
            )
            with xr.open_dataset(path / "forcing.nc") as monthly:
                boundary = daily(monthly.load())
            self._forcing = require("jcm.forcing", purpose).ForcingData.from_dataset(
                boundary, coords=coords, align_mode="wrap_year"
            )
            self._model = require("jcm.model", purpose).Model(coords=coords, terrain=terrain)

    def __repr__(self) -> str:
        return f"Speedy(T31, 8 levels, step of {self.time_step / 60:g} minutes, {self.source})"

    @property
    def time_step(self) -> int:
        """Time step in seconds."""
        return int(self._model.dt_si.m)

    @property
    def source(self) -> str:
        """Name and version of the model."""
        return f"jcm {version('jcm')} (SPEEDY physics, T31, 8 sigma levels)"

    @cached_property
    def geometry(self) -> Geometry:
        """Grid, levels and static fields."""
        coords = self._model.coords
        grid, vertical = coords.horizontal, coords.vertical
        return Geometry(
            latitude=_plain(np.rad2deg(np.asarray(grid.latitudes, dtype=np.float64))),
            longitude=_plain(np.rad2deg(np.asarray(grid.longitudes, dtype=np.float64))),
            sigma=_plain(vertical.centers),
            sigma_bounds=_plain(vertical.boundaries),
            orography=np.asarray(grid.to_nodal(self._orography), dtype=np.float64).T,
            land=np.asarray(self._model.terrain.fmask, dtype=np.float64).T,
        )

    @property
    def _orography(self) -> Any:
        return self._model.dycore.primitive.orography

    def initial(self, seed: int = 0, time: Any = "2001-01-01") -> SpeedyState:
        """Return dry air at rest, all of one temperature; weather takes months to spin up.

        Its sea level pressure is that of the standard atmosphere, and its surface pressure in
        hydrostatic balance with the orography.

        Parameters
        ----------
        seed
            Of a small perturbation of pressure.
        time
            Valid time.
        """
        state = self._model.initial_state(random_seed=seed)
        _, _, t, _, ps = self._grid(state)
        height = np.asarray(self._model.coords.horizontal.to_nodal(self._orography))
        fall = GRAVITY * height / (R_DRY * np.asarray(t)[-1])
        balanced = np.log(np.asarray(ps) * (SEA_LEVEL_PRESSURE / self._pressure)) - fall
        modal = self._model.coords.horizontal.to_modal(balanced.astype(np.float32)[None])
        return self._start(state.replace(log_surface_pressure=modal), _when(time))

    def step(self, state: SpeedyState, hours: float = INTERVAL) -> SpeedyState:
        """Step on from a state.

        Parameters
        ----------
        state
            What `initial`, `step` or `from_dataset` returned.
        hours
            How far, in whole time steps of the model. Another length is compiled anew.

        Raises
        ------
        ArgumentError
            If `hours` is not positive, or no multiple of the time step.
        """
        seconds = round(hours * 3600)
        if seconds <= 0 or seconds % self.time_step:
            raise ArgumentError(
                "the model cannot step that far",
                where="hours",
                expected=f"a positive multiple of {self.time_step / 3600:g} hours",
                got=hours,
            )
        window = f"{seconds} seconds"
        run, told = self._model.run_from_state_with_carry(
            state.run.dynamics,
            self._forcing,
            save_interval=window,
            total_time=window,
            output_averages=True,
            initial_physics_state=state.run.physics,
            initial_time=state.run.time,
            initial_step=state.run.step,
        )
        return SpeedyState(run, told.physics["surface_exchange"].precipitation[0])

    def fields(self, state: SpeedyState) -> dict[str, npt.NDArray[np.float64]]:
        """Return the fields of a state as arrays.

        Returns
        -------
        dict
            ``u``, ``v`` (m/s), ``t`` (K), ``q`` (kg/kg), each (K, Y, X); ``sp`` (Pa) and, after a
            step, ``pr`` (kg m-2 s-1), each (Y, X). Humidity is not below zero.
        """
        u, v, t, q, ps = self._grid(state.run.dynamics)
        found = {"u": u, "v": v, "t": t, "q": q, "sp": ps * self._pressure}
        if state.precipitation is not None:
            found["pr"] = state.precipitation
        arrays = {
            name: np.swapaxes(np.asarray(values, dtype=np.float64), -1, -2)
            for name, values in found.items()
        }
        arrays["q"] = np.maximum(arrays["q"], 0.0)
        return arrays

    def to_dataset(self, state: SpeedyState) -> xr.Dataset:
        """Return a state on the model's own levels, with one time."""
        fields = {name: values[None] for name, values in self.fields(state).items()}
        return on_sigma(fields, [state.time], self.geometry)

    def from_dataset(self, ds: xr.Dataset, like: SpeedyState | None = None) -> SpeedyState:
        """Return the state that a Dataset describes.

        Back on the grid it is the same to single precision. Its forecast is not quite that of
        the state from which the Dataset was made, which had remains of divergence beyond T31 and
        of negative humidity: after 6 hours the two differ by about 0.05 K, 0.05 m/s and 0.1 hPa.

        Parameters
        ----------
        ds
            One state in the layout of `to_dataset`; dimensions in any order.
        like
            A state at the same time whose radiative fluxes are kept, such as the background of
            an analysis; without it they start afresh, which changes little.

        Raises
        ------
        VariableMismatchError
            If a variable is missing.
        DataError
            If the grid is another one, values are missing, or there is more than one time.
        """
        fields, time = self._read(ds)
        state = require("jcm.physics_interface", "the SPEEDY model").PhysicsState(
            fields["u"],
            fields["v"],
            fields["t"],
            fields["q"],
            np.zeros_like(fields["t"]),
            fields["sp"] / self._pressure,
        )
        dynamics = self._model.initial_state(state)
        vorticity, divergence = self._rotation(fields["u"], fields["v"])
        dynamics = dynamics.replace(vorticity=vorticity, divergence=divergence)
        return self._start(dynamics, time, None if like is None else like.run.physics)

    def forecast(self, ds: xr.Dataset, hours: float = INTERVAL) -> xr.Dataset:
        """Step from Dataset to Dataset, member by member.

        Parameters
        ----------
        ds
            State in the layout of `to_dataset`, with or without a dimension of members.
        hours
            How far.
        """
        member = find_axes(ds).member
        if member is None:
            return self.to_dataset(self.step(self.from_dataset(ds), hours))
        parts = [
            self.to_dataset(self.step(self.from_dataset(ds.isel({member: k})), hours))
            for k in range(ds.sizes[member])
        ]
        along = ds[member] if member in ds.coords else member
        moving = [name for name, da in parts[0].data_vars.items() if "time" in da.dims]
        result: xr.Dataset = xr.concat(
            parts, along, data_vars=moving, coords="minimal", compat="override", join="override"
        )
        return result

    def _start(self, dynamics: Any, time: np.datetime64, physics: Any = None) -> SpeedyState:
        """Return a state with the model's clock at a time."""
        model = require("jcm.model", "the SPEEDY model")
        clock = require("jcm.date", "the SPEEDY model").to_datetime(str(time))
        numbers = require("jax.numpy", "the SPEEDY model")
        if physics is None:
            physics = self._model.initial_physics_carry()
        return SpeedyState(model.RunState(dynamics, physics, clock, numbers.int32(0)))

    def _read(self, ds: xr.Dataset) -> tuple[dict[str, Any], np.datetime64]:
        """Return the fields of a Dataset in the layout of the model, and their time."""
        axes = find_axes(ds)
        missing = [name for name in ("u", "v", "t", "q", "sp") if name not in ds]
        if missing:
            raise VariableMismatchError(
                "variables of the model's state are missing",
                expected="u, v, t, q on sigma levels, and sp",
                got=f"no {', '.join(missing)}",
                remedy="pass what Speedy.to_dataset returns",
            )
        geometry, wanted = self.geometry, {}
        for role, values in (("vertical", geometry.sigma), ("longitude", geometry.longitude),
                             ("latitude", geometry.latitude)):  # fmt: skip
            name = getattr(axes, role)
            if name is not None and ds[name].ndim == 1:
                ds = ds.sortby(name)
            same = name is not None and ds[name].shape == values.shape
            if not same or not np.allclose(ds[name], values, atol=1e-4):
                raise DataError(
                    "the state is not on the grid of the model",
                    where=role,
                    expected=f"{values.size} values from {values[0]:g} to {values[-1]:g}",
                    got="no such coordinate" if name is None else f"shape {ds[name].shape}",
                    remedy="pass what Speedy.to_dataset returns",
                )
            wanted[role] = str(name)
        fields = {
            name: _ordered(ds[name], [*wanted.values()][0 if name != "sp" else 1 :])
            for name in ("u", "v", "t", "q", "sp")
        }
        time = None if axes.time is None else np.unique(ds[axes.time])
        if time is None or time.size != 1:
            raise DataError(
                "a state has one time",
                where=str(axes.time),
                got="no time" if time is None else f"{time.size} times",
                remedy="select one: ds.isel(time=[0])",
            )
        return fields, _when(time[0])

    @property
    def _pressure(self) -> float:
        """The pressure by which the model scales its own, Pa."""
        return float(require("jcm.constants", "the SPEEDY model").p0)

    @cached_property
    def _grid(self) -> Any:
        """Function from spectral fields to u, v, t, q (K, X, Y) and ps / p0 (X, Y)."""
        jax = require("jax", "the SPEEDY model")
        harmonics = require("dinosaur.spherical_harmonic", "the SPEEDY model")
        grid, dycore = self._model.coords.horizontal, self._model.dycore

        def to_grid(dynamics: Any) -> tuple[Any, ...]:
            # Winds of vorticity and divergence at T31 have a wave more, which must not be
            # clipped; beyond T31 divergence has remains that no state on a grid could hold.
            modes = [grid.clip_wavenumbers(x) for x in (dynamics.vorticity, dynamics.divergence)]
            u, v = harmonics.vor_div_to_uv_nodal(grid, *modes, clip=False)
            state = dycore.to_physics_state(dynamics)
            q, ps = state.specific_humidity, state.normalized_surface_pressure
            return u, v, state.temperature, q, ps

        return jax.jit(to_grid)

    @cached_property
    def _rotation(self) -> Any:
        """Function from winds (K, X, Y) to spectral vorticity and divergence."""
        jax = require("jax", "the SPEEDY model")
        harmonics = require("dinosaur.spherical_harmonic", "the SPEEDY model")
        grid = self._model.coords.horizontal

        def to_modes(u: Any, v: Any) -> Any:
            return harmonics.uv_nodal_to_vor_div_modal(grid, u, v)

        return jax.jit(to_modes)


def _plain(values: Any) -> npt.NDArray[np.float64]:
    """Return single-precision numbers as the decimals that they were made of."""
    return np.asarray(np.round(np.asarray(values, dtype=np.float64), 6), dtype=np.float64)


def _when(time: Any) -> np.datetime64:
    return np.datetime64(time, "s")


def _ordered(da: xr.DataArray, dims: list[str]) -> Any:
    """Return float32 values in an order of dimensions, others dropped."""
    extra = {dim: 0 for dim in da.dims if dim not in dims and da.sizes[dim] == 1}
    values = da.isel(extra).transpose(*dims).to_numpy().astype(np.float32)
    if not np.all(np.isfinite(values)):
        raise DataError(
            "values are missing in the state",
            where=str(da.name),
            expected="finite values everywhere",
            got=f"{np.count_nonzero(~np.isfinite(values))} of {values.size} are not finite",
        )
    return values


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what other packages deprecate while the model is built to themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
