"""Tables as the documentation shows them."""

from __future__ import annotations

import pandas as pd

__all__ = ["markdown"]


def markdown(frame: pd.DataFrame, digits: int = 3) -> str:
    """Return a table in Markdown, the index as its first column if it has a name."""
    if frame.index.name is not None:
        frame = frame.reset_index()
    rows = [list(map(str, frame.columns)), ["---"] * frame.shape[1]]
    for row in frame.itertuples(index=False):
        rows.append([_text(value, digits) for value in row])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _text(value: object, digits: int) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.{digits}f}"
    return str(value)
