"""Units: affine maps, differences, spellings, quantified objects."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xappa.errors import UnitsError
from xappa.units import (
    compatible,
    convert,
    dequantify,
    factor_offset,
    is_quantified,
    quantified_units,
    requantify_like,
    same,
)


@pytest.mark.parametrize(
    ("source", "target", "factor", "offset"),
    [
        ("K", "K", 1.0, 0.0),
        ("degC", "K", 1.0, 273.15),
        ("degrees_celsius", "K", 1.0, 273.15),
        ("K", "degC", 1.0, -273.15),
        ("degC", "degF", 1.8, 32.0),
        ("millibars", "Pa", 100.0, 0.0),
        ("hPa", "Pa", 100.0, 0.0),
        ("mb", "hPa", 1.0, 0.0),
        ("m**2 s**-2", "m2 s-2", 1.0, 0.0),
        ("kg kg**-1", "1", 1.0, 0.0),
        ("g/kg", "kg kg-1", 1e-3, 0.0),
        ("1e-3 kg kg-1", "g kg-1", 1.0, 0.0),
        ("(0 - 1)", "%", 100.0, 0.0),
        ("%", "1", 0.01, 0.0),
        ("octas", "1", 0.125, 0.0),
        ("1", "octas", 8.0, 0.0),
        ("mm/day", "m s-1", 1e-3 / 86400, 0.0),
        ("knots", "m s-1", 1852 / 3600, 0.0),
        ("gpm", "m", 1.0, 0.0),
        ("W m**-2", "W m-2", 1.0, 0.0),
        ("J m**-2", "W s m-2", 1.0, 0.0),
        ("degrees_north", "degree", 1.0, 0.0),
    ],
)
def test_affine_maps(source: str, target: str, factor: float, offset: float) -> None:
    # pint divides by base units, so that the last digits may differ
    np.testing.assert_allclose(factor_offset(source, target), (factor, offset), rtol=1e-12)


def test_an_error_has_no_offset() -> None:
    assert convert(1.5, "degC", "K", difference=True) == 1.5
    assert convert(9.0, "degF", "K", difference=True) == pytest.approx(5.0)
    assert convert(20.0, "degC", "K") == pytest.approx(293.15)


@given(
    st.floats(-1e6, 1e6),
    st.sampled_from([("degC", "degF"), ("hPa", "Pa"), ("m s-1", "knots"), ("K", "degC")]),
)
def test_there_and_back(value: float, units: tuple[str, str]) -> None:
    back = convert(convert(value, *units), *units[::-1])
    assert back == pytest.approx(value, rel=1e-12, abs=1e-9)


def test_dtype_is_kept_and_nothing_is_copied_without_need() -> None:
    values = np.array([1.0, 2.0], dtype=np.float32)
    assert convert(values, "degC", "K").dtype == np.float32
    assert convert(values, "kg kg**-1", "1") is values
    assert convert(values, "no such unit", "no such unit") is values


def test_dask_stays_lazy() -> None:
    dask_array = pytest.importorskip("dask.array")
    from xarray.tests import raise_if_dask_computes

    lazy = dask_array.ones((4,), chunks=2)
    with raise_if_dask_computes():
        out = convert(lazy, "degC", "K")
    assert out.chunks == lazy.chunks
    np.testing.assert_array_equal(out.compute(), 274.15)


@pytest.mark.parametrize(
    ("source", "target", "match"),
    [
        ("K", "m", "cannot be converted"),
        ("", "K", "units are missing"),
        (None, "K", "units are missing"),
        ("K", " ", "units are missing"),
        ("flurbs", "K", "cannot be read"),
    ],
)
def test_errors_say_where(source: str, target: str, match: str) -> None:
    with pytest.raises(UnitsError, match=match) as caught:
        convert(1.0, source, target, where="t2m")
    assert caught.value.where == "t2m"
    assert caught.value.remedy
    assert not compatible(source, target)
    assert not same(source, target)


def test_same_and_compatible() -> None:
    assert same("m**2 s**-2", "m2 s-2")
    assert compatible("degC", "K")
    assert not same("degC", "K")


def _dataset() -> xr.Dataset:
    return xr.Dataset(
        {
            "t": ("x", np.arange(3.0), {"units": "K", "long_name": "temperature"}),
            "plain": ("x", np.arange(3.0)),
        },
        coords={"x": ("x", [10.0, 20.0, 30.0], {"units": "m"})},
    )


def test_quantified_objects_come_back_quantified() -> None:
    pytest.importorskip("pint_xarray")
    import cf_xarray.units  # noqa: F401  # its registry becomes pint's own
    import pint_xarray  # noqa: F401

    quantified = _dataset().pint.quantify()
    assert is_quantified(quantified)
    assert is_quantified(quantified["t"])
    assert not is_quantified(_dataset())
    plain = dequantify(quantified)
    xr.testing.assert_equal(plain, _dataset())
    assert plain["t"].attrs == {"units": "K", "long_name": "temperature"}
    assert plain["x"].attrs == {"units": "m"}
    again = requantify_like(plain, quantified)
    assert quantified_units(again) == quantified_units(quantified)
    assert "units" not in again["t"].attrs
    assert plain["t"].attrs["units"] == "K", "the input is not changed"
    assert dequantify(plain) is plain
    array = requantify_like(dequantify(quantified["t"]), quantified["t"])
    assert quantified_units(array) == quantified_units(quantified["t"])


def test_quantified_dask_stays_lazy() -> None:
    pytest.importorskip("pint_xarray")
    pytest.importorskip("dask")
    import cf_xarray.units  # noqa: F401
    import pint_xarray  # noqa: F401
    from xarray.tests import raise_if_dask_computes

    with raise_if_dask_computes():
        quantified = _dataset().chunk(x=1).pint.quantify()
        plain = dequantify(quantified)
        again = requantify_like(plain, quantified)
    assert plain["t"].chunks is not None
    assert again["t"].pint.dequantify().chunks is not None


def test_importing_units_leaves_pint_out() -> None:
    code = "import sys, xappa.units, xappa.cf, xappa.grid, xappa.bridge;" + (
        "print([m for m in ('pint', 'torch', 'cf_xarray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # xappa itself registers the accessor, which may not import them either
    assert done.stdout.strip() == "[]"
