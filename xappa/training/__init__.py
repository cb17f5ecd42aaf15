"""Training of learned priors from Datasets."""

from xappa.training.appa import train
from xappa.training.config import AppaTraining

__all__ = ["AppaTraining", "train"]
