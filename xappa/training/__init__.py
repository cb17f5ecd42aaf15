"""Training of learned priors from Datasets."""

from xappa.training.appa import train
from xappa.training.config import PRESETS, AppaTraining

__all__ = ["PRESETS", "AppaTraining", "train"]
