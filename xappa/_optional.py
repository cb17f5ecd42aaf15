"""Optional dependencies: imported when needed, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from xappa.errors import MissingDependencyError

EXTRAS = {
    "xesmf": "xesmf",
    "cfgrib": "cfgrib",
    "pdbufr": "bufr",
    "matplotlib": "plot",
    "cartopy": "plot",
    "scores": "verify",
    "pooch": "tutorial",
    "jax": "osse",
    "jcm": "osse",
}


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional module.

    Parameters
    ----------
    module
        Dotted name of the module, such as ``"matplotlib.pyplot"``.
    purpose
        What it is needed for, as the error will say.

    Raises
    ------
    MissingDependencyError
        If the module is not installed; names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        extra = EXTRAS.get(package, package)
        raise MissingDependencyError(
            f"{purpose} needs the package {package!r}, which cannot be imported",
            where=f"import {module}",
            got=str(error),
            remedy=f"pip install 'xappa[{extra}]'",
        ) from error
