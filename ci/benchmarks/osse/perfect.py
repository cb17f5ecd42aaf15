"""SPEEDY as the perfect model of an ensemble: all members in one compiled call.

An ensemble is held as arrays on the model's own levels, ``u``, ``v``, ``t``, ``q`` (N, K, Y, X)
and ``sp``, ``pr`` (N, Y, X), with what each member carries on from cycle to cycle: its spectral
state and its radiative fluxes. An analysis changes the spectral state by the difference of two
transforms, so that without observations the run goes on as if it had not been interrupted. A state
made anew from the grid every six hours loses its divergence beyond T31 and its negative humidity,
and drifts: levels in the middle by 0.2 K in two days, twice as much as after a single conversion.
The filter's error was a third larger for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr

from xappa.osse import Speedy
from xappa.osse.labels import on_pressure
from xappa.osse.speedy import SpeedyState

__all__ = ["Ensemble", "Perfect"]

Fields = dict[str, np.ndarray]
_DYNAMIC = ("u", "v", "t", "q", "sp")


@dataclass(frozen=True)
class Ensemble:
    """States of the model at one time.

    Parameters
    ----------
    time
        Valid time.
    fields
        ``u``, ``v``, ``t``, ``q`` (N, K, Y, X), ``sp``, ``pr`` (N, Y, X), float32.
    carried
        What the model itself goes on from, members stacked: spectral state, fluxes, steps.
    source
        The fields of that spectral state, from which an analysis differs.
    """

    time: pd.Timestamp
    fields: Fields
    carried: Any
    source: Fields


class Perfect:
    """The model that made the truth."""

    def __init__(self) -> None:
        self.model = Speedy()
        self.geometry = self.model.geometry
        self._run = jax.jit(self._forecast)
        self._spectra = jax.jit(lambda fields: jax.lax.map(self._spectrum, fields))

    def start(self, states: xr.Dataset, time: pd.Timestamp) -> Ensemble:
        """Return an ensemble of native states (member, sigma, latitude, longitude)."""
        from jax import numpy as jnp

        fields = {name: states[name].values.astype(np.float32) for name in _DYNAMIC}
        fields["pr"] = states["pr"].values.astype(np.float32)
        count = len(fields["u"])
        physics = self.model._model.initial_physics_carry()
        physics = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[None], count, 0), physics)
        dynamics = self._spectra(_to_model(fields))
        carried = (dynamics, physics, jnp.zeros(count, jnp.int32))
        return Ensemble(time, fields, carried, fields)

    def load(self, path: Path, time: pd.Timestamp, members: int) -> Ensemble:
        """Return the first members of an analysis that was kept as ``.npz``."""
        dims = ("member", "sigma", "latitude", "longitude")
        with np.load(path) as fields:
            states = {name: fields[name][:members] for name in fields}
        labelled = {
            name: (dims if x.ndim == 4 else (dims[0], *dims[2:]), x) for name, x in states.items()
        }
        return self.start(xr.Dataset(labelled), time)

    def forecast(self, ensemble: Ensemble) -> Ensemble:
        """Step on by six hours."""
        from jcm.date import to_datetime

        given = (_to_model(ensemble.fields), _to_model(ensemble.source), ensemble.carried)
        fields, carried = self._run(*given, to_datetime(str(ensemble.time)))
        out = {name: np.array(np.swapaxes(x, -1, -2)) for name, x in fields.items()}
        return Ensemble(ensemble.time + pd.Timedelta("6h"), out, carried, out)

    def _spectrum(self, x: Any) -> Any:
        """Return the spectral state of fields; traced."""
        from jcm.physics_interface import PhysicsState

        speedy = self.model
        ps = x["sp"] / speedy._pressure
        state = PhysicsState(x["u"], x["v"], x["t"], x["q"], 0 * x["t"], ps)
        vorticity, divergence = speedy._rotation(x["u"], x["v"])
        dynamics = speedy._model.initial_state(state)
        return dynamics.replace(vorticity=vorticity, divergence=divergence)

    def _forecast(self, fields: Any, source: Any, carried: Any, clock: Any) -> Any:
        """Traced: members one after another, which is faster on a core than side by side."""
        from jcm.model import RunState

        speedy = self.model

        def one(member: Any) -> Any:
            after, before, (dynamics, physics, step) = member
            change = jax.tree.map(jax.numpy.subtract, self._spectrum(after), self._spectrum(before))
            dynamics = jax.tree.map(jax.numpy.add, dynamics, change)
            later = speedy.step(SpeedyState(RunState(dynamics, physics, clock, step)))
            u, v, t, q, ps = speedy._grid(later.run.dynamics)
            fields = {"u": u, "v": v, "t": t, "q": q, "sp": ps * speedy._pressure}
            fields["pr"] = later.precipitation
            return fields, (later.run.dynamics, later.run.physics, later.run.step)

        return jax.lax.map(one, (fields, source, carried))

    def on_pressure(self, ensemble: Ensemble, levels: Sequence[float]) -> xr.Dataset:
        """Return an ensemble on pressure levels, as the truth is (member, time, level, ...)."""
        count = len(ensemble.fields["u"])
        times = np.repeat(np.datetime64(ensemble.time, "ns"), count)
        fields = dict(ensemble.fields)
        fields["q"] = np.maximum(fields["q"], 0.0)
        ds = on_pressure(fields, times, self.geometry, levels)
        about = dict(ds.time.attrs)
        ds = ds.drop_vars(["time", "time_bnds"]).rename(time="member")
        ds = ds.assign_coords(member=("member", np.arange(count)))
        ds.member.attrs["standard_name"] = "realization"
        about.pop("bounds")
        when = xr.DataArray([np.datetime64(ensemble.time, "ns")], dims="time", attrs=about)
        moving = [name for name in ds.data_vars if "member" in ds[name].dims]
        timed = ds[moving].expand_dims(time=when, axis=1)
        return timed.assign({name: ds[name] for name in ds.data_vars if name not in moving})


def _to_model(fields: Fields) -> Fields:
    """Return what the dynamics know, in the order of the model (N, K, X, Y)."""
    return {name: np.swapaxes(fields[name], -1, -2) for name in _DYNAMIC}
