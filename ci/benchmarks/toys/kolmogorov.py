"""Kolmogorov flow: the tests of score-based data assimilation, with a prior of minutes.

    python ci/benchmarks/toys/kolmogorov.py [--steps 3000] [--cache FOLDER] [--figure FILE]

The flow is integrated on 128 by 128 points and averaged to 64 by 64, a small U-Net learns what
windows of five states have beyond Gaussian ones, and trajectories are drawn from the posterior by
MMPS and by SDA. Residuals are the standard deviation of A(x) - y, beside those that the authors of
SDA publish; errors are root mean square differences of the velocity from the truth, over the whole
trajectory: its own standard deviation is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from azula.denoise import Denoiser
from flow_checks import checks
from flow_figure import draw_tests
from flow_prior import denoising_errors, train, untrained
from flow_tests import TESTS, FlowTest
from markdown import markdown
from navier_stokes import KolmogorovFlow
from torch import Tensor

from xappa.diffusion.blankets import BlanketDenoiser, Cut, TrajectoryDenoiser
from xappa.diffusion.guidance import MMPSDenoiser, SDADenoiser
from xappa.diffusion.linear import Noise
from xappa.diffusion.sampling import Sampler

#: Seeds of the true trajectories begin here, far from those of the training data.
TRUTHS = 10_000


def prior(given: argparse.Namespace) -> BlanketDenoiser:
    """Train a prior, or take it from the cache."""
    widths = tuple(given.widths)
    file = None if given.cache is None else given.cache / "kolmogorov.pt"
    if file is not None and file.exists():
        denoiser = untrained(given.window, widths)
        denoiser.network.load_state_dict(torch.load(file, weights_only=True))
        denoiser.network.eval().requires_grad_(False)
    else:
        denoiser, simulated, trained = train(
            KolmogorovFlow(given.size),
            window=given.window,
            widths=widths,
            trajectories=given.trajectories,
            length=given.length,
            steps=given.steps,
            batch=given.batch,
        )
        print(f"data in {simulated:.0f} s, {given.steps} steps in {trained:.0f} s", flush=True)
        if file is not None:
            torch.save(denoiser.network.state_dict(), file)
    return denoiser


def methods(
    test: FlowTest, y: Tensor, given: argparse.Namespace
) -> dict[str, tuple[Callable[[Denoiser], Denoiser], Sampler]]:
    """Return how the prior of trajectories is guided, and sampled, by name."""
    variance = torch.full((y.shape[-1],), test.error**2)
    noise = Noise(torch.diag(variance), variance)
    one = torch.ones_like(variance)
    # As the authors: one correction at each step, of half the noise.
    corrected = {"corrections": 1, "delta": 0.5}
    return {
        "MMPS": (
            lambda d: MMPSDenoiser(
                d, y, test.operator, noise, solver="gmres", iterations=given.iterations
            ),
            Sampler("pc", given.mmps_steps, corrected),
        ),
        # The authors' gamma, which stands for the variance that averages leave.
        "SDA": (
            lambda d: SDADenoiser(d, y, test.operator, noise, one, gamma=1e-2),
            Sampler("pc", given.sda_steps, corrected),
        ),
    }


def report(
    test: FlowTest, denoiser: BlanketDenoiser, truth: Tensor, seed: int, given: argparse.Namespace
) -> tuple[list[list[object]], dict[str, Tensor]]:
    """Observe trajectories (B, T, 2 n n) and draw from their posteriors: rows, and samples."""
    y = test.observe(truth, torch.Generator().manual_seed(seed))
    cut = Cut(test.length, given.window, given.stride)
    trajectory = TrajectoryDenoiser(denoiser, torch.zeros(test.length, 4), cut)
    rows: list[list[object]] = []
    drawn = {"truth": truth, "observed": y}
    for name, (guide, build) in methods(test, y, given).items():
        start = time.perf_counter()
        torch.manual_seed(seed)
        white = torch.randn(truth.shape)
        sample = build(guide(trajectory))(denoiser.schedule.sigma_max * white)
        residual = float((test.operator(sample) - y).std(-1).mean())
        error = float((sample - truth).square().mean().sqrt())
        seconds = f"{time.perf_counter() - start:.0f}"
        rows.append([test.name, name, test.error, residual, *test.published, error, seconds])
        print(rows[-1], flush=True)
        drawn[name] = sample
    return rows, drawn


def denoised(denoiser: BlanketDenoiser, x: Tensor, window: int) -> str:
    """Return a table of the errors of windows of x (B, T, 2, n, n) that are denoised."""
    windows = x.unfold(1, window, 8).movedim(-1, 2).flatten(0, 1)
    levels = [0.03, 0.1, 0.3, 1.0, 3.0]
    rows = [
        [name, *denoising_errors(known, windows, levels)]
        for name, known in (("Gaussian", denoiser.network.gaussian), ("prior", denoiser.at))
    ]
    return markdown(pd.DataFrame(rows, columns=["noise", *map(str, levels)]))


def main() -> None:
    given = parsed()
    if given.check:
        found = checks(KolmogorovFlow(given.size))
        print("\n".join(f"{name}: {value:.3g}" for name, value in found.items()))
        return
    denoiser = prior(given)
    flow = KolmogorovFlow(given.size)
    longest = max(test.length for test in TESTS)
    x = torch.cat([flow.trajectories(1, longest, seed=TRUTHS + i) for i in range(given.truths)])
    print(denoised(denoiser, x, given.window), flush=True)
    rows, pictures = [], {}
    for number, test in enumerate(TESTS):
        truth = x[:, : test.length].flatten(2)
        found, pictures[test] = report(test, denoiser, truth, number, given)
        rows += found
    columns = ["test", "method", "target", "residual", "SDA's", "its DPS", "error", "seconds"]
    print(markdown(pd.DataFrame(rows, columns=columns)))
    if given.figure is not None:
        draw_tests(pictures, given.figure)


def parsed() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=128, help="points a side of the simulation")
    parser.add_argument("--trajectories", type=int, default=24)
    parser.add_argument("--length", type=int, default=96, help="states of each, after 64 others")
    parser.add_argument("--window", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--steps", type=int, default=3000, help="of the training")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--stride", type=int, default=2, help="states from window to window")
    parser.add_argument("--truths", type=int, default=2, help="trajectories of each test")
    parser.add_argument("--iterations", type=int, default=4, help="of the Krylov solve")
    parser.add_argument("--mmps-steps", type=int, default=64)
    parser.add_argument("--sda-steps", type=int, default=128)
    parser.add_argument("--cache", type=Path, help="folder that keeps the prior")
    parser.add_argument("--figure", type=Path, help="a picture of truths and samples")
    parser.add_argument("--check", action="store_true", help="only check the simulation")
    return parser.parse_args()


if __name__ == "__main__":
    main()
