"""What holds for all tests."""

from __future__ import annotations

import contextlib

# pyproj before eccodes: recent wheels of eccodes load a PROJ library of their own for the whole
# process, and Python aborts on exit if cartopy's pyproj is loaded after it.
with contextlib.suppress(ImportError):
    import pyproj  # noqa: F401
