"""The nature run: columns against analytic profiles, CF metadata, and the run itself."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import xarray as xr

from xappa.__main__ import main
from xappa.bridge.recognise import describe
from xappa.errors import ArgumentError, DataError, MissingDependencyError, VariableMismatchError
from xappa.osse import Speedy, nature_run
from xappa.osse.climatology import daily, daily_weights
from xappa.osse.columns import GRAVITY, LAPSE_RATE, R_DRY, R_VAPOUR, Columns
from xappa.osse.labels import VARIABLES, Geometry, gaussian_bounds, on_pressure, on_sigma
from xappa.osse.nature import LEVELS
from xappa.osse.store import append, cut, seal

A = R_DRY * LAPSE_RATE / GRAVITY
SIGMA = np.array([0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95])
# columns whose ground lies at these heights in metres, as a grid of one row
HEIGHTS = np.array([[-300.0, 0.0, 250.0, 1000.0, 1900.0]])


def standard_pressure(height: np.ndarray) -> np.ndarray:
    """Pressure of an atmosphere of 288.15 K and 1013.25 hPa at sea level, 6.5 K/km throughout."""
    return 101325.0 * (1 - LAPSE_RATE * height / 288.15) ** (1 / A)


def standard_temperature(pressure: np.ndarray | float) -> np.ndarray:
    return 288.15 * (np.asarray(pressure) / 101325.0) ** A


def standard_height(pressure: np.ndarray | float) -> np.ndarray:
    return (288.15 - standard_temperature(pressure)) / LAPSE_RATE


def standard_columns(sigma: np.ndarray = SIGMA, q: float = 0.0) -> Columns:
    ps = standard_pressure(HEIGHTS)
    t = standard_temperature(sigma[:, None, None] * ps)
    return Columns(sigma, t, np.full_like(t, q), ps, GRAVITY * HEIGHTS)


def geometry() -> Geometry:
    latitude = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(4)[0]))
    edges = np.array([0, 0.05, 0.14, 0.26, 0.42, 0.6, 0.77, 0.9, 1.0])
    orography = 300.0 * np.arange(24.0).reshape(4, 6) / 24
    land = (orography > 100).astype(float)
    return Geometry(latitude, np.arange(6) * 60.0, SIGMA, edges, orography, land)


def fields(times: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (times, 8, 4, 6)
    return {
        "u": rng.normal(size=shape),
        "v": rng.normal(size=shape),
        "t": 260 + rng.normal(size=shape),
        "q": rng.uniform(0, 1e-3, shape),
        "sp": 98000 + rng.normal(size=(times, 4, 6)),
        "pr": rng.uniform(0, 1e-4, (times, 4, 6)),
    }


TIMES = np.datetime64("2001-01-01") + np.arange(3) * np.timedelta64(6, "h")


def test_the_standard_atmosphere_reduces_to_its_sea_level_pressure() -> None:
    # Its warmest ground lies below 290.5 K and its coldest above 255 K: the plain reduction.
    np.testing.assert_allclose(standard_columns().sea_level_pressure, 101325.0, rtol=1e-12)


def test_temperature_and_height_below_the_ground_go_on_as_the_standard_atmosphere() -> None:
    columns = standard_columns()
    for pressure in (101325.0, 105500.0):
        below = np.broadcast_to(pressure > columns.ps, HEIGHTS.shape)
        assert below[0, -1]
        t, z = columns.temperature(pressure), columns.geopotential(pressure)
        np.testing.assert_allclose(t[below], standard_temperature(pressure), rtol=1e-12)
        expected = GRAVITY * standard_height(pressure)
        np.testing.assert_allclose(z[below], expected, atol=1e-6)


@pytest.mark.parametrize("levels", [50, 100])
def test_height_converges_to_the_standard_atmosphere(levels: int) -> None:
    columns = standard_columns((np.arange(levels) + 0.5) / levels)
    for pressure in (25000.0, 50000.0, 85000.0):
        above = np.broadcast_to(pressure < columns.ps, HEIGHTS.shape)
        gap = np.abs(columns.geopotential(pressure) / GRAVITY - standard_height(pressure))[above]
        # the curvature of temperature in ln p, times the squared width of layers: second order
        assert gap.max() < 3.0 * (50 / levels) ** 2
        t = np.abs(columns.temperature(pressure) - standard_temperature(pressure))[above]
        assert t.max() < 0.1 * (50 / levels) ** 2


def test_profiles_linear_in_log_pressure_are_exact() -> None:
    ps = np.array([[[101000.0, 70000.0]], [[99000.0, 72000.0]]])
    x = np.log(SIGMA)[:, None, None] + np.log(ps)[:, None]
    columns = Columns(SIGMA, 200 + 5 * x, np.zeros_like(x), ps, np.zeros((1, 2)))
    for pressure in (10000.0, 30000.0, 66000.0):
        np.testing.assert_allclose(columns.at(3 - 2 * x, pressure), 3 - 2 * np.log(pressure))
        np.testing.assert_allclose(columns.temperature(pressure), 200 + 5 * np.log(pressure))
    # thickness of a layer whose temperature is linear in ln p: that of its mean temperature
    upper, lower = columns.geopotential(20000.0), columns.geopotential(40000.0)
    mean = 200 + 5 * 0.5 * (np.log(20000.0) + np.log(40000.0))
    np.testing.assert_allclose(upper - lower, R_DRY * mean * np.log(2.0), rtol=1e-10)


def test_moist_air_is_thicker_by_its_virtual_temperature() -> None:
    dry, moist = standard_columns(), standard_columns(q=0.01)
    ratio = moist.geopotential(50000.0) - moist.phis
    ratio /= dry.geopotential(50000.0) - dry.phis
    np.testing.assert_allclose(ratio, 1 + 0.01 * (R_VAPOUR / R_DRY - 1))


def test_values_below_the_lowest_level_are_those_of_it() -> None:
    columns = standard_columns()
    values = np.broadcast_to(np.arange(8.0)[:, None, None], (8, 1, 5))
    np.testing.assert_array_equal(columns.at(values, 108000.0), np.full((1, 5), 7.0))
    between = float(0.97 * columns.ps[0, 1])
    assert columns.at(values, between)[0, 1] == 7.0
    halfway = float(np.sqrt(SIGMA[6] * SIGMA[7]) * columns.ps[0, 1])
    np.testing.assert_allclose(columns.at(values, halfway)[0, 1], 6.5)


def test_fields_are_continuous_at_the_ground() -> None:
    columns = standard_columns()
    ps = float(columns.ps[0, 3])
    for values in (columns.temperature, columns.geopotential):
        above, below = values(ps * (1 - 1e-9))[0, 3], values(ps * (1 + 1e-9))[0, 3]
        np.testing.assert_allclose(above, below, rtol=1e-6)
    np.testing.assert_allclose(columns.geopotential(ps)[0, 3], columns.phis[0, 3], rtol=1e-9)


def test_high_and_warm_ground_reduce_the_lapse_rate() -> None:
    phis = GRAVITY * np.array([[4000.0]])
    ps, t = np.array([[60000.0]]), np.full((8, 1, 1), 285.0)
    plateau = Columns(SIGMA, t, np.zeros_like(t), ps, phis)
    ground = plateau.surface_temperature[0, 0]
    # 298 K at sea level at most under a plateau: 4 km with (298 - ground) / 4 km
    exponent = R_DRY / GRAVITY * (298.0 - ground) / 4000.0
    np.testing.assert_allclose(plateau.temperature(80000.0), ground * (8 / 6) ** exponent)
    # 290.5 K at sea level at most for its pressure
    lapse = (290.5 - ground) / 4000.0
    expected = 60000.0 * (290.5 / ground) ** (GRAVITY / (R_DRY * lapse))
    np.testing.assert_allclose(plateau.sea_level_pressure, expected)


def test_cells_of_gaussian_latitudes_cover_the_sphere() -> None:
    edges = gaussian_bounds(48)
    latitude = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(48)[0]))
    assert edges[0] == -90
    assert edges[-1] == 90
    assert np.all((edges[:-1] < latitude) & (latitude < edges[1:]))


def test_a_climatology_is_met_in_the_middle_of_its_months() -> None:
    weights = daily_weights()
    np.testing.assert_allclose(weights.sum(1), 1)
    assert weights.min() >= 0
    assert weights[15, 0] == 1  # noon of 16 January
    monthly = xr.Dataset(
        {"sst": (("lon", "time"), np.arange(24.0).reshape(2, 12)), "alb": ("lon", [0.1, 0.2])},
        {"time": np.arange("1981-01", "1982-01", dtype="datetime64[M]").astype("datetime64[ns]")},
    )
    found = daily(monthly)
    assert found.sst.dims == ("lon", "time")
    assert found.sizes["time"] == 365
    assert found.sst.dtype == np.float32
    np.testing.assert_allclose(found.sst.sel(time="1981-01-16"), [0, 12])
    xr.testing.assert_equal(found.alb, monthly.alb)


def test_pressure_levels_carry_cf_metadata(tmp_path) -> None:
    ds = on_pressure(fields(), TIMES, geometry(), LEVELS)
    append(tmp_path / "a.zarr", ds, group=None, chunk=2, since="2001-01-01")
    seal(tmp_path / "a.zarr", [None])
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        spec, axes = describe(ds)
        assert axes.guesses == ()
        assert {v.name: v.standard_name for v in spec.variables} == {
            name: row[0] for name, row in VARIABLES.items()
        }
        assert {v.levels for v in spec.variables if v.name in "uvtqz"} == {
            tuple(100 * level for level in LEVELS)
        }
        assert all(v.levels is None for v in spec.variables if v.name in ("sp", "msl", "pr"))
        assert spec.time_step == 6 * 3600
        assert ds.pr.attrs["cell_methods"] == "time: mean"
        assert ds.t.attrs["cell_methods"] == "time: point"
        np.testing.assert_array_equal(ds.time_bnds[:, 1], ds.time)
        np.testing.assert_array_equal(ds.time_bnds[:, 0], ds.time - np.timedelta64(6, "h"))
        assert ds.time.encoding["units"] == "hours since 2001-01-01"
        assert ds.orog.attrs["standard_name"] == "surface_altitude"


def test_sigma_levels_carry_cf_metadata() -> None:
    spec, axes = describe(on_sigma(fields(), TIMES, geometry()))
    assert axes.vertical == "sigma"
    assert {v.name for v in spec.variables} == {"u", "v", "t", "q", "sp", "pr"}
    assert {v.vertical for v in spec.variables if v.levels} == {"atmosphere_sigma_coordinate"}


def test_what_was_written_beyond_a_checkpoint_is_cut_off(tmp_path) -> None:
    path, ds = tmp_path / "a.zarr", on_pressure(fields(), TIMES, geometry(), LEVELS)
    how = {"group": None, "chunk": 2, "since": "2001-01-01"}
    append(path, ds, **how)
    append(path, ds.isel(time=[0]).assign_coords(time=TIMES[-1:] + np.timedelta64(6, "h")), **how)
    cut(path, {None: 3, "native": 0})
    with xr.open_zarr(path) as found:
        xr.testing.assert_allclose(found.load(), ds.astype(found.t.dtype))
    with pytest.raises(DataError, match=r"lacks what its checkpoint says[\s\S]*5 times"):
        cut(path, {None: 5})
    with pytest.raises(DataError, match=r"lacks what its checkpoint says[\s\S]*nothing"):
        cut(path, {"native": 1})
    (path / "native" / "u").mkdir(parents=True)  # killed while it made the group
    cut(path, {None: 3, "native": 0})
    assert not (path / "native").exists()
    cut(path, {None: 0, "native": 0})
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "how long to run"),
        ({"years": 1, "stop": "2002"}, "how long to run"),
        ({"stop": "2000"}, "does not fit its start"),
        ({"stop": "2001-01-01T05"}, "does not fit its start"),
        ({"years": 1, "levels": [10]}, r"no air there[\s\S]*30 to 1100"),
        ({"years": 1, "levels": []}, "no air there"),
        ({"years": 1, "segment": "5h"}, r"segment[\s\S]*multiple of 6 hours"),
        ({"years": 1, "spin_up": "0D"}, r"spin_up[\s\S]*multiple of 6 hours"),
        ({"years": 1, "native": "often"}, r"no time span[\s\S]*native"),
        ({"years": 1, "start": "spring"}, r"no time[\s\S]*start"),
        ({"years": 1, "start": "2001-01-01T00:00:00+01:00"}, "no time zone"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message) -> None:
    with pytest.raises(ArgumentError, match=message):
        nature_run(tmp_path / "a.zarr", **arguments)


def test_other_files_are_left_alone(tmp_path) -> None:
    with pytest.raises(DataError, match="something else already"):
        nature_run(tmp_path, years=1)


def test_without_jcm_the_error_names_the_extra(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "jcm.physics.speedy.speedy_coords", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'xappa\[osse\]'"):
        Speedy()
    assert main(["nature-run", "--output", str(tmp_path / "a.zarr"), "--years", "1"]) == 2
    assert "xappa[osse]" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def model() -> Speedy:
    pytest.importorskip("jcm", reason="needs jcm: pip install 'xappa[osse]'")
    return Speedy()


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A run of two days, and how it was asked for."""
    path = tmp_path_factory.mktemp("nature") / "a.zarr"
    how = {"stop": "2001-01-03", "spin_up": "1D", "segment": "1D", "native": "12h", "seed": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xappa.osse.nature.Speedy", lambda: model)
        nature_run(path, progress=False, **how)
        yield path, how


def test_a_run_is_written_in_full(run, model) -> None:
    ds = xr.open_zarr(run[0])
    assert ds.sizes == {"time": 8, "level": 6, "latitude": 48, "longitude": 96, "bnds": 2}
    assert all(np.isfinite(ds[name]).all() for name in VARIABLES)
    settings = json.loads(ds.attrs["settings"])
    assert (settings["seed"], settings["levels"]) == (3, list(LEVELS))
    assert ds.attrs["source"] == model.source
    area = np.polynomial.legendre.leggauss(48)[1]
    sea_level = ds.msl.weighted(xr.DataArray(area, dims="latitude")).mean()
    assert float(sea_level) == pytest.approx(101325, abs=300)
    assert float(ds.q.min()) >= 0
    native = xr.open_zarr(run[0], group="native")
    np.testing.assert_array_equal(native.time, ds.time[::2])
    np.testing.assert_array_equal(native.sp, ds.sp[::2])


def test_resuming_gives_what_an_uninterrupted_run_gives(run, tmp_path) -> None:
    path, how = run
    again = tmp_path / "b.zarr"
    nature_run(again, progress=False, **(how | {"stop": "2001-01-02"}))
    # killed while it wrote the second day: the store is ahead of its checkpoint
    checkpoint = tmp_path / "b.zarr.checkpoint"
    shutil.copy(checkpoint, tmp_path / "kept")
    nature_run(again, progress=False, **(how | {"stop": "2001-01-02T18"}))
    shutil.copy(tmp_path / "kept", checkpoint)
    resumed = nature_run(again, progress=False, **how)
    for group in (None, "native"):
        expected = xr.open_zarr(path, group=group).load()
        resumed = xr.open_zarr(again, group=group).load()
        del expected.attrs["history"], resumed.attrs["history"]
        xr.testing.assert_identical(resumed, expected)
    with pytest.raises(DataError, match=r"of another run[\s\S]*seed"):
        nature_run(again, progress=False, **(how | {"seed": 4}))
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(DataError, match="checkpoint cannot be used"):
        nature_run(again, progress=False, **how)


def test_the_model_starts_at_rest_in_balance(model) -> None:
    a, b = (model.fields(model.initial(seed)) for seed in (0, 1))
    assert np.abs(a["sp"] - b["sp"]).max() > 1
    assert np.abs(a["u"]).max() == 0
    fall = GRAVITY * model.geometry.orography / (R_DRY * a["t"][-1])
    # the seeded bump of pressure is a hundredth, over a hundredth of the globe
    np.testing.assert_allclose(np.median(a["sp"] * np.exp(fall)), 101325, rtol=2e-3)


def test_states_go_to_datasets_and_back(model) -> None:
    state = model.initial(0, "2001-07-01")
    for _ in range(8):
        state = model.step(state)
    ds = model.to_dataset(state)
    assert ds.time.values == np.datetime64("2001-07-03")
    back = model.to_dataset(model.from_dataset(ds, like=state))
    assert back.time.values == ds.time.values
    # single precision; humidity was cut off at zero, and its waves then overshoot again
    for name, gap in {"u": 1e-3, "v": 1e-3, "t": 1e-3, "q": 1e-3, "sp": 0.1}.items():
        assert float(np.abs(back[name] - ds[name]).max()) < gap, name
    turned = ds.isel(latitude=slice(None, None, -1)).transpose(..., "sigma", "time")
    xr.testing.assert_allclose(model.to_dataset(model.from_dataset(turned)), back)
    with pytest.raises(VariableMismatchError, match="no q"):
        model.from_dataset(ds.drop_vars("q"))
    with pytest.raises(DataError, match=r"not on the grid[\s\S]*latitude"):
        model.from_dataset(ds.isel(latitude=slice(1, None)))
    with pytest.raises(DataError, match=r"values are missing[\s\S]*sp"):
        model.from_dataset(ds.assign(sp=ds.sp.where(ds.sp > 1e5)))
    with pytest.raises(ArgumentError, match=r"cannot step that far[\s\S]*0\.5 hours"):
        model.step(state, 0.7)


def test_members_are_forecast_alike(model) -> None:
    state = model.step(model.initial(0))
    ds = model.to_dataset(state)
    alone = model.forecast(ds)
    assert alone.time.values == np.datetime64("2001-01-01T12")
    members = xr.concat([ds, ds], "member").assign_coords(member=[4, 7])
    both = model.forecast(members)
    np.testing.assert_array_equal(both.member, [4, 7])
    xr.testing.assert_identical(both.t.isel(member=1, drop=True), alone.t)
    # the model's own step, but for radiative fluxes that start afresh
    exact = model.to_dataset(model.step(state))
    assert float(np.abs(alone.t - exact.t).mean()) < 0.05
