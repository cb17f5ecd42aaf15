"""What every output says of itself: how it was made, and what would make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import xarray as xr

from xappa.bridge import Layout
from xappa.errors import GuessWarning, warn
from xappa.models.base import Model, Prior
from xappa.observe import ObservationOperator, ObservationSpec

__all__ = ["count", "finish", "versions", "warn_of_guesses"]


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
        f"xappa_{key}": _writable(value) for key, value in facts.items() if value is not None
    }
    # What made the input is in its history: here it would be taken for what made the output.
    ds.attrs = {k: v for k, v in ds.attrs.items() if not str(k).startswith("xappa_")}
    ds.attrs.update({"xappa_model": model.label, "xappa_versions": versions(), **settings})
    said = ", ".join(f"{k}={v}" for k, v in facts.items() if isinstance(v, (str, int, float)))
    line = f"xappa: {task} with model {model.label}" + (f" ({said})" if said else "")
    former = str(ds.attrs.get("history", ""))
    ds.attrs["history"] = f"{former}\n{line}" if former else line
    if layout.axes.time is not None:
        for entry in layout.fields:
            ds[entry.name].attrs.setdefault("cell_methods", f"{layout.axes.time}: point")
    return ds


def _writable(value: Any) -> Any:
    """Return a value as an attribute that files can hold."""
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, int) and abs(value) >= 2**63:
        return str(value)
    return value


def warn_of_guesses(
    ds: xr.Dataset, layout: Layout, model: Model, specs: Sequence[ObservationSpec] = ()
) -> None:
    """Say what was guessed of a Dataset and of observations.

    Of a Dataset that this model made nothing is said: its names are the model's. With observations
    it is said, too, what is not known of the model.
    """
    own = () if ds.attrs.get("xappa_model") == model.label else layout.guesses
    doubts = model.doubts if specs and isinstance(model, Prior) else ()
    for guess in dict.fromkeys((*own, *(g for spec in specs for g in spec.guesses), *doubts)):
        warn(guess, GuessWarning)


def count(operator: ObservationOperator) -> dict[str, dict[str, int]]:
    """Return the numbers of used and rejected observations by array, in words."""
    return {
        name: {status.reason: n for status, n in by_status.items() if n}
        for name, by_status in operator.counts().items()
    }
