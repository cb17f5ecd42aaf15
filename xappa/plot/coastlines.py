"""Coastlines of Natural Earth, if they are on this machine.

They are looked for where cartopy keeps its data, and read with pyshp, which cartopy brings. Cartopy
itself is not imported for this: it would load PROJ, which may crash Python on exit after a GRIB
file was opened (see `xappa.plot`).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xappa._optional import require
from xappa.errors import DataError
from xappa.plot.labels import PURPOSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["coastlines", "draw_coastlines"]

Line = np.ndarray[Any, Any]
FOLDERS = ("pre_existing_data_dir", "data_dir", "repo_data_dir")
WIDE = 90.0  # degrees of longitude; a wider map takes the coarse lines


def coastlines(wanted: bool | None, width: float) -> list[Line]:
    """Return coastlines as lines of longitude and latitude.

    Parameters
    ----------
    wanted
        None: those that are on this machine, if any; True: downloaded if need be; False: none.
    width
        Of the map, in degrees of longitude; decides how fine they are.

    Returns
    -------
    list of (n, 2) arrays
        Degrees east and north.

    Raises
    ------
    DataError
        If they are wanted and cannot be had.
    MissingDependencyError
        If they are wanted, and cartopy is not installed.
    """
    if wanted is False:
        return []
    scales = ("110m", "50m") if width > WIDE else ("50m", "110m")
    path = _local(scales)
    if path is None and wanted:
        path = _download(scales[0])
    return [] if path is None else _read(path)


def _local(scales: tuple[str, ...]) -> Path | None:
    """Find a file among those that cartopy would find; nothing is downloaded."""
    if not all(map(importlib.util.find_spec, ("cartopy", "shapefile"))):
        return None
    for scale in scales:
        for folder in _folders():
            path = folder / "shapefiles/natural_earth/physical" / f"ne_{scale}_coastline.shp"
            if path.is_file():
                return path
    return None


def _folders() -> list[Path]:
    """Return cartopy's data folders: as it is configured, or if not imported as it would be."""
    if "cartopy" in sys.modules:
        config = sys.modules["cartopy"].config
        return [Path(config[key]) for key in FOLDERS if str(config.get(key) or ".") != "."]
    existing = os.environ.get("CARTOPY_DATA_DIR")
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return [*([Path(existing)] if existing else []), Path(home) / "cartopy"]


def _download(scale: str) -> Path:
    """Let cartopy download the coastlines into its data folder."""
    shapereader = require("cartopy.io.shapereader", "drawing coastlines")
    try:
        return Path(shapereader.natural_earth(scale, "physical", "coastline"))
    except OSError as error:
        raise DataError(
            "the coastlines cannot be downloaded",
            where="coastlines=True",
            expected=f"Natural Earth's physical/ne_{scale}_coastline",
            got=str(error),
            remedy="pass coastlines=False, or put the shapefile into cartopy.config['data_dir']",
        ) from error


def _read(path: Path) -> list[Line]:
    lines = []
    with require("shapefile", "reading coastlines").Reader(str(path)) as reader:
        for shape in reader.iterShapes():
            points = np.asarray(shape.points, dtype=np.float64).reshape(-1, 2)
            lines += np.split(points, list(shape.parts)[1:])
    return [line for line in lines if len(line) > 1]


def draw_coastlines(ax: Axes, lines: list[Line], x: Line, y: Line, transform: Any) -> None:
    """Draw lines on a map with edges x and y.

    On plain axes they are repeated a full turn to the west and east, so that they meet the
    longitudes of either convention.
    """
    if transform is None:
        turns = [np.array([degrees, 0.0]) for degrees in (-360.0, 0.0, 360.0)]
        lines = [line + turn for turn in turns for line in lines]
        lines = [
            line
            for line in lines
            if _meet(line[:, 0], x) and _meet(line[:, 1], y)  # the axes clip what is left
        ]
    if not lines:
        return
    collections = require("matplotlib.collections", PURPOSE)
    projected = {} if transform is None else {"transform": transform._as_mpl_transform(ax)}
    style = {"colors": "0.15", "linewidths": 0.6, "alpha": 0.8, "zorder": 3, "label": "coastlines"}
    ax.add_collection(collections.LineCollection(lines, **style, **projected), autolim=False)


def _meet(line: Line, edges: Line) -> bool:
    return bool(line.max() >= edges.min() and line.min() <= edges.max())
