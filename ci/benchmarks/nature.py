"""What a nature run looks like: jets, eddies, seasons, spectra, rain and mass.

python -m xappa nature-run --output nature.zarr --years 12 --native 1D
python ci/benchmarks/nature.py nature.zarr --figures figures
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from markdown import markdown
from spectra import kinetic_energy

SEASONS = ("DJF", "MAM", "JJA", "SON")
ZONAL, GLOBE = "longitude", ("latitude", "longitude")


def weights(ds: xr.Dataset) -> xr.DataArray:
    """Areas of the cells, from their bounds."""
    edges = np.sin(np.deg2rad(ds.lat_bnds))
    return (edges[:, 1] - edges[:, 0]).rename("weights")


def jets(seasonal: xr.Dataset) -> pd.DataFrame:
    """Strongest zonal-mean zonal wind of each hemisphere, and where."""
    rows = []
    for season in (season for season in SEASONS if season in seasonal.season):
        row: dict[str, Any] = {"season": season}
        for level in (250.0, 850.0):
            wind = seasonal.u.sel(season=season, level=level).mean(ZONAL)
            for name, half in (("NH", slice(15, 75)), ("SH", slice(-75, -15))):
                there = wind.sel(latitude=half)
                row[f"{name} {level:g} hPa"] = float(there.max())
                row[f"{name} {level:g} hPa at"] = f"{float(there.idxmax()):.0f}°"
        rows.append(row)
    return pd.DataFrame(rows)


def eddies(ds: xr.Dataset) -> xr.DataArray:
    """Kinetic energy of departures from the mean of their month (level, latitude), m2 s-2."""
    both = ds[["u", "v"]]
    month = both.time.dt.strftime("%Y-%m").rename("month")
    about = both.groupby(month) - both.groupby(month).mean()
    return (0.5 * (about.u**2 + about.v**2)).mean(("time", ZONAL)).compute()


def year(ds: xr.Dataset) -> xr.Dataset:
    """Mean seasonal cycle of hemispheric means (month,)."""
    area, parts = weights(ds), {}
    monthly = ds.assign(rain=ds.pr * 86400).groupby("time.month").mean()
    for name, half in (("NH", ds.latitude > 0), ("SH", ds.latitude < 0)):
        w = area.where(half, 0.0)
        for label, da in (
            ("T 850 hPa, K", monthly.t.sel(level=850)),
            ("q 850 hPa, g/kg", 1000 * monthly.q.sel(level=850)),
            ("u 250 hPa, m/s", monthly.u.sel(level=250)),
            ("surface pressure, hPa", monthly.sp / 100),
            ("precipitation, mm/day", monthly.rain),
        ):
            parts[f"{name} {label}"] = (
                da.drop_vars("level", errors="ignore").weighted(w).mean(GLOBE)
            )
    return xr.Dataset(parts).compute()


def budget(native: xr.Dataset) -> pd.DataFrame:
    """Yearly means of the dry and the water mass, as pressures."""
    area = weights(native)
    layers = native.sigma_bnds[:, 1] - native.sigma_bnds[:, 0]
    water = native.sp * (native.q * layers).sum("sigma")
    found = xr.Dataset(
        {
            "surface pressure, hPa": native.sp.weighted(area).mean(GLOBE) / 100,
            "of water, hPa": water.weighted(area).mean(GLOBE) / 100,
        }
    )
    found["of dry air, hPa"] = found["surface pressure, hPa"] - found["of water, hPa"]
    return found.groupby("time.year").mean().compute().to_dataframe()


def spectra(ds: xr.Dataset, seasons: tuple[str, ...] = ("DJF", "JJA")) -> xr.DataArray:
    """Kinetic energy by total wavenumber (season, level, l), m2 s-2."""
    parts = []
    for season in seasons:
        some = ds.sel(time=ds.time.dt.season == season).isel(time=slice(None, None, 9))
        some = some[["u", "v"]].sel(level=[250.0, 500.0]).load()
        energy = kinetic_energy(some.u.to_numpy(), some.v.to_numpy(), some.latitude.to_numpy())
        parts.append(energy.mean(0))
    dims, axes = ("season", "level", "l"), {"season": list(seasons), "level": [250.0, 500.0]}
    return xr.DataArray(np.stack(parts), axes | {"l": np.arange(parts[0].shape[-1])}, dims)


def slopes(energy: xr.DataArray) -> pd.DataFrame:
    some = energy.sel(l=slice(8, 25))
    fit = xr.apply_ufunc(np.log, some).assign_coords(l=np.log(some.l)).polyfit("l", 1)
    table = fit.polyfit_coefficients.sel(degree=1).to_pandas()
    table.columns = [f"{level:g} hPa" for level in table.columns]
    return table


def figures(folder: Path, ds: xr.Dataset, found: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    seasonal = found["seasonal"]
    figure, panels = plt.subplots(2, 2, figsize=(11, 7), layout="constrained", sharey=True)
    for panel, (name, season) in zip(
        panels.flat, [(n, s) for n in ("u", "t") for s in ("DJF", "JJA")], strict=True
    ):
        field = seasonal[name].sel(season=season).mean(ZONAL)
        limit = {"vmin": -40, "vmax": 40} if name == "u" else {}
        field.plot.contourf(
            ax=panel, levels=17, yincrease=False, cmap="RdBu_r" if name == "u" else "turbo", **limit
        )
        panel.set_title(f"{name}, {season}")
    figure.savefig(folder / "zonal.png", dpi=80)

    figure, panels = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    found["eddies"].plot.line(ax=panels[0, 0], x="latitude")
    panels[0, 0].set_title("eddy kinetic energy, m2 s-2")
    (86400 * seasonal.pr.mean(ZONAL)).plot.line(ax=panels[0, 1], x="latitude")
    panels[0, 1].set_title("precipitation, mm/day")
    for season in found["spectra"].season.values:
        for level in (250, 500):
            line = found["spectra"].sel(season=season, level=level)[1:]
            panels[1, 0].loglog(line.l, line, label=f"{season} {level} hPa")
    l = np.array([6.0, 30.0])  # noqa: E741
    panels[1, 0].loglog(l, 60 * (l / 6) ** -3, "k--", label="$l^{-3}$")
    panels[1, 0].legend()
    panels[1, 0].set(title="kinetic energy, m2 s-2", xlabel="total wavenumber")
    for half in ("NH", "SH"):
        found["year"][f"{half} T 850 hPa, K"].plot(ax=panels[1, 1], label=half)
    panels[1, 1].legend()
    figure.savefig(folder / "lines.png", dpi=80)

    now = ds.sel(time=ds.time.dt.month == 1).isel(time=60).load()
    maps = [
        ("mean sea level pressure, hPa", now.msl / 100),
        ("z 500 hPa, gpm", now.z.sel(level=500) / 9.81),
        ("wind 250 hPa, m/s", np.hypot(now.u, now.v).sel(level=250)),
        ("T 850 hPa, K", now.t.sel(level=850)),
        ("precipitation DJF, mm/day", 86400 * seasonal.pr.sel(season="DJF")),
        ("precipitation JJA, mm/day", 86400 * seasonal.pr.sel(season="JJA")),
    ]
    figure, panels = plt.subplots(3, 2, figsize=(13, 10), layout="constrained")
    for panel, (title, field) in zip(panels.flat, maps, strict=True):
        field.plot.contourf(ax=panel, levels=20, cmap="turbo", add_labels=False)
        panel.contour(ds.longitude, ds.latitude, ds.lsm, [0.5], colors="k", linewidths=0.6)
        panel.set_title(title)
    figure.savefig(folder / "maps.png", dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--figures", type=Path, help="folder for figures")
    parsed = parser.parse_args()
    ds = xr.open_zarr(parsed.store)
    print(f"{ds.sizes['time']} states, {ds.time.values[0]} to {ds.time.values[-1]}\n")
    area, whole = weights(ds), ds
    ds = ds.isel(time=slice(None, None, 4))
    found: dict[str, Any] = {
        "seasonal": ds[["u", "t", "pr"]].groupby("time.season").mean().compute(),
        "eddies": eddies(ds),
        "year": year(ds),
        "spectra": spectra(whole),
    }
    print("Jets: zonal-mean zonal wind, m/s\n\n" + markdown(jets(found["seasonal"]), 1) + "\n")
    bands = found["eddies"].sel(latitude=[-75, -60, -45, -30, -15, 0, 15, 30, 45, 60, 75],
                                method="nearest").to_pandas().T  # fmt: skip
    bands.index = bands.index.map(lambda y: f"{y:.0f}°").rename("latitude")
    bands.columns = [f"{level:g} hPa" for level in bands.columns]
    print("Eddy kinetic energy, m2 s-2\n\n" + markdown(bands, 0) + "\n")
    print("Seasons\n\n" + markdown(found["year"].to_dataframe(), 1) + "\n")
    print(
        "Slopes of kinetic energy, wavenumbers 8 to 25\n\n" + markdown(slopes(found["spectra"]), 2)
    )
    rain = 86400 * ds.pr.mean("time").weighted(area).mean().compute()
    print(f"\nPrecipitation, global mean: {float(rain):.2f} mm/day\n")
    if (Path(parsed.store) / "native").is_dir():
        native = xr.open_zarr(parsed.store, group="native")
        print("Mass\n\n" + markdown(budget(native), 3))
    if parsed.figures is not None:
        figures(parsed.figures, whole, found)


if __name__ == "__main__":
    main()
