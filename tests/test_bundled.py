"""What comes with xappa: a model, states of a year that it did not learn from, and a network."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xappa

ROOT = Path(xappa.__file__).parent
LARGEST = 15e6


@pytest.fixture(scope="module")
def model() -> xappa.models.base.Model:
    return xappa.open_model("speedy-t31")


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return xappa.tutorial.open_dataset("speedy-t31").rename(level="pressure").load()


@pytest.fixture(scope="module")
def network() -> xr.Dataset:
    return xappa.tutorial.open_dataset("speedy-t31-network").load()


def test_it_is_small_in_a_wheel(tmp_path) -> None:
    files = [p for folder in ("models/bundled", "samples") for p in (ROOT / folder).rglob("*.*")]
    assert {p.name for p in files} >= {
        "model.json",
        "weights.safetensors",
        "speedy-t31.nc",
        "speedy-t31-network.nc",
    }
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path)
    assert (tmp_path / "wheel.zip").stat().st_size <= LARGEST


def test_the_model_says_what_it_is(model) -> None:
    assert model.name == "speedy-t31"
    assert model.spec.grid.shape == (48, 96)
    assert model.spec.n_channels == 28
    assert model.spec.time_step == 6 * 3600
    assert model.blanket == 8
    assert model.provenance["period"] == ["2001-01-01T00:00", "2010-12-31T18:00"]
    assert "speedy-t31" in xappa.models.catalogue.catalogue()


def test_the_sample_is_labelled(truth, network) -> None:
    assert dict(truth.sizes) == {"time": 12, "pressure": 5, "latitude": 48, "longitude": 96}
    for name in ("u", "v", "t", "q", "z", "sp", "msl", "pr", "orog", "lsm"):
        assert truth[name].attrs["standard_name"], name
        assert bool(truth[name].notnull().all()), name
    assert network.sizes["station"] == 200
    assert "guess" not in repr(truth.appa).lower()


def test_states_of_another_year_are_encoded(model, truth) -> None:
    """What the autoencoder loses is what the model says that it loses."""
    again = truth.appa.encode(model).appa.decode(model)
    own = model.normalisation
    for variable in model.spec.variables:
        channels = model.spec.slice_of(variable.name)
        lost = float(xappa.verify.rmse(again[variable.name], truth[variable.name]))
        said, std = (np.sqrt(np.mean(a[channels] ** 2)) for a in (own.reconstruction, own.std))
        assert 0.7 * said < lost < 1.3 * said, variable.name
        assert said < 0.4 * std, variable.name


def test_observations_draw_the_analysis(model, truth, network) -> None:
    obs = truth.isel(time=slice(8)).appa.observe(network, seed=0)
    window = model.template(truth.time[0], truth.time[7])
    analysis = window.appa.assimilate(
        obs, model, members=1, seed=0, sampler=xappa.Sampler("ddim", 6), progress=False
    )
    for name in ("u", "t", "z", "sp"):
        channels = model.spec.slice_of(name)
        std = np.sqrt(np.mean(np.square(model.normalisation.std[channels])))
        assert float(xappa.verify.rmse(analysis[name], truth[name])) < 0.7 * std, name


def test_it_is_found_by_what_fits(truth, network) -> None:
    _, how = xappa.models.catalogue.resolve(None, truth)
    assert how == "only model of the catalogue that fits"


def test_nothing_is_downloaded() -> None:
    code = (
        "import socket\n"
        "def refuse(*_): raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        "import xappa\n"
        "print(xappa.open_model('speedy-t31').name, "
        "len(xappa.tutorial.open_dataset('speedy-t31').time))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["speedy-t31", "12"]
