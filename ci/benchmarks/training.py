"""Training throughput: samples a second, share of the time that waits for data, memory.

``reading`` is what the autoencoder's batches could be made at, with nothing else to do.

The preset ``tiny`` (or another) on a synthetic global archive: in memory; read from a Zarr store
state by state; and stretch by stretch from a pool. Each case is a process of its own, so that its
peak memory is its own. The archive is of 250 MB.

    python ci/benchmarks/training.py                  # a minute or two on two cores
    python ci/benchmarks/training.py --preset base --steps 200
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from markdown import markdown

import xappa
from xappa.bridge import describe
from xappa.training.data import allowed, open_series
from xappa.training.pool import Pool

TIMES, LEVELS, ROWS, COLUMNS, CHUNK = 1000, tuple(range(1000, 40, -30)), 32, 64, 40
CASES: dict[str, dict[str, Any]] = {
    "in memory": {},
    "Zarr": {"memory": 0.0},
    "Zarr, pool": {"memory": 0.0, "pool": (16, CHUNK)},
}


def archive(path: Path) -> None:
    """Write waves with noise, chunk by chunk."""
    import dask.array as da

    lat = np.linspace(87.1875, -87.1875, ROWS)
    lon = np.arange(COLUMNS) * 360 / COLUMNS

    def block(block_info: Any = None) -> np.ndarray:
        (first, last), *_ = block_info[None]["array-location"]
        rng = np.random.default_rng(first)
        phase = np.radians(lon) * 4 - 0.1 * np.arange(first, last)[:, None, None, None]
        wave = 10 * np.cos(phase) * np.cos(np.radians(lat))[:, None]
        noise = rng.standard_normal((last - first, len(LEVELS), ROWS, COLUMNS))
        return (250 + wave + noise).astype(np.float32)

    shape = (TIMES, len(LEVELS), ROWS, COLUMNS)
    chunks = ((CHUNK,) * (TIMES // CHUNK), (len(LEVELS),), (ROWS,), (COLUMNS,))
    values = da.map_blocks(block, chunks=chunks, dtype="f4", meta=np.zeros((0,) * 4, "f4"))
    assert values.shape == shape
    coords = {
        "time": pd.date_range("2000-01-01", periods=TIMES, freq="6h"),
        "level": ("level", list(LEVELS), {"standard_name": "air_pressure", "units": "hPa"}),
        "latitude": ("latitude", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    attrs = {"standard_name": "air_temperature", "units": "K"}
    ds = xr.Dataset({"t": (("time", "level", "latitude", "longitude"), values, attrs)}, coords)
    ds.to_zarr(path, consolidated=False)


def measure(store: Path, folder: Path, preset: str, steps: int, changes: dict[str, Any]) -> None:
    """Train, and print what the log says of the second half of the steps, as JSON."""
    settings = {"autoencoder_steps": steps, "denoiser_steps": steps, "log_every": steps // 2}
    config = xappa.AppaTraining.preset(preset, **settings, validate_every=0, **changes)
    with xr.open_dataset(store, engine="zarr", chunks={}, consolidated=False) as ds:
        xappa.train(ds, config, folder=folder, progress=False)
        alone = reading(ds, config)
    rows = pd.read_csv(folder / "log.csv")
    last = rows[rows.step == steps].set_index(["stage", "name"]).value
    found: dict[str, float] = {"reading [samples/s]": alone}
    for stage in ("autoencoder", "denoiser"):
        found[f"{stage} [samples/s]"] = last[stage, "samples_per_second"]
        found[f"{stage}, waiting [%]"] = 100 * last[stage, "waiting"]
    found["peak memory [GiB]"] = last["denoiser", "memory_gib"]
    sys.stdout.write(json.dumps(found))


def reading(ds: xr.Dataset, config: xappa.AppaTraining, steps: int = 40) -> float:
    """Samples a second that can be read."""
    series = open_series(ds, describe(ds)[0], allowed(config.memory))
    pool = Pool(series, config.pool, config.batch, 0)
    pool.take(0, range(config.batch))
    begin = time.perf_counter()
    for step in range(1, steps + 1):
        pool.take(step, range(config.batch))
    return steps * config.batch / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--case", nargs=3, metavar=("NAME", "STORE", "FOLDER"))
    given = parser.parse_args()
    if given.case is not None:
        name, store, folder = given.case
        measure(Path(store), Path(folder), given.preset, given.steps, CASES[name])
        return
    table = {}
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "archive.zarr"
        archive(store)
        for number, name in enumerate(CASES):
            command = [sys.executable, __file__, "--preset", given.preset]
            command += ["--steps", str(given.steps)]
            command += ["--case", name, str(store), str(Path(scratch) / str(number))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            table[name] = json.loads(done.stdout)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    print(f"{where}, {os.cpu_count()} cores, {torch.get_num_threads()} threads\n")
    frame = pd.DataFrame(table).T
    frame.index.name = f"preset {given.preset}"
    print(markdown(frame, 2))


if __name__ == "__main__":
    main()
