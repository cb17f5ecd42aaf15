"""Damaged bundles, catalogues in which several models fit, samplers and the command line."""

from __future__ import annotations

import json
import re
import shutil

import pytest

import xappa
from xappa.__main__ import main
from xappa.errors import ArgumentError, BundleError, DataError, NoModelError
from xappa.models.catalogue import remember, resolve


@pytest.fixture(scope="module")
def weather():
    return xappa.testing.weather(times=60)


@pytest.fixture(scope="module")
def model(weather):
    return xappa.fit_gaussian(weather, modes=4)


@pytest.fixture
def bundle(model, tmp_path):
    return model.save(tmp_path / "bundle")


@pytest.fixture
def no_session(monkeypatch) -> None:
    monkeypatch.setattr("xappa.models.catalogue._SESSION", {})
    monkeypatch.setattr("xappa.models.catalogue._OPENED", {})


def _sums(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "0" * 64)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"files": []}, r"entry 'files' of model.json cannot be read[\s\S]*got: \[\]"),
        ({"hash": 5}, r"entry 'hash' of model.json cannot be read[\s\S]*expected: text"),
        ({"kind": ["gaussian"]}, "entry 'kind'"),
        ({"spec": None}, "entry 'spec'"),
        ({"spec": {"variables": 3}}, "the bundle cannot be read"),
        ({"arguments": {"rho": []}}, "the bundle cannot be read"),
        ({"files": {}}, r"checksum of each file[\s\S]*weights.safetensors and statistics.nc"),
        ({"files": _sums("weights.safetensors")}, "checksum of each file"),
        ({"files": {"weights.safetensors": 1, "statistics.nc": 2}}, "checksum of each file"),
        (
            {"files": _sums("weights.safetensors", "statistics.nc", "../secret")},
            "checksum of each file",
        ),
        ({"files": _sums("weights.safetensors", "statistics.nc")}, "its checksum differs"),
    ],
)
def test_descriptions_that_are_wrong(bundle, changes, match) -> None:
    document = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({**document, **changes}))
    with pytest.raises(BundleError, match=match) as caught:
        xappa.open_model(bundle)
    assert caught.value.remedy


def test_every_file_is_verified(bundle) -> None:
    with (bundle / "statistics.nc").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"checksum differs[\s\S]*statistics.nc[\s\S]*remedy"):
        xappa.open_model(bundle)
    document = json.loads((bundle / "model.json").read_text())
    del document["scores"]
    (bundle / "model.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"lacks entries[\s\S]*no scores[\s\S]*remedy"):
        xappa.open_model(bundle)


def test_places_that_cannot_be_written(model, tmp_path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BundleError, match=r"cannot be written[\s\S]*remedy: choose a folder"):
        model.save(tmp_path / "file" / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_equal_models_count_once(weather, bundle, monkeypatch, no_session) -> None:
    shutil.copytree(bundle, bundle.with_name("copy"))
    monkeypatch.setenv("XAPPA_MODEL_PATH", str(bundle.parent))
    _, how = resolve(None, weather)
    assert how == "only model of the catalogue that fits"


def test_several_models_are_listed_by_the_names_that_open_them(
    weather, model, bundle, monkeypatch, no_session
) -> None:
    other = xappa.fit_gaussian(weather, modes=3)
    other.save(bundle.with_name("smaller"))
    monkeypatch.setenv("XAPPA_MODEL_PATH", str(bundle.parent))
    with pytest.raises(NoModelError, match="several models fit") as caught:
        resolve(None, weather)
    listed = dict(re.findall(r"^(\w+) \(sha256:(\w+)\)$", str(caught.value.got), re.MULTILINE))
    assert listed == {"bundle": model.hash[:16], "smaller": other.hash[:16]}
    for name, digest in listed.items():
        assert xappa.open_model(name).hash.startswith(digest)
    assert caught.value.remedy.startswith("choose one by its name: model='bundle'")


def test_models_of_this_session_are_named_first(weather, model, no_session) -> None:
    remember(model)
    elsewhere = remember(xappa.fit_gaussian(xappa.testing.weather(times=60, latitudes=7), modes=3))
    with pytest.raises(
        NoModelError, match=r"speedy-t31: the grids.*, and 8 more; of those fitted"
    ) as caught:
        resolve(None, weather)
    assert model.label in caught.value.got
    assert elsewhere.label not in caught.value.got
    remedy = "pass the model that you fitted: ds.appa.assimilate(obs, model)"
    assert caught.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("heun", {"options": {"foo": 1}}, r"'heun' does not take these[\s\S]*foo[\s\S]*remedy"),
        ("multistep", {"options": {"eta": 1.0}}, r"dict with some of order"),
        ("ddim", {"options": {"steps": 8}}, r"dict with some of eta[\s\S]*steps="),
        ("ddim", {"options": ["eta"]}, r"got: \['eta'\]"),
        ("heun", {"steps": 2.5}, r"whole number[\s\S]*got: 2.5"),
        ("heun", {"steps": True}, r"whole number[\s\S]*got: True"),
        ("heun", {"steps": "8"}, r"whole number[\s\S]*got: '8'"),
        (["heun"], {}, "unknown sampler"),
    ],
)
def test_samplers_are_checked_when_they_are_made(name, settings, match) -> None:
    with pytest.raises(ArgumentError, match=match):
        xappa.Sampler(name, **settings)


@pytest.mark.parametrize(
    ("name", "options"),
    [("multistep", {"order": 3}), ("ddim", {"eta": 1.0}), ("pc", {"corrections": 2, "delta": 0.1})],
)
def test_options_of_samplers_reach_azula(model, name, options) -> None:
    sampler = xappa.Sampler(name, 4, options)(model.denoiser)
    assert {key: getattr(sampler, key) for key in options} == options


def test_the_command_line_tells_errors(tmp_path, capsys, bundle) -> None:
    assert main(["show", str(tmp_path / "nope.nc")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("DataError: there is no such file\n  where: ")
    (tmp_path / "code.py").write_text("print(1)")
    assert main(["show", str(tmp_path / "code.py")]) == 2
    assert "the file cannot be read" in capsys.readouterr().err
    (bundle / "weights.safetensors").unlink()
    assert main(["show", str(bundle)]) == 2
    assert "BundleError: a file of the bundle is missing" in capsys.readouterr().err


def test_sample_data_that_are_not_at_hand(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("xappa.tutorial._folders", lambda: iter([tmp_path]))
    with pytest.raises(DataError, match=r"not at hand[\s\S]*remedy: set the environment variable"):
        xappa.tutorial.open_dataset("era5-tl31")
