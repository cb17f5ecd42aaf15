r"""What an analysis has to beat without a model of the weather: climatology and Gaussian priors.

The *climatology* is the mean of a season of the training years, its ensemble states of that season
from other years. The *EOF-Gaussian* is `xappa.fit_gaussian`: components z of the leading EOFs that
are a stationary vector-autoregressive process, and a residual without correlations, whose posterior
is known in closed form (North et al. 1982, doi:10.1175/1520-0493(1982)110<0699:SEITEO>2.0.CO;2).
With the observations of the analysis time alone it is optimal interpolation,

.. math:: x_a = x_c + B H^\top (H B H^\top + R)^{-1} (y - H x_c), \quad B = E E^\top + D ;

with those before it a Kalman filter, and with those after it a Kalman smoother.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import dask
import numpy as np
import xarray as xr
from twin import SCORED, Experiment, season

import xappa

__all__ = ["Fitted", "climatological_members", "climatology", "fit"]


@dataclass(frozen=True)
class Fitted:
    """Arguments of `xappa.fit_gaussian`.

    With 600 EOFs of ten winters (2520 states) and no localisation, 1 % of the variance is left in
    the sample, and 27 % in another winter: the posterior is far too sure of itself.
    """

    modes: int = 600
    blanket: int = 3
    localisation: str | None = None


def fit(ds: xr.Dataset, experiment: Experiment, path: Path, fitted: Fitted) -> None:
    """Fit the EOF-Gaussian to a season of the training years, and save it."""
    train = season(ds[list(SCORED)], experiment)
    # Few large blocks: the EOFs are a sum over blocks, of which each makes a term as large as they.
    few = {"scheduler": "synchronous", "array.chunk-size": "650MiB"}
    with dask.config.set(few):
        model = xappa.fit_gaussian(
            train.chunk({"time": 640}), **asdict(fitted), name="EOF-Gaussian"
        )
    model.save(path)


def climatology(ds: xr.Dataset, experiment: Experiment, path: Path) -> xr.Dataset:
    """Return the standard deviation of the season of the training years; kept in a file."""
    if not path.exists():
        some = season(ds[list(SCORED)], experiment).isel(time=slice(None, None, 4))
        path.parent.mkdir(parents=True, exist_ok=True)
        with dask.config.set(scheduler="synchronous"):
            some.std("time").to_netcdf(path)
    with xr.open_dataset(path) as std:
        return std.load()


def climatological_members(ds: xr.Dataset, experiment: Experiment) -> xr.Dataset:
    """Return states of the same days of training years as an ensemble (member, time, ...).

    Two states of each year, five days before and after the date.
    """
    train = ds[list(SCORED)].sel(time=slice(*experiment.train))
    years = np.unique(train.time.dt.year)
    parts = []
    for k in range(experiment.members):
        year, shift = years[k % len(years)], (-5, 5)[(k // len(years)) % 2]
        moved = experiment.scored + np.timedelta64(shift, "D")
        times = [time.replace(year=int(year)) for time in moved]
        parts.append(train.sel(time=times).drop_vars("time").assign_coords(time=experiment.scored))
    ensemble = xr.concat(parts, "member").assign_coords(member=np.arange(len(parts)))
    ensemble.member.attrs["standard_name"] = "realization"
    ensemble.time.attrs = dict(ds.time.attrs)
    return ensemble
