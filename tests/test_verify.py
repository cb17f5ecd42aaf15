"""Scores against hand-worked tables, closed forms and calibrated ensembles."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from xarray.tests import raise_if_dask_computes

from xappa import errors, verify
from xappa.units import difference_units
from xappa.verify.pairing import pair

pytest.importorskip("scores", reason="the extra verify is not installed")


def gaussian_ensemble(members, n, seed=0):
    """An ensemble and a truth that are exchangeable: all drawn around the same centre."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(0.0, 3.0, n)
    draws = centre + rng.normal(0.0, 1.0, (members + 1, n))
    truth = xr.DataArray(draws[0], dims="time", name="t", attrs={"units": "K"})
    ensemble = xr.DataArray(draws[1:], dims=("member", "time"), name="t", attrs={"units": "K"})
    return ensemble, truth


def grid_field(values, latitude, longitude, **attrs):
    coords = {
        "latitude": ("latitude", latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": (
            "longitude",
            longitude,
            {"standard_name": "longitude", "units": "degrees_east"},
        ),
    }
    return xr.DataArray(values, coords, ("latitude", "longitude"), name="t", attrs=attrs)


class TestHandWorked:
    """Two times, three members; every number can be checked on paper."""

    fcst = xr.DataArray(
        [[1.0, 10.0], [2.0, 14.0], [6.0, 12.0]], dims=("member", "time"), name="t2m"
    )  # means 3, 12; variances 7, 4
    obs = xr.DataArray([1.0, 16.0], dims="time", name="t2m")

    @pytest.mark.parametrize(
        ("score", "expected"),
        [
            (verify.rmse, np.sqrt((2.0**2 + 4.0**2) / 2)),
            (verify.bias, (2.0 - 4.0) / 2),
            # |x - y| averages to 2 and 4, |x - x'| to 10/3 and 8/3, half of which is taken off.
            (verify.crps, ((2.0 - 5.0 / 3.0) + (4.0 - 4.0 / 3.0)) / 2),
            (verify.spread, np.sqrt((7.0 + 4.0) / 2)),
            (verify.spread_skill, np.sqrt((7.0 + 4.0) / 2 * 4 / 3 / 10.0)),
        ],
    )
    def test_scores(self, score, expected):
        assert float(score(self.fcst, self.obs)) == pytest.approx(expected, rel=1e-14)

    @pytest.mark.parametrize("dims", [{"preserve_dims": "time"}, {"reduce_dims": []}])
    def test_kept_dimensions(self, dims):
        np.testing.assert_allclose(verify.rmse(self.fcst, self.obs, **dims), [2.0, 4.0])
        np.testing.assert_allclose(verify.spread(self.fcst, self.obs, **dims), np.sqrt([7.0, 4.0]))

    def test_missing_values_are_left_out_everywhere(self):
        obs = self.obs.where([True, False])
        assert float(verify.rmse(self.fcst, obs)) == pytest.approx(2.0)
        assert float(verify.spread(self.fcst, obs)) == pytest.approx(np.sqrt(7.0))
        assert float(verify.spread(self.fcst)) == pytest.approx(np.sqrt(5.5))
        assert float(verify.spread_skill(self.fcst, obs)) == pytest.approx(np.sqrt(7 * 4 / 3) / 2)

    def test_a_single_forecast_has_absolute_error_as_crps(self):
        single = self.fcst.mean("member")
        assert float(verify.crps(single, self.obs)) == pytest.approx(3.0)
        assert float(verify.rmse(single, self.obs)) == pytest.approx(np.sqrt(10.0))

    def test_weights_given_by_the_caller(self):
        weights = xr.DataArray([3.0, 1.0], dims="time")
        assert float(verify.bias(self.fcst, self.obs, weights=weights)) == pytest.approx(0.5)

    def test_rank_histogram_shares_ties(self):
        # Rank 1 or 2 (equals the lowest member), and rank 4.
        histogram = verify.rank_histogram(self.fcst, self.obs)
        np.testing.assert_allclose(histogram, [0.25, 0.25, 0.0, 0.5])
        np.testing.assert_array_equal(histogram["rank"], [1, 2, 3, 4])

    def test_rank_histogram_agrees_with_scores(self):
        from scores.probability import rank_histogram

        rng = np.random.default_rng(0)  # integers, so that there are ties
        fcst = xr.DataArray(rng.integers(0, 6, (5, 40, 3)), dims=("member", "time", "x")) * 1.0
        obs = (fcst[0] + rng.integers(-2, 3, (40, 3))).where(lambda o: o != 4)
        weights = xr.DataArray([1.0, 2.0, 0.5], dims="x")
        ours = verify.rank_histogram(fcst, obs, weights=weights)
        np.testing.assert_allclose(ours, rank_histogram(fcst, obs, "member", weights=weights))

    def test_observation_error_belongs_to_the_spread(self):
        ratio = verify.spread_skill(self.fcst, self.obs, error=3.0)
        assert float(ratio) == pytest.approx(np.sqrt((5.5 * 4 / 3 + 9.0) / 10.0))

    def test_table(self):
        frame = verify.table({"ensemble": self.fcst, "mean": self.fcst.mean("member")}, self.obs)
        assert list(frame.columns) == ["rmse", "bias", "crps", "spread_skill"]
        assert frame.loc["ensemble", "rmse"] == frame.loc["mean", "rmse"] == np.sqrt(10.0)
        assert np.isnan(frame.loc["mean", "spread_skill"])

    def test_table_of_datasets_has_a_row_for_each_variable(self):
        fcst, obs = (a.to_dataset().assign(u=2 * a) for a in (self.fcst, self.obs))
        frame = verify.table({"ens": fcst, "mean": fcst.mean("member")}, obs)
        assert frame.loc[("ens", "u"), "rmse"] == pytest.approx(2 * np.sqrt(10.0))
        assert frame.loc[("ens", "u"), "spread_skill"] == frame.loc[("ens", "t2m"), "spread_skill"]
        assert np.isnan(frame.loc[("mean", "u"), "spread_skill"])

    def test_rows_do_not_depend_on_the_first_score(self):
        fcst, obs = (a.to_dataset() for a in (self.fcst, self.obs))
        single = fcst.mean("member")
        frame = verify.table({"single": single, "ens": fcst}, obs, scores=("spread_skill", "rmse"))
        assert list(frame.index) == [("single", "t2m"), ("ens", "t2m")]
        assert frame.loc[("single", "t2m"), "rmse"] == pytest.approx(np.sqrt(10.0))
        assert np.isnan(frame.loc[("single", "t2m"), "spread_skill"])
        frame = verify.table({"single": single}, obs, scores=("spread", "rmse"))
        assert frame.shape == (1, 2)
        mixed = fcst.assign(u=single.t2m)  # a variable without members beside one with
        frame = verify.table(mixed, obs.assign(u=obs.t2m), scores=("spread", "rmse"))
        assert frame["spread"].isna().tolist() == [False, True]

    def test_table_of_one_forecast(self):
        assert list(verify.table(self.fcst, self.obs, scores=("rmse",)).index) == ["forecast"]
        frame = verify.table(self.fcst.to_dataset(), self.obs.to_dataset(), scores=("rmse",))
        assert list(frame.index) == [("forecast", "t2m")]
        assert frame.iloc[0, 0] == pytest.approx(np.sqrt(10.0))


class TestClosedForms:
    def test_crps_of_a_gaussian_ensemble(self):
        # E CRPS(N(0, s²), y) with y ~ N(0, 1): √((1 + s²) 2/π) - s/√π (Gneiting & Raftery 2007).
        rng, s, n = np.random.default_rng(1), 1.5, 40_000
        obs = xr.DataArray(rng.normal(size=n), dims="time")
        expected = np.sqrt((1 + s**2) * 2 / np.pi) - s / np.sqrt(np.pi)
        for members in (2, 5, 40):  # fair: no dependence on the number of members
            fcst = xr.DataArray(s * rng.normal(size=(members, n)), dims=("member", "time"))
            # One case has a standard deviation below 1.3; five standard errors.
            assert float(verify.crps(fcst, obs)) == pytest.approx(
                expected, abs=5 * 1.3 / np.sqrt(n)
            )

    @pytest.mark.parametrize("members", [2, 5, 20])
    def test_spread_skill_of_exchangeable_members_is_one(self, members):
        ensemble, truth = gaussian_ensemble(members, 40_000)
        # Squared errors have a relative standard deviation of √2, the ratio half of it: five
        # standard errors, and some for the variance.
        assert float(verify.spread_skill(ensemble, truth)) == pytest.approx(1.0, abs=0.025)

    @pytest.mark.parametrize("error", [None, 0.7])
    def test_exchangeable_members_give_a_flat_rank_histogram(self, error):
        ensemble, truth = gaussian_ensemble(9, 20_000)
        obs = truth
        if error is not None:
            obs = truth + np.random.default_rng(5).normal(0.0, error, truth.size)
        counts = verify.rank_histogram(ensemble, obs, error=error, seed=3) * truth.size
        assert stats.chisquare(counts.values).pvalue > 1e-3
        assert float(counts.sum()) == pytest.approx(truth.size)

    def test_without_observation_error_the_histogram_would_be_u_shaped(self):
        ensemble, truth = gaussian_ensemble(9, 20_000)
        obs = truth + np.random.default_rng(5).normal(0.0, 1.0, truth.size)
        histogram = verify.rank_histogram(ensemble, obs)
        assert histogram[0] > 0.15
        assert histogram[-1] > 0.15

    def test_noise_of_a_member_does_not_depend_on_the_others(self):
        ensemble, truth = gaussian_ensemble(6, 500)
        far = 1e6 * xr.DataArray([1, 1, 1, 1], dims="member")
        few = verify.rank_histogram(ensemble[:2], truth, error=1.0, seed=1)
        many = ensemble.copy(data=ensemble.values)
        many[2:] = many[2:] + far
        more = verify.rank_histogram(many, truth, error=1.0, seed=1)
        np.testing.assert_allclose(more[:3], few)
        other = verify.rank_histogram(ensemble[:2], truth, error=1.0, seed=2)
        assert not np.allclose(other, few)

    def test_area_weights_are_exact_on_the_sphere(self):
        latitude, longitude = np.linspace(-90.0, 90.0, 37), np.arange(0.0, 360.0, 10.0)
        error = np.abs(np.sin(np.deg2rad(latitude)))[:, None] * np.ones(36)
        zero = grid_field(np.zeros_like(error), latitude, longitude)
        # ∫ |sin φ| cos φ dφ / ∫ cos φ dφ = 1/2; the midpoint rule is off by O(spacing²).
        assert float(verify.bias(zero + error, zero)) == pytest.approx(0.5, abs=1e-3)
        unweighted = verify.bias(zero + error, zero, weights=None)
        assert float(unweighted) == pytest.approx(error.mean())
        zonal = verify.bias(zero + error, zero, preserve_dims="latitude")
        np.testing.assert_allclose(zonal, error[:, 0])
        mean = verify.bias((zero + error).mean("longitude"), zero.mean("longitude"))
        assert float(mean) == pytest.approx(float(verify.bias(zero + error, zero)))


class TestLabels:
    latitude, longitude = np.array([50.0, 52.0, 54.0]), np.array([358.0, 359.5, 361.0])
    values = np.arange(9.0).reshape(3, 3)

    def test_orientation_convention_and_precision_do_not_matter(self):
        fcst = grid_field(self.values, self.latitude, self.longitude)
        west = grid_field(self.values, self.latitude, self.longitude - 360.0)
        other = west.isel(latitude=slice(None, None, -1)).transpose()
        other = other.assign_coords(latitude=other.latitude.astype("float32") + 1e-5)
        assert float(verify.rmse(fcst, other)) == 0.0

    def test_a_part_of_the_times_is_legal(self):
        fcst = xr.DataArray([1.0, 2.0], {"time": [10, 20]}, dims="time")
        obs = xr.DataArray([9.0, 2.0, 1.0], {"time": [0, 20, 10]}, dims="time")
        assert float(verify.rmse(fcst, obs)) == 0.0

    def test_a_partial_overlap_is_refused(self):
        fcst = xr.DataArray([1.0, 2.0], {"time": [10, 20]}, dims="time")
        with pytest.raises(errors.GridMismatchError, match="match only in part"):
            verify.rmse(fcst, fcst.assign_coords(time=[20, 30]))
        with pytest.raises(errors.GridMismatchError, match="3 without labels"):
            verify.rmse(fcst.drop_vars("time"), xr.DataArray(np.zeros(3), dims="time"))

    def test_units_are_converted_and_differences_are_in_kelvin(self):
        fcst = xr.DataArray([283.15], dims="time", name="t2m", attrs={"units": "K"})
        obs = xr.DataArray([8.0], dims="time", attrs={"units": "degC"})
        assert float(verify.bias(fcst, obs)) == pytest.approx(2.0)
        assert float(verify.bias(obs, fcst)) == pytest.approx(-2.0)
        assert verify.bias(obs, fcst).attrs["units"] == "K"
        with pytest.raises(errors.UnitsError):
            verify.bias(fcst, obs.assign_attrs(units="m"))
        assert difference_units("hPa") == "hPa"

    def test_quantified_input(self):
        pytest.importorskip("pint_xarray")
        fcst = xr.DataArray([2.0], dims="time", attrs={"units": "m"})
        obs = xr.DataArray([100.0], dims="time", attrs={"units": "cm"})
        bias = verify.bias(fcst.pint.quantify(), obs.pint.quantify())
        assert float(bias) == pytest.approx(1.0)

    def test_attributes_say_what_the_numbers_are(self):
        ensemble, truth = gaussian_ensemble(3, 4)
        ensemble.attrs["long_name"] = "temperature"
        score = verify.rmse(ensemble, truth)
        assert score.attrs == {"long_name": "root-mean-square error of temperature", "units": "K"}
        assert verify.spread_skill(ensemble, truth).attrs["units"] == "1"
        assert score.name == "t"

    @pytest.mark.parametrize("name", ["member", "number", "ensemble", "sample", "realization"])
    def test_members_are_found_by_name_or_metadata(self, name):
        ensemble, truth = gaussian_ensemble(3, 4)
        assert pair(ensemble.rename(member=name), truth).member == name
        labelled = ensemble.rename(member="e").assign_coords(
            e=("e", np.arange(3), {"standard_name": "realization"})
        )
        assert pair(labelled, truth).member == "e"

    def test_input_is_not_changed(self):
        ensemble, truth = gaussian_ensemble(3, 4)
        before = ensemble.copy(deep=True), truth.copy(deep=True)
        for score in (verify.rmse, verify.crps, verify.spread_skill, verify.rank_histogram):
            score(ensemble, truth)
        verify.departures(truth, ensemble, ensemble, error=1.0)
        xr.testing.assert_identical(ensemble, before[0])
        xr.testing.assert_identical(truth, before[1])

    def test_variables_of_datasets_may_differ_in_dimensions(self):
        fcst = xr.Dataset({"t": (("time", "level"), np.ones((2, 3))), "sp": ("time", [1.0, 1.0])})
        scores = verify.rmse(fcst, fcst * 0)
        assert float(scores.t) == float(scores.sp) == 1.0


@pytest.mark.parametrize(
    "score", [verify.rmse, verify.bias, verify.crps, verify.spread, verify.spread_skill]
)
def test_dask_stays_lazy_and_gives_the_same(score):
    ensemble, truth = gaussian_ensemble(4, 60)
    with raise_if_dask_computes():
        lazy = score(ensemble.chunk(member=1, time=20), truth.chunk(time=20))
    assert lazy.chunks is not None
    np.testing.assert_allclose(lazy, score(ensemble, truth), rtol=1e-12)


def test_rank_histogram_is_lazy_and_independent_of_chunks():
    ensemble, truth = gaussian_ensemble(4, 60)
    with raise_if_dask_computes():
        lazy = verify.rank_histogram(ensemble.chunk(member=2, time=7), truth, error=1.0)
    np.testing.assert_allclose(lazy, verify.rank_histogram(ensemble, truth, error=1.0))


class TestBadInput:
    ensemble, truth = gaussian_ensemble(3, 4)

    def test_dimensions(self):
        with pytest.raises(errors.ArgumentError, match="unknown dimension 'lat'"):
            verify.rmse(self.ensemble, self.truth, reduce_dims="lat")
        with pytest.raises(errors.ArgumentError, match="exclude each other"):
            verify.rmse(self.ensemble, self.truth, reduce_dims="time", preserve_dims="time")

    def test_weights(self):
        with pytest.raises(errors.ArgumentError, match="unknown weights"):
            verify.rmse(self.ensemble, self.truth, weights="cosine")

    def test_kinds(self):
        with pytest.raises(errors.ObservationTypeError, match="different kinds"):
            verify.rmse(self.ensemble.to_dataset(), self.truth)
        with pytest.raises(errors.VariableMismatchError, match="share no variable"):
            verify.rmse(self.ensemble.to_dataset(), self.truth.to_dataset(name="other"))

    @pytest.mark.parametrize("score", [verify.spread, verify.spread_skill, verify.rank_histogram])
    def test_no_ensemble(self, score):
        with pytest.raises(errors.CoordinateError, match="needs an ensemble"):
            score(self.truth, self.truth)
        with pytest.raises(errors.CoordinateError, match="needs an ensemble"):
            score(self.ensemble[:1], self.truth)

    def test_members_on_both_sides(self):
        with pytest.raises(errors.CoordinateError, match="have a member dimension"):
            verify.rmse(self.ensemble, self.ensemble)

    @pytest.mark.parametrize("score", [verify.rmse, verify.bias, verify.crps])
    def test_an_ensemble_is_no_truth(self, score):
        with pytest.raises(errors.CoordinateError, match="swap the arguments"):
            score(self.truth, self.ensemble)
        with pytest.raises(errors.CoordinateError, match="swap the arguments"):
            verify.table({"a": self.truth.to_dataset()}, self.ensemble.to_dataset())
        with pytest.raises(errors.CoordinateError, match="select a member"):
            score(self.ensemble, self.ensemble.rename(member="number"))

    def test_table_says_what_was_passed(self):
        with pytest.raises(
            errors.ObservationTypeError, match=r"forecast: a DataArray 't'; obs.*\['t'\]"
        ):
            verify.table({"a": self.ensemble}, self.truth.to_dataset())
        with pytest.raises(errors.ObservationTypeError, match="forecast: a ndarray"):
            verify.table({"a": self.ensemble.values}, self.truth)
        for wrong in ({}, [self.ensemble]):
            with pytest.raises(errors.ObservationTypeError, match="no forecasts by name"):
                verify.table(wrong, self.truth)

    def test_negative_error(self):
        for score in (verify.spread_skill, verify.rank_histogram):
            with pytest.raises(errors.ErrorCovarianceError, match="negative"):
                score(self.ensemble, self.truth, error=-1.0)

    def test_unknown_score(self):
        with pytest.raises(errors.ArgumentError, match="unknown score 'acc'"):
            verify.table({"a": self.ensemble}, self.truth, scores=("acc",))

    def test_missing_package(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "scores.continuous", None)
        with pytest.raises(errors.MissingDependencyError, match=r"xappa\[verify\]"):
            verify.rmse(self.ensemble, self.truth)


def test_axes_of_other_names_are_the_same_axes() -> None:
    """A forecast on ``pressure`` and a truth on ``level`` are not compared each with all."""
    rng = np.random.default_rng(0)
    about = {"standard_name": "air_pressure", "positive": "down"}
    fcst = xr.DataArray(
        rng.standard_normal((2, 3, 4, 5)),
        {
            "member": ("member", [0, 1], {"standard_name": "realization"}),
            "pressure": ("pressure", [250.0, 500.0, 850.0], {**about, "units": "hPa"}),
            "latitude": ("latitude", np.linspace(-60, 60, 4), {"units": "degrees_north"}),
            "longitude": ("longitude", np.linspace(0, 288, 5), {"units": "degrees_east"}),
        },
        name="t",
        attrs={"units": "K"},
    )
    truth = fcst.isel(member=0, drop=True) + 1.0
    other = truth.rename(pressure="level", latitude="lat", longitude="lon")
    other = other.assign_coords(
        level=("level", [25000.0, 50000.0, 85000.0], {**about, "units": "Pa"})
    )
    for score in (verify.rmse, verify.crps, verify.spread_skill):
        xr.testing.assert_allclose(score(fcst, other), score(fcst, truth))
    by_level = verify.rmse(fcst, other.isel(level=[2, 0]), preserve_dims="pressure")
    assert by_level.pressure.values.tolist() == [250.0, 850.0]
