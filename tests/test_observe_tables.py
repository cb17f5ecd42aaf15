"""Tables of observations become arrays that say what they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xappa
from xappa.errors import (
    CoordinateError,
    GuessWarning,
    ObservationTypeError,
    UnitsError,
    UnknownQuantityError,
)
from xappa.observe import Status, from_frame

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    lat, lon = np.linspace(60, 40, 6), np.linspace(0, 30, 7)
    time = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    rng = np.random.default_rng(0)
    near = ("time", "latitude", "longitude")
    names = {"t2m": ("air_temperature", "K"), "u10": ("eastward_wind", "m s-1")}
    names |= {"v10": ("northward_wind", "m s-1")}
    data = {
        name: (near, 280 + rng.standard_normal((3, 6, 7)), {"standard_name": cf, "units": unit})
        for name, (cf, unit) in names.items()
    }
    levels = [1000.0, 500.0, 200.0]
    for name, cf in (("t", "air_temperature"), ("u", "eastward_wind")):
        values = 250 + rng.standard_normal((3, 3, 6, 7))
        units = "K" if name == "t" else "m s-1"
        dims = ("time", "level", "latitude", "longitude")
        data[name] = (dims, values, {"standard_name": cf, "units": units})
    coords = {"time": time, "level": ("level", levels, {"units": "hPa"})}
    return xr.Dataset(data, {**coords, "latitude": lat, "longitude": lon})


def earth2studio() -> pd.DataFrame:
    """The columns of its tabular sources: one row for each station, time and variable."""
    rows = [
        ("2020-01-01T00:00", 52.0, 10.0, 100.0, "A", "t2m", 281.5),
        ("2020-01-01T00:00", 52.0, 10.0, 100.0, "A", "u10m", 3.0),
        ("2020-01-01T06:00", 44.0, 20.0, 300.0, "B", "t2m", 279.0),
        ("2020-01-01T06:00", 44.0, 20.0, 300.0, "B", "magic", 1.0),
    ]
    columns = ["time", "lat", "lon", "elev", "station", "variable", "observation"]
    return pd.DataFrame(rows, columns=columns).astype({"time": "datetime64[ns]"})


def dart() -> pd.DataFrame:
    """The columns of pyDARTdiags' frame of an observation sequence."""
    return pd.DataFrame(
        {
            "obs_num": [1, 2, 3],
            "observation": [230.16, 18.4, 231.0],
            "longitude": [10.0, 10.0, 20.0],
            "latitude": [52.0, 52.0, 44.0],
            "vertical": [23950.0, 23950.0, 30000.0],
            "vert_unit": ["pressure (Pa)"] * 3,
            "type": ["ACARS_TEMPERATURE", "ACARS_U_WIND_COMPONENT", "ACARS_TEMPERATURE"],
            "time": pd.to_datetime(["2020-01-01T00:00:03"] * 3),
            "obs_err_var": [1.0, 6.25, 4.0],
            "DART_quality_control": [0, 0, 7],
        }
    )


def test_long_tables(state) -> None:
    with pytest.warns(xappa.errors.GuessWarning, match="left out: magic"):
        obs = from_frame(earth2studio())
    assert sorted(obs) == ["t2m", "u10m"]
    assert list(obs["t2m"].station.values) == ["A", "B"]
    operator = state.appa.operator(obs, error={"t2m": 1.0, "u10m": 2.0})
    assert operator.n_used == 3
    assert [spec.inputs[0].name for spec in operator.specs] == ["t2m", "u10"]


def test_observation_sequences_of_dart(state) -> None:
    obs = from_frame(dart())
    operator = state.appa.operator(obs)
    t, u = operator.specs
    assert (t.quantity, u.quantity) == ("air_temperature", "eastward_wind")
    np.testing.assert_allclose(t.error_std, [1.0, 2.0])
    np.testing.assert_allclose(u.pressure, 23950.0)
    assert operator.n_used == 2  # the third did not pass its quality control


def test_markers_of_quality(state) -> None:
    """PrepBUFR's markers 0 to 3 may be used, as earth2studio and DART carry them."""
    rows = earth2studio().query("variable == 't2m'")
    again = rows.assign(station="C", observation=rows.observation + 0.5)
    four = pd.concat([rows, again], ignore_index=True)
    for column, codes in (("quality", [2, 3, 9, 15]), ("quality", [0, np.nan, 4, 1])):
        operator = state.appa.operator(from_frame(four.assign(**{column: codes})), error=1.0)
        used = [code in (0, 1, 2, 3) or np.isnan(code) for code in codes]
        assert operator.n_used == sum(used)
        assert operator.counts()["t2m"][Status.FLAGGED] == 4 - sum(used)
    generic = four.rename(columns={"observation": "value"})  # elsewhere zero is good
    operator = state.appa.operator(from_frame(generic.assign(qc=[0, 1, 2, 0])), error=1.0)
    assert operator.n_used == 2
    dart_qc = dart().assign(DART_quality_control=[0, 2, 4])
    counts = state.appa.operator(from_frame(dart_qc)).counts()
    assert counts["ACARS_TEMPERATURE"][Status.FLAGGED] == 1


def test_names_and_units_of_earth2studio(state) -> None:
    rows = earth2studio().query("variable == 't2m'")
    humid = from_frame(rows.assign(variable="r2m", observation=[50.0, 80.0]))
    assert humid["r2m"].units == "%"
    pressure = from_frame(rows.assign(variable="pres", observation=1e5, pres=1e5, station_elev=3.0))
    assert pressure["pres"].standard_name == "surface_air_pressure"
    assert "air_pressure" not in pressure["pres"].coords
    np.testing.assert_array_equal(pressure["pres"].altitude, [100, 300])
    speed = from_frame(rows.assign(variable="ws10m", observation=5.0))["ws10m"]
    assert (speed.standard_name, float(speed.height)) == ("wind_speed", 10.0)


def test_levels_of_dart(state) -> None:
    """Each kind of vertical coordinate becomes an array; sea temperatures are not those of air."""
    mixed = pd.concat([dart()] * 2, ignore_index=True)
    mixed["vert_unit"] = ["pressure (Pa)"] * 3 + ["height (m)", "model level", "surface (m)"]
    with pytest.warns(GuessWarning, match="left out: ACARS_U_WIND_COMPONENT at model level"):
        obs = from_frame(mixed)
    assert sorted(obs) == [
        "ACARS_TEMPERATURE (height)",
        "ACARS_TEMPERATURE (pressure)",
        "ACARS_U_WIND_COMPONENT",
    ]
    np.testing.assert_array_equal(obs["ACARS_TEMPERATURE (height)"].altitude, [23950, 30000])
    with pytest.raises(UnknownQuantityError, match="nothing in the table"):
        from_frame(dart().assign(type="FLOAT_TEMPERATURE"))
    fills = dart().assign(observation=-888888.0)
    assert state.appa.operator(from_frame(fills)).n_used == 0


def test_a_round_trip_through_netcdf(state, tmp_path) -> None:
    for name, array in from_frame(dart()).items():
        array.to_netcdf(tmp_path / f"{name}.nc")
        with xr.open_dataarray(tmp_path / f"{name}.nc") as back:
            again, before = (state.appa.operator(x) for x in (back, array))
        assert again.counts() == before.counts()
        np.testing.assert_array_equal(again.error_std, before.error_std)


def test_units_by_name_go_first(state) -> None:
    rows = earth2studio().query("variable == 't2m'").assign(units="K", pres=[500.0, 850.0])
    rows["observation"] -= 273.15
    obs = from_frame(rows.assign(variable="t"), units={"t": "degC", "pres": "Pa"})
    (spec,) = state.appa.operator(obs, error=1.0).specs
    np.testing.assert_allclose(spec.values, [281.5, 279.0])
    np.testing.assert_allclose(spec.pressure, [500, 850])
    with pytest.raises(UnitsError, match="not in kelvin"):
        from_frame(rows.drop(columns="units"))


def test_tables_of_stations(state) -> None:
    wide = pd.DataFrame(
        {
            "station_id": ["A", "B"],
            "latitude": [52.0, 44.0],
            "longitude": [10.0, 20.0],
            "valid_time": ["2020-01-01T00:00Z", "2020-01-01T01:00+01:00"],
            "t2m": [281.0, 279.0],
            "remark": ["", "x"],
        }
    )
    obs = from_frame(wide)
    assert list(obs.data_vars) == ["t2m"]
    assert (obs.time == obs.time[0]).all()  # in UTC
    assert state.appa.operator(obs, error=1.0).n_used == 2


def test_units_and_levels_of_a_table(state) -> None:
    rows = earth2studio().query("variable == 't2m'").assign(units="degC", error=0.5)
    rows["observation"] -= 273.15
    (spec,) = state.appa.operator(from_frame(rows)).specs
    np.testing.assert_allclose(spec.values, [281.5, 279.0])
    upper = rows.assign(variable="t", pres=[500.0, 850.0])
    (spec,) = state.appa.operator(from_frame(upper)).specs
    np.testing.assert_allclose(spec.pressure, [5e4, 8.5e4])
    mixed = rows.assign(units=["degC", "K"])
    with pytest.raises(ObservationTypeError, match="several units"):
        from_frame(mixed)


def test_an_index_holds_columns_too(state) -> None:
    indexed = earth2studio().set_index(["time", "station"])
    assert sorted(from_frame(indexed)) == ["t2m", "u10m"]


def test_an_analysis_from_a_table() -> None:
    weather = xappa.testing.weather(times=40)
    model = xappa.fit_gaussian(weather, modes=4)
    day = weather.isel(time=[20])
    point = day.isel(latitude=2, longitude=3)
    row = {
        "time": day.time.values[0],
        "lat": float(point.latitude),
        "lon": float(point.longitude),
        "variable": "t2m",
        "value": point.t2m.item() + 3,
        "error": 0.01,
    }
    ens = day.appa.assimilate(from_frame(pd.DataFrame([row])), model, members=4, seed=0)
    drawn = ens.t2m.isel(time=0, latitude=2, longitude=3)
    np.testing.assert_allclose(drawn, row["value"], atol=0.1)


@pytest.mark.parametrize(
    ("frame", "error", "match"),
    [
        ([1, 2], ObservationTypeError, "wants a table"),
        (earth2studio().drop(columns="lat"), CoordinateError, "has no latitude"),
        (earth2studio().assign(variable="magic"), UnknownQuantityError, "nothing in the table"),
        (earth2studio().iloc[:0], UnknownQuantityError, "no rows"),
        (
            earth2studio().drop(columns=["variable", "observation"]),
            UnknownQuantityError,
            "no column of the table",
        ),
    ],
)
def test_tables_that_cannot_be_read(frame, error, match) -> None:
    with pytest.raises(error, match=match):
        from_frame(frame)
