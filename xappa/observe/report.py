"""The operator's diagnostic page: what was understood, used, rejected and guessed."""

from __future__ import annotations

import html as _html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xappa import units
from xappa.cf import from_seconds
from xappa.observe.spec import ObservationSpec, Status

if TYPE_CHECKING:
    from xappa.observe.operator import ObservationOperator

__all__ = ["html", "text"]

HEADINGS = ("array", "quantity", "operator", "units", "error", "all", "used", "rejected")
COVERAGE = ("array", "latitude", "longitude", "pressure", "time")
NUMBERS = frozenset({"all", "used"})
NOTHING = "–"


def text(operator: ObservationOperator) -> str:
    """Return the page as plain text."""
    heading, state = _title(operator)
    lines = [heading, *(f"  {line}" for line in state)]
    if operator.specs:
        lines += ["", *_aligned(HEADINGS, _understood(operator))]
        lines += ["", *_aligned(COVERAGE, _covered(operator))]
    guesses = _guesses(operator)
    if guesses:
        lines += ["", "guesses", *(f"  {name}: {guess}" for name, guess in guesses)]
    return "\n".join(lines)


def html(operator: ObservationOperator) -> str:
    """Return the page as HTML for notebooks."""
    heading, state = _title(operator)
    parts = [f"<strong>{_html.escape(heading)}</strong>"]
    parts += [f"<div>{_html.escape(line)}</div>" for line in state]
    if operator.specs:
        parts += [_table(HEADINGS, _understood(operator)), _table(COVERAGE, _covered(operator))]
    guesses = _guesses(operator)
    if guesses:
        items = "".join(
            f"<li><code>{_html.escape(name)}</code>: {_html.escape(guess)}</li>"
            for name, guess in guesses
        )
        parts.append(f"<details open><summary>guesses</summary><ul>{items}</ul></details>")
    return f"<div class='xappa-operator'>{''.join(parts)}</div>"


def _title(operator: ObservationOperator) -> tuple[str, list[str]]:
    total, used = operator.n_observations, operator.n_used
    share = f" ({100 * used / total:.0f} %)" if total else ""
    arrays = "1 array" if len(operator.specs) == 1 else f"{len(operator.specs)} arrays"
    kind = "linear" if operator.is_linear else "nonlinear"
    heading = (
        f"ObservationOperator, {kind}: {arrays}, {_count(total)} observations, "
        f"{_count(used)} used{share}"
    )
    states = "1 state" if len(operator.times) == 1 else f"{len(operator.times)} states"
    span = _period(operator.times, operator.state.calendar)
    at = "without time" if span == NOTHING else span
    return heading, [f"{operator.state.grid!r}", f"{states}, {at}"]


def _understood(operator: ObservationOperator) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for spec, counts in zip(operator.specs, operator.counts().values(), strict=True):
        rejected = [
            f"{status.reason} {_count(count)}"
            for status, count in counts.items()
            if count and status is not Status.USED
        ]
        rows.append(
            (
                spec.name,
                _quantity(spec),
                _operator(spec),
                spec.units,
                _error(spec),
                _count(spec.size),
                _count(counts[Status.USED]),
                ", ".join(rejected) or NOTHING,
            )
        )
    return rows


def _covered(operator: ObservationOperator) -> list[tuple[str, ...]]:
    return [
        (
            spec.name,
            _span(spec.latitude, "°"),
            _span(spec.longitude, "°"),
            NOTHING if spec.pressure is None else _span(spec.pressure / 100, " hPa"),
            _period(spec.time, operator.state.calendar),
        )
        for spec in operator.specs
    ]


def _guesses(operator: ObservationOperator) -> list[tuple[str, str]]:
    return [
        (spec.name, guess.removeprefix(f"{spec.name}: "))
        for spec in operator.specs
        for guess in spec.guesses
    ]


def _quantity(spec: ObservationSpec) -> str:
    if spec.height is not None:
        return f"{spec.quantity} at {spec.height:g} m"
    return spec.quantity


def _operator(spec: ObservationSpec) -> str:
    extent = "" if spec.footprint is None else spec.footprint.describe()
    if spec.operator == "identity":
        return extent or "identity"
    given = [variable.name for variable in spec.inputs]
    given += [f"{name}={value!r}" for name, value in spec.parameters.items()]
    return ", ".join(filter(None, [f"{spec.operator}({', '.join(given)})", extent]))


def _error(spec: ObservationSpec) -> str:
    std = units.convert(spec.error_std, spec.state_units, spec.units, difference=True)
    structure = "" if spec.structure is None else spec.structure.describe()
    return ", ".join(filter(None, [_span(std, ""), structure]))


def _span(values: np.ndarray, unit: str) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return NOTHING
    low, high = (f"{bound:.4g}" for bound in (finite.min(), finite.max()))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _period(seconds: np.ndarray, calendar: str) -> str:
    finite = seconds[np.isfinite(seconds)]
    if not finite.size:
        return NOTHING
    dates = from_seconds(np.array([finite.min(), finite.max()]), calendar)
    first, last = (_date(date) for date in dates)
    return first if first == last else f"{first} to {last}"


def _date(date: object) -> str:
    """Return a date to the minute, of numpy or cftime."""
    return str(date).replace("T", " ")[:16]


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    table = [headings, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(headings))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if heading in NUMBERS else cell.ljust(width)
            for cell, width, heading in zip(row, widths, headings, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th style='text-align:left'>{heading}</th>" for heading in headings)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td style='text-align:{'right' if heading in NUMBERS else 'left'}'>"
            f"{_html.escape(cell)}</td>"
            for cell, heading in zip(row, headings, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
