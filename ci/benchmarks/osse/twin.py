"""The twin experiment: which times, which levels, the truth, and what all methods share.

The nature run is the truth. Methods learn from its first ten years, and analyse January and
February of its twelfth, from the same simulated observations every six hours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["SCORED", "Experiment", "Store", "blank", "season", "truth"]

#: Variables that are scored, in the order of the tables.
SCORED = ("u", "v", "t", "q", "z", "sp", "msl", "pr")
#: Variables that do not change.
STATIC = ("orog", "lsm")


@dataclass(frozen=True)
class Experiment:
    """When and what is analysed.

    Parameters
    ----------
    start
        First analysis.
    spin_up, days, tail
        Days that do not count, days that are scored, and days after them of which smoothers see
        the observations.
    levels
        Pressures in hPa; the nature run's highest one, 100 hPa, lies in a stratosphere of two
        levels, and is left out.
    members, seed
        Of all ensembles.
    train
        First and last year to learn from.
    season
        First and last day of the part of a year to which statistics belong, as MM-DD.
    lag
        Cycles by which smoothers lag behind.
    """

    start: str = "2012-01-01"
    spin_up: int = 10
    days: int = 30
    tail: int = 2
    levels: tuple[float, ...] = (250.0, 500.0, 700.0, 850.0, 925.0)
    members: int = 20
    seed: int = 0
    train: tuple[str, str] = ("2001", "2010")
    season: tuple[str, str] = ("12-25", "02-25")
    lag: int = 6
    step: pd.Timedelta = field(default=pd.Timedelta("6h"))

    @property
    def times(self) -> pd.DatetimeIndex:
        """All analysis times: spin-up, scored days, and those after them."""
        count = (self.spin_up + self.days + self.tail) * 4
        return pd.date_range(self.start, periods=count, freq=self.step)

    @property
    def scored(self) -> pd.DatetimeIndex:
        first = self.spin_up * 4
        return self.times[first : first + self.days * 4]

    @property
    def starts(self) -> pd.DatetimeIndex:
        """Analyses from which forecasts start: one every five days."""
        return self.scored[:: 5 * 4][:6]


def truth(nature: str | Path, experiment: Experiment) -> xr.Dataset:
    """Return the nature run on the levels of the experiment, lazily; all years."""
    ds = xr.open_zarr(nature)
    return ds[[*SCORED, *STATIC]].sel(level=list(experiment.levels))


def season(ds: xr.Dataset, experiment: Experiment) -> xr.Dataset:
    """Return the season of the training years."""
    ds = ds.sel(time=slice(*experiment.train))
    first, last = experiment.season
    day = ds.time.dt.strftime("%m-%d")
    inside = (day >= first) | (day <= last) if first > last else (day >= first) & (day <= last)
    return ds.isel(time=np.flatnonzero(inside.values))


def blank(ds: xr.Dataset, times: pd.DatetimeIndex) -> xr.Dataset:
    """Return states without values, in the layout of the truth, in memory."""
    gap = xr.DataArray(np.float32(np.nan)).expand_dims(time=len(times))
    one = ds.isel(time=[0])
    kept = {name: ds[name].load() for name in STATIC}
    moving = {
        name: (gap * xr.ones_like(one[name].isel(time=0, drop=True).load()))
        .transpose(*one[name].dims)
        .assign_attrs(one[name].attrs)
        for name in SCORED
    }
    blank = xr.Dataset({**moving, **kept}).assign_coords(time=("time", times, dict(ds.time.attrs)))
    blank.time.attrs.pop("bounds", None)
    return blank


class Store:
    """A Zarr store of an ensemble, written time by time; it has its name once it is complete.

    Parameters
    ----------
    path
        Where it will be.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(path.name + ".part")
        self._begun = False

    def append(self, ensemble: xr.Dataset) -> None:
        """Append times, as float32."""
        names = [name for name in SCORED if name in ensemble]
        ds = ensemble[names].drop_encoding().astype("float32")
        ds = ds.drop_vars([name for name in ds.coords if name not in ds.dims])
        for name in ("time", "latitude", "longitude"):
            ds[name].attrs.pop("bounds", None)
        ds = ds.chunk({dim: 1 if dim == "time" else -1 for dim in ds.dims})
        if self._begun:
            ds.to_zarr(self.part, append_dim="time", consolidated=False)
            return
        self.part.parent.mkdir(parents=True, exist_ok=True)
        time = {"units": "hours since 2000-01-01", "dtype": "int64"}
        ds.to_zarr(self.part, mode="w", encoding={"time": time}, consolidated=False)
        self._begun = True

    def close(self) -> None:
        """Give the store its name."""
        self.part.rename(self.path)
