"""Files in IODA's layouts: groups, names within names, fill values, markers."""

from __future__ import annotations

import netCDF4
import numpy as np
import pytest
import xarray as xr

import xappa
from xappa.errors import (
    CoordinateError,
    DataError,
    GuessWarning,
    ObservationTypeError,
    UnknownQuantityError,
)
from xappa.obs import from_ioda

FLOAT_FILL = np.float32(-3.3687953e38)  # what JEDI writes, whatever the attribute says
TIME_FILL = -9223372036854775801
INT_FILL = -2147483643
SECONDS = "seconds since 1970-01-01T00:00:00Z"
START = int(np.datetime64("2020-01-01", "s").astype(int))


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    lat, lon = np.linspace(60, 40, 6), np.linspace(0, 30, 7)
    time = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    levels = ("level", [1000.0, 500.0, 200.0], {"units": "hPa"})
    dims = ("time", "level", "latitude", "longitude")
    rng = np.random.default_rng(0)
    kinds = {"t": ("air_temperature", "K"), "u": ("eastward_wind", "m s-1")}
    kinds |= {"v": ("northward_wind", "m s-1"), "q": ("specific_humidity", "kg kg-1")}
    data = {
        name: (dims, rng.standard_normal((3, 3, 6, 7)), {"standard_name": cf, "units": unit})
        for name, (cf, unit) in kinds.items()
    }
    near = {"t2m": ("air_temperature", "K"), "sp": ("surface_air_pressure", "Pa")}
    for name, (cf, unit) in near.items():
        attrs = {"standard_name": cf, "units": unit}
        data[name] = (("time", "latitude", "longitude"), rng.standard_normal((3, 6, 7)), attrs)
    coords = {"time": time, "level": levels, "latitude": lat, "longitude": lon}
    return xr.Dataset(data, coords)


def write(path, groups, sizes, attrs=None) -> str:
    """Write groups of (dims, values, attributes) as IODA's converters do: dims at the root."""
    with netCDF4.Dataset(path, "w") as file:
        file.setncatts({"_ioda_layout": "ObsGroup", "_ioda_layout_version": 0, **(attrs or {})})
        for dim, size in sizes.items():
            file.createDimension(dim, size)
            file.createVariable(dim, "i8", (dim,))[:] = np.arange(size)
        for group, variables in groups.items():
            into = file.createGroup(group) if group else file
            for name, (dims, values, own) in variables.items():
                kind = str if values.dtype.kind in "OU" else values.dtype
                own = dict(own)
                fill = own.pop("_FillValue", None)
                variable = into.createVariable(name, kind, dims, fill_value=fill)
                variable.set_auto_maskandscale(False)
                variable[:] = values
                variable.setncatts(own)
    return str(path)


def sondes() -> dict[str, dict[str, tuple]]:
    """Radiosondes of version 2 and 3: five levels, one of them without a time."""
    at = ("Location",)
    fill = {"_FillValue": np.float32(9.96921e36)}
    floats = {
        "latitude": ([52, 52, 52, 44, 44], "degrees_north"),
        "longitude": ([10, 10, 10, 20, 20], "degrees_east"),
        "pressure": ([85000, 50000, 30000, 70000, FLOAT_FILL], "Pa"),
        "height": ([1500, 5500, FLOAT_FILL, 3000, 0], "m"),
    }
    meta = {
        name: (at, np.float32(values), {"units": units, **fill})
        for name, (values, units) in floats.items()
    }
    seconds = np.array([START, START, START + 60, TIME_FILL, START])
    meta["dateTime"] = (at, seconds, {"units": SECONDS, "_FillValue": np.int64(-(2**63))})
    names = np.array(["10393", "10393", "10393", "16245", "16245"], dtype=object)
    meta["stationIdentification"] = (at, names, {})
    t = np.float32([280, 250, 9.96921e36, 270, 285])
    u = np.float32([5, 20, FLOAT_FILL, 1e38, 3])
    return {
        "MetaData": meta,
        "ObsValue": {
            "airTemperature": (at, t, {"units": "K", **fill}),
            "windEastward": (at, u, {"units": "m s-1", **fill}),
            "windNorthward": (at, np.float32([0, 1, 2, 3, 4]), {"units": "m s-1", **fill}),
            "tropopausePressure": (at, t, {"units": "Pa", **fill}),
        },
        "ObsError": {
            "airTemperature": (at, np.float32([1, 1, 1, 1, 1]), {"units": "K", **fill}),
            "windEastward": (at, np.float32([2, FLOAT_FILL, 2, 2, 0]), {"units": "m s-1", **fill}),
            "windNorthward": (at, np.float32([2] * 5), {"units": "m s-1", **fill}),
        },
        "QualityMarker": {
            "airTemperature": (at, np.int32([2, 9, 2, 3, INT_FILL]), {"_FillValue": np.int32(0)}),
            "windNorthward": (at, np.int32([0, 1, 2, 3, 15]), {}),
        },
    }


@pytest.fixture
def obs(tmp_path) -> xr.Dataset:
    path = write(tmp_path / "sondes.nc4", sondes(), {"Location": 5})
    with pytest.warns(GuessWarning, match="left out: tropopausePressure"):
        return from_ioda(path)


def counts(operator, name) -> dict[str, int]:
    return {s.name: n for s, n in operator.counts()[name].items() if n}


def test_radiosondes(obs, state) -> None:
    assert list(obs.sizes) == ["Location"]
    np.testing.assert_allclose(obs.air_pressure, [85000, 50000, 30000, 70000, np.nan])
    np.testing.assert_array_equal(obs.station, ["10393"] * 3 + ["16245"] * 2)
    assert obs.time.values[2] == np.datetime64("2020-01-01T00:01")
    operator = state.appa.operator(obs)
    assert [spec.inputs[0].name for spec in operator.specs] == ["t", "u", "v"]
    t, u, v = operator.specs
    np.testing.assert_allclose(t.values, [280, 250, np.nan, 270, 285])
    np.testing.assert_allclose(u.error_std, [2, np.nan, 2, 2, np.nan])
    # 9 is a rejection; 3 may be used but has no time; the last has no pressure.
    wanted = {"USED": 1, "MISSING": 1, "FLAGGED": 1, "OUTSIDE_LEVELS": 1, "OUTSIDE_WINDOW": 1}
    assert counts(operator, "airTemperature") == wanted
    assert counts(operator, "windEastward") == {"USED": 1, "MISSING": 2, "NO_ERROR": 2}
    assert counts(operator, "windNorthward")["FLAGGED"] == 1
    assert operator.n_used == 1 + 1 + 3
    np.testing.assert_allclose(v.values[:3], [0, 1, 2])


def test_a_round_trip_through_netcdf(obs, state, tmp_path) -> None:
    obs.to_netcdf(tmp_path / "obs.nc")
    before = state.appa.operator(obs)
    with xr.open_dataset(tmp_path / "obs.nc") as back:
        after = state.appa.operator(back)
    assert before.counts() == after.counts()
    np.testing.assert_array_equal(before.error_std, after.error_std)


@pytest.mark.filterwarnings("ignore:airTemperatureAt2M. height 2 m taken from its name")
def test_no_fill_value_reaches_the_analysis() -> None:
    weather = xappa.testing.weather(times=40)
    model = xappa.fit_gaussian(weather, modes=4)
    day = weather.isel(time=[20])
    seconds = int(day.time.values[0].astype("datetime64[s]").astype(int))
    at = "Location"
    lat, lon = float(day.latitude[2]), float(day.longitude[3])
    value = float(day.t2m.isel(time=0, latitude=2, longitude=3)) + 3
    groups = {
        "MetaData": xr.Dataset(
            {
                "latitude": (at, np.float32([lat, lat, FLOAT_FILL])),
                "longitude": (at, np.float32([lon, 370 + 360, lon])),
                "dateTime": (at, [seconds] * 3, {"units": SECONDS}),
            }
        ),
        "ObsValue": xr.Dataset({"airTemperatureAt2M": (at, np.float32([value, FLOAT_FILL, 1.0]))}),
        "ObsError": xr.Dataset({"airTemperatureAt2M": (at, np.float32([0.01, 0.01, 0.01]))}),
    }
    with pytest.warns(GuessWarning, match="1 longitudes beyond 360"):
        obs = from_ioda(groups)
    ens = day.appa.assimilate(obs, model, members=4, seed=0)
    assert ens.t2m.notnull().all()
    np.testing.assert_allclose(ens.t2m.isel(time=0, latitude=2, longitude=3), value, atol=0.1)


def test_version_1_keeps_groups_in_names(state, tmp_path) -> None:
    at = ("nlocs",)
    text = np.array(["2020-01-01T00:00:00Z", "2020-01-01T06:00:00Z"], dtype=object)
    flat = {
        "latitude@MetaData": (at, np.float32([52, 44]), {}),
        "longitude@MetaData": (at, np.float32([10, 20]), {}),
        "air_pressure@MetaData": (at, np.float32([85000, 50000]), {}),
        "datetime@MetaData": (at, text, {}),
        "air_temperature@ObsValue": (at, np.float32([280, 250]), {}),
        "air_temperature@ObsError": (at, np.float32([1, 2]), {}),
        "air_temperature@PreQC": (at, np.int32([0, 4]), {}),
    }
    path = write(tmp_path / "v1.nc4", {"": flat}, {"nlocs": 2})
    obs = from_ioda(path)
    assert obs.air_temperature.units == "K"  # as the convention has it
    operator = state.appa.operator(obs)
    assert counts(operator, "air_temperature") == {"USED": 1, "FLAGGED": 1}
    np.testing.assert_allclose(operator.specs[0].error_std, [1, 2])
    # Its oldest files count hours from a date in the attributes.
    flat.pop("datetime@MetaData")
    flat["time@MetaData"] = (at, np.float32([-1.5, 2.0]), {})
    old = from_ioda(write(tmp_path / "v0.nc4", {"": flat}, {"nlocs": 2}, {"date_time": 2020010106}))
    expected = np.array(["2020-01-01T04:30", "2020-01-01T08:00"], "datetime64[ns]")
    np.testing.assert_array_equal(old.time, expected)
    with xr.open_dataset(path) as ds:
        xr.testing.assert_identical(
            from_ioda(ds).air_temperature.drop_attrs(), obs.air_temperature.drop_attrs()
        )


def test_surface_reports(state, tmp_path) -> None:
    at = "Location"
    meta = {
        "latitude": (at, [52.0, 44.0]),
        "longitude": (at, [10.0, 20.0]),
        "stationElevation": (at, [100.0, 200.0], {"units": "m"}),
        "dateTime": (at, np.array(["2020-01-01T00", "2020-01-01T06"], "datetime64[ns]")),
    }
    values = {
        "stationPressure": (at, np.float32([1000.0, 990.0])),
        "airTemperatureAt2M": (at, np.float32([280.0, 281.0]), {"units": "K"}),
    }
    tree = xr.DataTree.from_dict({"/MetaData": xr.Dataset(meta), "/ObsValue": xr.Dataset(values)})
    operator = state.appa.operator(
        from_ioda(tree), error={"stationPressure": 1.0, "airTemperatureAt2M": 1.0}
    )
    pressure, temperature = operator.specs
    assert (pressure.inputs[0].name, temperature.inputs[0].name) == ("sp", "t2m")
    np.testing.assert_allclose(pressure.values, [100000, 99000])  # without units: hPa
    only = from_ioda(tree, variables="airTemperatureAt2M")
    assert list(only.data_vars) == ["airTemperatureAt2M"]
    with pytest.raises(UnknownQuantityError, match="snow is not known"):
        from_ioda(tree, variables=["snow"])


def test_channels() -> None:
    dims = ("Location", "Channel")
    meta = {
        "latitude": ("Location", [52.0, 44.0]),
        "longitude": ("Location", [10.0, 20.0]),
        "dateTime": ("Location", [0, 60], {"units": SECONDS}),
        "sensorChannelNumber": ("Channel", np.int32([5, 6, 7])),
    }
    tb = np.float32([[250, 240, FLOAT_FILL], [251, 241, 231]])
    values = {"brightnessTemperature": (dims, tb, {"units": "K"})}
    errors = {"brightnessTemperature": (dims, np.float32(np.full((2, 3), 0.5)), {"units": "K"})}
    obs = from_ioda(
        {
            k: xr.Dataset(v)
            for k, v in {"MetaData": meta, "ObsValue": values, "ObsError": errors}.items()
        }
    )
    np.testing.assert_array_equal(obs.channel, [5, 6, 7])
    assert obs.brightnessTemperature.dims == dims
    assert np.isnan(obs.brightnessTemperature[0, 2])
    assert obs.brightnessTemperature_error.dims == dims


def test_no_location_is_no_error(state, tmp_path) -> None:
    groups = {
        group: {n: (dims, values[:0], attrs) for n, (dims, values, attrs) in variables.items()}
        for group, variables in sondes().items()
    }
    groups["ObsValue"].pop("tropopausePressure")
    obs = from_ioda(write(tmp_path / "none.nc4", groups, {"Location": 0}))
    assert obs.sizes["Location"] == 0
    assert state.appa.operator(obs).n_used == 0


def _without(name, *inner):
    groups = sondes()
    for key in inner:
        groups[name].pop(key)
    if not inner:
        groups.pop(name)
    return groups


@pytest.mark.parametrize(
    ("groups", "error", "match"),
    [
        (_without("ObsValue"), DataError, "the group ObsValue is missing"),
        (_without("MetaData"), DataError, "the group MetaData is missing"),
        ({**sondes(), "ObsValue": {}}, DataError, "the group ObsValue is empty"),
        (_without("MetaData", "latitude"), CoordinateError, "MetaData has no latitude"),
        (_without("MetaData", "dateTime"), CoordinateError, "MetaData has no dateTime"),
        (
            {**sondes(), "ObsValue": {"snow": (("Location",), np.zeros(5), {})}},
            UnknownQuantityError,
            "no variable in ObsValue is known",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:variables that are not known")
def test_what_is_missing_is_named(groups, error, match, tmp_path) -> None:
    path = write(tmp_path / "bad.nc4", groups, {"Location": 5})
    with pytest.raises(error, match=match):
        from_ioda(path)


def test_times_without_a_date(tmp_path) -> None:
    groups = sondes()
    groups["ObsValue"].pop("tropopausePressure")
    dims, values, attrs = groups["MetaData"]["dateTime"]
    groups["MetaData"]["dateTime"] = (dims, values, {**attrs, "units": "seconds"})
    with pytest.raises(CoordinateError, match="times cannot be read"):
        from_ioda(write(tmp_path / "bad.nc4", groups, {"Location": 5}))


def test_other_things_are_refused(tmp_path) -> None:
    with pytest.raises(ObservationTypeError, match="wants the groups of an IODA file"):
        from_ioda([1, 2])
    (tmp_path / "text.nc4").write_text("no file")
    with pytest.raises(DataError, match="the file cannot be read"):
        from_ioda(tmp_path / "text.nc4")
    with pytest.raises(FileNotFoundError):
        from_ioda(tmp_path / "absent.nc4")
    other = {"MetaData": xr.Dataset({"latitude": ("Location", [1.0])})}
    other["ObsValue"] = xr.Dataset({"airTemperature": ("Location", [1.0, 2.0])})
    with pytest.raises(CoordinateError, match="do not have the same locations"):
        from_ioda(other)
