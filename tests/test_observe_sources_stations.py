"""Tables with a row for each report: airports, NOAA, Meteostat, MADIS, WeatherBench-X."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xappa  # noqa: F401  # registers the accessor
from xappa.errors import ArgumentError, CoordinateError, GuessWarning, UnitsError
from xappa.observe import Status, from_frame
from xappa.observe.sources.layout import implied_units, numbers


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    lat, lon = np.linspace(60, 40, 6), np.linspace(0, 30, 7)
    time = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    rng = np.random.default_rng(0)
    kinds = {"t2m": ("air_temperature", "K"), "d2m": ("dew_point_temperature", "K")}
    kinds |= {"u10": ("eastward_wind", "m s-1"), "v10": ("northward_wind", "m s-1")}
    kinds |= {"msl": ("air_pressure_at_mean_sea_level", "Pa")}
    dims = ("time", "latitude", "longitude")
    data = {
        name: (dims, rng.standard_normal((3, 6, 7)), {"standard_name": cf, "units": unit})
        for name, (cf, unit) in kinds.items()
    }
    return xr.Dataset(data, {"time": time, "latitude": lat, "longitude": lon})


def iem() -> pd.DataFrame:
    """A download of the Iowa Environmental Mesonet: text, with M for missing and T for a trace."""
    return pd.DataFrame(
        {
            "station": ["EDDB", "LIRF", "LIRF"],
            "valid": ["2020-01-01 00:20", "2020-01-01 00:50", "2020-01-01 01:20"],
            "lon": [13.5, 12.25, 12.25],
            "lat": [52.36, 41.8, 41.8],
            "elevation": ["47.00", "3.00", "3.00"],
            "tmpf": ["41.00", "50.00", "M"],
            "dwpf": ["32.00", "M", "41.00"],
            "drct": ["270.00", "M", "0.00"],
            "sknt": ["10.00", "3.00", "0.00"],
            "p01i": ["T", "0.00", "0.00"],
            "alti": ["29.92", "30.01", "30.00"],
            "mslp": ["1013.20", "M", "M"],
            "gust": ["M", "25.00", "M"],
            "wxcodes": ["M", "-RA", "M"],
        }
    )


def isd() -> pd.DataFrame:
    """NOAA's global hourly tables: fields within fields, the last of them a quality code."""
    return pd.DataFrame(
        {
            "STATION": ["10384099999"] * 3,
            "DATE": ["2020-01-01T00:20:00", "2020-01-01T01:20:00", "2020-01-01T02:20:00"],
            "SOURCE": 4,
            "LATITUDE": 52.47,
            "LONGITUDE": 13.4,
            "ELEVATION": 50.0,
            "NAME": "BERLIN",
            "REPORT_TYPE": "FM-15",
            "TMP": ["+0123,1", "+9999,9", "-0100,3"],
            "DEW": ["+0050,C", "+0050,2", "+0050,5"],
            "SLP": ["10132,1", "99999,9", "10132,1"],
            "WND": ["250,1,N,0031,1", "999,9,C,0000,1", "180,1,V,0021,1"],
        }
    )


def madis() -> pd.DataFrame:
    """The columns of WeatherBench-X's METAR files before its loader reads them, which are SI."""
    return pd.DataFrame(
        {
            "stationName": ["EDDB", "LIRF", "LFPG"],
            "locationName": ["BERLIN", "ROMA", "PARIS"],
            "latitude": np.float32([52.36, 41.8, 49.0]),
            "longitude": np.float32([13.5, 12.25, 2.5]),
            "elevation": np.float32([47.0, 3.0, 9999.0]),
            "timeObs": pd.to_datetime(["2019-12-31T23:50", "2020-01-01T00:50", "2020-01-01T00:30"]),
            "timeNominal": pd.to_datetime(["2020-01-01T00", "2020-01-01T01", "2020-01-01T00"]),
            "timeReceived": pd.to_datetime(["2020-01-01T00:00"] * 3),
            "reportType": "METAR",
            "seaLevelPress": np.float32([np.nan, 101320.0, 99180.0]),
            "seaLevelPressDD": ["Z", "V", "Q"],
            "temperature": np.float32([274.15, 280.15, 282.15]),
            "temperatureDD": ["S", "X", "V"],
            "dewpoint": np.float32([270.15, 275.15, np.nan]),
            "dewpointDD": ["S", "V", "Z"],
            "windDir": np.float32([80.0, np.nan, 90.0]),
            "windDirDD": ["S", "Z", "S"],
            "windSpeed": np.float32([2.0, 1.5, 3.0]),
            "windSpeedDD": ["S", "S", "S"],
            "windGust": np.float32([np.nan, np.nan, 14.0]),
            "windGustDD": ["Z", "Z", "S"],
            "altimeter": np.float32([100540.0, 103300.0, 101800.0]),
            "altimeterDD": "S",
        }
    )


def weatherbench() -> xr.Dataset:
    """What WeatherBench-X's loader gives: dimension index, everything else along it."""
    columns = {
        "2m_temperature": np.float32([274.15, 280.15]),
        "10m_wind_speed": np.float32([2.0, 1.5]),
        "10m_wind_direction": np.float32([80.0, np.nan]),
        "latitude": np.float32([52.36, 41.8]),
        "longitude": np.float32([13.5, 12.25]),
        "elevation": np.float32([47.0, 3.0]),
        "stationName": ["EDDB", "LIRF"],
        "valid_time": pd.to_datetime(["2020-01-01T06:00"] * 2),
        "init_time": pd.to_datetime(["2020-01-01T00:00"] * 2),
        "lead_time": pd.to_timedelta(["6h"] * 2),
    }
    return pd.DataFrame(columns).rename_axis("index").to_xarray().set_coords(list(columns)[3:])


def counted(operator, name, status) -> int:
    return operator.counts()[name][status]


def values(operator, name) -> np.ndarray:
    return next(spec.values for spec in operator.specs if spec.name == name)


def test_airports_in_american_units(state) -> None:
    obs = from_frame(iem())
    assert obs.tmpf.units == "degF"
    assert "gust" not in obs
    error = {"tmpf": 1.8, "dwpf": 1.8, "sknt": 2.0, "mslp": 1.0}
    operator = state.appa.operator(obs, error=error)
    assert [spec.inputs[0].name for spec in operator.specs] == ["t2m", "d2m", "u10", "v10", "msl"]
    # 41 and 50 degrees Fahrenheit are 5 and 10 degrees Celsius.
    np.testing.assert_allclose(values(operator, "tmpf"), [278.15, 283.15, np.nan])
    np.testing.assert_allclose(operator.specs[0].error_std, 1.0)
    # A knot is 1852 m an hour; a variable wind has no components, a calm has.
    ten = 10 * 1852 / 3600
    np.testing.assert_allclose(values(operator, "eastward_wind"), [ten, np.nan, 0], atol=1e-12)
    np.testing.assert_allclose(values(operator, "northward_wind"), [0, np.nan, 0], atol=1e-12)
    np.testing.assert_allclose(values(operator, "mslp")[0], 101320.0)
    assert counted(operator, "tmpf", Status.MISSING) == 1
    assert operator.n_used == 9


def test_noaa_global_hourly(state) -> None:
    frame = isd()
    before = frame.copy(deep=True)
    obs = from_frame(frame)
    pd.testing.assert_frame_equal(frame, before)
    error = {"t2m": 1.0, "d2m": 1.0, "msl": 1.0, "wind_speed": 1.0}
    operator = state.appa.operator(obs, error=error)
    np.testing.assert_allclose(values(operator, "t2m"), [285.45, np.nan, 263.15])
    assert counted(operator, "t2m", Status.MISSING) == 1
    assert counted(operator, "t2m", Status.FLAGGED) == 1  # code 3: erroneous
    assert counted(operator, "d2m", Status.FLAGGED) == 1  # code 2: suspect; C is an edited value
    assert counted(operator, "msl", Status.USED) == 2
    assert counted(operator, "eastward_wind", Status.MISSING) == 1  # a variable wind
    expected = [-3.1 * np.sin(np.radians(250)), 0.0]
    np.testing.assert_allclose(values(operator, "eastward_wind")[:2], expected, atol=1e-12)


def test_meteostat(state) -> None:
    time = pd.date_range("2020-01-01", periods=2, freq="h", name="time")
    hourly = pd.DataFrame(
        {
            "temp": [5.0, -1.0],
            "dwpt": [1.0, np.nan],
            "rhum": [75.0, 80.0],
            "prcp": [0.0, np.nan],
            "wdir": [270.0, 180.0],
            "wspd": [36.0, 18.0],
            "wpgt": [50.0, np.nan],
            "pres": [1013.2, 1012.0],
            "coco": [1.0, 2.0],
        },
        index=time,
    )
    obs = from_frame(hourly.assign(latitude=50.0, longitude=10.0)).drop_vars("rhum")
    assert "air_pressure" not in obs.coords  # reduced to sea level: an observation
    operator = state.appa.operator(obs, error={"temp": 1, "dwpt": 1, "wspd": 1, "pres": 1})
    np.testing.assert_allclose(values(operator, "temp"), [278.15, 272.15])
    np.testing.assert_allclose(values(operator, "eastward_wind"), [10, 0], atol=1e-12)
    np.testing.assert_allclose(values(operator, "northward_wind"), [0, 5], atol=1e-12)
    np.testing.assert_allclose(values(operator, "pres"), [101320, 101200])


def test_madis_flags_by_letters(state) -> None:
    obs = from_frame(madis())
    np.testing.assert_array_equal(obs.time, madis().timeObs)  # when it was observed
    np.testing.assert_array_equal(obs.altitude, [47, 3, np.nan])
    error = {"temperature": 1.0, "dewpoint": 1.0, "windSpeed": 1.0, "seaLevelPress": 50.0}
    operator = state.appa.operator(obs, error=error)
    assert counted(operator, "temperature", Status.FLAGGED) == 1
    assert counted(operator, "seaLevelPress", Status.FLAGGED) == 1
    assert counted(operator, "seaLevelPress", Status.MISSING) == 1
    assert counted(operator, "eastward_wind", Status.USED) == 1  # one before the first state
    assert counted(operator, "temperature", Status.OUTSIDE_WINDOW) == 1


def test_weatherbench_sparse_data_need_nothing(state) -> None:
    operator = state.appa.operator(weatherbench(), error={"2m_temperature": 1, "10m_wind_speed": 1})
    assert [spec.inputs[0].name for spec in operator.specs] == ["t2m", "u10", "v10"]
    assert operator.n_used == 4
    split = dict(weatherbench()[["2m_temperature"]])
    assert state.appa.operator(split, error=1.0).n_used == 2
    table = weatherbench()[["2m_temperature"]].to_dataframe()
    assert state.appa.operator(from_frame(table), error=1.0).n_used == 2


def test_units_that_the_user_says(state) -> None:
    lite = pd.DataFrame(
        {"year": 2020, "month": 1, "day": 1, "hour": [0, 1, 2], "temp": [100, -9999, 5]}
    ).assign(dewp=[50, 0, -9999], wdir=[0, 360, 90], wspd=[0, 20, 20], slp=[9999, 10132, -9999])
    lite = lite.assign(latitude=50.0, longitude=10.0)
    with pytest.raises(UnitsError, match="not in kelvin"):
        from_frame(lite)
    units = {"temp": "0.1 degC", "dewp": "0.1 degC", "slp": "0.1 hPa", "wspd": "0.1 m s-1"}
    obs = from_frame(lite, units=units)
    error = {"temp": 10, "dewp": 10, "wspd": 10, "slp": 10}
    operator = state.appa.operator(obs, error=error)
    np.testing.assert_allclose(values(operator, "temp"), [283.15, np.nan, 273.65])
    np.testing.assert_allclose(values(operator, "slp"), [99990, 101320, np.nan])
    np.testing.assert_array_equal(obs.time.dt.hour, [0, 1, 2])
    with pytest.raises(ArgumentError, match="names 'tempo', which the table does not have"):
        from_frame(lite, units={"tempo": "K"})


def test_columns_of_errors(state) -> None:
    table = iem()[["station", "valid", "lon", "lat", "tmpf", "mslp"]]
    table = table.assign(tmpf_error=[1.8, 0.0, 1.8], mslp_error=[1.0, 1.0, np.nan])
    operator = state.appa.operator(from_frame(table))
    np.testing.assert_allclose(operator.specs[0].error_std, [1.0, np.nan, 1.0])
    np.testing.assert_allclose(operator.specs[1].error_std, [100.0, 100.0, np.nan])
    assert counted(operator, "tmpf", Status.NO_ERROR) == 1  # a zero is no error


@pytest.mark.parametrize("make", [iem, isd, madis])
def test_a_round_trip_through_netcdf(make, state, tmp_path) -> None:
    obs = from_frame(make())
    obs.to_netcdf(tmp_path / "obs.nc")
    names = [n for n, v in obs.data_vars.items() if "units" in v.attrs and "quality" not in n]
    error = dict.fromkeys(names, 1.0)
    first = state.appa.operator(obs, error=error)
    with xr.open_dataset(tmp_path / "obs.nc") as back:
        again = state.appa.operator(back, error=error)
    assert first.counts() == again.counts()
    for one, other in zip(first.specs, again.specs, strict=True):
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("make", [iem, isd, madis])
def test_no_row_is_no_error(make, state) -> None:
    obs = from_frame(make().iloc[:0])
    assert obs.sizes["obs"] == 0
    assert state.appa.operator(obs, error=1.0).n_used == 0


def test_repeated_rows_and_impossible_places(state) -> None:
    table = iem()[["station", "valid", "lon", "lat", "tmpf"]]
    twice = pd.concat([table, table.iloc[:1], table.assign(tmpf="60.0").iloc[:1]])
    with pytest.warns(GuessWarning, match="1 rows that repeat another are left out"):
        obs = from_frame(twice)
    assert obs.sizes["obs"] == 4  # another value is another observation
    with pytest.warns(GuessWarning, match="2 longitudes beyond 360 degrees: rejected"):
        obs = from_frame(table.assign(lon=[13.5, 9999.0, 725.0]))
    operator = state.appa.operator(obs, error=1.0)
    assert counted(operator, "tmpf", Status.USED) == 1
    assert counted(operator, "tmpf", Status.OUTSIDE_DOMAIN) == 1  # the third is missing
    wrapped = from_frame(table.assign(lon=[13.5 - 360, 12.25 - 360, 12.25]))
    assert state.appa.operator(wrapped, error=1.0).n_used == 2


def test_times_that_cannot_be_read(state) -> None:
    table = iem()[["valid", "lon", "lat", "tmpf"]]
    with pytest.warns(GuessWarning, match="1 times cannot be read: rejected"):
        obs = from_frame(table.assign(valid=["2020-01-01 00:20", "noon", "2020-01-01T01:00Z"]))
    operator = state.appa.operator(obs, error=1.0)
    assert counted(operator, "tmpf", Status.OUTSIDE_WINDOW) == 1
    with pytest.raises(CoordinateError, match="no time can be read"):
        from_frame(table.assign(valid="noon"))
    with pytest.raises(CoordinateError, match="times are numbers"):
        from_frame(table.assign(valid=1577836800))
    with pytest.raises(CoordinateError, match="the table has no time"):
        from_frame(table.drop(columns="valid"))


def test_fill_values_are_no_data() -> None:
    given = pd.Series([1.0, -9999, 9.96921e36, -3.3687953e38, 1e100, np.inf, -888888.0, np.nan])
    np.testing.assert_array_equal(np.isfinite(numbers(given)), [True] + [False] * 7)
    np.testing.assert_array_equal(
        numbers(pd.Series(["2.5", "VRB", "M", None])), [2.5] + [np.nan] * 3
    )


@pytest.mark.parametrize(
    ("quantity", "canonical", "given", "units"),
    [
        ("surface_air_pressure", "Pa", [1013.0, 900.0], "hPa"),
        ("surface_air_pressure", "Pa", [101300.0, np.nan], "Pa"),
        ("relative_humidity", "1", [0.5, 1.0], "1"),
        ("relative_humidity", "1", [5.0, 100.0], "%"),
        ("air_temperature", "K", [280.0, np.nan], "K"),
        ("air_temperature", "K", [np.nan], "K"),
    ],
)
def test_units_by_magnitude(quantity, canonical, given, units) -> None:
    assert implied_units(quantity, canonical, np.array(given), "x") == units
