"""Twin experiments with SPEEDY: xappa's analyses beside the LETKF's, OI's and climatology.

    python ci/benchmarks/osse/run.py NATURE --folder OUT [--methods climatology,letkf,gaussian]
    python ci/benchmarks/osse/run.py NATURE --folder OUT --methods xappa-filter,xappa-smoother \
        --model BUNDLE --name diffusion

NATURE is the store of ``python -m xappa nature-run``, with native states once a day. What is there
already is not made again: delete a method's stores under ``OUT/analyses`` and its tables under
``OUT/scores`` to have it made anew. All tables of what is there are printed at the end. Any other
ensemble (member, time, level, latitude, longitude) in ``OUT/analyses/<name>-<network>.zarr`` is
scored too.
"""

from __future__ import annotations

import argparse
import sys
import time as clock
from dataclasses import replace
from pathlib import Path

import dask
import pandas as pd
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1]))

from baselines import Fitted, climatology
from figures import lines, maps
from forecasts import bundle_forecasts, leads, model_forecasts
from markdown import markdown
from methods import METHODS, Setting
from networks import NETWORKS, observations
from scoring import load, overall, save, score, series, table
from twin import Experiment, truth

import xappa

#: Methods that do not look at observations.
BLIND = ("climatology", "free")
#: The method of the same kind that has the model itself.
RIVALS = {"filter": "letkf", "cycle": "letkf", "smoother": "letks", "oi": "letkf"}


def make(setting: Setting, methods: list[str]) -> None:
    """Run what is not there yet."""
    for method in methods:
        run, written = METHODS[method]
        at = replace(setting, network="any") if method in BLIND else setting
        if all(at.path(name.format(name=at.name)).exists() for name in written):
            continue
        began = clock.perf_counter()
        run(at)
        print(f"{method}, {at.network}: {clock.perf_counter() - began:.0f} s", flush=True)


def scored(setting: Setting, std: xr.Dataset) -> dict[str, pd.DataFrame]:
    """Score what is there; return the tables by method."""
    results = {}
    stores = sorted(setting.path("*").parent.glob(f"*-{setting.network}.zarr"))
    for store in [*sorted(setting.path("*").parent.glob("*-any.zarr")), *stores]:
        path = setting.folder / "scores" / f"{store.stem}.csv"
        method = store.stem.rpartition("-")[0]
        if not path.exists() or path.stat().st_mtime < store.stat().st_mtime:
            path.parent.mkdir(parents=True, exist_ok=True)
            ensemble = xr.open_zarr(store, consolidated=False)
            save(score(ensemble, setting.truth, std), path)
            series(ensemble, setting.truth, std).to_csv(path.with_suffix(".series.csv"))
        results[method] = load(path)
    order = ("free", "climatology", "oi", "gaussian-filter", "gaussian-smoother", "letkf", "letks")
    return dict(sorted(results.items(), key=lambda item: (
        order.index(item[0]) if item[0] in order else len(order), item[0])))  # fmt: skip


def over_time(setting: Setting, results: dict[str, pd.DataFrame]) -> dict[str, pd.Series]:
    """Return the overall error of each analysis time by method."""
    found = {}
    for method in results:
        for network in (setting.network, "any"):
            path = setting.folder / "scores" / f"{method}-{network}.series.csv"
            if path.exists():
                found[method] = pd.read_csv(path, index_col=0, parse_dates=True).iloc[:, 0]
                break
    return found


def report(setting: Setting, results: dict[str, pd.DataFrame], std: xr.Dataset) -> None:
    """Print the tables of a network."""
    over = over_time(setting, results)
    rows = []
    for method, found in results.items():
        both, rival = overall(found), RIVALS.get(method.rpartition("-")[2])
        row = {
            "method": method,
            "analyses": len(over[method]),
            "RMSE / climatology": both.relative,
            "CRPS / climatology": both.crps,
            "spread-skill": both.spread_skill,
            "RMSE / LETKF's (smoothers: LETKS's)": float("nan"),
        }
        if rival in over:
            common = over[method].index.intersection(over[rival].index)
            ratio = over[method][common].mean() / over[rival][common].mean()
            row["RMSE / LETKF's (smoothers: LETKS's)"] = float(ratio)
        rows.append(row)
    print(
        f"\n{setting.network}: means over variables, scores over the climatological standard"
        " deviation\n\n" + markdown(pd.DataFrame(rows))
    )
    for column, title, digits in (
        ("relative", "RMSE over the climatological standard deviation", 3),
        ("rmse", "RMSE in units", 2),
        ("crps", "CRPS in units", 2),
        ("spread_skill", "spread-skill ratio", 2),
    ):
        frame = table(results, column)
        if column in ("rmse", "crps"):
            for name in frame.columns:
                # g/kg, hPa, mm/day
                frame[name] *= {"q": 1e3, "s": 1e-2, "m": 1e-2, "p": 86400}.get(name[0], 1.0)
            title += " (q in g/kg, pressure in hPa, precipitation in mm/day)"
        print(f"\n{setting.network}: {title}\n\n" + markdown(frame.T.rename_axis(""), digits))
    lines(over, setting.folder / "figures" / f"series-{setting.network}.png")
    by = pd.DataFrame({k: v.resample("5D", origin="start").mean() for k, v in over.items()}).T
    by.columns = [f"{day:%d %b}" for day in by.columns]
    print(
        f"\n{setting.network}: RMSE over climatological standard deviation, five days from\n\n"
        + markdown(by.rename_axis("method"))
    )
    choices = {"LETKF": "letkf", "climatology": "climatology", "persistence": "persistence:letkf"}
    found = leads(setting, choices | {
        path.name.rsplit("-", 2)[0]: path.name.rsplit("-", 2)[0]
        for path in sorted((setting.folder / "forecasts").glob(f"*-{setting.network}-*.zarr"))
        if not path.name.startswith("letkf-")
    }, std)  # fmt: skip
    if len(found):
        print(f"\n{setting.network}: forecasts\n\n" + markdown(found))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nature")
    parser.add_argument("--folder", type=Path, required=True, help="of all output")
    parser.add_argument("--methods", default="climatology,letkf,gaussian")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--model", help="bundle of the methods xappa-…")
    parser.add_argument("--name", default="xappa", help="what its analyses are called")
    parser.add_argument(
        "--gaussian", type=Path, help="bundle of the EOF-Gaussian, fitted if missing"
    )
    parser.add_argument("--stride", type=int, default=1, help="of the times of xappa-filter")
    parser.add_argument("--cycle-step", default="6h", help="of the method xappa-cycle")
    parser.add_argument("--inflation", type=float, default=1.0, help="of the method xappa-cycle")
    parser.add_argument("--modes", type=int, default=600, help="of the EOF-Gaussian")
    parser.add_argument("--localisation", help="of the EOF-Gaussian, such as '3000 km'")
    parser.add_argument("--days", type=int, default=30, help="scored days")
    parser.add_argument("--spin-up", type=int, default=10, help="days before them")
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--steps", type=int, help="of the sampler of the methods xappa-…")
    parser.add_argument("--iterations", type=int, help="of their Krylov solves")
    parser.add_argument("--forecasts", action="store_true", help="of the bundle, or else the LETKF")
    parsed = parser.parse_args()
    dask.config.set(scheduler="synchronous")
    experiment = Experiment(days=parsed.days, spin_up=parsed.spin_up, members=parsed.members)
    ds = truth(parsed.nature, experiment)
    whole = Experiment(days=max(30, parsed.days))
    files = observations(ds, whole, parsed.folder / "obs")
    std = climatology(ds, experiment, parsed.folder / "std.nc")
    draws: dict[str, object] = {"guidance": xappa.Guidance(iterations=parsed.iterations)}
    if parsed.steps:
        draws["sampler"] = xappa.Sampler("multistep", parsed.steps)
    methods = [method for method in parsed.methods.split(",") if method]
    for network in parsed.networks.split(","):
        obs = [xr.open_dataset(path).load() for path in files[network]]
        prior = parsed.gaussian or parsed.folder / "eof-gaussian"
        setting = Setting(
            parsed.nature,
            ds,
            parsed.folder,
            experiment,
            network,
            obs,
            prior,
            parsed.model,
            parsed.name,
            parsed.stride,
            (parsed.cycle_step, parsed.inflation),
            Fitted(modes=parsed.modes, localisation=parsed.localisation),
            draws,
        )
        make(setting, methods)
        if parsed.forecasts and parsed.model:
            bundle_forecasts(setting)
        elif parsed.forecasts:
            model_forecasts(setting)
        results = scored(setting, std)
        (parsed.folder / "figures").mkdir(exist_ok=True)
        report(setting, results, std)
        shown = {}
        for method in results:
            path = setting.path(method)
            path = path if path.exists() else replace(setting, network="any").path(method)
            shown[method] = xr.open_zarr(path, consolidated=False)
        sites = [
            (one.longitude.values, one.latitude.values) for one in obs if "station" in one.dims
        ]
        maps(shown, ds, sites, parsed.folder / "figures" / f"maps-{network}.png")


if __name__ == "__main__":
    main()
