r"""Stations: at random, evenly spread, or from a table.

Evenly spread stations form a Fibonacci lattice. With the golden ratio :math:`\Phi`, station k of n
has :math:`a_k = (k + 1/2) / n` and :math:`b_k = \{(k + 1/2) / \Phi\}` in the unit square, and

.. math:: \sin \varphi_k = s + (n - s)\, a_k, \quad \lambda_k = w + (e - w)\, b_k

with the sines s, n of the southern and northern bound and the western and eastern bound w, e. The
map preserves area, so that the density is the same everywhere in the domain.

References
----------
González (2010), doi:10.1007/s11004-009-9257-x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xappa.cf import to_seconds
from xappa.cf.names import COORDINATE_NAMES, STATION_NAMES
from xappa.diffusion.noise import generator
from xappa.errors import ArgumentError, CoordinateError, ObservationTypeError
from xappa.observe.networks.instruments import (
    Errors,
    Instrument,
    Variables,
    count_problem,
    read_instrument,
)
from xappa.observe.networks.template import (
    FLAG,
    about,
    flags,
    network,
    time_coordinate,
    with_dropouts,
)

if TYPE_CHECKING:
    import pandas as pd

    from xappa.grid import Grid

__all__ = [
    "equal_area_stations",
    "place_stations",
    "random_stations",
    "read_table",
    "stations_from_table",
]

Times = npt.ArrayLike | xr.DataArray | None

_ALTITUDES = ("altitude", "elevation", "elev", "station_elevation")
_GOLDEN = (1 + np.sqrt(5)) / 2


def random_stations(
    ds: xr.Dataset,
    n: int,
    *,
    variable: Variables,
    error: Errors = None,
    seed: int,
    times: Times = None,
    pressure: Sequence[float] | None = None,
    bias_std: Errors = None,
    dropout: float = 0.0,
) -> Any:
    """Place stations at random, with equal density everywhere in the domain of a Dataset.

    Parameters
    ----------
    ds
        Gives domain, times, units and metadata; its values are not looked at.
    n
        Number of stations.
    variable
        Name of the variable of `ds` that the stations observe; or several names, or errors by
        name.
    error
        Standard deviation of the observation error, in the units of the variable; by name for
        several.
    seed
        Seed of the positions and dropouts; station k is the same for every `n`.
    times
        When the stations report; by default at all times of `ds`. They need not be times of
        `ds`: states are interpolated.
    pressure
        Pa, for variables on levels: the levels that each station reports (a radiosonde); by
        default all levels of `ds`.
    bias_std
        Standard deviation of a constant bias of each station, in the units of the variable; by
        name for several.
    dropout
        Share of the reports that are missing.

    Returns
    -------
    DataArray, or Dataset if `variable` is not one name
        Dims (time, station), or (time, air_pressure, station) on levels, without time where `ds`
        has none; all NaN. A timeSeries (timeSeriesProfile) of CF discrete sampling geometries.

    Raises
    ------
    ArgumentError
        If `n` is negative, `ds` has no such variable, or `dropout` is no share.
    ErrorCovarianceError
        If `error` is missing or not positive.

    Examples
    --------
    >>> import xappa.observe
    >>> lat, lon = np.linspace(58, 50, 9), np.linspace(-10, 2, 13)
    >>> t2m = ("latitude", "longitude"), np.zeros((9, 13)), {"units": "K"}
    >>> ds = xr.Dataset({"t2m": t2m}, {"latitude": lat, "longitude": lon})
    >>> network = xappa.observe.random_stations(ds, 4, variable="t2m", error=0.5, seed=0)
    >>> network.dims, float(network.height), bool(network.isnull().all())
    (('station',), 2.0, True)
    """
    where = "random_stations"
    instrument = read_instrument(
        ds,
        variable,
        error,
        where=where,
        bias_std=bias_std,
        dropout=dropout,
        seed=seed,
        pressure=pressure,
        problems=count_problem(n, "stations", where),
    )
    draws = generator(seed, "stations").random((n, 2))  # row by row: the same for every n
    return place_stations(ds, instrument, _columns(_in_domain(instrument.state.grid, draws)), times)


def equal_area_stations(
    ds: xr.Dataset,
    n: int,
    *,
    variable: Variables,
    error: Errors = None,
    times: Times = None,
    pressure: Sequence[float] | None = None,
    bias_std: Errors = None,
    dropout: float = 0.0,
    seed: int | None = None,
) -> Any:
    """Spread stations evenly over the domain of a Dataset: a Fibonacci lattice.

    Parameters
    ----------
    ds
        Gives domain, times, units and metadata; its values are not looked at.
    n
        Number of stations, exactly; the positions depend on nothing else but the domain.
    variable, error, times, pressure, bias_std, dropout
        See `random_stations`.
    seed
        Seed of the dropouts; drawn if None, and recorded as ``xappa_network_seed``.

    Returns
    -------
    DataArray or Dataset
        As `random_stations` returns.

    Raises
    ------
    ArgumentError, ErrorCovarianceError
        As `random_stations` does.

    Examples
    --------
    >>> import xappa.testing
    >>> ds = xappa.testing.weather(times=2)
    >>> equal_area_stations(ds, 12, variable="t2m", error=0.5).sizes
    Frozen({'time': 2, 'station': 12})
    """
    where = "equal_area_stations"
    instrument = read_instrument(
        ds,
        variable,
        error,
        where=where,
        bias_std=bias_std,
        dropout=dropout,
        seed=seed,
        pressure=pressure,
        problems=count_problem(n, "stations", where),
    )
    k = np.arange(n) + 0.5
    lattice = np.stack([k / max(n, 1), (k / _GOLDEN) % 1.0], axis=1)
    return place_stations(
        ds, instrument, _columns(_in_domain(instrument.state.grid, lattice)), times
    )


def stations_from_table(
    ds: xr.Dataset,
    frame: pd.DataFrame | xr.Dataset | xr.DataArray,
    *,
    variable: Variables,
    error: Errors = None,
    times: Times = None,
    pressure: Sequence[float] | None = None,
    bias_std: Errors = None,
    dropout: float = 0.0,
    seed: int | None = None,
) -> Any:
    """Place stations where a table has them.

    Parameters
    ----------
    ds
        Gives times, units and metadata; its values are not looked at.
    frame
        One row (one element of a Dataset or of another network) for each station, with ``latitude``
        and ``longitude`` or what archives call them; a name (``station``, ``id``, ...) and an
        altitude in metres (``altitude``, ``elevation``, ...) if it has them. Stations outside the
        domain stay: the operator rejects and counts them.
    variable, error, times, pressure, bias_std, dropout
        See `random_stations`.
    seed
        Seed of the dropouts; drawn if None, and recorded as ``xappa_network_seed``.

    Returns
    -------
    DataArray or Dataset
        As `random_stations` returns, with a coordinate ``altitude`` if the table has it.

    Raises
    ------
    CoordinateError
        If the table has no positions.
    ObservationTypeError
        If it is no table.
    ArgumentError, ErrorCovarianceError
        As `random_stations` does, and if two stations have one name.

    Examples
    --------
    >>> import pandas as pd, xappa.testing
    >>> ds = xappa.testing.weather(times=2)
    >>> frame = pd.DataFrame({"name": ["Kew", "Oban"], "lat": [51.5, 56.4], "lon": [-0.3, -5.5]})
    >>> network = stations_from_table(ds, frame, variable="t2m", error=0.5)
    >>> network.station.values.tolist()
    ['Kew', 'Oban']
    """
    instrument = read_instrument(
        ds,
        variable,
        error,
        where="stations_from_table",
        bias_std=bias_std,
        dropout=dropout,
        seed=seed,
        pressure=pressure,
    )
    return place_stations(ds, instrument, read_table(frame, instrument.where), times)


def place_stations(
    ds: xr.Dataset, instrument: Instrument, columns: dict[str, np.ndarray], times: Times
) -> Any:
    """Return the network of stations.

    Parameters
    ----------
    ds
        Gives the times unless `times` does.
    instrument
        What they measure.
    columns
        ``station``, ``latitude``, ``longitude`` and perhaps ``altitude``, each (n,).
    times
        When they report.
    """
    attrs = {
        "station": {"cf_role": "timeseries_id"},
        "latitude": about("latitude", "degrees_north"),
        "longitude": about("longitude", "degrees_east"),
        "altitude": about("altitude", "m", "up"),
    }
    coords: dict[str, Any] = {
        name: ("station", values, attrs[name]) for name, values in columns.items()
    }
    time = time_coordinate(ds, instrument.axes.time, times)
    dims = ["station"]
    if time is not None:
        coords["time"] = time
        dims[:0] = [str(dim) for dim in time.dims]
    seconds = None if time is None else to_seconds(time)[0]
    n = len(columns["station"])
    missing = with_dropouts(instrument, "stations", seconds, [n])
    if missing is not None:
        coords[FLAG] = flags(missing, dims)
    profile = any(channel.levels is not None for channel in instrument.channels)
    feature = "timeSeriesProfile" if profile else "timeSeries"
    placed = network(
        instrument, coords, dims, levels_before="station", attrs={"featureType": feature}
    )
    return placed if instrument.alone else placed.assign_attrs(featureType=feature)


def _in_domain(grid: Grid, square: np.ndarray) -> np.ndarray:
    """Map the unit square to the domain spanned by cell centres, with equal density."""
    low, high = np.sin(np.deg2rad([grid.latitude.min(), grid.latitude.max()]))
    first, last = float(grid.longitude[0]), float(grid.longitude[-1])
    if grid.is_periodic:
        last = first + 360.0
    latitude = np.rad2deg(np.arcsin(low + (high - low) * square[:, 0]))
    return np.stack([latitude, first + (last - first) * square[:, 1]], axis=1)


def _columns(positions: np.ndarray) -> dict[str, np.ndarray]:
    names = np.array([f"station {k:03d}" for k in range(len(positions))])
    return {"station": names, "latitude": positions[:, 0], "longitude": positions[:, 1]}


def read_table(frame: Any, where: str) -> dict[str, np.ndarray]:
    """Return names, positions and altitudes of the stations in a table.

    Parameters
    ----------
    frame
        A DataFrame, Dataset or DataArray.
    where
        The function that the user called.

    Raises
    ------
    CoordinateError
        If positions are missing.
    ObservationTypeError
        If it is no table.
    ArgumentError
        If two stations have one name.
    """
    given = _given_columns(frame, where)
    columns: dict[str, np.ndarray] = {}
    for role in ("latitude", "longitude"):
        name = next((name for name in COORDINATE_NAMES[role] if name in given), None)
        if name is None:
            raise CoordinateError(
                f"the table of stations has no {role}",
                where=where,
                expected=f"a column {' or '.join(COORDINATE_NAMES[role][:3])}",
                got=", ".join(given) or "no columns",
                remedy=f"rename it: frame.rename(columns={{...: {role!r}}})",
            )
        columns[role] = np.asarray(given[name], dtype=np.float64)
    name = next((name for name in STATION_NAMES if name in given), None)
    n = columns["latitude"].size
    names = given[name] if name else [f"station {k:03d}" for k in range(n)]
    columns["station"] = np.asarray([str(one) for one in names], dtype=str)
    high = next((name for name in _ALTITUDES if name in given), None)
    if high is not None:
        columns["altitude"] = np.asarray(given[high], dtype=np.float64)
    once, counts = np.unique(columns["station"], return_counts=True)
    if (counts > 1).any():
        raise ArgumentError(
            "stations have the same name",
            where=f"{where}, column {name!r}",
            expected="one row for each station",
            got=f"{counts.max()} of {once[counts.argmax()]}",
            remedy=f"of reports, take the stations: frame.drop_duplicates({name!r})",
        )
    return columns


def _given_columns(frame: Any, where: str) -> dict[str, np.ndarray]:
    """Return the columns of a table by name in lower case."""
    if isinstance(frame, xr.DataArray):
        frame = frame.coords.to_dataset()
    if isinstance(frame, xr.Dataset):
        lowered = {str(name).lower(): frame[name] for name in frame.variables}
        first = next((lowered[n] for n in COORDINATE_NAMES["latitude"] if n in lowered), None)
        if first is None or first.ndim != 1:
            return {}
        along = {n: v.values for n, v in lowered.items() if v.dims == first.dims}
        return along
    if not hasattr(frame, "columns") or not hasattr(frame, "reset_index"):
        raise ObservationTypeError(
            "this is no table of stations",
            where=where,
            expected="a pandas.DataFrame, an xarray.Dataset or another network",
            got=type(frame).__name__,
            remedy="pandas.read_csv gives one",
        )
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    return {str(column).lower(): frame[column].to_numpy() for column in frame.columns}
