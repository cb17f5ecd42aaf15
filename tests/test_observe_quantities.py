"""Derived quantities: formulae against MetPy's values, analytic atmospheres, exact derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.errors import OperatorError
from xappa.observe import get_operator, quantities, registered_operators
from xappa.observe import thermodynamics as own

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")

G, R_D = own.G, own.R_D
LEVELS = np.array([100000.0, 92500.0, 85000.0, 70000.0, 50000.0, 30000.0, 20000.0])


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# MetPy 1.7.1, metpy.calc, at 850 hPa, 285 K and 7 g/kg

P, T, Q = tensor(85000.0), tensor(285.0), tensor(0.007)


@pytest.mark.parametrize(
    ("found", "metpy", "rtol"),
    [
        (own.vapour_pressure(Q, P), 952.6047719041833, 1e-4),
        # MetPy takes Ambaum's formula for saturation, Bolton's is within 0.3 %.
        (own.saturation_vapour_pressure(tensor(285.0)), 1387.1284496590044, 1e-3),
        (own.saturation_vapour_pressure(tensor(250.0)), 95.30271059302291, 3e-3),
        (own.saturation_vapour_pressure(tensor(300.0)), 3527.710242175635, 3e-3),
        (get_operator("relative_humidity").function(T, Q, P), 0.6867458973524481, 1e-3),
        (get_operator("dew_point_temperature").function(Q, P), 279.42296040003345, 1e-4),
        (
            get_operator("specific_humidity_from_dew_point").function(tensor(280.0), P),
            0.007281543849113455,
            2e-3,
        ),
        (get_operator("humidity_mixing_ratio").function(Q), 0.007049345417925478, 1e-12),
        (own.virtual_temperature(T, Q), 286.2126177107107, 1e-5),
        (get_operator("air_potential_temperature").function(T, P), 298.545741851172, 1e-6),
        (own.wind_speed(tensor(3.0), tensor(-4.0)), 5.0, 1e-6),
        (get_operator("geopotential_height").function(tensor(49000.0)), 4996.6094, 1e-6),
    ],
)
def test_formulae(found, metpy, rtol) -> None:
    np.testing.assert_allclose(found.item(), metpy, rtol=rtol)


def test_columns_against_metpy() -> None:
    """thickness_hydrostatic and precipitable_water of a sounding of five levels."""
    levels = tensor(1e5, 85000, 70000, 50000, 30000)
    t = tensor(288, 280, 272, 255, 228)[None]
    q = tensor(8e-3, 5e-3, 3e-3, 1e-3, 1e-4)[None]
    thick = get_operator("thickness").function(t, q, levels=levels, lower=1e5, upper=3e4)
    np.testing.assert_allclose(thick.item(), 9139.29576033704, rtol=1e-4)
    dry = get_operator("dry_thickness").function(t, levels=levels, lower=1e5, upper=3e4)
    np.testing.assert_allclose(dry.item(), 9125.64528228839, rtol=1e-4)
    water = get_operator("atmosphere_mass_content_of_water_vapor").function(q, levels=levels)
    # MetPy integrates the mixing ratio of a dew point, and interpolates the ends.
    np.testing.assert_allclose(water.item(), 21.350245909856383, rtol=1e-2)


# Analytic atmospheres -----------------------------------------------------------------------------


def test_an_isothermal_atmosphere() -> None:
    """Φ = R T ln(p_0 / p): heights, thickness and sea level pressure follow."""
    temperature, p_0 = 270.0, 101325.0
    levels = torch.as_tensor(LEVELS)
    t = torch.full((1, len(LEVELS)), temperature, dtype=torch.float64)
    phi = (R_D * temperature * (p_0 / levels).log())[None]
    thick = get_operator("dry_thickness").function(t, levels=levels, lower=95000.0, upper=41000.0)
    exact = R_D * temperature / G * np.log(95000 / 41000)
    np.testing.assert_allclose(thick.item(), exact, rtol=1e-12)
    # Linear in height between levels is not exact for what is linear in the logarithm of pressure:
    x = levels.log()[None]
    at = get_operator("at_altitude").function(x, phi, levels=levels, altitude=tensor(3000.0))
    np.testing.assert_allclose(at.item(), np.log(p_0) - G * 3000 / (R_D * temperature), rtol=1e-12)
    pressure = get_operator("air_pressure_at_mean_sea_level").function(phi, t, levels=levels)
    np.testing.assert_allclose(pressure.item(), p_0, rtol=1e-4)  # the lapse rate below 1000 hPa


def test_an_atmosphere_of_constant_lapse_rate() -> None:
    """T = T_0 - Γ z has p = p_0 (T / T_0)^(g / R Γ): stations and altitudes are consistent."""
    t_0, p_0, z = 288.15, 101325.0, 1500.0
    t = t_0 - own.LAPSE * z
    p = p_0 * (t / t_0) ** (G / (R_D * own.LAPSE))
    station = get_operator("surface_air_pressure").function(tensor(p_0), tensor(t), tensor(z))
    np.testing.assert_allclose(station.item(), p, rtol=1e-12)
    # MetPy's height_to_pressure_std(1500 m)
    np.testing.assert_allclose(p, 84547.60127237236, rtol=1e-4)
    levels = torch.as_tensor(LEVELS)
    column = (t_0 * (levels / p_0) ** (R_D * own.LAPSE / G))[None]
    found = get_operator("at_hypsometric_altitude").function(
        column, column, tensor(p_0), levels=levels, altitude=tensor(z)
    )
    np.testing.assert_allclose(found.item(), t, atol=0.05)


def test_dew_point_and_humidity_are_inverse() -> None:
    dew = get_operator("dew_point_temperature").function(Q, P)
    back = get_operator("specific_humidity_from_dew_point").function(dew, P)
    np.testing.assert_allclose(back.item(), Q.item(), rtol=1e-12)


# Derivatives --------------------------------------------------------------------------------------


def arguments_of(operator, n: int, rng) -> tuple[list, dict]:
    """Plausible inputs, arguments and parameters of an operator."""
    ranges = {
        "air_temperature": (240, 300),
        "specific_humidity": (1e-3, 1e-2),
        "relative_humidity": (0.2, 0.9),
        "dew_point_temperature": (250, 285),
        "surface_air_pressure": (9e4, 1e5),
        "air_pressure_at_mean_sea_level": (1e5, 1.02e5),
        "eastward_wind": (-20, 20),
        "northward_wind": (-20, 20),
        "geopotential_height": (0, 9000),
        "geopotential": (0, 9e4),
        "*": (240, 300),
        "air_pressure": (4e4, 9e4),
        "altitude": (200, 5000),
        "height_above_model": (-800, 800),
        "model_altitude": (0, 1500),
        "weighting_function": (0, 0.4),
        "averaging_kernel": (0, 0.4),
        "kernel_pressure": (3e4, 9e4),
        "prior_profile": (250, 280),
        "prior": (250, 280),
    }
    wide = {"weighting_function", "averaging_kernel", "kernel_pressure", "prior_profile"}
    inputs = []
    for name, _ in operator.inputs:
        shape = (n, len(LEVELS)) if name in operator.columns else (n,)
        values = rng.uniform(*ranges[name], shape)
        if name == "geopotential" and name in operator.columns:  # rises upwards
            values = np.sort(values, axis=-1)
        inputs.append(torch.tensor(values, requires_grad=True))
    known: dict = {}
    for name, _ in operator.arguments:
        shape = (n, 4) if name in wide else (n,)
        known[name] = torch.tensor(rng.uniform(*ranges[name], shape))
    if operator.columns:
        known["levels"] = torch.as_tensor(LEVELS)
    if "thickness" in operator.name:
        known |= {"lower": 90000.0, "upper": 40000.0}
    return inputs, known


@pytest.mark.parametrize("name", registered_operators())
def test_derivatives(name) -> None:
    operator = get_operator(name)
    inputs, known = arguments_of(operator, 3, np.random.default_rng(0))

    def function(*x: torch.Tensor) -> torch.Tensor:
        return operator.function(*x, **known)

    # Relative steps: inputs differ by eight orders of magnitude.
    scales = [x.detach().abs().mean() for x in inputs]
    assert torch.autograd.gradcheck(
        lambda *y: function(*[a * s for a, s in zip(y, scales, strict=True)]),
        [(x.detach() / s).requires_grad_() for x, s in zip(inputs, scales, strict=True)],
        eps=1e-6,
        rtol=1e-4,
        atol=1e-6 * float(function(*inputs).abs().max()),
    )
    values = function(*inputs)
    assert values.shape == (3,)
    batched = function(*[x.detach().expand(2, *x.shape) for x in inputs])
    torch.testing.assert_close(batched, values.detach().expand(2, 3))
    if operator.linear:  # or affine: differences are what counts
        nothing = function(*[0 * x for x in inputs])
        twice = function(*[2 * x for x in inputs])
        torch.testing.assert_close(twice - nothing, 2 * (values - nothing))
    # forwards and backwards are adjoint
    tangents = tuple(torch.randn_like(x) for x in inputs)
    point = tuple(x.detach() for x in inputs)
    pushed = torch.func.jvp(function, point, tangents)[1]
    weights = torch.randn_like(pushed)
    pulled = torch.func.vjp(function, *point)[1](weights)
    inner = sum((a * b).sum() for a, b in zip(tangents, pulled, strict=True))
    torch.testing.assert_close((pushed * weights).sum(), inner)


# Through the operator -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    """A warm, moist and windy atmosphere on levels, and what lies at the surface."""
    lat, lon = np.linspace(60, 40, 6), np.linspace(0, 30, 7)
    time = np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    rng = np.random.default_rng(0)
    dims, flat = ("time", "level", "latitude", "longitude"), ("time", "latitude", "longitude")
    shape = (3, len(LEVELS), 6, 7)
    t = 288 * (LEVELS / 1e5)[:, None, None] ** 0.19 + rng.standard_normal(shape)
    phi = np.broadcast_to(R_D * 270 * np.log(101325 / LEVELS)[:, None, None], shape)
    q = 8e-3 * (LEVELS / 1e5)[:, None, None] ** 3 * rng.uniform(0.8, 1.2, shape)

    def near(mean: float, std: float) -> np.ndarray:
        return mean + std * rng.standard_normal((3, 6, 7))

    ds = xr.Dataset(
        {
            "t": (dims, t, {"standard_name": "air_temperature", "units": "K"}),
            "q": (dims, q, {"standard_name": "specific_humidity", "units": "kg kg-1"}),
            "z": (dims, phi, {"standard_name": "geopotential", "units": "m2 s-2"}),
            "msl": (flat, near(101000, 300), {"units": "Pa"}),
            "t2m": (flat, near(285, 3), {"units": "K"}),
            "d2m": (flat, near(280, 3), {"units": "K"}),
            "u10": (flat, near(0, 5), {"units": "m s-1"}),
            "v10": (flat, near(0, 5), {"units": "m s-1"}),
        },
        {
            "time": time,
            "level": ("level", LEVELS / 100, {"units": "hPa"}),
            "latitude": lat,
            "longitude": lon,
        },
    )
    names = {"msl": "air_pressure_at_mean_sea_level", "t2m": "air_temperature"}
    names |= {"d2m": "dew_point_temperature", "u10": "eastward_wind", "v10": "northward_wind"}
    for name, cf in names.items():
        ds[name].attrs["standard_name"] = cf
    return ds


def station(values, **attrs) -> xr.DataArray:
    """Three stations on grid points, at the first time."""
    return xr.DataArray(
        np.broadcast_to(values, (3,)).astype(float),
        {
            "latitude": ("station", [60.0, 52.0, 40.0]),
            "longitude": ("station", [0.0, 10.0, 30.0]),
            "time": np.datetime64("2001-01-01", "ns"),
        },
        "station",
        attrs={"error_std": 1.0, **attrs},
    )


def at(state: xr.Dataset, name: str, **where) -> np.ndarray:
    places = {"latitude": [60.0, 52.0, 40.0], "longitude": [0.0, 10.0, 30.0]}
    picked = state[name].isel(time=0).sel({k: xr.DataArray(v, dims="s") for k, v in places.items()})
    return picked.sel(**where).values if where else picked.values


def test_humidity_at_a_pressure(state) -> None:
    obs = station(50.0, standard_name="relative_humidity", units="%").assign_coords(
        air_pressure=((), 850.0, {"units": "hPa", "standard_name": "air_pressure"})
    )
    hx = state.appa.operator(obs)(state)
    expected = quantities._relative_humidity(
        torch.tensor(at(state, "t", level=850)), torch.tensor(at(state, "q", level=850)), P
    )
    np.testing.assert_allclose(hx, 100 * expected, rtol=1e-12)
    assert hx.attrs["units"] == "%"


def test_the_variant_that_the_state_allows_is_taken(state) -> None:
    obs = station(0.5, standard_name="relative_humidity", units="1").assign_coords(height=2.0)
    operator = state.appa.operator(obs)
    assert operator.specs[0].operator == "relative_humidity_from_dew_point"
    assert [v.name for v in operator.specs[0].inputs] == ["t2m", "d2m"]
    with pytest.raises(OperatorError, match=r"cannot be computed[\s\S]*specific_humidity"):
        state.drop_vars("d2m").appa.operator(obs)


def test_wind_speed_in_knots(state) -> None:
    obs = station(10.0, standard_name="wind_speed", units="knot").assign_coords(height=10.0)
    hx = state.appa.operator(obs)(state)
    speed = np.hypot(at(state, "u10"), at(state, "v10"))
    np.testing.assert_allclose(hx, speed * 3600 / 1852, rtol=1e-6)


def test_a_column_of_water(state) -> None:
    name = "atmosphere_mass_content_of_water_vapor"
    obs = station(20.0, standard_name=name, units="kg m-2")
    operator = state.appa.operator(obs)
    assert operator.is_linear
    q = at(state, "q")
    mean = (q[1:] + q[:-1]) / 2 if q.shape[0] == len(LEVELS) else (q[:, 1:] + q[:, :-1]).T / 2
    expected = (mean * -np.diff(LEVELS)[:, None]).sum(0) / G
    np.testing.assert_allclose(operator(state), expected, rtol=1e-12)
    assert "column" in repr(operator) or name in repr(operator)


def test_altitudes_among_pressure_levels(state) -> None:
    """Without a pressure, an altitude says where a sounding is, by the state's geopotential."""
    obs = station(270.0, standard_name="air_temperature", units="K").assign_coords(
        altitude=("station", [500.0, 3000.0, 6000.0], {"units": "m"})
    )
    bare = state.drop_vars(["t2m", "d2m"])
    operator = bare.appa.operator(obs)
    assert operator.specs[0].operator == "at_altitude"
    heights, column = at(state, "z") / G, at(state, "t")
    if heights.shape[0] == len(LEVELS):
        heights, column = heights.T, column.T
    expected = [np.interp(z, heights[k], column[k]) for k, z in enumerate([500.0, 3000.0, 6000.0])]
    np.testing.assert_allclose(operator(bare), expected, rtol=1e-10)
    without = bare.drop_vars("z")
    assert without.appa.operator(obs).specs[0].operator == "at_hypsometric_altitude"
    feet = obs.assign_coords(
        altitude=("station", np.array([500.0, 3000.0, 6000.0]) / 0.3048, {"units": "ft"})
    )
    np.testing.assert_allclose(bare.appa.operator(feet)(bare), expected, rtol=1e-10)


def test_stations_know_their_altitude(state) -> None:
    obs = station(95000.0, standard_name="surface_air_pressure", units="Pa").assign_coords(
        height=2.0
    )
    with pytest.raises(OperatorError, match="needs altitude of the observations"):
        state.appa.operator(obs)
    high = obs.assign_coords(altitude=("station", [0.0, 400.0, np.nan], {"units": "m"}))
    operator = state.appa.operator(high)
    assert operator.n_used == 2  # the third does not know its own
    hx = operator(state)
    np.testing.assert_allclose(hx[0], at(state, "msl")[0], rtol=1e-12)
    assert 0.94 < float(hx[1]) / at(state, "msl")[1] < 0.97


def kernels(state) -> xr.Dataset:
    pressure = np.array([900.0, 600.0, 300.0])
    weights = np.array([[0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.0, 0.0, 1.0]])
    obs = station(250.0, standard_name="toa_brightness_temperature", units="K")
    obs.attrs["xappa_operator_weighting_function"] = "jacobian"
    return xr.Dataset(
        {
            "tb": obs,
            "jacobian": (("station", "layer"), weights, {"units": "1"}),
            "kernel_pressure": ("layer", pressure, {"units": "hPa"}),
        }
    )


def test_weighting_functions_of_the_array_itself(state, tmp_path) -> None:
    obs = kernels(state)
    operator = state.appa.operator(obs)
    assert operator.is_linear
    column = at(state, "t")
    column = column.T if column.shape[0] == len(LEVELS) else column
    logs = np.log(LEVELS)[::-1]
    at_kernel = np.stack(
        [np.interp(np.log([90000.0, 60000.0, 30000.0]), logs, row[::-1]) for row in column]
    )
    expected = (at_kernel * obs.jacobian.values).sum(-1)
    np.testing.assert_allclose(operator(state)["tb"], expected, rtol=1e-12)
    obs.to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataset(tmp_path / "obs.nc") as again:
        np.testing.assert_array_equal(
            state.appa.operator(again)(state)["tb"], operator(state)["tb"]
        )


def test_retrievals_are_compared_as_their_kernels_see(state) -> None:
    obs = kernels(state).drop_vars("tb").rename(jacobian="averaging_kernel")
    retrieved = station(270.0, standard_name="air_temperature", units="K")
    retrieved.attrs["xappa_operator"] = "averaging_kernel"
    obs = obs.assign(
        retrieved=retrieved,
        prior_profile=("layer", [280.0, 265.0, 230.0], {"units": "K"}),
        prior=((), 260.0, {"units": "K"}),
    )
    bare = state.drop_vars(["t2m", "d2m"])
    operator = bare.appa.operator(obs[["retrieved", *KERNEL]])
    column = at(state, "t")
    column = column.T if column.shape[0] == len(LEVELS) else column
    logs = np.log(LEVELS)[::-1]
    seen = np.stack(
        [np.interp(np.log([90000.0, 60000.0, 30000.0]), logs, row[::-1]) for row in column]
    )
    expected = 260 + (obs.averaging_kernel.values * (seen - [280.0, 265.0, 230.0])).sum(-1)
    np.testing.assert_allclose(operator(bare)["retrieved"], expected, rtol=1e-12)


KERNEL = ("averaging_kernel", "kernel_pressure", "prior_profile", "prior")


def test_analyses_draw_towards_derived_quantities(state) -> None:
    """A nonlinear operator of two variables, all the way to the ensemble."""
    prior = xappa.fit_gaussian(_many(state), variables=["u10", "v10"], modes=4)
    obs = station(9.0, standard_name="wind_speed", units="m s-1", error_std=0.2)
    obs = obs.assign_coords(height=10.0)
    ens = (
        state[["u10", "v10"]]
        .isel(time=[0])
        .appa.assimilate(obs, prior, members=8, seed=0, method="mmps", progress=False)
    )
    speed = np.hypot(ens.u10, ens.v10).mean("member").isel(time=0)
    before = np.hypot(state.u10, state.v10).isel(time=0)
    places = {"latitude": obs.latitude, "longitude": obs.longitude}
    assert abs(speed.sel(places) - 9.0).mean() < 0.5 * abs(before.sel(places) - 9.0).mean()


def _many(state: xr.Dataset) -> xr.Dataset:
    rng = np.random.default_rng(3)
    time = np.datetime64("2000-12-01", "ns") + np.arange(60) * np.timedelta64(6, "h")
    lat, lon = state.latitude.values, state.longitude.values
    pattern = np.stack(
        [
            np.ones((6, 7)),
            np.cos(np.radians(lon * 6)) * np.ones((6, 1)),
            np.cos(np.radians(lat[:, None] * 6)) * np.ones(7),
        ]
    )
    out = {}
    for name in ("u10", "v10"):
        series = np.cumsum(rng.standard_normal((60, 3)), axis=0) * 0.8
        values = np.einsum("tk,kyx->tyx", series - series.mean(0), pattern) * 2
        out[name] = state[name].dims, values, state[name].attrs
    return xr.Dataset(out, {"time": time, "latitude": lat, "longitude": lon})
