"""A picture of trajectories of Kolmogorov flow: the vorticity of truths, and of samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from flow_tests import FlowTest, vorticity
from torch import Tensor

__all__ = ["draw_tests"]


def _images(test: FlowTest, name: str, x: Tensor) -> dict[int, Tensor]:
    """Return what is shown of each state of the first trajectory: vorticity, or what was seen."""
    if name != "observed":
        n = int((x.shape[-1] // 2) ** 0.5)
        return dict(enumerate(vorticity(x[0].unflatten(-1, (2, n, n)))))
    seen = test.fields(x)[0]
    if seen.ndim == 4:  # velocities: differences, one-sided at the edges, which need not meet
        seen = torch.gradient(seen[:, 0], dim=-1)[0] - torch.gradient(seen[:, 1], dim=-2)[0]
    return {number * test.every: field for number, field in enumerate(seen)}


def draw_tests(tests: Mapping[FlowTest, Mapping[str, Tensor]], file: Path, states: int = 8) -> None:
    """Draw a row for each name of each test: trajectories (B, T, 2 n n), or observations (B, m)."""
    import matplotlib.pyplot as plt

    rows = [(test, name, x) for test, drawn in tests.items() for name, x in drawn.items()]
    size = (1.3 * states, 1.4 * len(rows))
    figure, axes = plt.subplots(len(rows), states, figsize=size, layout="constrained")
    for row, (test, name, x) in zip(axes, rows, strict=True):
        images = _images(test, name, x)
        limit = 3 * float(torch.stack(list(images.values())).std())
        for axis, state in zip(row, range(0, test.length, -(-test.length // states)), strict=False):
            if state in images:
                axis.imshow(images[state].T, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(f"{test.name}\n{name}", fontsize=8)
    figure.savefig(file, dpi=120)
