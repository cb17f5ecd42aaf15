"""Radiosondes as experiments with SPEEDY and the local ensemble transform Kalman filter have them.

In Miyoshi's SPEEDY-LETKF each station observes both wind components, temperature and specific
humidity on all levels and the surface pressure, every six hours, with independent Gaussian errors.
Its regular network (``speedy/obs/station.f90``) has a station at every other grid point in both
directions, without the three rows next to each pole: 1,008 stations on the T30 grid. Others have
416 stations where radiosondes are, or observe humidity in the lower troposphere alone.

References
----------
Miyoshi (2005), Ensemble Kalman filter experiments with a primitive-equation global model, PhD
thesis, University of Maryland, https://hdl.handle.net/1903/3046; its code,
https://github.com/takemasa-miyoshi/letkf; Greybush et al. (2011), doi:10.1175/2010MWR3328.1;
Kondo & Miyoshi (2016), doi:10.1175/MWR-D-15-0388.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa import units
from xappa.cf import from_seconds
from xappa.errors import ArgumentError
from xappa.observe.networks.instruments import Instrument, read_instrument
from xappa.observe.networks.stations import Times, place_stations, read_table
from xappa.observe.networks.template import regular_times

if TYPE_CHECKING:
    import pandas as pd

    from xappa.bridge import VariableSpec
    from xappa.grid import Grid

__all__ = ["RADIOSONDE_ERRORS", "radiosondes"]

RADIOSONDE_ERRORS: dict[str, tuple[float, str]] = {
    "eastward_wind": (1.0, "m s-1"),
    "northward_wind": (1.0, "m s-1"),
    "air_temperature": (1.0, "K"),
    "specific_humidity": (1e-3, "kg kg-1"),
    "surface_air_pressure": (100.0, "Pa"),
}
"""What a radiosonde observes, and the standard deviations of its errors in SPEEDY-LETKF."""
_SURFACE = "surface_air_pressure"
_HUMIDITY = "specific_humidity"
_POLAR_ROWS = 3


def radiosondes(
    ds: xr.Dataset,
    stations: pd.DataFrame | xr.Dataset | xr.DataArray | None = None,
    *,
    every: int = 2,
    error: Mapping[str, float] | None = None,
    humidity_below: float | None = None,
    interval: Any = "6h",
    times: Times = None,
    pressure: Sequence[float] | None = None,
    bias_std: Mapping[str, float] | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
) -> xr.Dataset:
    """Return a network of radiosondes, as SPEEDY-LETKF has it.

    Parameters
    ----------
    ds
        Gives grid, levels, times, units and metadata; its values are not looked at. Observed are
        those of its variables whose standard names `RADIOSONDE_ERRORS` lists: winds, temperature
        and specific humidity on levels, and the surface pressure.
    stations
        A table of stations, or another network, whose stations they are; see
        `stations_from_table`. None for a regular network on the grid.
    every
        Spacing of the regular network in grid points. On a global grid it leaves out three rows
        next to each pole.
    error
        Standard deviations by name or standard name, in the units of `ds`, where they are not to
        be those of `RADIOSONDE_ERRORS`: 1 m/s, 1 K, 1 g/kg and 1 hPa, in whatever units `ds` has.
    humidity_below
        Pa: humidity is observed below this level only, that is at higher pressures.
    interval
        Time between soundings, counted from midnight.
    times
        When there are soundings, instead of `interval`.
    pressure
        Pa, the levels that are observed; by default all levels of `ds`.
    bias_std
        Standard deviations of a constant bias of each station, by name or standard name.
    dropout
        Share of the soundings that are missing.
    seed
        Seed of the dropouts; drawn if None, and recorded as ``xappa_network_seed``.

    Returns
    -------
    Dataset
        One variable for each quantity, dims (time, air_pressure, station) or (time, station), all
        NaN. Humidity has levels ``air_pressure_...`` of its own if they are not those of the rest.

    Raises
    ------
    ArgumentError
        If `ds` has nothing that radiosondes observe, or an argument cannot be used.
    ErrorCovarianceError
        If an error is not positive.
    CoordinateError
        If the table has no positions.

    References
    ----------
    Miyoshi (2005), https://hdl.handle.net/1903/3046; Greybush et al. (2011),
    doi:10.1175/2010MWR3328.1; Kondo & Miyoshi (2016), doi:10.1175/MWR-D-15-0388.1.

    Examples
    --------
    >>> levels = ("level", [850.0, 500.0], {"units": "hPa", "standard_name": "air_pressure"})
    >>> lat, lon = np.linspace(87, -87, 48), np.arange(96) * 3.75
    >>> t = ("level", "lat", "lon"), np.zeros((2, 48, 96)), {"units": "degC"}
    >>> ds = xr.Dataset({"t": t}, {"level": levels, "lat": lat, "lon": lon})
    >>> network = radiosondes(ds)
    >>> network.t.sizes, network.t.attrs["error_std"]
    (Frozen({'air_pressure': 2, 'station': 1008}), 1.0)
    """
    where = "radiosondes"
    observed = _observed(ds, where)
    errors = _default_errors(ds, observed) | _by_name(error, observed, "error", where)
    instrument = read_instrument(
        ds,
        [variable.name for variable in observed],
        errors,
        where=where,
        bias_std=_by_name(bias_std, observed, "bias_std", where),
        dropout=dropout,
        seed=seed,
        pressure=pressure,
    )
    if humidity_below is not None:
        instrument = _dry_above(instrument, humidity_below)
    if stations is None:
        columns = _regular(instrument.state.grid, every)
    else:
        columns = read_table(stations, where)
    if times is None and instrument.window is not None:
        times = from_seconds(regular_times(instrument, interval), instrument.state.calendar)
    placed: xr.Dataset = place_stations(ds, instrument, columns, times)
    return placed


def _observed(ds: xr.Dataset, where: str) -> list[VariableSpec]:
    """Return the variables that a radiosonde observes."""
    from xappa.bridge import describe

    state, _ = describe(ds)
    found = [
        variable
        for variable in state.variables
        if variable.standard_name in RADIOSONDE_ERRORS
        and (variable.levels is None) == (variable.standard_name == _SURFACE)
    ]
    if not found:
        raise ArgumentError(
            "the Dataset has nothing that radiosondes observe",
            where=where,
            expected=f"variables on levels with standard_name {', '.join(RADIOSONDE_ERRORS)}",
            got=", ".join(map(str, state.variables)) or "no variables",
            remedy="set the attribute standard_name of its variables",
        )
    return found


def _default_errors(ds: xr.Dataset, observed: Sequence[VariableSpec]) -> dict[str, float]:
    errors = {}
    for variable in observed:
        std, unit = RADIOSONDE_ERRORS[str(variable.standard_name)]
        own = str(units.dequantify(ds[variable.name]).attrs.get("units") or variable.units)
        errors[variable.name] = float(units.convert(std, unit, own, difference=True))
    return errors


def _by_name(
    given: Mapping[str, float] | None, observed: Sequence[VariableSpec], word: str, where: str
) -> dict[str, float]:
    """Return what is given by standard names, by the names of variables."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"radiosondes observe several quantities, and {word} is one number",
            where=f"{where}, {word}=",
            expected="numbers by name or standard name",
            got=repr(given),
            remedy=f"{word}={{'air_temperature': ...}}",
        )
    named = {str(variable.standard_name): variable.name for variable in observed}
    return {named.get(key, key): value for key, value in given.items()}


def _dry_above(instrument: Instrument, limit: float) -> Instrument:
    channels = []
    for channel in instrument.channels:
        if channel.variable.standard_name == _HUMIDITY and channel.levels is not None:
            channel = replace(channel, levels=tuple(p for p in channel.levels if p >= limit))
        channels.append(channel)
    return replace(instrument, channels=tuple(channels))


def _regular(grid: Grid, every: int) -> dict[str, np.ndarray]:
    """Return every so-many grid points, without the rows next to the poles."""
    if isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1:
        raise ArgumentError(
            "the spacing of stations is no number of grid points",
            where="radiosondes, every=",
            expected="an integer, 1 or more",
            got=repr(every),
        )
    polar = _POLAR_ROWS if grid.is_global else 0
    # from the south, as SPEEDY's rows are counted
    rows = np.sort(grid.latitude)[polar : grid.latitude.size - polar : every]
    latitude, longitude = np.meshgrid(rows, grid.longitude[::every], indexing="ij")
    names = np.array([f"station {k:03d}" for k in range(latitude.size)], dtype=str)
    return {"station": names, "latitude": latitude.ravel(), "longitude": longitude.ravel()}
