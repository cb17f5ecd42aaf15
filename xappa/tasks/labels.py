"""What every output says of itself: how it was made, and what would make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import xarray as xr

from xappa.bridge import Layout
from xappa.models.base import Model
from xappa.observe import ObservationOperator

__all__ = ["count", "finish", "versions"]


def versions() -> str:
    """Return the versions of what determines the numbers."""
    packages = ("azula", "numpy", "torch", "xarray")
    return ", ".join([f"xappa {version('xappa')}", *(f"{p} {version(p)}" for p in packages)])


def finish(ds: xr.Dataset, layout: Layout, model: Model, task: str, **facts: Any) -> xr.Dataset:
    """Write provenance into the attributes of a new Dataset.

    Parameters
    ----------
    ds
        The output, which nobody else holds.
    layout
        The layout of the input.
    model
        The model used.
    task
        Name of the task, for ``history``.
    **facts
        Attributes to write as ``xappa_<name>``; mappings are written as JSON.
    """
    settings = {
        f"xappa_{key}": json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value
        for key, value in facts.items()
        if value is not None
    }
    ds.attrs.update({"xappa_model": model.label, "xappa_versions": versions(), **settings})
    said = ", ".join(f"{k}={v}" for k, v in facts.items() if isinstance(v, (str, int, float)))
    line = f"xappa: {task} with model {model.label}" + (f" ({said})" if said else "")
    former = str(ds.attrs.get("history", ""))
    ds.attrs["history"] = f"{former}\n{line}" if former else line
    if layout.axes.time is not None:
        for entry in layout.fields:
            ds[entry.name].attrs.setdefault("cell_methods", f"{layout.axes.time}: point")
    return ds


def count(operator: ObservationOperator) -> dict[str, dict[str, int]]:
    """Return the numbers of used and rejected observations by array, in words."""
    return {
        name: {status.reason: n for status, n in by_status.items() if n}
        for name, by_status in operator.counts().items()
    }
