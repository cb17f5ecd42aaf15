"""What a training says: rows of ``log.csv``, and TensorBoard where it is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xappa.errors import CheckpointError
from xappa.training.checkpoint import write_whole

__all__ = ["FIELDS", "Log"]

FIELDS = ("stage", "step", "name", "value")

Row = tuple[str, int, str, float]


class Log:
    """Rows (stage, step, name, value), kept in memory and, with a folder, written to it.

    Parameters
    ----------
    folder
        Where ``log.csv`` is; None to write nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.rows: list[Row] = []
        self.path = None if folder is None else folder / "log.csv"
        self._board: Any = None
        if folder is not None and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(folder / "tensorboard")

    def rewind(self, stages: Mapping[str, int]) -> None:
        """Go back to what was written until a step of each stage; all else is dropped."""
        if self.path is None:
            return
        if self.path.is_file():
            with self.path.open(newline="") as file:
                read = [_row(entry) for entry in csv.DictReader(file)]
            rows = [row for row in read if row is not None]
            self.rows = [row for row in rows if row[1] <= stages.get(row[0], -1)]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([FIELDS, *self.rows])
        write_whole(self.path, lambda file: _write(file, text.getvalue()))

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Write values of a step.

        Raises
        ------
        CheckpointError
            If the file cannot be written.
        """
        rows = [(stage, step, name, float(value)) for name, value in values.items()]
        self.rows += rows
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{stage}/{name}", value, step)
        if self.path is None:
            return
        try:
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerows(rows)
        except OSError as error:
            raise CheckpointError(
                "the log of the training cannot be written",
                where=str(self.path),
                got=f"{type(error).__name__}: {error}",
                remedy="make space and train again: it goes on from the last checkpoint",
            ) from error

    def last(self, stage: str, kind: str) -> dict[str, float]:
        """Return the last values whose names begin with a kind, such as ``reconstruction/``."""
        found = {n: v for s, _, n, v in self.rows if s == stage and n.startswith(f"{kind}/")}
        return {name.removeprefix(f"{kind}/"): value for name, value in found.items()}

    def close(self) -> None:
        """Close what is open."""
        if self._board is not None:
            self._board.close()


def _row(entry: Mapping[str, Any]) -> Row | None:
    try:
        return entry["stage"], int(entry["step"]), entry["name"], float(entry["value"])
    except (KeyError, TypeError, ValueError):  # the last line of a killed process may be torn
        return None


def _write(file: Any, text: str) -> None:
    file.write(text.encode())
