"""Opening folders of Appa checkpoints: what is read, and what is refused."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.bridge import Layout, unpack
from xappa.errors import BundleError, GuessWarning
from xappa.models.appa.checkpoint import state_dicts
from xappa.models.appa.era5 import ERA5_STATE, era5_spec, plain_spec
from xappa.models.appa.model import AppaModel
from xappa.models.appa.normalisation import Normalisation
from xappa.nn.autoencoder import AutoencoderConfig, ConvAutoencoder
from xappa.nn.transformer import LatentTransformer, TransformerConfig

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning")

AE = """\
ae:
  name: cae_f2c4
  shape: [9, 16]
  resize: 2
  saturation: softclip2
  noise_level: 0.1
  lat_channels: 4
  hid_channels: [8, 12]
  hid_blocks: [1, 1]
  pixel_shuffle: true
  ffn_factor: 1
  dropout: null
  patch_size: [1, 1]
  checkpointing: true
  identity_init: true
  in_channels: {channels}
  context_channels: 6
  latent_shape: [5, 10, 4]
train:
  sub_pressure_levels: true
path: !!python/object/apply:pathlib.PosixPath
- {path}
"""
DENOISER = """\
backbone:
  name: vit_small
  arch: vit
  mod_features: 8
  hid_channels: 16
  hid_blocks: 2
  ffn_factor: 2
  attention_heads: 2
  qk_norm: true
  rope: true
  patch_size: [2, 1, 1]
  window_size: null
  dropout: 0.0
  checkpointing: false
  blanket_size: 4
train:
  noise_schedule: loglogit
  sigma_min: 0.001
  sigma_max: 1000.0
  blanket_dt: 6
  blanket_size: 4
"""


def networks(channels: int) -> tuple[ConvAutoencoder, LatentTransformer]:
    torch.manual_seed(0)
    config = AutoencoderConfig(
        (9, 16), channels, 4, (8, 12), (1, 1), boundary="periodic-input", latent_noise=0.1
    )
    blankets = TransformerConfig(
        config.latent_shape, 4, 16, 2, 2, 8, 2, (2, 1, 1), window_wraps=(True, True, True)
    )
    return ConvAutoencoder(config), LatentTransformer(blankets)


def write(folder: Path, channels: int = 3, statistics: bool = False) -> AppaModel:
    """Write a project of random weights in the authors' layout; return what should be opened."""
    autoencoder, network = networks(channels)
    one = np.ones((channels, 1, 1))
    noisy = np.hypot(2 * np.ones(4), 0.1)
    normalisation = Normalisation(0 * one, one, np.zeros(4), noisy, 0 * one)
    spec = plain_spec((9, 16), channels, 21600.0)
    levels = ("loglogit", 1e-3, 1e3)
    model = AppaModel(spec, autoencoder, network, levels, normalisation, name="appa-run")
    weights = state_dicts(model)
    dump = folder / "autoencoders" / "ae" / "0" / "latents" / "dump"
    denoiser = dump / "denoisers" / "run" / "0"
    for place in (dump / "ae", denoiser):
        place.mkdir(parents=True)
    (dump / "ae" / "config.yaml").write_text(AE.format(channels=channels, path=folder))
    (denoiser / "config.yaml").write_text(DENOISER)
    torch.save(weights["autoencoder"], dump / "ae" / "model.pth")
    torch.save(weights["denoiser"], denoiser / "model_best.pth")
    torch.save({"mean": torch.zeros(4), "std": 2 * torch.ones(4)}, dump / "stats.pth")
    if statistics:
        write_statistics(folder)
    return model


def write_statistics(folder: Path) -> None:
    spec = era5_spec((9, 16), ERA5_STATE[71], 21600.0)
    stats = xr.Dataset(coords={"statistic": ["mean", "std"], "level": list(ERA5_STATE[191])})
    for k, variable in enumerate(spec.variables):
        if variable.levels is None:
            stats[variable.name] = ("statistic", [float(k), 1.0 + k])
        else:
            levels = np.array(ERA5_STATE[191], float)
            stats[variable.name] = (("statistic", "level"), np.stack([levels, levels + k]))
    stats.to_zarr(folder / "data" / "stats_era5_1993-2021-1h-1440x721.zarr", zarr_format=2)


def opened(folder: Path) -> AppaModel:
    with pytest.warns(GuessWarning, match="statistics of the states are not in the folder"):
        return xappa.open_model(folder)


DUMP = Path("autoencoders/ae/0/latents/dump")


@pytest.mark.parametrize(
    "where", [".", "autoencoders/ae/0", DUMP, DUMP / "denoisers/run", DUMP / "denoisers/run/0"]
)
def test_any_folder_of_the_project_will_do(tmp_path, where) -> None:
    expected = write(tmp_path)
    model = opened(tmp_path / where)
    assert model.hash == expected.hash
    assert model.schedule == ("loglogit", 1e-3, 1e3)
    assert asdict(model.network.config) == asdict(expected.network.config)
    assert model.spec.time_step == 21600.0
    assert model.autoencoder.config.latent_noise == 0.1


def test_era5_states_with_their_statistics(tmp_path) -> None:
    write(tmp_path, channels=71, statistics=True)
    model = xappa.open_model(tmp_path)
    assert [v.name for v in model.spec.variables][5:7] == ["total_precipitation", "temperature"]
    assert model.spec.variable("2m_temperature").height == 2.0
    temperature = model.spec.slice_of("temperature")
    # Of the 37 levels with statistics those 13 that the state has.
    np.testing.assert_array_equal(model.normalisation.mean[temperature, 0, 0], ERA5_STATE[71])
    np.testing.assert_array_equal(
        model.normalisation.std[temperature, 0, 0], np.array(ERA5_STATE[71]) + 6.0
    )
    template = model.template("2021-03-01", "2021-03-01T06")
    assert template["temperature"].sizes["pressure"] == 13
    assert template["2m_temperature"].attrs["standard_name"] == "air_temperature"
    assert str(template["latitude"].values[0]) == "90.0"


def test_statistics_that_lack_a_variable(tmp_path) -> None:
    write(tmp_path, channels=71)
    xr.Dataset({"2m_temperature": ("statistic", [1.0, 2.0])}).to_zarr(
        tmp_path / "data" / "stats_x.zarr", zarr_format=2
    )
    with pytest.raises(BundleError, match="statistics of the states cannot be read"):
        xappa.open_model(tmp_path)


def test_no_code_of_a_configuration_runs(tmp_path) -> None:
    write(tmp_path)
    path = tmp_path / DUMP / "ae" / "config.yaml"
    mark = tmp_path / "ran"
    path.write_text(path.read_text() + f"x: !!python/object/apply:os.mkdir [{mark}]\n")
    opened(tmp_path)
    assert not mark.exists()


class Code:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", [DUMP / "ae/model.pth", DUMP / "denoisers/run/0/model_best.pth"])
def test_no_code_of_a_pickle_runs(tmp_path, name) -> None:
    write(tmp_path)
    mark = tmp_path / "ran"
    torch.save({"weight": Code(mark)}, tmp_path / name)
    with pytest.raises(BundleError, match="more than tensors"):
        xappa.open_model(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Code(mark)))
    with pytest.raises(BundleError, match=r"more than tensors|cannot be read"):
        xappa.open_model(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        DUMP / "ae/config.yaml",
        DUMP / "ae/model.pth",
        DUMP / "stats.pth",
        DUMP / "denoisers/run/0/config.yaml",
        DUMP / "denoisers/run/0/model_best.pth",
    ],
)
def test_missing_and_truncated_files(tmp_path, name) -> None:
    write(tmp_path)
    path = tmp_path / name
    if path.suffix == ".pth":
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(BundleError, match=r"cannot be read|more than tensors"):
            xappa.open_model(tmp_path)
    path.unlink()
    with pytest.raises(BundleError, match=rf"is missing[\s\S]*{path.name.split('_')[0]}"):
        xappa.open_model(tmp_path)


@pytest.mark.parametrize("folder", ["denoisers", "ae"])
def test_missing_folders_are_named(tmp_path, folder) -> None:
    write(tmp_path)
    shutil.rmtree(tmp_path / DUMP / folder)
    with pytest.raises(BundleError, match=rf"is missing[\s\S]*{folder}.*config\.yaml"):
        xappa.open_model(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\nsize 12\n", b"<html>", b"\x80\x02K\x01."],
)
@pytest.mark.parametrize("name", ["stats.pth", "ae/model.pth"])
def test_damaged_files_are_called_damaged(tmp_path, name, content) -> None:
    write(tmp_path)
    (tmp_path / DUMP / name).write_bytes(content)
    with pytest.raises(BundleError, match=r"damaged|no dictionary of tensors") as caught:
        xappa.open_model(tmp_path)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: {**w, "std": 0 * w["std"]}, "not positive"),
        (lambda w: {**w, "mean": w["mean"] * torch.nan}, "not finite"),
        (lambda w: {**w, "mean": w["mean"].to(torch.complex64)}, "complex64"),
        (lambda w: {**w, "mean": w["mean"].int()}, "int32"),
        (lambda w: {**w, "mean": w["mean"].to_sparse()}, "sparse"),
        (lambda w: {**w, 3: w["mean"]}, "the key 3"),
        (lambda w: {**w, "median": w["mean"]}, "median"),
        (lambda w: {**w, "mean": w["mean"].double()}, None),
    ],
)
def test_statistics_of_latents(tmp_path, change, match) -> None:
    write(tmp_path)
    path = tmp_path / DUMP / "stats.pth"
    torch.save(change(torch.load(path)), path)
    if match is None:
        assert opened(tmp_path).blanket == 4
        return
    with pytest.raises(BundleError, match=match):
        xappa.open_model(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("patch_size: [1, 1]", "patch_size: 1"),
        ("ffn_factor: 1", "kernel_size: 3"),
        ("ffn_factor: 1", "kernel_size: [3, 3]"),
        ("ffn_factor: 1", "stride: [2, 2]"),
        ("noise_level: 0.1", "noise_level: 1e-1"),
    ],
)
def test_other_spellings_of_the_same(tmp_path, old, new) -> None:
    expected = write(tmp_path)
    edit(tmp_path / DUMP / "ae" / "config.yaml", old, new)
    assert opened(tmp_path).autoencoder.config == expected.autoencoder.config


def test_periodic_convolutions(tmp_path) -> None:
    """The authors' ``periodic`` goes round in both directions, beyond the poles as well."""
    write(tmp_path)
    edit(tmp_path / DUMP / "ae" / "config.yaml", "ffn_factor: 1", "periodic: true")
    model = opened(tmp_path)
    assert model.autoencoder.config.boundary == "torus"
    conv = model.autoencoder.down[0]
    x = torch.randn(1, 3, 6, 8)
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular"), conv.weight, conv.bias
    )
    torch.testing.assert_close(conv(x), expected)


def test_two_statistics_want_a_choice(tmp_path) -> None:
    write(tmp_path, channels=71, statistics=True)
    (store,) = (tmp_path / "data").glob("stats_*.zarr")
    shutil.copytree(store, store.with_name("stats_other.zarr"))
    with pytest.raises(BundleError, match="statistics of several data sets"):
        xappa.open_model(tmp_path)


def test_the_sea_has_no_temperature_over_land(tmp_path) -> None:
    """Gaps there are the mean, as in training; a Dataset tells where they are."""
    write(tmp_path, channels=71, statistics=True)
    model = xappa.open_model(tmp_path)
    rng = np.random.default_rng(0)
    ds = model.template("2021-03-01", "2021-03-01T18")
    values = model.normalisation.mean + model.normalisation.std * rng.standard_normal(
        (4, 71, 9, 16)
    )
    ds = unpack(
        xr.DataArray(values, dims=("time", "channel", "latitude", "longitude")),
        Layout.of(ds, model.spec),
    )
    land = ds.longitude < 90
    sst = ds["sea_surface_temperature"]
    wet = ds.assign(sea_surface_temperature=sst.where(~land).assign_attrs(sst.attrs))
    index = [v.standard_name for v, _ in model.spec.channels].index("sea_surface_temperature")
    filled = ds.assign(
        sea_surface_temperature=sst.where(
            ~land, model.normalisation.mean[index, 0, 0]
        ).assign_attrs(sst.attrs)
    )
    z = wet.appa.encode(model)
    xr.testing.assert_allclose(z.latent, filled.appa.encode(model).latent, rtol=1e-4)
    assert z.appa.decode(model)["sea_surface_temperature"].notnull().all()
    taught = model.calibrated(wet)
    back = wet.appa.encode(taught).appa.decode(taught)
    assert (back["sea_surface_temperature"].isnull() == land).all()
    assert (taught.normalisation.reconstruction > 0).all()
    with pytest.raises(xappa.errors.DataError, match="whole states"):
        ds.where(ds.latitude > 0).appa.encode(model)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("ae", "resize: 2", "resize: 4", "resize 4, where its stages give 2"),
        ("ae", "[5, 10, 4]", "[5, 9, 4]", r"latent_shape \[5, 9, 4\]"),
        ("ae", "ffn_factor: 1", "colour: red", "ae: unknown colour"),
        ("ae", "noise_level: 0.1", "noise_level: loud", "noise_level is 'loud', and no number"),
        ("ae", "shape: [9, 16]", "shape: [9, 16, 2]", "shape is .*no list of 2 positive integers"),
        ("ae", "lat_channels: 4", "lat_channels: null", "lacks lat_channels"),
        ("ae", "pixel_shuffle: true", "pixel_shuffle: 3", "no true or false"),
        ("ae", "ffn_factor: 1", "kernel_size: [3, 5]", "kernel_size .* not square"),
        ("ae", "name: cae_f2c4", "name: ico7to3", "icosahedral graphs are not supported"),
        ("ae", "softclip2", "sigmoid", "bad saturation"),
        ("ae", "ae:\n", "encoder:\n", "lacks the section 'ae'"),
        ("ae", "patch_size: [1, 1]", "stride: 4", "stride other than 2"),
        ("ae", "hid_channels: [8, 12]", "hid_channels: [8, 10]", "does not fit the configuration"),
        ("denoiser", "arch: vit", "arch: graph", "on graphs are not supported"),
        (
            "denoiser",
            "hid_blocks: 2",
            "hid_blocks: 1",
            "keys that the configuration",
        ),
        ("denoiser", "hid_blocks: 2", "hid_blocks: 3", r"'blocks.2[\s\S]*got: nothing"),
        ("denoiser", "loglogit", "linear", "no such noise schedule"),
        ("denoiser", "  sigma_max: 1000.0\n", "", "lacks sigma_max"),
        ("denoiser", "backbone:", "backbone: [", "YAML|Error"),
        ("denoiser", "sigma_min: 0.001", "sigma_min: small", "sigma_min is 'small'"),
        ("denoiser", "sigma_min: 0.001", "sigma_min: 2000", "sigma_min 2000"),
        ("denoiser", "blanket_dt: 6", "blanket_dt: 0", "blanket_dt 0"),
        ("denoiser", "blanket_dt: 6", "blanket_dt: null", "lacks blanket_dt"),
        ("denoiser", "attention_heads: 2", "attention_heads: 0", "no positive integer"),
        ("denoiser", "patch_size: [2, 1, 1]", "patch_size: [0, 1, 1]", "no list of 3"),
        ("denoiser", "dropout: 0.0", "dropout: x", "dropout is 'x'"),
        ("denoiser", "  blanket_size: 4\ntrain", "  blanket_size: 2\ntrain", "blanket_size is 2"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path, file, old, new, match) -> None:
    write(tmp_path)
    name = "ae/config.yaml" if file == "ae" else "denoisers/run/0/config.yaml"
    edit(tmp_path / DUMP / name, old, new)
    with pytest.raises(xappa.errors.XappaError, match=match):
        xappa.open_model(tmp_path)


def test_several_denoisers_want_a_choice(tmp_path) -> None:
    write(tmp_path)
    runs = tmp_path / DUMP / "denoisers"
    shutil.copytree(runs / "run", runs / "other")
    with pytest.raises(BundleError, match=r"several Appa checkpoints[\s\S]*other/0[\s\S]*run/0"):
        xappa.open_model(tmp_path)
    assert opened(runs / "other" / "0").name == "appa-other"


def test_encode_wants_whole_states(tmp_path) -> None:
    write(tmp_path)
    model = opened(tmp_path)
    ds = model.template("2021-03-01", "2021-03-01T12")
    with pytest.raises(xappa.errors.DataError, match="an autoencoder needs whole states"):
        ds.appa.encode(model)
    filled = ds.fillna(0.5)
    for name in filled:
        filled[name].attrs = ds[name].attrs
    z = filled.appa.encode(model)
    assert z.latent.sizes == {"time": 3, "mode": 200}
    back = z.appa.decode(model)
    assert back.channel_0.dims == ds.channel_0.dims
    lazy = filled.chunk(time=1).appa.encode(model)
    xr.testing.assert_allclose(lazy.compute(), z)


def test_points_that_are_never_there(tmp_path) -> None:
    write(tmp_path)
    model = opened(tmp_path)
    land = np.zeros((3, 9, 16), bool)
    land[1, :3] = True
    model = model.with_normalisation(missing=land)
    states = np.where(land, np.nan, np.random.default_rng(0).standard_normal((2, 3, 9, 16)))
    z = model.encode_array(states, np.zeros(2))
    assert np.isfinite(z).all()
    assert (np.isnan(model.decode_array(z, np.zeros(2))) == land).all()
    kept = xappa.open_model(model.save(tmp_path / "bundle"))
    assert kept.hash == model.hash
    np.testing.assert_array_equal(kept.normalisation.missing, land)
