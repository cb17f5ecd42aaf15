"""Localisation and relaxation of the LETKF, tried on the second half of the spin-up.

python ci/benchmarks/osse/tuning.py NATURE --folder OUT [--network dense]

All runs branch from the fifth day of one run with the first of the settings, and are scored on
their last three days.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1]))

from baselines import climatology
from cycling import cycles, initial
from letkf import Local
from markdown import markdown
from networks import NETWORKS, observations
from perfect import Perfect
from scoring import overall, score
from twin import Experiment, truth

TRIED = {
    "dense": (
        Local(3000e3, 2.0, 0.3),
        Local(3000e3, 2.0, 0.0),
        Local(4500e3, 2.0, 0.3),
        Local(3000e3, 3.0, 0.3),
    ),
    "sparse": (
        Local(4000e3, 2.0, 0.2),
        Local(3000e3, 2.0, 0.2),
        Local(5500e3, 2.0, 0.2),
        Local(4000e3, 3.5, 0.2),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nature")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parsed = parser.parse_args()
    experiment = Experiment()
    ds = truth(parsed.nature, experiment)
    files = observations(ds, experiment, parsed.folder / "obs")
    std = climatology(ds, experiment, parsed.folder / "std.nc")
    perfect, half = Perfect(), experiment.spin_up * 2
    states = ds.sel(time=experiment.times[: 2 * half]).load()
    for network in parsed.networks.split(","):
        obs = [xr.open_dataset(path).load() for path in files[network]]
        rows, start = [], initial(perfect, parsed.nature, experiment)
        times, second = experiment.times[:half], experiment.times[half : 2 * half]
        for cycle in cycles(
            perfect, start, obs, times, experiment, TRIED[network][0], smooth=False
        ):
            branch = cycle.analysis
        branch = perfect.forecast(branch)
        for local in TRIED[network]:
            kept = []
            for cycle in cycles(perfect, branch, obs, second, experiment, local, smooth=False):
                if cycle.time >= second[8]:
                    kept.append(perfect.on_pressure(cycle.analysis, experiment.levels))
            found = score(xr.concat(kept, "time", data_vars="minimal"), states, std)
            both = overall(found)
            row = {
                "horizontal, km": local.horizontal / 1e3,
                "vertical": local.vertical,
                "relaxation": local.relaxation,
                "RMSE / climatology": both.relative,
                "spread-skill": both.spread_skill,
                "T500": found.rmse[("t", 500)],
                "u250": found.rmse[("u", 250)],
                "sp, hPa": found.rmse[("sp", -1)] / 100,
            }
            rows.append(row)
            print(network, {k: round(float(v), 4) for k, v in row.items()}, flush=True)
        print(
            f"\n{network}\n\n" + markdown(pd.DataFrame(rows).astype(np.float64)) + "\n", flush=True
        )


if __name__ == "__main__":
    main()
