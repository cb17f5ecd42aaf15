"""Training data: statistics in one pass, states that are read when they are needed, batches."""

from __future__ import annotations

import threading
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from training import TINY

import xappa
from xappa.bridge import describe
from xappa.errors import ArgumentError, DataError
from xappa.testing import raise_if_dask_computes
from xappa.training import data as training_data
from xappa.training.autoencoder import autoencoder_config, autoencoder_stage, channel_weights
from xappa.training.data import Series, TrainingData, open_series, split
from xappa.training.denoiser import denoiser_stage, transformer_config
from xappa.training.distributed import Processes
from xappa.training.latents import Latents
from xappa.training.loader import Prefetched
from xappa.training.log import Log
from xappa.training.loop import Run
from xappa.training.pool import Pool
from xappa.training.statistics import statistics_of

LARGE = 2**40
CPU = torch.device("cpu")


@pytest.fixture
def weather() -> xr.Dataset:
    """Two channels and two members, with a gap in time, and land at one end of one channel."""
    ds = xappa.testing.weather(times=40)
    ds["sst"] = 5 - 2 * ds.t2m.where(ds.longitude > ds.longitude[2])
    ds.sst.attrs = {"standard_name": "sea_surface_temperature", "units": "K"}
    ds = xr.concat([ds, ds + 0.1], "member").assign_coords(member=[0, 1])
    ds.member.attrs["standard_name"] = "realization"
    ds.t2m.attrs = {"standard_name": "air_temperature", "units": "K"}
    ds.sst.attrs = {"standard_name": "sea_surface_temperature", "units": "K"}
    return ds.isel(time=[*range(17), *range(20, 40)])


def series_of(ds: xr.Dataset, budget: int = LARGE) -> Series:
    return open_series(ds, describe(ds)[0], budget)


@pytest.mark.parametrize("climatology", ["point", "channel"])
@pytest.mark.parametrize("chunks", [None, 1, 6, 40])
def test_statistics_out_of_core_are_those_in_memory(
    weather, climatology, chunks, monkeypatch
) -> None:
    series = series_of(weather)
    states = series.states.astype(np.float64)
    present = np.isfinite(states).all((0, 1))
    area = series.spec.grid.area_weights() * present

    def over_area(values: np.ndarray) -> np.ndarray:
        return (np.where(present, values, 0) * area).sum((-2, -1)) / area.sum((-2, -1))

    mean = states.mean((0, 1))
    if climatology == "channel":
        mean = over_area(mean)[:, None, None]
    std = np.sqrt(over_area(((states - mean) ** 2).mean((0, 1))))
    steps = np.concatenate([np.diff(states[:, :17], axis=1), np.diff(states[:, 17:], axis=1)], 1)
    tendency = np.sqrt(over_area((steps**2).mean((0, 1))))
    if chunks is not None:
        series = series_of(weather.chunk(time=chunks), 0)
        assert series.lazy
    monkeypatch.setattr(training_data, "_BLOCK", 8000)  # several blocks of states
    own = statistics_of(series, climatology)
    assert own.mean.shape == ((2, 6, 8) if climatology == "point" else (2, 1, 1))
    np.testing.assert_allclose(own.mean, np.where(np.isfinite(mean), mean, 0), rtol=1e-12)
    np.testing.assert_allclose(own.std[:, 0, 0], std, rtol=1e-12)
    np.testing.assert_allclose(own.tendency[:, 0, 0], tendency, rtol=1e-12)
    np.testing.assert_array_equal(own.missing, ~present)


def prepared(ds: xr.Dataset, config=TINY, budget: int = LARGE) -> TrainingData:
    train, held = split(series_of(ds, budget), config.held_out, None, config.blanket)
    return TrainingData(train, held, statistics_of(train, config.climatology))


def autoencoder_batches(data: TrainingData, config=TINY):
    from xappa.nn.autoencoder import ConvAutoencoder

    run = Run(config, Processes(0, 1, CPU), 3, {}, None, Log(None))
    module = ConvAutoencoder(autoencoder_config(data.spec, config))
    return autoencoder_stage(module, data, run).batch


@pytest.mark.parametrize("pool", [None, (3, 5), (2, 40)])
def test_dask_and_numpy_give_the_same_batches(weather, pool) -> None:
    config = replace(TINY, pool=pool)
    eager = autoencoder_batches(prepared(weather, config), config)
    lazy = autoencoder_batches(prepared(weather.chunk(time=3, member=1), config, 0), config)
    for step in (0, 7, 8, 1000, 2):
        for a, b in zip(eager(step, range(8)), lazy(step, range(8)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pool", [None, (3, 5)])
def test_processes_share_the_same_batch(weather, pool) -> None:
    config = replace(TINY, pool=pool)
    whole = autoencoder_batches(prepared(weather, config), config)
    one, two = (autoencoder_batches(prepared(weather, config), config) for _ in range(2))
    for step in (5, 1, 40):
        parts = zip(one(step, range(4)), two(step, range(4, 8)), strict=True)
        for all_of_it, pair in zip(whole(step, range(8)), parts, strict=True):
            torch.testing.assert_close(torch.cat(pair), all_of_it, rtol=0, atol=0)


def test_blankets_are_shared_and_know_their_dates(weather) -> None:
    from xappa.nn.transformer import LatentTransformer

    data = prepared(weather)
    series = data.train
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, series.times, 24)).astype(np.float32)
    latents = Latents(values, values, np.zeros(2), np.ones(2))
    run = Run(replace(TINY, latent_noise=0.0), Processes(0, 1, CPU), 0, {}, None, Log(None))
    encoder = autoencoder_config(data.spec, TINY)
    network = LatentTransformer(transformer_config(encoder, TINY))
    batch = denoiser_stage(network, latents, data, ("day",), run).batch
    x, noise, sigma, dates = batch(3, range(8))
    for all_of_it, a, b in zip(
        (x, noise, sigma, dates), batch(3, range(3)), batch(3, range(3, 8)), strict=True
    ):
        assert torch.equal(all_of_it, torch.cat([a, b]))
    starts = {(m, s): values[m, s : s + 4] for m in (0, 1) for s in series.starts(4)}
    assert all(any(np.array_equal(own, w) for w in starts.values()) for own in x.numpy())
    # 6 hours between states, and no blanket across the gap
    angle = np.unwrap(np.arctan2(*dates[..., 2:].numpy().transpose(2, 0, 1)), axis=1)
    np.testing.assert_allclose(np.diff(angle, axis=1) % (2 * np.pi), np.pi / 2, atol=1e-5)
    # Times are spread evenly over the schedule: as many levels below 1 as above it.
    assert (sigma < 1).sum() == 4


class Counted:
    """A lazy array that counts the chunks that are read."""

    def __init__(self, ds: xr.Dataset, chunk: int) -> None:
        self.read: list[int] = []
        self.lock = threading.Lock()
        values = ds.t2m.values

        def load(block_info=None) -> np.ndarray:
            (first, last), *_ = block_info[None]["array-location"]
            with self.lock:
                self.read.append(first)
            return values[first:last]

        chunks = da.core.normalize_chunks((chunk, -1, -1), values.shape)
        array = da.map_blocks(load, chunks=chunks, dtype=values.dtype, meta=values[:0])
        self.ds = ds.assign(t2m=(ds.t2m.dims, array, ds.t2m.attrs))


def test_a_batch_reads_no_more_chunks_than_it_needs() -> None:
    counted = Counted(xappa.testing.weather(times=200), 10)
    with raise_if_dask_computes(18):  # blocks of the statistics, each once
        data = prepared(counted.ds, budget=0)
    assert sorted(counted.read) == list(range(0, 180, 10))
    batch = autoencoder_batches(data)
    counted.read.clear()
    with raise_if_dask_computes(3):
        for step in range(3):
            batch(step, range(8))
    assert 3 <= len(counted.read) <= 3 * 8


def test_a_pool_reads_each_stretch_once_in_a_round() -> None:
    counted = Counted(xappa.testing.weather(times=200), 10)
    series = open_series(counted.ds, describe(counted.ds)[0], 0)
    pool = Pool(series, (4, 10), 5, seed=0)
    drawn = [pool.take(step, range(5)) for step in range(2 * 16)]  # two steps for each stretch
    assert len(counted.read) == len(set(counted.read)) == 4 + 15
    assert len(pool._held) == 4
    mean = np.concatenate(drawn).mean()
    assert abs(mean - counted.ds.t2m.mean().compute()) < 1


def test_what_was_opened_and_not_read_stays_on_disk(tmp_path) -> None:
    xappa.testing.weather(times=60).to_netcdf(tmp_path / "weather.nc")
    with xr.open_dataset(tmp_path / "weather.nc") as ds:
        assert series_of(ds, 0).lazy
        model = xappa.train(ds, replace(TINY, memory=0.0), progress=False)
        assert not ds.t2m.variable._in_memory
    np.testing.assert_array_equal(
        xappa.train(xappa.testing.weather(times=60), TINY, progress=False).normalisation.std,
        model.normalisation.std,
    )


def test_a_thread_makes_batches_ahead_and_stops() -> None:
    made = []

    def make(step: int):
        made.append(step)
        if step == 7:
            raise ValueError("no batch")
        return (torch.full((1,), float(step)),)

    with Prefetched(make, range(5), 2) as loader:
        assert [(step, float(batch[0])) for step, batch in loader] == [(k, k) for k in range(5)]
    made.clear()
    with Prefetched(make, range(100), 2) as loader:
        next(iter(loader))
    assert len(made) <= 5
    with Prefetched(make, range(6, 9), 2) as loader, pytest.raises(ValueError, match="no batch"):
        list(loader)


def test_weights_of_channels() -> None:
    ds = xappa.testing.weather(times=30).t2m
    levels = xr.concat([ds, 2 * ds], "level").assign_coords(
        level=("level", [850.0, 250.0], {"standard_name": "air_pressure", "units": "hPa"})
    )
    levels.attrs = {"standard_name": "air_temperature", "units": "K"}
    both = xr.Dataset({"t": levels.drop_vars("height"), "t2m": ds})
    spec, _ = describe(both)
    own = statistics_of(open_series(both, spec, LARGE), "point")
    equal, pressure, doubled, tendency = (
        channel_weights(spec, own, replace(TINY, **change)).ravel()
        for change in (
            {},
            {"level_weights": "pressure"},
            {"variable_weights": {"t2m": 4.0}},
            {"tendency_weights": True},
        )
    )
    np.testing.assert_allclose(equal, 1)
    np.testing.assert_allclose(pressure, [850 / 550, 250 / 550, 1])
    np.testing.assert_allclose(doubled, [0.5, 0.5, 2])
    np.testing.assert_allclose(tendency, 1)  # the same field thrice
    with pytest.raises(ArgumentError, match=r"'t2' is not known[\s\S]*write 't2m'"):
        channel_weights(spec, own, replace(TINY, variable_weights={"t2": 1.0}))


def constant(ds: xr.Dataset) -> xr.Dataset:
    still = (0 * ds.t2m + ds.t2m.isel(time=0)).assign_attrs(standard_name="sea_surface_temperature")
    return ds.assign(still=still.assign_attrs(units="K"))


def irregular(ds: xr.Dataset) -> xr.Dataset:
    time = ds.time.values.copy()
    time[7] += np.timedelta64(37, "m")
    return ds.assign_coords(time=("time", time, ds.time.attrs))


@pytest.mark.parametrize("memory", [None, 0.0])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda ds: ds.where(ds.time != ds.time[30]), r"t2m[\s\S]*interpolate_na"),
        (lambda ds: ds.where(ds.time < ds.time[0]), "every value is missing"),
        (constant, r"do not vary in time[\s\S]*still[\s\S]*leave the variable"),
        (irregular, r"regular times[\s\S]*got: steps of"),
        (lambda ds: ds.isel(time=[0, 1, 2, 5, 6, 7, 10]), r"got: 3, in 2 runs[\s\S]*its gaps"),
    ],
)
def test_data_that_cannot_be_learnt_from(change, match, memory) -> None:
    ds = change(xappa.testing.weather(times=40))
    ds.t2m.attrs = xappa.testing.weather(times=2).t2m.attrs
    with pytest.raises(DataError, match=match):
        xappa.train(ds, replace(TINY, memory=memory), progress=False)


def test_gaps_are_left_out(weather) -> None:
    data = prepared(weather)
    starts = data.train.starts(4)
    assert not {14, 15, 16} & set(starts.tolist())
    assert {13, 17} <= set(starts.tolist())


def test_other_states_to_judge_by(weather) -> None:
    train, other = weather.isel(time=slice(17, None)), weather.isel(time=slice(0, 17))
    model = xappa.train(train, TINY, validation=other, progress=False)
    assert model.provenance["states"] == weather.sizes["time"] * 2
    with pytest.raises(xappa.errors.HandshakeError):
        xappa.train(train, TINY, validation=other.isel(latitude=slice(0, 2)).assign_coords(
            latitude=[10.0, 0.0]), progress=False)  # fmt: skip
