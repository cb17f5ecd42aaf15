"""Forecasts of one to five days: the model from analyses of the LETKF, persistence, climatology."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import xarray as xr
from methods import Setting, open_bundle
from scoring import overall, score
from twin import SCORED, Store

__all__ = ["DAYS", "bundle_forecasts", "leads", "model_forecasts"]

DAYS = 5
MEMBERS = 10
SHOWN = (("z", 500), ("t", 850), ("u", 250), ("sp", -1))


def model_forecasts(setting: Setting) -> None:
    """Run the model from the analyses of the LETKF; one store for each start."""
    from perfect import Perfect

    perfect, experiment = Perfect(), setting.experiment
    for time in experiment.starts:
        path = setting.folder / "forecasts" / f"letkf-{setting.network}-{time:%Y%m%d%H}.zarr"
        if path.exists():
            continue
        store = Store(path)
        ensemble = perfect.load(setting.native("letkf", time), time, MEMBERS)
        for step in range(1, DAYS * 4 + 1):
            ensemble = perfect.forecast(ensemble)
            if step % 4 == 0:
                store.append(perfect.on_pressure(ensemble, experiment.levels))
        store.close()


def bundle_forecasts(setting: Setting) -> None:
    """Draw forecasts of a bundle from what its filter made of the blanket up to a start."""
    model, experiment = open_bundle(setting), setting.experiment
    for time in experiment.starts:
        stem = f"{setting.name}-{setting.network}-{time:%Y%m%d%H}.zarr"
        store = Store(setting.folder / "forecasts" / stem)
        if store.path.exists():
            continue
        past = xr.open_zarr(setting.blanket(time), consolidated=False).load()
        past = past.isel(member=slice(min(MEMBERS, experiment.members)))
        ahead = past.appa.forecast(
            model,
            lead=f"{DAYS}D",
            seed=experiment.seed,
            sampler=setting.settings.get("sampler"),
            progress=False,
        )
        store.append(ahead.isel(time=slice(3, None, 4)))
        store.close()


def leads(setting: Setting, forecasts: Mapping[str, str], std: xr.Dataset) -> pd.DataFrame:
    """Return scores by lead time: RMSE over the starts of all variables, and of some.

    Parameters
    ----------
    setting
        Network and folder. Forecasts are Zarr stores ``forecasts/<name>-<network>-<start>.zarr``
        of five times, one for each day; analyses are those of `Setting.path`.
    forecasts
        Names of the stores by method; ``persistence`` is that of the mean of an analysis whose
        name follows a colon, ``climatology`` is that of the members that were made.
    std
        Climatological standard deviation.
    """
    rows, experiment = [], setting.experiment
    states = setting.truth
    for label, name in forecasts.items():
        for day in range(1, DAYS + 1):
            parts = []
            for start in experiment.starts:
                valid = start + pd.Timedelta(days=day)
                part = _forecast(setting, name, start, valid)
                if part is not None:
                    parts.append(part)
            if len(parts) < len(experiment.starts):
                break
            both = xr.concat(parts, "time", data_vars="minimal")
            found = score(both, states, std)
            row = {"forecast": label, "days": day, "all / climatology": overall(found).relative}
            row |= {
                f"{v}{level if level > 0 else ''}": found.rmse[(v, level)] for v, level in SHOWN
            }
            row["spread-skill"] = overall(found).spread_skill
            rows.append(row)
    return pd.DataFrame(rows)


def _forecast(
    setting: Setting, name: str, start: pd.Timestamp, valid: pd.Timestamp
) -> xr.Dataset | None:
    """Return one forecast at its valid time, or None."""
    kind, _, of = name.partition(":")
    if kind == "persistence":
        path = setting.path(of)
        if not path.exists():
            return None
        ds = xr.open_zarr(path, consolidated=False).sel(time=[start]).mean("member")
        return ds.assign_coords(time=("time", [valid.to_datetime64()], {"standard_name": "time"}))
    if kind == "climatology":
        path = Path(setting.folder) / "analyses" / "climatology-any.zarr"
        if not path.exists():
            return None
        ds = xr.open_zarr(path, consolidated=False)
        # The last forecasts may end after the scored days: the season does not change by then.
        return ds.sel(time=[min(valid, ds.indexes["time"][-1])]).assign_coords(
            time=("time", [valid.to_datetime64()], {"standard_name": "time"})
        )
    path = setting.folder / "forecasts" / f"{name}-{setting.network}-{start:%Y%m%d%H}.zarr"
    if not path.exists():
        return None
    return xr.open_zarr(path, consolidated=False)[list(SCORED)].sel(time=[valid])
