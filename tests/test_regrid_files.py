"""Files of weights: round trips, the layouts of ESMF and xESMF, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
import xarray as xr
from test_regrid import COARSE, FINE, GAUSSIAN, INSIDE_UK, UK, _on
from test_regrid_targets import rotated, stations

from xappa.errors import ArgumentError, DataError, GridMismatchError
from xappa.grid import Grid
from xappa.regrid import Curvilinear, Places, Regridder, domain_of

OVER = Grid(np.arange(48.5, 60), np.arange(-12.5, 4))


def _some(source: Any, target: Any) -> Regridder:
    """Random weights between any domains; two rows in three are empty."""
    source, target = domain_of(source), domain_of(target)
    weights = scipy.sparse.random_array((target.size, source.size), density=0.02, rng=0).tolil()
    weights[::3] = 0
    return Regridder(weights.tocsr(), source, target, "some", partial=True)


# Round trips --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bilinear", "conservative"])
def test_weights_survive_netcdf(tmp_path: Path, method: str) -> None:
    regridder = Regridder.build(GAUSSIAN, FINE, method)
    path = regridder.save(tmp_path / "weights.nc")
    same = Regridder.open(path)
    assert same == regridder
    assert not same.partial
    assert set(xr.open_dataset(path).data_vars) == {"S", "row", "col"}


@pytest.mark.parametrize(
    "target",
    [
        rotated(),
        stations(),
        Places([1.0, np.nan], [2.0, np.nan]),
        Curvilinear([[1.0, 2.0]], [[3.0, 4.0]]),
        stations().assign_coords(
            time=("station", np.datetime64("2001-01-01", "ns") + np.arange(40)),
            lat=("station", stations()["lat"].values.astype(np.float32), {"units": "degrees"}),
            lat2=("station", np.arange(40) > 3),
        ),
        stations().drop_vars("station").rename(lat="y", lon="x"),
    ],
    ids=["curvilinear", "stations", "nowhere", "arrays", "labels", "names"],
)
def test_every_domain_survives_bit_for_bit(tmp_path: Path, target: Any) -> None:
    if "y" in getattr(target, "coords", ()):
        target["y"].attrs["standard_name"] = "latitude"
        target["x"].attrs["standard_name"] = "longitude"
    regridder = Regridder.build(FINE, target)
    same = Regridder.open(regridder.save(tmp_path / "weights.nc"))
    assert same == regridder
    field = _on(FINE, np.random.default_rng(0).standard_normal(FINE.shape))
    xr.testing.assert_identical(same(field), regridder(field))
    assert same(field).dtype == field.dtype
    backwards = _some(target, FINE)
    again = Regridder.open(backwards.save(tmp_path / "weights.nc"))
    assert again == backwards
    assert again.partial


# Other layouts ------------------------------------------------------------------------------------


def _entries(regridder: Regridder, unmapped: bool = False) -> xr.Dataset:
    """S, row and col as xESMF writes them, with its NaN for targets that nothing covers."""
    entries = regridder.weights.tocoo()
    row, col, value = entries.row + 1, entries.col + 1, entries.data
    if unmapped:
        empty = np.flatnonzero(np.diff(regridder.weights.indptr) == 0) + 1
        row, col = np.append(row, empty), np.append(col, np.ones_like(empty))
        value = np.append(value, np.full(empty.size, np.nan))
    return xr.Dataset({"S": ("n_s", value), "row": ("n_s", row), "col": ("n_s", col)})


@pytest.mark.parametrize("unmapped", [False, True])
@pytest.mark.parametrize("target", [OVER, rotated((6, 7), 8.0, 54.0), stations()])
def test_files_of_xesmf(tmp_path: Path, target: Any, unmapped: bool) -> None:
    regridder = Regridder.build(UK, target)
    path = tmp_path / "xesmf.nc"
    attrs = {"map_method": "Bilinear remapping"}
    _entries(regridder, unmapped).assign_attrs(attrs).to_netcdf(path)
    same = Regridder.open(path, UK, target)
    assert same.method == "Bilinear remapping"
    assert abs(same.weights - regridder.weights).max() == 0
    field = _on(UK, np.random.default_rng(0).standard_normal(UK.shape))
    xr.testing.assert_identical(same(field), regridder(field))
    with pytest.raises(ArgumentError, match=r"what its source is[\s\S]*source=ds"):
        Regridder.open(path)
    with pytest.raises(ArgumentError, match=r"what its target is[\s\S]*target=ds"):
        Regridder.open(path, source=UK)
    with pytest.raises(DataError, match="indices from 1 to 25"):
        Regridder.open(path, Grid(UK.latitude[:5], UK.longitude[:5]), target)


def test_esmf_gives_the_covered_part_and_empty_rows_are_missing(tmp_path: Path) -> None:
    ours = Regridder.build(UK, OVER, "conservative")
    _entries(ours, unmapped=True).to_netcdf(tmp_path / "esmf.nc")
    theirs = Regridder.open(tmp_path / "esmf.nc", UK, OVER)
    field = _on(UK, np.ones((1, 1)))
    out = theirs(field)
    np.testing.assert_array_equal(out.isnull(), ours.coverage == 0)
    np.testing.assert_allclose(out, np.where(ours.coverage > 0, ours.coverage, np.nan))
    # our own are stricter, and the mean of what is present is the same
    assert ours(field).isnull().sum() > out.isnull().sum()
    xr.testing.assert_identical(theirs(field, skipna=True), ours(field, skipna=True))
    assert theirs != ours
    assert theirs.operator()(torch.ones(UK.shape)).isnan().sum() == out.isnull().sum()


def _regrid_weight_gen(regridder: Regridder, units: str) -> xr.Dataset:
    """The layout of ESMF_RegridWeightGen: fastest dimension first, centres raveled."""
    ds = _entries(regridder)
    convert = np.deg2rad if units == "radians" else np.asarray
    for side, letter, domain in (
        ("src", "a", regridder.source),
        ("dst", "b", regridder.target),
    ):
        lat, lon = domain.latitude, domain.longitude
        if isinstance(domain, Grid):
            lat, lon = np.meshgrid(lat, lon, indexing="ij")
        n = f"n_{letter}"
        ds[f"yc_{letter}"] = (n, convert(lat.ravel()), {"units": units})
        ds[f"xc_{letter}"] = (n, convert(lon.ravel()), {"units": units})
        ds[f"{side}_grid_dims"] = (f"{side}_grid_rank", np.array(domain.shape[::-1], np.int32))
        ds[f"mask_{letter}"] = (n, np.ones(domain.size, np.int32))
    ds["frac_b"] = ("n_b", np.asarray(regridder.weights.sum(axis=1)))
    return ds.assign_attrs(map_method="Conservative remapping")


@pytest.mark.parametrize("units", ["degrees", "radians"])
@pytest.mark.parametrize(
    "ends",
    [(FINE, COARSE), (UK, rotated((6, 7), 8.0, 54.0)), (rotated(), UK), (stations(), stations(9))],
    ids=["grid-grid", "grid-curvilinear", "curvilinear-grid", "places-places"],
)
def test_files_of_esmf_regrid_weight_gen(tmp_path: Path, ends: Any, units: str) -> None:
    regridder = _some(*ends)
    path = tmp_path / "esmf.nc"
    _regrid_weight_gen(regridder, units).to_netcdf(path)
    same = Regridder.open(path)
    assert type(same.source) is type(regridder.source)
    assert type(same.target) is type(regridder.target)
    np.testing.assert_allclose(same.target.latitude, regridder.target.latitude, atol=1e-12)
    assert abs(same.weights - regridder.weights).max() == 0
    assert same.partial
    # with the labels of what is passed
    labelled = Regridder.open(path, *ends)
    assert labelled.target == domain_of(ends[1])
    assert labelled.source == domain_of(ends[0])


# Damage -------------------------------------------------------------------------------------------


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    path = Regridder.build(UK, INSIDE_UK).save(tmp_path / "weights.nc")
    good = xr.load_dataset(path)
    esmf = _regrid_weight_gen(Regridder.build(UK, INSIDE_UK), "degrees")
    with pytest.raises(FileNotFoundError, match=r"no file .*absent\.nc"):
        Regridder.open(tmp_path / "absent.nc")
    (tmp_path / "text.nc").write_text("not NetCDF")
    whole = path.read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[: len(whole) // 2])
    one = good["S"].copy()
    one[7] = np.inf
    scalar = ["dst_lat", "dst_lon"]
    broken = {
        "text.nc": (None, "a NetCDF file"),
        "cut.nc": (None, "a NetCDF file"),
        "a.nc": (good.drop_vars("S"), "no S"),
        "b.nc": (good.assign(col=good["col"] + 10**6), "indices from 1 to 1617"),
        "c.nc": (good.assign(S=good["S"] * np.nan), "finite weights"),
        "d.nc": (good.assign(S=one), "1 not finite"),
        "e.nc": (good.assign(row=good["row"] + 0.5), "indices from 1 to 330"),
        "f.nc": (good.assign(row=("other", good["row"].values[:5])), "another number of them"),
        "g.nc": (good.assign(S=good["S"].astype(str)), "weights along one dimension"),
        "h.nc": (good.drop_vars("dst_lat"), "only some of them"),
        "i.nc": (good.drop_vars(scalar).assign(dst_lat=1.0, dst_lon=2.0), "list of places"),
        "j.nc": (
            good.drop_vars(scalar).assign(dst_lat=("p", [95.0]), dst_lon=("p", [0.0])),
            "beyond the poles",
        ),
        "k.nc": (esmf.assign(dst_grid_dims=("r", [3, 5])), "as many centres"),
        "l.nc": (esmf.assign(yc_b=esmf["yc_b"] * 10), "degrees or radians"),
        "m.nc": (esmf.drop_vars("xc_a"), "only some of them"),
    }
    for name, (ds, match) in broken.items():
        if ds is not None:
            ds.to_netcdf(tmp_path / name)
        with pytest.raises(DataError, match=match):
            Regridder.open(tmp_path / name)


def test_files_that_contradict_what_is_passed(tmp_path: Path) -> None:
    path = Regridder.build(UK, stations()).save(tmp_path / "weights.nc")
    moved = stations().assign_coords(lon=stations()["lon"] + 1)
    with pytest.raises(GridMismatchError, match="weights are for another target"):
        Regridder.open(path, target=moved)
    with pytest.raises(GridMismatchError, match="weights are for another source"):
        Regridder.open(path, source=FINE)
    # single precision is no contradiction, and labels are those that are passed
    named = stations().assign_coords(name=("station", ["same"] * 40))
    named["lon"] = named["lon"].astype(np.float32)
    assert Regridder.open(path, target=named).target == domain_of(named)
