"""The EOF-Gaussian prior: what is fitted is what the data hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.errors import ArgumentError, DataError, GuessWarning, XappaWarning
from xappa.grid import Grid
from xappa.models.climatology import SeasonalTerms, regress
from xappa.models.eof import autocovariance, expand, segments
from xappa.models.localisation import LocalisingCorrelation, gaspari_cohn, localise
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
    # One part in 50 of the variance is kept for what the next state would leave.
    np.testing.assert_allclose(
        complete.components @ complete.eofs.T * np.sqrt(49 / 50), anomalies * np.sqrt(49 / 50)
    )
    np.testing.assert_allclose(complete.residual, complete.variance / 50)


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
    # The same EOFs too, signs included: members then agree, not only their distribution.
    np.testing.assert_allclose(lazy.eofs, eager.eofs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        lazy.climatology.coefficients, eager.climatology.coefficients, rtol=1e-5, atol=1e-5
    )


def test_climatology_recovers_cycles_exactly() -> None:
    seconds = np.arange(0, 730 * DAY, 6 * 3600.0)
    terms = SeasonalTerms.choose(seconds, "noleap", 6 * 3600.0)
    assert (terms.diurnal, terms.nyquist, terms.annual) == (2, 0.0, 2)
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
        (24, 1, (3, None, 0)),  # a month of hours: the diurnal cycle alone
        (30, 12, (1, 0.0, 0)),  # noon and midnight: a cosine
        (3, 1, (0, None, 0)),  # three days tell no cycle
        (800, 24, (0, None, 2)),  # daily means: the annual cycle alone
    ],
)
def test_harmonics_follow_from_the_sampling(days, hours, expected) -> None:
    seconds = np.arange(0, days * DAY, hours * 3600.0)
    terms = SeasonalTerms.choose(seconds, "standard", hours * 3600.0)
    assert (terms.diurnal, terms.nyquist, terms.annual) == expected
    design = terms.design(seconds)
    assert np.linalg.matrix_rank(design) == design.shape[1]


def cycle(hours: np.ndarray) -> np.ndarray:
    """A diurnal cycle of 5 K with its crest at 15 UTC."""
    return 280 + 5 * np.cos(2 * np.pi * (hours - 15) / 24)


@pytest.mark.parametrize(
    ("hours", "diurnal", "nyquist"),
    [
        ((6, 18), 1, 0.25),  # the cosine from the first hour on, not from midnight
        ((3, 9, 15, 21), 2, 0.125),
        ((0, 6, 12), 0, None),  # a wave of 24 h is not seen from a gap of 12 h
        ((0, 6), 0, None),
        ((0, 3, 6, 9, 12, 15, 18), 1, None),
    ],
)
def test_diurnal_cycle_follows_from_the_hours_present(hours, diurnal, nyquist) -> None:
    time = (np.arange(20)[:, None] * 24 + np.array(hours)).ravel().astype(float)
    step = np.diff(time).min() * 3600
    terms = SeasonalTerms.choose(time * 3600, "standard", step)
    assert (terms.diurnal, terms.nyquist, terms.annual) == (diurnal, nyquist, 0)
    fitted = regress(cycle(time)[None, :, None], time * 3600, terms)
    if terms.diurnal:  # exact at the hours present
        np.testing.assert_allclose(terms.design(time * 3600) @ fitted, cycle(time)[:, None])
    # Never wild at the other hours.
    everywhere = terms.design(np.arange(24) * 3600.0) @ fitted
    assert np.abs(everywhere - 280).max() < 8


def test_januaries_tell_no_annual_cycle() -> None:
    days = np.concatenate([365 * year + np.arange(31) for year in range(5)])
    assert SeasonalTerms.choose(days * DAY, "noleap", DAY).annual == 0
    both = np.concatenate([days, days + 181])
    assert SeasonalTerms.choose(np.sort(both) * DAY, "noleap", DAY).annual == 1


def test_short_runs_do_not_weaken_persistence() -> None:
    """Pairs of states, each an AR(1) of coefficient 0.9, tell its autocorrelation."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((1, 4000, 1))
    second = 0.9 * first + np.sqrt(1 - 0.81) * rng.standard_normal(first.shape)
    z = np.stack([first, second], axis=2).reshape(1, -1, 1)
    runs = [slice(k, k + 2) for k in range(0, 8000, 2)]
    gamma = autocovariance(z, runs, 2, 1.0)
    np.testing.assert_allclose(gamma[1] / gamma[0], 0.9, atol=0.02)


def test_autocovariances_are_made_definite() -> None:
    """Two runs that do not fit together: lag 1 of the growing one exceeds the variance."""
    z = np.array([1.0, 1.0, 0.1, 0.1, 0.1, 0.1])[None, :, None]
    gamma = autocovariance(z, [slice(0, 2), *(slice(k, k + 1) for k in range(2, 6))], 2, 1.0)
    assert abs(gamma[1, 0, 0]) < gamma[0, 0, 0]


def test_few_states_leave_a_residual_and_say_so(weather) -> None:
    few = weather.isel(time=slice(None, None, 8)).isel(time=slice(12))
    with pytest.warns(XappaWarning, match="12 states are few to fit a prior to"):
        model = xappa.fit_gaussian(few)
    assert model.latent_size <= 4
    # The prior's variance is that of the data all the same, and some of it is no EOF's.
    variance = few.t2m.values.reshape(12, -1).astype(float).var(axis=0, ddof=1)
    np.testing.assert_allclose(model.std**2, variance, rtol=0.02)
    assert (model.residual > 0.05 * model.std**2).all()


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
    weak = z + 10 * rng.standard_normal(z.shape)  # so that the wanted estimate is definite
    lag1 = sum(weak[b, run][1:].T @ weak[b, run][:-1] for b in range(2) for run in runs) / 20
    np.testing.assert_allclose(autocovariance(weak, runs, 2, 0.0)[1], lag1)


def test_gaspari_cohn() -> None:
    r = np.linspace(0, 1500, 301)
    rho = gaspari_cohn(r, 1000.0)
    assert rho[0] == 1.0
    assert (np.diff(rho) <= 1e-12).all()
    assert not rho[r >= 1000].any()
    # Their equation 4.10 at z = c: 5/24.
    np.testing.assert_allclose(gaspari_cohn(np.array([500.0]), 1000.0), 5 / 24)


@pytest.mark.parametrize(
    ("grid", "radius"),
    [
        (Grid(np.linspace(60, 50, 9), np.linspace(-10, 4, 11)), 1.5e6),
        (Grid(np.linspace(60, 40, 61), np.linspace(-10, 20, 83)), 1.5e6),  # by interpolation
        (Grid(np.linspace(90, -90, 61), 3.0 * np.arange(120)), 8e6),  # 43 coarse longitudes
    ],
)
def test_localising_correlation(grid, radius) -> None:
    correlation = LocalisingCorrelation.of(grid, radius).dense()
    np.testing.assert_allclose(np.diag(correlation), 1.0)
    picked = np.random.default_rng(0).choice(grid.size, min(grid.size, 400), replace=False)
    expected = gaspari_cohn(grid.distance()[np.ix_(picked, picked)], radius)
    np.testing.assert_allclose(correlation[np.ix_(picked, picked)], expected, atol=0.02)


def test_localising_correlations_of_global_grids_of_any_size() -> None:
    for rows, columns in ((361, 720), (121, 241), (91, 180)):
        grid = Grid(np.linspace(90, -90, rows), np.arange(columns) * 360 / columns)
        correlation = LocalisingCorrelation.of(grid, 1e7)
        ones = correlation.times(np.ones(grid.size))
        # The weights of a correlation sum to its integral over the sphere, alike at all longitudes.
        by_row = ones.reshape(rows, columns)
        assert np.abs(by_row / by_row.mean(axis=1, keepdims=True) - 1).max() < 0.01


def test_localisation_is_the_schur_product() -> None:
    grid = Grid(np.linspace(60, 50, 5), np.linspace(-10, 4, 6))
    rng = np.random.default_rng(3)
    eofs = rng.standard_normal((60, 4))  # two channels
    gamma = np.stack([np.eye(4), np.diag([0.9, 0.5, 0.2, 0.1]) + 0.05])
    correlation = LocalisingCorrelation.of(grid, 2e6, trace=1 - 1e-12)
    new, projected = localise(eofs, gamma, np.ones(60), correlation, modes=59)
    rho = np.tile(correlation.dense(), (2, 2))
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
    assert local.provenance["localisation_metres"] == 2e6


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
    with pytest.warns(GuessWarning, match="40 times are too few to choose localisation"):
        model = xappa.fit_gaussian(weather.isel(time=slice(40)), modes=4, localisation="auto")
    assert model.provenance["localisation_metres"] is None


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
