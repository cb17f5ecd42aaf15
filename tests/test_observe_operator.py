"""The observation operator: exact on fields that it must reproduce, adjoint to the last digit."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch
import xarray as xr
from dask.base import tokenize
from xarray.tests import raise_if_dask_computes

from xappa.bridge import describe, pack
from xappa.cf import to_seconds
from xappa.errors import ArgumentError, CoordinateError, OperatorError
from xappa.observe import (
    ObservationOperator,
    Rows,
    Status,
    read_observations,
    register_operator,
    unregister_operator,
)

TIMES = np.array(["2020-01-01T00", "2020-01-01T06", "2020-01-01T12"], dtype="datetime64[ns]")
LEVELS = np.array([1000.0, 850.0, 500.0, 200.0])


def dataset(function, *, lat=None, lon=None, members=None, dtype=np.float64) -> xr.Dataset:
    """Variables t2m and t from a function of hours, ln p, latitude and longitude."""
    lat = np.linspace(87, -87, 30) if lat is None else lat  # no row on a pole
    lon = np.arange(0, 360, 9.0) if lon is None else lon
    coords = {"time": TIMES, "level": LEVELS, "latitude": lat, "longitude": lon}
    hours = xr.DataArray((TIMES - TIMES[0]) / np.timedelta64(1, "h"), dims="time")
    log_p = xr.DataArray(np.log(LEVELS * 100), dims="level")
    phi, lam = (
        xr.DataArray(np.deg2rad(c), dims=d) for c, d in ((lat, "latitude"), (lon, "longitude"))
    )
    t = (function(hours, log_p, phi, lam) + 0 * (hours + log_p + phi + lam)).transpose(*coords)
    t2m = (function(hours, np.log(101325.0), phi, lam) + 0 * (hours + phi + lam)).transpose(
        "time", "latitude", "longitude"
    )
    ds = xr.Dataset({"t": t.astype(dtype), "t2m": t2m.astype(dtype)}).assign_coords(coords)
    ds.t.attrs = {"standard_name": "air_temperature", "units": "K"}
    ds.t2m.attrs = {"standard_name": "air_temperature", "units": "K"}
    ds.level.attrs = {"standard_name": "air_pressure", "units": "hPa"}
    ds = ds.assign(
        u=ds.t.assign_attrs(standard_name="eastward_wind", units="m s-1"),
        v=(2 * ds.t).assign_attrs(standard_name="northward_wind", units="m s-1"),
    )
    if members is not None:
        ds = ds.expand_dims(number=np.arange(members)) + xr.DataArray(
            np.arange(members, dtype=dtype), dims="number"
        )
    return ds


def points(n, *, seed=0, level=True, lat=(-90, 90), lon=(-180, 540), **attrs) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    coords = {
        "latitude": ("obs", rng.uniform(*lat, n)),
        "longitude": ("obs", rng.uniform(*lon, n)),
        "time": ("obs", TIMES[0] + (rng.uniform(0, 12, n) * 3.6e12).astype("timedelta64[ns]")),
    }
    if level:
        pressure = rng.uniform(200, 1000, n)
        coords["pressure"] = ("obs", pressure, {"units": "hPa", "standard_name": "air_pressure"})
    attrs = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0} | attrs
    return xr.DataArray(np.zeros(n), coords, ("obs",), "t" if level else "t2m", attrs)


def operator(ds, obs, **kwargs) -> ObservationOperator:
    state, _ = describe(ds)
    return ObservationOperator.build(
        read_observations(obs, state, **kwargs), state, to_seconds(ds.time)[0]
    )


def packed(ds) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pack(ds, describe(ds)[0]).values))


def linear_field(hours, log_p, phi, lam):
    return 280 + 0.5 * hours + 7 * log_p + 0 * phi + 0 * lam


# exactness


def test_constant_linear_in_time_and_in_log_pressure():
    ds, obs = dataset(linear_field), points(500)
    hours = (obs.time - TIMES[0]) / np.timedelta64(1, "h")
    truth = linear_field(hours, np.log(obs.pressure * 100), 0, 0)
    H = operator(ds, obs)
    assert H.n_used == 500
    # weights are rounded to 1e-6 at nodes: 1e-6 of an increment of at most 10 K
    np.testing.assert_allclose(H(ds), truth, rtol=0, atol=2e-5)
    np.testing.assert_allclose(H.apply(packed(ds)), truth, rtol=0, atol=2e-5)


def test_bilinear_in_latitude_and_longitude():
    ds = dataset(lambda h, p, phi, lam: 3 * phi + lam * phi)
    obs = points(300, level=False, lat=(-87, 87), lon=(0, 351))
    phi, lam = np.deg2rad(obs.latitude), np.deg2rad(obs.longitude)
    np.testing.assert_allclose(operator(ds, obs)(ds), 3 * phi + lam * phi, atol=1e-12)


def test_across_the_seam_and_to_the_poles():
    ds = dataset(lambda h, p, phi, lam: np.sin(phi) + np.cos(lam) * np.cos(phi))
    places = {
        "latitude": [0.0, 0.0, 90.0, -90.0, 88.5],
        "longitude": [355.5, -4.5, 123.0, 7.0, 0.0],
    }
    obs = xr.DataArray(
        np.zeros(5),
        {name: ("obs", values) for name, values in places.items()} | {"time": TIMES[1]},
        ("obs",),
        "t2m",
        {"standard_name": "air_temperature", "units": "K", "error_std": 1.0},
    )
    hx = operator(ds, obs)(ds).values
    rows = ds.t2m.isel(time=1)
    equator = rows.interp(latitude=0.0)
    between = float(equator[[0, -1]].mean())
    top, bottom = (float(rows.isel(latitude=i).mean()) for i in (0, -1))
    halfway = (float(rows.isel(latitude=0, longitude=0)) + top) / 2
    np.testing.assert_allclose(hx, [between, between, top, bottom, halfway], atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gridded_observations_with_gaps_reproduce_the_grid(dtype):
    rng = np.random.default_rng(0)
    ds = dataset(lambda h, p, phi, lam: h + p + phi + lam, dtype=dtype)
    ds["t"] = ds.t.copy(data=rng.normal(280, 10, ds.t.shape).astype(dtype))
    obs = ds.t.where(rng.random(ds.t.shape) < 0.3)
    # other orders of dims, latitudes upwards, longitudes from -180, pressure in Pa
    lon = ((obs.longitude + 180) % 360 - 180).assign_attrs(units="degrees_east")
    obs = obs.assign_coords(longitude=lon).sortby("longitude").sortby("latitude")
    obs = obs.assign_coords(level=(obs.level * 100).assign_attrs(units="Pa"))
    obs = obs.transpose("longitude", "level", "latitude", "time")
    H = operator(ds, obs, error=1.0)
    np.testing.assert_array_equal(H.apply(packed(ds)).numpy(), H.values)
    hx = H(ds)
    assert hx.dims == obs.dims
    assert hx.dtype == dtype
    seen = obs.notnull()
    np.testing.assert_array_equal(hx.where(seen), obs)
    assert hx.notnull().all()  # equivalents exist in the gaps as well
    assert H.counts()["t"][Status.MISSING] == int((~seen).sum())


def test_a_gap_in_the_state_does_not_reach_observations_on_its_neighbours():
    ds = dataset(linear_field)
    ds["t2m"] = ds.t2m.where(ds.latitude != ds.latitude[3])
    obs = ds.t2m.isel(latitude=[2, 4]).assign_attrs(error_std=1.0)
    np.testing.assert_array_equal(operator(ds, obs)(ds), obs)


@pytest.mark.parametrize("unit", ["degC", "degF", "millikelvin"])
def test_equivalents_come_in_the_units_of_the_observations(unit):
    ds = dataset(linear_field)
    offset, factor = {"degC": (-273.15, 1), "degF": (-459.67, 1.8), "millikelvin": (0, 1e3)}[unit]
    obs = points(50, units=unit)
    kelvin = operator(ds, points(50))(ds)
    hx = operator(ds, obs)(ds)
    np.testing.assert_allclose(hx, kelvin * factor + offset, rtol=1e-12)
    assert hx.attrs["units"] == unit


# linear algebra


def test_adjoint_and_dense_matrix():
    ds = dataset(linear_field, lat=np.linspace(80, -80, 5), lon=np.arange(0, 360, 60.0))
    H = operator(ds, [points(40), points(7, level=False, seed=1)])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(H.rows.shape, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randn(H.n_used, generator=generator, dtype=torch.float64)
    hx = H.apply(x)
    (adjoint,) = torch.autograd.grad(hx, x, y)
    # 47 products of numbers of order one in another order: a few units in the last place
    torch.testing.assert_close(hx @ y, (x * adjoint).sum(), rtol=1e-13, atol=1e-13)
    dense = H.rows.matrix().toarray()
    np.testing.assert_allclose(hx.detach(), dense @ x.detach().numpy().ravel(), rtol=1e-12)
    np.testing.assert_allclose(adjoint.ravel(), dense.T @ y.numpy(), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(dense.sum(axis=1), 1, rtol=1e-14)


def test_padded_rows_are_the_same_matrix():
    ds = dataset(linear_field, lat=np.linspace(80, -80, 5), lon=np.arange(0, 360, 60.0))
    rows = operator(ds, points(30)).rows
    dense = np.zeros((rows.n_rows, rows.shape[0], rows.state_size))
    number = np.arange(rows.n_rows)[:, None]
    np.add.at(dense, (number, rows.index_time, rows.index_state), rows.weight)
    np.testing.assert_array_equal(dense.reshape(rows.n_rows, -1), rows.matrix().toarray())


def test_batches_and_half_precision():
    ds = dataset(linear_field)
    H = operator(ds, points(20))
    x = packed(ds)
    both = H.apply(torch.stack([x, 2 * x])[None])
    assert both.shape == (1, 2, 20)
    torch.testing.assert_close(both[0, 1], 2 * H.apply(x))
    assert H.apply(x.to(torch.bfloat16)).dtype == torch.float32


def test_wrong_shape():
    ds = dataset(linear_field)
    H = operator(ds, points(3))
    with pytest.raises(OperatorError, match=re.escape(f"{H.rows.shape}")):
        H.apply(packed(ds)[:2])


def test_zero_observations_are_legal():
    ds = dataset(linear_field)
    x = packed(ds).requires_grad_()
    for obs in ([], points(0), points(2, lat=(20, 20), lon=(0, 0)).where(False)):
        H = operator(ds, obs)
        y = H.apply(x)
        assert y.shape == H.values.shape == (0,)
        y.sum().backward()
        assert H.is_linear
        assert H.rows.weight.shape[0] == 0
        assert "0 used" in repr(H)
    assert operator(ds, [])(ds) == []
    assert operator(ds, points(0))(ds).shape == (0,)
    assert isinstance(Rows.concatenate([], H.rows.shape), Rows)


# registered operators


@pytest.fixture
def wind_speed():
    knots = {"eastward_wind": "knot", "northward_wind": "knot"}
    register_operator("wind_speed", inputs=knots, units="knot")(
        lambda u, v, gain=1.0: gain * torch.sqrt(u**2 + v**2)
    )
    yield
    unregister_operator("wind_speed")


@pytest.mark.usefixtures("wind_speed")
def test_nonlinear_operator_of_two_inputs():
    ds = dataset(linear_field)
    obs = points(30, standard_name="wind_speed", units="m s-1", xappa_operator_gain=2.0)
    H = operator(ds, [points(4), obs.rename("wind")])
    t = operator(ds, obs.assign_attrs(standard_name="air_temperature", units="K"))(ds)
    speed = 2 * np.sqrt(5) * t  # v = 2 u
    np.testing.assert_allclose(H(ds)[1], speed, rtol=1e-12)
    np.testing.assert_allclose(H(ds.chunk(time=1))[1].compute(), speed, rtol=1e-12)
    np.testing.assert_allclose(H.apply(packed(ds))[4:], speed * 3600 / 1852, rtol=1e-12)
    assert H.rows.n_rows == 4 + 60
    assert not H.is_linear
    assert "wind_speed(u, v, gain=2.0)" in repr(H)
    x = packed(ds).requires_grad_()
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(H.apply(x).sum(), x)
    step = 1e-4
    difference = (H.apply(x + step * direction) - H.apply(x - step * direction)).sum() / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("unit", "linear"), [("K", True), ("degC", False)])
def test_a_linear_operator_with_an_offset_is_not_linear(unit, linear):
    register_operator("test_twice", inputs={"air_temperature": unit}, units="K", linear=True)(
        lambda t: 2 * t
    )
    try:
        assert (
            operator(dataset(linear_field), points(3, xappa_operator="test_twice")).is_linear
            is linear
        )
    finally:
        unregister_operator("test_twice")


def test_an_operator_that_does_not_act_on_each_element():
    register_operator("test_sum", inputs=["air_temperature"], units="K")(lambda t: t.sum(-1))
    try:
        ds = dataset(linear_field)
        with pytest.raises(OperatorError, match="one value per observation"):
            operator(ds, points(3, xappa_operator="test_sum")).apply(packed(ds))
    finally:
        unregister_operator("test_sum")


# rejection


def test_counted_rejections():
    ds = dataset(linear_field, lat=np.linspace(60, 40, 11), lon=np.linspace(-10, 20, 16))
    obs = points(7, lat=(45, 55), lon=(0, 10)).drop_vars(["latitude", "pressure", "time"])
    obs = obs.assign_coords(
        latitude=("obs", [50.0, 50, 61, 50, 50, np.nan, 50]),
        pressure=("obs", [500.0, 500, 500, 100, 1013, 500, 500], {"units": "hPa"}),
        time=("obs", TIMES[[0, 0, 0, 0, 0, 0, 2]] + np.timedelta64(1, "s") * np.arange(7)),
        error_std=("obs", [1.0, 1, 1, 1, 1, 1, 1]),
    )
    obs[1] = np.nan
    H = operator(ds, obs)
    assert {s: n for s, n in H.counts()["t"].items() if n} == {
        Status.USED: 1,
        Status.MISSING: 1,
        Status.OUTSIDE_DOMAIN: 2,
        Status.OUTSIDE_LEVELS: 2,
        Status.OUTSIDE_WINDOW: 1,
    }
    assert H.used.tolist() == [0]
    np.testing.assert_array_equal(np.isnan(H(ds)), [False, False, True, True, True, True, True])
    page = repr(H)
    for said in ("outside domain 2", "outside levels 2", "outside window 1", "missing 1"):
        assert said in page
    specs = read_observations(obs, H.state)
    with pytest.raises(ExceptionGroup, match="2 observations of 't' are outside levels"):
        ObservationOperator.build(specs, H.state, H.times, reject_outside=False)


def test_float32_pressure_at_the_lowest_level_is_inside():
    ds = dataset(linear_field)
    ds = ds.assign_coords(level=ds.level.astype(np.float64) * 100.0003)
    ds.level.attrs = {"units": "Pa"}
    obs = points(2)
    obs = obs.assign_coords(pressure=("obs", np.float32([100000.3, 20000.06]), {"units": "Pa"}))
    assert operator(ds, obs).n_used == 2


def test_one_state_takes_its_own_time_and_observations_without_time():
    ds = dataset(linear_field).isel(time=[1])
    obs = points(3, level=False)
    early = obs.assign_coords(time=("obs", TIMES[1] + np.array([0, 400, 900], "timedelta64[ms]")))
    assert operator(ds, early).counts()["t2m"][Status.OUTSIDE_WINDOW] == 1
    H = operator(ds, obs.drop_vars("time"))
    assert H.n_used == 3
    assert "belong to the only state" in repr(H)
    timeless = H(ds.isel(time=0, drop=True))
    np.testing.assert_array_equal(timeless, H(ds))


def test_observations_without_time_and_several_states():
    with pytest.raises(CoordinateError, match="have no time, but there are 3 states"):
        operator(dataset(linear_field), points(3).drop_vars("time"))


def test_times_must_increase():
    state, _ = describe(dataset(linear_field))
    with pytest.raises(ArgumentError, match="do not increase"):
        ObservationOperator.build((), state, np.array([0.0, 0.0]))


# labels, laziness, copies


def test_labels_members_and_containers():
    ds = dataset(linear_field, members=2)
    t, t2m = points(5, comment="mine"), points(3, level=False)
    obs = {"sondes": t, "synop": [t2m.to_dataset().assign_attrs(title="stations")]}
    before = t.copy(deep=True)
    hx = operator(ds, obs)(ds)
    assert list(hx) == ["sondes", "synop"]
    assert hx["sondes"].dims == ("number", "obs")
    assert hx["sondes"].attrs["comment"] == "mine"
    np.testing.assert_allclose(hx["sondes"].diff("number"), 1)
    xr.testing.assert_equal(hx["sondes"].coords["number"], ds.number)
    assert isinstance(hx["synop"][0], xr.Dataset)
    assert hx["synop"][0].attrs == {"title": "stations"}
    xr.testing.assert_identical(t, before)


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 2, "latitude": 7}, {"number": 1}])
def test_lazy_equivalents(chunks):
    ds = dataset(linear_field, members=3, dtype=np.float32)
    obs = points(200)
    H = operator(ds, obs)
    eager = H(ds)
    with raise_if_dask_computes():
        lazy = H(ds.chunk(chunks))
    assert lazy.chunks is not None
    assert (lazy.dtype, lazy.shape) == (eager.dtype, eager.shape)
    assert lazy.data._meta.dtype == lazy.dtype
    xr.testing.assert_allclose(lazy.compute(), eager)
    assert tokenize(H(ds.chunk(chunks))) == tokenize(lazy)


def test_lazy_equivalents_of_nothing_inside():
    ds = dataset(linear_field).chunk(time=1)
    H = operator(
        ds, points(4).assign_coords(time=("obs", TIMES[:1].repeat(4) - np.timedelta64(1, "D")))
    )
    lazy = H(ds)
    assert lazy.chunks is not None
    assert lazy.compute().isnull().all()


def test_only_observed_variables_are_needed_and_other_windows_serve():
    ds = dataset(linear_field)
    H = operator(ds, points(50))
    np.testing.assert_array_equal(H(ds[["t"]]), H(ds))
    later = H(ds.isel(time=slice(1, 3)))
    inside = H.time >= H.times[1]
    np.testing.assert_array_equal(later.isnull(), ~inside)
    np.testing.assert_allclose(later[inside], H(ds)[inside])


def test_pickle_and_token():
    ds, obs = dataset(linear_field), points(20)
    H = operator(ds, obs)
    x = packed(ds)
    y = H.apply(x)  # fills the cache of tensors, which must not travel
    copy = pickle.loads(pickle.dumps(H))
    assert not copy._buffers
    torch.testing.assert_close(copy.apply(x), y, rtol=0, atol=0)
    xr.testing.assert_identical(copy(ds), H(ds))
    assert tokenize(copy) == tokenize(H) == tokenize(operator(ds, obs))
    assert tokenize(operator(ds, obs, error=2.0)) != tokenize(H)
    assert tokenize(operator(ds, points(20, seed=1))) != tokenize(H)


def test_netcdf_round_trip_gives_the_same_operator(tmp_path):
    ds = dataset(linear_field)
    obs = points(30, units="degC").drop_attrs(deep=False)
    obs.attrs = {"standard_name": "air_temperature", "units": "degC"}
    obs = obs.to_dataset().assign(
        err=("obs", np.linspace(1, 2, 30), {"standard_name": "air_temperature standard_error"})
    )
    obs.t.attrs["ancillary_variables"] = "err"
    obs.err.attrs["units"] = "K"
    obs.to_netcdf(tmp_path / "obs.nc")
    with xr.open_dataset(tmp_path / "obs.nc") as stored:
        again, first = operator(ds, stored), operator(ds, obs)
    for name in ("values", "error_std", "used", "latitude", "longitude", "time", "pressure"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    for name in ("indices", "indptr", "data"):
        np.testing.assert_array_equal(getattr(again.rows, name), getattr(first.rows, name))


def test_quantified_observations_give_quantified_equivalents():
    pytest.importorskip("pint_xarray")
    ds, obs = dataset(linear_field), points(10, units="degC")
    hx = operator(ds, obs.pint.quantify())(ds)
    assert str(hx.pint.units) == "degree_Celsius"
    np.testing.assert_array_equal(hx.pint.dequantify(), operator(ds, obs)(ds))


def test_the_page_is_aligned_and_escaped():
    ds = dataset(linear_field)
    H = operator(ds, {"a<b": points(1200), "s": points(3, level=False, units="degC")})
    lines = repr(H).splitlines()
    table = [line for line in lines if re.match(r"array|a<b |s  ", line)]
    column = table[0].index("quantity")
    assert {line[column - 1] for line in table[:3]} == {" "}
    assert table[1][column:].startswith("air_temperature")
    assert "linear: 2 arrays, 1\u202f203 observations, 1\u202f203 used (100 %)" in lines[0]
    assert "a&lt;b" in H._repr_html_()
    assert "<table>" in H._repr_html_()
