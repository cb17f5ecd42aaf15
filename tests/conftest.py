"""What holds for all tests."""

from __future__ import annotations

import contextlib

import pytest

# pyproj before eccodes: recent wheels of eccodes load a PROJ library of their own for the whole
# process, and Python aborts on exit if cartopy's pyproj is loaded after it.
with contextlib.suppress(ImportError):
    import pyproj  # noqa: F401


@pytest.fixture(autouse=True)
def _guesses_are_told_again() -> None:
    """Let no test depend on what another one was told."""
    from xappa.errors import forget_warnings

    forget_warnings()
