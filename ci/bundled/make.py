"""Make what comes with xappa: the model speedy-t31, a sample of the test year, and a network.

In a folder with some 30 GB of space, on two cores an hour for each of the first two:

    python -m xappa nature-run --output nature.zarr --years 12 --native 1D
    cp ci/bundled/speedy-t31.toml . && python -m xappa train speedy-t31.toml --output run
    python ci/bundled/make.py nature.zarr run/model [--scores scores.json]

Weights are rounded to half precision. States are packed to 16 bits, in steps far below what the
autoencoder loses. The stations are those of the dense network of ``ci/benchmarks/osse``, half of
them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import xarray as xr

import xappa

ROOT = Path(__file__).parents[2]
LEVELS = [250.0, 500.0, 700.0, 850.0, 925.0]
PERIOD = ("2012-01-15", "2012-01-17T18")
STATIONS = 200
#: Steps in which the sample is packed, in the units of the variables.
PACKED = {"u": 0.1, "v": 0.1, "t": 0.05, "q": 5e-6, "z": 5.0, "sp": 10.0, "msl": 10.0, "pr": 2e-7}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nature", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--scores", type=Path, help="JSON: what the model card is to say")
    arguments = parser.parse_args()
    model = xappa.open_model(arguments.model).rounded()
    if arguments.scores is not None:
        model.scores = {**model.scores, **json.loads(arguments.scores.read_text())}
    model.save(ROOT / "xappa/models/bundled/speedy-t31", overwrite=True)
    states = sample(arguments.nature)
    folder = ROOT / "xappa/samples"
    folder.mkdir(exist_ok=True)
    states.to_netcdf(folder / "speedy-t31.nc", encoding=packing(states))
    network = stations(states)
    zipped = {name: {"zlib": True} for name in network.data_vars}
    network.to_netcdf(folder / "speedy-t31-network.nc", encoding=zipped)
    for path in sorted([*folder.iterdir(), *(folder.parent / "models/bundled").rglob("*.*")]):
        if path.is_file():
            print(f"{path.stat().st_size / 1e6:6.2f} MB  {path.relative_to(ROOT)}")


def sample(nature: Path) -> xr.Dataset:
    """Return some days of the test year."""
    ds = xr.open_dataset(nature, engine="zarr", chunks={}).sel(level=LEVELS)
    ds = ds.sel(time=slice(*PERIOD))[[*PACKED, "orog", "lsm"]].load()
    ds = ds.drop_vars([name for name in ds.coords if name.endswith("_bnds")], errors="ignore")
    return ds.drop_encoding()


def packing(ds: xr.Dataset) -> dict[str, dict[str, object]]:
    """Return how the variables of a sample are packed."""
    found: dict[str, dict[str, object]] = {}
    for name, step in PACKED.items():
        middle = float(np.round((ds[name].min() + ds[name].max()) / 2 / step) * step)
        found[name] = {"dtype": "int16", "scale_factor": step, "add_offset": middle}
    for name in ("orog", "lsm"):
        found[name] = {"dtype": "float32"}
    return {
        name: {"zlib": True, "complevel": 9, "shuffle": True, **own} for name, own in found.items()
    }


def stations(ds: xr.Dataset) -> xr.Dataset:
    """Return a network of radiosondes, their errors and no values yet."""
    sys.path.insert(0, str(ROOT / "ci/benchmarks/osse"))
    from networks import places

    return xappa.obs.radiosondes(ds, places(ds, STATIONS, ocean=0.06, seed=0))


if __name__ == "__main__":
    main()
