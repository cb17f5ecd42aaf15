"""Quality control: what is wrong is found, what is right is kept, and all of it is counted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import xappa
from xappa.errors import ArgumentError
from xappa.tasks.quality import QualityControl, _agreeing, _tests, _weights

pytestmark = pytest.mark.filterwarnings("ignore::xappa.errors.DepartureWarning")


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=80)


@pytest.fixture(scope="module")
def model(weather):
    return xappa.fit_gaussian(weather.isel(time=slice(60)), modes=6)


@pytest.fixture(scope="module")
def day(weather) -> xr.Dataset:
    return weather.isel(time=slice(64, 72))


@pytest.fixture(scope="module")
def obs(day) -> xr.DataArray:
    network = xappa.observe.random_stations(day, 12, variable="t2m", error=0.3, seed=0)
    return day.appa.observe(network, seed=0)


def broken(obs: xr.DataArray, share: float = 0.06) -> tuple[xr.DataArray, np.ndarray]:
    rng = np.random.default_rng(5)
    wrong = rng.uniform(size=obs.shape) < share
    return obs + 15.0 * np.where(wrong, rng.choice([-1, 1], obs.shape), 0), wrong


def covariance(n: int, seed: int = 0) -> np.ndarray:
    a = np.random.default_rng(seed).standard_normal((n, n))
    return a @ a.T / n + 0.1 * np.eye(n)


def test_the_test_is_that_of_leaving_one_out() -> None:
    """Against solving the system anew without each observation."""
    s, d = covariance(8), np.random.default_rng(1).standard_normal(8)
    e, variance = _tests(d, s)
    for i in range(8):
        rest = np.delete(np.arange(8), i)
        gain = np.linalg.solve(s[np.ix_(rest, rest)], s[rest, i])
        np.testing.assert_allclose(e[i], d[i] - gain @ d[rest])
        np.testing.assert_allclose(variance[i], s[i, i] - gain @ s[rest, i])


def test_an_outlier_does_not_take_its_neighbours_along() -> None:
    """Ten nearly equal departures and one that is far off: it alone goes."""
    s = np.full((11, 11), 1.0) + 0.01 * np.eye(11)
    d = np.full(11, 0.5)
    d[3] = 3.0
    good = _agreeing(d, s, 4.0)
    assert list(np.flatnonzero(~good)) == [3]
    assert _agreeing(d, s, 100.0).all()


def test_few_of_what_is_right_are_rejected() -> None:
    """Departures from the distribution that they are tested against: 1 in 16000 beyond 4."""
    s = covariance(50)
    root = np.linalg.cholesky(s)
    rng = np.random.default_rng(2)
    lost = [np.sum(~_agreeing(root @ rng.standard_normal(50), s, 4.0)) for _ in range(100)]
    assert np.sum(lost) <= 3


@pytest.mark.parametrize(
    ("control", "far"),
    [
        (QualityControl(likelihood="huber"), lambda t: 1.5 / t),
        (QualityControl(likelihood="student-t"), lambda t: 5 / (4 + t**2)),
    ],
)
def test_robust_weights(control, far) -> None:
    """Independent departures: the weight is the formula's, of the error that is claimed."""
    d = np.array([0.5, -1.0, 4.0, 8.0])
    w = _weights(d, np.diag(np.full(4, 1.0)), np.full(4, 0.3), control)
    np.testing.assert_allclose(w[2:], far(np.abs(d[2:])))
    assert (w[:2] >= 0.99).all()
    assert _weights(d, np.eye(4), np.full(4, 0.3), QualityControl()).tolist() == [1.0] * 4


def test_gross_errors_are_rejected_and_counted(model, day, obs) -> None:
    bad, wrong = broken(obs)
    control = QualityControl()
    settings = {"members": 8, "seed": 0}
    clean = day.appa.assimilate(obs, model, **settings)
    plain = day.appa.assimilate(bad, model, **settings)
    ens = day.appa.assimilate(bad, model, quality_control=control, **settings)
    (counts,) = json.loads(ens.attrs["xappa_observations"]).values()
    rejected = counts.get("departure", 0) + counts.get("background", 0)
    assert abs(rejected - wrong.sum()) <= 2
    assert json.loads(ens.attrs["xappa_quality_control"])["departure"] == 4.0
    errors = [float(xappa.verify.rmse(e.t2m, day.t2m)) for e in (clean, plain, ens)]
    assert errors[1] - errors[2] > 0.9 * (errors[1] - errors[0])


def test_good_observations_change_little(model, day, obs) -> None:
    settings = {"members": 4, "seed": 0}
    ens = day.appa.assimilate(obs, model, quality_control=QualityControl(), **settings)
    (counts,) = json.loads(ens.attrs["xappa_observations"]).values()
    assert counts.get("departure", 0) <= 1


def test_a_robust_likelihood_withstands_what_is_not_rejected(model, day, obs) -> None:
    bad, _ = broken(obs)
    settings = {"members": 8, "seed": 0}
    plain = day.appa.assimilate(bad, model, **settings)
    control = QualityControl(gross=False, background=None, departure=None, likelihood="student-t")
    ens = day.appa.assimilate(bad, model, quality_control=control, **settings)
    before, after = (float(xappa.verify.rmse(e.t2m, day.t2m)) for e in (plain, ens))
    assert after < 0.6 * before


def test_lazy_data_are_controlled_too(model, day, obs) -> None:
    bad, _ = broken(obs)
    settings = {"members": 2, "seed": 0, "quality_control": QualityControl()}
    eager = day.appa.assimilate(bad, model, **settings)
    lazy = day.chunk(time=3).appa.assimilate(bad, model, **settings)
    assert lazy.t2m.chunks is not None
    xr.testing.assert_allclose(lazy.compute().t2m, eager.t2m)


def test_a_learned_prior_knows_the_climatology(weather, day, obs) -> None:
    sizes = xappa.AppaTraining(
        (8, 12),
        (1, 1),
        2,
        blanket=4,
        channels=16,
        blocks=1,
        heads=2,
        autoencoder_steps=40,
        denoiser_steps=20,
        batch=8,
    )
    learned = xappa.train(weather.isel(time=slice(60)), sizes, seed=0, progress=False)
    bad = obs.copy()
    bad[0, 0] += 300.0
    ens = day.appa.assimilate(
        bad,
        learned,
        members=1,
        seed=0,
        quality_control=QualityControl(),
        sampler=xappa.Sampler("ddim", 2),
        progress=False,
    )
    (counts,) = json.loads(ens.attrs["xappa_observations"]).values()
    assert counts["gross error"] == 1
    assert counts["used"] > 0.9 * obs.size


@pytest.mark.parametrize(
    "change",
    [
        {"departure": 0},
        {"departure": "strict"},
        {"likelihood": "cauchy"},
        {"freedom": -1.0},
        {"thinning": "far"},
        {"superobbing": -1.0},
        {"superobbing": "50 km", "thinning": "50 km"},
        {"period": "soon"},
        {"gross": "yes"},
    ],
)
def test_controls_that_cannot_be(change) -> None:
    with pytest.raises(ArgumentError, match=f"bad {next(iter(change))}"):
        QualityControl(**change)


def test_cycles_check_against_their_forecast(model, weather) -> None:
    """An error that the climatology allows stands out against the forecast from 6 h before."""
    window = weather.isel(time=slice(40, 48))
    network = xappa.observe.random_stations(window, 12, variable="t2m", error=0.2, seed=3)
    bad = window.appa.observe(network, seed=3)
    bad[5, 4] += 5.0
    settings = {
        "start": window.time.values[0],
        "stop": window.time.values[-1],
        "step": "6h",
        "members": 2,
        "seed": 0,
    }
    rejected = []
    for control in (None, QualityControl()):
        counts = [
            json.loads(analysis.attrs["xappa_observations"])["t2m"]
            for analysis in xappa.cycle(model, bad, quality_control=control, **settings)
        ]
        rejected.append([c.get("departure", 0) + c.get("background", 0) for c in counts])
    assert sum(rejected[0]) == 0
    assert rejected[1][5] == 1
    assert sum(rejected[1]) <= 2
