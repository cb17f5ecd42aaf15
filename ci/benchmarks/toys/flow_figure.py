"""A picture of trajectories of Kolmogorov flow: the vorticity of truths, and of samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flow_tests import FlowTest, vorticity
from torch import Tensor

__all__ = ["draw_tests"]


def draw_tests(tests: Mapping[FlowTest, Mapping[str, Tensor]], file: Path, states: int = 8) -> None:
    """Draw the first of trajectories (B, T, 2 n n), a row for each name of each test."""
    import matplotlib.pyplot as plt

    rows = [(test, name, x) for test, drawn in tests.items() for name, x in drawn.items()]
    size = (1.3 * states, 1.4 * len(rows))
    figure, axes = plt.subplots(len(rows), states, figsize=size, layout="constrained")
    for row, (test, name, x) in zip(axes, rows, strict=True):
        n = int((x.shape[-1] // 2) ** 0.5)
        shown = x[0].unflatten(-1, (2, n, n))[:: max(1, x.shape[1] // (states - 1))]
        for axis, w in zip(row, vorticity(shown), strict=False):
            axis.imshow(w.T, origin="lower", cmap="RdBu_r", vmin=-1.0, vmax=1.0)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(f"{test.name}\n{name}", fontsize=8)
    figure.savefig(file, dpi=120)
