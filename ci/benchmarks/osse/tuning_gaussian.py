"""Modes and localisation of the EOF-Gaussian, tried on a week of the year before the test year.

python ci/benchmarks/osse/tuning_gaussian.py NATURE --folder OUT [--networks sparse]
"""

from __future__ import annotations

import argparse
import sys
import time as clock
from pathlib import Path

import pandas as pd
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1]))

from baselines import Fitted, climatology
from markdown import markdown
from methods import Setting, gaussian
from networks import NETWORKS, observations
from scoring import overall, score
from twin import Experiment, truth

TRIED = (
    Fitted(modes=200),
    Fitted(modes=100),
    Fitted(modes=50),
    Fitted(modes=600, localisation="4000 km"),
    Fitted(modes=200, localisation="4000 km"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nature")
    parser.add_argument("--folder", type=Path, required=True, help="not that of the experiment")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parsed = parser.parse_args()
    experiment = Experiment(start="2011-01-10", spin_up=2, days=5, tail=2)
    ds = truth(parsed.nature, experiment)
    files = observations(ds, experiment, parsed.folder / "obs")
    std = climatology(ds, experiment, parsed.folder / "std.nc")
    for network in parsed.networks.split(","):
        obs = [xr.open_dataset(path).load() for path in files[network]]
        rows = []
        for fitted in TRIED:
            began, label = clock.perf_counter(), f"{fitted.modes}-{fitted.localisation}"
            folder = parsed.folder / label.replace(" ", "")
            given = (parsed.nature, ds, folder, experiment, network, obs, folder / "bundle")
            setting = Setting(*given, fitted=fitted)
            gaussian(setting)
            for method in ("oi", "gaussian-filter", "gaussian-smoother"):
                ensemble = xr.open_zarr(setting.path(method), consolidated=False)
                both = overall(score(ensemble, ds, std))
                rows.append({
                    "modes": fitted.modes,
                    "localisation": fitted.localisation or "",
                    "method": method,
                    "RMSE / climatology": both.relative,
                    "CRPS / climatology": both.crps,
                    "spread-skill": both.spread_skill,
                })  # fmt: skip
                print(network, rows[-1], flush=True)
            print(f"{label}: {clock.perf_counter() - began:.0f} s", flush=True)
        print(f"\n{network}\n\n" + markdown(pd.DataFrame(rows)) + "\n", flush=True)


if __name__ == "__main__":
    main()
