"""Networks: where instruments look, checked against geometry, and what their metadata say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xappa.bridge import describe
from xappa.cf import to_seconds
from xappa.diffusion.noise import generator
from xappa.errors import (
    ArgumentError,
    CoordinateError,
    ErrorCovarianceError,
    ObservationTypeError,
    XappaErrors,
)
from xappa.grid import EARTH_RADIUS, Grid, great_circle
from xappa.obs import (
    Orbit,
    equal_area_stations,
    geostationary,
    gridded_orbiter,
    ground_track,
    polar_orbiter,
    radiosondes,
    random_stations,
    stations_from_table,
    visible,
)
from xappa.observe import ObservationOperator, read_observations, simulate
from xappa.observe.networks.geostationary import disk

DEFAULT = Path(__file__).parents[2] / "shared" / "fixtures" / "appa"
FOLDER = Path(os.environ.get("XAPPA_FIXTURES", DEFAULT))
START = np.datetime64("2020-01-01T00", "ns")
HOUR = np.timedelta64(1, "h")


def states(times: int = 5, hours: int = 6, *, globe: bool = False, levels: bool = True):
    """Return a smooth state: near-surface and surface variables, and variables on two levels."""
    lat = np.linspace(90, -90, 37) if globe else np.linspace(60, 40, 11)
    lon = np.arange(0, 360, 5.0) if globe else np.linspace(-10, 20, 16)
    time = START + np.arange(times) * hours * HOUR
    plain = np.cos(np.deg2rad(lat))[:, None] * np.sin(np.deg2rad(lon))
    moving = plain * np.cos(np.arange(times) / 3)[:, None, None]
    deep = np.stack([moving, 0.5 * moving], axis=1)
    flat, on_levels = ("time", "lat", "lon"), ("time", "level", "lat", "lon")
    ds = xr.Dataset(
        {
            "t2m": (flat, 280 + 20 * moving, _about("air_temperature", "K")),
            "u10": (flat, 10 * moving, _about("eastward_wind", "m s-1")),
            "ps": (flat, 1000 + 10 * moving, _about("surface_air_pressure", "hPa")),
        },
        {"time": time, "lat": lat, "lon": lon},
    )
    if levels:
        ds["level"] = ("level", [850.0, 300.0], _about("air_pressure", "hPa"))
        ds["t"] = on_levels, 260 + 20 * deep, _about("air_temperature", "K")
        ds["u"] = on_levels, 10 * deep, _about("eastward_wind", "m s-1")
        ds["q"] = on_levels, 5 + 2 * deep, _about("specific_humidity", "g kg-1")
    return ds


def _about(name: str, unit: str) -> dict[str, str]:
    return {"standard_name": name, "units": unit}


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return states()


@pytest.fixture(scope="module")
def globe() -> xr.Dataset:
    return states(globe=True, levels=False)


def operator(ds, obs, **kwargs) -> ObservationOperator:
    state, _ = describe(ds)
    seconds = to_seconds(ds.time)[0]
    return ObservationOperator.build(read_observations(obs, state, **kwargs), state, seconds)


def filled(ds, obs, seed=0):
    return simulate(operator(ds, obs), ds, seed=seed)


# stations


def test_random_stations_are_those_of_earlier_versions(ds):
    draws = generator(3, "stations").random((5, 2))
    low, high = np.sin(np.deg2rad([40, 60]))
    obs = random_stations(ds, 5, variable="t2m", error=0.5, seed=3)
    np.testing.assert_array_equal(
        obs.latitude, np.rad2deg(np.arcsin(low + (high - low) * draws[:, 0]))
    )
    np.testing.assert_array_equal(obs.longitude, -10 + 30 * draws[:, 1])


@pytest.mark.parametrize("is_global", [True, False])
def test_evenly_spread_stations_fill_equal_areas_alike(ds, globe, is_global):
    state = globe if is_global else ds
    n = 2000
    obs = equal_area_stations(state, n, variable="t2m", error=1.0)
    assert obs.sizes["station"] == n
    south, north, west, east = (-90, 90, 0, 360) if is_global else (40, 60, -10, 20)
    bounds = np.sin(np.deg2rad([south, north]))
    counts, _, _ = np.histogram2d(
        np.sin(np.deg2rad(obs.latitude)),
        np.asarray(obs.longitude),
        bins=[np.linspace(*bounds, 9), np.linspace(west, east, 9)],
    )
    assert counts.sum() == n  # none outside
    # 31.25 expected: chance would spread them by 5.6; a lattice differs at the edges of the bins
    assert np.abs(counts - n / 64).max() <= 5
    # and no two are close: a square lattice has sqrt(area / n), a hexagonal one 1.07 times that
    area = EARTH_RADIUS**2 * np.deg2rad(east - west) * np.diff(bounds)[0]
    lat, lon = obs.latitude.values, obs.longitude.values
    distance = great_circle(lat[:, None], lon[:, None], lat, lon) + 1e9 * np.eye(n)
    assert distance.min() > 0.6 * np.sqrt(area / n)


def test_several_variables_make_a_dataset(ds):
    obs = random_stations(ds, 4, variable={"t2m": 0.5, "u10": 1.0, "t": 0.8}, seed=0)
    assert obs.t2m.dims == obs.u10.dims == ("time", "station")
    assert obs.t.dims == ("time", "air_pressure", "station")
    H = operator(ds, obs)
    matched = {spec.name: spec.inputs[0].name for spec in H.specs}
    assert matched == {"t2m": "t2m", "u10": "u10", "t": "t"}
    errors = {spec.name: set(spec.error_std) for spec in H.specs}
    assert errors == {"t2m": {0.5}, "u10": {1.0}, "t": {0.8}}
    assert simulate(H, ds, seed=0).t.notnull().all()
    listed = random_stations(ds, 4, variable=["t2m"], error=0.5, seed=0)
    xr.testing.assert_equal(listed.t2m.drop_vars("height"), obs.t2m)


def test_stations_of_a_table(ds):
    frame = pd.DataFrame(
        {"ID": ["a", "b", "c"], "Lat": [50.0, 55, 10], "LON": [0.0, 5, 0], "elevation": [9, 20, 3]}
    )
    obs = stations_from_table(ds, frame, variable="t2m", error=0.5)
    assert obs.station.values.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(obs.altitude, [9, 20, 3])
    assert obs.altitude.attrs["standard_name"] == "altitude"
    y = filled(ds, obs)
    np.testing.assert_array_equal(y.isnull().all("time"), [False, False, True])
    assert "outside domain 5" in repr(operator(ds, obs.fillna(0.0)))
    same = stations_from_table(ds, frame.set_index("ID"), variable="t2m", error=0.5)
    xr.testing.assert_identical(same, obs)
    other = stations_from_table(ds, obs, variable="u10", error=1.0)
    xr.testing.assert_identical(
        other.latitude.drop_vars("height"), obs.latitude.drop_vars("height")
    )
    nameless = stations_from_table(ds, frame[["Lat", "LON"]], variable="t2m", error=0.5)
    assert nameless.station.values[2] == "station 002"


def test_tables_that_cannot_be(ds):
    def place(frame):
        return stations_from_table(ds, frame, variable="t2m", error=0.5)

    with pytest.raises(CoordinateError, match="no longitude"):
        place(pd.DataFrame({"lat": [1.0]}))
    with pytest.raises(ObservationTypeError, match="no table"):
        place([1, 2])
    twice = pd.DataFrame({"name": ["a", "a"], "lat": [1.0, 2.0], "lon": [1.0, 2.0]})
    with pytest.raises(ArgumentError, match=r"drop_duplicates\('name'\)"):
        place(twice)


# radiosondes


def test_radiosondes_have_the_errors_of_speedy_letkf(ds):
    obs = radiosondes(ds)
    assert set(obs) == {"ps", "t", "u", "q"}  # neither 2 m temperature nor 10 m wind
    # in the units of the Dataset: hPa and g/kg
    errors = {name: obs[name].attrs["error_std"] for name in obs}
    assert errors == {"ps": 1.0, "t": 1.0, "u": 1.0, "q": pytest.approx(1.0)}
    assert obs.ps.dims == ("time", "station")
    assert obs.t.dims == ("time", "air_pressure", "station")
    assert obs.sizes["station"] == 6 * 8
    H = operator(ds, obs)
    assert {spec.name: spec.inputs[0].name for spec in H.specs} == {n: n for n in obs}
    y = simulate(H, ds, seed=0)
    assert all(y[name].notnull().all() for name in obs)
    changed = radiosondes(ds, error={"air_temperature": 0.5, "ps": 2.0})
    assert (changed.t.attrs["error_std"], changed.ps.attrs["error_std"]) == (0.5, 2.0)


def test_the_regular_network_is_that_of_speedy_letkf():
    lat = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(48)[0]))
    t = ("lev", "lat", "lon"), np.zeros((2, 48, 96)), _about("air_temperature", "K")
    lev = ("lev", [850.0, 500.0], _about("air_pressure", "hPa"))
    coords = {"lev": lev, "lat": lat, "lon": np.arange(96) * 3.75}
    t30 = xr.Dataset({"t": t}, coords)
    obs = radiosondes(t30)
    assert obs.sizes["station"] == 21 * 48
    np.testing.assert_array_equal(np.unique(obs.latitude), lat[3:45:2])
    np.testing.assert_array_equal(np.unique(obs.longitude), np.arange(48) * 7.5)
    flipped = radiosondes(t30.isel(lat=slice(None, None, -1)))
    xr.testing.assert_identical(flipped, obs)


def test_humidity_of_the_lower_levels_and_six_hourly_soundings():
    hourly = states(times=14, hours=1).isel(time=slice(1, None))
    obs = radiosondes(hourly, humidity_below=5e4)
    assert obs.time.dt.hour.values.tolist() == [6, 12]
    np.testing.assert_array_equal(obs.air_pressure, [85000, 30000])
    assert obs.q.dims == ("time", "air_pressure_q", "station")
    np.testing.assert_array_equal(obs.air_pressure_q, [85000])
    H = operator(hourly, obs)
    assert {spec.name: spec.pressure is not None for spec in H.specs}["q"]
    assert simulate(H, hourly, seed=0).q.notnull().all()
    twelve = radiosondes(hourly, equal_area_stations(hourly, 7, variable="t2m", error=1.0))
    assert twelve.sizes["station"] == 7
    assert radiosondes(hourly, times=["2020-01-01T03"]).sizes["time"] == 1


def test_radiosondes_that_cannot_be(ds):
    with pytest.raises(ArgumentError, match="nothing that radiosondes observe"):
        radiosondes(ds[["t2m"]])
    with pytest.raises(ArgumentError, match="1 or more"):
        radiosondes(ds, every=0)
    with pytest.raises(ArgumentError, match="bias_std is one number"):
        radiosondes(ds, bias_std=1.0)
    with pytest.raises(ErrorCovarianceError, match="not that of its variables"):
        radiosondes(ds, error={"northward_wind": 1.0})


# orbits


def test_ground_track_is_the_analytic_one():
    orbit = Orbit(800e3, 98.6, phase=20.0, node=40.0, epoch="2020-01-01")
    seconds = np.arange(0, 86400, 60.0)
    track = ground_track(START + (seconds * 1e9).astype("timedelta64[ns]"), orbit)
    period = 2 * np.pi * np.sqrt((EARTH_RADIUS + 800e3) ** 3 / 3.986004418e14)
    assert orbit.period == pytest.approx(period, rel=1e-14)
    u = np.deg2rad(20) + 2 * np.pi * seconds / period
    i = np.deg2rad(98.6)
    latitude = np.rad2deg(np.arcsin(np.sin(i) * np.sin(u)))
    east = 40 + np.rad2deg(np.arctan2(np.cos(i) * np.sin(u), np.cos(u)))
    east -= 360 * seconds / 86164.0905
    # rounding of angles of 90 radians, through an arcsine that loses half the digits near a pole
    np.testing.assert_allclose(track.latitude, latitude, atol=1e-11)
    assert np.abs((track.longitude - east + 180) % 360 - 180).max() < 1e-10
    assert float(track.longitude.min()) >= -180
    assert float(track.longitude.max()) < 180
    assert float(np.abs(track.latitude).max()) == pytest.approx(180 - 98.6, abs=0.1)


def test_a_satellite_is_where_it_is_whatever_the_window(ds):
    orbit = Orbit()
    times = np.array(["2020-01-01T00", "2020-01-01T12"], "datetime64[ns]")
    xr.testing.assert_identical(
        ground_track(times, orbit).isel(time=[1]), ground_track(times[1:], orbit)
    )
    kwargs = {"variable": "t2m", "error": 1.0, "dropout": 0.3, "seed": 5}
    whole, part = polar_orbiter(ds, **kwargs), polar_orbiter(ds.isel(time=slice(2, 4)), **kwargs)
    inside = (whole.time >= ds.time.values[2]) & (whole.time <= ds.time.values[3])
    assert 0 < part.sizes["scan"] < whole.sizes["scan"]
    xr.testing.assert_identical(whole.isel(scan=inside.values), part)


def test_sun_synchronous_orbits_cross_the_equator_at_their_local_time():
    # 800 km above the equator: Vallado (2013) has 98.6 degrees
    assert Orbit.sun_synchronous("807.137 km").inclination == pytest.approx(98.6, abs=0.01)
    orbit = Orbit.sun_synchronous("817 km", "09:30")
    revolutions = np.arange(0, 5000, 500) * orbit.period * 1e9
    times = np.datetime64("1970-01-01", "ns") + revolutions.astype("timedelta64[ns]")
    track = ground_track(times, orbit)
    assert float(np.abs(track.latitude).max()) < 1e-4  # ascending node, to a nanosecond of time
    day = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
    np.testing.assert_allclose((day + track.longitude / 15) % 24, 9.5, atol=1e-4)
    with pytest.raises(ArgumentError, match="no orbit is sun-synchronous"):
        Orbit.sun_synchronous("7000 km")
    with pytest.raises(ArgumentError, match="bad inclination"):
        Orbit("800 km", 200.0)
    with pytest.raises(ArgumentError, match="no length"):
        Orbit("800 parsnips")


@pytest.mark.parametrize("fov", [3.0, 40.0, 100.0])
def test_what_is_seen_lies_within_the_angle(fov):
    rng = np.random.default_rng(0)
    lat, lon = np.degrees(np.arcsin(rng.uniform(-1, 1, 7))), rng.uniform(-400, 400, 7)
    track = xr.Dataset({"latitude": ("time", lat), "longitude": ("time", lon)})
    for east in (np.arange(0, 360, 4.0), np.arange(-180, 180, 4.0), np.linspace(-20, 30, 26)):
        grid = xr.Dataset(coords={"lat": np.linspace(90, -90, 46), "lon": east})
        distance = great_circle(grid.lat.values[:, None, None], east[:, None], lat, lon)
        expected = (distance <= np.deg2rad(fov) * EARTH_RADIUS).any(axis=-1)
        np.testing.assert_array_equal(visible(grid, track, fov=fov), expected)


def test_pixels_lie_across_the_track(globe):
    orbit = Orbit("800 km", 98.0, day="24h")
    obs = polar_orbiter(
        globe, orbit, variable="t2m", error=1.0, swath="1000 km", pixels=5, interval="1min"
    )
    assert obs.sizes == {"scan": 24 * 60 + 1, "pixel": 5}
    lat, lon = obs.latitude.values, obs.longitude.values
    track = ground_track(obs.time.values, orbit)
    # the middle pixel is below the satellite, and pixels are 200 km apart on a great circle
    np.testing.assert_allclose(lat[:, 2], track.latitude, atol=1e-9)
    apart = great_circle(lat[:, :-1], lon[:, :-1], lat[:, 1:], lon[:, 1:])
    np.testing.assert_allclose(apart, 200e3, rtol=1e-9)
    np.testing.assert_allclose(great_circle(lat[:, 0], lon[:, 0], lat[:, 4], lon[:, 4]), 800e3)
    # scans are perpendicular to the orbital plane
    seconds, calendar = to_seconds(obs.time)
    a, b = np.deg2rad(lat), np.deg2rad(lon)
    pixel = np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], axis=-1)
    _, pole = orbit.directions(seconds, calendar)
    sideways = EARTH_RADIUS * np.arcsin((pixel * pole[:, None]).sum(axis=-1))
    np.testing.assert_allclose(sideways, np.tile([-4e5, -2e5, 0, 2e5, 4e5], (1441, 1)), atol=1e-2)
    assert obs.time.dims == ("scan",)
    assert filled(globe, obs).notnull().all()


def test_scans_that_miss_the_domain_are_left_out(ds):
    obs = polar_orbiter(ds, variable=["t2m", "t"], error={"t2m": 1.0, "t": 2.0}, footprint="20 km")
    grid = Grid(ds.lat.values, ds.lon.values)
    inside = grid.interpolate(obs.latitude.values.ravel(), obs.longitude.values.ravel())[2]
    assert inside.reshape(obs.latitude.shape).any(axis=1).all()
    assert obs.t.dims == ("scan", "air_pressure", "pixel")
    assert obs.t2m.attrs["xappa_footprint_radius"] == 20e3
    window = ds.time.values[[0, -1]]
    assert window[0] <= obs.time.values.min()
    assert obs.time.values.max() <= window[1]
    with pytest.raises(XappaErrors, match=r"(?s)pixels=0.*not positive"):
        polar_orbiter(ds, variable="t2m", error=-1.0, pixels=0)
    with pytest.raises(CoordinateError, match="needs times"):
        polar_orbiter(ds.isel(time=0, drop=True), variable="t2m", error=1.0)
    with pytest.raises(ArgumentError, match="not positive"):
        polar_orbiter(ds, variable="t2m", error=1.0, interval="0s")


def test_gridded_orbiter_sees_what_is_visible_around_each_time(globe):
    obs = gridded_orbiter(globe, Orbit(), variable="t2m", error=1.0, fov=8.0)
    times = globe.time.values[1] + np.arange(-180, 180) * np.timedelta64(60, "s")
    expected = visible(globe, ground_track(times, Orbit()), fov=8.0)
    y = filled(globe, obs)
    np.testing.assert_array_equal(y.isel(time=1).notnull(), expected)
    assert 0.1 < float(expected.mean()) < 0.9
    layered = gridded_orbiter(states(), variable="t", error=1.0)
    assert layered.dims == ("time", "air_pressure", "latitude", "longitude")
    gaps = filled(states(), layered).isnull()
    assert (gaps == (layered.status_flag == 1)).all()


# geostationary satellites


def test_geostationary_pixels_lie_on_the_lines_of_sight():
    x, y, lat, lon = disk(300e3, 75.0)
    a, b = np.deg2rad(lat), np.deg2rad(lon)
    point = np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], axis=1)
    satellite = np.array([42164170 / EARTH_RADIUS, 0, 0])  # radius of the geostationary orbit
    sight = point - satellite
    # scan angles of GOES-R: y in the plane of the axis, x towards the east
    # the radius above is rounded to ten metres of forty thousand kilometres
    np.testing.assert_allclose(np.arctan2(sight[:, 2], -sight[:, 0]), y, atol=1e-6)
    distance = np.linalg.norm(sight, axis=1)
    np.testing.assert_allclose(np.arcsin(sight[:, 1] / distance), x, atol=1e-6)
    zenith = np.rad2deg(np.arccos(-(point * sight).sum(axis=1) / distance))
    assert 72 < zenith.max() <= 75.0
    # regular in angle: 300 km below the satellite, more towards the limb
    step = np.diff(np.unique(x.round(12)))
    np.testing.assert_allclose(step, 300e3 / 35.793e6, rtol=1e-4)
    middle = lon[np.abs(y) < 1e-9]
    assert 2.6 < np.diff(middle).min() < 2.8 < 6 < np.diff(middle).max()


def test_geostationary_images(ds, globe):
    obs = geostationary(globe, 140.7, variable="t2m", error=0.5, resolution="500 km", interval="3h")
    assert obs.dims == ("time", "pixel")
    assert obs.sizes["time"] == 9
    below = great_circle(obs.latitude, obs.longitude, 0.0, 140.7) / EARTH_RADIUS
    # the central angle at which the satellite stands 70 degrees from the zenith
    limit = np.deg2rad(70) - np.arcsin(np.sin(np.deg2rad(70)) / 6.618)
    assert below.min() == pytest.approx(0, abs=1e-9)
    assert 0.9 * limit < below.max() <= limit * (1 + 1e-4)
    assert filled(globe, obs).notnull().all()
    here = geostationary(ds, 0.0, variable="t2m", error=0.5, footprint=2e4)
    assert here.attrs["xappa_footprint_radius"] == 2e4
    assert filled(ds, here.drop_attrs(deep=False).assign_attrs(error_std=1.0)).notnull().all()
    assert geostationary(ds, 180.0, variable="t2m", error=0.5).sizes["pixel"] == 0
    with pytest.raises(XappaErrors, match="zenith=95"):
        geostationary(ds, np.nan, variable="t2m", error=0.5, zenith=95)


# errors, biases and dropouts


def every_network(ds, **kwargs):
    both = {"variable": "t2m", "error": 0.5} | kwargs
    frame = pd.DataFrame({"lat": [50.0, 55], "lon": [0.0, 5]})
    sondes = {k: v for k, v in kwargs.items() if k != "bias_std"}
    if "bias_std" in kwargs:
        sondes["bias_std"] = {"t": kwargs["bias_std"]}
    return {
        "random": random_stations(ds, 9, **{"seed": 0, **both}),
        "even": equal_area_stations(ds, 9, **both),
        "table": stations_from_table(ds, frame, **both),
        "sondes": radiosondes(ds, **sondes),
        "several": random_stations(ds, 9, variable={"t2m": 1.0, "t": 2.0}, seed=0),
        "orbiter": polar_orbiter(ds, interval="1min", **both),
        "gridded": gridded_orbiter(ds, **both),
        "geostationary": geostationary(ds, 0.0, resolution="300 km", **both),
    }


@pytest.mark.parametrize("kwargs", [{}, {"bias_std": 0.2, "dropout": 0.25, "seed": 7}])
def test_networks_survive_netcdf_and_are_understood(ds, tmp_path, kwargs):
    for name, obs in every_network(ds, **kwargs).items():
        path = tmp_path / f"{name}.nc"
        obs.to_netcdf(path)
        array = isinstance(obs, xr.DataArray)
        with (xr.open_dataarray if array else xr.open_dataset)(path) as stored:
            back = stored.load()
        xr.testing.assert_identical(back, obs)
        for one, other in ((filled(ds, back), filled(ds, obs)),):
            xr.testing.assert_identical(one, other)
        parts = [obs] if array else list(obs.data_vars.values())
        assert all(part.attrs["error_std"] > 0 and part.attrs["units"] for part in parts)
        report = repr(operator(ds, obs))
        assert "bias" in report if kwargs and name != "several" else "platform" not in report


def test_biases_are_those_of_platforms(ds):
    kwargs = {"variable": "t2m", "error": 1e-3, "bias_std": 2.0}
    stations = equal_area_stations(ds, 40, **kwargs)
    noise = filled(ds, stations) - operator(ds, stations)(ds)
    assert float(noise.std("time").max()) < 0.01  # constant in time, another at each station
    assert 1.2 < float(noise.mean("time").std()) < 2.8
    satellite = polar_orbiter(ds, interval="1min", **kwargs)
    noise = filled(ds, satellite) - operator(ds, satellite)(ds)
    assert float(noise.std()) < 0.01 < abs(float(noise.mean()))


def test_missing_reports_are_gaps_that_a_seed_determines(ds):
    for name, obs in every_network(ds, dropout=0.3, seed=3).items():
        if name in ("several", "gridded"):
            continue
        y = filled(ds, obs)
        variable = y if isinstance(y, xr.DataArray) else y.t
        lost = (obs.status_flag == 1).broadcast_like(variable).transpose(*variable.dims)
        assert (variable.where(lost).isnull() | ~lost).all()
        assert variable.isnull().where(lost, False).sum() == lost.sum(), name
        # four standard errors
        share, size = float(obs.status_flag.mean()), obs.status_flag.size
        assert abs(share - 0.3) < 4 * np.sqrt(0.21 / size), name
    kwargs = {"variable": "t2m", "error": 0.5, "dropout": 0.3}
    many, few = (random_stations(ds, n, seed=3, **kwargs).status_flag for n in (9, 4))
    np.testing.assert_array_equal(few, many[:, :4])
    later = random_stations(ds.isel(time=slice(2, None)), 9, seed=3, **kwargs).status_flag
    np.testing.assert_array_equal(later, many[2:])
    assert (random_stations(ds, 9, seed=4, **kwargs).status_flag != many).any()
    drawn = equal_area_stations(ds, 50, **kwargs)
    again = equal_area_stations(ds, 50, seed=drawn.attrs["xappa_network_seed"], **kwargs)
    xr.testing.assert_identical(again, drawn)


def test_the_noise_of_what_is_left_does_not_change(ds):
    full, less = (
        filled(ds, equal_area_stations(ds, 30, variable="t2m", error=0.5, dropout=d, seed=1))
        for d in (0.0, 0.4)
    )
    kept = less.notnull()
    assert 0.4 < float(kept.mean()) < 0.8
    np.testing.assert_array_equal(less.values[kept], full.values[kept])


def test_all_that_is_wrong_is_told(ds):
    with pytest.raises(XappaErrors) as caught:
        equal_area_stations(ds, -1, variable={"t3m": 1.0, "t2m": 0.0}, dropout=1.5)
    for said in ("n=-1", "'t3m'", "not positive", "is no share"):
        assert said in str(caught.value)
    with pytest.raises(ErrorCovarianceError, match="not known"):
        equal_area_stations(ds, 3, variable="t2m")
    with pytest.raises(ErrorCovarianceError, match=r"error=\{'t2m': ..., 'u10': ...\}"):
        equal_area_stations(ds, 3, variable=["t2m", "u10"], error=1.0)
    with pytest.raises(ArgumentError, match="bias_std of a network is not positive"):
        equal_area_stations(ds, 3, variable="t2m", error=1.0, bias_std=-1.0)


def test_times_of_any_calendar(ds):
    other = ds.convert_calendar("360_day", align_on="date")
    for name, obs in every_network(other).items():
        if name == "random":
            assert obs.time.dt.calendar == "360_day"
        y = filled(other, obs)
        first = y if isinstance(y, xr.DataArray) else next(iter(y.data_vars.values()))
        assert first.notnull().any(), name


# the reference

no_arrays = pytest.mark.skipif(
    not (FOLDER / "orbit.npz").is_file(),
    reason=f"no reference arrays in {FOLDER} (XAPPA_FIXTURES)",
)


def appa_orbit(node: float) -> Orbit:
    """Return the orbit that Appa's code makes, in our terms.

    It starts at the descending node; its phase turns the orbital plane, as a longitude of the node
    does; the Earth turns once in 24 hours; its radius is 6,371.0088 km.
    """
    altitude = 800e3 + 6_371_008.8 - EARTH_RADIUS
    return Orbit(altitude, 75.0, phase=180.0, node=node, epoch=START, day="24h")


def appa_times(hours: int, delay: int = 0) -> np.ndarray:
    minutes = np.arange(hours * 60) + delay * 60
    return START + minutes * np.timedelta64(1, "m")


@pytest.mark.parametrize(
    ("name", "node", "hours", "delay"),
    [("leo_24h", 0.0, 24, 0), ("leo_phase30_delay12_6h", 30.0, 6, 12)],
)
@pytest.mark.reference
@no_arrays
def test_orbits_of_appa(name, node, hours, delay):
    theirs = np.load(FOLDER / "orbit.npz")[name].reshape(-1, 2).astype(np.float64)
    ours = ground_track(appa_times(hours, delay), appa_orbit(node))
    apart = great_circle(ours.latitude, ours.longitude, *theirs.T) / EARTH_RADIUS
    # the reference counts degrees along the orbit, 5,145 in 24 hours, in float32
    assert np.rad2deg(apart).max() < 3 * np.spacing(np.float32(5145))


@pytest.mark.reference
@no_arrays
def test_points_that_appa_sees():
    stored = np.load(FOLDER / "orbit.npz")
    lat, lon = np.linspace(90, -90, 721), np.arange(1440) * 0.25
    grid = xr.Dataset(coords={"lat": lat, "lon": lon})
    for hour in range(3):
        theirs = stored["leo_24h"][hour].astype(np.float64)
        names = ("latitude", "longitude")
        given = xr.Dataset({name: ("time", theirs[:, k]) for k, name in enumerate(names)})
        exact = ground_track(appa_times(3)[hour * 60 : hour * 60 + 60], appa_orbit(0.0))
        for track in (given, exact):
            seen = np.flatnonzero(visible(grid, track, fov=5.0))
            # the first hour starts on a grid point, so that others are at 5 degrees to rounding,
            # and the exact track is up to 1.3e-4 degrees from the reference's
            assert abs(seen.size - stored["visible_counts_3h"][hour]) <= (
                1 if track is given else 2
            )
            if hour == 1:
                assert seen.sum() == stored["visible_index_sum_3h"][hour]
            if hour:
                continue
            other = np.setxor1d(seen, stored["visible_index_hour0"])
            far = great_circle(lat[other // 1440, None], lon[other % 1440, None], *theirs.T).min(
                axis=1
            )
            np.testing.assert_allclose(np.rad2deg(far / EARTH_RADIUS), 5.0, atol=1e-5)


@pytest.mark.reference
@no_arrays
def test_error_variances_stay_with_their_observations():
    stored = np.load(FOLDER / "mask_order.npz")
    x = stored["x"][0].reshape(2, 3, 3)
    names = ["a", "b", "c"]
    data = {name: (("lat", "lon"), x[..., k], {"units": "K"}) for k, name in enumerate(names)}
    ds = xr.Dataset(data, {"lat": [10.0, 0.0], "lon": [0.0, 10.0, 20.0]})
    lat, lon = (part.ravel() for part in np.meshgrid(ds.lat, ds.lon, indexing="ij"))
    observed = [name for name, used in zip(names, stored["variables"], strict=True) if used]
    instruments = []
    for variance in np.unique(stored["index_cov"]):
        at = stored["index"][stored["index_cov"] == variance]
        frame = pd.DataFrame({"lat": lat[at], "lon": lon[at]})
        std = dict.fromkeys(observed, float(np.sqrt(variance)))
        network = stations_from_table(ds, frame, variable=std)
        instruments.append(network.map(lambda a: a.fillna(0.0), keep_attrs=True))
    state, _ = describe(ds)
    H = ObservationOperator.build(read_observations(instruments, state), state, None)
    predicted = np.concatenate([np.ravel(hx[name]) for hx in H(ds) for name in observed])
    assert H.n_used == len(stored["y"]) == len(predicted)
    # the numbers in y are all different, and so tell which observation is which
    order = np.argsort(predicted)[np.argsort(np.argsort(stored["y"]))]
    np.testing.assert_allclose(predicted[order], stored["y"])
    np.testing.assert_allclose(H.error_std[order] ** 2, stored["cov_matching_y"], rtol=1e-6)
    assert not np.allclose(H.error_std[order] ** 2, stored["cov_reference"])
