"""Departures, the errors that they know, and the diagnostics of Desroziers et al."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xappa import errors, verify
from xappa.observe import random_stations
from xappa.testing import weather


class TestDesroziers:
    """A scalar linear-Gaussian problem in observation space, with and without the right weights."""

    n, background_variance, observation_variance = 200_000, 2.0, 0.5

    def departures(self, gain):
        rng = np.random.default_rng(7)
        truth = rng.normal(280.0, 5.0, self.n)
        x_b = truth + rng.normal(0.0, np.sqrt(self.background_variance), self.n)
        y = truth + rng.normal(0.0, np.sqrt(self.observation_variance), self.n)
        obs = xr.DataArray(y, dims="station", name="t2m", attrs={"units": "K"})
        equivalents = xr.zeros_like(obs) + x_b
        analysis = equivalents + gain * (obs - equivalents)
        return verify.departures(
            obs, equivalents, analysis, error=np.sqrt(self.observation_variance)
        )

    def test_right_weights_recover_all_variances(self):
        b, r = self.background_variance, self.observation_variance
        found = verify.desroziers(self.departures(b / (b + r))).sel(source="diagnosed")
        # Relative standard errors of second moments are below √(2/n) (b + r) / r = 1.6 %.
        assert float(found.observation_variance) == pytest.approx(r, rel=0.02)
        assert float(found.background_variance) == pytest.approx(b, rel=0.02)
        assert float(found.analysis_variance) == pytest.approx(b * r / (b + r), rel=0.04)
        assert float(found.innovation_variance) == pytest.approx(b + r, rel=0.02)
        assert float(found.background_bias) == pytest.approx(0.0, abs=0.02)
        assert found.observation_variance.attrs["units"] == "K2"

    def test_wrong_weights_show(self):
        found = verify.desroziers(self.departures(0.2))  # R = 4 B was assumed
        diagnosed = found.observation_variance.sel(source="diagnosed")
        assumed = found.observation_variance.sel(source="assumed")
        assert float(assumed) == pytest.approx(0.5)
        assert float(diagnosed) == pytest.approx(0.8 * 2.5, rel=0.02)

    def test_ensembles_bring_their_variances(self):
        rng = np.random.default_rng(2)
        obs = xr.DataArray(np.zeros(20_000), dims="station")
        ensemble = xr.DataArray(rng.normal(0.0, 2.0, (5, 20_000)), dims=("number", "station"))
        found = verify.departures(obs, ensemble, ensemble / 2)
        assert float(found.background_variance.mean()) == pytest.approx(4.0, rel=0.03)
        assert float(found.analysis_variance.mean()) == pytest.approx(1.0, rel=0.03)
        assert "observation_variance" not in found
        assert np.isnan(verify.desroziers(found).observation_variance.sel(source="assumed"))

    def test_operator_maps_states_to_equivalents(self):
        obs = xr.DataArray([3.0, np.nan], dims="station", name="speed", attrs={"units": "m s-1"})
        state = xr.Dataset({"u": ("station", [1.0, 2.0])})
        found = verify.departures(obs, state, state + 1, operator=lambda ds: ds.u.rename("speed"))
        np.testing.assert_array_equal(found.background_departure, [2.0, np.nan])
        np.testing.assert_array_equal(found.analysis_departure, [1.0, np.nan])
        assert found.background_departure.attrs["units"] == "m s-1"

    def test_departures_are_in_the_units_of_the_observations(self):
        obs = xr.DataArray([10.0], dims="station", attrs={"units": "degC"})
        kelvin = xr.DataArray([282.15], dims="station", attrs={"units": "K"})
        found = verify.departures(obs, kelvin, kelvin + 0.5).background_departure
        assert float(found[0]) == pytest.approx(1.0)
        assert found.attrs["units"] == "K"

    def test_the_error_comes_from_the_operator(self):
        day = weather(times=3)
        network = random_stations(day, 5, variable="t2m", error=0.5, seed=0)
        obs = day.appa.observe(network, seed=0).drop_vars("error_std", errors="ignore")
        obs = (obs - 273.15).assign_attrs({**obs.attrs, "units": "degC"})
        H = day.appa.operator(obs, error=0.7)
        found = verify.departures(obs, day, day, operator=H)
        np.testing.assert_allclose(found.observation_variance, 0.49)
        assert found.observation_variance.attrs["units"] == "K2"
        part = verify.departures(obs.isel(time=[1]), H(day), H(day), operator=H)
        np.testing.assert_allclose(part.observation_variance, 0.49)
        given = verify.departures(obs, day, day, operator=H, error=0.1)
        np.testing.assert_allclose(given.observation_variance, 0.01)
        assumed = verify.desroziers(found).observation_variance.sel(source="assumed")
        assert float(assumed) == pytest.approx(0.49)

    def test_the_error_comes_from_the_observations(self):
        obs = xr.DataArray([3.0, np.nan], dims="station", attrs={"units": "K"})
        labelled = obs.assign_coords(error_std=("station", [0.5, 2.0]))
        stated = obs.assign_attrs(error_std=0.5)
        modified = obs.assign_coords(
            e=("station", [50.0, 1.0], {"standard_name": "t standard_error", "units": "cK"})
        )
        for array in (labelled, stated, modified):
            variance = verify.departures(array, obs, obs).observation_variance
            np.testing.assert_allclose(variance, [0.25, np.nan])
        given = verify.departures(
            labelled, obs, obs, error=xr.DataArray([1.0, 1.0], dims="station")
        )
        assert float(given.observation_variance[0]) == 1.0
        with pytest.raises(errors.ErrorCovarianceError, match="not positive"):
            verify.departures(obs, obs, obs, error=-1.0)

    def test_states_without_an_operator_are_refused(self):
        with pytest.raises(errors.ObservationTypeError, match="is not one observation array"):
            verify.departures(xr.DataArray([1.0], dims="x"), xr.Dataset(), xr.Dataset())

    def test_other_datasets_are_refused(self):
        with pytest.raises(errors.VariableMismatchError, match="holds no departures"):
            verify.desroziers(xr.Dataset({"t": ("x", [1.0])}))
