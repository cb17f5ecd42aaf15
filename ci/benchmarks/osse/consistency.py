"""Physical consistency of analyses and forecasts, member by member, beside the nature run's.

    python ci/benchmarks/osse/consistency.py NATURE --folder OUT [--network sparse]

Spectra are ratios of the variance by zonal wavenumber to the nature run's, 30 to 60 degrees on both
sides; imbalance and residuals are those of `xappa.verify`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1]))

from forecasts import DAYS
from markdown import markdown
from twin import Experiment, truth

from xappa.verify import dry_mass, geostrophic_imbalance, hydrostatic_residual, zonal_spectrum

#: Zonal wavenumbers, first and last.
BANDS = {"waves 1-4": (1, 4), "5-9": (5, 9), "10-19": (10, 19), "20-31": (20, 31)}
LATITUDES = ((30.0, 60.0), (-60.0, -30.0))


def spectrum(ds: xr.Dataset) -> pd.Series:
    """Mean variance of both winds at 500 hPa by band of wavenumbers."""
    total = 0.0
    for name in ("u", "v"):
        for ends in LATITUDES:
            power = zonal_spectrum(ds[name].sel(level=500.0), latitudes=ends)
            total = total + power.mean([dim for dim in power.dims if dim != "wavenumber"])
    return pd.Series(
        {name: float(total.sel(wavenumber=slice(*band)).sum()) for name, band in BANDS.items()}
    )


def figures(ds: xr.Dataset) -> pd.Series:
    """Return the figures of states (time, level, latitude, longitude), with members or not."""
    apart = geostrophic_imbalance(ds)
    both = (abs(apart.latitude) >= 30) & (abs(apart.latitude) <= 60)
    middle = apart.where(both).mean("latitude")
    residual = hydrostatic_residual(ds)
    over = [dim for dim in residual.dims if dim != "layer"]
    rms = np.sqrt((residual**2).mean(over)).mean()
    dry = dry_mass(ds) / 100
    along = [dim for dim in dry.dims if dim == "time"]
    return pd.Series(
        {
            **spectrum(ds),
            "ageostrophic 250 hPa": float(middle.sel(level=250.0)),
            "850 hPa": float(middle.sel(level=850.0)),
            "hydrostatic residual, K": float(rms),
            "dry mass, hPa": float(dry.mean()),
            "its deviation in time": float(dry.std(along).mean()),
        }
    )


def members(store: Path, states: xr.Dataset, count: int) -> xr.Dataset:
    """Return some members of a store, with the attributes of the nature run."""
    ensemble = xr.open_zarr(store, consolidated=False)
    if "member" in ensemble.dims:
        ensemble = ensemble.isel(member=slice(count))
    ensemble = ensemble.load()
    for name in ensemble.data_vars:
        ensemble[name].attrs = states[name].attrs or ensemble[name].attrs
    return ensemble


def table(found: dict[str, pd.Series]) -> str:
    """Return a table, variances by wavenumber over the nature run's."""
    frame = pd.DataFrame(found).T.rename_axis("states of")
    bands = list(BANDS)
    frame[bands] = frame[bands] / frame.loc["nature run", bands]
    return markdown(frame, 3)


def forecasts(folder: Path, network: str, states: xr.Dataset, given: Experiment, count: int) -> str:
    """Return the table of the last day of all forecasts of a network."""
    stores: dict[str, list[xr.Dataset]] = {}
    for store in sorted((folder / "forecasts").glob(f"*-{network}-*.zarr")):
        last = members(store, states, count).isel(time=[-1])
        stores.setdefault(store.stem.rsplit("-", 2)[0], []).append(last)
    valid = given.starts + pd.Timedelta(days=DAYS)
    found = {"nature run": figures(states.sel(time=valid).load())}
    for name, parts in stores.items():
        both = xr.concat(parts, "time", data_vars="minimal", combine_attrs="override")
        found[name] = figures(both)
    return table(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nature")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--network", default="sparse")
    parser.add_argument("--members", type=int, default=4, help="as many are looked at")
    given = parser.parse_args()
    experiment = Experiment()
    whole = truth(given.nature, experiment)
    states = whole.sel(time=experiment.scored).load()
    found = {"nature run": figures(states)}
    for store in sorted((given.folder / "analyses").glob(f"*-{given.network}.zarr")):
        name = store.stem.rpartition("-")[0]
        found[name] = figures(members(store, states, given.members))
    print(f"analyses\n\n{table(found)}\n\nforecasts, day {DAYS}\n")
    print(forecasts(given.folder, given.network, whole, experiment, given.members))


if __name__ == "__main__":
    main()
