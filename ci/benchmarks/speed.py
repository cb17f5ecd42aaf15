"""How long things take: importing, the main job of a day, and global files from end to end.

python ci/benchmarks/speed.py
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import xarray as xr
from markdown import markdown

import xappa


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def imports(runs: int = 7) -> pd.DataFrame:
    def once(module: str) -> float:
        code = (
            f"import time; a = time.perf_counter(); import {module}; print(time.perf_counter()-a)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        return float(done.stdout)

    rows = [
        {"import": module, "median s": statistics.median(once(module) for _ in range(runs))}
        for module in ("xarray", "xappa")
    ]
    return pd.DataFrame(rows)


def main_job() -> pd.DataFrame:
    ds = xappa.tutorial.open_dataset("era5-uk").load()
    train, day = ds.sel(time=slice("2019-03-01", "2019-03-24")), ds.sel(time="2019-03-25")
    _, fit = timed(lambda: xappa.fit_gaussian(train))
    tuned, auto = timed(
        lambda: xappa.fit_gaussian(train, localisation="auto", inflation="auto", shrinkage="auto")
    )
    network = xappa.observe.random_stations(day, 20, variable="t2m", error=0.5, seed=0)
    obs = day.appa.observe(network, seed=0)
    rows = [{"what": "fit_gaussian", "s": fit}, {"what": "fit_gaussian, all 'auto'", "s": auto}]
    for method in ("exact", "mmps", "jfps", "sda", "dps"):
        _, seconds = timed(
            lambda method=method: day.appa.assimilate(obs, tuned, members=16, seed=0, method=method)
        )
        rows.append({"what": f"assimilate a day, 16 members, {method}", "s": seconds})
    return pd.DataFrame(rows)


def global_file(name: str) -> dict[str, Any]:
    ds = xappa.tutorial.open_dataset(name)
    if name == "eraint-uvz":
        variable, error = "u", 1.0
    else:
        variable = "t" if "t" in ds else "temperature"
        error = 1.0
    truth = ds if "number" not in ds.dims else ds.isel(number=0, drop=True)
    model, fit = timed(lambda: xappa.fit_gaussian(ds))
    z, encode = timed(lambda: ds.appa.encode(model))
    _, decode = timed(lambda: z.appa.decode(model))
    network = xappa.observe.random_stations(truth, 100, variable=variable, error=error, seed=0)
    obs, observe = timed(lambda: truth.appa.observe(network, seed=0))
    ens, assimilate = timed(
        lambda: truth.appa.assimilate(obs, model, members=8, seed=0, progress=False)
    )
    before = _rmse(
        model.climatology(_seconds(truth, model))[:, model.spec.slice_of(variable)],
        truth,
        variable,
        model,
    )
    after = float(xappa.verify.rmse(ens[[variable]], truth[[variable]])[variable])
    return {
        "file": name,
        "points of a state": model.eofs.shape[0],
        "fit s": fit,
        "encode s": encode,
        "decode s": decode,
        "observe s": observe,
        "assimilate s": assimilate,
        "observed": f"{variable} ({truth[variable].attrs['units']})",
        "RMSE of the climatology": before,
        "RMSE of the analysis": after,
    }


def _seconds(ds: xr.Dataset, model: Any) -> Any:
    from xappa.bridge import Layout
    from xappa.tasks.window import in_calendar

    return in_calendar(Layout.of(ds, model.spec), model)


def _rmse(mean: Any, truth: xr.Dataset, variable: str, model: Any) -> float:
    from xappa.bridge import Layout, pack, unpack

    layout = Layout.of(truth, model.spec)
    packed = pack(truth, model.spec, layout)
    data = packed.values.copy()
    data[:, model.spec.slice_of(variable)] = mean
    field = unpack(packed.copy(data=data), layout)
    return float(xappa.verify.rmse(field[[variable]], truth[[variable]])[variable])


def main() -> None:
    warnings.simplefilter("ignore")
    xappa.set_options(progress=False)
    print(markdown(imports(), 2), flush=True)
    print(markdown(main_job(), 1), flush=True)
    names = ("era5-members", "eraint-uvz", "era5-tl31")
    print(markdown(pd.DataFrame([global_file(name) for name in names]), 2), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
