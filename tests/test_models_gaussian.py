"""The EOF-Gaussian prior: what is fitted is what the data hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.errors import ArgumentError, DataError, GuessWarning
from xappa.grid import Grid
from xappa.models.climatology import SeasonalTerms, regress
from xappa.models.eof import autocovariance, expand, segments
from xappa.models.localisation import correlation_factors, gaspari_cohn, localise
from xappa.models.tuning import Candidates, Training, choose

DAY = 86400.0


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=120)


def test_variance_is_right_at_every_point(weather) -> None:
    model = xappa.fit_gaussian(weather, modes=4)
    terms = model.climatology.terms
    seconds = (weather.time.values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    design = terms.design(seconds)
    x = weather.t2m.values.reshape(len(design), -1).astype(float)
    anomalies = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
    expected = (anomalies**2).sum(0) / (len(x) - design.shape[1])
    # EOFs and residual are kept in float32.
    np.testing.assert_allclose(model.std**2, expected, rtol=1e-5)
    assert model.residual.max() > 0.01 * expected.max()


def test_inflation_multiplies_every_variance(weather) -> None:
    plain, inflated = (xappa.fit_gaussian(weather, modes=4, inflation=k) for k in (1.0, 1.5))
    np.testing.assert_allclose(inflated.std**2, 1.5 * plain.std**2, rtol=1e-6)


def test_eofs_are_orthogonal_and_components_standardised(weather) -> None:
    rng = np.random.default_rng(0)
    anomalies = rng.standard_normal((50, 30)) @ rng.standard_normal((30, 30))
    anomalies -= anomalies.mean(0)
    weight = rng.uniform(0.5, 2.0, 30)
    found = expand(anomalies, weight, 8, freedom=49)
    gram = found.eofs.T @ (weight[:, None] * found.eofs)
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9)
    assert (np.diff(np.diag(gram)) <= 1e-9).all()
    np.testing.assert_allclose(found.components.T @ found.components / 50, np.eye(8), atol=1e-10)
    complete = expand(anomalies, weight, 30, freedom=49)
    np.testing.assert_allclose(
        complete.components @ complete.eofs.T * np.sqrt(49 / 50), anomalies, atol=1e-9
    )
    np.testing.assert_allclose(complete.residual, 0.0, atol=1e-9)


@pytest.mark.parametrize("tall", [True, False])
def test_blockwise_eofs_agree_with_dense_ones(tall) -> None:
    da = pytest.importorskip("dask.array")
    rng = np.random.default_rng(1)
    shape = (200, 40) if tall else (40, 200)
    anomalies = rng.standard_normal((shape[0], 10)) @ rng.standard_normal((10, shape[1]))
    anomalies += 0.01 * rng.standard_normal(shape)
    weight = rng.uniform(0.5, 2.0, shape[1])
    dense = expand(anomalies, weight, 5, freedom=shape[0])
    blocks = expand(da.from_array(anomalies, chunks=(25, -1)), weight, 5, freedom=shape[0])
    np.testing.assert_allclose(blocks.variance, dense.variance, rtol=1e-10)
    # Singular vectors are known up to their sign; the power iterations converge to 1e-6 here.
    np.testing.assert_allclose(
        blocks.eofs @ blocks.eofs.T, dense.eofs @ dense.eofs.T, atol=1e-6 * np.abs(dense.eofs).max()
    )


def test_lazy_training_data_give_the_same_prior(weather) -> None:
    eager = xappa.fit_gaussian(weather, modes=4)
    lazy = xappa.fit_gaussian(weather.chunk(time=30), modes=4)
    np.testing.assert_allclose(lazy.std, eager.std, rtol=1e-5)
    np.testing.assert_allclose(
        lazy.climatology.coefficients, eager.climatology.coefficients, rtol=1e-5, atol=1e-5
    )


def test_climatology_recovers_cycles_exactly() -> None:
    seconds = np.arange(0, 730 * DAY, 6 * 3600.0)
    terms = SeasonalTerms.choose(seconds, "noleap", 6 * 3600.0)
    assert (terms.diurnal, terms.nyquist, terms.annual) == (2, True, 2)
    day, year = (seconds % DAY) / DAY, (seconds % (365 * DAY)) / (365 * DAY)
    truth = (
        280.0
        + 10 * np.cos(2 * np.pi * (year - 0.5))
        + (3 + 2 * np.cos(2 * np.pi * year)) * np.sin(2 * np.pi * day)
        + 0.5 * np.cos(4 * np.pi * day)
    )
    coefficients = regress(truth[None, :, None], seconds, terms)
    np.testing.assert_allclose(terms.design(seconds) @ coefficients, truth[:, None], atol=1e-8)


@pytest.mark.parametrize(
    ("days", "hours", "expected"),
    [
        (24, 1, (3, False, 0)),  # a month of hours: the diurnal cycle alone
        (30, 12, (1, True, 0)),  # noon and midnight: a cosine
        (3, 1, (0, False, 0)),  # three days tell no cycle
        (800, 24, (0, False, 2)),  # daily means: the annual cycle alone
    ],
)
def test_harmonics_follow_from_the_sampling(days, hours, expected) -> None:
    seconds = np.arange(0, days * DAY, hours * 3600.0)
    terms = SeasonalTerms.choose(seconds, "standard", hours * 3600.0)
    assert (terms.diurnal, terms.nyquist, terms.annual) == expected
    design = terms.design(seconds)
    assert np.linalg.matrix_rank(design) == design.shape[1]


def test_autocovariance_is_positive_semidefinite_and_skips_gaps() -> None:
    rng = np.random.default_rng(2)
    z = rng.standard_normal((2, 12, 3)).cumsum(axis=1)
    runs = segments(np.r_[0:5, 9:16].astype(float), 1.0)
    assert [(run.start, run.stop) for run in runs] == [(0, 5), (5, 12)]
    for shrinkage in (0.0, 0.5, 1.0):
        gamma = autocovariance(z, runs, 4, shrinkage)
        toeplitz = np.block(
            [[gamma[i - j] if i >= j else gamma[j - i].T for j in range(4)] for i in range(4)]
        )
        assert np.linalg.eigvalsh(toeplitz).min() > -1e-10
    lag1 = sum(z[b, run][1:].T @ z[b, run][:-1] for b in range(2) for run in runs) / 24
    np.testing.assert_allclose(autocovariance(z, runs, 2, 0.0)[1], lag1)


def test_gaspari_cohn() -> None:
    r = np.linspace(0, 1500, 301)
    rho = gaspari_cohn(r, 1000.0)
    assert rho[0] == 1.0
    assert (np.diff(rho) <= 1e-12).all()
    assert not rho[r >= 1000].any()
    # Their equation 4.10 at z = c: 5/24.
    np.testing.assert_allclose(gaspari_cohn(np.array([500.0]), 1000.0), 5 / 24)


def test_correlation_factors_reproduce_the_correlation() -> None:
    grid = Grid(np.linspace(60, 50, 9), np.linspace(-10, 4, 11))
    factors = correlation_factors(grid, 1.5e6)
    np.testing.assert_allclose(np.einsum("jn,jn->n", factors, factors), 1.0)
    np.testing.assert_allclose(factors.T @ factors, gaspari_cohn(grid.distance(), 1.5e6), atol=0.01)


def test_localisation_is_the_schur_product() -> None:
    grid = Grid(np.linspace(60, 50, 5), np.linspace(-10, 4, 6))
    rng = np.random.default_rng(3)
    eofs = rng.standard_normal((60, 4))  # two channels
    gamma = np.stack([np.eye(4), np.diag([0.9, 0.5, 0.2, 0.1]) + 0.05])
    factors = correlation_factors(grid, 2e6, trace=1 - 1e-12)
    new, projected = localise(eofs, gamma, np.ones(60), factors, modes=59)
    rho = np.tile(factors.T @ factors, (2, 2))
    for lag in range(2):
        expected = rho * (eofs @ gamma[lag] @ eofs.T)
        got = new @ projected[lag] @ new.T
        # 59 of 60 eigenvectors: what the smallest carries is left out.
        np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())
    np.testing.assert_allclose(projected[0], np.eye(len(projected[0])), atol=1e-8)


def test_a_localised_prior_keeps_its_variance(weather) -> None:
    plain = xappa.fit_gaussian(weather, modes=6)
    local = xappa.fit_gaussian(weather, modes=6, localisation="2000 km")
    np.testing.assert_allclose(local.std, plain.std, rtol=1e-5)
    assert local.latent_size == 12
    assert local.provenance["localisation"] == 2e6


def test_cross_validation_prefers_what_made_the_data() -> None:
    # Independent points: any correlation is spurious, and localisation must be chosen.
    rng = np.random.default_rng(4)
    seconds = np.arange(160) * 3600.0
    states = rng.standard_normal((1, 160, 12))
    longitude = np.linspace(0, 60, 12)
    training = Training(
        states, seconds, 3600.0, SeasonalTerms(), np.ones(12), np.full(12, 50.0), longitude
    )
    candidates = Candidates([None, 2e5], [0.5], [1.0, 1.2])
    assert choose(training, 8, 2, candidates).radius == 2e5
    # States whose variance is four times larger than the weights suggest need no inflation at all.
    scaled = Training(
        2 * states, seconds, 3600.0, SeasonalTerms(), np.ones(12), np.full(12, 50.0), longitude
    )
    assert choose(scaled, 8, 2, Candidates([2e5], [0.5], [1.0, 3.0])).inflation == 1.0


def test_automatic_choices_need_enough_data(weather) -> None:
    with pytest.warns(GuessWarning, match="20 times are too few to choose localisation"):
        model = xappa.fit_gaussian(weather.isel(time=slice(20)), modes=4, localisation="auto")
    assert model.provenance["localisation"] is None


def test_denoiser_and_autoencoder_are_parts_of_the_bundle(weather) -> None:
    model = xappa.fit_gaussian(weather, modes=4)
    z = torch.randn(3, 4, dtype=torch.float64)
    back = model.autoencoder.encode(model.autoencoder.decode(z))
    torch.testing.assert_close(back, z, rtol=1e-5, atol=1e-5)  # float32 EOFs
    x_t = torch.randn(2, model.blanket, 4, dtype=torch.float64)
    t = torch.tensor(0.5, dtype=torch.float64)
    assert model.denoiser(x_t, t).mean.shape == x_t.shape


def test_encode_fills_gaps_with_what_is_expected(weather) -> None:
    model = xappa.fit_gaussian(weather, modes=40)  # nothing is left to the residual but noise
    state = weather.t2m.values[:1, None].astype(float)
    seconds = np.array([978307200.0])
    whole = model.encode_array(state, seconds)
    gappy = state.copy()
    gappy[..., ::3, ::2] = np.nan
    filled = model.decode_array(model.encode_array(gappy, seconds), seconds)
    hidden = np.isnan(gappy)
    error = np.sqrt(((filled - state)[hidden] ** 2).mean())
    assert error < 0.6 * model.std.mean()
    assert np.isfinite(whole).all()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"modes": 0}, ArgumentError, r"modes is out of range[\s\S]*at least 1"),
        ({"blanket": 0}, ArgumentError, "blanket is out of range"),
        ({"blanket": 1000}, ArgumentError, r"longer than the training data[\s\S]*at most 120"),
        ({"inflation": -1.0}, ArgumentError, "inflation is out of range"),
        ({"shrinkage": 2.0}, ArgumentError, "from 0 to 1"),
    ],
)
def test_arguments_are_checked(weather, change, error, match) -> None:
    with pytest.raises(error, match=match):
        xappa.fit_gaussian(weather, **change)


def test_bad_training_data(weather) -> None:
    gaps = weather.copy(deep=True)
    gaps.t2m[3, 2, 2] = np.nan
    with pytest.raises(DataError, match=r"missing at some times[\s\S]*interpolate_na"):
        xappa.fit_gaussian(gaps)
    with pytest.raises(DataError, match="every value is missing"):
        xappa.fit_gaussian(weather.where(weather.t2m < 0))
    with pytest.raises(DataError, match="do not vary"):
        xappa.fit_gaussian(weather.isel(time=[0] * 6).assign_coords(time=weather.time[:6]) * 0)
    with pytest.raises(DataError, match=r"single state of a region[\s\S]*more times"):
        xappa.fit_gaussian(weather.isel(time=[0]))


def test_points_that_are_never_there_stay_away(weather) -> None:
    land = weather.where(weather.longitude > -6)
    model = xappa.fit_gaussian(land, modes=4)
    back = land.appa.encode(model).appa.decode(model)
    np.testing.assert_array_equal(back.t2m.isnull(), land.t2m.isnull())
