"""Maps: units, Datasets, observations of any layout, ticks, coastlines, the colour bar."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from xappa import errors, plot
from xappa.plot import coastlines as coast

matplotlib = pytest.importorskip("matplotlib", reason="the extra plot is not installed")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(autouse=True)
def _no_coastlines(monkeypatch, tmp_path):
    """Whatever this machine has, the tests begin without coastlines."""
    try:
        import cartopy
    except ImportError:
        return
    for key in coast.FOLDERS:
        monkeypatch.setitem(cartopy.config, key, tmp_path / key)


def region(values, **attrs):
    coords = {
        "latitude": ("latitude", np.linspace(58, 50, 17), {"units": "degrees_north"}),
        "longitude": ("longitude", np.linspace(-10, 2, 25), {"units": "degrees_east"}),
        "time": ((), np.datetime64("2019-03-25T12:00", "ns"), {"standard_name": "time"}),
    }
    attrs = {"long_name": "2 metre temperature", "units": "K", **attrs}
    dims = ("member", "latitude", "longitude")[-np.ndim(values) :]
    return xr.DataArray(values, coords, dims, "t2m", attrs)


@pytest.fixture
def ensemble():
    return region(280.0 + np.random.default_rng(0).normal(size=(8, 17, 25)))


@pytest.fixture
def globe():
    coords = {"latitude": np.linspace(90, -90, 37), "longitude": np.arange(0.0, 360.0, 5.0)}
    return xr.DataArray(np.ones((37, 72)), coords, ("latitude", "longitude"), "z")


def drawn(ax):
    return np.asarray(ax.collections[0].get_array())


def labels(axis):
    low, high = sorted(axis.get_view_interval())
    ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
    return [tick.label1.get_text() for tick in ticks]


class TestIncrement:
    def test_background_in_other_units(self, ensemble):
        celsius = (ensemble - 275.15).assign_attrs(units="degC", long_name="temperature")
        ax = plot.increment_map(ensemble, celsius)  # 2 K colder
        np.testing.assert_allclose(drawn(ax), 2.0, atol=1e-9)
        ax = plot.increment_map(celsius, ensemble)
        np.testing.assert_allclose(drawn(ax), -2.0, atol=1e-9)
        assert ax.collections[0].colorbar.ax.get_ylabel() == "analysis increment [K]"
        ax = plot.increment_map(ensemble, ensemble.drop_attrs() - 1.0)
        np.testing.assert_allclose(drawn(ax), 1.0, atol=1e-9)

    def test_units_that_do_not_convert(self, ensemble):
        with pytest.raises(errors.UnitsError):
            plot.increment_map(ensemble, ensemble.assign_attrs(units="m"))
        assert not plt.get_fignums()

    def test_quantified_fields(self, ensemble):
        pytest.importorskip("pint_xarray")
        celsius = (ensemble - 275.15).assign_attrs(units="degC")
        ax = plot.increment_map(ensemble.pint.quantify(), celsius)
        np.testing.assert_allclose(drawn(ax), 2.0, atol=1e-9)

    def test_another_grid(self, ensemble):
        with pytest.raises(errors.GridMismatchError, match="on different grids"):
            plot.increment_map(ensemble, ensemble.isel(latitude=slice(5)))
        flipped = ensemble.isel(latitude=slice(None, None, -1)) - 1.0
        np.testing.assert_allclose(drawn(plot.increment_map(ensemble, flipped)), 1.0, atol=1e-9)

    def test_a_norm_replaces_the_limits(self, ensemble):
        norm = matplotlib.colors.Normalize(-5.0, 7.0)
        assert plot.increment_map(ensemble, ensemble, norm=norm).collections[0].norm is norm


class TestMean:
    def test_of_an_ensemble(self, ensemble):
        field = ensemble.expand_dims(step=[0])
        ax = plot.mean_map(field.assign_coords(surface=0.0))
        np.testing.assert_allclose(drawn(ax), ensemble.mean("member"))
        assert ax.get_title(loc="left") == "2 metre temperature · 2019-03-25 12:00"
        assert ax.collections[0].colorbar.ax.get_ylabel() == "ensemble mean [K]"

    def test_of_a_field_on_a_level(self, ensemble):
        level = xr.DataArray(850.0, attrs={"units": "hPa", "standard_name": "air_pressure"})
        ax = plot.mean_map(ensemble[0].assign_coords(level=level), vmin=0.0)
        assert ax.get_title(loc="left") == "2 metre temperature · 850 hPa · 2019-03-25 12:00"
        assert ax.collections[0].colorbar.ax.get_ylabel() == "2 metre temperature [K]"
        assert ax.collections[0].norm.vmin == 0.0

    def test_of_a_month(self, ensemble):
        month = ensemble[0].drop_vars("time").assign_coords(month=7)
        assert plot.mean_map(month).get_title(loc="left") == "2 metre temperature · month 7"


class TestDatasets:
    def test_the_only_field_is_taken(self, ensemble):
        ds = ensemble.to_dataset().assign(count=3)
        np.testing.assert_array_equal(drawn(plot.mean_map(ds)), ensemble.mean("member"))
        np.testing.assert_array_equal(drawn(plot.increment_map(ds, ds)), 0.0)
        assert drawn(plot.spread_map(ds)).shape == (17, 25)

    def test_one_of_several_has_to_be_picked(self, ensemble):
        ds = xr.Dataset({"t2m": ensemble, "u10": ensemble})
        with pytest.raises(errors.ArgumentError, match=r"as in ensemble\['t2m'\] or ensemble.t2m"):
            plot.spread_map(ds)
        with pytest.raises(errors.ArgumentError, match=r"as in background\['t2m'\]"):
            plot.increment_map(ensemble, ds)
        with pytest.raises(errors.ArgumentError, match="got: ndarray"):
            plot.mean_map(ensemble.values)
        assert not plt.get_fignums()


class TestStations:
    def offsets(self, ax, which=1):
        return ax.collections[which].get_offsets()

    def test_a_grid_with_gaps(self, ensemble):
        obs = ensemble[0].isel(latitude=[0, 8], longitude=[0, 4, 24], drop=False).copy()
        obs[:] = np.nan
        obs[0, 1], obs[1, 2] = 1.0, 2.0
        ax = plot.spread_map(ensemble, stations=obs)
        np.testing.assert_allclose(self.offsets(ax), [[-8.0, 58.0], [2.0, 54.0]])
        np.testing.assert_allclose(
            self.offsets(plot.spread_map(ensemble, stations=obs.to_dataset())), self.offsets(ax)
        )

    def test_times_members_of_lists_and_tracks(self, ensemble):
        place = {"lat": ("station", [51.0, 53.0, 55.0]), "lon": ("station", [357.0, 0.0, 1.0])}
        values = [[np.nan, 1.0, np.nan], [np.nan, np.nan, 2.0]]
        series = xr.DataArray(values, place, ("time", "station"))
        track = {"lat": (("orbit", "scan"), [[52.0, 56.0]]), "lon": (("orbit", "scan"), [[-3, -4]])}
        swath = xr.DataArray([[1.0, np.nan]], track, ("orbit", "scan"))
        ax = plot.spread_map(ensemble, stations=[series, swath])
        np.testing.assert_allclose(self.offsets(ax), [[-3, 52], [0, 53], [1, 55]])
        ax = plot.spread_map(ensemble, stations={"network": series.isel(time=0).drop_attrs()})
        np.testing.assert_allclose(self.offsets(ax), [[0, 53]])

    def test_coordinates_alone_are_enough_and_longitudes_fit_the_field(self, ensemble):
        ds = xr.Dataset(coords={"lat": ("s", [51.0, 52.0]), "lon": ("s", [357.0, 352.0])})
        ax = plot.spread_map(ensemble, stations=ds.chunk())
        np.testing.assert_allclose(self.offsets(ax), [[-8.0, 52.0], [-3.0, 51.0]])

    @pytest.mark.parametrize("projected", [False, True])
    def test_those_outside_are_hollow_and_do_not_stretch_the_map(self, ensemble, projected):
        crs = pytest.importorskip("cartopy.crs", reason="cartopy is not installed")
        options = {"projection": crs.LambertConformal(-4.0, 54.0)} if projected else {}
        place = {"lat": ("s", [51.0, 10.0]), "lon": ("s", [0.0, 90.0])}
        stations = xr.DataArray([1.0, 2.0], place, "s")
        bare = plot.spread_map(ensemble, **options)
        ax = plot.spread_map(ensemble, stations=stations, **options)
        np.testing.assert_allclose(ax.get_xlim(), bare.get_xlim())
        np.testing.assert_allclose(ax.get_ylim(), bare.get_ylim())
        assert len(self.offsets(ax)) == len(self.offsets(ax, 2)) == 1
        assert len(ax.collections[1].get_facecolor()) == 1
        assert len(ax.collections[2].get_facecolor()) == 0

    def test_wrong_stations_leave_the_axes_as_they_were(self, ensemble):
        _, ax = plt.subplots()
        with pytest.raises(errors.CoordinateError, match="no coordinate for latitude"):
            plot.spread_map(ensemble, stations=xr.DataArray([1.0], dims="station"), ax=ax)
        with pytest.raises(errors.ArgumentError, match="stations have no coordinates"):
            plot.spread_map(ensemble, stations=3, ax=ax)
        assert not ax.collections


class TestAxes:
    def test_ticks_of_a_globe(self, globe):
        ax = plot.mean_map(globe)
        ax.figure.canvas.draw()
        assert labels(ax.xaxis) == ["0°", "60°E", "120°E", "180°", "120°W", "60°W"]
        assert labels(ax.yaxis) == ["90°S", "60°S", "30°S", "0°", "30°N", "60°N", "90°N"]
        assert ax.get_ylim() == (-90.0, 90.0)

    def test_longitudes_that_start_again_go_on(self):
        field = region(np.arange(17 * 25.0).reshape(17, 25))
        ax = plot.mean_map(field.assign_coords(longitude=field.longitude % 360.0))
        assert ax.get_xlim() == pytest.approx((349.75, 362.25))
        ax.figure.canvas.draw()
        assert "0°" in labels(ax.xaxis)

    @pytest.mark.parametrize("layout", [None, "constrained", "compressed", "tight"])
    @pytest.mark.parametrize("projected", [False, True])
    def test_the_colour_bar_is_as_high_as_the_map(self, globe, layout, projected):
        crs = pytest.importorskip("cartopy.crs", reason="cartopy is not installed")
        projection = crs.Robinson() if projected else None
        figure = plt.figure(figsize=(6, 5), layout=layout)
        ax = figure.add_subplot(projection=projection)
        plot.mean_map(globe, ax=ax)
        figure.canvas.draw()
        here, bar = ax.get_position(), ax.collections[0].colorbar.ax.get_position()
        assert (bar.y0, bar.y1) == pytest.approx((here.y0, here.y1))
        assert 0.0 < bar.x0 - here.x1 < 0.05


def write_shapes(path):
    shapefile = pytest.importorskip("shapefile", reason="pyshp is not installed")
    with shapefile.Writer(str(path), shapeType=3) as writer:
        writer.field("name", "C")
        writer.line([[[-5.0, 51.0], [-3.0, 55.0]], [[100.0, -60.0], [140.0, -60.0]]])
        writer.record("coast")


class TestCoastlines:
    @pytest.fixture
    def shapes(self, tmp_path):
        """Two lines, one in the region and one far away, where cartopy would look for them."""
        pytest.importorskip("shapefile", reason="pyshp is not installed")
        pytest.importorskip("cartopy", reason="cartopy is not installed")
        folder = tmp_path / "data_dir/shapefiles/natural_earth/physical"
        folder.mkdir(parents=True)
        write_shapes(folder / "ne_110m_coastline")

    def lines(self, ax):
        return [c for c in ax.collections if c.get_label() == "coastlines"]

    @pytest.mark.usefixtures("shapes")
    def test_local_ones_are_drawn_and_clipped(self, ensemble):
        ax = plot.spread_map(ensemble)
        ((segment,),) = (line.get_segments() for line in self.lines(ax))
        np.testing.assert_array_equal(segment, [[-5.0, 51.0], [-3.0, 55.0]])
        assert ax.get_xlim() == pytest.approx((-10.25, 2.25))
        assert not self.lines(plot.spread_map(ensemble, coastlines=False))

    @pytest.mark.usefixtures("shapes")
    def test_longitudes_from_0_to_360(self, globe):
        (lines,) = self.lines(plot.mean_map(globe))
        first = [segment[0, 0] for segment in lines.get_segments()]
        assert sorted(first) == [100.0, 355.0]  # in the range of the map

    @pytest.mark.usefixtures("shapes")
    def test_on_a_projection(self, globe):
        crs = pytest.importorskip("cartopy.crs", reason="cartopy is not installed")
        ax = plot.mean_map(globe, projection=crs.Robinson(), coastlines=True)
        assert len(self.lines(ax)[0].get_segments()) == 2
        ax.figure.canvas.draw()

    def test_without_any_nothing_is_drawn_or_downloaded(self, ensemble, monkeypatch):
        monkeypatch.setattr(coast, "_download", lambda scale: pytest.fail("a download"))
        assert not self.lines(plot.spread_map(ensemble))

    def test_maps_leave_cartopy_and_proj_unimported(self, tmp_path):
        """PROJ after a GRIB file may crash Python on exit."""
        pytest.importorskip("cartopy", reason="cartopy is not installed")
        pytest.importorskip("shapefile", reason="pyshp is not installed")
        folder = tmp_path / "cartopy/shapefiles/natural_earth/physical"
        folder.mkdir(parents=True)
        write_shapes(folder / "ne_50m_coastline")
        code = (
            "import sys, matplotlib; matplotlib.use('Agg')\n"
            "import xappa\n"
            "ax = xappa.plot.mean_map(xappa.testing.weather(1))\n"
            "assert ax.collections[-1].get_label() == 'coastlines'\n"
            "assert not {'cartopy', 'pyproj'} & set(sys.modules)\n"
        )
        environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "CARTOPY_DATA_DIR": ""}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)

    def test_a_download_that_fails(self, ensemble, monkeypatch):
        shapereader = pytest.importorskip("cartopy.io.shapereader")

        def fail(*_):
            raise OSError("no network")

        monkeypatch.setattr(shapereader, "natural_earth", fail)
        with pytest.raises(errors.DataError, match="no network"):
            plot.spread_map(ensemble, coastlines=True)
        assert not plt.get_fignums()

    def test_without_cartopy(self, ensemble, monkeypatch):
        monkeypatch.setitem(sys.modules, "cartopy", None)
        monkeypatch.setitem(sys.modules, "cartopy.io.shapereader", None)
        assert not self.lines(plot.spread_map(ensemble))
        with pytest.raises(errors.MissingDependencyError, match=r"xappa\[plot\]"):
            plot.spread_map(ensemble, coastlines=True)
