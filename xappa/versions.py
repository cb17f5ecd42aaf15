"""Versions of what determines xappa's numbers, for bug reports."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TextIO

__all__ = ["show_versions"]

_PACKAGES = (
    "xappa", "xarray", "numpy", "scipy", "torch", "azula", "dask", "cf-xarray", "pint",
    "pint-xarray", "safetensors", "netCDF4", "zarr", "tqdm", "xesmf", "cfgrib", "scores",
    "matplotlib", "cartopy", "jcm", "jax",
)  # fmt: skip


def show_versions(file: TextIO | None = None) -> None:
    """Write the versions of Python, the platform and the packages that matter.

    Parameters
    ----------
    file
        Where to write; standard output by default.
    """
    lines = [f"python: {platform.python_version()}", f"platform: {platform.platform()}"]
    for package in _PACKAGES:
        try:
            lines.append(f"{package}: {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package}: not installed")
    (file or sys.stdout).write("\n".join(lines) + "\n")
