"""CF metadata: axes, quantities, times, pressures."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xappa.cf import (
    Quantity,
    convert_calendar,
    find_axes,
    from_seconds,
    identify,
    phase,
    pressure_levels,
    timedelta_seconds,
    to_seconds,
)
from xappa.cf.names import KNOWN
from xappa.errors import AmbiguousCoordinateError, ArgumentError, CoordinateError
from xappa.units import compatible

DATA = Path(
    os.environ.get("XAPPA_DATA_DIR", Path(__file__).resolve().parents[2] / "shared" / "data")
)
DAY = 86400.0
CALENDARS = ["proleptic_gregorian", "standard", "noleap", "all_leap", "360_day", "julian"]


OPENED: list[xr.Dataset] = []


@pytest.fixture(autouse=True)
def close_files() -> Iterator[None]:
    """Close what a test opened: files closed by the garbage collector warn anywhere."""
    yield
    while OPENED:
        OPENED.pop().close()


def open_sample(name: str) -> xr.Dataset:
    """Open one of the shared files, or skip."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is absent; set XAPPA_DATA_DIR")
    if path.suffix == ".grib":
        pytest.importorskip("cfgrib")
        return xr.open_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""})
    OPENED.append(xr.open_dataset(path))
    return OPENED[-1]


def _grid_coords() -> dict[str, Any]:
    return {"lat": [50.0, 51.0], "lon": [0.0, 1.0, 2.0]}


def _dataset(**coords: Any) -> xr.Dataset:
    ds = xr.Dataset(coords={**_grid_coords(), **coords})
    dims = [d for d in ds.dims if d not in ("lat", "lon")]
    shape = [ds.sizes[d] for d in (*dims, "lat", "lon")]
    ds["t"] = ((*dims, "lat", "lon"), np.zeros(shape), {"units": "K"})
    return ds


# --- axes


def test_axes_of_cfgrib_analysis() -> None:
    axes = find_axes(open_sample("era5-2mt-2019-03-uk.grib"))
    assert (axes.time, axes.time_dim) == ("valid_time", "time")
    assert (axes.latitude, axes.longitude) == ("latitude", "longitude")
    assert axes.vertical is None
    assert axes.member is None  # number is scalar: no dimension
    assert axes.guesses == ()


def test_axes_of_cfgrib_members() -> None:
    axes = find_axes(open_sample("era5-levels-members.grib"))
    assert (axes.time, axes.time_dim) == ("valid_time", "time")
    assert (axes.vertical, axes.member) == ("isobaricInhPa", "number")


@pytest.mark.filterwarnings("ignore::xarray.SerializationWarning")
def test_axes_of_months() -> None:
    axes = find_axes(open_sample("eraint_uvz.nc"))
    assert (axes.time, axes.time_dim, axes.vertical) == ("month", "month", "level")
    assert len(axes.guesses) == 1
    assert "climatology" in axes.guesses[0]


def test_axes_without_attributes() -> None:
    axes = find_axes(open_sample("era5_tl31_19590102T00.nc"))
    assert (axes.time, axes.time_dim) == ("time", None)
    assert (axes.latitude, axes.longitude, axes.vertical) == ("latitude", "longitude", "level")
    assert {guess.split(":")[0] for guess in axes.guesses} == {"latitude", "longitude", "level"}


def test_metadata_beat_names() -> None:
    ds = xr.Dataset(
        coords={
            "y": ("y", [1.0, 2.0], {"units": "degrees_north"}),
            "x": ("x", [1.0, 2.0], {"standard_name": "longitude"}),
            "lev": ("lev", [1.0, 2.0], {"standard_name": "atmosphere_hybrid_sigma_coordinate"}),
            "height": ((), 2.0, {"standard_name": "height", "units": "m"}),
        }
    )
    axes = find_axes(ds)
    assert (axes.latitude, axes.longitude, axes.vertical) == ("y", "x", None)
    assert axes.guesses == ()


def test_missing_and_required() -> None:
    ds = xr.Dataset(coords={"x": [1.0]})
    assert find_axes(ds, require=()).latitude is None
    with pytest.raises(CoordinateError, match="no coordinate for latitude"):
        find_axes(ds)
    with pytest.raises(CoordinateError, match="no coordinate for time"):
        find_axes(_dataset(), require=("time",))
    with pytest.raises(ArgumentError, match="unknown role"):
        find_axes(_dataset(), require=("depth",))


def test_ambiguous_latitudes() -> None:
    attrs = {"standard_name": "latitude"}
    ds = xr.Dataset(
        coords={"a": ("s", [1.0], attrs), "b": ("s", [2.0], attrs), "lon": ("s", [0.0])}
    )
    with pytest.raises(AmbiguousCoordinateError, match="several coordinates may be the latitude"):
        find_axes(ds)


def test_auxiliary_coordinates_of_stations() -> None:
    da = xr.DataArray(
        np.zeros((2, 3)),
        dims=("time", "station"),
        coords={
            "time": pd.date_range("2020-01-01", periods=2),
            "lat": ("station", [1.0, 2.0, 3.0]),
            "lon": ("station", [1.0, 2.0, 3.0]),
            "pressure": ("station", [850.0, 850.0, 500.0], {"units": "hPa"}),
        },
    )
    axes = find_axes(da)
    assert (axes.latitude, axes.vertical, axes.time) == ("lat", "pressure", "time")


def test_bounds_are_no_candidates() -> None:
    ds = _dataset().assign_coords(lat=("lat", [50.0, 51.0], {"bounds": "lats"}))
    ds = ds.assign_coords(lats=(("lat", "bnds"), np.zeros((2, 2))))
    assert find_axes(ds).latitude == "lat"


@pytest.mark.parametrize("name", ["member", "number", "ensemble", "sample", "realization"])
def test_members_by_name_need_no_coordinate(name: str) -> None:
    ds = _dataset().expand_dims({name: 3})
    assert find_axes(ds).member == name


def test_member_by_standard_name() -> None:
    ds = _dataset(k=("k", [0, 1], {"standard_name": "realization"}))
    assert find_axes(ds).member == "k"


def _reference(step: Any) -> xr.Dataset:
    ds = _dataset(
        time=(
            "time",
            pd.date_range("2020", periods=2),
            {"standard_name": "forecast_reference_time"},
        )
    )
    if step is not None:
        ds = ds.assign_coords(
            step=((), np.timedelta64(step, "h"), {"standard_name": "forecast_period"})
        )
    return ds


@pytest.mark.parametrize("step", [None, 0])
def test_reference_time_is_valid_time_at_step_zero(step: int | None) -> None:
    axes = find_axes(_reference(step))
    assert (axes.time, axes.time_dim) == ("time", "time")
    assert any("forecast_reference_time" in guess for guess in axes.guesses)


def test_reference_time_with_a_step_is_no_valid_time() -> None:
    with pytest.raises(CoordinateError, match="no coordinate of valid time") as caught:
        find_axes(_reference(6))
    assert "valid_time" in str(caught.value.remedy)


def test_forecast_along_steps() -> None:
    ds = _dataset(step=("step", np.arange(3) * np.timedelta64(6, "h")))
    start = np.datetime64("2020-01-01", "ns")
    ds = ds.assign_coords(
        time=((), start, {"standard_name": "forecast_reference_time"}),
        valid_time=("step", start + ds["step"].values, {"standard_name": "time"}),
    )
    axes = find_axes(ds)
    assert (axes.time, axes.time_dim) == ("valid_time", "step")


def test_times_along_two_dimensions_are_ambiguous() -> None:
    times = np.zeros((2, 2), dtype="datetime64[ns]")
    ds = xr.Dataset(coords={"valid_time": (("time", "step"), times, {"standard_name": "time"})})
    with pytest.raises(AmbiguousCoordinateError, match="several dimensions"):
        find_axes(ds, require=())
    assert find_axes(ds.isel(step=[0]), require=()).time_dim == "time"


def test_dates_under_any_name() -> None:
    axes = find_axes(_dataset(when=("when", pd.date_range("2020", periods=2))))
    assert axes.time == "when"
    assert "dates" in axes.guesses[-1]


# --- quantities


def _identify(name: str, **attrs: Any) -> Quantity | None:
    return identify(xr.DataArray(0.0, name=name, attrs=attrs))[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("t2m", ("air_temperature", 2.0, "K")),
        ("2t", ("air_temperature", 2.0, "K")),
        ("2m_temperature", ("air_temperature", 2.0, "K")),
        ("tas", ("air_temperature", 2.0, "K")),
        ("T2M", ("air_temperature", 2.0, "K")),
        ("u10", ("eastward_wind", 10.0, "m s-1")),
        ("vas", ("northward_wind", 10.0, "m s-1")),
        ("msl", ("air_pressure_at_mean_sea_level", None, "Pa")),
        ("sp", ("surface_air_pressure", None, "Pa")),
        ("temperature", ("air_temperature", None, "K")),
        ("q", ("specific_humidity", None, "1")),
        ("gh", ("geopotential_height", None, "m")),
        ("z", ("geopotential", None, "m2 s-2")),
        ("d2m", ("dew_point_temperature", 2.0, "K")),
        ("siconc", ("sea_ice_area_fraction", None, "1")),
        ("tp", ("lwe_thickness_of_precipitation_amount", None, "m")),
    ],
)
def test_names(name: str, expected: tuple[str, float | None, str]) -> None:
    quantity, guess = identify(xr.DataArray(0.0), name)
    assert quantity == Quantity(*expected)
    assert guess is not None
    assert expected[0] in guess


def test_units_tell_names_apart() -> None:
    assert _identify("z", units="m") == Quantity("geopotential_height", None, "m")
    assert _identify("tp", units="kg m-2") == Quantity("precipitation_amount", None, "kg m-2")
    assert _identify("w", units="m s**-1") == Quantity("upward_air_velocity", None, "m s-1")
    assert _identify("t", units="s") is None


def test_attributes_come_before_the_name() -> None:
    assert _identify("var167", GRIB_shortName="2t", standard_name="unknown", units="K") == Quantity(
        "air_temperature", 2.0, "K"
    )
    assert _identify("foo", short_name="sst").standard_name == "sea_surface_temperature"  # type: ignore[union-attr]
    assert _identify("foo", long_name="2 metre temperature").height == 2.0  # type: ignore[union-attr]
    assert _identify("t2m", standard_name="eastward_wind") == Quantity(
        "eastward_wind", None, "m s-1"
    )
    assert _identify("foo") is None


def test_standard_names() -> None:
    da = xr.DataArray(0.0, name="x", attrs={"standard_name": "air_temperature"})
    assert identify(da) == (Quantity("air_temperature", None, "K"), None)
    high = da.assign_coords(height=((), 150.0, {"units": "cm", "standard_name": "height"}))
    assert identify(high) == (Quantity("air_temperature", 1.5, "K"), None)
    # the height of the temperature says nothing of the pressure at sea level
    psl = high.assign_attrs(standard_name="air_pressure_at_sea_level")
    assert identify(psl) == (Quantity("air_pressure_at_mean_sea_level", None, "Pa"), None)
    other = da.assign_attrs(standard_name="mole_fraction_of_x", units="ppm")
    assert identify(other) == (Quantity("mole_fraction_of_x", None, "ppm"), None)
    error = da.assign_attrs(standard_name="air_temperature standard_error")
    assert identify(error) == (None, None)


def test_a_name_wins_over_the_height_of_another_variable() -> None:
    da = xr.DataArray(0.0, name="u10", coords={"height": 2.0})
    quantity, guess = identify(da.assign_attrs(standard_name="eastward_wind"))
    assert quantity == Quantity("eastward_wind", 10.0, "m s-1")
    assert guess is not None
    assert "2 m" in guess


def test_the_table_is_consistent() -> None:
    units: dict[str, str] = {}
    for row in KNOWN:
        assert compatible(row.units, row.units + ""), row
        assert units.setdefault(row.standard_name, row.units) == row.units
        assert all(alias == alias.lower() for alias in row.aliases)
    # rows that share an alias must differ in units, or the first would hide the second
    for a in KNOWN:
        for b in KNOWN:
            if a is not b and set(a.aliases) & set(b.aliases):
                assert not compatible(a.units, b.units), (a, b)


# --- times


def _coordinate(values: Any, **attrs: Any) -> xr.DataArray:
    return xr.DataArray(np.asarray(values), dims="time", name="time", attrs=attrs)


@given(st.lists(st.integers(-(10**9), 4 * 10**9), min_size=1), st.sampled_from(CALENDARS))
def test_seconds_there_and_back(values: list[int], calendar: str) -> None:
    seconds = np.array(values, dtype=np.float64)
    dates = from_seconds(seconds, calendar)
    back, name = to_seconds(xr.DataArray(dates, dims="time"))
    np.testing.assert_array_equal(back, seconds)
    assert name == ("proleptic_gregorian" if calendar == "standard" else calendar)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "h", "D"])
def test_datetime64_of_any_unit(unit: str) -> None:
    values = np.array(["2001-02-03", "NaT"], dtype=f"datetime64[{unit}]")
    seconds, calendar = to_seconds(_coordinate(values))
    assert seconds[0] == datetime.datetime(2001, 2, 3, tzinfo=datetime.UTC).timestamp()
    assert np.isnan(seconds[1])
    assert calendar == "proleptic_gregorian"
    assert np.isnat(from_seconds(seconds, calendar)[1])


def test_fractions_of_seconds() -> None:
    dates = np.array(["2019-03-01T00:00:00.25"], dtype="datetime64[ns]")
    seconds, calendar = to_seconds(_coordinate(dates))
    np.testing.assert_array_equal(from_seconds(seconds, calendar), dates)
    assert from_seconds([0.5], "noleap")[0].microsecond == 500_000


def test_the_reform_of_1582() -> None:
    old = cftime.DatetimeGregorian(1500, 1, 1)
    seconds, calendar = to_seconds(_coordinate([old]))
    assert calendar == "standard"
    assert from_seconds(seconds, calendar)[0] == old
    recent, calendar = to_seconds(_coordinate([cftime.DatetimeGregorian(2000, 1, 1)]))
    assert calendar == "proleptic_gregorian"
    assert recent[0] == 946684800.0


def test_far_years_do_not_overflow() -> None:
    dates = from_seconds([1e11], "proleptic_gregorian")
    assert dates.dtype == np.dtype("datetime64[us]")
    assert to_seconds(_coordinate(dates))[0][0] == 1e11


def test_numbers_with_units() -> None:
    hours = _coordinate([0, 6], units="hours since 1970-01-02", calendar="360_day")
    seconds, calendar = to_seconds(hours)
    assert seconds.tolist() == [DAY, DAY + 21600]
    assert calendar == "360_day"
    with pytest.raises(CoordinateError, match="units of time cannot be read"):
        to_seconds(_coordinate([0], units="fortnights since yesterday"))


def test_months() -> None:
    months = xr.DataArray(np.arange(1, 13), dims="month", name="month")
    seconds, calendar = to_seconds(months)
    assert calendar == "noleap"
    np.testing.assert_allclose(np.diff(seconds), 365 * DAY / 12)
    np.testing.assert_allclose(phase(seconds, calendar)[1], (np.arange(12) + 0.5) / 12)


@pytest.mark.parametrize("values", [[1.5, 2.5], ["a", "b"]])
def test_what_is_no_time(values: list[Any]) -> None:
    with pytest.raises(CoordinateError, match="holds no times"):
        to_seconds(_coordinate(np.array(values, dtype=object if values[0] == "a" else float)))


def test_mixed_calendars() -> None:
    mixed = np.array([cftime.DatetimeNoLeap(2000, 1, 1), cftime.Datetime360Day(2000, 1, 1)])
    with pytest.raises(CoordinateError, match="several calendars"):
        to_seconds(_coordinate(mixed))


def test_calendars_convert_by_date() -> None:
    dates = [cftime.Datetime360Day(2001, 2, d, 6) for d in (28, 30)]
    seconds, _ = to_seconds(_coordinate(dates))
    out = convert_calendar(np.append(seconds, np.nan), "360_day", "proleptic_gregorian")
    assert from_seconds(out[:1], "standard")[0] == np.datetime64("2001-02-28T06", "ns")
    assert np.isnan(out[1:]).all()  # 30 February
    np.testing.assert_array_equal(convert_calendar(seconds, "360_day", "360_day"), seconds)
    np.testing.assert_array_equal(convert_calendar([1e9], "standard", "proleptic_gregorian"), [1e9])


@pytest.mark.parametrize(
    "value",
    [
        "6h",
        np.timedelta64(6, "h"),
        datetime.timedelta(hours=6),
        pd.Timedelta("6h"),
        21600,
        21600.0,
        np.int64(21600),
        np.array(np.timedelta64(6, "h")),
        xr.DataArray(np.timedelta64(6, "h")),
    ],
)
def test_durations(value: Any) -> None:
    assert timedelta_seconds(value) == 21600.0


def test_duration_of_pint() -> None:
    registry = pytest.importorskip("cf_xarray.units").units
    assert timedelta_seconds(registry.Quantity(6, "hour")) == 21600.0
    with pytest.raises(ArgumentError, match="no duration"):
        timedelta_seconds(registry.Quantity(6, "m"))


@pytest.mark.parametrize("value", ["often", None, float("nan"), np.timedelta64("NaT"), True])
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(ArgumentError, match="no duration"):
        timedelta_seconds(value)


@given(st.floats(-1e10, 1e10), st.sampled_from(CALENDARS))
def test_phases_lie_in_the_unit_interval(seconds: float, calendar: str) -> None:
    for fraction in phase([seconds], calendar):
        assert 0 <= fraction[0] < 1


def test_phase_of_leap_years() -> None:
    start = np.array(["2020-01-01", "2020-07-01", "2021-01-01"], dtype="datetime64[s]")
    _, year = phase(start.astype(np.int64), "standard")
    np.testing.assert_allclose(year, [0, 182 / 366, 0])


# --- pressures


@pytest.mark.parametrize(
    ("values", "units", "expected"),
    [
        ([850, 500], "hPa", [85000.0, 50000.0]),
        ([850, 500], "millibars", [85000.0, 50000.0]),
        ([85000.0], "Pa", [85000.0]),
        ([85.0], "kPa", [85000.0]),
    ],
)
def test_pressures(values: list[float], units: str, expected: list[float]) -> None:
    levels, guess = pressure_levels(xr.DataArray(values, dims="lev", attrs={"units": units}))
    assert levels.tolist() == expected
    assert guess is None


def test_guessed_pressures() -> None:
    levels, guess = pressure_levels(xr.DataArray([1000, 1], dims="level", name="level"))
    assert levels.tolist() == [100000.0, 100.0]
    assert guess is not None
    assert "hPa" in guess
    levels, guess = pressure_levels(xr.DataArray([100000, 100], dims="level", name="level"))
    assert levels.tolist() == [100000.0, 100.0]
    few = xr.DataArray([0.5], dims="isobaricInPa", name="isobaricInPa")
    assert pressure_levels(few)[0].tolist() == [0.5]


@pytest.mark.parametrize(
    ("values", "units", "match"),
    [
        ([1, 2, 3, 4], "", "level numbers"),
        ([2000.0], "", "cannot be guessed"),
        ([10.0], "m", "not a pressure"),
        ([0.0, 10.0], "hPa", "positive"),
    ],
)
def test_what_is_no_pressure(values: list[float], units: str, match: str) -> None:
    with pytest.raises(CoordinateError, match=match):
        pressure_levels(xr.DataArray(values, dims="lev", name="lev", attrs={"units": units}))
