"""``python -m xappa``: versions, what data or a bundle are recognised as, training, nature runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

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
    for add in (_add_versions, _add_show, _add_train, _add_nature_run):
        add(commands)
    parsed = parser.parse_args(arguments)
    from xappa.errors import XappaError

    try:
        parsed.run(parsed)
    except XappaError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return 0


def _add_versions(commands: Any) -> None:
    added = commands.add_parser(
        "versions", help="versions of Python and of the packages that matter"
    )
    added.set_defaults(run=_versions)


def _versions(_: argparse.Namespace) -> None:
    from xappa.versions import show_versions

    show_versions()


def _add_show(commands: Any) -> None:
    added = commands.add_parser("show", help="what a file of data, or a bundle, is recognised as")
    added.add_argument("path", type=Path)
    added.set_defaults(run=_show)


def _show(parsed: argparse.Namespace) -> None:
    sys.stdout.write(_description(parsed.path) + "\n")


def _description(path: Path) -> str:
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


def _add_nature_run(commands: Any) -> None:
    added = commands.add_parser(
        "nature-run",
        help="years of the SPEEDY model's weather, 6-hourly, as a Zarr store; goes on if killed",
    )
    added.add_argument("--output", type=Path, required=True, help="the store to write")
    length = added.add_mutually_exclusive_group(required=True)
    length.add_argument("--years", type=int, help="how many years")
    length.add_argument("--stop", help="or the first time that is not written")
    added.add_argument("--start", default="2001-01-01", help="first time that is written")
    added.add_argument("--spin-up", default="90D", help="time from rest to the start")
    added.add_argument("--seed", type=int, default=0, help="of the perturbation of the rest")
    added.add_argument("--levels", type=float, nargs="+", help="pressures in hPa")
    added.add_argument("--native", help="interval of states on the model's own levels, as 1D")
    added.set_defaults(run=_nature_run)


def _nature_run(parsed: argparse.Namespace) -> None:
    from xappa.osse import nature_run

    levels = {} if parsed.levels is None else {"levels": parsed.levels}
    ds = nature_run(
        parsed.output,
        years=parsed.years,
        stop=parsed.stop,
        start=parsed.start,
        spin_up=parsed.spin_up,
        seed=parsed.seed,
        native=parsed.native,
        **levels,
    )
    sys.stdout.write(f"{parsed.output}: {ds.sizes['time']} states\n{ds.attrs['settings']}\n")


def _add_train(commands: Any) -> None:
    added = commands.add_parser("train", help="train a model as a TOML file says")
    added.add_argument("config", type=Path)
    added.add_argument(
        "--output",
        type=Path,
        help="folder of the checkpoints, the log and the bundle 'model'; by default the name of "
        "the configuration, here",
    )
    again = added.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="go on with what the folder holds: the default"
    )
    again.add_argument("--restart", action="store_true", help="replace what the folder holds")
    added.set_defaults(run=_train)


def _train(parsed: argparse.Namespace) -> None:
    import os

    from xappa.training import train
    from xappa.training.job import Job

    job = Job.read(parsed.config)
    folder = parsed.output or Path(parsed.config.stem)
    ds, validation = job.open()
    model = train(
        ds,
        parsed.config,
        variables=job.variables,
        seed=job.seed,
        name=job.name,
        folder=folder,
        resume=not parsed.restart,
        validation=validation,
    )
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started, the first
        path = model.save(folder / "model", overwrite=True)
        sys.stdout.write(f"{model!r}\n\n{path}\n")


if __name__ == "__main__":
    sys.exit(main())
