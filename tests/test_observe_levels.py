"""Model levels and extrapolation: by the levels themselves, or by pressure through sigma."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.bridge import describe
from xappa.errors import CoordinateError, OperatorError, VariableMismatchError
from xappa.observe import Status

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")

SIGMA = np.array([0.95, 0.7, 0.4, 0.15])


def states(kind: str, values, times: int = 3) -> xr.Dataset:
    """Temperature that is linear in ln(sigma), and surface pressure that differs by places."""
    flat = xappa.testing.weather(times=times).drop_vars("height")
    about = {"standard_name": kind, "units": "1", "positive": "down"}
    level = xr.DataArray(values, dims="level", attrs=about, name="level")
    log_sigma = xr.DataArray(np.log(SIGMA), dims="level")
    t = (flat.t2m + 40.0 * log_sigma).transpose("time", "level", "latitude", "longitude")
    ps = (1e5 - 300.0 * (flat.longitude + 10.0) + 0.0 * flat.t2m).transpose(*flat.t2m.dims)
    t.attrs = {"standard_name": "air_temperature", "units": "K"}
    ps.attrs = {"standard_name": "surface_air_pressure", "units": "Pa"}
    return xr.Dataset({"t": t, "ps": ps}).assign_coords(level=level)


@pytest.fixture(scope="module")
def sigma() -> xr.Dataset:
    return states("atmosphere_sigma_coordinate", SIGMA)


@pytest.fixture(scope="module")
def numbered() -> xr.Dataset:
    return states("model_level_number", [4.0, 3.0, 2.0, 1.0])


def soundings(ds: xr.Dataset, name: str, values, **attrs) -> xr.DataArray:
    values = np.asarray(values, float)
    n = values.size
    coords = {
        "latitude": ("obs", np.full(n, 55.0)),
        "longitude": ("obs", np.full(n, -5.0)),
        "time": ds.time.values[1],
        name: ("obs", values, attrs),
    }
    about = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
    return xr.DataArray(np.full(n, 260.0), coords, "obs", "temp", about)


def surface_temperature(ds: xr.Dataset) -> float:
    base = ds.t.isel(level=0, time=1) - 40.0 * np.log(0.95)
    return float(base.interp(latitude=55.0, longitude=-5.0))


def test_levels_are_recognised(sigma, numbered) -> None:
    spec, axes = describe(sigma)
    assert (axes.vertical, spec.variable("t").vertical) == ("level", "atmosphere_sigma_coordinate")
    assert describe(numbered)[0].variable("t").levels == (4.0, 3.0, 2.0, 1.0)
    hybrid = numbered.assign_coords(
        level=numbered.level.assign_attrs(
            standard_name="atmosphere_hybrid_sigma_pressure_coordinate"
        )
    )
    assert describe(hybrid)[0].variable("t").vertical == "model_level_number"


def test_observations_at_model_levels(sigma, numbered) -> None:
    about = {"standard_name": "atmosphere_sigma_coordinate", "units": "1"}
    at = [0.95, 0.5, 0.15]
    hx = sigma.appa.operator(soundings(sigma, "lev", at, **about))(sigma)
    expected = surface_temperature(sigma) + 40.0 * np.log(at)
    np.testing.assert_allclose(hx, expected, rtol=1e-6)
    about = {"standard_name": "model_level_number", "units": "1"}
    hx = numbered.appa.operator(soundings(numbered, "lev", [4.0, 2.5], **about))(numbered)
    logs = np.log(SIGMA)
    expected = surface_temperature(numbered) + 40.0 * np.array([logs[0], (logs[1] + logs[2]) / 2])
    np.testing.assert_allclose(hx, expected, rtol=1e-6)


def test_pressures_are_found_among_sigma_levels(sigma) -> None:
    """p = sigma * ps, in the logarithm of which temperature is linear here: exact."""
    pressure = np.array([8e4, 5e4, 2e4])
    operator = sigma.appa.operator(
        soundings(sigma, "p", pressure, standard_name="air_pressure", units="Pa")
    )
    ps = float(sigma.ps.isel(time=1).interp(latitude=55.0, longitude=-5.0))
    expected = surface_temperature(sigma) + 40.0 * np.log(pressure / ps)
    np.testing.assert_allclose(operator(sigma), expected, rtol=1e-6)
    assert not operator.is_linear
    x = torch.randn(3, 5, 6, 8, dtype=torch.float64) + 250.0
    x[:, 4] = 1e5
    dx, dy = torch.randn_like(x), torch.randn(3, dtype=torch.float64)
    _, forward = torch.func.jvp(operator.apply, (x,), (dx,))
    (back,) = torch.func.vjp(operator.apply, x)[1](dy)
    torch.testing.assert_close(dy @ forward, (back * dx).sum())
    assert float(back[:, 4].abs().sum()) > 0  # surface pressure moves the levels


def test_levels_of_another_kind_are_refused(sigma, numbered) -> None:
    at_pressure = soundings(numbered, "p", [8e4], standard_name="air_pressure", units="Pa")
    with pytest.raises(CoordinateError, match="does not choose one air_temperature"):
        numbered.appa.operator(at_pressure)
    with pytest.raises(OperatorError, match="surface_air_pressure"):
        sigma.drop_vars("ps").appa.operator(at_pressure)
    layer = at_pressure.drop_vars("p").assign_attrs(
        xappa_operator="dry_thickness",
        xappa_operator_lower=9e4,
        xappa_operator_upper=5e4,
        units="m",
    )
    with pytest.raises(CoordinateError, match="a column on pressure is needed"):
        sigma.appa.operator(layer)


def test_models_keep_their_levels(sigma, tmp_path) -> None:
    train = states("atmosphere_sigma_coordinate", SIGMA, times=40)
    model = xappa.fit_gaussian(train, modes=4)
    model.save(tmp_path / "model")
    again = xappa.open_model(tmp_path / "model")
    assert again.spec == model.spec
    window = again.template("2001-01-01", "2001-01-01T12")
    assert window.level.attrs["standard_name"] == "atmosphere_sigma_coordinate"
    np.testing.assert_array_equal(window.level, SIGMA)
    obs = soundings(train, "p", [8e4, 3e4], standard_name="air_pressure", units="Pa")
    settings = {"members": 2, "seed": 0, "method": "mmps", "progress": False}
    ens = window.appa.assimilate(obs, again, **settings)
    assert ens.t.dims == ("member", "time", "level", "latitude", "longitude")
    assert bool(np.isfinite(ens.t).all())
    pressures = train.assign_coords(
        level=xr.DataArray(SIGMA * 1e3, dims="level", attrs={"units": "hPa"})
    )
    with pytest.raises(VariableMismatchError, match="levels of 't' are others"):
        pressures.appa.assimilate(obs, model, members=2)


def test_radiosondes_observe_all_model_levels(sigma) -> None:
    network = xappa.obs.random_stations(sigma, 4, variable="t", error=1.0, seed=0)
    assert network.dims == ("time", "level", "station")
    y = sigma.appa.observe(network, seed=0)
    assert bool(y.notnull().all())


@pytest.fixture(scope="module")
def layered() -> xr.Dataset:
    ds = states("air_pressure", SIGMA * 1e5)
    ds["level"].attrs["units"] = "Pa"
    return ds


def test_extrapolation_is_refused_unless_asked_for(layered) -> None:
    about = {"standard_name": "air_pressure", "units": "Pa"}
    obs = soundings(layered, "p", [1.0e5, 8e4, 1e4, np.nan], **about)
    operator = layered.appa.operator(obs)
    expected = [Status.OUTSIDE_LEVELS, Status.USED, Status.OUTSIDE_LEVELS, Status.OUTSIDE_LEVELS]
    assert operator.status[0].tolist() == expected
    asked = obs.assign_attrs(xappa_extrapolate="constant")
    operator = layered.appa.operator(asked)
    assert operator.status[0].tolist() == [0, 0, 0, Status.OUTSIDE_LEVELS]
    ends = layered.t.isel(time=1).interp(latitude=55.0, longitude=-5.0)
    np.testing.assert_allclose(operator(layered)[[0, 2]], ends[[0, -1]], rtol=1e-6)
    with pytest.raises(CoordinateError, match="asks for extrapolation cannot be read"):
        layered.appa.operator(obs.assign_attrs(xappa_extrapolate="linear"))
