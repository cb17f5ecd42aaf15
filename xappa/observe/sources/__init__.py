"""Observations from the tables and files that archives give out, in one line each."""

from __future__ import annotations

from xappa.observe.sources.bufr import from_bufr
from xappa.observe.sources.frame import from_frame
from xappa.observe.sources.ioda import from_ioda

__all__ = ["from_bufr", "from_frame", "from_ioda"]
