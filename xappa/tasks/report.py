"""What ``print(ds.appa)`` says: what was recognised, guessed and ignored."""

from __future__ import annotations

import xarray as xr

from xappa.bridge import describe
from xappa.errors import XappaError
from xappa.formatting import duration, html_table, text_table

__all__ = ["html", "text"]

_TITLE = "<xappa on a Dataset>"


def _rows(ds: xr.Dataset) -> list[tuple[str, object]]:
    try:
        spec, axes = describe(ds)
    except (XappaError, ExceptionGroup) as error:
        return [("not recognised", str(error))]
    n_times = 1 if axes.time_dim is None else ds.sizes[axes.time_dim]
    when = "none"
    if axes.time is not None:
        when = f"{axes.time}, {n_times} state" + ("s" if n_times > 1 else "")
        when += f" every {duration(spec.time_step)}" if spec.time_step else ""
        when += f", {spec.calendar} calendar"
    member = "none" if axes.member is None else f"{axes.member}, {ds.sizes[axes.member]} members"
    known = {variable.name for variable in spec.variables}
    ignored = [str(name) for name in ds.data_vars if name not in known]
    rows: list[tuple[str, object]] = [
        ("time", when),
        ("grid", spec.grid),
        ("vertical", axes.vertical or "none"),
        ("members", member),
        ("variables", "\n".join(str(variable) for variable in spec.variables)),
    ]
    if axes.guesses:
        rows.append(("guessed", "\n".join(axes.guesses)))
    if ignored:
        rows.append(("ignored", ", ".join(ignored)))
    if label := ds.attrs.get("xappa_model"):
        rows.append(("made with", label))
    return rows


def text(ds: xr.Dataset) -> str:
    """Return the report as text."""
    return text_table(_TITLE, _rows(ds))


def html(ds: xr.Dataset) -> str:
    """Return the report as HTML."""
    return html_table("xappa on a Dataset", _rows(ds))
