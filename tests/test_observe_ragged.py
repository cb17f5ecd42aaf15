"""Discrete sampling geometries: every representation of the same samples is the same operator."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xappa.errors import CoordinateError
from xappa.observe import Status

STATIONS = {"lat": [50.0, 52.5], "lon": [0.0, 1.3], "name": ["a", "b"]}
#: station, hour, hPa, value; the second station has one profile, with two samples
SAMPLES = [
    (0, 0, 850.0, 280.0),
    (0, 0, 500.0, 250.0),
    (0, 0, 700.0, 265.0),
    (0, 6, 850.0, 281.0),
    (1, 6, 700.0, 266.0),
    (1, 6, 500.0, 251.0),
]
ERROR = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
POSITIONS = {
    "lat": {"standard_name": "latitude", "units": "degrees_north"},
    "lon": {"standard_name": "longitude", "units": "degrees_east"},
    "p": {"standard_name": "air_pressure", "units": "hPa"},
}


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    return _levels()


def _levels() -> xr.Dataset:
    rng = np.random.default_rng(0)
    time = np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    shape = (3, 4, 6, 8)
    return xr.Dataset(
        {"t": (("time", "level", "latitude", "longitude"), 270 + rng.standard_normal(shape))},
        {
            "time": time,
            "level": ("level", [300.0, 500.0, 700.0, 1000.0], {"units": "hPa"}),
            "latitude": np.linspace(56, 46, 6),
            "longitude": np.linspace(-3, 4, 8),
        },
    ).assign(t=lambda ds: ds.t.assign_attrs(standard_name="air_temperature", units="K"))


def _time(hours) -> np.ndarray:
    return np.datetime64("2001-01-01", "ns") + np.asarray(hours) * np.timedelta64(1, "h")


def _named(name: str, dims, values) -> xr.Variable:
    return xr.Variable(dims, values, POSITIONS.get(name, {}))


def points() -> xr.Dataset:
    station, hour, p, value = (np.array(column) for column in zip(*SAMPLES, strict=True))
    where = {k: _named(k, "obs", np.array(v)[station]) for k, v in STATIONS.items()}
    return xr.Dataset(
        {"temp": ("obs", value, ERROR)},
        {**where, "p": _named("p", "obs", p), "time": ("obs", _time(hour))},
        {"featureType": "point"},
    )


def time_series(kind: str) -> xr.Dataset:
    """Each station's samples one after another, the time and the pressure of each of its own."""
    base = points()
    samples = {"temp": base.temp.variable, "p": base.p.variable, "time": base.time.variable}
    where = {k: _named(k, "station", v) for k, v in STATIONS.items()}
    if kind == "contiguous":
        link = ("station", [4, 2], {"sample_dimension": "obs"})
    else:
        link = ("obs", [s[0] for s in SAMPLES], {"instance_dimension": "station"})
    return xr.Dataset({**samples, **where, "link": link}, attrs={"featureType": "trajectory"})


def profiles_of_stations() -> xr.Dataset:
    base = points()
    return xr.Dataset(
        {
            "temp": base.temp.variable,
            "p": base.p.variable,
            **{k: _named(k, "station", v) for k, v in STATIONS.items()},
            "time": ("profile", _time([0, 6, 6])),
            "row_size": ("profile", [3, 1, 2], {"sample_dimension": "obs"}),
            "station_index": ("profile", [0, 0, 1], {"instance_dimension": "station"}),
        },
        attrs={"featureType": "timeSeriesProfile"},
    )


def incomplete() -> xr.Dataset:
    """Profiles side by side, filled up to the longest."""
    nan = np.nan
    values = [[280.0, 250.0, 265.0], [281.0, nan, nan], [266.0, 251.0, nan]]
    pressure = [[850.0, 500.0, 700.0], [850.0, nan, nan], [700.0, 500.0, nan]]
    station = [0, 0, 1]
    return xr.Dataset(
        {
            "temp": (("profile", "z"), values, ERROR),
            "p": _named("p", ("profile", "z"), pressure),
            "time": ("profile", _time([0, 6, 6])),
            **{k: _named(k, "profile", np.array(v)[station]) for k, v in STATIONS.items()},
        },
        attrs={"featureType": "profile"},
    ).set_coords("p")


REPRESENTATIONS = {
    "points": points,
    "contiguous": lambda: time_series("contiguous"),
    "indexed": lambda: time_series("indexed"),
    "profiles of stations": profiles_of_stations,
    "incomplete": incomplete,
}


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_the_same_samples_are_the_same_operator(state, name) -> None:
    expected = state.appa.operator(points())
    found = state.appa.operator(REPRESENTATIONS[name]())
    assert found.n_used == len(SAMPLES)
    for part in ("values", "latitude", "longitude", "time", "pressure"):
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))
    assert (found.rows.matrix() != expected.rows.matrix()).nnz == 0


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_operators_survive_a_file(state, name, tmp_path) -> None:
    obs = REPRESENTATIONS[name]()
    obs.to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataset(tmp_path / "obs.nc") as again:
        found = state.appa.operator(again)
    expected = state.appa.operator(obs)
    np.testing.assert_array_equal(found.values, expected.values)
    assert (found.rows.matrix() != expected.rows.matrix()).nnz == 0


@pytest.mark.parametrize("name", ["contiguous", "profiles of stations"])
def test_equivalents_have_the_labels_of_samples(state, name) -> None:
    hx = state.appa.operator(REPRESENTATIONS[name]())(state)
    assert hx.temp.dims == ("obs",)
    assert list(hx.name.values) == ["a", "a", "a", "a", "b", "b"]
    np.testing.assert_allclose(hx.temp, state.appa.operator(points())(state).temp)


def test_counts_of_zero_are_instances_without_samples(state) -> None:
    obs = profiles_of_stations()
    empty = xr.Dataset(
        {
            "time": ("profile", _time([6])),
            "row_size": ("profile", [0], {"sample_dimension": "obs"}),
            "station_index": ("profile", [1], {"instance_dimension": "station"}),
        }
    )
    longer = xr.concat([obs[list(empty)], empty], "profile", combine_attrs="override")
    rest = obs.drop_vars(list(empty))
    assert state.appa.operator(rest.merge(longer)).n_used == len(SAMPLES)


def test_what_belongs_to_instances_is_said_to_be_a_label(state) -> None:
    obs = time_series("contiguous").assign(wear=("station", [0.1, 0.2], {"units": "1"}))
    guesses = [g for spec in state.appa.operator(obs).specs for g in spec.guesses]
    assert any("labels and no observations: wear" in guess for guess in guesses)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda ds: ds.assign(link=ds.link.copy(data=[4, 3])), r"do not add up[\s\S]*got: 7"),
        (lambda ds: ds.assign(link=ds.link.copy(data=[7, -1])), "1 missing, negative or broken"),
        (lambda ds: ds.assign(link=ds.link.astype(float).copy(data=[4.5, 1.5])), "2 missing"),
        (lambda ds: ds.assign(link=ds.link.astype(float).copy(data=[6, np.nan])), "1 missing"),
        (
            lambda ds: ds.assign(link=ds.link.assign_attrs(sample_dimension="sample")),
            "does not describe a ragged array",
        ),
    ],
)
def test_counts_that_do_not_add_up(state, change, match) -> None:
    with pytest.raises(CoordinateError, match=match):
        state.appa.operator(change(time_series("contiguous")))


@pytest.mark.parametrize("wrong", [2, -1, -99])
def test_indices_of_no_instance(state, wrong) -> None:
    obs = time_series("indexed")
    index = obs.link.copy(data=[0, 0, 0, 0, 1, wrong])
    with pytest.raises(CoordinateError, match="belongs to no instance"):
        state.appa.operator(obs.assign(link=index))


def test_missing_samples_are_counted(state) -> None:
    (status,) = state.appa.operator(incomplete()).status
    assert (status == Status.MISSING).sum() == 3
