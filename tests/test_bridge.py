"""The bridge: description of states, the handshake, packing and unpacking."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xappa.bridge import Layout, StateSpec, VariableSpec, describe, pack, unpack
from xappa.errors import (
    ArgumentError,
    CoordinateError,
    GridMismatchError,
    ObservationTypeError,
    TimeStepError,
    UnitsError,
    VariableMismatchError,
)

DATA = Path(
    os.environ.get("XAPPA_DATA_DIR", Path(__file__).resolve().parents[2] / "shared" / "data")
)
SAMPLES = (
    "era5-2mt-2019-03-uk.grib",
    "era5-levels-members.grib",
    "eraint_uvz.nc",
    "era5_tl31_19590102T00.nc",
)
pytestmark = pytest.mark.filterwarnings("ignore::xarray.SerializationWarning")


OPENED: list[xr.Dataset] = []


@pytest.fixture(autouse=True)
def close_files() -> Iterator[None]:
    """Close what a test opened: files closed by the garbage collector warn anywhere."""
    yield
    while OPENED:
        OPENED.pop().close()


def open_sample(name: str, **kwargs: Any) -> xr.Dataset:
    """Open one of the shared files, or skip."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is absent; set XAPPA_DATA_DIR")
    if path.suffix == ".grib":
        pytest.importorskip("cfgrib")
        kwargs |= {"engine": "cfgrib", "backend_kwargs": {"indexpath": ""}}
    OPENED.append(xr.open_dataset(path, **kwargs))
    return OPENED[-1]


def make(
    *,
    n_time: int = 3,
    members: int | None = None,
    calendar: str = "proleptic_gregorian",
    dtype: str = "float32",
) -> xr.Dataset:
    """Return a global Dataset with a variable on levels and one near the ground."""
    rng = np.random.default_rng(0)
    coords = {
        "time": (
            "time",
            xr.date_range("2001-01-01", periods=n_time, freq="6h", calendar=calendar).values,
            {"standard_name": "time"},
        ),
        "level": ("level", [850.0, 500.0], {"units": "hPa", "standard_name": "air_pressure"}),
        "lat": ("lat", np.linspace(80, -80, 9), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(0, 360, 30.0), {"units": "degrees_east"}),
    }
    lead = {} if members is None else {"member": members}
    shape = (*lead.values(), n_time, 2, 9, 12)
    flat = (*lead.values(), n_time, 9, 12)
    return xr.Dataset(
        {
            "t": ((*lead, "time", "level", "lat", "lon"), rng.standard_normal(shape).astype(dtype)),
            "t2m": ((*lead, "time", "lat", "lon"), rng.standard_normal(flat).astype(dtype)),
        },
        coords=coords,
        attrs={"title": "made up"},
    ).pipe(_with_attrs)


def _with_attrs(ds: xr.Dataset) -> xr.Dataset:
    ds["t"].attrs = {"standard_name": "air_temperature", "units": "K"}
    ds["t2m"].attrs = {"standard_name": "air_temperature", "units": "K", "long_name": "2 m"}
    return ds


def assert_same_labels(out: xr.Dataset, ds: xr.Dataset) -> None:
    """Check values bit for bit, dimension order, coordinates and dtype."""
    assert list(out.data_vars) == list(ds.data_vars)
    assert set(out.variables) == set(ds.variables)
    for name in ds.variables:
        assert out[name].dims == ds[name].dims, name
        assert out[name].dtype == ds[name].dtype, name
        np.testing.assert_array_equal(out[name].values, ds[name].values, strict=True)
    for name in ds.coords:
        assert out[name].attrs == ds[name].attrs, name
    assert list(out.xindexes) == list(ds.xindexes)


# --- description


def test_describe() -> None:
    spec, axes = describe(make())
    assert spec.variables == (
        VariableSpec("t", "air_temperature", None, "K", (85000.0, 50000.0)),
        VariableSpec("t2m", "air_temperature", 2.0, "K", None),
    )
    assert spec.n_channels == 3
    assert spec.shape == (3, 9, 12)
    assert spec.channel_labels == ("t@85000", "t@50000", "t2m")
    assert spec.channels[1] == (spec.variables[0], 50000.0)
    assert spec.slice_of("t") == slice(0, 2)
    assert spec.slice_of("t2m") == slice(2, 3)
    assert spec.variable("t2m").height == 2.0
    assert (spec.time_step, spec.calendar) == (21600.0, "proleptic_gregorian")
    assert axes.time == "time"
    with pytest.raises(VariableMismatchError, match="no such variable"):
        spec.slice_of("q")


def test_specification_survives_json_and_pickle() -> None:
    spec, _ = describe(make())
    assert StateSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert hash(spec) == hash(describe(make())[0])


def test_what_is_left_out() -> None:
    ds = make()
    ds["mask"] = (("lat", "lon"), np.zeros((9, 12)))
    ds["count"] = ds["t2m"].astype(int)
    ds["mean"] = ("time", np.zeros(3))
    ds["soil"] = (("time", "depth", "lat", "lon"), np.zeros((3, 2, 9, 12)))
    assert [v.name for v in describe(ds)[0].variables] == ["t", "t2m"]
    assert [v.name for v in describe(ds, variables=["t2m"])[0].variables] == ["t2m"]
    with pytest.raises(VariableMismatchError, match="'soil' cannot be part of the state"):
        describe(ds, variables=["soil"])
    with pytest.raises(ExceptionGroup, match=r"(?s)'soil'.*'nonsense'"):
        describe(ds, variables=["soil", "nonsense"])
    with pytest.raises(VariableMismatchError, match="no variable that can be part"):
        describe(ds[["count", "mean"]])


def test_a_named_array_is_a_dataset() -> None:
    assert describe(make()["t2m"])[0].variables[0].name == "t2m"
    with pytest.raises(ObservationTypeError, match="must be an xarray Dataset"):
        describe(np.zeros((2, 2)))  # type: ignore[arg-type]


def test_missing_units_are_guessed_and_said() -> None:
    ds = make()
    del ds["t2m"].attrs["units"]
    spec, axes = describe(ds)
    assert spec.variable("t2m").units == "K"
    assert any("t2m: no units" in guess for guess in axes.guesses)


@pytest.mark.parametrize(
    ("times", "step"),
    [
        (["2001-01-01", "2001-01-02", "2001-01-05"], 86400.0),
        (["2001-01-01", "2001-01-03"], 172800.0),
    ],
)
def test_time_step_with_gaps(times: list[str], step: float) -> None:
    ds = make(n_time=len(times)).assign_coords(time=pd.to_datetime(times))
    assert describe(ds)[0].time_step == step


def test_steps_of_toy_models() -> None:
    ds = make(n_time=3)
    ds = ds.assign_coords(time=np.datetime64("2001") + np.arange(3) * np.timedelta64(50, "ms"))
    spec, _ = describe(ds)
    assert spec.time_step == pytest.approx(0.05, rel=1e-4)
    assert Layout.of(ds, spec).n_times == 3


def test_dimensions_need_not_bear_the_name_of_their_coordinate() -> None:
    ds = make().swap_dims(lat="y", lon="x", level="z")
    spec, _ = describe(ds)
    assert spec == describe(make())[0]
    layout = Layout.of(ds, spec)
    assert_same_labels(unpack(pack(ds, spec, layout), layout), ds)


def test_a_time_dimension_without_coordinate_is_named() -> None:
    with pytest.raises(VariableMismatchError, match="time without coordinate"):
        describe(make().drop_vars("time"))


def test_irregular_times_have_no_step() -> None:
    times = pd.to_datetime(["2001-01-01T00", "2001-01-01T06", "2001-01-01T13"])
    spec, axes = describe(make().assign_coords(time=times))
    assert spec.time_step is None
    assert any("no regular step" in guess for guess in axes.guesses)


def test_missing_times() -> None:
    ds = make().assign_coords(time=np.array(["2001", "NaT", "2003"], dtype="datetime64[ns]"))
    with pytest.raises(CoordinateError, match="valid times are missing"):
        describe(ds)


# --- round trips


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("chunks", [None, {}])
def test_real_files_come_back(name: str, chunks: dict[str, int] | None) -> None:
    if chunks is not None:
        pytest.importorskip("dask")
    ds = open_sample(name, chunks=chunks)
    before = ds.copy()
    spec, _ = describe(ds)
    layout = Layout.of(ds, spec)
    assert layout.is_full_grid
    packed = pack(ds, spec, layout)
    assert packed.dims[-4:] == ("time", "channel", "latitude", "longitude")
    assert packed.shape[-4:] == (layout.n_times, *spec.shape)
    out = unpack(packed, layout, history="xappa")
    assert_same_labels(out, ds)
    for variable in out.variables.values():
        assert "scale_factor" not in variable.encoding
        assert "source" not in variable.encoding
    attrs = [*out.attrs, *(key for v in out.data_vars.values() for key in v.attrs)]
    assert not [key for key in attrs if str(key).startswith("GRIB_")]
    assert out.attrs["history"].endswith("xappa")
    for data_name, da in out.data_vars.items():
        assert da.attrs["standard_name"] not in ("", "unknown"), data_name
        assert da.attrs["units"] == ds[data_name].attrs["units"]
    assert ds.identical(before)


def test_what_the_files_hold() -> None:
    spec, _ = describe(open_sample(SAMPLES[0]))
    assert spec.variables == (VariableSpec("t2m", "air_temperature", 2.0, "K", None),)
    assert (spec.time_step, spec.grid.shape) == (3600.0, (33, 49))
    spec, axes = describe(open_sample(SAMPLES[1]))
    assert axes.member == "number"
    assert spec.channel_labels == ("z@85000", "z@50000", "t@85000", "t@50000")
    spec, _ = describe(open_sample(SAMPLES[2]))
    assert (spec.n_channels, spec.calendar, spec.time_step) == (9, "noleap", 182.5 * 86400)
    spec, _ = describe(open_sample(SAMPLES[3]))
    assert (spec.n_channels, spec.time_step) == (2 + 7 * 37, None)
    assert spec.variable("sea_ice_cover").units == "(0 - 1)"
    assert spec.variable("sea_surface_temperature").levels is None


@pytest.mark.parametrize("name", SAMPLES)
def test_real_files_survive_netcdf(name: str, tmp_path: Path) -> None:
    ds = open_sample(name)
    ds = ds.isel(time=slice(0, 3)) if "time" in ds.dims else ds
    spec, _ = describe(ds)
    out = unpack(pack(ds, spec), Layout.of(ds, spec))
    out.to_netcdf(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as back:
        xr.testing.assert_equal(back.load(), out)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(["member", "time", "level", "lat", "lon"]),
    flip=st.booleans(),
    west=st.booleans(),
    pa=st.booleans(),
    levels=st.permutations([0, 1]),
    calendar=st.sampled_from(["proleptic_gregorian", "noleap", "360_day"]),
    dtype=st.sampled_from(["float32", "float64"]),
    rows=st.integers(1, 9),
    columns=st.integers(1, 12),
    start=st.integers(0, 11),
)
def test_any_orientation(
    order: list[str],
    flip: bool,
    west: bool,
    pa: bool,
    levels: list[int],
    calendar: str,
    dtype: str,
    rows: int,
    columns: int,
    start: int,
) -> None:
    whole = make(members=2, calendar=calendar, dtype=dtype)
    spec, _ = describe(whole)
    ds = whole.transpose(*order).isel(level=levels, lat=slice(9 - rows, None))
    ds = ds.roll(lon=-start, roll_coords=True).isel(lon=slice(0, columns))
    if flip:
        ds = ds.isel(lat=slice(None, None, -1))
    if west:
        lon = ds["lon"]
        ds = ds.assign_coords(lon=((lon + 180) % 360 - 180).assign_attrs(lon.attrs))
    if pa:
        ds = ds.assign_coords(level=("level", ds["level"].values * 100, {"units": "Pa"}))
    layout = Layout.of(ds, spec)
    packed = pack(ds, spec, layout)
    # what is covered equals the packed whole, the rest is missing
    reference = pack(whole, spec)
    covered = np.zeros(spec.grid.shape, dtype=bool)
    covered[np.ix_(layout.rows, layout.columns)] = True
    assert packed.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(packed.values, np.where(covered, reference, np.nan))
    assert_same_labels(unpack(packed, layout), ds)


def test_packing_follows_the_channels() -> None:
    ds = make()
    packed = pack(ds, describe(ds)[0])
    assert packed["channel"].values.tolist() == ["t@85000", "t@50000", "t2m"]
    np.testing.assert_array_equal(packed.sel(channel="t@50000"), ds["t"].sel(level=500))
    np.testing.assert_array_equal(packed.sel(channel="t2m"), ds["t2m"])
    np.testing.assert_array_equal(packed["time"].values, ds["time"].values)


def test_units_are_those_of_the_state() -> None:
    ds = make(dtype="float64")
    spec, _ = describe(ds)
    celsius = ds.copy()
    celsius["t2m"] = (ds["t2m"] - 273.15).assign_attrs(ds["t2m"].attrs, units="degC")
    layout = Layout.of(celsius, spec)
    packed = pack(celsius, spec, layout)
    np.testing.assert_allclose(packed.sel(channel="t2m"), ds["t2m"], atol=1e-10)
    out = unpack(packed, layout)
    np.testing.assert_allclose(out["t2m"], celsius["t2m"], atol=1e-10)
    assert out["t2m"].attrs["units"] == "degC"


def test_extra_levels_and_variables_are_left_out() -> None:
    ds = make()
    spec, _ = describe(ds.sel(level=[500.0]))
    ds["q"] = ds["t"].assign_attrs(standard_name="specific_humidity", units="1")
    layout = Layout.of(ds, spec)
    out = unpack(pack(ds, spec, layout), layout)
    assert out["level"].values.tolist() == [500.0]
    assert list(out.data_vars) == ["t", "t2m"]
    np.testing.assert_array_equal(out["t"], ds["t"].sel(level=[500.0]))


def test_variables_on_different_levels() -> None:
    ds = make()
    spec, _ = describe(ds)
    few = VariableSpec("q", "specific_humidity", None, "1", (50000.0,))
    spec = StateSpec((*spec.variables, few), spec.grid, spec.time_step, spec.calendar)
    ds["q"] = ds["t"].assign_attrs(standard_name="specific_humidity", units="1")
    layout = Layout.of(ds, spec)
    out = unpack(pack(ds, spec, layout), layout)
    assert out["q"].dims == ds["q"].dims
    assert out["q"].sel(level=850).isnull().all()
    np.testing.assert_array_equal(out["q"].sel(level=500), ds["q"].sel(level=500))
    np.testing.assert_array_equal(out["t"], ds["t"])


@pytest.mark.parametrize("chunks", [None, 1])
def test_scalar_and_length_one_coordinates(chunks: int | None) -> None:
    if chunks is not None:
        pytest.importorskip("dask")
    ds = make().isel(time=0).sel(level=500).expand_dims("height", axis=1)
    ds = ds.assign_coords(height=("height", [2.0], {"standard_name": "height", "units": "m"}))
    ds["sp"] = ds["t2m"].assign_attrs(standard_name="surface_air_pressure", units="Pa")
    if chunks is not None:
        ds = ds.chunk(lat=3)
    spec, _ = describe(ds[["t2m", "sp"]])
    assert [v.levels for v in spec.variables] == [None, None]
    layout = Layout.of(ds, spec)
    assert_same_labels(unpack(pack(ds, spec, layout), layout), ds[["t2m", "sp"]])


def test_bounds_come_along_and_other_dimensions_do_not() -> None:
    ds = make()
    ds["time"].attrs["bounds"] = "time_bnds"
    ds["time_bnds"] = (("time", "bnds"), np.zeros((3, 2)))
    ds = ds.assign_coords(depth=("depth", [1.0, 2.0]))
    layout = Layout.of(ds, describe(ds)[0])
    out = unpack(pack(ds, layout.spec), layout)
    assert "time_bnds" in out
    assert "depth" not in out.coords


def test_a_field_without_time_is_spread_over_time_when_asked_for() -> None:
    ds = make()
    ds["orog"] = (("lon", "lat"), np.ones((12, 9)), {"units": "m"})
    spec, _ = describe(ds, variables=["t2m", "orog"])
    layout = Layout.of(ds, spec)
    packed = pack(ds, spec, layout)
    assert packed.shape == (3, 2, 9, 12)
    assert unpack(packed, layout)["orog"].dims == ("time", "lon", "lat")


# --- members, history, new times


def test_new_members_come_first() -> None:
    ds = make()
    spec, _ = describe(ds)
    layout = Layout.of(ds, spec)
    packed = pack(ds, spec, layout)
    many = xr.concat([packed, packed + 1], dim="member")
    out = unpack(many, layout, history="sampled")
    assert out["t"].dims == ("member", *ds["t"].dims)
    assert out["member"].attrs["standard_name"] == "realization"
    assert out["member"].values.tolist() == [0, 1]
    assert out.attrs == {"title": "made up", "history": "sampled"}
    xr.testing.assert_equal(out["t"].isel(member=0, drop=True), ds["t"])
    assert "k" in unpack(many, layout, member_dim="k")["t"].dims
    with_scalar = ds.assign_coords(number=((), 0, {"standard_name": "realization"}))
    scalar = Layout.of(with_scalar, spec)
    assert "number" in unpack(packed, scalar).coords
    assert "number" not in unpack(many, scalar).coords


def test_own_members_keep_name_and_place() -> None:
    ds = make(members=2).rename(member="number").transpose("time", "number", ...)
    ds = ds.assign_coords(number=("number", [5, 7], {"standard_name": "realization", "units": "1"}))
    spec, _ = describe(ds)
    layout = Layout.of(ds, spec)
    packed = pack(ds, spec, layout)
    assert packed.dims[0] == "member"
    assert packed["member"].values.tolist() == [5, 7]
    assert_same_labels(unpack(packed, layout), ds)
    more = xr.concat([packed, packed], dim="member")
    out = unpack(more, layout)
    assert out["number"].values.tolist() == [0, 1, 2, 3]
    assert out["number"].attrs == ds["number"].attrs
    mean = unpack(packed.mean("member"), layout)
    assert "number" not in mean.dims
    assert mean["t"].dims == ("time", "level", "lat", "lon")


def test_layout_at_other_times() -> None:
    ds = make()
    spec, _ = describe(ds)
    layout = Layout.of(ds, spec)
    assert layout.times is not None
    later = layout.with_times(layout.times[-1] + 21600.0 * np.arange(1, 6))
    packed = xr.DataArray(np.zeros((5, *spec.shape)), dims=("time", *pack(ds, spec).dims[1:]))
    out = unpack(packed, later)
    assert out["t"].dims == ds["t"].dims
    assert out["time"].dtype == ds["time"].dtype
    assert out["time"].attrs == {"standard_name": "time", "long_name": "valid time"}
    assert out["time"].values[0] == np.datetime64("2001-01-01T18", "ns")
    assert out["t"].dtype == ds["t"].dtype


def test_new_times_of_cfgrib_and_of_a_scalar_time() -> None:
    ds = open_sample(SAMPLES[1])
    layout = Layout.of(ds, describe(ds)[0])
    out = unpack(pack(ds, layout.spec, layout), layout.with_times(np.arange(4) * 43200.0))
    assert out["z"].dims == ds["z"].dims
    assert out["time"].attrs["standard_name"] == "time"
    assert "step" not in out.coords
    np.testing.assert_array_equal(out["valid_time"], out["time"])  # beside the index, as before
    state = open_sample(SAMPLES[3])
    layout = Layout.of(state, describe(state)[0]).with_times([0.0, 21600.0])
    packed = xr.DataArray(
        np.zeros((2, *layout.spec.shape), dtype=np.float32),
        dims=("time", "channel", "latitude", "longitude"),
    )
    assert unpack(packed, layout)["temperature"].dims == ("time", "level", "longitude", "latitude")


def test_shapes_are_checked() -> None:
    ds = make()
    spec, _ = describe(ds)
    layout = Layout.of(ds, spec)
    packed = pack(ds, spec, layout)
    with pytest.raises(ArgumentError, match="do not have the shape"):
        unpack(packed.isel(time=slice(0, 2)), layout)


# --- the handshake


def test_by_standard_name_and_height_first() -> None:
    ds = make()
    spec, _ = describe(ds)
    other = ds.rename(t="ta", t2m="tas")
    assert Layout.of(other, spec).names == {"t": "ta", "t2m": "tas"}
    anonymous = ds.copy()
    anonymous["t2m"].attrs = {"units": "K"}
    assert Layout.of(anonymous, spec).names == {"t": "t", "t2m": "t2m"}
    unnamed_height = ds.rename(t2m="surface_temp")
    layout = Layout.of(unnamed_height, spec)
    assert layout.names["t2m"] == "surface_temp"
    assert any("surface_temp" in guess for guess in layout.guesses)
    # the state of another quantity is not taken for its name
    wrong = ds.copy()
    wrong["t"].attrs["standard_name"] = "specific_humidity"
    wrong["t"].attrs["units"] = "1"
    with pytest.raises(VariableMismatchError, match="'t' of the state is not in the Dataset"):
        Layout.of(wrong, spec)


def test_unrecognised_variables_match_by_name() -> None:
    ds = make()[["t2m"]].rename(t2m="x")
    ds["x"].attrs = {}
    spec, axes = describe(ds)
    assert spec.variables == (VariableSpec("x", None, None, "1", None),)
    assert any("x: no units" in guess for guess in axes.guesses)
    assert Layout.of(ds, spec).names == {"x": "x"}
    with pytest.raises(VariableMismatchError, match="not in the Dataset"):
        Layout.of(ds.rename(x="y"), spec)


def test_problems_of_the_handshake() -> None:
    ds = make()
    spec, _ = describe(ds)
    with pytest.raises(VariableMismatchError, match="'t' of the state is not in the Dataset"):
        Layout.of(ds[["t2m"]], spec)
    with pytest.raises(VariableMismatchError, match="levels of 't' are missing"):
        Layout.of(ds.sel(level=[500.0]), spec)
    with pytest.raises(GridMismatchError, match="grids do not fit"):
        Layout.of(ds.isel(lon=slice(None, None, 2)), spec)
    with pytest.raises(TimeStepError, match=r"(?s)6 hours.*12 hours"):
        Layout.of(ds.isel(time=[0, 2]), spec)
    assert Layout.of(ds.isel(time=[0, 2]), spec, gaps=True).n_times == 2
    with pytest.raises(TimeStepError, match="time axis"):
        Layout.of(ds.isel(time=[1, 0]), spec, gaps=True)
    metres = ds.copy()
    metres["t2m"].attrs["units"] = "m"
    metres["t2m"].attrs["standard_name"] = "air_temperature"
    metres = metres.assign_coords(height=((), 2.0, {"standard_name": "height", "units": "m"}))
    with pytest.raises(UnitsError, match="cannot be converted"):
        Layout.of(metres, spec)


def test_all_problems_are_listed() -> None:
    ds = make()
    spec, _ = describe(ds)
    bad = ds[["t2m"]].isel(lat=slice(None, None, 2), time=[0, 2])
    with pytest.raises(ExceptionGroup, match=r"(?s)does not fit.*grids.*'t'.*time step") as caught:
        Layout.of(bad, spec)
    assert len(caught.value.exceptions) == 3


def test_cftime_window_of_a_gregorian_model() -> None:
    spec, _ = describe(make())
    layout = Layout.of(make(calendar="noleap"), spec)
    assert layout.calendar == "noleap"
    out = layout.with_times([0.0])
    assert isinstance(out.template["time"].values[0], cftime.DatetimeNoLeap)


# --- laziness, pint, pickle


@pytest.mark.parametrize("regional", [False, True])
def test_dask_is_not_computed(regional: bool) -> None:
    pytest.importorskip("dask")
    from xarray.tests import raise_if_dask_computes

    whole = make(members=2)
    spec, _ = describe(whole)
    ds = whole.isel(lat=slice(6, 2, -1), lon=[10, 11, 0, 1]) if regional else whole
    lazy = ds.chunk(time=1, member=1, lat=2)
    celsius = lazy.assign(t2m=(lazy["t2m"] - 273.15).assign_attrs(ds["t2m"].attrs, units="degC"))
    with raise_if_dask_computes():
        assert describe(lazy)[0].variables == spec.variables
        layout = Layout.of(lazy, spec)
        packed = pack(lazy, spec, layout)
        out = unpack(packed, layout)
        unpack(pack(celsius, spec), Layout.of(celsius, spec))
    assert packed.chunks is not None
    assert packed.chunksizes["time"] == (1, 1, 1)
    assert packed.chunksizes["member"] == (1, 1)
    assert packed.data._meta.dtype == packed.dtype
    assert_same_labels(out, ds)


def test_quantified_in_quantified_out() -> None:
    pytest.importorskip("pint_xarray")
    import cf_xarray.units  # noqa: F401
    import pint_xarray  # noqa: F401

    ds = make()
    spec, _ = describe(ds)
    quantified = ds.pint.quantify()
    assert describe(quantified)[0] == spec
    layout = Layout.of(quantified, spec)
    packed = pack(quantified, spec, layout)
    np.testing.assert_array_equal(packed, pack(ds, spec))
    out = unpack(packed, layout)
    for name in ("t", "t2m", "lat", "level"):
        assert out[name].pint.units == quantified[name].pint.units
    assert out["t"].pint.units is not None
    assert_same_labels(out.pint.dequantify(format="cf"), ds)
    assert "units" in ds["t"].attrs


def test_layouts_pickle_and_are_small() -> None:
    layout = Layout.of(make(members=2), describe(make())[0])
    data = pickle.dumps(layout)
    assert len(data) < 20_000
    again = pickle.loads(data)
    assert again.fields == layout.fields
    xr.testing.assert_identical(again.template, layout.template)


def test_encodings_and_ranges_are_dropped() -> None:
    ds = make()
    ds["t"].encoding = {"scale_factor": 0.1, "dtype": "int16", "chunksizes": (1, 1, 1, 1)}
    ds["t"].attrs |= {"GRIB_paramId": 130, "valid_range": [0, 1], "actual_range": [0, 1]}
    ds["time"].encoding = {"units": "hours since 2000-01-01", "calendar": "standard", "zlib": True}
    layout = Layout.of(ds, describe(ds)[0])
    out = unpack(pack(ds, layout.spec), layout)
    assert out["t"].encoding == {}
    assert out["t"].attrs == {"standard_name": "air_temperature", "units": "K"}
    assert out["time"].encoding == {"units": "hours since 2000-01-01", "calendar": "standard"}
    assert "scale_factor" in ds["t"].encoding
    assert "GRIB_paramId" in ds["t"].attrs
