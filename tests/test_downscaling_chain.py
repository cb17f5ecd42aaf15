"""Downscaling from training to labels, on tiny networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from azula.denoise import Denoiser, DiracPosterior

import xappa
from xappa.diffusion.sampling import KarrasSchedule
from xappa.errors import ArgumentError, DataError, GridMismatchError, TimeStepError
from xappa.models.corrdiff.calibration import calibrated_on
from xappa.models.corrdiff.expected import expected_residual
from xappa.models.corrdiff.pairs import Pairs, pairs_of
from xappa.training.residuals import fold_of

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.XappaWarning")

TINY = {"hid_channels": 8, "multipliers": (1, 2), "attention": (), "mod_features": 8}
STEPS = {"mean_steps": 4, "diffusion_steps": 6, "batch": 4, "calibrate": 2}
CONFIG = xappa.DownscalingTraining(**TINY, **STEPS)
DRAW = {"seed": 0, "progress": False, "sampler": xappa.Sampler("edm", 3, {"order": 1})}


def states(times: int = 48) -> tuple[xr.Dataset, xr.Dataset]:
    """Coarse states, 6 x 8, and fine ones between their points, 12 x 16 in a part."""
    rng = np.random.default_rng(0)
    latitude, longitude = np.linspace(60, 40, 16), np.linspace(-10, 20, 24)
    x = rng.standard_normal((times, 16, 24)).cumsum(1).cumsum(2) / 8
    fine = xr.Dataset(
        {
            "t2m": (("time", "latitude", "longitude"), 280 + x.astype(np.float32)),
            "pr": (("time", "latitude", "longitude"), np.maximum(x, 0).astype(np.float32) * 1e-5),
            "orog": (("latitude", "longitude"), rng.uniform(0, 500, (16, 24)).astype(np.float32)),
        },
        {
            "time": xr.date_range("2020-01-01", periods=times, freq="6h"),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
    )
    fine.t2m.attrs = {"standard_name": "air_temperature", "units": "K", "long_name": "warmth"}
    fine.pr.attrs = {"standard_name": "precipitation_flux", "units": "kg m-2 s-1"}
    fine.orog.attrs = {"standard_name": "surface_altitude", "units": "m"}
    coarse = fine[["t2m"]].isel(latitude=slice(0, 16, 3), longitude=slice(0, 24, 3))
    return coarse, fine.isel(latitude=slice(2, 14), longitude=slice(2, 18))


@pytest.fixture(scope="module")
def pair() -> tuple[xr.Dataset, xr.Dataset]:
    return states()


@pytest.fixture(scope="module")
def model(pair):
    return xappa.train_downscaler(*pair, CONFIG, progress=False)


def test_fine_states_with_labels(pair, model) -> None:
    coarse, fine = pair
    some = coarse.isel(time=slice(3)).assign_coords(
        number=((), 0, {"standard_name": "realization"}), surface=((), 0.0, {"units": "1"})
    )
    before = some.copy(deep=True)
    ens = some.appa.downscale(model, members=3, **DRAW)
    xr.testing.assert_identical(some, before)
    assert "number" not in ens.coords  # it would contradict the members
    assert "surface" in ens.coords
    assert ens.t2m.dims == ens.pr.dims == ("member", "time", "latitude", "longitude")
    np.testing.assert_array_equal(ens.latitude, fine.latitude)
    assert float(ens.pr.min()) >= 0
    assert float(ens.t2m.std("member").min()) > 0
    assert ens.attrs["xappa_model"] == model.label
    assert "orog" in str(model)
    assert "Grid 12 x 16" in str(model)


def test_members_are_their_own(pair, model) -> None:
    coarse, _ = pair
    whole = coarse.isel(time=slice(4)).appa.downscale(model, members=4, **DRAW)
    part = coarse.isel(time=slice(1, 3)).appa.downscale(model, members=2, **DRAW)
    xr.testing.assert_allclose(
        part.t2m, whole.t2m.isel(member=slice(2), time=slice(1, 3)), rtol=1e-5
    )
    lazy = coarse.isel(time=slice(4)).appa.downscale(
        model, members=4, chunks={"time": 3, "member": 2}, **DRAW
    )
    assert lazy.t2m.chunks == ((2, 2), (3, 1), (12,), (16,))
    xr.testing.assert_allclose(lazy.t2m.compute(), whole.t2m, rtol=1e-5)
    own = whole[["t2m"]].isel(member=0, drop=True)  # of another grid, on purpose
    with pytest.raises(GridMismatchError):
        own.appa.downscale(model, **DRAW)


def test_bundles(pair, model, tmp_path) -> None:
    coarse, _ = pair
    again = xappa.open_model(model.save(tmp_path / "bundle"))
    assert again.hash == model.hash
    some = coarse.isel(time=slice(2))
    xr.testing.assert_equal(
        some.appa.downscale(again, members=2, **DRAW), some.appa.downscale(model, members=2, **DRAW)
    )
    with pytest.raises(ArgumentError, match="no priors"):
        coarse.appa.encode(model)
    with pytest.raises(ArgumentError, match="cannot downscale"):
        coarse.appa.downscale(xappa.fit_gaussian(coarse, modes=2))


def test_observations_pull(pair, model) -> None:
    coarse, _ = pair
    some = coarse.isel(time=slice(2))
    obs = xr.DataArray(
        np.full((2, 1), 300.0),
        {
            "time": some.time,
            "latitude": ("station", [50.0]),
            "longitude": ("station", [0.0]),
        },
        ("time", "station"),
        attrs={"standard_name": "air_temperature", "units": "K", "error_std": 0.01},
    ).isel(time=[1])
    free = some.appa.downscale(model, members=4, **DRAW)
    guidance = xappa.Guidance(iterations=2)
    tied = some.appa.downscale(model, members=4, obs=obs, guidance=guidance, **DRAW)
    apart = (tied - free).t2m.sel(latitude=50.0, longitude=0.0, method="nearest").mean("member")
    assert float(apart[1]) > 1
    assert abs(float(apart[0])) < 1e-3  # times are drawn by themselves


def test_curvilinear_targets(pair) -> None:
    coarse, fine = pair
    north, east = np.meshgrid(fine.latitude, fine.longitude, indexing="ij")
    bent = fine.rename(latitude="y", longitude="x").drop_vars(["y", "x"])
    bent = bent.assign_coords(
        lat=(("y", "x"), north, {"standard_name": "latitude", "units": "degrees_north"}),
        lon=(("y", "x"), east, {"standard_name": "longitude", "units": "degrees_east"}),
    )
    model = xappa.train_downscaler(coarse, bent, CONFIG, progress=False)
    ens = coarse.isel(time=[0]).appa.downscale(model, members=2, **DRAW)
    assert ens.t2m.dims == ("member", "time", "y", "x")
    np.testing.assert_array_equal(ens.lat, bent.lat)
    with pytest.raises(ArgumentError, match="curvilinear"):
        coarse.isel(time=[0]).appa.downscale(model, obs=fine.t2m.isel(time=[0]), error=1.0, **DRAW)


def test_patches(pair, tmp_path) -> None:
    coarse, fine = pair
    config = xappa.DownscalingTraining(**TINY, **STEPS, patch=(8, 8), overlap=2, boundary=1)
    model = xappa.train_downscaler(coarse, fine, config, progress=False)
    again = xappa.open_model(model.save(tmp_path / "bundle"))
    ens = coarse.isel(time=[0]).appa.downscale(again, members=2, **DRAW)
    assert np.isfinite(ens.t2m).all()
    for patch, match in (((32, 32), "larger than the domain"), ((7, 8), "multiples")):
        other = xappa.DownscalingTraining(**TINY, **STEPS, patch=patch)
        with pytest.raises(ArgumentError, match=match):
            xappa.train_downscaler(coarse, fine, other, progress=False)


def test_folds() -> None:
    folds = fold_of(100, 3)
    assert set(folds.tolist()) == {0, 1, 2}
    assert (np.diff(folds) != 0).sum() == 17
    assert (fold_of(5, 0) == -1).all()


def test_a_killed_training_goes_on(pair, tmp_path, monkeypatch) -> None:
    whole = xappa.train_downscaler(*pair, CONFIG, progress=False)
    calls = []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 14:  # in the diffusion stage
            raise KeyboardInterrupt
        return clip(*args, **kwargs)

    clip = torch.nn.utils.clip_grad_norm_
    config = xappa.DownscalingTraining(**TINY, **STEPS, checkpoint_every=1)
    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", failing)
    with pytest.raises(KeyboardInterrupt):
        xappa.train_downscaler(*pair, config, folder=tmp_path, progress=False)
    resumed = xappa.train_downscaler(*pair, config, folder=tmp_path, progress=False)
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(array, resumed.weights[name], err_msg=name)
    other = xappa.DownscalingTraining(**{**TINY, "hid_channels": 12}, **STEPS)
    with pytest.raises(ArgumentError, match="another"):
        xappa.train_downscaler(*pair, other, folder=tmp_path, progress=False)


class Known(Denoiser):
    """The denoiser of residuals that are Gaussian about a known mean, of a known spread."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std, self.schedule = mean, std, KarrasSchedule(0.002, 800.0)

    def forward(self, x_t, t, **kwargs):
        _, sigma = self.schedule(t)
        gain = (self.std**2 / (self.std**2 + sigma**2)).to(x_t)
        return DiracPosterior(mean=self.mean + gain * (x_t - self.mean))


def test_what_is_expected_before_anything_is_drawn(pair, model) -> None:
    coarse, _ = pair
    given = model.conditions(coarse.t2m.values[:2, None], np.zeros(2))
    found = expected_residual(Known(0.3, 0.5), given)
    # noise at the level that is asked leaves 0.5^2 / (0.5^2 + 20^2) of the way to 0
    torch.testing.assert_close(found, torch.full_like(found, 0.3), rtol=1e-3, atol=0)


def test_calibration_widens_about_the_mean(pair, model, monkeypatch) -> None:
    """Of ensembles of half the width that they should have; the mean stays where it is."""
    coarse, fine = pair
    monkeypatch.setattr(type(model), "prior", lambda self, given: Known(0.2, 0.25))
    model = model.replaced(scaling=replace(model.scaling, spread=np.ones(2)))
    left = model.scaling.residual_scale(torch.zeros(1)).numpy()
    rng = np.random.default_rng(0)
    pairs = pairs_of(coarse, fine, model.spec, model.target)
    given = model.conditions(pairs.coarse, pairs.seconds)
    noise = 0.2 + 0.5 * rng.standard_normal((len(pairs), *left.shape[:1], 12, 16))
    truth = model.scaling.unscaled(given.mean + torch.as_tensor(left * noise), given.departed)
    known = Pairs(pairs.coarse, truth.float().numpy(), pairs.seconds, None)
    wider = calibrated_on(model, known, members=8, seed=0)
    assert list(wider.target.spec.channel_labels) == ["pr", "t2m"]
    # 16 states of 192 points that are independent; precipitation is not Gaussian
    assert abs(wider.scaling.spread[1] - 2) < 0.1
    assert abs(wider.scores["calibration"]["factor"]["t2m"] - 2) < 0.1
    one, two = (
        coarse.isel(time=[0]).appa.downscale(m, members=200, seed=0, progress=False).t2m
        for m in (model, wider)
    )
    # eighteen Euler steps miss the mean by a twentieth of the spread
    assert abs(float((one - two).mean())) < 0.1 * float(two.std("member").mean())


HOUR = np.timedelta64(1, "h")


def without(ds: xr.Dataset, name: str) -> xr.Dataset:
    """A Dataset of whose fourth state a variable is missing."""
    return ds.assign({name: ds[name].where(ds.time != ds.time[3])})


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda c, f: (c.isel(latitude=slice(2)), f), GridMismatchError, "does not cover"),
        (lambda c, f: (c, f.assign_coords(time=f.time + HOUR)), DataError, "no times"),
        (lambda c, f: (c, f.convert_calendar("noleap")), TimeStepError, "calendars"),
        (lambda c, f: (without(c, "t2m"), f), DataError, "coarse states have missing"),
        (lambda c, f: (c, without(f, "t2m")), DataError, r"fine states[\s\S]*state 3 of"),
        (lambda c, f: (c, f.assign(orog=f.orog.where(f.orog > 100))), DataError, "orog: a static"),
        (lambda c, f: (c, f.assign(pr=0 * f.pr)), DataError, "pr: fine fields that do not vary"),
    ],
)
def test_data_that_do_not_go_together(pair, change, error, match) -> None:
    with pytest.raises(error, match=match):
        xappa.train_downscaler(*change(*pair), CONFIG, progress=False)


def test_assimilate_forecast_downscale(pair, model) -> None:
    coarse, _ = pair
    prior = xappa.fit_gaussian(coarse, modes=4)
    network = xappa.observe.random_stations(coarse, 3, variable="t2m", error=0.5, seed=0)
    window = coarse.isel(time=slice(4))
    obs = window.appa.observe(network, seed=0)
    analysis = window.appa.assimilate(obs, prior, members=3, seed=0)
    forecast = analysis.appa.forecast(prior, lead="12h", seed=0)
    fine = forecast.appa.downscale(model, **DRAW)
    assert fine.sizes == {"member": 3, "time": 2, "latitude": 12, "longitude": 16}
    xr.testing.assert_equal(fine.lead_time, forecast.lead_time)
    xr.testing.assert_equal(fine.init_time, forecast.init_time)
    xr.testing.assert_equal(fine.member, forecast.member)
    assert fine.attrs["history"].count("xappa: ") == 3
    twice = forecast.appa.downscale(model, members=6, **DRAW)
    np.testing.assert_allclose(twice.t2m[:3], fine.t2m, rtol=1e-5)  # then further copies
    with pytest.raises(xappa.errors.MembersError, match="multiple"):
        forecast.appa.downscale(model, members=4, **DRAW)
