"""Training of latent diffusion priors, with sizes and steps that seconds allow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import xappa
from xappa.diffusion.blankets import BlanketDenoiser
from xappa.errors import ArgumentError, DataError

TINY = xappa.AppaTraining(
    hid_channels=(8, 12),
    hid_blocks=(1, 1),
    lat_channels=2,
    blanket=4,
    channels=16,
    blocks=1,
    heads=2,
    autoencoder_steps=120,
    denoiser_steps=60,
    batch=8,
)


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=80)


@pytest.fixture(scope="module")
def model(weather):
    return xappa.train(weather, TINY, seed=1, progress=False)


def test_a_trained_model_is_a_bundle_like_any_other(model, weather, tmp_path) -> None:
    assert model.blanket == 4
    assert model.provenance["states"] == 80
    kept = xappa.open_model(model.save(tmp_path / "tiny"))
    assert kept.hash == model.hash
    assert "denoiser" in repr(kept)
    assert list(kept.statistics.data_vars)


def test_the_autoencoder_learns(model, weather) -> None:
    held_out = weather.isel(time=slice(72, None))
    back = held_out.appa.encode(model).appa.decode(model)
    error = float(np.sqrt(((back.t2m - held_out.t2m) ** 2).mean()))
    variation = float(np.sqrt(((held_out.t2m - model.normalisation.mean[0]) ** 2).mean()))
    assert error < 0.7 * variation
    # The error that the bundle keeps is the one on what was held out.
    area = model.spec.grid.area_weights()
    own = np.sqrt((((back.t2m - held_out.t2m) ** 2).mean("time") * area).sum() / area.sum())
    np.testing.assert_allclose(model.normalisation.reconstruction.item(), own, rtol=1e-3)


def test_latents_are_standardised(model, weather) -> None:
    z = weather.isel(time=slice(72)).appa.encode(model).latent.values.reshape(-1, 2)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    # With the variance of the noise that training added, it is 1.
    noise = TINY.latent_noise / model.normalisation.latent_std
    np.testing.assert_allclose(z.var(0) + noise**2, 1, atol=0.01)


def test_training_is_reproducible(model, weather) -> None:
    again, other = (xappa.train(weather, TINY, seed=k, progress=False) for k in (1, 2))
    z, same, different = (weather.appa.encode(m).latent for m in (model, again, other))
    # Threads may add in another order; what they add is the same.
    np.testing.assert_allclose(same, z, atol=1e-3)
    assert np.abs(different - z).max() > 0.1


def test_observations_draw_the_analysis(model, weather) -> None:
    day = weather.isel(time=slice(72, 76))
    network = xappa.observe.random_stations(day, 12, variable="t2m", error=0.3, seed=0)
    obs = day.appa.observe(network, seed=0)
    sampler = xappa.Sampler("ddim", 16)
    ens = day.appa.assimilate(obs, model, members=4, seed=0, sampler=sampler, progress=False)
    with pytest.warns(xappa.errors.NoObservationsWarning):
        prior = day.appa.assimilate([], model, members=4, seed=0, sampler=sampler, progress=False)
    assert float(xappa.verify.rmse(ens.t2m, day.t2m)) < 0.8 * float(
        xappa.verify.rmse(prior.t2m, day.t2m)
    )
    assert ens.attrs["xappa_model"] == model.label


def test_land_stays_land(weather) -> None:
    land = weather.where(weather.longitude > weather.longitude[2])
    land.t2m.attrs = weather.t2m.attrs
    few = replace(TINY, autoencoder_steps=2, denoiser_steps=2)
    model = xappa.train(land, few, progress=False)
    back = land.appa.encode(model).appa.decode(model)
    assert (back.t2m.isnull() == land.t2m.isnull()).all()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda ds: ds.where(ds.time != ds.time[3]), DataError, "missing at some times"),
        (lambda ds: ds.isel(time=[0, 1, 2, 5, 6, 7, 10]), DataError, "too few states follow"),
        (lambda ds: ds.isel(time=0, drop=True), DataError, "states at regular times"),
    ],
)
def test_data_that_no_prior_can_be_trained_on(weather, change, error, match) -> None:
    with pytest.raises(error, match=match):
        xappa.train(change(weather), TINY, progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"autoencoder_steps": -1},
        {"denoiser_steps": 2.5},
        {"batch": True},
        {"blanket": 1},
        {"hid_channels": 16},
        {"patch_size": (2, "1", 1)},
        {"latent_noise": -0.1},
        {"learning_rate": 0.0},
        {"held_out": -0.5},
    ],
)
def test_trainings_that_cannot_be(change) -> None:
    with pytest.raises(ArgumentError, match=f"bad {next(iter(change))}"):
        replace(TINY, **change)


def test_arguments_of_train(weather) -> None:
    with pytest.raises(ArgumentError, match="config is no configuration"):
        xappa.train(weather, 5)
    with pytest.raises(ArgumentError, match="seed is no integer"):
        xappa.train(weather, TINY, seed=1.5)


def test_latents_are_noisy_while_the_denoiser_learns(weather, monkeypatch) -> None:
    """What the denoiser learns has unit variance, the noise of the first stage included."""
    seen: list[tuple[float, Tensor]] = []

    class Recorded(BlanketDenoiser):
        def at(self, x_t: Tensor, sigma: Tensor, dates: Tensor) -> Tensor:
            seen.extend(zip(sigma.tolist(), x_t.detach(), strict=True))
            return super().at(x_t, sigma, dates)

    monkeypatch.setattr("xappa.training.denoiser.BlanketDenoiser", Recorded)
    noisy = replace(TINY, latent_noise=1.0, autoencoder_steps=40, denoiser_steps=100)
    model = xappa.train(weather, noisy, seed=0, progress=False)
    clean = weather.isel(time=slice(72)).appa.encode(model).latent.values.var()
    assert clean < 0.8  # so that the noise is a part that can be seen
    nearly = torch.stack([x for sigma, x in seen if sigma < 0.1])
    assert abs(nearly.var() - 1) < 0.1


def test_a_calibrated_model_knows_what_is_lost_and_where_nothing_is(weather) -> None:
    few = replace(TINY, autoencoder_steps=20, denoiser_steps=2)
    model = xappa.train(weather, few, progress=False)
    known = model.normalisation.reconstruction
    blank = model.with_normalisation(reconstruction=0 * known)
    held_out = weather.isel(time=slice(72, None))
    np.testing.assert_allclose(blank.calibrated(held_out).normalisation.reconstruction, known)
    assert not blank.calibrated(held_out).doubts
    land = held_out.where(held_out.longitude > held_out.longitude[2])
    land.t2m.attrs = held_out.t2m.attrs
    back = land.appa.encode(masked := blank.calibrated(land)).appa.decode(masked)
    assert (back.t2m.isnull() == land.t2m.isnull()).all()
    network = xappa.observe.random_stations(held_out, 3, variable="t2m", error=0.3, seed=0)
    obs = held_out.appa.observe(network, seed=0).isel(time=[0])
    with pytest.warns(xappa.errors.GuessWarning, match="calibrated"):
        held_out.isel(time=[0]).appa.assimilate(
            obs, blank, members=1, seed=0, sampler=xappa.Sampler("ddim", 2), progress=False
        )


def test_inflation_widens_the_prior(model, weather) -> None:
    """The same states are nearer to the mean of a wider prior, and are decoded as before."""
    few = weather.isel(time=slice(72, None))
    wider = model.inflated(1.5)
    z, near = (few.appa.encode(m).latent for m in (model, wider))
    np.testing.assert_allclose(1.5 * near.values, z.values, rtol=1e-4, atol=1e-6)
    back = few.appa.encode(wider).appa.decode(wider)
    xr.testing.assert_allclose(back.t2m, few.appa.encode(model).appa.decode(model).t2m, rtol=1e-5)
    for wrong in (0, -1.0, np.inf, "wide", True):
        with pytest.raises(ArgumentError, match="no positive number"):
            model.inflated(wrong)
