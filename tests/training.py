"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

import xappa

#: Sizes and steps that a second allows.
TINY = xappa.AppaTraining(
    hid_channels=(4, 6),
    hid_blocks=(1, 1),
    lat_channels=2,
    blanket=4,
    channels=16,
    blocks=1,
    heads=2,
    autoencoder_steps=24,
    denoiser_steps=24,
    batch=8,
    log_every=1,
    checkpoint_every=5,
    validate_every=12,
    validation_states=4,
)


def weights(model: Any) -> dict[str, Any]:
    """All arrays of a model."""
    return dict(sorted(model.weights.items()))


def log(folder: Path, name: str = "loss") -> pd.Series:
    """What the log of a training says of one name, by stage and step."""
    rows = pd.read_csv(folder / "log.csv")
    return rows[rows.name == name].set_index(["stage", "step"]).value
