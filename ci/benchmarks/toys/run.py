"""Lorenz's models: a diffusion prior beside ensemble Kalman filters, ours and DAPPER's.

    python ci/benchmarks/toys/run.py [--models 63 96] [--times 1000] [--steps 12000]

Priors are trained on trajectories of each model (some minutes on one core: a perceptron of ten
observation times for Lorenz-63, convolutions around the circle of 32 for Lorenz-96), and filter and
smooth windows by MMPS. Beside them stands what a window can tell at best. DAPPER's own methods run
in the same script where it is installed (``pip install dapper``), on a truth of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from bound import bound
from ensembles import etkf, letkf
from lorenz import LORENZ63, LORENZ96, Experiment
from markdown import markdown
from prior import Prior, analyse, train


def dapper(times: int, models: list[str]) -> list[list[object]]:
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
        if not any(f"-{known}," in name for known in models):
            continue
        model.tseq.Ko = times
        dapper.tools.seeding.set_seed(3000)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            method.assimilate(model, *model.simulate(), liveplots=False)
        method.stats.average_in_time()
        rows.append([name, f"DAPPER {label}", "filter", float(method.avrgs.err.rms.a.val)])
    return rows


def lorenz96(times: int, steps: int, every: int) -> list[list[object]]:
    """Run the filters of `ensembles` and a prior of windows of 32, of every so many times."""
    rows: list[list[object]] = []
    truth, y = LORENZ96.twin(times + LORENZ96.burn_in, 1)
    for label, means in (
        ("ETKF(24)", etkf(LORENZ96, y, truth[0], 24, 1.02)),
        ("LETKF(7)", letkf(LORENZ96, y, truth[0], 7, 1.04, 4)),
    ):
        rows.append([LORENZ96.name, label, "filter", LORENZ96.rmse(means, truth)])
    prior = trained(LORENZ96, 32, steps, width=128, blocks=5, batch=8, levels=(2.0, 4.0))
    drawn = {"members": 4, "steps": 16, "iterations": 4}
    return rows + diffusion(prior, y, truth, every, **drawn)


def lorenz63(times: int, steps: int) -> list[list[object]]:
    """Run the filter of `ensembles` and a prior of windows of ten."""
    truth, y = LORENZ63.twin(times + LORENZ63.burn_in, 1)
    means = etkf(LORENZ63, y, truth[0], 10, 1.02)
    rows: list[list[object]] = [[LORENZ63.name, "ETKF(10)", "filter", LORENZ63.rmse(means, truth)]]
    prior = trained(LORENZ63, 10, steps, width=192, blocks=4, batch=512)
    return rows + diffusion(prior, y, truth, 1, members=8, steps=32, iterations=8)


def trained(experiment: Experiment, window: int, steps: int, **sizes: Any) -> Prior:
    """Train a prior and say how long it took."""
    prior, seconds = train(experiment, window=window, steps=steps, **sizes)
    count = sum(p.numel() for p in prior.denoiser.parameters())
    print(f"{experiment.name}: {count} parameters, {steps} steps in {seconds:.0f} s", flush=True)
    return prior


def diffusion(
    prior: Prior, y: np.ndarray, truth: np.ndarray, every: int, **drawn: int
) -> list[list[object]]:
    """Filter and smooth; times of the burn-in are left out."""
    experiment, window = prior.experiment, prior.window
    cut = slice(max(0, experiment.burn_in - 2 * window), None)
    times = np.arange(len(y[cut]))[::every]
    counted = times + cut.start >= experiment.burn_in
    rows: list[list[object]] = []
    for at, kind in ((window - 1, "filter"), (window // 2, "smoother")):
        start = time.perf_counter()
        means = analyse(prior, y[cut], at=at, times=times, **drawn)
        error = np.sqrt(np.mean((means - truth[cut][times]) ** 2, axis=-1))[counted].mean()
        seconds = time.perf_counter() - start
        print(f"{experiment.name}: {len(times)} windows in {seconds:.0f} s", flush=True)
        rows.append([experiment.name, "diffusion, MMPS", kind, float(error)])
        rows.append([experiment.name, f"bound, {window}", kind, bound(experiment, window, at)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--models", nargs="+", choices=["63", "96"], default=["63", "96"])
    parser.add_argument("--steps", type=int, default=12000, help="of training for Lorenz-63")
    parser.add_argument("--ring-steps", type=int, default=15000, help="of training for Lorenz-96")
    parser.add_argument("--every", type=int, default=10, help="of Lorenz-96, times to analyse")
    given = parser.parse_args()
    rows: list[list[object]] = []
    if "63" in given.models:
        rows += lorenz63(given.times, given.steps)
    if "96" in given.models:
        rows += lorenz96(given.times, given.ring_steps, given.every)
    rows += dapper(given.times, given.models)
    frame = pd.DataFrame(rows, columns=["experiment", "method", "what", "RMSE"])
    print(markdown(frame.sort_values(["experiment", "what"], kind="stable"), digits=3))


if __name__ == "__main__":
    main()
