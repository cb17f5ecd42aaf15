"""Observation metadata: what is read, what is guessed, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xappa.bridge import StateSpec, describe
from xappa.errors import (
    AmbiguousCoordinateError,
    CoordinateError,
    ErrorCovarianceError,
    ObservationTypeError,
    OperatorError,
    UnitsError,
    UnknownQuantityError,
)
from xappa.observe import (
    Status,
    get_operator,
    read_observations,
    register_operator,
    unregister_operator,
)
from xappa.observe.flags import is_bad

TIMES = np.array(["2020-01-01T00", "2020-01-01T06"], dtype="datetime64[ns]")


@pytest.fixture(scope="module")
def state() -> StateSpec:
    lat, lon = np.linspace(60, 40, 11), np.linspace(-10, 20, 16)
    surface = ("time", "latitude", "longitude"), np.zeros((2, 11, 16))
    layered = ("time", "level", "latitude", "longitude"), np.zeros((2, 3, 11, 16))
    levels = ("level", [850.0, 500.0, 250.0], {"units": "hPa", "standard_name": "air_pressure"})
    ds = xr.Dataset(
        {
            "t2m": (*surface, {"standard_name": "air_temperature", "units": "K"}),
            "u10": (*surface, {"standard_name": "eastward_wind", "units": "m s-1"}),
            "v10": (*surface, {"standard_name": "northward_wind", "units": "m s-1"}),
            "msl": (*surface, {"standard_name": "air_pressure_at_mean_sea_level", "units": "Pa"}),
            "t": (*layered, {"standard_name": "air_temperature", "units": "K"}),
            "q": (*layered, {"standard_name": "specific_humidity", "units": "kg kg-1"}),
        },
        {"time": TIMES, "latitude": lat, "longitude": lon, "level": levels},
    )
    return describe(ds)[0]


def station_array(values=(1.0, 2.0, 3.0), *, name="t2m", time=True, **attrs) -> xr.DataArray:
    values = np.asarray(values, dtype=np.float64)
    n = values.size
    coords = {
        "latitude": ("station", np.linspace(42, 58, n)),
        "longitude": ("station", np.linspace(-5, 15, n)),
    }
    if time:
        coords["time"] = TIMES[0]
    attrs = {"standard_name": "air_temperature", "units": "degC", "error_std": 0.5} | attrs
    attrs = {key: value for key, value in attrs.items() if value is not None}
    return xr.DataArray(values, coords, ("station",), name, attrs)


def only(obs, state, **kwargs):
    (spec,) = read_observations(obs, state, **kwargs)
    return spec


# values, units and errors


def test_absolute_temperature_has_an_offset_and_its_error_has_none(state):
    spec = only(station_array([20.0, 25.0]), state)
    np.testing.assert_allclose(spec.values, [293.15, 298.15], rtol=1e-15)
    np.testing.assert_array_equal(spec.error_std, [0.5, 0.5])
    assert (spec.units, spec.state_units) == ("degC", "K")


def test_error_scales_with_units(state):
    obs = station_array(
        [1013.0], name="msl", standard_name="air_pressure_at_mean_sea_level", units="hPa"
    )
    spec = only(obs, state)
    np.testing.assert_allclose(spec.values, [101300.0])
    np.testing.assert_allclose(spec.error_std, [50.0])


def test_missing_units_are_those_of_the_state_and_said(state):
    spec = only(station_array([280.0], units=None), state)
    np.testing.assert_array_equal(spec.values, [280.0])
    assert any("no units given: taken for K" in guess for guess in spec.guesses)


def test_kelvin_against_metres(state):
    with pytest.raises(UnitsError, match="'m' cannot be converted to 'K'"):
        read_observations(station_array(units="m"), state)


def error_variable(values, **attrs) -> xr.DataArray:
    return xr.DataArray(
        values,
        dims="station" if np.ndim(values) else (),
        attrs={"standard_name": "air_temperature standard_error", "units": "K"} | attrs,
    )


def test_error_priority(state):
    obs = station_array()
    obs = obs.assign_coords(error_std=("station", [1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(only(obs, state).error_std, [1, 2, 3])
    ds = obs.assign_attrs(ancillary_variables="t2m_err").to_dataset()
    ds["t2m_err"] = error_variable([4.0, 5.0, 6.0], standard_error_multiplier=2.0)
    np.testing.assert_array_equal(only(ds, state).error_std, [2, 2.5, 3])
    np.testing.assert_array_equal(only(ds, state, error=7.0).error_std, [7, 7, 7])
    np.testing.assert_array_equal(only(ds, state, error={"t2m": 8.0}).error_std, [8, 8, 8])
    by_name = only(ds, state, error={"air_temperature": xr.DataArray([9.0, 8, 7], dims="station")})
    np.testing.assert_array_equal(by_name.error_std, [9, 8, 7])


def test_error_in_fahrenheit_has_no_offset(state):
    error = xr.DataArray(1.8, attrs={"units": "degF"})
    np.testing.assert_allclose(only(station_array(), state, error=error).error_std, 1.0)


def test_error_as_pint_quantity(state):
    pint = pytest.importorskip("pint")
    error = pint.UnitRegistry().Quantity(500.0, "millikelvin")
    np.testing.assert_allclose(only(station_array(), state, error=error).error_std, 0.5)


def test_ancillary_variables_found_in_encoding(state, tmp_path):
    ds = station_array(error_std=None, ancillary_variables="err flag").to_dataset()
    ds["err"] = error_variable([1.0, 2.0, 3.0])
    ds["flag"] = flag_variable([0, 0, 1])
    ds.to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataset(tmp_path / "obs.nc", decode_coords="all") as decoded:
        spec = only(decoded, state)
    np.testing.assert_array_equal(spec.error_std, [1, 2, 3])
    assert spec.status.tolist() == [Status.USED, Status.USED, Status.FLAGGED]


@pytest.mark.parametrize("bad", [-1.0, 0.0])
def test_error_not_positive(state, bad):
    with pytest.raises(ErrorCovarianceError, match=r"not positive(.|\n)*1 of 3 values <= 0"):
        read_observations(station_array(), state, error=error_variable([1.0, bad, 1.0]))


def test_missing_error_names_the_remedy(state):
    """Brightness temperatures have no default: instruments differ too much."""
    array = station_array(error_std=None, standard_name="toa_brightness_temperature")
    array.attrs["xappa_operator"] = "example_of_no_error"

    @register_operator("example_of_no_error", inputs=["air_temperature"], units="K")
    def same(t):
        return t

    try:
        with pytest.raises(ErrorCovarianceError, match=r"not known(.|\n)*pass error="):
            read_observations(array, state)
    finally:
        unregister_operator("example_of_no_error")


@pytest.mark.parametrize(
    ("feature", "kind", "error"),
    [("timeSeries", "stations", 2.0), ("profile", "soundings", 1.0), ("trajectory", "traj", 1.2)],
)
def test_default_errors_are_said(state, feature, kind, error):
    (spec,) = read_observations(station_array(error_std=None, featureType=feature), state)
    np.testing.assert_array_equal(spec.error_std, error)
    (said,) = [guess for guess in spec.guesses if "no error is given" in guess]
    assert kind in said
    assert "pass error=" in said


def test_default_errors_have_the_units_of_the_state(state):
    celsius = station_array(error_std=None)
    celsius = (celsius - 273.15).assign_attrs(celsius.attrs, units="degC")
    np.testing.assert_array_equal(only(celsius, state).error_std, 2.0)


@pytest.mark.parametrize("error", [[1.0, 2.0], "large", True, xr.DataArray([1.0], dims="x")])
def test_error_of_wrong_shape_or_kind(state, error):
    with pytest.raises(ErrorCovarianceError, match="does not fit the array"):
        read_observations(station_array(), state, error=error)


def test_error_for_an_array_that_is_not_there(state):
    with pytest.raises(ErrorCovarianceError, match=r"names 't2n'(.|\n)*air_temperature, t2m"):
        read_observations(station_array(), state, error={"t2m": 1.0, "t2n": 1.0})


def test_unknown_error_of_one_observation_rejects_it(state):
    obs = station_array().assign_coords(error_std=("station", [1.0, np.nan, np.inf]))
    status = only(obs, state).status
    assert status.tolist() == [Status.USED, Status.NO_ERROR, Status.NO_ERROR]


# flags and gaps


def flag_variable(values, **attrs) -> xr.DataArray:
    attrs = {
        "standard_name": "quality_flag",
        "flag_values": np.array([0, 1, 2], np.int8),
        "flag_meanings": "good suspect not_evaluated",
    } | attrs
    return xr.DataArray(values, dims="station", attrs=attrs)


def test_flags_reject_by_meaning(state):
    ds = station_array(ancillary_variables="flag").to_dataset()
    ds["flag"] = flag_variable([1, 2, 0])
    spec = only(ds, state)
    assert spec.status.tolist() == [Status.FLAGGED, Status.USED, Status.USED]
    assert any("not_evaluated" in guess and "are used" in guess for guess in spec.guesses)


def test_flag_masks_and_bit_fields(state):
    ds = station_array(np.arange(4.0), ancillary_variables="bits").to_dataset()
    attrs = {
        "standard_name": "air_temperature status_flag",
        "flag_masks": [1, 6, 6],
        "flag_values": [1, 2, 4],
        "flag_meanings": "sensor_failed gross_error corrected",
    }
    ds["bits"] = ("station", [0, 1, 2, 4], attrs)
    assert (only(ds, state).status == Status.FLAGGED).tolist() == [False, True, True, False]


def test_flags_as_a_coordinate_and_without_meaning(state):
    obs = station_array().assign_coords(qc=flag_variable([1, 0, 9]))
    spec = only(obs, state)
    assert spec.status.tolist() == [Status.FLAGGED, Status.USED, Status.USED]
    assert any("no meaning (9)" in guess for guess in spec.guesses)


def test_flags_that_are_lost_are_said(state):
    spec = only(station_array(ancillary_variables="flag"), state)
    assert any("flag are listed but not there" in guess for guess in spec.guesses)


def test_ancillary_variables_that_no_variable_lists(state):
    ds = station_array(error_std=None).to_dataset()
    ds["err"] = error_variable([1.0, 2.0, 3.0])
    ds["qc"] = flag_variable([1, 1, 1])
    spec = only(ds, state)
    np.testing.assert_array_equal(spec.error_std, [1, 2, 3])
    assert (spec.status == Status.USED).all()
    assert any("flags qc are listed in no ancillary_variables" in said for said in spec.guesses)


@pytest.mark.parametrize(
    ("meaning", "bad"),
    [
        ("not_good", True),
        ("not_bad", False),
        ("probably_bad_data_that_are_potentially_correctable", True),
        ("passed_all_tests", False),
        ("invalid", True),
        ("no_qc_performed", None),
    ],
)
def test_meanings(meaning, bad):
    assert is_bad(meaning) is bad


def test_missing_values(state):
    spec = only(station_array([1.0, np.nan, np.inf, -999.0], _FillValue=-999.0), state)
    assert spec.status.tolist() == [0, 1, 1, 1]
    assert np.isnan(spec.values[1:]).all()


# quantities and the vertical


def test_quantity_on_levels_takes_pressure(state):
    obs = station_array(name="obs").assign_coords(
        pressure=("station", [850.0, 700.0, 500.0], {"units": "hPa"})
    )
    spec = only(obs, state)
    assert spec.inputs[0].name == "t"
    np.testing.assert_allclose(spec.pressure, [85000, 70000, 50000])


def test_quantity_without_vertical_takes_the_single_level(state):
    spec = only(station_array(name="obs"), state)
    assert (spec.inputs[0].name, spec.pressure) == ("t2m", None)


def test_scalar_height_goes_before_pressure(state):
    obs = station_array(name="obs").assign_coords(
        height=((), 2.0, {"units": "m", "standard_name": "height"}),
        surface_level=("station", [1000.0, 990.0, 950.0], {"units": "hPa"}),
    )
    assert only(obs, state).inputs[0].name == "t2m"


def test_wrong_height(state):
    obs = station_array(name="wind", standard_name="eastward_wind", units="m/s").assign_coords(
        height=((), 100.0, {"units": "m", "standard_name": "height"})
    )
    with pytest.raises(CoordinateError, match=r"'u10' at 10 m(.|\n)*height 100 m"):
        read_observations(obs, state)


def test_missing_pressure_coordinate(state):
    obs = station_array(name="q", standard_name="specific_humidity", units="g/kg")
    match = r"specific_humidity(.|\n)*3 levels, 850 to 250 hPa(.|\n)*give .* a pressure coordinate"
    with pytest.raises(CoordinateError, match=match):
        read_observations(obs, state)


def test_unknown_quantity_lists_state_and_operators(state):
    @register_operator("test_known_quantity", inputs=["eastward_wind"], units="m s-1")
    def known(u):
        return u

    obs = station_array(name="rain", standard_name="precipitation_flux", units="kg m-2 s-1")
    try:
        with pytest.raises(UnknownQuantityError, match="precipitation_flux is neither") as caught:
            read_observations(obs, state)
    finally:
        unregister_operator("test_known_quantity")
    for said in ("air_temperature", "'t2m' at 2 m", "hPa", "test_known_quantity"):
        assert said in str(caught.value)


def test_names_of_archives_are_known(state):
    obs = station_array(name="2m_temperature", standard_name=None)
    spec = only(obs, state)
    assert (spec.quantity, spec.inputs[0].name) == ("air_temperature", "t2m")
    assert spec.template.attrs["standard_name"] == "air_temperature"


def test_registered_operator_by_standard_name_and_by_attribute(state):
    wind = {"eastward_wind": "knot", "northward_wind": "knot"}

    # The user's own goes before the library's operator of that name.
    @register_operator("wind_speed", inputs=wind, units="knot")
    def speed(u, v, calm=0.0):
        return (u * u + v * v) ** 0.5 + calm

    try:
        obs = station_array(name="ff", standard_name="wind_speed", units="m s-1", error_std=1.0)
        spec = only(obs, state)
        assert [variable.name for variable in spec.inputs] == ["u10", "v10"]
        np.testing.assert_allclose(spec.values[0], 3600 / 1852)
        obs = station_array(xappa_operator="wind_speed", xappa_operator_calm=np.float64(1.0))
        obs.attrs.update(standard_name="wind_speed", units="knot")
        assert only(obs, state).parameters == {"calm": 1.0}
    finally:
        unregister_operator("wind_speed")
    obs.attrs = {"xappa_operator": "test_gone", "units": "1", "error_std": 1.0}
    with pytest.raises(OperatorError, match=r"'test_gone' is registered(.|\n)*identity"):
        read_observations(obs, state)


def test_registering_a_name_twice_or_badly():
    register_operator("test_twice", inputs=["a"], units="1")(abs)
    try:
        with pytest.raises(OperatorError, match="'test_twice' is registered already"):
            register_operator("test_twice", inputs=["a"], units="1")
        assert get_operator("test_twice").function is abs
    finally:
        unregister_operator("test_twice")
    with pytest.raises(OperatorError, match="cannot be registered as 'two words'"):
        register_operator("two words", inputs=["a"], units="1")


def test_operator_whose_inputs_the_state_lacks(state):
    register_operator("test_needs_ozone", inputs=["mass_fraction_of_ozone_in_air"], units="1")(abs)
    try:
        with pytest.raises(OperatorError, match="needs mass_fraction_of_ozone_in_air"):
            read_observations(station_array(xappa_operator="test_needs_ozone"), state)
    finally:
        unregister_operator("test_needs_ozone")


# coordinates


def test_no_latitude(state):
    with pytest.raises(CoordinateError, match="no coordinate for latitude"):
        read_observations(station_array().drop_vars("latitude"), state)


def test_two_times(state):
    obs = station_array(time=False).assign_coords(
        a=("station", TIMES[[0, 1, 0]], {"standard_name": "time"}),
        b=("station", TIMES[[0, 1, 1]], {"standard_name": "time"}),
    )
    with pytest.raises(AmbiguousCoordinateError, match="several coordinates may be the time"):
        read_observations(obs, state)


def test_times_along_several_dims_as_in_incomplete_arrays(state):
    hours = np.array([[0, 1, 2], [3, 4, 5]], "timedelta64[h]")
    obs = xr.DataArray(
        np.ones((2, 3)),
        {
            "latitude": (("track", "obs"), np.full((2, 3), 50.0)),
            "longitude": (("track", "obs"), np.full((2, 3), 5.0)),
            "time": (("track", "obs"), TIMES[0] + hours.astype("timedelta64[ns]")),
        },
        ("track", "obs"),
        "t2m",
        {"units": "K", "error_std": 1.0, "standard_name": "air_temperature"},
    )
    spec = only(obs, state)
    np.testing.assert_array_equal(np.diff(spec.time), 3600.0)


def test_dim_named_sample_is_no_ensemble_if_places_vary_along_it(state):
    assert only(station_array().rename(station="sample"), state).size == 3


def test_members_are_refused(state):
    obs = station_array().expand_dims(member=2)
    with pytest.raises(CoordinateError, match=r"realization dimension(.|\n)*isel\(member=0\)"):
        read_observations(obs, state)


def test_cftime_dates_and_impossible_latitudes(state):
    cftime = pytest.importorskip("cftime")
    date = cftime.DatetimeNoLeap(2020, 1, 1, 6)
    obs = station_array(time=False).assign_coords(time=date, latitude=("station", [50, 95, 55.0]))
    spec = only(obs, state)
    assert spec.time[0] == TIMES[1].astype("datetime64[s]").astype(float)
    assert np.isnan(spec.latitude).tolist() == [False, True, False]
    assert any("beyond a pole" in guess for guess in spec.guesses)


# containers


@pytest.mark.parametrize("obs", [None, 3.0, np.zeros(3), "obs.nc", [station_array(), np.zeros(2)]])
def test_obs_that_is_no_array(state, obs):
    with pytest.raises(ObservationTypeError, match="is no array of observations"):
        read_observations(obs, state)


def test_text_is_no_observation(state):
    with pytest.raises(ObservationTypeError, match="dtype <U1"):
        read_observations(xr.DataArray(["a"], dims="station"), state)


def test_containers_of_all_kinds(state):
    ds = station_array().to_dataset()
    ds["name"] = ("station", ["a", "b", "c"], {"cf_role": "timeseries_id"})
    msl = station_array(
        [1e5], name="msl", standard_name="air_pressure_at_mean_sea_level", units="Pa"
    )
    obs = {"synop": ds, "ships": [msl, msl]}
    assert [s.name for s in read_observations(obs, state)] == ["synop/t2m", "ships", "ships_2"]
    for empty in ([], {}, (), xr.Dataset()):
        assert read_observations(empty, state) == ()


def test_positions_as_variables_of_a_file_without_coordinates_attribute(state):
    ds = station_array().to_dataset().reset_coords(["latitude", "longitude"])
    assert only(ds, state).size == 3


def test_all_problems_are_told_at_once(state):
    obs = [station_array(units="m", error_std=None), station_array(name="x", standard_name="snow")]
    with pytest.raises(ExceptionGroup, match="cannot be understood") as caught:
        read_observations(obs, state)
    kinds = {type(error) for error in caught.value.exceptions}
    assert kinds == {UnitsError, UnknownQuantityError}
    assert "snow is neither" in str(caught.value)


def test_lazy_observations_are_loaded_and_nothing_is_changed(state):
    ds = station_array(ancillary_variables="flag").to_dataset().chunk()
    ds["flag"] = flag_variable([0, 1, 0])
    before = ds.copy(deep=True)
    spec = only(ds, state)
    assert isinstance(spec.values, np.ndarray)
    xr.testing.assert_identical(ds, before)
    assert ds.chunks == before.chunks


def test_quantified_observations(state):
    pytest.importorskip("pint_xarray")
    spec = only(station_array([20.0]).pint.quantify(), state)
    np.testing.assert_allclose(spec.values, [293.15])
    assert spec.quantified
