"""What the demos print: headings, and how long each part took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["heading", "print_timings", "timed"]

_TIMINGS: dict[str, float] = {}


def heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    _TIMINGS[what] = time.perf_counter() - start


def print_timings() -> None:
    heading("Timings")
    for what, seconds in _TIMINGS.items():
        print(f"{what:<36}{seconds:6.1f} s")
