"""Grids of GRIB files serve as observations as they are."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xappa


def test_a_grid_of_a_grib_file(tmp_path) -> None:
    pytest.importorskip("cfgrib")
    eccodes = pytest.importorskip("eccodes")
    day = xappa.testing.weather(times=4, latitudes=11, longitudes=15, start="2020-01-01")
    latitude, longitude = np.array([58.0, 55.0, 52.0]), np.array([0.0, 2.0, 4.0])
    values = 280 + np.arange(9.0)
    message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    headers = {"shortName": "2t", "dataDate": 20200101, "dataTime": 600, "Ni": 3, "Nj": 3}
    headers |= {"latitudeOfFirstGridPointInDegrees": 58.0}
    headers |= {"latitudeOfLastGridPointInDegrees": 52.0}
    headers |= {"longitudeOfFirstGridPointInDegrees": 0.0}
    headers |= {"longitudeOfLastGridPointInDegrees": 4.0}
    headers |= {"iDirectionIncrementInDegrees": 2.0, "jDirectionIncrementInDegrees": 3.0}
    for key, value in headers.items():
        eccodes.codes_set(message, key, value)
    eccodes.codes_set_values(message, values)
    with open(tmp_path / "analysis.grib", "wb") as file:
        eccodes.codes_write(message, file)
    eccodes.codes_release(message)
    options = {"engine": "cfgrib", "backend_kwargs": {"indexpath": ""}}
    with xr.open_dataset(tmp_path / "analysis.grib", **options) as grid:
        operator = day.appa.operator(grid, error=0.5)
        (spec,) = operator.specs
        assert operator.n_used == 9
        assert spec.inputs[0].name == "t2m"
        np.testing.assert_allclose(spec.values, values, rtol=1e-6)
        equivalents = operator(day)["t2m"]
    expected = day.t2m.isel(time=1).interp(latitude=latitude, longitude=longitude)
    np.testing.assert_allclose(np.ravel(equivalents), np.ravel(expected), rtol=1e-5)
