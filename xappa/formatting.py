"""Texts and HTML that models and the accessor show of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xappa.models.base import Model

__all__ = ["duration", "html_table", "model_html", "model_text", "text_table"]


def duration(seconds: float | None) -> str:
    """Return a time step as text.

    >>> duration(21600.0), duration(None)
    ('6 hours', 'none')
    """
    if seconds is None:
        return "none"
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length and abs(seconds / length - round(seconds / length)) < 1e-6:
            count = round(seconds / length)
            return f"{count} {unit if count != 1 else unit[:-1]}"
    return f"{seconds:g} seconds"


def text_table(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    """Return a title and aligned rows of names and values; values may have several lines."""
    rows = [(name, str(value)) for name, value in rows]
    width = max((len(name) for name, _ in rows), default=0)
    lines = [title]
    for name, value in rows:
        first, *more = value.split("\n") or [""]
        lines.append(f"    {name:<{width}}  {first}")
        lines += [f"    {'':<{width}}  {line}" for line in more]
    return "\n".join(lines)


def html_table(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    """Return the same as a small HTML table."""
    body = "".join(
        f"<tr><th style='text-align:left;vertical-align:top'>{escape(name)}</th>"
        f"<td style='text-align:left;white-space:pre-wrap'>{escape(str(value))}</td></tr>"
        for name, value in rows
    )
    return f"<div><strong>{escape(title)}</strong><table>{body}</table></div>"


def _model_rows(model: Model) -> list[tuple[str, Any]]:
    spec = model.spec
    rows: list[tuple[str, Any]] = [
        ("variables", "\n".join(str(variable) for variable in spec.variables)),
        ("grid", spec.grid),
        ("time step", duration(spec.time_step)),
        *model.description,
        ("parameters", "\n".join(_counts(model))),
        ("provenance", _mapping(model.provenance)),
    ]
    if model.scores:
        rows.append(("scores", _mapping(model.scores)))
    if model.has_weights:
        rows.append(("hash", model.hash[:16]))
    return rows


def _counts(model: Model) -> list[str]:
    counts = model.parameter_counts
    return [f"{sum(counts.values()):,}", *(f"{name} {count:,}" for name, count in counts.items())]


def _mapping(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{key}: {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_value, value)) if len(value) == 2 else ", ".join(map(_value, value))
    return str(value)


def model_text(model: Model) -> str:
    """Return what a model is, as text."""
    return text_table(f"<xappa.{type(model).__name__} {model.name!r}>", _model_rows(model))


def model_html(model: Model) -> str:
    """Return what a model is, as HTML."""
    return html_table(f"xappa.{type(model).__name__} {model.name!r}", _model_rows(model))
