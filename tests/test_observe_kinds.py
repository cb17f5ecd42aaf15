"""Every kind of observation: the same operator after a file, exact adjoints, analytic fields."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.observe import ObservationOperator, register_operator, unregister_operator

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")

LEVELS = np.array([1000.0, 850.0, 700.0, 500.0, 300.0, 200.0]) * 100
T0, OMEGA, G, R_D = 260.0, 20.0, 9.80665, 287.05


def hours(values) -> np.ndarray:
    return np.datetime64("2020-01-01", "ns") + np.asarray(values) * np.timedelta64(1, "h")


@pytest.fixture(scope="module")
def world() -> xr.Dataset:
    """An isothermal, hydrostatic atmosphere in solid-body rotation about the Earth's axis."""
    lat, lon = np.linspace(90, -90, 61), np.arange(0.0, 360.0, 3.0)
    shape = (5, 6, 61, 120)
    u = OMEGA * np.cos(np.radians(lat))[:, None]
    phi = (R_D * T0 * np.log(1e5 / LEVELS))[:, None, None]
    layered, flat = ("time", "level", "latitude", "longitude"), ("time", "latitude", "longitude")

    def field(name: str, units: str, values, dims=layered) -> xr.Variable:
        size = shape if dims == layered else (5, 61, 120)
        data = np.broadcast_to(np.asarray(values, float), size).copy()
        return xr.Variable(dims, data, {"standard_name": name, "units": units})

    ds = xr.Dataset(
        {
            "t": field("air_temperature", "K", T0),
            "u": field("eastward_wind", "m s-1", u),
            "v": field("northward_wind", "m s-1", 0.0),
            "q": field("specific_humidity", "kg kg-1", 2e-3),
            "z": field("geopotential", "m2 s-2", phi),
            "msl": field("air_pressure_at_mean_sea_level", "Pa", 1e5, flat),
        }
    )
    return ds.assign_coords(
        time=hours(np.arange(5) * 6),
        level=("level", LEVELS, {"standard_name": "air_pressure", "units": "Pa"}),
        latitude=("latitude", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        longitude=("longitude", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    )


PLACES = {  # poles, the seam on both sides, beyond 360, and elsewhere
    "latitude": ("obs", np.array([90.0, -90.0, 12.3, -45.0, 60.1, 33.3, 88.7, -89.2])),
    "longitude": ("obs", np.array([0.0, 77.0, 359.9, 358.6, 425.5, -179.9, 181.0, -1.0])),
    "time": ("obs", hours([0, 3, 6, 7.5, 12, 18, 24, 1.25])),
}


def array(name: str, units: str, coords=None, dims=("obs",), **attrs) -> xr.DataArray:
    coords = {**PLACES, **(coords or {})}
    shape = [len(coords[d][1]) if d in coords else 8 for d in dims]
    base = {"standard_name": name, "units": units, "error_std": 1.0}
    base = {key: value for key, value in {**base, **attrs}.items() if value is not None}
    values = 1.0 + np.arange(np.prod(shape), dtype=float).reshape(shape)
    return xr.DataArray(values, coords, dims, name, base)


PRESSURE = {
    "p": ("obs", np.geomspace(2.1e4, 9.9e4, 8), {"standard_name": "air_pressure", "units": "Pa"})
}
ALTITUDE = {"altitude": ("obs", np.linspace(100.0, 9000.0, 8), {"units": "m"})}


def winds() -> xr.Dataset:
    speed = array("wind_speed", "knot", PRESSURE)
    turn = array("wind_from_direction", "degree", PRESSURE, error_std=5.0)
    return xr.Dataset({"ff": speed, "dd": turn})


def intervals(method: str) -> xr.Dataset:
    obs = array("air_temperature", "K", PRESSURE, cell_methods=f"time: {method}")
    obs = obs.assign_coords(time=("obs", hours([6, 12, 13, 18, 24, 12, 18, 6.5])))
    obs.time.attrs["bounds"] = "time_bnds"
    ends = np.stack([obs.time.values - np.timedelta64(6, "h"), obs.time.values], axis=1)
    ds = obs.to_dataset(name="mean")
    ds["time_bnds"] = (("obs", "nv"), ends)
    for name in ("time", "time_bnds"):
        ds[name].encoding["units"] = "seconds since 1970-01-01"
    return ds


def pixels() -> xr.Dataset:
    obs = array("air_temperature", "K", PRESSURE, cell_methods="area: mean")
    lat, lon = obs.latitude.values[2:6], obs.longitude.values[2:6]
    obs = obs.isel(obs=slice(2, 6))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    obs.latitude.attrs["bounds"], obs.longitude.attrs["bounds"] = "lat_b", "lon_b"
    return obs.to_dataset(name="pixel").assign(
        lat_b=(("obs", "vertex"), lat[:, None] + corners[:, 0]),
        lon_b=(("obs", "vertex"), lon[:, None] + corners[:, 1]),
    )


def sounder() -> xr.Dataset:
    flat = array("toa_brightness_temperature", "K")
    tb = flat.expand_dims({"channel": 3}, axis=1) + np.arange(3.0)
    tb.attrs = dict(flat.attrs)
    weights = np.random.default_rng(0).dirichlet(np.ones(4), (8, 3))
    tb.attrs |= {
        "xappa_operator_weighting_function": "jacobian",
        "error_correlation_matrix": "correlation",
    }
    return xr.Dataset(
        {
            "tb": tb,
            "jacobian": (("obs", "channel", "layer"), weights, {"units": "1"}),
            "kernel_pressure": ("layer", [950.0, 600.0, 400.0, 250.0], {"units": "hPa"}),
            "correlation": (("channel", "channel_2"), 0.5 * np.eye(3) + 0.5),
        }
    )


def retrieval() -> xr.Dataset:
    obs = array("air_temperature", "K", xappa_operator="averaging_kernel")
    kernel = np.random.default_rng(1).dirichlet(np.ones(4), 8)
    return obs.to_dataset(name="retrieved").assign(
        averaging_kernel=(("obs", "layer"), kernel),
        kernel_pressure=("layer", [950.0, 600.0, 400.0, 250.0], {"units": "hPa"}),
        prior_profile=(("obs", "layer"), np.full((8, 4), 255.0)),
        prior=("obs", np.full(8, 255.0)),
    )


def swath() -> xr.DataArray:
    lat = np.linspace(-20, 20, 12).reshape(3, 4)
    coords = {
        "latitude": (("scan", "pixel"), lat),
        "longitude": (("scan", "pixel"), 350.0 + lat),
        "time": ("scan", hours([1, 2, 3])),
        "p": ((), 5e4, {"standard_name": "air_pressure", "units": "Pa"}),
        "angle": ("pixel", [-40.0, -10.0, 10.0, 40.0]),
    }
    attrs = {
        "standard_name": "air_temperature",
        "units": "K",
        "error_std": 1.0,
        "bias_error_std": [0.5, 0.2],
        "bias_predictors": "angle",
        "xappa_footprint_radius": 150e3,
    }
    return xr.DataArray(np.arange(12.0).reshape(3, 4), coords, ("scan", "pixel"), "swath", attrs)


LAYER = {"xappa_operator_lower": 85000.0, "xappa_operator_upper": 50000.0}
KINDS: dict[str, tuple[Callable[[], xr.DataArray | xr.Dataset], float | None]] = {
    "temperature": (lambda: array("air_temperature", "K", PRESSURE), T0),
    "celsius": (lambda: array("air_temperature", "degC", PRESSURE), T0 - 273.15),
    "meridional wind": (lambda: array("northward_wind", "m s-1", PRESSURE), 0.0),
    "wind pairs": (winds, None),
    "wind speed": (lambda: array("wind_speed", "m s-1", PRESSURE), None),
    "by altitude": (lambda: array("air_temperature", "K", ALTITUDE), T0),
    "mixing ratio": (lambda: array("humidity_mixing_ratio", "g kg-1", PRESSURE), 2 / 0.998),
    "virtual temperature": (
        lambda: array("virtual_temperature", "K", PRESSURE),
        T0 * (1 + (1 / 0.62196 - 1) * 2e-3),
    ),
    "relative humidity": (lambda: array("relative_humidity", "%", PRESSURE), None),
    "dew point": (lambda: array("dew_point_temperature", "K", PRESSURE), None),
    "thickness": (
        lambda: array("thickness", "m", xappa_operator="dry_thickness", **LAYER),
        R_D * T0 / G * np.log(85 / 50),
    ),
    "column water": (
        lambda: array("atmosphere_mass_content_of_water_vapor", "kg m-2"),
        2e-3 * 8e4 / G,
    ),
    "refractivity": (lambda: array("n", "1", PRESSURE, xappa_operator="refractivity"), None),
    "interval mean": (lambda: intervals("mean"), T0),
    "interval maximum": (lambda: intervals("maximum"), T0),
    "pixels": (pixels, T0),
    "swath": (swath, T0),
    "sounder": (sounder, T0),
    "retrieval": (retrieval, T0),
    "own": (
        lambda: array("energy", "m2 s-2", PRESSURE, xappa_operator="test_energy"),
        None,
    ),
    "own module": (
        lambda: array("x", "K", PRESSURE, xappa_operator="test_module"),
        2 * T0,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def own_operators():
    wind = {"eastward_wind": "m s-1", "northward_wind": "m s-1"}
    register_operator("test_energy", inputs=wind, units="m2 s-2")(lambda u, v: (u * u + v * v) / 2)

    class Twice(torch.nn.Module):
        def forward(self, t):
            return 2 * t

    register_operator("test_module", inputs=["air_temperature"], units="K")(Twice())
    yield
    unregister_operator("test_energy")
    unregister_operator("test_module")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_operator_from_a_file(world, kind, tmp_path) -> None:
    obs = KINDS[kind][0]()
    operator = world.appa.operator(obs)
    assert operator.n_used > 0
    obs.to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataset(tmp_path / "obs.nc") as again:
        found = world.appa.operator(again)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found.rows, name), getattr(operator.rows, name))
    for name in ("values", "error_std", "latitude", "longitude", "time", "used"):
        np.testing.assert_array_equal(getattr(found, name), getattr(operator, name))
    both = (found.error_covariance, operator.error_covariance)
    np.testing.assert_array_equal(both[0].toarray(), both[1].toarray())
    assert [s.operator for s in found.specs] == [s.operator for s in operator.specs]
    for a, b in zip(found.specs, operator.specs, strict=True):
        assert dict(a.parameters) == dict(b.parameters)
        for key, values in b.arguments.items():
            np.testing.assert_array_equal(a.arguments[key], values)


@pytest.mark.parametrize("kind", KINDS)
def test_analytic_fields_are_reproduced(world, kind) -> None:
    """A constant, a solid-body rotation, and a hydrostatic isothermal atmosphere."""
    make, expected = KINDS[kind]
    obs = make()
    operator = world.appa.operator(obs)
    hx = operator(world)
    arrays = list(hx.data_vars.values()) if isinstance(hx, xr.Dataset) else [hx]
    if expected is not None:
        for h in arrays:
            known = h.values[np.isfinite(h.values)]
            assert known.size
            np.testing.assert_allclose(known, expected, rtol=1e-10, atol=1e-10)
    elif kind in ("wind speed", "wind pairs"):
        # bilinear on 3 degrees: cos is off by its curvature, (1.5 degrees)^2 / 2
        speed = OMEGA * np.cos(np.radians(PLACES["latitude"][1]))
        scale = 1.0 if kind == "wind speed" else 3600 / 1852
        np.testing.assert_allclose(arrays[0] / scale, speed, atol=OMEGA * 3.5e-4 + 1e-3)
        if kind == "wind pairs":
            np.testing.assert_allclose(arrays[1], 0.0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_adjoints_are_exact(world, kind) -> None:
    operator = world.appa.operator(KINDS[kind][0]())
    torch.manual_seed(0)
    names = [v.name for v in operator.state.variables]
    parts = [
        torch.as_tensor(world[n].transpose("time", ..., "latitude", "longitude").values)
        for n in names
    ]
    x = torch.cat([p if p.ndim == 4 else p[:, None] for p in parts], dim=1)
    x = x * (1 + 1e-3 * torch.rand_like(x))
    dx, dy = torch.randn_like(x) * x.abs().clamp(min=1e-3), torch.randn(operator.n_used).double()
    _, forward = torch.func.jvp(operator.apply, (x,), (dx,))
    (back,) = torch.func.vjp(operator.apply, x)[1](dy)
    torch.testing.assert_close(forward @ dy, (dx * back).sum(), rtol=1e-10, atol=1e-9)
    # and the derivative is that of the function: central differences in one direction
    step = 1e-6
    differences = (operator.apply(x + step * dx) - operator.apply(x - step * dx)) / (2 * step)
    scale = forward.abs().max()
    torch.testing.assert_close(differences, forward, rtol=1e-5, atol=1e-5 * float(scale))
    # members at once, and one by one
    both = operator.apply(torch.stack([x, x + dx]))
    torch.testing.assert_close(both[1], operator.apply(x + dx))


def test_every_kind_at_once(world) -> None:
    every = {kind: make() for kind, (make, _) in KINDS.items()}
    operator = world.appa.operator(every)
    assert isinstance(operator, ObservationOperator)
    assert operator.n_used == sum(world.appa.operator(o).n_used for o in every.values())
    assert not np.isnan(operator.values).any()
    assert xappa.__version__


@pytest.mark.parametrize("kind", ["interval mean", "pixels", "sounder", "retrieval"])
def test_simulated_observations_keep_what_defines_them(world, kind) -> None:
    """Bounds, weighting functions and correlations: what is simulated has the same operator."""
    obs = KINDS[kind][0]()
    y = world.appa.observe(obs, seed=0)
    before, after = world.appa.operator(obs), world.appa.operator(y)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(before.rows, name), getattr(after.rows, name))
    np.testing.assert_allclose(
        before.error_covariance.toarray(), after.error_covariance.toarray(), rtol=1e-12
    )
    assert [s.operator for s in before.specs] == [s.operator for s in after.specs]
