"""The contracts that hold everywhere: randomness, laziness, labels, orientation, no mutation."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize

import xappa
from xappa.errors import ArgumentError, BackgroundError
from xappa.testing import raise_if_dask_computes


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return xappa.testing.weather(times=60)


@pytest.fixture(scope="module")
def model(weather):
    return xappa.fit_gaussian(weather, modes=5, name="test")


@pytest.fixture(scope="module")
def day(weather) -> xr.Dataset:
    return weather.isel(time=slice(4, 10))


@pytest.fixture(scope="module")
def obs(day) -> xr.DataArray:
    network = xappa.observe.random_stations(day, 5, variable="t2m", error=0.5, seed=0)
    return day.appa.observe(network, seed=0)


@pytest.fixture(scope="module")
def analysis(day, obs, model) -> xr.Dataset:
    return day.appa.assimilate(obs, model, members=4, seed=0)


# Randomness -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", "mmps", "jfps", "sda", "dps"])
def test_members_do_not_depend_on_their_number(day, obs, model, method) -> None:
    sampler = xappa.Sampler("ddpm" if method == "dps" else "heun", 8)
    settings = {"method": method, "seed": 3, "progress": False, "sampler": sampler}
    few = day.appa.assimilate(obs, model, members=2, **settings)
    many = day.appa.assimilate(obs, model, members=5, **settings)
    # Batched products round differently; float32 output hides most of it.
    xr.testing.assert_allclose(few.t2m, many.t2m.isel(member=slice(2)), rtol=1e-6)
    assert float(abs(many.t2m.isel(member=3) - many.t2m.isel(member=4)).max()) > 0.1


def test_square_root_draws_are_members_too(day, obs, model) -> None:
    settings = {"seed": 3, "guidance": xappa.Guidance(square_root=True)}
    few = day.appa.assimilate(obs, model, members=2, **settings)
    many = day.appa.assimilate(obs, model, members=5, **settings)
    xr.testing.assert_allclose(few.t2m, many.t2m.isel(member=slice(2)), rtol=1e-6)


def test_seeds_are_drawn_and_recorded(day, obs, model) -> None:
    first = day.appa.assimilate(obs, model, members=2)
    again = day.appa.assimilate(obs, model, members=2, seed=first.attrs["xappa_seed"])
    xr.testing.assert_equal(first, again)
    other = day.appa.assimilate(obs, model, members=2)
    assert other.attrs["xappa_seed"] != first.attrs["xappa_seed"]


def test_no_global_generator_is_touched(day, obs, model) -> None:
    import torch

    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    day.appa.assimilate(obs, model, members=2, seed=0, method="mmps", progress=False)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


# Laziness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 4, "latitude": 3}])
@pytest.mark.parametrize("background", [None, 0.5])
def test_lazy_and_eager_analyses_are_the_same(day, obs, model, chunks, background) -> None:
    settings = {"members": 3, "seed": 0, "background_error_scale": background}
    eager = day.appa.assimilate(obs, model, **settings)
    with raise_if_dask_computes():
        lazy = day.chunk(chunks).appa.assimilate(obs, model, **settings)
    assert lazy.t2m.chunks is not None
    assert lazy.t2m.dtype == lazy.t2m.data._meta.dtype == np.float32
    assert lazy.chunks["time"] == day.chunk(chunks).chunks["time"]
    xr.testing.assert_identical(lazy.compute(), eager)


def test_encoding_decoding_and_observing_are_lazy(day, obs, model) -> None:
    lazy = day.chunk(time=2)
    with raise_if_dask_computes():
        z = lazy.appa.encode(model)
        back = z.appa.decode(model)
        equivalents = lazy.appa.operator(obs)(lazy)
    for found, expected in (
        (z, day.appa.encode(model)),
        (back, day.appa.encode(model).appa.decode(model)),
        (equivalents, day.appa.operator(obs)(day)),
    ):
        name = found.name if isinstance(found, xr.DataArray) else next(iter(found.data_vars))
        array = found if isinstance(found, xr.DataArray) else found[name]
        assert array.chunks is not None
        xr.testing.assert_allclose(found.compute(), expected, rtol=1e-6)


def test_models_and_operators_pickle_and_tokenize(day, obs, model) -> None:
    operator = day.appa.operator(obs)
    again = pickle.loads(pickle.dumps(model))
    assert tokenize(again) == tokenize(model)
    assert tokenize(pickle.loads(pickle.dumps(operator))) == tokenize(operator)
    first, second = (day.appa.assimilate(obs, m, members=2, seed=0) for m in (model, again))
    xr.testing.assert_identical(first, second)


# Labels -----------------------------------------------------------------------------------------


def test_labels_come_back(day, analysis) -> None:
    assert analysis.t2m.dims == ("member", "time", "latitude", "longitude")
    for name in day.coords:
        xr.testing.assert_identical(analysis[name].variable, day[name].variable)
    expected = {**day.t2m.attrs, "cell_methods": "time: point"}
    assert analysis.t2m.attrs == expected
    assert analysis.t2m.dtype == day.t2m.dtype
    assert analysis.member.attrs["standard_name"] == "realization"


@pytest.mark.parametrize("store", ["netcdf", "zarr"])
def test_provenance_survives_files(analysis, model, tmp_path, store) -> None:
    path = tmp_path / f"analysis.{store}"
    if store == "netcdf":
        analysis.to_netcdf(path)
    else:
        analysis.to_zarr(path)
    engine = "netcdf4" if store == "netcdf" else store
    code = f"""
import json, xarray as xr
ds = xr.open_dataset({str(path)!r}, engine={engine!r})
attrs = {{k: str(v) for k, v in ds.attrs.items()}}
member, step = ds.member.attrs["standard_name"], str(ds.time.values[1])
print(json.dumps(dict(ds=attrs, var=dict(ds.t2m.attrs), member=member, step=step)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["ds"]["xappa_model"] == model.label
    assert said["ds"]["xappa_seed"] == "0"
    assert said["ds"]["xappa_method"] == "exact"
    assert "xappa: assimilate with model test" in said["ds"]["history"]
    for package in ("xappa", "torch", "azula", "xarray"):
        assert package in said["ds"]["xappa_versions"]
    assert json.loads(said["ds"]["xappa_observations"]) == {"t2m": {"used": 30}}
    assert json.loads(said["ds"]["xappa_settings"]) == {"square_root": False}
    assert said["var"]["standard_name"] == "air_temperature"
    assert said["var"]["units"] == "K"
    assert said["var"]["cell_methods"] == "time: point"
    assert said["member"] == "realization"
    assert said["step"].startswith("2001-01-02T06")


def test_stale_encodings_are_dropped(day, obs, model) -> None:
    packed = day.copy(deep=True)
    packed.t2m.encoding = {"scale_factor": 0.01, "add_offset": 280.0, "dtype": "int16"}
    packed.t2m.attrs.update(GRIB_paramId=167, valid_range=[0, 1], actual_range=[0, 1])
    out = packed.appa.assimilate(obs, model, members=2, seed=0)
    assert not {"scale_factor", "add_offset"} & set(out.t2m.encoding)
    assert not {"GRIB_paramId", "valid_range", "actual_range"} & set(out.t2m.attrs)


def test_quantified_in_quantified_out(day, obs, model) -> None:
    pytest.importorskip("pint_xarray")
    quantified = day.assign(t2m=day.t2m.variable.to_base_variable())
    quantified = quantified.pint.quantify({"latitude": None, "longitude": None, "height": None})
    out = quantified.appa.assimilate(obs, model, members=2, seed=0)
    assert str(out.t2m.pint.units) == "kelvin"
    plain = day.appa.assimilate(obs, model, members=2, seed=0)
    np.testing.assert_array_equal(out.t2m.pint.magnitude, plain.t2m.values)


def test_nothing_that_was_passed_is_changed(day, obs, model) -> None:
    ds, given = day.copy(deep=True), obs.copy(deep=True)
    attrs = copy.deepcopy((ds.attrs, ds.t2m.attrs, given.attrs))
    for settings in ({}, {"background_error": 1.0}, {"method": "mmps", "progress": False}):
        ds.appa.assimilate(given, model, members=2, seed=0, **settings)
    ds.appa.encode(model).appa.decode(model)
    ds.appa.observe(given, seed=0)
    ds.appa.forecast(model, lead="6h", members=2, seed=0)
    xr.testing.assert_identical(ds, day)
    xr.testing.assert_identical(given, obs)
    assert attrs == (ds.attrs, ds.t2m.attrs, given.attrs)


# Orientation ------------------------------------------------------------------------------------

REORIENTED = {
    "latitude ascending": lambda ds: ds.sortby("latitude"),
    "longitude 0 to 360": lambda ds: ds.assign_coords(
        longitude=ds.longitude.copy(data=ds.longitude % 360)
    ),
    "other dimension order": lambda ds: ds.transpose("longitude", "time", "latitude"),
    "celsius": lambda ds: ds.assign(t2m=(ds.t2m - 273.15).assign_attrs(ds.t2m.attrs, units="degC")),
    "cftime": lambda ds: ds.convert_calendar("standard", use_cftime=True),
    "float64": lambda ds: ds.astype(np.float64),
}


@pytest.mark.parametrize("name", REORIENTED)
def test_orientation_does_not_matter(day, obs, model, analysis, name) -> None:
    turned = REORIENTED[name](day)
    out = turned.appa.assimilate(obs, model, members=4, seed=0)
    assert out.t2m.dims[1:] == turned.t2m.dims
    xr.testing.assert_identical(out.latitude.variable, turned.latitude.variable)
    found = out.t2m.transpose(*analysis.t2m.dims).sortby("latitude", ascending=False).values
    offset = 273.15 if name == "celsius" else 0.0
    np.testing.assert_allclose(found + offset, analysis.t2m.values, rtol=2e-6)


# Which model ------------------------------------------------------------------------------------


def test_models_resolve_in_order(day, obs, model, analysis, tmp_path, monkeypatch) -> None:
    def how(ds, **settings):
        out = ds.appa.assimilate(obs, members=2, seed=0, **settings)
        return out.attrs["xappa_model_resolved_by"], out.attrs["xappa_model"]

    assert how(day, model=model) == ("argument", model.label)
    named = day.assign_attrs(xappa_model=model.label)
    assert how(named) == ("attribute xappa_model", model.label)
    with xappa.set_options(model=model):
        assert how(day) == ("xappa.set_options", model.label)
    model.save(tmp_path / "weather")
    monkeypatch.setenv("XAPPA_MODEL_PATH", str(tmp_path))
    assert how(day) == ("only model of the catalogue that fits", model.label)
    assert how(day, model="weather")[1] == model.label
    # The attribute names the model, whatever its folder is called, in a process that knows nothing.
    monkeypatch.setattr("xappa.models.catalogue._SESSION", {})
    xappa.testing.weather(times=60).pipe(xappa.fit_gaussian, modes=3).save(tmp_path / "another")
    assert how(named) == ("attribute xappa_model", model.label)
    # An attribute opens no path.
    monkeypatch.delenv("XAPPA_MODEL_PATH")
    with pytest.raises(xappa.errors.NoModelError):
        day.assign_attrs(xappa_model=str(tmp_path / "weather")).appa.assimilate(obs)


def test_saved_models_give_the_same_numbers(day, obs, model, analysis, tmp_path) -> None:
    opened = xappa.open_model(model.save(tmp_path / "bundle"))
    again = day.appa.assimilate(obs, opened, members=4, seed=0)
    np.testing.assert_array_equal(again.t2m.values, analysis.t2m.values)
    assert repr(opened) == repr(model)


# Ensembles, forecasts, cycles -------------------------------------------------------------------


@pytest.mark.parametrize("dim", ["number", "member", "sample"])
def test_a_background_ensemble_keeps_its_dimension(day, obs, model, dim) -> None:
    index = xr.Variable(dim, [3, 5, 8], {"standard_name": "realization"})
    background = xr.concat([day, day + 1.0, day - 1.0], index).transpose("time", dim, ...)
    background.t2m.attrs = day.t2m.attrs
    out = background.appa.assimilate(obs, model, seed=0, background_error_scale=0.3)
    assert out.t2m.dims == background.t2m.dims
    np.testing.assert_array_equal(out[dim], [3, 5, 8])
    # The background is the mean; a member's random numbers are those of its label.
    alone = background.mean(dim, keep_attrs=True).assign_coords(height=day.height)
    alone.t2m.attrs = day.t2m.attrs
    expected = alone.appa.assimilate(obs, model, members=9, seed=0, background_error_scale=0.3)
    np.testing.assert_allclose(
        out.t2m.transpose(dim, ...), expected.t2m.sel(member=[3, 5, 8]), rtol=1e-6
    )


def test_members_are_known_by_their_labels(analysis, model) -> None:
    forecast = analysis.appa.forecast(model, lead="12h", seed=0)
    alone = analysis.isel(member=[3]).appa.forecast(model, lead="12h", seed=0)
    xr.testing.assert_allclose(forecast.isel(member=[3]), alone, rtol=1e-6)
    network = xappa.observe.random_stations(analysis, 4, variable="t2m", error=0.5, seed=0)
    seen = analysis.appa.observe(network, seed=0)
    seen_alone = analysis.isel(member=[3]).appa.observe(network, seed=0)
    xr.testing.assert_allclose(seen.isel(member=[3]), seen_alone)


def test_lazy_results_of_other_chunks_are_computed_together(day, obs, model) -> None:
    import dask

    lazy = [day.chunk(time=k).appa.assimilate(obs, model, members=2, seed=0) for k in (3, 4)]
    first, second = dask.compute(*lazy)
    xr.testing.assert_allclose(first, second)
    ahead = [day.chunk(time=k).appa.forecast(model, lead="2D", members=2, seed=0) for k in (2, 4)]
    first, second = dask.compute(*ahead)
    xr.testing.assert_allclose(first, second)


def test_provenance_is_of_the_last_step_alone(day, obs, model) -> None:
    first = day.appa.assimilate(obs, model, members=2, seed=0, background_error=1.0)
    assert first.attrs["xappa_background_error"] == 1.0
    mean = first.mean("member", keep_attrs=True)
    second = mean.appa.assimilate(obs, model, members=2, seed=2**70)
    assert "xappa_background_error" not in second.attrs
    assert second.attrs["xappa_seed"] == str(2**70)  # no attribute of a file is so large
    forecast = first.appa.forecast(model, lead="6h", seed=0)
    assert not {"xappa_method", "xappa_settings", "xappa_observations"} & set(forecast.attrs)
    assert forecast.attrs["history"].count("xappa: ") == 2


def test_what_a_model_made_is_not_guessed_again(analysis, model) -> None:
    bare = analysis.drop_vars("height")
    bare.appa.forecast(model, lead="6h", seed=0)  # a warning would be an error
    with pytest.warns(xappa.errors.GuessWarning, match="height 2 m taken from its name"):
        bare.drop_attrs().assign(t2m=bare.t2m).appa.forecast(model, lead="6h", seed=0)


def test_wrong_units_are_noticed(day, obs, model) -> None:
    celsius = (obs - 273.15).assign_attrs(obs.attrs)  # and the units still say K
    with pytest.warns(xappa.errors.DepartureWarning, match=r"30 of 30[\s\S]*check their units"):
        day.appa.assimilate(celsius, model, members=2, seed=0)


@pytest.mark.parametrize("sampler", ["heun", xappa.Sampler("pc"), lambda denoiser: denoiser])
def test_dps_has_steps_of_its_own(day, obs, model, sampler) -> None:
    with pytest.raises(ArgumentError, match=r"dps is a change of the steps of DDPM"):
        day.appa.assimilate(obs, model, members=2, method="dps", sampler=sampler)


def test_samplers_of_ones_own_are_recorded_by_name(day, obs, model) -> None:
    from azula.sample import DDIMSampler

    def few_steps(denoiser):
        return DDIMSampler(denoiser, steps=4, silent=True)

    out = day.appa.assimilate(obs, model, members=2, seed=0, method="jfps", sampler=few_steps)
    assert "few_steps" in out.attrs["xappa_settings"]
    assert " at 0x" not in out.attrs["xappa_settings"]


def test_a_part_of_the_grid_and_a_background_error(day, obs, model) -> None:
    part = day.isel(latitude=slice(1, 4), longitude=slice(2, 6))
    with pytest.raises(BackgroundError, match=r"a part of the model's grid only[\s\S]*whole grid"):
        part.appa.assimilate(obs, model, background_error=1.0)


def test_the_operator_of_a_model_is_the_one_that_assimilate_uses(day, obs, model) -> None:
    part = day.isel(latitude=slice(1, 4), longitude=slice(2, 6), time=0)
    operator = part.appa.operator(obs, model=model)
    analysis = part.appa.assimilate(obs, model, members=2, seed=0)
    assert json.loads(analysis.attrs["xappa_observations"])["t2m"]["used"] == operator.n_used
    assert part.appa.operator(obs).n_used < operator.n_used


def test_background_alone_is_shrunk_towards_the_climatology(day, model) -> None:
    s, members = 0.5, 200
    with pytest.warns(xappa.errors.NoObservationsWarning):
        out = day.appa.assimilate([], model, members=members, seed=0, background_error_scale=s)
    seconds = (day.time.values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    mean = model.climatology(seconds)[:, 0]
    expected = mean + (day.t2m.values - mean) / (1 + s**2)
    std = model.std.reshape(mean.shape[1:]) * s / np.sqrt(1 + s**2)
    assert (np.abs(out.t2m.mean("member") - expected) < 5 * std / np.sqrt(members)).all()
    np.testing.assert_allclose(out.t2m.std("member") / std, 1.0, atol=6 / np.sqrt(2 * members))


def test_forecasts_carry_their_labels(analysis, model) -> None:
    forecast = analysis.appa.forecast(model, lead="1D", seed=0)
    assert forecast.sizes["time"] == 4
    assert forecast.sizes["member"] == 4
    assert forecast.init_time.attrs["standard_name"] == "forecast_reference_time"
    assert forecast.init_time.values == analysis.time.values[-1]
    assert forecast.lead_time.attrs["standard_name"] == "forecast_period"
    assert forecast.lead_time.dtype.kind == "m"
    np.testing.assert_array_equal(
        forecast.time.values, forecast.init_time.values + forecast.lead_time.values
    )
    twice = analysis.appa.forecast(model, lead="1D", seed=0, members=8)
    xr.testing.assert_allclose(twice.t2m.isel(member=slice(4)), forecast.t2m)
    with pytest.raises(xappa.errors.MembersError, match="or a multiple of 4"):
        analysis.appa.forecast(model, lead="1D", members=6)


def test_forecasts_relax_to_the_climatology(day, model) -> None:
    forecast = day.appa.forecast(model, lead="20D", members=300, seed=0)
    last = forecast.t2m.isel(time=-1)
    seconds = (last.time.values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    mean = model.climatology(np.array([seconds]))[0, 0]
    std = model.std.reshape(mean.shape)
    assert (np.abs(last.mean("member") - mean) < 6 * std / np.sqrt(300)).all()
    np.testing.assert_allclose(last.std("member") / std, 1.0, atol=6 / np.sqrt(600))
    first = forecast.t2m.isel(time=0)
    assert float(first.std("member").mean()) < 0.9 * std.mean()


def test_cycling_loses_nothing(weather, model) -> None:
    period = weather.isel(time=slice(4, 13))
    network = xappa.observe.random_stations(period, 4, variable="t2m", error=0.3, seed=1)
    obs = period.appa.observe(network, seed=1)
    members = 400
    whole = period.appa.assimilate(obs, model, members=members, seed=0).isel(time=-1)
    start, stop = (str(period.time.values[k]) for k in (0, -1))
    cycles = list(
        xappa.cycle(model, obs, start=start, stop=stop, step="12h", members=members, seed=1)
    )
    assert [c.sizes["time"] for c in cycles] == [1, 2, 2, 2, 2]
    last = cycles[-1].isel(time=-1)
    std = whole.t2m.std("member")
    # Two independent sample means of the same distribution.
    gap = abs(last.t2m.mean("member") - whole.t2m.mean("member"))
    assert (gap < 5 * std * np.sqrt(2 / members)).all()
    np.testing.assert_allclose(last.t2m.std("member") / std, 1.0, atol=6 / np.sqrt(members))


def test_encode_and_decode_are_a_projection(day, model) -> None:
    once = day.appa.encode(model).appa.decode(model)
    assert once.t2m.dims == day.t2m.dims
    assert once.t2m.attrs["units"] == "K"
    twice = once.appa.encode(model).appa.decode(model)
    xr.testing.assert_allclose(once.t2m, twice.t2m, rtol=1e-6)
    z = day.appa.encode(model)
    assert z.latent.dims == ("time", "mode")
    assert z.latent.dtype == np.float64


def test_templates_start_without_data(obs, model, analysis) -> None:
    window = model.template("2001-01-02", "2001-01-03T06:00")
    assert window.sizes == {"time": 6, "latitude": 6, "longitude": 8}
    out = window.appa.assimilate(obs, members=4, seed=0)  # the template names its model
    np.testing.assert_allclose(out.t2m.values, analysis.t2m.values, rtol=1e-6)


def test_observations_outside_the_window_count_up_to_one_blanket(weather, model, obs) -> None:
    after = weather.isel(time=slice(0, 4))  # observations follow: a smoother's past
    out = after.appa.assimilate(obs, model, members=2, seed=0)
    used = json.loads(out.attrs["xappa_observations"])["t2m"]
    assert used == {"used": 5 * model.blanket, "outside window": 30 - 5 * model.blanket}
    assert out.sizes["time"] == 4


@pytest.mark.parametrize("part", [{"latitude": slice(1), "longitude": slice(1)}, {}])
def test_forecasts_know_what_a_part_of_the_grid_leaves_open(model, day, part) -> None:
    """Nearly perfect observations of the same values give the same distribution."""
    states, members = day.isel(part), 400
    forecast = states.appa.forecast(model, lead="12h", members=members, seed=0)
    values = states.t2m.astype(float).assign_attrs(states.t2m.attrs, error_std=1e-3)
    after = model.template(str(forecast.time.values[-1])).isel(part)
    expected = after.appa.assimilate(values, model, members=members, seed=1)
    found, wanted = (d.t2m.isel(time=-1) for d in (forecast, expected))
    # Standard deviations from 400 members are known to 3.5 %, and their means over points better.
    ratio = float(found.std("member").mean() / wanted.std("member").mean())
    assert ratio == pytest.approx(1, abs=0.12)
    gap = found.mean("member") - wanted.mean("member")
    assert float(np.abs(gap).max()) < 5 * np.sqrt(2 / members) * float(wanted.std("member").max())


def test_cycles_say_what_made_them_and_that_nothing_was_seen(model, obs) -> None:
    start, _, stop = (str(time) for time in obs.time.values[:3])
    period = {"start": start, "stop": stop, "step": "12h"}
    analyses = list(xappa.cycle(model, obs, **period, members=2, seed=0, progress=False))
    assert analyses[0].attrs["xappa_start"] == start
    assert json.loads(analyses[0].attrs["xappa_settings"]) == {"square_root": False}
    late = obs.assign_coords(time=obs.time + np.timedelta64(366, "D"))
    late.time.attrs = obs.time.attrs
    with pytest.warns(
        xappa.errors.NoObservationsWarning, match="no observation can be used between"
    ):
        xappa.cycle(model, late, **period, members=2, seed=0)
