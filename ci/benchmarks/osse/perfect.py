"""SPEEDY as the perfect model of an ensemble: all members in one compiled call.

An ensemble is held as arrays on the model's own levels, ``u``, ``v``, ``t``, ``q`` (N, K, Y, X)
and ``sp``, ``pr`` (N, Y, X), with the radiative fluxes that each member carries on from cycle to
cycle.
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


@dataclass(frozen=True)
class Ensemble:
    """States of the model at one time.

    Parameters
    ----------
    time
        Valid time.
    fields
        ``u``, ``v``, ``t``, ``q`` (N, K, Y, X), ``sp``, ``pr`` (N, Y, X), float32.
    physics
        What the model's physics carries, stacked.
    """

    time: pd.Timestamp
    fields: Fields
    physics: Any


class Perfect:
    """The model that made the truth."""

    def __init__(self) -> None:
        self.model = Speedy()
        self.geometry = self.model.geometry
        self._run = jax.jit(self._forecast)

    def start(self, states: xr.Dataset, time: pd.Timestamp) -> Ensemble:
        """Return an ensemble of native states (member, sigma, latitude, longitude)."""
        names = ("u", "v", "t", "q", "sp", "pr")
        fields = {name: states[name].values.astype(np.float32) for name in names}
        one = self.model._model.initial_physics_carry()
        count = len(fields["u"])
        physics = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], count, 0), one)
        return Ensemble(time, fields, physics)

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

        # jax: (N, K, X, Y), pressure in units of p0
        given = {k: np.swapaxes(v, -1, -2) for k, v in ensemble.fields.items() if k != "pr"}
        fields, physics = self._run(given, ensemble.physics, to_datetime(str(ensemble.time)))
        out = {k: np.array(np.swapaxes(v, -1, -2)) for k, v in fields.items()}
        out["q"] = np.maximum(out["q"], 0.0)
        return Ensemble(ensemble.time + pd.Timedelta("6h"), out, physics)

    def _forecast(self, given: Any, physics: Any, clock: Any) -> Any:
        """Traced: members one after another, which is faster on a core than side by side."""
        from jcm.model import RunState
        from jcm.physics_interface import PhysicsState

        speedy, p0 = self.model, self.model._pressure

        def one(member: Any) -> Any:
            x, carried = member
            state = PhysicsState(x["u"], x["v"], x["t"], x["q"], 0 * x["t"], x["sp"] / p0)
            vorticity, divergence = speedy._rotation(x["u"], x["v"])
            dynamics = speedy._model.initial_state(state)
            dynamics = dynamics.replace(vorticity=vorticity, divergence=divergence)
            run = RunState(dynamics, carried, clock, jax.numpy.int32(0))
            after = speedy.step(SpeedyState(run))
            u, v, t, q, ps = speedy._grid(after.run.dynamics)
            fields = {"u": u, "v": v, "t": t, "q": q, "sp": ps * p0, "pr": after.precipitation}
            return fields, after.run.physics

        return jax.lax.map(one, (given, physics))

    def on_pressure(self, ensemble: Ensemble, levels: Sequence[float]) -> xr.Dataset:
        """Return an ensemble on pressure levels, as the truth is (member, time, level, ...)."""
        count = len(ensemble.fields["u"])
        times = np.repeat(np.datetime64(ensemble.time, "ns"), count)
        ds = on_pressure(ensemble.fields, times, self.geometry, levels)
        about = dict(ds.time.attrs)
        ds = ds.drop_vars(["time", "time_bnds"]).rename(time="member")
        ds = ds.assign_coords(member=("member", np.arange(count)))
        ds.member.attrs["standard_name"] = "realization"
        about.pop("bounds")
        when = xr.DataArray([np.datetime64(ensemble.time, "ns")], dims="time", attrs=about)
        moving = [name for name in ds.data_vars if "member" in ds[name].dims]
        timed = ds[moving].expand_dims(time=when, axis=1)
        return timed.assign({name: ds[name] for name in ds.data_vars if name not in moving})
