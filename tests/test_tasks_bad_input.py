"""What a wrong input gets: a named error that says how to put it right."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import xappa
from xappa.errors import (
    AmbiguousCoordinateError,
    ArgumentError,
    BackgroundError,
    BundleError,
    CoordinateError,
    DataError,
    ErrorCovarianceError,
    GridMismatchError,
    GuessWarning,
    MembersError,
    NoModelError,
    NoObservationsWarning,
    ObservationTypeError,
    TimeStepError,
    UnitsError,
    UnknownQuantityError,
    VariableMismatchError,
)


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=60)


@pytest.fixture(scope="module")
def model(weather):
    return xappa.fit_gaussian(weather, modes=5)


@pytest.fixture
def day(weather) -> xr.Dataset:
    return weather.isel(time=slice(0, 6))


@pytest.fixture
def obs(day) -> xr.DataArray:
    network = xappa.observe.random_stations(day, 5, variable="t2m", error=0.5, seed=0)
    return day.appa.observe(network, seed=0)


@pytest.fixture
def run(day, model):
    def assimilate(obs, **settings):
        settings = {"model": model, "members": 2, "seed": 0, **settings}
        return day.appa.assimilate(obs, settings.pop("model"), **settings)

    return assimilate


def test_units_of_another_dimension(run, obs) -> None:
    with pytest.raises(UnitsError, match=r"'m' cannot be converted to 'K'[\s\S]*got: 'm'"):
        run(obs.assign_attrs(units="m"))


def test_unknown_quantity_lists_what_is_known(run, obs) -> None:
    salt = obs.assign_attrs(standard_name="sea_water_salinity").rename("salt")
    with pytest.raises(
        UnknownQuantityError, match=r"of the state: air_temperature[\s\S]*register_operator"
    ):
        run(salt)


def test_several_problems_are_listed_together(run, obs) -> None:
    salt = obs.assign_attrs(standard_name="sea_water_salinity").rename("salt")
    with pytest.raises(ExceptionGroup, match=r"'m' cannot[\s\S]*sea_water_salinity") as caught:
        run({"a": obs.assign_attrs(units="m"), "b": salt})
    kinds = {type(error) for error in caught.value.exceptions}
    assert kinds == {UnitsError, UnknownQuantityError}


def test_no_recognisable_latitude(day, obs, model) -> None:
    lost = day.drop_vars("latitude").rename(latitude="row")
    with pytest.raises(CoordinateError, match=r"latitude[\s\S]*standard_name"):
        lost.appa.assimilate(obs, model)


def test_two_candidates_for_time(day, obs, model) -> None:
    shifted = day.time.values + np.timedelta64(1, "h")
    two = day.assign_coords(other=("time", shifted, {"standard_name": "time"}))
    with pytest.raises(AmbiguousCoordinateError, match=r"may be the time[\s\S]*time, other"):
        two.appa.assimilate(obs, model)
    # Forecast reference time beside valid time, as cfgrib writes them, are not two candidates.
    grib = day.rename(time="issue").rename_dims(issue="time").rename_vars(issue="time")
    grib.time.attrs["standard_name"] = "forecast_reference_time"
    grib = grib.assign_coords(
        valid_time=("time", day.time.values, {"standard_name": "time"}),
        step=((), np.timedelta64(0, "ns"), {"standard_name": "forecast_period"}),
    )
    ens = grib.appa.assimilate(obs, model, members=2, seed=0)
    assert ens.t2m.dims == ("member", "time", "latitude", "longitude")


def test_no_model_lists_candidates_and_remedies(day, obs, tmp_path, monkeypatch) -> None:
    with pytest.raises(
        NoModelError, match=r"speedy-t31: the grids[^\n]*, and 8 more[\s\S]*fit_gaussian"
    ):
        day.appa.assimilate(obs)
    other = xappa.fit_gaussian(xappa.testing.weather(times=60, latitudes=7), modes=3)
    other.save(tmp_path / "coarse")
    monkeypatch.setenv("XAPPA_MODEL_PATH", str(tmp_path))
    with pytest.raises(
        NoModelError, match=r"no model fits[\s\S]*coarse: the grids[\s\S]*regrid_like[\s\S]*"
    ):
        day.appa.assimilate(obs)


@pytest.mark.parametrize(
    ("model", "error", "match"),
    [(3, ArgumentError, r"model is not a model[\s\S]*got: int"),
     ("nonsense", BundleError, r"no model 'nonsense'[\s\S]*name in the catalogue")],
)  # fmt: skip
def test_what_is_no_model(run, obs, model, error, match) -> None:
    with pytest.raises(error, match=match):
        run(obs, model=model)


def test_background_that_is_missing_or_incomplete(day, obs, model) -> None:
    with pytest.raises(BackgroundError, match=r"background is missing[\s\S]*100.0%"):
        day.where(day.t2m < 0).appa.assimilate(obs, model, background_error=1.0)
    with pytest.raises(BackgroundError, match="a part of the model's grid only"):
        day.isel(latitude=slice(3)).appa.assimilate(obs, model, background_error=1.0)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"background_error": -1.0}, BackgroundError, "not positive"),
        ({"background_error": 1.0, "background_error_scale": 1.0}, ArgumentError, "two background"),
        ({"background_error": {"x": 1.0}}, ArgumentError, r"\['t2m'\][\s\S]*got: x"),
        ({"members": 0}, MembersError, r"positive integer[\s\S]*got: 0"),
        ({"members": 2.5}, MembersError, "positive integer"),
        ({"method": "magic"}, ArgumentError, r"'magic'[\s\S]*expected: exact, mmps, jfps, sda"),
        ({"sampler": "magic"}, ArgumentError, r"'magic'[\s\S]*ddim"),
        ({"sampler": 3}, ArgumentError, r"neither a xappa.Sampler nor a function[\s\S]*int"),
        ({"guidance": {}}, ArgumentError, r"not a xappa.Guidance[\s\S]*dict"),
        ({"error": -1.0}, ErrorCovarianceError, r"not positive[\s\S]*30 of 30"),
    ],
)
def test_settings_are_checked(run, obs, settings, error, match) -> None:
    with pytest.raises(error, match=match):
        run(obs, **settings)


def test_background_error_in_other_units(run, obs) -> None:
    with pytest.raises(UnitsError, match=r"'m' cannot be converted to 'K'"):
        run(obs, background_error=xr.DataArray(1.0, attrs={"units": "m"}))


@pytest.mark.parametrize("setting", [{"solver": "lu"}, {"iterations": 0}, {"rtol": 2.0}])
def test_guidance_is_checked(setting) -> None:
    with pytest.raises(ArgumentError, match=next(iter(setting))):
        xappa.Guidance(**setting)


def test_unknown_observation_error(run, obs) -> None:
    """A default is used, and that is said."""
    with pytest.warns(GuessWarning, match=r"no error is given: 2 K assumed[\s\S]*pass error="):
        run(obs.drop_vars("error_std"))


@pytest.mark.parametrize("bad", ["text", None, np.zeros(3), 1.0])
def test_observations_that_are_no_arrays(run, bad) -> None:
    with pytest.raises(ObservationTypeError, match=r"no array of observations[\s\S]*xr.DataArray"):
        run(bad)


def test_another_grid_and_a_part_of_the_own(run, day, obs, model) -> None:
    other = xappa.fit_gaussian(xappa.testing.weather(times=60, latitudes=7), modes=3)
    with pytest.raises(GridMismatchError, match=r"latitude\[1\] is 58[\s\S]*Grid 7 x 8"):
        run(obs, model=other)
    box = {"latitude": slice(1, 4), "longitude": slice(2, 6)}
    part = day.isel(box).appa.assimilate(obs, model, members=2, seed=0)
    xr.testing.assert_identical(part.t2m, run(obs).t2m.isel(box))


def test_variables_and_time_steps_that_do_not_fit(weather, obs, model) -> None:
    wind = weather.t2m.assign_attrs(standard_name="eastward_wind", units="m s-1")
    wind = wind.drop_vars("height").to_dataset(name="u")
    with pytest.raises(VariableMismatchError, match=r"'t2m' of the state is not in the Dataset"):
        wind.appa.assimilate(obs, model)
    with pytest.raises(TimeStepError, match=r"expected: a step of 6 hours\n  got: 12 hours"):
        weather.isel(time=slice(0, 12, 2)).appa.assimilate(obs, model)
    with pytest.raises(CoordinateError, match="the Dataset has no time"):
        weather.isel(time=0, drop=True).appa.assimilate(obs, model)
    with pytest.raises(TimeStepError, match=r"multiple of 21600 s[\s\S]*7h"):
        weather.appa.forecast(model, lead="7h")
    with pytest.raises(TimeStepError, match="not a positive multiple"):
        xappa.cycle(model, obs, start="2001-01-01", stop="2001-01-02", step="5h")


def test_damaged_and_foreign_bundles(model, tmp_path) -> None:
    path = model.save(tmp_path / "bundle")
    weights = path / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(BundleError, match=r"checksum differs[\s\S]*weights.safetensors"):
        xappa.open_model(path)
    weights.unlink()
    with pytest.raises(BundleError, match=r"file of the bundle is missing"):
        xappa.open_model(path)
    weights.write_bytes(whole)
    assert xappa.open_model(path).hash == model.hash
    document = json.loads((path / "model.json").read_text())

    def rewritten(**changes):
        (path / "model.json").write_text(json.dumps({**document, **changes}))
        return path

    with pytest.raises(BundleError, match=r"another format[\s\S]*got: format 99"):
        xappa.open_model(rewritten(xappa_bundle=99))
    with pytest.raises(BundleError, match=r"kind of model that is not known[\s\S]*gaussian"):
        xappa.open_model(rewritten(kind="oracle"))
    rewritten(spec={**document["spec"], "time_step": 3600.0})
    with pytest.raises(BundleError, match="does not hold the model that it says"):
        xappa.open_model(path)
    (path / "model.json").write_text("not json")
    with pytest.raises(BundleError, match=r"model.json cannot be read"):
        xappa.open_model(path)
    (path / "model.json").write_text('{"anything": 1}')
    with pytest.raises(BundleError, match="not a bundle of xappa"):
        xappa.open_model(path)
    with pytest.raises(BundleError, match="not a bundle"):
        xappa.open_model(tmp_path)
    with pytest.raises(BundleError, match="exists already"):
        model.save(path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(BundleError, match="is not a bundle, and is not overwritten"):
        model.save(tmp_path / "mine", overwrite=True)


def test_without_usable_observations_the_result_is_the_prior(run, obs) -> None:
    with pytest.warns(NoObservationsWarning, match="there are no observations"):
        prior = run([])
    with pytest.warns(NoObservationsWarning, match="30 missing"):
        gaps = run(obs * np.nan)
    late = obs.assign_coords(time=obs.time + np.timedelta64(100, "D"))
    with pytest.warns(NoObservationsWarning, match="30 outside window"):
        outside = run(late)
    xr.testing.assert_equal(prior, gaps)
    xr.testing.assert_equal(prior, outside)
    counts = json.loads(outside.attrs["xappa_observations"])
    assert counts == {"t2m": {"outside window": 30}}


def test_members_of_the_dataset_cannot_be_overruled(day, obs, model) -> None:
    ensemble = xr.concat([day] * 3, xr.Variable("number", [0, 1, 2]))
    with pytest.raises(MembersError, match=r"dimension 'number'[\s\S]*expected: 3\n  got: 4"):
        ensemble.appa.assimilate(obs, model, members=4)


@pytest.mark.parametrize("seed", ["a", 1.5, True])
def test_seeds_are_integers(run, day, obs, model, seed) -> None:
    for task in (
        lambda: run(obs, seed=seed),
        lambda: day.appa.observe(obs, seed=seed),
        lambda: day.appa.forecast(model, lead="6h", seed=seed),
        lambda: xappa.cycle(
            model, obs, start="2001-01-01", stop="2001-01-02", step="6h", seed=seed
        ),
    ):
        with pytest.raises(ArgumentError, match=r"seed is no integer[\s\S]*an integer, or None"):
            task()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"modes": "3"}, "modes is out of range"),
        ({"localisation": "near"}, r"localisation is no distance[\s\S]*'1200 km'[\s\S]*'near'"),
        ({"localisation": -5.0}, "localisation is no distance"),
    ],
)
def test_settings_of_a_fit_are_checked(weather, settings, match) -> None:
    with pytest.raises(ArgumentError, match=match):
        xappa.fit_gaussian(weather, **settings)


def test_data_that_no_prior_can_be_fitted_to(weather) -> None:
    with pytest.raises(DataError, match=r"missing at some times[\s\S]*t2m[\s\S]*interpolate_na"):
        xappa.fit_gaussian(weather.where(weather.time != weather.time[3]))
    with pytest.raises(DataError, match=r"do not vary[\s\S]*zero variance"):
        xappa.fit_gaussian(xr.full_like(weather, 280.0))
    with pytest.raises(VariableMismatchError, match=r"'q' cannot be part[\s\S]*among t2m"):
        xappa.fit_gaussian(weather, variables=["q"])


def test_no_states(weather, obs, model) -> None:
    nothing = weather.isel(time=slice(0, 0))
    with pytest.raises(TimeStepError, match="holds no states"):
        nothing.appa.assimilate(obs, model)
    with pytest.raises(TimeStepError, match="holds no states"):
        xappa.fit_gaussian(nothing)
    with pytest.raises(TimeStepError, match=r"time\[0\] to time\[1\][\s\S]*-6 hours[\s\S]*sortby"):
        weather.isel(time=[2, 1, 0]).appa.assimilate(obs, model)


def test_templates_and_cycles_of_no_time(model, obs) -> None:
    with pytest.raises(ArgumentError, match=r"this is no time[\s\S]*got: 'soon'"):
        model.template("soon")
    with pytest.raises(TimeStepError, match=r"end before it starts[\s\S]*2001-01-02 to 2001-01-01"):
        model.template("2001-01-02", "2001-01-01")
    with pytest.raises(
        MembersError, match="positive integer"
    ):  # at the call, not at the first step
        xappa.cycle(model, obs, start="2001-01-01", stop="2001-01-02", step="6h", members=0)
    for lead in ("soon", None, True):
        with pytest.raises(ArgumentError, match=r"no duration[\s\S]*'6h'"):
            model.template("2001-01-01").appa.forecast(model, lead=lead)


def test_latents_of_something_else(weather, day, model) -> None:
    with pytest.raises(DataError, match=r"no latents[\s\S]*ds.appa.encode\(model\)"):
        day.appa.decode(model)
    other = xappa.fit_gaussian(weather, modes=3)
    with pytest.raises(DataError, match=r"another model[\s\S]*3 modes[\s\S]*got: 5"):
        day.appa.encode(model).appa.decode(other)


def test_models_that_have_no_name() -> None:
    with pytest.raises(ArgumentError, match="neither the name nor the path"):
        xappa.open_model(None)


def test_errors_come_before_any_computation(day, obs, model) -> None:
    lazy = day.chunk(time=1)
    with xappa.testing.raise_if_dask_computes():
        with pytest.raises(UnitsError):
            lazy.appa.assimilate(obs.assign_attrs(units="m"), model)
        with pytest.raises(BackgroundError):
            lazy.appa.assimilate(obs, model, background_error=-1.0)
        with pytest.raises(MembersError):
            lazy.appa.assimilate(obs, model, members=0)


def test_errors_name_all_five_things(run, obs) -> None:
    with pytest.raises(UnitsError) as caught:
        run(obs.assign_attrs(units="m"))
    error = caught.value
    assert all((error.what, error.where, error.expected, error.got, error.remedy))
