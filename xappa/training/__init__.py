"""Training of learned priors from Datasets."""

from xappa.training.appa import AppaTraining, train

__all__ = ["AppaTraining", "train"]
