"""Speed and direction of the wind are compared as its components."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xappa

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    lat, lon = np.linspace(60, 40, 6), np.linspace(0, 30, 7)
    time = np.datetime64("2001-01-01", "ns") + np.arange(2) * np.timedelta64(6, "h")
    names = {"u10": "eastward_wind", "v10": "northward_wind"}
    data = {
        k: (
            ("time", "latitude", "longitude"),
            np.ones((2, 6, 7)),
            {"standard_name": n, "units": "m/s"},
        )
        for k, n in names.items()
    }
    return xr.Dataset(data, {"time": time, "latitude": lat, "longitude": lon})


def metar(**changes) -> xr.Dataset:
    """From the north, the east, the south-west, and calm air."""
    values = {"speed": [10.0, 20.0, 5.0, 0.0], "direction": [0.0, 90.0, 225.0, np.nan], **changes}
    return xr.Dataset(
        {
            "ff": (
                "station",
                values["speed"],
                {"standard_name": "wind_speed", "units": "knot", "error_std": 2.0},
            ),
            "dd": (
                "station",
                values["direction"],
                {"standard_name": "wind_from_direction", "units": "degree"},
            ),
        },
        {
            "latitude": ("station", [60.0, 52.0, 44.0, 40.0]),
            "longitude": ("station", [0.0, 10.0, 20.0, 30.0]),
            "time": np.datetime64("2001-01-01", "ns"),
            "height": 10.0,
        },
    )


KNOT = 1852 / 3600


def test_components(state) -> None:
    operator = state.appa.operator(metar())
    u, v = operator.specs
    assert [spec.quantity for spec in operator.specs] == ["eastward_wind", "northward_wind"]
    half = 5 * np.sqrt(0.5)
    np.testing.assert_allclose(u.values / KNOT, [0, -20, half, 0], atol=1e-12)
    np.testing.assert_allclose(v.values / KNOT, [-10, 0, half, 0], atol=1e-12)
    np.testing.assert_allclose(u.error_std, 2 * KNOT)
    assert operator.n_used == 8
    assert any("with the error of the speed alone" in g for g in u.guesses)
    assert set(operator(state).data_vars) == {"eastward_wind", "northward_wind"}


def test_errors_of_both(state) -> None:
    obs = metar()
    obs["dd"].attrs["error_std"] = 10.0
    u, v = state.appa.operator(obs).specs
    along, across = 2 * KNOT, np.array([10, 20, 5, 0]) * KNOT * np.radians(10)
    np.testing.assert_allclose(u.error_std[:2], [across[0], along])
    np.testing.assert_allclose(v.error_std[:2], [along, across[1]])
    np.testing.assert_allclose(u.error_std[2], np.hypot(along, across[2]) * np.sqrt(0.5))


def test_errors_by_name(state) -> None:
    obs = metar()
    del obs["ff"].attrs["error_std"]
    u, _ = state.appa.operator(obs).specs
    np.testing.assert_allclose(u.error_std[1], 2.0)  # the default for the speed at stations
    assert "2 m s-1 assumed" in u.guesses[0]
    u, _ = state.appa.operator(obs, error={"ff": 1.0, "dd": 5.0}).specs
    np.testing.assert_allclose(u.error_std[1], KNOT)
    both, _ = state.appa.operator(obs, error=3.0).specs
    np.testing.assert_allclose(both.error_std, 3 * KNOT)


def test_where_the_wind_goes_to(state) -> None:
    obs = metar()
    obs["dd"].attrs["standard_name"] = "wind_to_direction"
    u, v = state.appa.operator(obs).specs
    np.testing.assert_allclose(u.values[1], 20 * KNOT)
    np.testing.assert_allclose(v.values[0], 10 * KNOT)


def test_a_variable_direction_is_missing(state) -> None:
    (u, _) = state.appa.operator(metar(direction=[np.nan, 90.0, 225.0, 0.0])).status
    assert list(u) == [1, 0, 0, 0]


def test_speed_alone_is_a_speed(state) -> None:
    (spec,) = state.appa.operator(metar().drop_vars("dd")).specs
    assert spec.operator == "wind_speed"


def test_an_analysis_draws_to_both_components(state) -> None:
    rng = np.random.default_rng(0)
    time = np.datetime64("2000-12-01", "ns") + np.arange(40) * np.timedelta64(6, "h")
    series = state.isel(time=0, drop=True).expand_dims(time=time)
    for name in ("u10", "v10"):
        values = rng.standard_normal((40, 1, 1)) * 3 * np.ones((1, 6, 7))
        values = values + rng.standard_normal((40, 6, 7))
        series[name] = state[name].dims, values, state[name].attrs
    prior = xappa.fit_gaussian(series, modes=4)
    obs = metar(speed=[10.0] * 4, direction=[270.0] * 4)
    ens = state.isel(time=[0]).appa.assimilate(obs, prior, members=16, seed=0)
    hx = state.isel(time=[0]).appa.operator(obs)(ens)
    assert abs(hx["eastward_wind"].mean() - 10) < 2
    assert abs(hx["northward_wind"].mean()) < 2
