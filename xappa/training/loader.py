"""Batches ahead of time: a thread makes them while the networks compute."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from torch import Tensor

__all__ = ["Batch", "Prefetched"]

Batch = tuple[Tensor, ...]


class Prefetched:
    """Make a batch for each step in a thread, a few of them ahead.

    Parameters
    ----------
    make
        Maps a step to its batch, the same whenever it is called.
    steps
        The steps.
    depth
        Batches that wait at most.
    """

    def __init__(self, make: Callable[[int], Batch], steps: Iterable[int], depth: int) -> None:
        self._make, self._steps = make, steps
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="xappa batches", daemon=True)
        #: Seconds that were spent waiting for batches.
        self.waited = 0.0

    def __enter__(self) -> Prefetched:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        while True:
            begin = time.perf_counter()
            item = self._queue.get()
            self.waited += time.perf_counter() - begin
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _fill(self) -> None:
        try:
            for step in self._steps:
                if not self._put((step, self._make(step))):
                    return
            self._put(None)
        except BaseException as error:  # it is raised where the batch is asked for
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return True
        return False
