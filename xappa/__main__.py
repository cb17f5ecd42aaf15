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

    Returns
    -------
    int
        The exit status: 0, or 2 after an error, whose message goes to the standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m xappa", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("versions", help="versions of Python and of the packages that matter")
    show = commands.add_parser("show", help="what a file of data, or a bundle, is recognised as")
    show.add_argument("path", type=Path)
    parsed = parser.parse_args(arguments)
    from xappa.errors import XappaError

    try:
        if parsed.command == "versions":
            from xappa.versions import show_versions

            show_versions()
        else:
            sys.stdout.write(_show(parsed.path) + "\n")
    except XappaError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return 0


def _show(path: Path) -> str:
    import xarray as xr

    import xappa
    from xappa.errors import DataError

    if (path / "model.json").is_file():
        return repr(xappa.open_model(path))
    if not path.exists():
        raise DataError(
            "there is no such file",
            where=str(path),
            expected="a file of data that xarray opens, or the folder of a bundle",
            remedy="correct the path",
        )
    try:
        opened = xr.open_dataset(path)
    # each of xarray's engines raises errors of its own for what it cannot read
    except Exception as error:
        raise DataError(
            "the file cannot be read",
            where=str(path),
            expected="a file of data that xarray opens, or the folder of a bundle",
            got=f"{type(error).__name__}: {str(error).partition('. ')[0]}",
            remedy="pass a NetCDF, Zarr or GRIB file; GRIB needs pip install 'xappa[cfgrib]'",
        ) from error
    with opened as ds:
        return repr(ds.appa)


if __name__ == "__main__":
    sys.exit(main())
