"""Lorenz's models: a diffusion prior beside ensemble Kalman filters, ours and DAPPER's.

    python ci/benchmarks/toys/run.py [--times 1000] [--steps 12000]

Priors are trained on trajectories of each model (some minutes on one core: a perceptron for
Lorenz-63, convolutions around the circle for Lorenz-96), and filter and smooth windows of ten
observation times by MMPS. DAPPER's own methods run in the same script where
it is installed (``pip install dapper``), on a truth of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from ensembles import etkf, letkf
from lorenz import LORENZ63, LORENZ96, Experiment
from markdown import markdown
from prior import analyse, train

WINDOW = 10


def dapper(times: int) -> list[list[object]]:
    """Run DAPPER's methods in its own settings; nothing where it is not installed."""
    try:
        import dapper.tools.seeding
        from dapper.da_methods import LETKF, EnKF
        from dapper.mods.Lorenz63 import sakov2012
        from dapper.mods.Lorenz96 import sakov2008
    except ImportError:
        return []
    rows: list[list[object]] = []
    cases = (
        (LORENZ63.name, sakov2012.HMM, EnKF("Sqrt", N=10, infl=1.02, rot=True), "EnKF(10)"),
        (LORENZ96.name, sakov2008.HMM, EnKF("Sqrt", N=24, infl=1.02, rot=True), "EnKF(24)"),
        (LORENZ96.name, sakov2008.HMM, LETKF(N=7, rot=True, infl=1.04, loc_rad=4), "LETKF(7)"),
    )
    for name, model, method, label in cases:
        model.tseq.Ko = times
        dapper.tools.seeding.set_seed(3000)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            method.assimilate(model, *model.simulate(), liveplots=False)
        method.stats.average_in_time()
        rows.append([name, f"DAPPER {label}", "filter", float(method.avrgs.err.rms.a.val)])
    return rows


def ours(times: int, steps: int) -> list[list[object]]:
    """Run the filters of `ensembles`, and the prior of Lorenz-63."""
    rows: list[list[object]] = []
    truth, y = LORENZ96.twin(times + LORENZ96.burn_in, 1)
    for label, means in (
        ("ETKF(24)", etkf(LORENZ96, y, truth[0], 24, 1.02)),
        ("LETKF(7)", letkf(LORENZ96, y, truth[0], 7, 1.04, 4)),
    ):
        rows.append([LORENZ96.name, label, "filter", LORENZ96.rmse(means, truth)])
    rows += diffusion(LORENZ96, y, truth, steps // 3, width=96, blocks=5, batch=256)
    truth, y = LORENZ63.twin(times + LORENZ63.burn_in, 1)
    means = etkf(LORENZ63, y, truth[0], 10, 1.02)
    rows.append([LORENZ63.name, "ETKF(10)", "filter", LORENZ63.rmse(means, truth)])
    rows += diffusion(LORENZ63, y, truth, steps, width=192, blocks=4, batch=512)
    return rows


def diffusion(
    experiment: Experiment, y: np.ndarray, truth: np.ndarray, steps: int, **sizes: int
) -> list[list[object]]:
    """Train a prior, filter and smooth; times of the burn-in are left out."""
    prior, seconds = train(experiment, window=WINDOW, steps=steps, **sizes)
    count = sum(p.numel() for p in prior.denoiser.parameters())
    print(f"{experiment.name}: {count} parameters, {steps} steps in {seconds:.0f} s", flush=True)
    rows: list[list[object]] = []
    cut = slice(max(0, experiment.burn_in - 2 * WINDOW), None)
    for at, kind in ((WINDOW - 1, "filter"), (WINDOW // 2, "smoother")):
        means = truth.copy()
        means[cut] = analyse(prior, y[cut], at=at, members=8, steps=32, iterations=8)
        rows.append([experiment.name, "diffusion, MMPS", kind, experiment.rmse(means, truth)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=12000)
    given = parser.parse_args()
    rows = [*ours(given.times, given.steps), *dapper(given.times)]
    frame = pd.DataFrame(rows, columns=["experiment", "method", "what", "RMSE"])
    print(markdown(frame.sort_values(["experiment", "what"], kind="stable"), digits=3))


if __name__ == "__main__":
    main()
