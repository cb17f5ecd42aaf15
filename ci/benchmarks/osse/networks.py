"""The two networks, and their observations, which are the same for all methods.

*dense*: 400 radiosonde stations, mostly on land and in the north: winds, temperature and humidity
on the levels that are above the ground, and surface pressure, with the errors of SPEEDY-LETKF.

*sparse*: 150 stations that observe surface pressure alone, and one polar orbiter that retrieves
temperature at three levels. Retrievals at levels, and not brightness temperatures, because the
weights of channels would be sums over the five levels that are there, and a test of that
quadrature more than of the assimilation. Their error, 1.5 K, is that of retrievals.

All observations are at analysis times, and surface pressure is that at the model's own ground, so
that the operator is interpolation in space alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from twin import Experiment

import xappa
from xappa.grid import great_circle

__all__ = ["NETWORKS", "observations", "select"]

NETWORKS = ("dense", "sparse")
#: Of the sounder: levels in Pa, error in K, and half the swath in degrees at the Earth's centre.
SOUNDED, SOUNDER_ERROR, FIELD_OF_VIEW = (25_000.0, 50_000.0, 85_000.0), 1.5, 10.0
#: Metres between two stations, at least.
APART = 250e3


def places(ds: xr.Dataset, count: int, *, ocean: float, seed: int) -> pd.DataFrame:
    """Draw stations: as dense on land of the northern extratropics as it gets, less elsewhere.

    Parameters
    ----------
    ds
        Has the share of land.
    count
        How many.
    ocean
        Density over sea, where it is 1 on land north of 20 degrees north.
    seed
        Of the draws.
    """
    rng = np.random.default_rng(seed)
    land = ds.lsm.load()
    kept = np.empty((0, 2))
    while len(kept) < count:
        latitude = np.rad2deg(np.arcsin(rng.uniform(-1, 1)))
        longitude = rng.uniform(0, 360)
        there = float(land.sel(latitude=latitude, longitude=longitude, method="nearest"))
        density = there * (1.0 if latitude > 20 else 0.45) + (1 - there) * ocean
        far = great_circle(latitude, longitude, kept[:, 0], kept[:, 1]) > APART
        if rng.uniform() < density and far.all():
            kept = np.vstack([kept, [latitude, longitude]])
    names = [f"station {k:03d}" for k in range(count)]
    return pd.DataFrame({"station": names, "latitude": kept[:, 0], "longitude": kept[:, 1]})


def _swath(ds: xr.Dataset) -> xr.Dataset:
    """Return the orbiter's network: one of about four of the grid points that it sees."""
    seen = xappa.obs.gridded_orbiter(
        ds, variable={"t": SOUNDER_ERROR}, pressure=SOUNDED, fov=FIELD_OF_VIEW
    )
    rows = np.arange(1, ds.sizes["latitude"] - 1, 2)
    chosen = np.zeros((ds.sizes["latitude"], ds.sizes["longitude"]), bool)
    for k, row in enumerate(rows):
        every = round(2 / np.cos(np.deg2rad(float(ds.latitude[row]))))
        chosen[row, k % 2 :: every] = True
    t, y, x = np.nonzero((seen.status_flag == 0).values & chosen)
    at = {
        name: xr.DataArray(index, dims="report")
        for name, index in {"time": t, "latitude": y, "longitude": x}.items()
    }
    swath = seen.drop_vars("status_flag").isel(at).transpose("report", "air_pressure")
    swath.t.attrs.pop("ancillary_variables")
    return swath


def observations(ds: xr.Dataset, experiment: Experiment, folder: Path) -> dict[str, list[Path]]:
    """Simulate the observations of both networks, unless they are there; return their files.

    Parameters
    ----------
    ds
        The truth; all years.
    experiment
        When.
    folder
        Where to write NetCDF files.
    """
    files = {
        "dense": [folder / "dense.nc"],
        "sparse": [folder / "sparse-stations.nc", folder / "sparse-sounder.nc"],
    }
    if all(path.exists() for paths in files.values() for path in paths):
        return files
    folder.mkdir(parents=True, exist_ok=True)
    states = ds.sel(time=experiment.times).load()
    sondes = xappa.obs.radiosondes(states, places(ds, 400, ocean=0.06, seed=experiment.seed))
    sondes = states.appa.observe(sondes, seed=experiment.seed)
    # What would lie below the ground, by the surface pressure that the station itself observes.
    above = sondes.air_pressure < sondes.sp
    for name in "uvtq":
        about = sondes[name].attrs
        sondes[name] = sondes[name].where(above).transpose(*sondes[name].dims).assign_attrs(about)
    sondes.to_netcdf(files["dense"][0])

    stations = xappa.obs.stations_from_table(
        states, places(ds, 150, ocean=0.15, seed=experiment.seed + 1), variable={"sp": 100.0}
    )
    states.appa.observe(stations, seed=experiment.seed + 1).to_netcdf(files["sparse"][0])
    sounder = states.appa.observe(_swath(states), seed=experiment.seed + 2)
    ground = states.sp.mean("time").sel(
        latitude=sounder.latitude, longitude=sounder.longitude, method="nearest"
    )
    about = sounder.t.attrs
    above = sounder.air_pressure < ground.drop_vars(["latitude", "longitude"])
    sounder["t"] = sounder.t.where(above).transpose(*sounder.t.dims).assign_attrs(about)
    sounder.to_netcdf(files["sparse"][1])
    return files


def select(obs: list[xr.Dataset], first: pd.Timestamp, last: pd.Timestamp) -> list[xr.Dataset]:
    """Return the observations between two times, both included; networks without any are left out.

    Parameters
    ----------
    obs
        Networks with a time coordinate along their first dimension.
    first, last
        Valid times.
    """
    kept = []
    for network in obs:
        (dim,) = network.time.dims
        inside = np.flatnonzero(((network.time >= first) & (network.time <= last)).values)
        if inside.size:
            kept.append(network.isel({dim: inside}))
    return kept
