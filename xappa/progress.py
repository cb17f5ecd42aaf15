"""Progress bars."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from xappa.options import get_option

__all__ = ["progress_bar"]


def progress_bar(show: bool | None, task: str) -> Callable[[Any], Any] | None:
    """Return a function that wraps an iterable in a progress bar, or None to show nothing.

    Parameters
    ----------
    show
        The argument of the task; None follows the option ``progress``.
    task
        What is said beside the bar.
    """
    if not (get_option("progress") if show is None else show):
        return None

    def wrap(steps: Any) -> Any:
        with warnings.catch_warnings():
            # Without ipywidgets the bar is of text, which serves as well.
            warnings.filterwarnings("ignore", message="IProgress not found")
            from tqdm.auto import tqdm

        return tqdm(steps, desc=task, unit="step", leave=False)

    return wrap
