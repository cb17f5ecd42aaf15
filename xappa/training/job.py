"""Trainings that a TOML file describes.

::

    name = "era5-uk"
    preset = "tiny"
    seed = 0

    [data]
    path = "era5.zarr"
    variables = ["t2m", "t"]
    levels = [500, 850]
    period = ["1990-01-01", "2017-12-31"]
    validation = ["2018-01-01", "2018-12-31"]

    [training]
    denoiser_steps = 3000

Only ``data.path`` is needed. Paths are relative to the file. An entry ``start = "speedy-t31"``,
above the tables, names a model to go on from, in the catalogue or by the path of its bundle;
variables, levels and sizes are then the model's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xappa.errors import ArgumentError, DataError
from xappa.training.config import AppaTraining
from xappa.training.settings import TrainingSettings, unknown_key

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Job", "said_in", "settings_of", "start_in"]

Settings = TypeVar("Settings", bound=TrainingSettings)

_TOP = ("name", "preset", "seed", "start", "data", "training")
_DATA = ("path", "variables", "levels", "period", "validation")


@dataclass(frozen=True)
class Job:
    """A training from a file.

    Parameters
    ----------
    name
        The model's name.
    config
        Sizes and steps.
    seed
        The seed.
    path
        Of the data: whatever xarray opens, or a pattern of NetCDF files; None without any.
    variables
        Names of the variables; None for all.
    levels
        Values of their vertical coordinate, in its units; None for all.
    period, validation
        First and last time of the data to learn from, and to judge by; None for all, and for the
        end of the former.
    """

    name: str
    config: AppaTraining
    seed: int | None = 0
    path: Path | None = None
    variables: list[str] | None = None
    levels: list[float] | None = None
    period: tuple[str, str] | None = None
    validation: tuple[str, str] | None = None

    @classmethod
    def read(cls, path: str | Path) -> Job:
        """Read a TOML file.

        Raises
        ------
        ArgumentError
            If it cannot be read, or says what is not known.
        """
        path = Path(path)
        document = _document(path)
        data = _table(document, "data", path)
        source = data.get("path")
        return cls(
            name=_text(document.get("name", path.stem), "name", path),
            config=_settings(document, AppaTraining, path),
            seed=document.get("seed", 0),
            path=None if source is None else path.parent / _text(source, "data.path", path),
            variables=data.get("variables"),
            levels=_numbers(data, "levels", path),
            period=_pair(data, "period", path),
            validation=_pair(data, "validation", path),
        )

    def open(self) -> tuple[xr.Dataset, xr.Dataset | None]:
        """Open the data: those to learn from, and those to judge by, if they are given.

        Raises
        ------
        DataError
            If there are none, or they cannot be read.
        """
        import xarray as xr

        expected = "data.path: a Zarr store, a file that xarray opens, or a pattern of NetCDF files"
        if self.path is None:
            raise DataError("the configuration names no data", where="[data]", expected=expected)
        try:
            if "*" in str(self.path):
                ds = xr.open_mfdataset(str(self.path))
            else:
                ds = xr.open_dataset(self.path, chunks={})
        # each of xarray's engines raises errors of its own for what it cannot read
        except Exception as error:
            raise DataError(
                "the training data cannot be read",
                where=str(self.path),
                expected=expected,
                got=f"{type(error).__name__}: {str(error).partition('. ')[0]}",
                remedy="correct the path, which is relative to the configuration",
            ) from error
        ds = _at_levels(ds, self.levels)
        return _during(ds, self.period), (
            None if self.validation is None else _during(ds, self.validation)
        )


def settings_of(config: Any, kind: type[Settings]) -> Settings:
    """Return the settings that a preset's name, a file or the settings themselves give.

    Parameters
    ----------
    config
        One of these, or None for the defaults.
    kind
        What is trained.

    Raises
    ------
    ArgumentError
        If it is none of these.
    """
    if config is None:
        return kind()
    if isinstance(config, kind):
        return config
    if _is_file(config):
        return _settings(_document(Path(config)), kind, Path(config))
    if isinstance(config, str):
        return kind.preset(config)
    name = f"xappa.{kind.__name__}"
    raise ArgumentError(
        "config is no configuration",
        where="config=",
        expected=f"one of {', '.join(kind.presets)}, the path of a TOML file, {name}(...)",
        got=type(config).__name__,
        remedy=f"write for example {name}(batch=8)",
    )


def said_in(config: Any) -> frozenset[str]:
    """Return the names of the settings that somebody chose, rather than a preset or a default.

    These are the entries of a file's table ``[training]``, or what differs from the defaults in
    settings themselves.
    """
    if _is_file(config):
        return frozenset(_table(_document(Path(config)), "training", Path(config)))
    if not isinstance(config, TrainingSettings):
        return frozenset()
    usual, names = type(config)(), [entry.name for entry in fields(config)]
    return frozenset(name for name in names if getattr(config, name) != getattr(usual, name))


def start_in(config: Any) -> str | Path | None:
    """Return the model that a file starts from, if any: by its name in the catalogue, or a path.

    Raises
    ------
    ArgumentError
        If it is no text.
    """
    from xappa.models.catalogue import catalogue

    if not _is_file(config) or "start" not in (document := _document(Path(config))):
        return None
    start = _text(document["start"], "start", Path(config))
    return start if start in catalogue() else Path(config).parent / start


def _is_file(config: Any) -> bool:
    return isinstance(config, Path) or (isinstance(config, str) and config.endswith(".toml"))


def _document(path: Path) -> Mapping[str, Any]:
    """Read a TOML file; its entries are known."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ArgumentError(
            "the configuration cannot be read",
            where=str(path),
            expected="a TOML file",
            got=f"{type(error).__name__}: {error}",
            remedy="correct the path or the file",
        ) from error
    data = _table(document, "data", path)
    for keys, known, what in ((document, _TOP, "the entry"), (data, _DATA, "the entry data.")):
        for key in keys:
            if key not in known:
                raise unknown_key(key, known, what, str(path))
    return document


def _settings(document: Mapping[str, Any], kind: type[Settings], path: Path) -> Settings:
    training = _table(document, "training", path)
    if "start" in document and not kind.can_start:
        raise ArgumentError(
            f"a training with {kind.__name__} starts from no model",
            where=str(path),
            expected="no entry start",
            got=repr(document["start"]),
            remedy="leave it out",
        )
    return kind.preset(str(document.get("preset", "tiny")), **training)


def _table(document: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, Mapping):
        raise _wrong(path, name, "a table", table)
    return table


def _text(value: Any, name: str, path: Path) -> str:
    if not isinstance(value, str):
        raise _wrong(path, name, "text", value)
    return value


def _pair(data: Mapping[str, Any], name: str, path: Path) -> tuple[str, str] | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise _wrong(path, f"data.{name}", "the first and the last time", value)
    return str(value[0]), str(value[1])


def _numbers(data: Mapping[str, Any], name: str, path: Path) -> list[float] | None:
    values = data.get(name)
    if values is None:
        return None
    good = isinstance(values, list) and values
    if not good or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise _wrong(path, f"data.{name}", "a list of numbers", values)
    return [float(value) for value in values]


def _wrong(path: Path, name: str, expected: str, got: Any) -> ArgumentError:
    return ArgumentError(
        f"{name} is not what it must be", where=str(path), expected=expected, got=repr(got)
    )


def _at_levels(ds: xr.Dataset, levels: list[float] | None) -> xr.Dataset:
    """Return a Dataset at some of its levels."""
    if levels is None:
        return ds
    from xappa.cf import find_axes

    vertical = find_axes(ds).vertical
    there = [] if vertical is None or vertical not in ds.indexes else list(ds.indexes[vertical])
    if missing := [level for level in levels if level not in there]:
        raise DataError(
            "the data have no such levels",
            where="data.levels",
            expected=f"some of {', '.join(f'{level:g}' for level in there)}"
            if there
            else "a vertical coordinate of pressure that is an index",
            got=", ".join(f"{level:g}" for level in missing),
            remedy="write levels in the units of the coordinate, or leave the entry out",
        )
    return ds.sel({vertical: levels})


def _during(ds: xr.Dataset, period: tuple[str, str] | None) -> xr.Dataset:
    """Return a Dataset between two times."""
    if period is None:
        return ds
    from xappa.cf import find_axes

    name = find_axes(ds).time
    if name is None or ds[name].ndim != 1:
        raise DataError(
            "a period needs a time axis",
            where="data.period",
            expected="valid times along one dimension",
            got="none" if name is None else f"{name} with dimensions {ds[name].dims}",
            remedy="leave the period out",
        )
    (dim,) = ds[name].dims  # of which it need not be the index: cfgrib's is called time
    return ds.isel({dim: ds[name].to_index().slice_indexer(*period)})
