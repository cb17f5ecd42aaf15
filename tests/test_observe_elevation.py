"""Stations off the model's ground, and extremes over intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.bridge import describe, find_orography
from xappa.observe import Status

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")

GROUND = 200.0


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    """2 m temperature and surface pressure over ground that rises eastwards by 100 m a degree."""
    ds = xappa.testing.weather(times=8)
    ground = GROUND + 100.0 * (ds.longitude + 10.0) + 0.0 * ds.latitude
    ds["orog"] = ground.transpose("latitude", "longitude").assign_attrs(
        standard_name="surface_altitude", units="m"
    )
    ds["sp"] = (1.0e5 - 11.0 * ds.orog + 0.0 * ds.t2m).transpose(*ds.t2m.dims)
    ds["sp"].attrs = {"standard_name": "surface_air_pressure", "units": "Pa"}
    return ds


def stations(state: xr.Dataset, altitude, name: str = "t2m", **attrs) -> xr.DataArray:
    n = len(altitude)
    coords = {
        "latitude": ("station", np.full(n, 55.0)),
        "longitude": ("station", np.full(n, -5.0)),  # 700 m there
        "time": state.time.values[min(2, state.sizes["time"] - 1)],
        "elevation": ("station", np.asarray(altitude, float), {"units": "m"}),
    }
    about = {
        "t2m": {"standard_name": "air_temperature", "units": "K", "error_std": 1.0},
        "sp": {"standard_name": "surface_air_pressure", "units": "hPa", "error_std": 1.0},
    }[name]
    if name == "t2m":
        coords["height"] = ((), 2.0, {"units": "m", "standard_name": "height"})
    values = np.arange(n) + (280.0 if name == "t2m" else 930.0)
    return xr.DataArray(values, coords, "station", name, {**about, **attrs})


def test_temperature_falls_with_height(state) -> None:
    operator = state.appa.operator(stations(state, [700.0, 1700.0, 0.0]))
    hx = operator(state)
    np.testing.assert_allclose((hx - hx[0]).values, [0.0, -6.5, 4.55], atol=1e-4)
    level = state.drop_vars("orog").appa.operator(stations(state, [700.0]))
    np.testing.assert_allclose(level(state)[0], hx[0], rtol=1e-7)
    assert operator.is_linear
    assert "air_temperature_at_station_height(t2m)" in repr(operator)


def test_pressure_falls_with_height(state) -> None:
    """Against the barometric formula with the model's temperature."""
    hx = state.appa.operator(stations(state, [700.0, 1200.0], "sp"))(state).values
    temperature = float(
        state.t2m.isel(time=2).interp(latitude=55.0, longitude=-5.0, method="linear")
    )
    ratio = (1 - 0.0065 * 500 / temperature) ** (9.80665 / (287.05 * 0.0065))
    np.testing.assert_allclose(hx[1] / hx[0], ratio, rtol=1e-5)
    cold = state.drop_vars("t2m").appa.operator(stations(state, [700.0, 1200.0], "sp"))
    assert "surface_air_pressure_at_standard_height" in repr(cold)
    standard = 288.15 - 0.0065 * 700
    ratio = (1 - 0.0065 * 500 / standard) ** (9.80665 / (287.05 * 0.0065))
    hx = cold(state.drop_vars("t2m")).values
    np.testing.assert_allclose(hx[1] / hx[0], ratio, rtol=1e-6)


def test_great_differences_are_left_out_and_counted(state) -> None:
    operator = state.appa.operator(stations(state, [700.0, 2300.0, 2100.0, np.nan]))
    (counts,) = operator.counts().values()
    assert counts[Status.HEIGHT] == 1
    assert operator.status[0][1] == Status.HEIGHT
    assert any("of 1 is not known" in guess for guess in operator.specs[0].guesses)


def test_geopotential_of_the_ground_will_do(state) -> None:
    spec, _ = describe(state)
    phi = (state.orog * 9.80665).assign_attrs(units="m2 s-2")
    other = state.drop_vars("orog").assign(geopotential_at_surface=phi)
    np.testing.assert_allclose(find_orography(other, spec.grid), state.orog, rtol=1e-6)
    assert find_orography(state.drop_vars("orog"), spec.grid) is None
    part = state.isel(latitude=slice(1, 4))
    there = find_orography(part, spec.grid)
    assert np.isnan(there[0]).all()
    np.testing.assert_allclose(there[1:4], part.orog)


def test_analyses_correct_for_height(state) -> None:
    """A station 1000 m above the model's ground that agrees with it changes nothing."""
    train = xappa.testing.weather(times=60)
    model = xappa.fit_gaussian(train, modes=5)
    day = train.isel(time=slice(40, 42)).assign(orog=state.orog)
    high = stations(day, [1700.0]).assign_coords(time=day.time.values[0])
    exact = day.appa.operator(high)(day)
    ens = day.appa.assimilate(exact.assign_attrs(high.attrs), model, error=0.05, members=8, seed=0)
    at = ens.t2m.isel(time=0).interp(latitude=55.0, longitude=-5.0).mean()
    truth = day.t2m.isel(time=0).interp(latitude=55.0, longitude=-5.0)
    assert abs(float(at - truth)) < 0.15


# Extremes -----------------------------------------------------------------------------------------


def daily(state: xr.Dataset, method: str, interval: str = "24h") -> xr.DataArray:
    obs = stations(state, [700.0]).drop_vars("elevation")
    obs = obs.assign_coords(time=state.time.values[6])
    return obs.assign_attrs(cell_methods=f"time: {method}", xappa_interval=interval)


@pytest.mark.parametrize("method", ["maximum", "minimum"])
def test_extremes_of_what_is_linear_between_states(state, method) -> None:
    operator = state.appa.operator(daily(state, method))
    series = state.t2m.interp(latitude=55.0, longitude=-5.0).isel(time=slice(2, 7))
    expected = series.max() if method == "maximum" else series.min()
    np.testing.assert_allclose(operator(state), float(expected), rtol=1e-6)
    assert f"{method} over 24 h" in repr(operator)
    assert not operator.is_linear


def test_extremes_have_gradients_and_adjoints(state) -> None:
    operator = state[["t2m"]].appa.operator(daily(state, "maximum"))
    x = torch.as_tensor(state.t2m.values, dtype=torch.float64)[:, None]
    dx, dy = torch.randn_like(x), torch.randn(1, dtype=torch.float64)
    _, forward = torch.func.jvp(operator.apply, (x,), (dx,))
    _, pull = torch.func.vjp(operator.apply, x)
    torch.testing.assert_close(dy @ forward, (pull(dy)[0] * dx).sum())
    assert float(pull(dy)[0].abs().sum()) > 0


def test_extremes_beyond_the_window_are_rejected(state) -> None:
    operator = state.appa.operator(daily(state, "maximum", "60h"))
    (counts,) = operator.counts().values()
    assert counts[Status.OUTSIDE_WINDOW] == 1


def test_maxima_are_assimilated(state) -> None:
    train = xappa.testing.weather(times=60)
    model = xappa.fit_gaussian(train, modes=5)
    day = train.isel(time=slice(40, 48))
    obs = daily(day, "maximum")
    truth = day.appa.operator(obs)(day)
    warm = (truth + 6.0).assign_attrs(obs.attrs)
    settings = {"members": 12, "seed": 0, "method": "mmps", "error": 0.2, "progress": False}
    ens = day.appa.assimilate(warm, model, **settings)
    found = ens.appa.departures(warm, model=model)
    assert float(abs(found.analysis_departure[0])) < 0.4
