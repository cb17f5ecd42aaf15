"""Plots of analyses: maps of mean, increment and spread, rank histograms, ensembles at a station.

Every function returns the matplotlib Axes, draws into ``ax=`` if one is given, and takes titles and
labels from attributes. Where a DataArray is asked for, a Dataset with only one fitting variable
will do. Maps are drawn on plain latitude-longitude axes; with ``projection=`` (a cartopy
projection) or on a cartopy GeoAxes they are projected. Coastlines are drawn if Natural Earth's are
on this machine; nothing is downloaded unless ``coastlines=True``.

Import cartopy before the first GRIB file is opened: recent wheels of eccodes load a PROJ library of
their own for the whole process, and Python may crash on exit if pyproj comes second.
"""

from __future__ import annotations

from xappa.plot.maps import increment_map, mean_map, spread_map
from xappa.plot.ranks import rank_histogram
from xappa.plot.series import station_fan

__all__ = ["increment_map", "mean_map", "rank_histogram", "spread_map", "station_fan"]
