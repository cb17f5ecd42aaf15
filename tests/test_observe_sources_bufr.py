"""BUFR messages, through pdbufr where it is installed, and tables of its layout anywhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xappa  # noqa: F401  # registers the accessor
from xappa.errors import DataError, GuessWarning, MissingDependencyError, UnitsError
from xappa.obs import from_bufr, from_frame
from xappa.observe import Status
from xappa.observe.sources.bufr import _at_pressures, _with_drift, _with_time

PLACE = {"blockNumber": 10, "year": 2020, "month": 1, "day": 1, "minute": 0}
ELEVATION = "heightOfStationGroundAboveMeanSeaLevel"


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    lat, lon = np.linspace(60, 40, 6), np.linspace(0, 30, 7)
    time = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    rng = np.random.default_rng(0)
    near = {"t2m": "air_temperature", "d2m": "dew_point_temperature", "u10": "eastward_wind"}
    near |= {"v10": "northward_wind", "sp": "surface_air_pressure"}
    near |= {"msl": "air_pressure_at_mean_sea_level"}
    upper = {"t": "air_temperature", "u": "eastward_wind", "v": "northward_wind"}
    upper |= {"q": "specific_humidity", "z": "geopotential"}
    units = {"u10": "m s-1", "v10": "m s-1", "u": "m s-1", "v": "m s-1", "sp": "Pa", "msl": "Pa"}
    units |= {"q": "kg kg-1", "z": "m2 s-2"}
    data = {}
    for names, dims in (
        (near, ("time", "latitude", "longitude")),
        (upper, ("time", "level", "latitude", "longitude")),
    ):
        for name, cf in names.items():
            attrs = {"standard_name": cf, "units": units.get(name, "K")}
            shape = (3, 6, 7) if len(dims) == 3 else (3, 3, 6, 7)
            data[name] = (dims, rng.standard_normal(shape), attrs)
    levels = ("level", [1000.0, 500.0, 200.0], {"units": "hPa"})
    coords = {"time": time, "level": levels, "latitude": lat, "longitude": lon}
    return xr.Dataset(data, coords)


def synop() -> pd.DataFrame:
    """What pdbufr gives of two reports of template 307080; the second has no temperature."""
    return pd.DataFrame(
        {
            "latitude": [52.2, 52.5],
            "longitude": [14.1, 13.4],
            ELEVATION: [112.0, 48.0],
            "nonCoordinatePressure": [100010.0, 100500.0],
            "pressureReducedToMeanSeaLevel": [101400.0, 101410.0],
            "airTemperature": [281.5, np.nan],
            "dewpointTemperature": [279.0, 278.0],
            "windDirection": [270, 0],
            "windSpeed": [5.0, 0.0],
            "data_datetime": pd.to_datetime(["2020-01-01T00", "2020-01-01T06"]),
            "WMO_station_id": [10393, 10384],
        }
    )


def temp() -> pd.DataFrame:
    """What pdbufr gives of three levels of template 309052, whose seconds are missing."""
    return pd.DataFrame(
        {
            "latitude": 52.2,
            "longitude": 14.1,
            **{name: PLACE[name] for name in ("year", "month", "day", "minute")},
            "hour": 0,
            "timePeriod": [600, 1200, 1800],
            "pressure": [100000.0, 50000.0, 20000.0],
            "nonCoordinateGeopotentialHeight": [150, 5560, 11800],
            "latitudeDisplacement": [0.1, 0.2, 0.3],
            "longitudeDisplacement": [0.2, 0.4, 0.6],
            "airTemperature": [281.0, 252.0, 218.0],
            "dewpointTemperature": [279.0, 240.0, np.nan],
            "windDirection": [270, 260, 250],
            "windSpeed": [5.0, 20.0, 30.0],
            "typical_datetime": pd.Timestamp("2020-01-01T00:00"),
            "WMO_station_id": 10393,
        }
    )


def check_synop(obs, state) -> None:
    error = {"airTemperature": 1.0, "dewpointTemperature": 1.0, "windSpeed": 2.0}
    error |= {"nonCoordinatePressure": 100.0, "pressureReducedToMeanSeaLevel": 100.0}
    operator = state.appa.operator(obs, error=error)
    found = {spec.name: spec for spec in operator.specs}
    inputs = {name: spec.inputs[0].name for name, spec in found.items()}
    assert inputs["airTemperature"] == "t2m"
    assert inputs["nonCoordinatePressure"] == "sp"
    assert inputs["pressureReducedToMeanSeaLevel"] == "msl"
    np.testing.assert_allclose(found["airTemperature"].values, [281.5, np.nan])
    np.testing.assert_allclose(found["eastward_wind"].values, [5, 0], atol=1e-12)
    assert operator.counts()["airTemperature"][Status.MISSING] == 1
    assert operator.n_used == 11
    np.testing.assert_array_equal(obs.station, ["10393", "10384"])
    np.testing.assert_allclose(obs.altitude, [112, 48])


def check_temp(obs, state) -> None:
    error = {"airTemperature": 1.0, "dewpointTemperature": 1.0, "windSpeed": 2.0}
    error |= {"nonCoordinateGeopotentialHeight": 10.0}
    operator = state.appa.operator(obs, error=error)
    found = {spec.name: spec for spec in operator.specs}
    assert found["airTemperature"].inputs[0].name == "t"
    assert found["eastward_wind"].inputs[0].name == "u"
    np.testing.assert_allclose(found["airTemperature"].pressure, [100000, 50000, 20000])
    # Where and when the balloon was.
    np.testing.assert_allclose(found["airTemperature"].latitude, [52.3, 52.4, 52.5])
    np.testing.assert_allclose(found["airTemperature"].longitude, [14.3, 14.5, 14.7])
    minutes = (obs.time - np.datetime64("2020-01-01")) / np.timedelta64(1, "m")
    np.testing.assert_allclose(minutes, [10, 20, 30])
    assert operator.counts()["dewpointTemperature"][Status.MISSING] == 1
    assert operator.n_used == 14


def test_tables_of_reports(state) -> None:
    check_synop(from_frame(synop()), state)


def test_tables_of_soundings(state) -> None:
    check_temp(from_frame(_with_drift(_with_time(temp()))), state)
    still = from_frame(temp().drop(columns="timePeriod").assign(**{ELEVATION: 112.0}))
    assert "altitude" not in still.coords  # it belongs to the station, not to the levels


def test_levels_aloft_without_pressure() -> None:
    table = temp().assign(pressure=[100000.0, np.nan, 20000.0])
    with pytest.warns(GuessWarning, match="1 levels aloft have no pressure"):
        assert len(_at_pressures(table)) == 2


def test_keys_of_bufr_in_other_units() -> None:
    celsius = synop().assign(airTemperature=[8.0, 9.0])
    with pytest.raises(UnitsError, match="not in kelvin"):
        from_frame(celsius)
    assert from_frame(celsius, units={"airTemperature": "degC"}).airTemperature.units == "degC"


def test_stations_by_block_and_number() -> None:
    numbered = synop().drop(columns="WMO_station_id").assign(blockNumber=6, stationNumber=[10, 380])
    np.testing.assert_array_equal(from_frame(numbered).station, ["06010", "06380"])


def test_a_round_trip_through_netcdf(state, tmp_path) -> None:
    from_frame(synop()).to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataset(tmp_path / "obs.nc") as back:
        check_synop(back, state)


def _installed() -> bool:
    try:
        import pdbufr  # noqa: F401
    except ImportError:
        return False
    return True


needs_pdbufr = pytest.mark.skipif(not _installed(), reason="needs pdbufr")


@pytest.mark.skipif(_installed(), reason="pdbufr is installed")
def test_without_pdbufr(tmp_path) -> None:
    with pytest.raises(MissingDependencyError, match="pip install 'xappa"):
        from_bufr(tmp_path / "synop.bufr")


def encode(path, category, template, factors, subsets, values) -> None:
    """Append one message to a file."""
    import eccodes

    message = eccodes.codes_bufr_new_from_samples("BUFR4")
    try:
        headers = {"masterTablesVersionNumber": 35, "dataCategory": category}
        headers |= {"typicalYear": 2020, "typicalMonth": 1, "typicalDay": 1, "typicalHour": 0}
        headers |= {"numberOfSubsets": subsets, "compressedData": int(subsets > 1)}
        for key, value in headers.items():
            eccodes.codes_set(message, key, value)
        for key, value in factors.items():
            eccodes.codes_set_array(message, key, value)
        eccodes.codes_set(message, "unexpandedDescriptors", template)
        for key, value in values.items():
            if isinstance(value, list):
                eccodes.codes_set_array(message, key, value)
            else:
                eccodes.codes_set(message, key, value)
        eccodes.codes_set(message, "pack", 1)
        with open(path, "ab") as file:
            eccodes.codes_write(message, file)
    finally:
        eccodes.codes_release(message)


def encode_synop(path) -> None:
    table = synop()
    values = {f"#1#{key}": value for key, value in PLACE.items()}
    values |= {"#1#stationNumber": [393, 384], "#1#hour": [0, 6]}
    for column in table.columns.drop(["data_datetime", "WMO_station_id"]):
        values[f"#1#{column}"] = table[column].fillna(-1e100).tolist()
    sensor = "heightOfSensorAboveLocalGroundOrDeckOfMarinePlatform"
    values |= {f"#1#{sensor}": 2.0, f"#7#{sensor}": 10.0}
    encode(path, 0, 307080, {"inputDelayedDescriptorReplicationFactor": [0, 0]}, 2, values)


def encode_temp(path) -> None:
    table = temp()
    values = {f"#1#{key}": value for key, value in PLACE.items()}
    values |= {"#1#stationNumber": 393, "#1#hour": 0, "#1#latitude": 52.2, "#1#longitude": 14.1}
    values[f"#1#{ELEVATION}"] = 112.0
    skipped = ["latitude", "longitude", "year", "month", "day", "hour", "minute"]
    for column in table.columns.drop([*skipped, "typical_datetime", "WMO_station_id"]):
        for i, value in enumerate(table[column], start=1):
            if np.isfinite(value):
                values[f"#{i}#{column}"] = value.item() if hasattr(value, "item") else value
    factors = {"inputExtendedDelayedDescriptorReplicationFactor": [3]}
    factors["inputDelayedDescriptorReplicationFactor"] = [0]
    encode(path, 2, 309052, factors, 1, values)


@needs_pdbufr
def test_reports_and_soundings(state, tmp_path) -> None:
    path = tmp_path / "obs.bufr"
    encode_synop(path)
    check_synop(from_bufr(path), state)
    encode_temp(path)
    both = from_bufr(path)
    assert sorted(both) == ["surface", "upper"]
    check_synop(both["surface"], state)
    check_temp(both["upper"], state)
    one = from_bufr(path, filters={"WMO_station_id": 10384})
    np.testing.assert_array_equal(one.station, ["10384"])


@needs_pdbufr
def test_files_that_are_no_bufr(tmp_path) -> None:
    (tmp_path / "text.bufr").write_text("no message")
    with pytest.raises(DataError, match="nothing can be read from the file"):
        from_bufr(tmp_path / "text.bufr")
    with pytest.raises(FileNotFoundError):
        from_bufr(tmp_path / "absent.bufr")
