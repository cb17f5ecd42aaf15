"""Curvilinear grids and places: values, labels, xESMF's part."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pytest
import scipy.sparse
import xarray as xr
from test_regrid import FINE, GAUSSIAN, GLOBAL, UK, _dataset, _global, _on

from xappa.errors import (
    ArgumentError,
    CoordinateError,
    DataError,
    GridMismatchError,
    MissingDependencyError,
    XappaWarning,
)
from xappa.grid import Grid
from xappa.regrid import Curvilinear, Places, Regridder, agree, domain_of
from xappa.testing import raise_if_dask_computes


def cartesian(lat: Any, lon: Any, vector: tuple[float, ...] = (0.3, -0.5, 0.8)) -> np.ndarray:
    """A field that is linear in x, y and z; the wind of a solid-body rotation is one."""
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    return np.asarray(vector[0] * x + vector[1] * y + vector[2] * z)


def rotated(n: tuple[int, int] = (12, 15), size: float = 20.0, lat0: float = 80.0) -> xr.Dataset:
    """A curvilinear grid around a place, by default one that holds the pole and the seam."""
    y, x = np.meshgrid(*(np.deg2rad(np.linspace(-size, size, k)) for k in n), indexing="ij")
    a = np.deg2rad(90.0 - lat0)
    p = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])
    # from the equator to lat0
    c, s = np.sin(a), np.cos(a)
    lat = np.rad2deg(np.arcsin(np.clip(s * p[0] + c * p[2], -1, 1)))
    lon = np.rad2deg(np.arctan2(p[1], c * p[0] - s * p[2]))
    return xr.Dataset(
        coords={
            "nav_lat": (("y", "x"), lat, {"standard_name": "latitude", "long_name": "rows"}),
            "nav_lon": (("y", "x"), lon, {"standard_name": "longitude"}),
            "x": ("x", np.arange(n[1]) * 2.0),
            "area": (("x", "y"), np.ones(n[::-1])),
            "height": 2.0,
        }
    )


def stations(n: int = 40, seed: int = 0) -> xr.Dataset:
    """Places all over the globe, the poles and both sides of the seam among them."""
    rng = np.random.default_rng(seed)
    lat, lon = np.rad2deg(np.arcsin(rng.uniform(-1, 1, n))), rng.uniform(-180, 360, n)
    lat[:4], lon[:6] = (90, -90, 89.9, -89.9), (0, 77, -3, 359.999, -0.001, 180)
    coords = {"lat": ("station", lat), "lon": ("station", lon)}
    names = [f"station {k}" for k in range(n)]
    return xr.Dataset(coords=coords | {"name": ("station", names), "station": np.arange(n) + 5})


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [*GLOBAL, _global(4.0, west=-180.0)], ids=repr)
def test_constants_at_poles_and_seams(source: Grid) -> None:
    for target in (rotated(), stations()):
        regridder = Regridder.build(source, target)
        assert regridder.covered.all()
        np.testing.assert_allclose(regridder.coverage, 1.0, atol=1e-12)
        np.testing.assert_allclose(regridder(_on(source, np.full((1, 1), 3.7))), 3.7, rtol=1e-12)


def test_linear_in_space_converges() -> None:
    for target in (rotated(), stations(400)):
        where = domain_of(target)
        truth = cartesian(where.latitude, where.longitude)
        errors = []
        for spacing in (6.0, 3.0, 1.5):
            source = _global(spacing, west=-180.0)
            field = cartesian(*np.meshgrid(source.latitude, source.longitude, indexing="ij"))
            out = Regridder.build(source, target)(_on(source, field)).values
            errors.append(np.abs(out - truth).max())
        # half a spacing of 6 degrees squared, halved: 1.4e-3 of a field of amplitude one
        assert errors[0] < 3e-3
        assert np.log2(errors[0] / errors[-1]) / 2 > 1.8


def test_targets_agree_with_one_another() -> None:
    field = np.random.default_rng(0).standard_normal(FINE.shape)
    whole = Regridder.build(FINE, GAUSSIAN)(_on(FINE, field)).values
    lat, lon = np.meshgrid(GAUSSIAN.latitude, GAUSSIAN.longitude - 360, indexing="ij")
    as_2d = Regridder.build(FINE, Curvilinear(lat, lon))(_on(FINE, field)).values
    as_1d = Regridder.build(FINE, Places(lat.ravel(), lon.ravel()))(_on(FINE, field)).values
    np.testing.assert_allclose(as_2d, whole, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(as_1d, as_2d.ravel())


def test_beyond_a_region_and_nowhere() -> None:
    places = Places([54.0, 49.9, 54.0, np.nan, 50.0], [-4.0, -4.0, 2.1, 0.0, 350.0])
    regridder = Regridder.build(UK, places)
    out = regridder(_on(UK, np.ones((1, 1))))
    assert out.isnull().values.tolist() == [False, True, True, True, False]
    np.testing.assert_array_equal(regridder.covered, out.notnull())
    assert "40 % of the target covered" in repr(regridder)


# Labels -------------------------------------------------------------------------------------------


def test_a_curvilinear_target_brings_its_coordinates() -> None:
    target = rotated(lat0=54.0, size=3.0)
    before = target.copy(deep=True)
    with pytest.warns(XappaWarning, match="left out: flag"):
        out = Regridder.build(UK, target)(_dataset())
    xr.testing.assert_identical(target, before)
    assert out["t2m"].dims == ("y", "time", "x")
    assert out["t2m"].dtype == np.float32
    assert out["t2m"].attrs == {"units": "K"}
    assert list(out.data_vars) == ["t2m", "lsm", "index"]
    assert set(out.coords) == {"time", "nav_lat", "nav_lon", "x", "area", "orography", "height"}
    for name in ("nav_lat", "nav_lon", "x", "area"):
        xr.testing.assert_identical(out[name].variable, target[name].variable)
    assert out.attrs == {"title": "test"}


def test_places_bring_their_names() -> None:
    target = stations()
    da = _on(FINE, np.random.default_rng(0).standard_normal((3, *FINE.shape)), "t", units="K")
    out = Regridder.build(FINE, target)(da.transpose("lat", "time", "lon"))
    assert out.dims == ("station", "time")
    assert out.name == "t"
    assert set(out.coords) == {"lat", "lon", "name", "station"}
    assert out.sel(station=7)["name"] == "station 2"
    assert Regridder.build(FINE, target["name"])(da).dims == ("time", "station")
    plain = Regridder.build(FINE, Places(target["lat"].values, target["lon"].values))(da)
    assert plain.dims == ("time", "points")
    np.testing.assert_array_equal(plain.values, out.transpose("time", ...).values)
    stacked = da.isel(time=0).stack(point=("lat", "lon"))[:50]
    both = Regridder.build(FINE, stacked)(da.isel(time=0))
    np.testing.assert_allclose(both, stacked, rtol=1e-12)


def test_the_objects_own_coordinates_come_first() -> None:
    target = stations().assign_coords(time=("station", np.arange(40.0)))
    with pytest.warns(XappaWarning, match="the object's own are kept, not the target's: time"):
        out = Regridder.build(UK, target)(_dataset().drop_vars("flag"))
    assert out["time"].dims == ("time",)
    with pytest.raises(DataError, match="dimension of the target already"):
        Regridder.build(UK, stations().rename(station="time"))(_dataset().drop_vars("flag"))


@pytest.mark.parametrize("target", [rotated(), stations()], ids=["curvilinear", "places"])
def test_dask_stays_lazy(target: xr.Dataset) -> None:
    rng = np.random.default_rng(3)
    da = _on(FINE, rng.standard_normal((4, *FINE.shape)).astype(np.float32), "t", units="K")
    ds = da.assign_coords(time=np.arange(4)).to_dataset()
    regridder = Regridder.build(FINE, target)
    chunked = ds.chunk(time=1, lat=20)
    with raise_if_dask_computes():
        lazy = regridder(chunked)
        assert lazy["t"].chunks[0] == (1, 1, 1, 1)
        assert lazy["t"].data._meta.dtype == np.float32
    xr.testing.assert_identical(lazy.compute(), regridder(ds))
    assert dask.base.tokenize(lazy) == dask.base.tokenize(regridder(chunked))
    same = pickle.loads(pickle.dumps(regridder))
    assert same == regridder
    assert dask.base.tokenize(same) == dask.base.tokenize(regridder)


# Sources ------------------------------------------------------------------------------------------


def _mean_of(source: Any, target: Any) -> Regridder:
    weights = np.full((target.size, source.size), 1 / source.size)
    return Regridder(weights, source, target, "mean")


def test_from_a_curvilinear_grid() -> None:
    ds = rotated((4, 5))
    ds["t"] = (("time", "x", "y"), np.random.default_rng(0).standard_normal((2, 5, 4)))
    ds["t"].attrs = {"units": "K", "grid_mapping": "crs"}
    ds["lon_bnds"] = (("y", "x", "nv"), np.zeros((4, 5, 4)))
    ds["nav_lon"].attrs["bounds"] = "lon_bnds"
    regridder = _mean_of(domain_of(ds), Grid([0.0, 1.0], [0.0, 1.0, 2.0]))
    out = regridder(ds)
    assert out["t"].dims == ("time", "nav_lon", "nav_lat")
    assert out["t"].attrs == {"units": "K"}
    assert set(out.variables) == {"t", "nav_lat", "nav_lon", "area", "height"}
    np.testing.assert_allclose(out["t"].isel(time=0), ds["t"].isel(time=0).mean(), rtol=1e-12)
    xr.testing.assert_allclose(regridder(ds.transpose()).transpose(*out.dims, ...), out)
    assert regridder(ds.isel(time=0)).t.dims == ("nav_lon", "nav_lat")
    with pytest.raises(GridMismatchError, match="not on the grid"):
        regridder(ds.assign_coords(nav_lat=ds["nav_lat"] - 1))
    with pytest.raises(GridMismatchError, match="not on the grid"):
        regridder(_dataset())


def test_from_places() -> None:
    ds = stations(6)
    ds["t"] = (("time", "station"), np.arange(12.0).reshape(2, 6))
    onto = _mean_of(domain_of(ds), Grid([0.0, 1.0], [0.0, 1.0, 2.0]))(ds)
    assert onto["t"].dims == ("time", "lat", "lon")
    assert set(onto.coords) == {"lat", "lon"}
    np.testing.assert_allclose(onto["t"].isel(time=1), 8.5)
    among = _mean_of(domain_of(ds), domain_of(stations(7)))(ds["t"].T)
    assert among.dims == ("station", "time")
    assert among["name"].values[:2].tolist() == ["station 0", "station 1"]


# Domains ------------------------------------------------------------------------------------------


def test_domains_are_values() -> None:
    a, b = domain_of(stations()), domain_of(stations())
    assert a == b
    assert hash(a) == hash(b)
    assert a != domain_of(stations().assign_coords(name=("station", ["x"] * 40)))
    assert a != domain_of(rotated())
    assert a != "places"
    assert domain_of(a) is a
    assert repr(a).startswith("Places 40, -90 to 90 degrees north")
    assert repr(Places([np.nan], [0.0])) == "Places 1, nowhere"
    with pytest.raises(ValueError, match="read-only"):
        a.latitude[0] = 1.0


def test_domains_agree_to_rounding() -> None:
    ds = rotated()
    turned = ds.assign_coords(nav_lon=(ds["nav_lon"] % 360).astype(np.float32))
    assert agree(domain_of(ds), domain_of(turned))
    assert not agree(domain_of(ds), domain_of(ds.assign_coords(nav_lat=ds["nav_lat"] - 0.01)))
    # a meridian means nothing at the pole, and what is nowhere must be nowhere in both
    assert agree(Places([90.0, np.nan], [0.0, 0.0]), Places([90.0, np.nan], [50.0, 3.0]))
    assert not agree(Places([np.nan], [0.0]), Places([0.0], [0.0]))
    assert not agree(Places([0.0], [0.0]), Curvilinear([[0.0]], [[0.0]]))
    assert not agree(domain_of(stations(6)), domain_of(stations(7)))


def test_domains_that_are_none() -> None:
    with pytest.raises(CoordinateError, match="no coordinates of Places"):
        Places([1.0, 2.0], [1.0])
    with pytest.raises(CoordinateError, match="no coordinates of Curvilinear"):
        Curvilinear([1.0], [1.0])
    with pytest.raises(CoordinateError, match="beyond the poles"):
        Places([91.0], [1.0])
    ds = xr.Dataset(coords={"lat": (("y", "x"), np.zeros((2, 2))), "lon": ("x", np.zeros(2))})
    with pytest.raises(CoordinateError, match="not rectilinear"):
        domain_of(ds)
    with pytest.raises(CoordinateError, match="no coordinate for latitude"):
        Regridder.build(UK, xr.Dataset({"a": 1}))


# xESMF --------------------------------------------------------------------------------------------


def test_what_is_not_built_in_names_the_remedy() -> None:
    for source, target, method in (
        (UK, rotated(), "conservative"),
        (UK, stations(), "conservative"),
        (rotated(), UK, "bilinear"),
        (stations(), UK, "bilinear"),
    ):
        with pytest.raises(ArgumentError, match=rf"xesmf:{method}.*weight file") as caught:
            Regridder.build(source, target, method)
        assert "no built-in" in caught.value.what
    for method in ("patch", "nearest_s2d"):
        with pytest.raises(ArgumentError, match=r"'xesmf:<method>'[\s\S]*weight files"):
            Regridder.build(UK, stations(), method)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a stub of xESMF is asked for; its weights are means."""
    out: dict[str, Any] = {}

    def stub(source: xr.Dataset, target: xr.Dataset, method: str, **kwargs: Any) -> Any:
        out.update(kwargs, method=method, source=source, target=target)
        sizes = [np.broadcast_shapes(ds["lat"].shape, ds["lat"].shape) for ds in (target, source)]
        for k, ds in enumerate((target, source)):
            if ds["lat"].dims != ds["lon"].dims:
                sizes[k] = (ds["lat"].size, ds["lon"].size)
        n, m = (int(np.prod(size)) for size in sizes)
        matrix = scipy.sparse.coo_matrix(np.full((n, m), 1 / m))
        data = SimpleNamespace(to_scipy_sparse=lambda: matrix)
        return SimpleNamespace(weights=SimpleNamespace(data=data))

    monkeypatch.setitem(sys.modules, "xesmf", SimpleNamespace(Regridder=stub))
    return out


def test_xesmf_gets_what_it_wants(asked: dict[str, Any]) -> None:
    regridder = Regridder.build(FINE, stations(), "xesmf:patch")
    assert asked["periodic"]
    assert asked["locstream_out"]
    assert not asked["locstream_in"]
    assert not asked["unmapped_to_nan"]
    assert asked["target"]["lat"].dims == asked["target"]["lon"].dims
    assert regridder.method == "xesmf:patch"
    assert regridder(_on(FINE, np.ones((1, 1)))).dims == ("station",)
    out = Regridder.build(rotated(), UK, "xesmf:bilinear")
    assert not asked["periodic"]
    assert not asked["locstream_out"]
    assert asked["source"]["lat"].dims == ("y", "x")
    assert asked["target"]["lat_b"].size == 34
    assert out.source == domain_of(rotated())
    lat, lon = np.meshgrid(np.arange(-60.0, 61, 20), np.arange(0.0, 360, 30), indexing="ij")
    Regridder.build(Curvilinear(lat, lon), UK, "xesmf:bilinear")
    assert asked["periodic"]
    Regridder.build(Curvilinear(lat[:, :2], lon[:, :2]), UK, "xesmf:bilinear")
    assert not asked["periodic"]


def test_xesmf_needs_corners_to_conserve(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = rotated()
    with pytest.raises(CoordinateError, match=r"corners of curvilinear cells[\s\S]*\(13, 16\)"):
        Regridder.build(UK, target, "xesmf:conservative")
    corners = {n: (("yb", "xb"), np.zeros((13, 16))) for n in ("lat_b", "lon_b")}
    Regridder.build(UK, target.assign_coords(corners), "xesmf:conservative_normed")
    assert asked["target"]["lat_b"].shape == (13, 16)
    monkeypatch.setitem(sys.modules, "xesmf", None)
    with pytest.raises(MissingDependencyError, match=r"xappa\[xesmf\]"):
        Regridder.build(UK, target, "xesmf:patch")
