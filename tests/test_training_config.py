"""Settings: presets, TOML files, the command line, and what cannot be."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import xarray as xr
from training import TINY

import xappa
from xappa.__main__ import main
from xappa.errors import ArgumentError, DataError
from xappa.models.appa.era5 import ERA5_STATE, era5_spec
from xappa.nn.autoencoder import ConvAutoencoder
from xappa.nn.transformer import LatentTransformer
from xappa.training import AppaTraining
from xappa.training.autoencoder import autoencoder_config
from xappa.training.denoiser import transformer_config
from xappa.training.job import Job, settings_of


def sizes(config: AppaTraining, shape=(721, 1440), channels=71) -> tuple[int, int]:
    """Trained parameters of the autoencoder and of the denoiser."""
    encoder = autoencoder_config(era5_spec(shape, ERA5_STATE[channels], 3600.0), config)
    with torch.device("meta"):
        parts = ConvAutoencoder(encoder), LatentTransformer(transformer_config(encoder, config))
    first, second = (sum(p.numel() for p in part.parameters()) for part in parts)
    return first, second


def test_presets_grow() -> None:
    # As the published models' own code counts them.
    assert sizes(AppaTraining.preset("appa")) == (313_174_727, 222_951_552)
    counts = [sum(sizes(AppaTraining.preset(name))) for name in ("tiny", "small", "base", "appa")]
    assert counts == sorted(counts)
    assert counts[0] < 4e6 < counts[1] < 3e7 < counts[2] < 3e8
    assert list(AppaTraining.presets) == ["tiny", "small", "base", "appa"]
    assert settings_of("tiny", AppaTraining) == AppaTraining() == settings_of(None, AppaTraining)


def test_a_preset_trains_by_its_name() -> None:
    few = AppaTraining.preset("small", autoencoder_steps=1, denoiser_steps=1, batch=2)
    weather = xappa.testing.weather(times=40, latitudes=16, longitudes=16)
    model = xappa.train(weather, few, name="small", progress=False)
    assert model.blanket == 12
    assert model.provenance["hid_channels"] == (48, 96, 128, 160)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: AppaTraining.preset("smal"), r"preset 'smal' is not known[\s\S]*write 'small'"),
        (lambda: AppaTraining.preset("tiny", denoser_steps=3), "write 'denoiser_steps'"),
        (lambda: xappa.train(None, "huge"), r"one of tiny, small, base, appa"),
        (lambda: xappa.train(None, 3), r"config is no configuration[\s\S]*got: int"),
        (lambda: AppaTraining.preset("tiny", zzz=3), "leave it out"),
    ],
)
def test_names_that_are_not_known(make, match) -> None:
    with pytest.raises(ArgumentError, match=match):
        make()


@pytest.mark.parametrize(
    "change",
    [
        {"optimiser": "lion"},
        {"decay": "step"},
        {"precision": "fp8"},
        {"climatology": "hour"},
        {"level_weights": "height"},
        {"variable_weights": {"t2m": -1.0}},
        {"saturation": "hard"},
        {"schedule": ("rectified",)},
        {"clip": -1.0},
        {"weight_decay": -0.1},
        {"warmup": 2.0},
        {"ema": 1.0},
        {"accumulate": 3},
        {"pool": (4,)},
        {"window": (3, 0, 3)},
        {"mod_features": 0},
        {"memory": -1.0},
        {"prefetch": 0},
        {"checkpoint_every": -1},
        {"compile": 1},
    ],
)
def test_settings_that_cannot_be(change) -> None:
    with pytest.raises(ArgumentError, match=f"bad {next(iter(change))}"):
        replace(TINY, **change)


TOML = """
preset = "tiny"
seed = 4

[data]
path = "weather.zarr"
variables = ["t2m"]
period = ["2001-01-01", "2001-01-10"]
validation = ["2001-01-11", "2001-01-15"]

[training]
"""


def written(folder, text: str = TOML):
    settings = asdict(TINY)
    usual = asdict(AppaTraining())
    for name, value in settings.items():
        if value != usual[name]:
            text += f"{name} = {list(value) if isinstance(value, tuple) else value}\n"
    path = folder / "uk.toml"
    path.write_text(text)
    return path


def test_a_file_says_it_all(tmp_path) -> None:
    job = Job.read(written(tmp_path))
    assert job.config == TINY
    assert (job.name, job.seed, job.variables) == ("uk", 4, ["t2m"])
    assert job.path == tmp_path / "weather.zarr"
    path = tmp_path / "uk.toml"
    assert settings_of(str(path), AppaTraining) == settings_of(path, AppaTraining) == TINY


@pytest.mark.parametrize("kind", ["zarr", "nc"])
def test_training_from_the_command_line(kind, tmp_path, capsys, monkeypatch) -> None:
    weather = xappa.testing.weather(times=70)
    weather["other"] = 2 * weather.t2m
    if kind == "zarr":
        weather.chunk(time=7).to_zarr(tmp_path / "weather.zarr")
        path = written(tmp_path)
    else:
        for part in (slice(0, 30), slice(30, 70)):
            weather.isel(time=part).to_netcdf(tmp_path / f"weather-{part.start:02d}.nc")
        path = written(tmp_path, TOML.replace("weather.zarr", "weather-*.nc"))
    monkeypatch.chdir(tmp_path)
    with xappa.set_options(progress=False):
        assert main(["train", str(path)]) == 0
        assert "AppaModel 'uk'" in capsys.readouterr().out
        first = xappa.open_model(tmp_path / "uk" / "model")
        assert main(["train", str(path), "--resume", "--output", str(tmp_path / "uk")]) == 0
        assert xappa.open_model(tmp_path / "uk" / "model").hash == first.hash
    assert first.provenance["period"] == ["2001-01-01T00:00", "2001-01-10T18:00"]
    assert first.provenance["states"] == 60
    assert first.provenance["seed"] == 4
    direct = xappa.train(
        weather[["t2m"]].sel(time=slice("2001-01-01", "2001-01-10")),
        TINY,
        seed=4,
        validation=weather[["t2m"]].sel(time=slice("2001-01-11", "2001-01-15")),
        progress=False,
    )
    np.testing.assert_array_equal(direct.normalisation.mean, first.normalisation.mean)
    assert direct.hash == first.hash
    # Another seed does not go on with what is there, unless it may be replaced.
    path.write_text(path.read_text().replace("seed = 4", "seed = 5"))
    with xappa.set_options(progress=False):
        assert main(["train", str(path)]) == 2
        assert "--restart" in capsys.readouterr().err
        assert main(["train", str(path), "--restart"]) == 0
    assert xappa.open_model(tmp_path / "uk" / "model").hash != first.hash


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[training]\nchanels = 3", r"'chanels' is not known[\s\S]*write 'channels'"),
        ("[trainig]\nchannels = 3", "write 'training'"),
        ("[data]\nperiode = []", "write 'period'"),
        ("[data]\nperiod = ['2001']", "data.period is not what it must be"),
        ("data = 3", "data is not what it must be"),
        ("name = 3", "name is not what it must be"),
        ("[data]\npath = 3", "data.path is not what it must be"),
        ("[data]\nlevels = 500", "data.levels is not what it must be"),
        ("[data]\nlevels = ['500']", "data.levels is not what it must be"),
        ("preset = 'big'", "preset 'big' is not known"),
        ("[training]\nbatch = 0", "bad batch"),
        ("[training", "cannot be read"),
    ],
)
def test_files_that_say_what_is_not_known(text, match, tmp_path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ArgumentError, match=match):
        Job.read(tmp_path / "bad.toml")


def test_a_file_chooses_levels(tmp_path) -> None:
    weather = xappa.testing.weather(times=4).t2m.rename("t")
    levels = [850.0, 500.0, 250.0]
    upper = xr.concat([weather] * 3, xr.Variable("level", levels, {"units": "hPa"}))
    upper.level.attrs["standard_name"] = "air_pressure"
    upper.to_dataset().to_netcdf(tmp_path / "upper.nc")
    (tmp_path / "a.toml").write_text("[data]\npath = 'upper.nc'\nlevels = [250, 850]")
    ds, _ = Job.read(tmp_path / "a.toml").open()
    assert ds.level.values.tolist() == [250.0, 850.0]
    (tmp_path / "a.toml").write_text("[data]\npath = 'upper.nc'\nlevels = [25000, 850]")
    with pytest.raises(DataError, match=r"some of 850, 500, 250[\s\S]*got: 25000"):
        Job.read(tmp_path / "a.toml").open()


def test_files_without_data(tmp_path, capsys) -> None:
    with pytest.raises(ArgumentError, match="cannot be read"):
        Job.read(tmp_path / "absent.toml")
    with pytest.raises(DataError, match="names no data"):
        Job("empty", TINY).open()
    (tmp_path / "a.toml").write_text("[data]\npath = 'absent.nc'")
    assert main(["train", str(tmp_path / "a.toml")]) == 2
    assert "relative to the configuration" in capsys.readouterr().err
    still = xappa.testing.weather(times=2).isel(time=0, drop=True)
    still.to_netcdf(tmp_path / "absent.nc")
    (tmp_path / "a.toml").write_text("[data]\npath = 'absent.nc'\nperiod = ['2001', '2002']")
    assert main(["train", str(tmp_path / "a.toml")]) == 2
    assert "a period needs a time axis" in capsys.readouterr().err


def test_periods_are_those_of_valid_times(tmp_path) -> None:
    """cfgrib's valid times lie along a dimension of another name, and are not its index."""
    ds = xappa.testing.weather(times=12).rename(time="step")
    valid = ds.step.variable.to_base_variable()
    ds = ds.assign_coords(valid_time=valid, step=np.arange(12))
    ds.step.attrs = {}
    ds.to_netcdf(tmp_path / "a.nc")
    first, last = (str(valid.values[k])[:16] for k in (3, 7))
    job = Job("cut", TINY, path=tmp_path / "a.nc", period=(first, last))
    cut, _ = job.open()
    np.testing.assert_array_equal(cut.valid_time, valid.values[3:8])
