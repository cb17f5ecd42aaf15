"""Training of learned priors and downscaling models from Datasets."""

from xappa.training.appa import train
from xappa.training.config import AppaTraining
from xappa.training.corrdiff import train_downscaler
from xappa.training.downscaling import DownscalingTraining

__all__ = ["AppaTraining", "DownscalingTraining", "train", "train_downscaler"]
