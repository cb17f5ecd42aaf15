"""Trainings that go on from a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from training import TINY, log, weights

import xappa
from xappa.__main__ import main
from xappa.errors import ArgumentError, BundleError, DataError, HandshakeError
from xappa.training.job import said_in, settings_of
from xappa.training.loop import _Trainer
from xappa.training.optimisers import averaged
from xappa.training.start import Start

BASE = replace(TINY, modes=4)
#: The denoiser alone goes on, the decoder alone, and both stages.
DENOISER = replace(TINY, autoencoder_steps=0)
DECODER = replace(TINY, denoiser_steps=0)
GOES_ON = {"denoiser": DENOISER, "decoder": DECODER, "both": TINY}
ENCODERS = ("autoencoder.down", "autoencoder.encoder", "autoencoder.to_latent")


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=60)


@pytest.fixture(scope="module")
def model(weather):
    return xappa.train(weather, BASE, seed=5, name="base", progress=False)


@pytest.fixture(scope="module")
def further(weather, model, tmp_path_factory):
    """Trainings that nobody interrupts, by what goes on, and their folders."""
    found = {}
    for name, config in GOES_ON.items():
        folder = tmp_path_factory.mktemp("further")
        trained = xappa.train(weather, config, start=model, seed=5, folder=folder, progress=False)
        found[name] = trained, folder
    return found


def differing(a, b) -> set[str]:
    """Names of the arrays in which two models differ."""
    ours, theirs = weights(a), weights(b)
    assert list(ours) == list(theirs)
    return {name for name in ours if not np.array_equal(ours[name], theirs[name])}


def test_the_denoiser_alone_goes_on(model, further) -> None:
    found, folder = further["denoiser"]
    changed = differing(found, model)
    assert changed
    # The patterns of the Gaussian are those that the latents were standardised for.
    assert all(name.startswith("denoiser.") and "gaussian" not in name for name in changed)
    assert not (folder / "autoencoder.pt").exists()


def test_the_decoder_alone_goes_on(model, weather, further) -> None:
    found, _ = further["decoder"]
    changed = differing(found, model) - {"reconstruction_std"}
    assert changed
    assert all(name.startswith("autoencoder.") for name in changed)
    assert not any(name.startswith(ENCODERS) for name in changed)
    z, same = (weather.appa.encode(m).latent.values for m in (model, found))
    np.testing.assert_array_equal(same, z)


def test_latents_that_change_are_standardised_anew(model, weather, further) -> None:
    found, _ = further["both"]
    changed = differing(found, model)
    assert {"latent_mean", "latent_std", "denoiser.gaussian.patterns"} <= changed
    assert not changed & {"state_mean", "state_std"}
    z = weather.isel(time=slice(54)).appa.encode(found).latent.values.reshape(-1, 2)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    noise = found.autoencoder.config.latent_noise / found.normalisation.latent_std
    np.testing.assert_allclose(z.var(0) + noise**2, 1, atol=0.01)


@pytest.mark.parametrize("what", GOES_ON)
def test_it_begins_where_the_model_ended(model, further, what) -> None:
    """Step 0 of the log repeats what the model reached, on the same states with the same noise."""
    found, folder = further[what]
    scored = {f"reconstruction/{k}": v for k, v in model.scores["reconstruction"].items()}
    stage = {"autoencoder": scored}
    if what != "both":  # else latents are others
        scored = {f"denoising/{k}": v for k, v in model.scores["denoising"].items()}
        stage["denoiser"] = scored
    for name, scores in stage.items():
        assert scores
        for key, value in scores.items():
            # sums of single precision, in the same order
            assert log(folder, key)[name, 0] == pytest.approx(value, rel=1e-6)
    assert set(found.scores["denoising"]) == set(model.scores["denoising"])
    assert set(found.scores["reconstruction"]) == set(model.scores["reconstruction"])


def test_the_average_begins_with_the_weights_of_the_model() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    config = replace(TINY, ema=0.75)
    warm, cold = (averaged(network, 10, config, warm=warm) for warm in (True, False))
    nn.init.constant_(network.weight, 3.0)
    for average, expected in ((warm, 0.75 * 1 + 0.25 * 3), (cold, 3.0)):
        average.update_parameters(network)
        assert average.module.weight.item() == expected


def test_the_model_is_left_as_it_is(weather, model) -> None:
    before = weights(model)
    copies = {name: value.copy() for name, value in before.items()}
    xappa.train(weather, replace(TINY, learning_rate=0.1), start=model, seed=1, progress=False)
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, copies[name], err_msg=name)
    assert not any(p.requires_grad for p in model.network.parameters())


def test_it_says_where_it_comes_from(model, further, tmp_path) -> None:
    found, _ = further["denoiser"]
    origin = found.provenance["start"]
    assert (origin["name"], origin["hash"]) == ("base", model.hash)
    assert origin["provenance"] == model.provenance
    assert found.provenance["autoencoder_steps"] == 0
    assert found.spec == model.spec
    kept = xappa.open_model(found.save(tmp_path / "further"))
    assert kept.hash == found.hash != model.hash
    assert kept.provenance["start"]["provenance"]["seed"] == 5
    assert "base" in repr(kept)


class KilledError(Exception):
    """What a kill is here."""


@pytest.mark.parametrize(
    ("what", "stage", "step"),
    [
        ("denoiser", "denoiser", 3),  # before the first checkpoint
        ("denoiser", "denoiser", 13),
        ("decoder", "autoencoder", 13),
        ("both", "autoencoder", 13),
        ("both", "denoiser", 0),
        ("both", "denoiser", 13),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    weather, model, further, what, stage, step, monkeypatch, tmp_path
) -> None:
    def dying(self, objective, number, batch, before=_Trainer._step):
        if (self.stage.name, number) == (stage, step):
            raise KilledError
        before(self, objective, number, batch)

    def run():
        return xappa.train(
            weather, GOES_ON[what], start=model, seed=5, folder=tmp_path, progress=False
        )

    with monkeypatch.context() as patch:
        patch.setattr(_Trainer, "_step", dying)
        with pytest.raises(KilledError):
            run()
    whole, folder = further[what]
    assert not differing(run(), whole)
    rows = (
        xr.Dataset.from_dataframe(log(where, name).to_frame().reset_index())
        for name in ("loss", "reconstruction/t2m", "denoising/sigma=1")
        for where in (tmp_path, folder)
    )
    for ours, theirs in zip(rows, rows, strict=True):
        assert ours.identical(theirs)


def test_another_start_does_not_go_on(weather, model, further, tmp_path) -> None:
    found, folder = further["denoiser"]
    with pytest.raises(ArgumentError, match=r"start='[0-9a-f]{16}'[\s\S]*start='[0-9a-f]{16}'"):
        xappa.train(weather, DENOISER, start=found, seed=5, folder=folder, progress=False)
    _, folder = further["both"]
    with pytest.raises(ArgumentError, match=r"autoencoder.pt[\s\S]*start='[\s\S]*start=None"):
        xappa.train(weather, BASE, seed=5, folder=folder, progress=False)
    # The encoder that was left alone is another than one that was trained.
    _, folder = further["decoder"]
    with pytest.raises(ArgumentError, match=r"encoder='kept'[\s\S]*encoder=None"):
        xappa.train(weather, TINY, start=model, seed=5, folder=folder, progress=False)
    few = replace(DENOISER, denoiser_steps=2)
    for again in (found, model):
        xappa.train(weather, few, start=again, folder=tmp_path, resume=False, progress=False)
    assert log(tmp_path, "denoising/sigma=1").index.tolist() == [("denoiser", 0), ("denoiser", 2)]


def test_the_same_start_goes_on_by_its_path_and_without_a_seed(
    weather, model, further, tmp_path, monkeypatch
) -> None:
    found, folder = further["denoiser"]
    path = model.save(tmp_path / "base")
    monkeypatch.setattr(_Trainer, "train", None)  # nothing is left to be done
    again = xappa.train(weather, DENOISER, start=path, seed=None, folder=folder, progress=False)
    assert again.hash == found.hash


@pytest.mark.parametrize(
    ("config", "match"),
    [
        (replace(DENOISER, blocks=2), r"contradicts the model 'base'[\s\S]*where: blocks\n"),
        (
            replace(DENOISER, lat_channels=3, heads=1, schedule=("rectified", 1e-2, 1e3)),
            r"lat_channels=2; heads=2; schedule=[\s\S]*got: lat_channels=3; heads=1",
        ),
        (replace(DENOISER, climatology="channel"), "climatology='point'"),
        (replace(DENOISER, latent_noise=0.5), r"latent_noise=0.05[\s\S]*without start"),
        (replace(DENOISER, denoiser_steps=0), "neither stage has steps"),
    ],
)
def test_configurations_that_contradict_the_start(weather, model, config, match) -> None:
    with pytest.raises(ArgumentError, match=match):
        xappa.train(weather, config, start=model, progress=False)


@pytest.mark.parametrize("stage", ["autoencoder_steps", "denoiser_steps"])
def test_a_stage_without_steps_needs_a_start(weather, stage) -> None:
    with pytest.raises(ArgumentError, match=f"there is no start[\\s\\S]*{stage}"):
        xappa.train(weather, replace(TINY, **{stage: 0}), progress=False)


def test_sizes_come_from_the_model(model) -> None:
    """What a preset, or a default, says of sizes is nothing that somebody said."""
    start = Start(model)
    short = xappa.AppaTraining(autoencoder_steps=0, denoiser_steps=7, hid_channels=[4, 6])
    for config in (None, "small", short, BASE):
        plain = settings_of(config, xappa.AppaTraining)
        settings = start.settings(plain, said_in(config))
        assert {name: getattr(settings, name) for name in start.sizes} == start.sizes
        assert settings.learning_rate == plain.learning_rate
    assert start.sizes["hid_channels"] == BASE.hid_channels
    assert start.sizes["modes"] == 4


def test_the_start_is_a_latent_diffusion_prior(weather, model, tmp_path) -> None:
    gaussian = xappa.fit_gaussian(weather, name="linear")
    for start in (gaussian, gaussian.save(tmp_path / "linear")):
        with pytest.raises(ArgumentError, match=r"cannot go on[\s\S]*linear, of the kind 'gauss"):
            xappa.train(weather, DENOISER, start=start)
    with pytest.raises(ArgumentError, match="neither the name nor the path"):
        xappa.train(weather, DENOISER, start=3)
    with pytest.raises(BundleError, match=r"no model 'speedy'[\s\S]*speedy-t31"):
        xappa.train(weather, DENOISER, start="speedy")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda ds: ds.assign_coords(latitude=ds.latitude + 0.3), "latitude"),
        (lambda ds: ds.isel(latitude=slice(1, None)), r"part of the grid[\s\S]*6 latitudes x 8"),
        (lambda ds: ds.isel(time=slice(None, None, 2)), r"further apart[\s\S]*6 hours[\s\S]*12 h"),
        (
            lambda ds: ds.assign(t2m=ds.t2m.assign_attrs(standard_name="eastward_wind")),
            "variable 't2m' of the state is not in the Dataset",
        ),
    ],
)
def test_data_that_do_not_fit_the_start(weather, model, change, match) -> None:
    with pytest.raises(HandshakeError, match=match):
        xappa.train(change(weather), DENOISER, start=model, progress=False)
    with pytest.raises(HandshakeError, match=match):
        xappa.train(weather, DENOISER, start=model, validation=change(weather), progress=False)


def test_what_the_data_have_beyond_the_model_is_left_out(weather, model, further) -> None:
    """Variables are the model's, in its units, orientation and calendar."""
    found, _ = further["denoiser"]
    more = weather.assign(a=2 * weather.t2m, msl=0 * weather.t2m + 1e5)
    more.msl.attrs = {"standard_name": "air_pressure_at_mean_sea_level", "units": "Pa"}
    more = more.drop_vars("a").isel(latitude=slice(None, None, -1))
    again = xappa.train(more, DENOISER, start=model, seed=5, progress=False)
    assert again.hash == found.hash
    twice = weather.assign(other=weather.t2m + 1)
    chosen = xappa.train(
        twice, DENOISER, start=model, seed=5, variables=["t2m"], validation=twice, progress=False
    )
    assert chosen.spec == model.spec
    short = replace(DENOISER, denoiser_steps=1)
    noleap = weather.convert_calendar("noleap", use_cftime=True)
    other = xappa.train(noleap, short, start=model, progress=False)
    assert other.spec == model.spec
    assert [t[:10] for t in other.provenance["period"]] == ["2001-01-01", "2001-01-14"]


def test_points_that_are_missing(weather, model) -> None:
    few = replace(TINY, autoencoder_steps=2, denoiser_steps=2)
    land = weather.where(weather.longitude > weather.longitude[2])
    land.t2m.attrs = weather.t2m.attrs
    with pytest.raises(DataError, match=r"missing where the model knows some[\s\S]*t2m"):
        xappa.train(land, few, start=model, progress=False)
    masked = xappa.train(land, few, progress=False)
    for ds in (land, weather):  # what the model knows as missing stays so
        found = xappa.train(ds, few, start=masked, progress=False)
        back = land.appa.encode(found).appa.decode(found)
        assert (back.t2m.isnull() == land.t2m.isnull()).all()


def written(folder: Path, text: str) -> Path:
    path = folder / "further.toml"
    path.write_text(text)
    return path


TOML = """
preset = "small"
seed = 5
start = "{start}"

[data]
path = "weather.nc"

[training]
autoencoder_steps = 0
denoiser_steps = 24
learning_rate = 1e-3
batch = 8
log_every = 1
checkpoint_every = 5
validate_every = 12
validation_states = 4
"""


@pytest.mark.parametrize("start", ["base", "models/base"])
def test_a_file_names_the_start(
    weather, model, further, start, tmp_path, monkeypatch, capsys
) -> None:
    """By a name in the catalogue, or by a path that is relative to the file."""
    model.save(tmp_path / "models" / "base")
    if start == "base":
        monkeypatch.setenv("XAPPA_MODEL_PATH", str(tmp_path / "models"))
    weather.to_netcdf(tmp_path / "weather.nc")
    path = written(tmp_path, TOML.format(start=start))
    with xappa.set_options(progress=False):
        assert main(["train", str(path), "--output", str(tmp_path / "run")]) == 0
    assert "base" in capsys.readouterr().out
    found = xappa.open_model(tmp_path / "run" / "model")
    assert found.name == "further"
    assert found.hash == further["denoiser"][0].hash
    assert xappa.train(weather, path, seed=5, progress=False).hash == found.hash


def test_files_that_contradict_the_start(weather, model, tmp_path) -> None:
    """An entry is said, even if it is the default."""
    path = written(tmp_path, TOML.format(start="elsewhere") + "blanket = 8\n")
    with pytest.raises(ArgumentError, match=r"blanket=4[\s\S]*got: blanket=8"):
        xappa.train(weather, path, start=model)
    with pytest.raises(BundleError, match=r"no model '.*elsewhere'"):
        xappa.train(weather, path)
    with pytest.raises(ArgumentError, match="start is not what it must be"):
        xappa.train(weather, written(tmp_path, "start = 3"))
    with pytest.raises(ArgumentError, match="DownscalingTraining starts from no model"):
        settings_of(written(tmp_path, "start = 'base'"), xappa.DownscalingTraining)


def test_networks_go_on_without_dropout(model) -> None:
    """Which would draw from torch's own generator."""
    encoder, network = Start(model).networks(TINY)
    assert encoder.config == model.autoencoder.config
    assert network.config.dropout == 0
    assert all(p.requires_grad for part in (encoder, network) for p in part.parameters())
    torch.testing.assert_close(network.state_dict(), model.network.state_dict(), rtol=0, atol=0)
