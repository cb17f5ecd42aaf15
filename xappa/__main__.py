"""``python -m xappa``: versions, and what a Dataset or a bundle is recognised as."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments
        Command-line arguments; those of the process by default.
    """
    parser = argparse.ArgumentParser(prog="python -m xappa", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("versions", help="versions of Python and of the packages that matter")
    show = commands.add_parser("show", help="what a file of data, or a bundle, is recognised as")
    show.add_argument("path", type=Path)
    parsed = parser.parse_args(arguments)
    if parsed.command == "versions":
        from xappa.versions import show_versions

        show_versions()
    else:
        sys.stdout.write(_show(parsed.path) + "\n")
    return 0


def _show(path: Path) -> str:
    import xarray as xr

    import xappa

    if (path / "model.json").is_file():
        return repr(xappa.open_model(path))
    with xr.open_dataset(path) as ds:
        return repr(ds.appa)


if __name__ == "__main__":
    sys.exit(main())
