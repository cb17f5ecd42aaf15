"""Cost of a posterior sample of a latent diffusion prior, by members, length and observed fraction.

The model has random weights and the size of the reference arrays (33 x 64 points, 10 channels,
blankets of 8 states): a sample is not weather, but costs what one would. Peak memory is that of a
fresh process for each case.

    python ci/benchmarks/appa_cost.py [--steps 16] [--iterations 1]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import torch
import xarray as xr
from markdown import markdown

import xappa
from xappa.models.appa.era5 import plain_spec
from xappa.models.appa.model import AppaModel
from xappa.models.appa.normalisation import Normalisation
from xappa.nn.autoencoder import AutoencoderConfig, ConvAutoencoder
from xappa.nn.transformer import LatentTransformer, TransformerConfig

CHANNELS, SHAPE = 10, (33, 64)


def model() -> AppaModel:
    torch.manual_seed(0)
    config = AutoencoderConfig(
        SHAPE, CHANNELS, 8, (16, 32, 64, 64), (1, 1, 1, 1), boundary="periodic-input"
    )
    network = TransformerConfig(config.latent_shape, 8, 64, 3, 4, 32, 4, (2, 1, 1))
    zero, one = np.zeros((CHANNELS, 1, 1)), np.ones((CHANNELS, 1, 1))
    return AppaModel(
        plain_spec(SHAPE, CHANNELS, 3600.0),
        ConvAutoencoder(config),
        LatentTransformer(network),
        ("rectified", 1e-3, 1e3),
        Normalisation(zero, one, np.zeros(8), np.ones(8), 0.1 * one),
        name="random",
    )


def observations(window: xr.Dataset, fraction: float) -> list[xr.DataArray]:
    """Grid points of all channels, with gaps; half of the states are seen at fractions below 1."""
    rng = np.random.default_rng(0)
    arrays = []
    for name, field in window.items():
        values = rng.standard_normal(field.shape)
        values[rng.uniform(size=field.shape) > 0.05] = np.nan  # 5 % of the points
        seen = max(1, round(fraction * window.sizes["time"]))
        values[seen:] = np.nan
        arrays.append(field.copy(data=values).assign_attrs(error_std=0.1).rename(name))
    return arrays


def case(
    members: int, length: int, fraction: float, steps: int, iterations: int, scope: str
) -> None:
    own = model()
    window = own.template("2021-02-27T18").isel(time=0)
    stop = np.datetime64("2021-02-27T18") + np.timedelta64(length - 1, "h")
    window = own.template("2021-02-27T18", str(stop))
    arrays = observations(window, fraction)
    start = time.perf_counter()
    window.appa.assimilate(
        arrays,
        own,
        members=members,
        seed=0,
        sampler=xappa.Sampler("ddim", steps),
        guidance=xappa.Guidance(iterations=iterations, rtol=0.0, scope=scope),
        progress=False,
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{seconds:.2f} {peak:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--case", nargs=4)
    arguments = parser.parse_args()
    if arguments.case:
        warnings.simplefilter("ignore")
        members, length, fraction, scope = arguments.case
        case(
            int(members), int(length), float(fraction), arguments.steps, arguments.iterations, scope
        )
        return
    cases = [(m, 20, 1.0, "blanket") for m in (1, 2, 4, 8)]
    cases += [(m, t, 1.0, "blanket") for m in (1, 4) for t in (8, 40, 80)]
    cases += [(1, 20, f, "blanket") for f in (0.5, 0.1)]
    cases += [(m, 20, 1.0, "trajectory") for m in (1, 4)]
    rows = []
    for members, length, fraction, scope in cases:
        command = [
            sys.executable,
            __file__,
            "--case",
            str(members),
            str(length),
            str(fraction),
            scope,
        ]
        command += ["--steps", str(arguments.steps), "--iterations", str(arguments.iterations)]
        seconds, peak = map(float, subprocess.check_output(command).split()[-2:])
        rows.append(
            {
                "guided": scope,
                "members": members,
                "states": length,
                "observed states": f"{fraction:.0%}",
                "s": seconds,
                "s / member / state": seconds / members / length,
                "peak GiB": peak,
            }
        )
        print(rows[-1], flush=True)
    print(markdown(pd.DataFrame(rows), digits=2))


if __name__ == "__main__":
    main()
