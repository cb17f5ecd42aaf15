"""ESMF's own weights and fields: read, and compared with what is built in.

The files lie in the folder that ``XAPPA_ESMF_FIXTURES`` names; all of its ``CASE__METHOD.nc`` are
run, and what a case is follows from the shapes of its coordinates.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from xappa.grid import Grid
from xappa.regrid import Domain, Regridder
from xappa.regrid.domains import points_of

_ESMF = Path(
    os.environ.get(
        "XAPPA_ESMF_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures" / "esmf"
    )
)
_FILES = sorted(_ESMF.glob("*__*.nc"))
_NO_FILES = pytest.param(
    None, marks=pytest.mark.skip(f"no ESMF weights in {_ESMF}: set XAPPA_ESMF_FIXTURES")
)
pytestmark = pytest.mark.esmf
each_file = pytest.mark.parametrize("path", _FILES or [_NO_FILES], ids=lambda p: p and p.stem)


def _on(domain: Domain, values: np.ndarray) -> xr.DataArray:
    if isinstance(domain, Grid):
        coords = {"lat": domain.latitude, "lon": domain.longitude}
        return xr.DataArray(values, coords, ("lat", "lon"))
    return xr.DataArray(values, domain.labels.coords, domain.dims)


def _method(path: Path, ds: xr.Dataset) -> str:
    return str(ds.attrs.get("method", path.stem.rpartition("__")[2]))


@each_file
def test_weight_files_of_esmf(path: Path) -> None:
    ds = xr.load_dataset(path)
    regridder = Regridder.open(path)
    field, expected = ds["source_field"].values, ds["regridded"].values
    da = _on(regridder.source, field)
    # the products are the same, their sums in another order
    atol = 1e-12 * float(np.nanmax(np.abs(field)))
    out = regridder(da)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=0, atol=atol)
    lazy = regridder(da.expand_dims(time=2).chunk(time=1))
    np.testing.assert_array_equal(lazy.isel(time=1), out)


@each_file
def test_weight_files_of_esmf_as_operators(path: Path) -> None:
    torch = pytest.importorskip("torch")
    ds = xr.load_dataset(path)
    out = Regridder.open(path).operator()(torch.from_numpy(ds["source_field"].values))
    atol = 1e-12 * float(np.nanmax(np.abs(ds["source_field"])))
    np.testing.assert_allclose(out, ds["regridded"], rtol=0, atol=atol)


@each_file
def test_weight_files_without_grids(path: Path, tmp_path: Path) -> None:
    whole = Regridder.open(path)
    xr.load_dataset(path)[["S", "row", "col"]].to_netcdf(tmp_path / "bare.nc")
    assert Regridder.open(tmp_path / "bare.nc", whole.source, whole.target).weights.nnz == (
        whole.weights.nnz
    )


@each_file
def test_weights_of_esmf_survive_our_files(path: Path, tmp_path: Path) -> None:
    regridder = Regridder.open(path)
    assert Regridder.open(regridder.save(tmp_path / "again.nc")) == regridder


def _built_in(path: Path) -> tuple[xr.Dataset, Regridder, Regridder]:
    """Return the case, ESMF's weights, and ours (with the covered part of each target)."""
    ds = xr.load_dataset(path)
    theirs = Regridder.open(path)
    method = _method(path, ds)
    curved = not isinstance(theirs.target, Grid)
    if method not in ("bilinear", "conservative") or (method == "conservative" and curved):
        pytest.skip(f"{method} to {type(theirs.target).__name__} is not built in")
    if not isinstance(theirs.source, Grid):
        pytest.skip(f"from {type(theirs.source).__name__} is not built in")
    ours = Regridder.build(theirs.source, theirs.target, method)
    return ds, theirs, ours


@each_file
def test_built_in_weights_agree_with_esmf(path: Path) -> None:
    ds, theirs, ours = _built_in(path)
    field = _on(ours.source, ds["source_field"].values)
    # the mean of the covered part: at the edge of a region great circles cut cells off
    both = (theirs.coverage > 0.99) & ours.covered
    expected = ds["regridded"].values / np.where(both, theirs.coverage, 1.0)
    out = replace(ours, partial=True)(field).values
    # ESMF interpolates along straight lines in space, and bounds cells by great circles: on grids
    # as coarse as these that is about 1e-3 of the field's range
    scale = float(np.ptp(field.values))
    if both.any():
        assert np.abs(out - expected)[both].max() < 5e-3 * scale
    np.testing.assert_allclose(ours.coverage[ours.covered], 1.0, atol=1e-12)
    np.testing.assert_array_equal(ours(field).isnull(), ~ours.covered)


@each_file
def test_built_in_weights_cover_what_esmf_covers(path: Path) -> None:
    ds, theirs, ours = _built_in(path)
    source = ours.source
    assert isinstance(source, Grid)
    if _method(path, ds) == "conservative":
        # what lies between a chord of a parallel and its arc, as a share of a target's cell
        wide = [np.deg2rad(np.diff(g.unwrapped_longitude).max()) for g in (source, ours.target)]
        cut = max(wide) ** 2 / 16 / np.deg2rad(np.abs(np.diff(ours.target.latitude)).min())
        np.testing.assert_allclose(ours.coverage, theirs.coverage, rtol=0, atol=1e-3 + 2 * cut)
        return
    differ = ours.covered != np.isfinite(ds["regridded"].values)
    lat, lon = points_of(ours.target)
    near = np.zeros(lat.size, bool)
    edges = [(lat - edge, source.latitude) for edge in source.latitude[[0, -1]]]
    if source.is_periodic and not source.is_global:
        # ESMF puts a pole at the end of any periodic grid; between far rows we do not
        near |= (lat > source.latitude.max()) | (lat < source.latitude.min())
    if not source.is_periodic:
        east = source.unwrapped_longitude
        edges += [((lon - edge + 180) % 360 - 180, east) for edge in east[[0, -1]]]
    for apart, axis in edges:
        near |= np.abs(apart) < 0.02 * np.abs(np.diff(axis)).max()
    assert not np.any(differ.ravel() & ~near)


@each_file
def test_conservative_weights_conserve(path: Path) -> None:
    ds, _, ours = _built_in(path)
    if ours.method != "conservative":
        pytest.skip("bilinear weights do not conserve")
    source, target = ours.source, ours.target
    assert isinstance(source, Grid)
    assert isinstance(target, Grid)
    if not (source.is_global and target.is_global):
        pytest.skip("not global")
    field = ds["source_field"].values
    out = ours(_on(source, field)).values
    before = np.average(field, weights=source.area_weights())
    after = np.average(out, weights=target.area_weights())
    assert abs(after - before) < 1e-10 * np.abs(field).max()
