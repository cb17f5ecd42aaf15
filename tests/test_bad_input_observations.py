"""Observations with faults that users make, and what they are told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xappa
from xappa.errors import (
    CoordinateError,
    ErrorCovarianceError,
    GuessWarning,
    UnknownQuantityError,
    XappaError,
    XappaErrors,
)
from xappa.observe import register_operator, unregister_operator


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return xappa.testing.weather(times=6)


@pytest.fixture
def obs(ds) -> xr.DataArray:
    network = xappa.observe.random_stations(ds, 5, variable="t2m", error=0.5, seed=0)
    return ds.appa.observe(network, seed=0)


@pytest.fixture
def bare(obs) -> xr.DataArray:
    """Observations without an error."""
    return obs.drop_vars("error_std")


@pytest.fixture
def table(ds) -> xr.Dataset:
    """Stations as a table of pandas gives them."""
    frame = pd.DataFrame(
        {
            "time": ds.time.values[:3],
            "latitude": [51.0, 52.0, 53.0],
            "longitude": [0.0, 1.0, 2.0],
            "t2m": [280.0, 281.0, 282.0],
            "elevation": [10.0, 20.0, 30.0],
            "sigma": [0.1, 0.2, 0.3],
            "wmo": [3001, 3002, 3003],
        }
    )
    return frame.to_xarray()


def guesses(operator) -> list[str]:
    return [guess for spec in operator.specs for guess in spec.guesses]


# problems that come together


def test_two_problems_are_caught_as_one_of_our_errors(ds, bare) -> None:
    with pytest.raises(XappaError, match=r"'m' cannot[\s\S]*error of observations") as caught:
        ds.appa.operator(bare.assign_attrs(units="m", error_std=-1.0))
    assert len(caught.value.exceptions) == 2


def test_a_misspelt_name_of_an_error_is_one_problem(ds, bare) -> None:
    with pytest.raises(ErrorCovarianceError, match=r"names 't2n'[\s\S]*expected: air_temp"):
        ds.appa.operator(bare, error={"t2n": 0.5})
    # One slip explains one array without error, not two, where there is no default.
    register_operator("no_default", inputs=["air_temperature"], units="K")(lambda t: t)
    try:
        named = bare.assign_attrs(xappa_operator="no_default", standard_name="no_default")
        two = {"a": named, "b": named.rename("other")}
        with pytest.raises(ErrorCovarianceError, match="names 'c'"):
            ds.appa.operator(two, error={"a": 0.5, "c": 0.5})
        with pytest.raises(XappaErrors, match=r"'a'[\s\S]*'b'[\s\S]*names 'c'") as caught:
            ds.appa.operator(two, error={"c": 0.5})
    finally:
        unregister_operator("no_default")
    assert len(caught.value.exceptions) == 3
    # Other problems stay.
    with pytest.raises(XappaErrors, match=r"'m' cannot[\s\S]*names 't2n'") as caught:
        ds.appa.operator(bare.assign_attrs(units="m"), error={"t2n": 0.5})
    assert len(caught.value.exceptions) == 2


# times


def _as_text(array):
    return array.assign_coords(time=[str(time) for time in array.time.values])


def test_times_as_text(ds, obs) -> None:
    with pytest.raises(CoordinateError, match=r"time holds no times, but text") as caught:
        ds.appa.operator(_as_text(obs))
    assert caught.value.where == "observations 't2m', coordinate 'time'"
    with pytest.raises(CoordinateError, match="but text"):
        ds.appa.operator(_as_text(obs).assign_coords(time=_as_text(obs).time.astype(object)))
    stated = _as_text(obs)
    stated.time.attrs["standard_name"] = "time"
    with pytest.raises(CoordinateError, match=r"but text[\s\S]*observations 't2m'"):
        ds.appa.operator(stated)
    with pytest.raises(CoordinateError, match=r"but text[\s\S]*remedy: parse it: ds = ds.assign"):
        _as_text(ds).appa.operator(obs)


@pytest.mark.parametrize("layout", ["index", "along stations", "scalar"])
def test_the_remedy_for_times_as_text_works(ds, obs, layout) -> None:
    if layout == "index":
        obs = _as_text(obs)
    elif layout == "scalar":
        obs = obs.isel(time=2).assign_coords(time=str(ds.time.values[2]))
    else:
        text = [str(time) for time in ds.time.values[:5]]
        obs = obs.isel(time=0).assign_coords(time=("station", text))
    with pytest.raises(CoordinateError, match="but text") as caught:
        ds.appa.operator(obs)
    names = {"obs": obs, "pd": pd}
    exec(caught.value.remedy.removeprefix("parse it: "), names)
    operator = ds.appa.operator(names["obs"])
    assert operator.n_used == obs.size


def test_times_as_bare_numbers(ds, obs) -> None:
    numbers = obs.assign_coords(time=np.arange(6))
    with pytest.raises(CoordinateError, match=r"have no time[\s\S]*time holds int64 with units"):
        ds.appa.operator(numbers)
    only = ds.isel(time=0).appa.operator(numbers)
    assert any("time holds int64 without units of time" in guess for guess in guesses(only))


# positions


def _renamed(obs: xr.DataArray) -> xr.DataArray:
    renamed = obs.rename(latitude="Breite", longitude="Laenge")
    for name in ("Breite", "Laenge"):
        renamed[name].attrs = {}
    return renamed


def test_unknown_names_of_positions_are_named(ds, obs) -> None:
    obs = _renamed(obs)
    with pytest.raises(CoordinateError, match="no coordinate for latitude") as caught:
        ds.appa.operator(obs)
    assert caught.value.where.startswith("observations 't2m': coordinates ['Breite', 'Laenge',")
    assert caught.value.remedy == (
        "name it, whichever of Breite, Laenge it is: "
        "obs['Breite'].attrs['standard_name'] = 'latitude'"
    )
    obs["Breite"].attrs["standard_name"] = "latitude"
    with pytest.raises(CoordinateError, match="no coordinate for longitude") as caught:
        ds.appa.operator(obs)
    remedy = "name it: obs['Laenge'].attrs['standard_name'] = 'longitude'"
    assert caught.value.remedy == remedy
    obs["Laenge"].attrs["standard_name"] = "longitude"
    assert ds.appa.operator(obs).n_used == obs.size


def test_positions_that_are_not_there_are_to_be_added(ds, obs) -> None:
    with pytest.raises(CoordinateError, match=r"add it: obs.assign_coords\(latitude="):
        ds.appa.operator(obs.drop_vars(["latitude", "longitude"]))


def _swapped(obs: xr.DataArray) -> xr.DataArray:
    return obs.assign_coords(latitude=obs.longitude.variable, longitude=obs.latitude.variable)


def test_swapped_positions_are_noticed(ds, obs) -> None:
    for name in ("latitude", "longitude"):
        obs[name].attrs = {}
    operator = ds.appa.operator(_swapped(obs))
    assert operator.n_used == 0
    assert "latitude and longitude look swapped" in repr(operator)
    assert "swapped" not in repr(ds.appa.operator(obs))
    # Elsewhere on the Earth, whichever way round.
    far = obs.assign_coords(latitude=obs.latitude - 80)
    assert "swapped" not in repr(ds.appa.operator(far))
    # On the globe, only longitudes beyond 90 degrees tell.
    lat, lon = np.linspace(90, -90, 7), np.arange(0.0, 360.0, 30.0)
    field = (("latitude", "longitude"), np.zeros((7, 12)), {"standard_name": "air_temperature"})
    globe = xr.Dataset({"t2m": field}, {"latitude": lat, "longitude": lon})
    east = obs.isel(time=0, drop=True).assign_coords(longitude=obs.longitude + 150)
    assert "swapped" in repr(globe.appa.operator(_swapped(east)))
    assert "swapped" not in repr(globe.appa.operator(east))


# tables


def test_columns_of_a_table_that_are_no_observations(ds, table) -> None:
    operator = ds.appa.operator(table, error=0.5)
    assert [spec.name for spec in operator.specs] == ["t2m"]
    assert operator.n_used == 3
    assert "left out: elevation, sigma, wmo" in repr(operator)
    with pytest.warns(GuessWarning) as said:
        ds.appa.observe(table, error=0.5, seed=0)
    told = [str(warning.message) for warning in said]
    assert "t2m: not recognised, left out: elevation, sigma, wmo" in told


def test_unknown_quantities_stay_errors(ds, table) -> None:
    salt = table.assign(salt=table.t2m.assign_attrs(standard_name="sea_water_salinity"))
    with pytest.raises(UnknownQuantityError, match="sea_water_salinity is neither"):
        ds.appa.operator(salt, error=0.5)
    with pytest.raises(XappaErrors, match=r"foo is neither[\s\S]*elevation is neither"):
        ds.appa.operator(table.rename(t2m="foo"), error=0.5)
    located = table.set_coords(["time", "latitude", "longitude"])
    with pytest.raises(UnknownQuantityError, match="elevation is neither"):
        ds.appa.operator([located.t2m, located.elevation], error=0.5)


@pytest.mark.parametrize("column", ["t2m_error", "t2m_std", "t2m_sigma", "error", "error_std"])
def test_the_column_of_errors(ds, table, column) -> None:
    table = table.rename(sigma=column)
    before = table.copy(deep=True)
    operator = ds.appa.operator(table)
    np.testing.assert_array_equal(operator.error_std, [0.1, 0.2, 0.3])
    assert f"t2m: '{column}' taken as the standard deviation of its error" in repr(operator)
    assert "left out: elevation, wmo" in repr(operator)
    xr.testing.assert_identical(table, before)
    # What is said elsewhere goes before.
    np.testing.assert_array_equal(ds.appa.operator(table, error=0.5).error_std, [0.5] * 3)
    table.t2m.attrs["error_std"] = 0.7
    np.testing.assert_array_equal(ds.appa.operator(table).error_std, [0.7] * 3)


def test_units_of_the_column_of_errors(ds, table) -> None:
    table = table.rename(sigma="t2m_error")
    table["t2m_error"].attrs["units"] = "millikelvin"
    np.testing.assert_allclose(ds.appa.operator(table).error_std, [1e-4, 2e-4, 3e-4])


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(t2m_error=table.sigma, t2m_std=table.sigma),  # which one?
        lambda table: table.assign(error=("index", [0, 1, 0])),  # codes
        lambda table: table.assign(
            error=table.sigma, msl=table.t2m.assign_attrs(units="Pa") * 0 + 1e5
        ),  # whose?
    ],
)
def test_columns_of_errors_that_do_not_tell(ds, table, change) -> None:
    ds = ds.assign(msl=ds.t2m.assign_attrs(standard_name="air_pressure_at_mean_sea_level"))
    ds.msl.attrs["units"] = "Pa"
    operator = ds.appa.operator(change(table))
    (said,) = [
        guess for guess in guesses(operator) if "no error is given" in guess and "t2m" in guess
    ]
    assert "2 K assumed" in said


# what is told


def test_guesses_name_the_array_and_come_once(ds, table) -> None:
    located = table.set_coords(["time", "latitude", "longitude"]).t2m
    operator = ds.appa.operator([located] * 6, error=0.5)
    told = guesses(operator)
    assert len(told) == len(set(told)) == 4
    assert told[0] == (
        "t2m: latitude: taken as latitude by its name (also t2m_2, t2m_3, t2m_4 and 2 more)"
    )
    # A guess about one array only is told of that one.
    other = located.assign_attrs(units="K").rename("temperature")
    told = guesses(ds.appa.operator({"a": located, "b": other}, error=0.5))
    assert "a: no units given: taken for K, as in the state" in told
    assert "a: latitude: taken as latitude by its name (also b)" in told


def test_a_loop_tells_guesses_once(ds, table) -> None:
    def loop() -> None:
        for _ in range(3):
            ds.appa.observe(table, error=0.5, seed=0)

    with pytest.warns(GuessWarning) as said:
        loop()
    told = [str(warning.message) for warning in said]
    assert told
    assert len(told) == len(set(told))
