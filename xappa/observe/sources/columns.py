"""Names of columns in the tables that archives give out, as data.

A `Column` says what a column holds. Some names mean the same in every table (`COLUMNS`); others
mean something only next to others, and so belong to a `Dialect`: ``gust`` is in knots beside
``sknt``, ``wspd`` in km/h beside ``rhum``. What neither knows is looked up among the names that
`xappa.cf` knows.

References
----------
- Iowa Environmental Mesonet, ASOS download, https://mesonet.agron.iastate.edu/request/download.phtml
- Meteostat, hourly data, https://dev.meteostat.net/python/hourly.html
- MADIS METAR, https://madis.ncep.noaa.gov/madis_metar.shtml, as WeatherBench-X stores it,
  https://github.com/google-research/weatherbenchX (``data_loaders/sparse_parquet.py``)
- BUFR keys of ecCodes, https://confluence.ecmwf.int/display/ECC/BUFR+keys
- earth2studio, https://github.com/NVIDIA/earth2studio (``lexicon/base.py``)
- DART observation types, https://docs.dart.ucar.edu
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import xarray as xr

from xappa.cf import identify
from xappa.cf.names import KNOWN

__all__ = ["Column", "Dialect", "dialect_of", "look_up", "look_up_dart"]

_CANONICAL = {row.standard_name: row.units for row in KNOWN}
_T, _TD, _RH = "air_temperature", "dew_point_temperature", "relative_humidity"
_U, _V, _Q, _PS = "eastward_wind", "northward_wind", "specific_humidity", "surface_air_pressure"
_MSL, _Z, _PHI = "air_pressure_at_mean_sea_level", "geopotential_height", "geopotential"
_SPEED, _FROM, _GUST = "wind_speed", "wind_from_direction", "wind_speed_of_gust"


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Parameters
    ----------
    standard_name
        CF standard name.
    units
        Its units; None where the name does not tell.
    height
        Metres above ground, or None.
    screen
        Whether the height holds only where the table gives no pressures (a report of a station
        uses the same name as a sounding).
    operator
        Operator that a quantity without a standard name needs.
    """

    standard_name: str
    units: str | None
    height: float | None = None
    screen: bool = False
    operator: str | None = None

    @property
    def canonical(self) -> str:
        """Units of the quantity in CF; empty for one that is in no table."""
        return _CANONICAL.get(self.standard_name, "")


@dataclass(frozen=True)
class Dialect:
    """The columns of one archive's tables.

    Parameters
    ----------
    name
        How messages call it.
    signature
        Sets of columns, in lower case; a table that has all of one of them speaks the dialect.
    columns
        What its columns hold, by name in lower case; None for what is left out, because states
        do not hold it.
    quality
        Ending of the columns that hold quality flags, and the words for their letters.
    """

    name: str
    signature: tuple[frozenset[str], ...]
    columns: Mapping[str, Column | None]
    quality: tuple[str, Mapping[str, str]] | None = None


def _signature(*sets: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(names.split()) for names in sets)


COLUMNS: dict[str, Column] = {
    "tmpf": Column(_T, "degF", 2.0),
    "tmpc": Column(_T, "degC", 2.0),
    "dwpf": Column(_TD, "degF", 2.0),
    "dwpc": Column(_TD, "degC", 2.0),
    "relh": Column(_RH, "%", 2.0),
    "sknt": Column(_SPEED, "knot", 10.0),
    "drct": Column(_FROM, "degree", 10.0),
    "r2m": Column(_RH, "%", 2.0),
    "ws10m": Column(_SPEED, "m s-1", 10.0),
    "fg10m": Column(_GUST, "m s-1", 10.0),
    "dwpt": Column(_TD, None),
    "dewp": Column(_TD, None),
    "rhum": Column(_RH, None),
}
"""What names mean in every table, in lower case."""

_MADIS_WORDS = {
    "Z": "not_checked",
    "C": "passed_coarse_checks",
    "S": "passed_screening",
    "V": "verified",
    "G": "good_by_an_analyst",
    "B": "bad_by_an_analyst",
    "X": "failed",
    "Q": "questionable",
    "k": "rejected",
}

DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        "Iowa Environmental Mesonet",
        _signature("tmpf", "sknt", "drct", "dwpf"),
        {"gust": None, "mslp": Column(_MSL, "hPa")},
    ),
    Dialect(
        "Meteostat",
        _signature("temp rhum", "temp dwpt"),
        {
            "temp": Column(_T, "degC", 2.0),
            "dwpt": Column(_TD, "degC", 2.0),
            "rhum": Column(_RH, "%", 2.0),
            "wdir": Column(_FROM, "degree", 10.0),
            "wspd": Column(_SPEED, "km h-1", 10.0),
            "wpgt": None,
            "pres": Column(_MSL, "hPa"),
        },
    ),
    Dialect(
        "MADIS METAR",
        _signature("timeobs stationname", "timenominal stationname"),
        {
            "temperature": Column(_T, "K", 2.0),
            "dewpoint": Column(_TD, "K", 2.0),
            "winddir": Column(_FROM, "degree", 10.0),
            "windspeed": Column(_SPEED, "m s-1", 10.0),
            "windgust": None,
            "sealevelpress": Column(_MSL, "Pa"),
        },
        ("dd", _MADIS_WORDS),
    ),
    Dialect(
        "BUFR",
        _signature(
            "airtemperature",
            "airtemperatureat2m",
            "windspeedat10m",
            "noncoordinatepressure",
            "pressurereducedtomeansealevel",
            "data_datetime windspeed",
        ),
        {
            "airtemperatureat2m": Column(_T, None, 2.0),
            "dewpointtemperatureat2m": Column(_TD, None, 2.0),
            "relativehumidityat2m": Column(_RH, "%", 2.0),
            "specifichumidityat2m": Column(_Q, "kg kg-1", 2.0),
            "windspeedat10m": Column(_SPEED, "m s-1", 10.0),
            "winddirectionat10m": Column(_FROM, "degree", 10.0),
            "airtemperature": Column(_T, None, 2.0, screen=True),
            "dewpointtemperature": Column(_TD, None, 2.0, screen=True),
            "relativehumidity": Column(_RH, "%", 2.0, screen=True),
            "specifichumidity": Column(_Q, "kg kg-1", 2.0, screen=True),
            "windspeed": Column(_SPEED, "m s-1", 10.0, screen=True),
            "winddirection": Column(_FROM, "degree", 10.0, screen=True),
            "noncoordinatepressure": Column(_PS, None),
            "pressurereducedtomeansealevel": Column(_MSL, None),
            "noncoordinategeopotentialheight": Column(_Z, "m"),
            "geopotentialheight": Column(_Z, "m"),
            "noncoordinategeopotential": Column(_PHI, "m2 s-2"),
        },
    ),
)
"""Tables whose columns mean something only next to one another; the first that fits counts."""

#: What DART's types end in; sea, soil and potential temperatures end as air temperatures do.
_DART: tuple[tuple[str, Column], ...] = (
    ("_U_WIND_COMPONENT", Column(_U, "m s-1")),
    ("_V_WIND_COMPONENT", Column(_V, "m s-1")),
    ("_U_10_METER_WIND", Column(_U, "m s-1", 10.0)),
    ("_V_10_METER_WIND", Column(_V, "m s-1", 10.0)),
    ("_SPECIFIC_HUMIDITY_2_METER", Column(_Q, "kg kg-1", 2.0)),
    ("_SPECIFIC_HUMIDITY", Column(_Q, "kg kg-1")),
    ("_RELATIVE_HUMIDITY", Column(_RH, "1")),
    ("_SURFACE_PRESSURE", Column(_PS, "Pa")),
    ("_DEWPOINT_2_METER", Column(_TD, "K", 2.0)),
    ("_DEWPOINT", Column(_TD, "K")),
    ("_GEOPOTENTIAL_HEIGHT", Column(_Z, "m")),
    ("_TEMPERATURE_2_METER", Column(_T, "K", 2.0)),
    ("_TEMPERATURE", Column(_T, "K")),
    ("GPSRO_REFRACTIVITY", Column("refractivity", "1", operator="refractivity")),
)
_NOT_OF_AIR = re.compile(
    r"(FLOAT|DRIFTER|MOORING|BOTTLE|CTD|STD|MBT|XBT|DBT|APB|GLIDER|SEA|OCEAN|SURFACE|SKIN|SOIL"
    r"|BRIGHTNESS|POTENTIAL|VIRTUAL)_TEMPERATURE$"
)


def dialect_of(names: Collection[str]) -> Dialect | None:
    """Return the dialect of a table with these columns, in lower case.

    >>> dialect_of({"station", "valid", "sknt"}).name
    'Iowa Environmental Mesonet'
    """
    present = set(names)
    return next((d for d in DIALECTS if any(known <= present for known in d.signature)), None)


def look_up(name: str, dialect: Dialect | None = None) -> Column | None:
    """Return what a column or a quantity of this name holds, or None.

    >>> look_up("tmpf").units, look_up("t2m").height, look_up("remark")
    ('degF', 2.0, None)
    """
    key = name.lower()
    if dialect is not None and key in dialect.columns:
        return dialect.columns[key]
    if key in COLUMNS:
        return COLUMNS[key]
    stated = any(row.standard_name == name for row in KNOWN)
    probe = xr.DataArray(0.0, name=name, attrs={"standard_name": name} if stated else {})
    found, _ = identify(probe)
    return None if found is None else Column(found.standard_name, None, found.height)


def look_up_dart(name: str) -> Column | None:
    """Return what a type of DART measures, or None.

    >>> look_up_dart("ACARS_TEMPERATURE").standard_name, look_up_dart("FLOAT_TEMPERATURE")
    ('air_temperature', None)
    """
    if _NOT_OF_AIR.search(name):
        return None
    return next((column for end, column in _DART if name.endswith(end)), None)
