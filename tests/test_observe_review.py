"""Observations that tell little of themselves, and those that tell something unusual."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xappa
from xappa.errors import ArgumentError, CoordinateError, GuessWarning, NoModelError, OperatorError
from xappa.observe import Status, register_operator, unregister_operator

pytestmark = [
    pytest.mark.filterwarnings("ignore::xappa.errors.GuessWarning"),
    pytest.mark.filterwarnings("ignore::xappa.errors.DepartureWarning"),
]

LEVELS = np.array([1000.0, 850.0, 500.0, 300.0]) * 100
HEIGHTS = 287.05 * 260.0 / 9.80665 * np.log(1e5 / LEVELS)


@pytest.fixture(scope="module")
def state() -> xr.Dataset:
    """Temperature on levels that falls with height, and 2 m temperature, which is another."""
    flat = xappa.testing.weather(times=9)
    t2m = flat.t2m
    shape = ("time", "level", "latitude", "longitude")
    lapse = xr.DataArray(-0.006 * HEIGHTS, dims="level")
    t = (t2m.mean() + 0 * t2m + lapse).transpose(*shape)
    z = (0 * t2m + xr.DataArray(9.80665 * HEIGHTS, dims="level")).transpose(*shape)
    ds = xr.Dataset(
        {
            "t": t.drop_vars("height").assign_attrs(standard_name="air_temperature", units="K"),
            "z": z.drop_vars("height").assign_attrs(standard_name="geopotential", units="m2 s-2"),
            "q": (0 * t.drop_vars("height") + 2e-3).assign_attrs(
                standard_name="specific_humidity", units="kg kg-1"
            ),
            "t2m": t2m.drop_vars("height").assign_attrs(GRIB_shortName="2t", units="K"),
        }
    )
    ds.t2m.attrs.pop("standard_name", None)
    return ds.assign_coords(
        level=("level", LEVELS, {"standard_name": "air_pressure", "units": "Pa"})
    )


def obs(state: xr.Dataset, values, coords=None, dims=("obs",), **attrs) -> xr.DataArray:
    values = np.asarray(values, float)
    n = values.shape[0]
    places = {
        "latitude": ("obs", np.linspace(52, 58, n)),
        "longitude": ("obs", np.linspace(-8, 2, n)),
        "time": ("obs", np.repeat(state.time.values[:1], n)),
    }
    base = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0, **attrs}
    return xr.DataArray(values, {**places, **(coords or {})}, dims, "temp", base)


# Altitudes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "feature"),
    [
        ({"standard_name": "altitude"}, "profile"),
        ({"standard_name": "height_above_mean_sea_level"}, "trajectory"),
        ({"standard_name": "altitude", "axis": "Z"}, None),
        ({"standard_name": "geopotential_height", "positive": "up"}, None),
    ],
)
def test_positions_in_the_air_are_no_elevations(state, about, feature) -> None:
    """Even where the state holds 2 m temperature as well."""
    height = np.array([500.0, 3000.0, 7000.0])
    array = obs(state, [280.0, 270.0, 250.0], {"h": ("obs", height, {"units": "m", **about})})
    if feature:
        array.attrs["featureType"] = feature
    operator = state.appa.operator(array)
    assert operator.specs[0].operator == "at_altitude"
    mean = float(state.t2m.mean())
    np.testing.assert_allclose(operator(state), mean - 0.006 * height, rtol=1e-6)
    above = array.assign_coords(h=("obs", [500.0, 3000.0, 30e3], array.h.attrs))
    assert state.appa.operator(above).status[0].tolist() == [0, 0, Status.OUTSIDE_LEVELS]
    asked = above.assign_attrs(xappa_extrapolate="constant")
    assert state.appa.operator(asked).n_used == 3


def test_elevations_of_stations_are_no_positions(state) -> None:
    about = {"standard_name": "altitude", "units": "m", "positive": "up"}
    array = obs(state, [280.0, 281.0], {"alt": ("obs", [10.0, 800.0], about), "height": 2.0})
    array.attrs["featureType"] = "timeSeries"
    assert state.appa.operator(array).specs[0].inputs[0].name == "t2m"


def test_a_mast_is_several_arrays(state) -> None:
    height = ("height", [2.0, 10.0, 50.0], {"standard_name": "height", "units": "m", "axis": "Z"})
    array = obs(state, np.full((2, 3), 280.0), {"height": height}, ("obs", "height"))
    with pytest.raises(CoordinateError, match="several heights above ground"):
        state.appa.operator(array)


def test_altitudes_that_a_file_leaves_as_variables(state) -> None:
    array = obs(state, [280.0, 270.0])
    ds = array.to_dataset().assign(
        altitude=("obs", [500.0, 2000.0], {"standard_name": "altitude", "units": "m"})
    )
    ds.attrs["featureType"] = "trajectory"
    assert state.appa.operator(ds).specs[0].operator == "at_altitude"


# Values -------------------------------------------------------------------------------------------


def test_fill_values_are_missing(state) -> None:
    values = [9.97e36, 1e20, -999.0, -9999.0, 280.0, np.inf, 1e300]
    operator = state.appa.operator(obs(state, values, {"height": 2.0}))
    assert operator.counts()["temp"][Status.MISSING] == 6
    assert any("taken for missing" in guess for guess in operator.specs[0].guesses)
    single = obs(state, [280.0, 281.0], {"height": 2.0}).astype("float32")
    single[0] = np.float32(1e17)
    stated = single.assign_attrs(_FillValue=1e17, missing_value="none")
    assert state.appa.operator(stated).n_used == 1
    # a number that a quantity can be is no sentinel of it
    wind = xr.Dataset({"u": state.t.isel(level=0, drop=True) * 0 + 5.0})
    wind["u"].attrs = {"standard_name": "eastward_wind", "units": "m s-1"}
    one = obs(state, [-99.0], standard_name="eastward_wind", units="m s-1")
    assert wind.appa.operator(one).n_used == 1


def test_positions_that_cannot_be(state) -> None:
    array = obs(state, np.full(5, 280.0), {"height": 2.0})
    array["longitude"] = ("obs", [-999.0, 9.97e36, np.inf, 356.0, 716.0])
    operator = state.appa.operator(array)
    assert operator.n_used == 2
    assert any("2 longitudes beyond 720 degrees" in guess for guess in operator.specs[0].guesses)
    at = obs(state, [280.0, 270.0], {"p": ("obs", [0.0, 8e4], {"units": "Pa"})})
    assert state.appa.operator(at).status[0].tolist() == [Status.OUTSIDE_LEVELS, 0]


def test_a_depth_of_water_is_its_mass(state) -> None:
    name = "atmosphere_mass_content_of_water_vapor"
    array = obs(state, [12.0, 13.0], standard_name=name, units="mm", error_std=2.0)
    operator = state.appa.operator(array)
    np.testing.assert_allclose(operator.values, [12.0, 13.0])
    np.testing.assert_allclose(operator(state), 2e-3 * 7e4 / 9.80665)


# Operators ----------------------------------------------------------------------------------------


def test_averaging_kernels_in_other_units(state) -> None:
    kernel = np.array([[0.5, 0.3], [0.2, 0.6]])
    array = obs(
        state,
        [3.0, 3.0],
        standard_name="specific_humidity",
        units="g kg-1",
        xappa_operator="averaging_kernel",
    )
    ds = array.to_dataset().assign(
        averaging_kernel=(("obs", "layer"), kernel),
        kernel_pressure=("layer", [800.0, 400.0], {"units": "hPa"}),
        prior_profile=(("obs", "layer"), np.full((2, 2), 3.0)),
        prior=("obs", [4.0, 5.0], {"units": "g kg-1"}),
    )
    expected = np.array([4.0, 5.0]) + kernel.sum(axis=1) * (2.0 - 3.0)
    operator = state.appa.operator(ds)
    np.testing.assert_allclose(operator(state).temp, expected, rtol=1e-9)
    low = ds.assign(kernel_pressure=("layer", [1100.0, 400.0], {"units": "hPa"}))
    assert (state.appa.operator(low).status[0] == Status.OUTSIDE_LEVELS).all()


@pytest.mark.parametrize(
    ("attrs", "match"),
    [
        ({}, "xappa_operator_lower, xappa_operator_upper"),
        ({"lower": 9e4, "upper": 5e4, "foo": 1.0}, "cannot be called with these parameters"),
        ({"lower": 900.0, "upper": 500.0}, "does not lie within the levels"),
        ({"lower": 5e4, "upper": 9e4}, "does not lie within the levels"),
        ({"lower": 9e4, "upper": 3e3}, "does not lie within the levels"),
    ],
)
def test_parameters_are_checked_before_anything_is_computed(state, attrs, match) -> None:
    given = {f"xappa_operator_{name}": value for name, value in attrs.items()}
    array = obs(state, [4000.0], units="m", standard_name="thickness", **given)
    array.attrs["xappa_operator"] = "dry_thickness"
    with pytest.raises(OperatorError, match=match):
        state.appa.operator(array)


def test_a_module_in_single_precision(state) -> None:
    torch.manual_seed(0)

    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def forward(self, t, q):
            return self.layer(torch.stack([t, q], dim=-1))[..., 0]

    inputs = {"air_temperature": "degC", "specific_humidity": "g kg-1"}
    register_operator("test_mixed", inputs=inputs, units="1")(Mixed())
    try:
        p = {"p": ("obs", [8e4, 6e4], {"units": "Pa", "standard_name": "air_pressure"})}
        array = obs(state, [1.0, 2.0], p, xappa_operator="test_mixed", units="1")
        operator = state.appa.operator(array)
        assert np.isfinite(operator(state)).all()
        x = torch.full((9, 13, 6, 8), 260.0, dtype=torch.float64, requires_grad=True)
        (back,) = torch.autograd.grad(operator.apply(x).sum(), x)
        assert float(back.abs().sum()) > 0
    finally:
        unregister_operator("test_mixed")


def test_operators_that_give_nan_are_named() -> None:
    train = xappa.testing.weather(times=40)
    model = xappa.fit_gaussian(train, modes=3)
    register_operator("test_nan", inputs=["air_temperature"], units="K")(lambda t: t * np.nan)
    day = train.isel(time=slice(4))
    network = xappa.obs.random_stations(day, 3, variable="t2m", error=1.0, seed=0)
    array = network.fillna(280.0).assign_attrs(xappa_operator="test_nan")
    try:
        with pytest.raises(OperatorError, match="'test_nan' gives values that are not finite"):
            day.appa.assimilate(array, model, members=2, seed=0)
    finally:
        unregister_operator("test_nan")


def test_humidity_over_ice(state) -> None:
    p = {"p": ("obs", [4e4, 4e4], {"units": "Pa", "standard_name": "air_pressure"})}
    array = obs(state, [0.5, 0.5], p, standard_name="relative_humidity", units="1")
    water, ice, mixed = (
        state.appa.operator(array.assign_attrs(extra))(state).values
        for extra in ({}, {"xappa_operator_over": "ice"}, {"xappa_operator_over": "mixed"})
    )
    temperature = state.appa.operator(obs(state, [1.0, 1.0], p))(state).values - 273.15
    # Murphy and Koop's ratio of saturation over water to that over ice, about exp(-0.0097 t)
    np.testing.assert_allclose(ice / water, np.exp(-0.0097 * temperature), rtol=0.01)
    assert (mixed >= np.minimum(water, ice) - 1e-12).all()
    with pytest.raises(OperatorError, match="does not know this phase"):
        state.appa.operator(array.assign_attrs(xappa_operator_over="steam"))


# Intervals and cells ------------------------------------------------------------------------------


def test_extremes_of_intervals_between_states() -> None:
    """A peak at one state, seen by intervals that end at any time."""
    ds = xappa.testing.weather(times=9).isel(latitude=slice(2), longitude=slice(2))
    ds["t2m"] = (0 * ds.t2m + 280.0).assign_attrs(ds.t2m.attrs)
    ds.t2m[4] = 290.0
    times = ds.time.values[4] + np.array([0, 1, 3, 6, 11, 23, 24]) * np.timedelta64(1, "h")
    coords = {
        "time": ("time", times),
        "latitude": float(ds.latitude[0]),
        "longitude": float(ds.longitude[0]),
        "height": 2.0,
    }
    attrs = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
    daily = xr.DataArray(np.full(7, 285.0), coords, "time", "tmax", attrs)
    daily.attrs |= {"cell_methods": "time: maximum", "xappa_interval": "24h"}
    np.testing.assert_allclose(ds.appa.operator(daily)(ds), 290.0)
    hour = daily.isel(time=[1]).assign_attrs(xappa_interval="2h")
    np.testing.assert_allclose(ds.appa.operator(hour)(ds), 290.0)
    later = daily.isel(time=[3]).assign_attrs(xappa_interval="3h")
    np.testing.assert_allclose(ds.appa.operator(later)(ds), 285.0)  # half way down
    for bad in ("-6h", "0h"):
        with pytest.raises(CoordinateError, match="interval of the observations cannot be read"):
            ds.appa.operator(daily.assign_attrs(xappa_interval=bad))
    total = daily.assign_attrs(cell_methods="time: sum").isel(time=[0])
    lone = ds.isel(time=[4]).appa.operator(total)
    assert lone.status[0].tolist() == [Status.OUTSIDE_WINDOW]
    several = daily.assign_attrs(cell_methods="time: maximum within days time: mean over days")
    assert ds.appa.operator(several).specs[0].footprint is None


def test_extremes_are_corrected_for_the_height() -> None:
    ds = xappa.testing.weather(times=9)
    ds["orog"] = (0 * ds.t2m.isel(time=0) + 100.0).assign_attrs(
        standard_name="surface_altitude", units="m"
    )
    coords = {
        "time": ("obs", ds.time.values[[6]]),
        "latitude": ("obs", [55.0]),
        "longitude": ("obs", [-3.0]),
        "elevation": ("obs", [1100.0], {"units": "m"}),
        "height": 2.0,
    }
    attrs = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
    warm = xr.DataArray([285.0], coords, "obs", "tmax", attrs)
    warm.attrs |= {"cell_methods": "time: maximum", "xappa_interval": "24h"}
    high = ds.appa.operator(warm)
    low = ds.appa.operator(warm.drop_vars("elevation"))
    np.testing.assert_allclose(high(ds) - low(ds), -6.5, atol=1e-4)
    assert not high.is_linear


def test_bounds_from_east_to_west() -> None:
    ds = xappa.testing.weather(times=2)
    coords = {
        "time": ds.time.values[0],
        "latitude": ("obs", [55.0], {"bounds": "lat_b"}),
        "longitude": ("obs", [-3.0], {"bounds": "lon_b"}),
        "height": 2.0,
    }
    attrs = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
    array = xr.DataArray([280.0], coords, "obs", "cell", {**attrs, "cell_methods": "area: mean"})
    both = [
        array.to_dataset().assign(lat_b=(("obs", "nv"), [[54, 56.0]]), lon_b=(("obs", "nv"), [b]))
        for b in ([-4.0, -2.0], [-2.0, -4.0])
    ]
    boxes = [ds.appa.operator(one).specs[0].footprint.box for one in both]
    np.testing.assert_array_equal(*boxes)


# Errors -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return xappa.fit_gaussian(xappa.testing.weather(times=60), modes=5)


@pytest.fixture(scope="module")
def day() -> xr.Dataset:
    return xappa.testing.weather(times=60).isel(time=slice(40, 44))


def stations(day: xr.Dataset, n: int = 12, **attrs) -> xr.DataArray:
    network = xappa.obs.random_stations(day, n, variable="t2m", error=0.3, seed=0)
    return day.appa.observe(network, seed=0).assign_attrs(attrs)


@pytest.mark.parametrize("likelihood", ["huber", "student-t"])
def test_an_outlier_does_not_answer_for_its_neighbours(day, model, likelihood) -> None:
    """Errors that correlate: one is 25 K off, and the others keep theirs."""
    clean = stations(day, error_correlation_length="1000 km")
    bad = clean.copy()
    bad[2, 3] += 25.0
    control = xappa.QualityControl(
        gross=False, background=None, departure=None, likelihood=likelihood
    )
    settings = {"members": 16, "seed": 0}
    good = day.appa.assimilate(clean, model, **settings)
    ens = day.appa.assimilate(bad, model, quality_control=control, **settings)
    errors = [float(xappa.verify.rmse(e.t2m, day.t2m)) for e in (good, ens)]
    assert errors[1] < errors[0] + 0.15
    d = ens.appa.departures(bad, model=model)
    std = d.error_std.values.reshape(4, 12)
    assert std[2, 3] > 1.0
    assert np.median(std) == pytest.approx(0.3, rel=0.05)
    assert np.isfinite(std).all()


def test_coinciding_observations_of_correlated_errors(day, model) -> None:
    array = stations(day, 5, error_correlation_length="1000 km")
    twice = xr.concat([array, (array + 0.2).assign_coords(station=array.station + "b")], "station")
    twice.attrs = array.attrs
    settings = {"members": 4, "seed": 0}
    control = xappa.QualityControl()
    for extra in ({}, {"method": "mmps", "progress": False}, {"quality_control": control}):
        ens = day.appa.assimilate(twice, model, **settings, **extra)
        assert float(abs(ens.t2m - day.t2m).max()) < 15
    operator = day.appa.operator(twice)
    assert np.linalg.cond(operator.error_covariance.toarray()) < 1e6
    assert any("so close" in guess for guess in operator.specs[0].guesses)
    assert not any("so close" in g for g in day.appa.operator(array).specs[0].guesses)


@pytest.mark.parametrize("method", ["sda", "dps"])
def test_methods_that_know_no_correlations_refuse(day, model, method) -> None:
    with pytest.raises(ArgumentError, match="beyond this method"):
        day.appa.assimilate(stations(day, bias_error_std=1.0), model, method=method, members=1)


def test_calm_reports_are_used(day) -> None:
    wind = xr.Dataset({"u": day.t2m * 0.0, "v": day.t2m * 0.0}).drop_vars("height")
    for name, standard in (("u", "eastward_wind"), ("v", "northward_wind")):
        wind[name].attrs = {"standard_name": standard, "units": "m s-1"}
    base = stations(day, 3).drop_vars(["height", "error_std"])
    ff = (base * 0).assign_attrs(standard_name="wind_speed", units="m s-1", bias_error_std=0.5)
    dd = (base * 0 + 40).assign_attrs(standard_name="wind_from_direction", units="degree")
    pair = {"ff": ff.rename("ff"), "dd": dd.rename("dd")}
    operator = wind.appa.operator(pair, error={"ff": 2.0, "dd": 10.0})
    assert operator.n_used == 24
    np.testing.assert_allclose(operator.error_std, 2.0)
    assert all(spec.structure is not None for spec in operator.specs)


# Departures ---------------------------------------------------------------------------------------


def test_departures_without_the_model_do_not_forget_the_control(day, model) -> None:
    array = stations(day)
    ens = day.appa.assimilate(
        array, model, members=2, seed=0, quality_control=xappa.QualityControl()
    )
    ens.attrs["xappa_model"] = "another sha256:0000000000000000"
    with pytest.raises(NoModelError):
        ens.appa.departures(array)
    assert ens.appa.departures(array, model=model).sizes["obs"] == array.size


def test_units_of_departures(day, model) -> None:
    array = stations(day)
    degf = ((array - 273.15) * 1.8 + 32).assign_attrs(array.attrs, units="degF", error_std=0.54)
    degf = degf.drop_vars("error_std")
    ens = day.appa.assimilate(degf, model, members=4, seed=0)
    d = ens.appa.departures(degf, model=model)
    assert d.analysis_departure.attrs["units"] == "delta_degree_Fahrenheit"
    assert "height" not in d.coords
    kelvin = day.appa.assimilate(array, model, members=4, seed=0).appa.departures(array)
    np.testing.assert_allclose(d.analysis_departure, 1.8 * kelvin.analysis_departure, atol=1e-2)
    np.testing.assert_allclose(d.observation_variance, 0.54**2)
    both = ens.appa.departures([array, degf.rename("f")], model=model)
    with pytest.raises(xappa.errors.VariableMismatchError, match="several units"):
        xappa.verify.desroziers(both)


def test_departures_that_cannot_be_written_are_refused_first(day, model, tmp_path) -> None:
    with pytest.raises(ArgumentError, match="cannot be written there"):
        day.appa.assimilate(
            stations(day), model, members=1, departures=tmp_path / "no" / "folder.nc"
        )


def test_observations_that_are_not_linear_take_another_method(day, model) -> None:
    warm = stations(day, 2).isel(time=[3])
    warm.attrs |= {"cell_methods": "time: maximum", "xappa_interval": "12h"}
    with pytest.warns(GuessWarning, match=r"not linear in the state[\s\S]*mmps"):
        ens = day.appa.assimilate(warm, model, members=2, seed=0, progress=False)
    assert ens.attrs["xappa_method"] == "mmps"
    with pytest.raises(OperatorError, match="mmps"):
        day.appa.assimilate(warm, model, members=2, seed=0, method="exact")


# Fewer observations -------------------------------------------------------------------------------


def test_what_differs_is_not_thinned_together(state, model, day) -> None:
    from xappa.observe import read_observations
    from xappa.observe.thinning import superobbed, thinned

    channels = obs(state, np.full((2, 3), 280.0) + np.arange(3), {"height": 2.0}, ("obs", "ch"))
    here = {"latitude": ("obs", [55.0] * 2), "longitude": ("obs", [-3.0] * 2)}
    (spec,) = state.appa.operator(channels.assign_coords(here)).specs
    used = np.arange(6)
    for reduce in (thinned, superobbed):
        kept = reduce(spec, used, 1e5, None)
        assert sorted(spec.values[kept.status == 0].round(3).tolist()) == [280.0, 281.0, 282.0]
    about = {"standard_name": "altitude", "units": "m", "axis": "Z"}
    profile = obs(state, [280, 279.0, 260.0], {"h": ("obs", [500.0, 520.0, 5000.0], about)})
    profile = profile.assign_coords(latitude=("obs", [55.0] * 3), longitude=("obs", [-3.0] * 3))
    (spec,) = state.appa.operator(profile).specs
    assert (thinned(spec, np.arange(3), 1e5, None).status == 0).sum() == 2
    nothing = obs(state, [np.nan, np.nan], {"height": 2.0})
    (spec,) = state.appa.operator(nothing).specs
    assert superobbed(spec, np.arange(0), 1e5, None) is spec
    empty = stations(day) * np.nan
    empty.attrs = stations(day).attrs
    assert read_observations(empty, model.spec)[0].size == empty.size


def test_what_differs_is_no_duplicate(state) -> None:
    two = obs(state, [280.0, 280.0], {"height": 2.0, "instrument": ("obs", ["a", "b"])})
    two = two.assign_coords(latitude=("obs", [55.0] * 2), longitude=("obs", [-3.0] * 2))
    assert state.appa.operator(two).n_used == 2
    assert state.appa.operator(two.drop_vars("instrument")).n_used == 1
    sums = two.drop_vars("instrument").to_dataset()
    sums["temp"].attrs["cell_methods"] = "time: mean"
    sums = sums.assign_coords(time=("obs", state.time.values[[4, 4]], {"bounds": "tb"}))
    begin = state.time.values[[3, 2]]
    sums["tb"] = (("obs", "nv"), np.stack([begin, state.time.values[[4, 4]]], axis=1))
    assert state.appa.operator(sums).n_used == 2


# Second reading -----------------------------------------------------------------------------------


def test_a_module_with_weights_is_assimilated(day, model) -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(1.0))
            self.register_buffer("shift", torch.tensor(2.0))

        def forward(self, t):
            return self.gain * t + self.shift

    register_operator("test_scaled", inputs=["air_temperature"], units="K", linear=True)(Scaled())
    array = stations(day)
    try:
        shifted = (array + 2.0).assign_attrs(array.attrs, xappa_operator="test_scaled")
        settings = {"members": 3, "seed": 0}
        plain = day.appa.assimilate(array, model, **settings)
        for extra in ({}, {"quality_control": xappa.QualityControl()}):
            ens = day.appa.assimilate(shifted, model, **settings, **extra)
        np.testing.assert_allclose(ens.t2m, plain.t2m, atol=2e-3)  # the module is in float32
    finally:
        unregister_operator("test_scaled")


def test_maxima_of_which_none_is_usable(day, model) -> None:
    warm = stations(day, 2).isel(time=[3]) * np.nan
    warm.attrs = {**stations(day).attrs, "cell_methods": "time: maximum", "xappa_interval": "12h"}
    with pytest.warns(xappa.errors.NoObservationsWarning):
        ens = day.appa.assimilate(warm, model, members=2, seed=0, progress=False)
    assert bool(np.isfinite(ens.t2m).all())


def test_variables_named_as_their_operators_are_read(state) -> None:
    array = obs(state, [4000.0], units="m", standard_name="thickness").rename("thickness")
    array.attrs |= {
        "xappa_operator": "dry_thickness",
        "xappa_operator_lower": 9e4,
        "xappa_operator_upper": 5e4,
    }
    assert state.appa.operator(array.to_dataset()).n_used == 1
    own = obs(state, [280.0, 281.0], {"height": 2.0}).rename("air_temperature")
    own.attrs |= {"bias_predictors": "air_temperature", "bias_error_std": 1.0}
    assert state.appa.operator(own.to_dataset()).n_used == 2


def test_cycles_refuse_correlations_too(day, model) -> None:
    array = stations(day, bias_error_std=1.0)
    settings = {"start": day.time.values[0], "stop": day.time.values[-1], "step": "6h"}
    with pytest.raises(ArgumentError, match="beyond this method"):
        xappa.cycle(model, array, method="sda", members=1, **settings)


@pytest.mark.parametrize("apart", [1e-7, 1e-4, 1e-2, 0.05])
@pytest.mark.parametrize("function", ["exponential", "gaspari_cohn"])
def test_observations_that_nearly_coincide(day, model, apart, function) -> None:
    array = stations(day, 5, error_correlation_length="1000 km", error_correlation=function)
    near = (array + 0.2).assign_coords(station=array.station + "b", latitude=array.latitude + apart)
    both = xr.concat([array, near], "station")
    both.attrs = array.attrs
    ens = day.appa.assimilate(both, model, members=4, seed=0)
    assert float(abs(ens.t2m - day.t2m).max()) < 15


def test_winds_of_fill_values_are_missing(day) -> None:
    wind = xr.Dataset({"u": day.t2m * 0.0, "v": day.t2m * 0.0}).drop_vars("height")
    for name, standard in (("u", "eastward_wind"), ("v", "northward_wind")):
        wind[name].attrs = {"standard_name": standard, "units": "m s-1"}
    base = stations(day, 5).drop_vars(["height", "error_std"]).isel(time=0)
    speed = base.copy(data=[-999.0, 5.0, 5.0, 5.0, 4.0]).astype("float32")
    turn = base.copy(data=[-999.0, -999.0, 9.97e36, 999.0, 90.0])
    speed.attrs = {"standard_name": "wind_speed", "units": "m s-1", "error_std": 1.0}
    turn.attrs = {"standard_name": "wind_from_direction", "units": "degree"}
    operator = wind.appa.operator({"ff": speed.rename("ff"), "dd": turn.rename("dd")})
    assert operator.n_used == 2
    np.testing.assert_allclose(operator.values, [-4.0, 0.0], atol=1e-6)


def test_ships_observe_the_surface(state) -> None:
    """A trajectory's altitude does not lift what the state holds at a single level."""
    msl = (0 * state.t2m + 1e5).assign_attrs(
        standard_name="air_pressure_at_mean_sea_level", units="Pa"
    )
    ship = obs(
        state,
        [100500.0, 100600.0],
        {"z": ("obs", [5.0, 7.0], {"standard_name": "altitude", "units": "m"})},
        standard_name="air_pressure_at_mean_sea_level",
        units="Pa",
        featureType="trajectory",
    )
    world = state.assign(msl=msl)
    assert world.appa.operator(ship).specs[0].inputs[0].name == "msl"
    deck = ship.copy(data=[280.0, 281.0]).assign_coords(height=2.0)
    deck.attrs |= {"standard_name": "air_temperature", "units": "K"}
    assert world.appa.operator(deck).specs[0].inputs[0].name == "t2m"


def test_soundings_with_heights_beside_pressures(state) -> None:
    about = {"standard_name": "height", "units": "m"}
    p = {"p": ("obs", [9e4, 5e4], {"units": "Pa", "standard_name": "air_pressure"})}
    array = obs(state, [280.0, 260.0], {**p, "h": ("obs", [900.0, 5500.0], about)})
    assert state.appa.operator(array).specs[0].inputs[0].name == "t"


def test_pressures_among_model_levels_are_refused(state) -> None:
    level = ("level", [4.0, 3.0, 2.0, 1.0], {"standard_name": "model_level_number"})
    numbered = state.assign_coords(level=level)
    p = {"p": ("obs", [8e4], {"units": "Pa", "standard_name": "air_pressure"})}
    with pytest.raises(CoordinateError, match="does not choose one air_temperature"):
        numbered.appa.operator(obs(state, [280.0], p))
    about = {"standard_name": "altitude", "units": "m", "axis": "Z"}
    array = obs(state, [280.0], {"z": ("obs", [3000.0], about)})
    mean = float(state.t2m.mean())
    np.testing.assert_allclose(numbered.appa.operator(array)(numbered), mean - 18.0, rtol=1e-6)


def test_labels_at_the_edge_of_their_cells() -> None:
    ds = xappa.testing.weather(times=2)
    attrs = {"standard_name": "air_temperature", "units": "K", "error_std": 1.0}
    for label in (float(np.float32(1.1)), 1.1 - 1e-6, 1.1 + 1e-6, -2.0 - 1e-6):
        coords = {
            "time": ds.time.values[0],
            "latitude": ("obs", [55.0], {"bounds": "lat_b"}),
            "longitude": ("obs", [label], {"bounds": "lon_b"}),
            "height": 2.0,
        }
        cell = xr.DataArray([280.0], coords, "obs", "cell", {**attrs, "cell_methods": "area: mean"})
        one = cell.to_dataset().assign(
            lat_b=(("obs", "nv"), [[54, 56.0]]), lon_b=(("obs", "nv"), [[-2.0, 1.1]])
        )
        box = ds.appa.operator(one).specs[0].footprint.box
        np.testing.assert_allclose(box[0, 2:], [-2.0, 1.1])
        # bounds as coordinates, as decode_coords="all" has them, survive a simulation
        y = ds.appa.observe(one.set_coords(["lat_b", "lon_b"]), seed=0)
        assert ds.appa.operator(y).specs[0].footprint is not None


def test_parameters_of_ones_own_operators(state) -> None:
    register_operator("test_over", inputs=["air_temperature"], units="K")(
        lambda t, over, lower, upper: t + lower + upper
    )
    p = {"p": ("obs", [8e4], {"units": "Pa", "standard_name": "air_pressure"})}
    array = obs(state, [280.0], p, xappa_operator="test_over", xappa_operator_over="land")
    array.attrs |= {"xappa_operator_lower": 1.0, "xappa_operator_upper": 2.0}
    try:
        assert state.appa.operator(array).n_used == 1
    finally:
        unregister_operator("test_over")


def test_fill_values_of_what_is_said_of_elements(state) -> None:
    about = {"standard_name": "altitude", "units": "m", "axis": "Z"}
    array = obs(state, [280.0, 280.0], {"z": ("obs", [-9999.0, 1000.0], about)})
    array.attrs["xappa_extrapolate"] = "constant"
    assert state.appa.operator(array).status[0].tolist() == [Status.MISSING, 0]
    p = {"p": ("obs", [1e20, 8e4], {"units": "Pa", "standard_name": "air_pressure"})}
    array = obs(state, [280.0, 280.0], p, xappa_extrapolate="constant")
    assert state.appa.operator(array).n_used == 1
    errors = obs(state, [280.0, 280.0], {"height": 2.0, "error_std": ("obs", [-999.0, 1.0])})
    del errors.attrs["error_std"]
    assert state.appa.operator(errors).status[0].tolist() == [Status.NO_ERROR, 0]
    single = obs(state, [-999.9, 280.0], {"height": 2.0}).astype("float32")
    assert state.appa.operator(single).n_used == 1


def test_channels_by_number_are_apart(state) -> None:
    here = {"latitude": ("obs", [55.0] * 2), "longitude": ("obs", [-3.0] * 2)}
    array = obs(state, [280.0, 280.0], {**here, "height": 2.0, "channel": ("obs", [1, 2])})
    assert state.appa.operator(array).n_used == 2
    from xappa.observe.thinning import superobbed

    (spec,) = state.appa.operator(array).specs
    assert (superobbed(spec, np.arange(2), 1e5, None).status == 0).all()


def test_equivalents_beyond_the_levels_of_columns_are_missing(state) -> None:
    about = {"standard_name": "altitude", "units": "m", "axis": "Z"}
    array = obs(state, [280.0, 280.0], {"z": ("obs", [1000.0, 40e3], about)})
    hx = state.appa.operator(array)(state)
    assert np.isfinite(hx).values.tolist() == [True, False]


def test_the_elevation_of_a_station_beside_its_levels(state) -> None:
    high = {"standard_name": "altitude", "units": "m"}
    coords = {
        "z": (("obs", "lev"), [[500.0, 3000.0], [600.0, 4000.0]], high),
        "a_elevation": ("obs", [100.0, 200.0], high),
    }
    array = obs(state, np.full((2, 2), 270.0), coords, ("obs", "lev"))
    for feature in (None, "timeSeriesProfile"):
        if feature:
            array.attrs["featureType"] = feature
        hx = state.appa.operator(array)(state)
        expected = float(state.t2m.mean()) - 0.006 * array.z.values
        np.testing.assert_allclose(hx, expected, rtol=1e-6)
