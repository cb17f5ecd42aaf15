"""xappa: generative data assimilation and downscaling of the atmosphere, native to xarray.

Importing the package registers the accessor ``.appa`` and imports neither torch nor pint; what
needs them is loaded at first use.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from xappa import accessor as _accessor
from xappa.options import set_options

try:
    __version__ = version("xappa")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

_LAZY = {
    "cycle": "xappa.tasks.cycle",
    "fit_gaussian": "xappa.models.fitting",
    "open_model": "xappa.models.catalogue",
    "register_operator": "xappa.observe",
    "show_versions": "xappa.versions",
    "Sampler": "xappa.diffusion.sampling",
    "Guidance": "xappa.models.settings",
    "QualityControl": "xappa.tasks.quality",
    "AppaTraining": "xappa.training",
    "DownscalingTraining": "xappa.training",
    "train": "xappa.training",
    "train_downscaler": "xappa.training",
}
_MODULES = ("obs", "observe", "osse", "plot", "testing", "tutorial", "verify")

__all__ = [
    "AppaTraining",
    "DownscalingTraining",
    "Guidance",
    "QualityControl",
    "Sampler",
    "__version__",
    "cycle",
    "fit_gaussian",
    "open_model",
    "register_operator",
    "set_options",
    "show_versions",
    "train",
    "train_downscaler",
    *_MODULES,
]

del _accessor


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"xappa.{name}")
    else:
        raise AttributeError(f"module 'xappa' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(__all__) | set(globals()))
