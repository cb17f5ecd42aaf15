"""How each method makes its analyses: observations in, ensembles on pressure levels out.

A method writes one Zarr store (member, time, level, latitude, longitude) of the scored times for
each network, and is skipped where that is there.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from baselines import Fitted, climatological_members, fit
from networks import select
from twin import Experiment, Store, blank

import xappa

__all__ = ["METHODS", "Setting", "assimilate", "open_bundle", "window"]


@dataclass(frozen=True)
class Setting:
    """What a method is given.

    Parameters
    ----------
    nature
        Path of the nature run.
    truth
        The nature run on the experiment's levels, lazily.
    folder
        Of all output.
    experiment
        Settings.
    network, obs
        The name of the network, and its observations.
    bundle, name
        Path of the model of the methods ``xappa-…``, and what its analyses are called.
    prior
        Path of the EOF-Gaussian.
    stride
        Of the times that the method ``xappa-filter`` analyses, to spare time.
    cycling
        Of the method ``xappa-cycle``: from one analysis to the next, and inflation.
    fitted
        How the EOF-Gaussian is fitted.
    settings
        Of the draws of the methods ``xappa-…``: arguments of `assimilate`.
    """

    nature: str
    truth: xr.Dataset
    folder: Path
    experiment: Experiment
    network: str
    obs: Sequence[xr.Dataset]
    prior: Path
    bundle: str | None = None
    name: str = "xappa"
    stride: int = 1
    cycling: tuple[str, float] = ("6h", 1.0)
    fitted: Fitted = field(default_factory=Fitted)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def path(self, method: str) -> Path:
        """Return where the analyses of a method are."""
        return self.folder / "analyses" / f"{method}-{self.network}.zarr"

    def blanket(self, time: pd.Timestamp) -> Path:
        """Return where the states up to a start of forecasts are, as the filter sees them."""
        return self.folder / "blankets" / f"{self.name}-{self.network}-{time:%Y%m%d%H}.zarr"

    def native(self, method: str, time: pd.Timestamp) -> Path:
        """Return where an analysis on the model's own levels is."""
        return self.folder / "native" / f"{method}-{self.network}-{time:%Y%m%d%H}.npz"


def climatology(setting: Setting) -> None:
    store = Store(setting.path("climatology"))
    members = climatological_members(setting.truth, setting.experiment)
    for first in range(0, members.sizes["time"], 20):
        store.append(members.isel(time=slice(first, first + 20)).load())
    store.close()


def letkf(setting: Setting) -> None:
    """Run the filter and the smoother."""
    from cycling import cycles, initial
    from letkf import CHOSEN
    from perfect import Perfect

    experiment, perfect = setting.experiment, Perfect()
    filtered, smoothed = Store(setting.path("letkf")), Store(setting.path("letks"))
    start, scored = initial(perfect, setting.nature, experiment), set(experiment.scored)
    # as far as the smoother of the last scored time sees
    until = experiment.scored[-1] + experiment.lag * experiment.step
    times = experiment.times[experiment.times <= until]
    local, took = CHOSEN[setting.network], []
    for cycle in cycles(perfect, start, setting.obs, times, experiment, local):
        took.append(cycle.seconds)
        if cycle.time in scored:
            filtered.append(perfect.on_pressure(cycle.analysis, experiment.levels))
        if cycle.time in experiment.starts:
            path = setting.native("letkf", cycle.time)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **cycle.analysis.fields)
        if cycle.smoothed is not None and cycle.smoothed.time in scored:
            smoothed.append(perfect.on_pressure(cycle.smoothed, experiment.levels))
        if len(took) % 20 == 0:
            mean = pd.DataFrame(took[1:]).mean().round(2).to_dict()
            print(f"{setting.network} {cycle.time} seconds a cycle: {mean}", flush=True)
    filtered.close()
    smoothed.close()


def free(setting: Setting) -> None:
    """Forecast from the first scored analysis of the dense network's LETKF, to see errors grow."""
    from perfect import Perfect

    experiment, perfect = setting.experiment, Perfect()
    first = replace(setting, network="dense").native("letkf", experiment.scored[0])
    ensemble = perfect.load(first, experiment.scored[0], experiment.members // 2)
    store = Store(setting.path("free"))
    for time in experiment.scored:
        if time != experiment.scored[0]:
            ensemble = perfect.forecast(ensemble)
        store.append(perfect.on_pressure(ensemble, experiment.levels))
    store.close()


def gaussian(setting: Setting) -> None:
    """Draw from the posteriors of the EOF-Gaussian, in closed form: OI, filter and smoother."""
    from gaussian import KINDS, Gaussian, load

    if not setting.prior.exists():
        fit(setting.truth, setting.experiment, setting.prior, setting.fitted)
    experiment, began = setting.experiment, clock.perf_counter()
    posterior = Gaussian(load(str(setting.prior)), setting.obs, window(setting))
    draws = {
        kind: posterior.components(kind, experiment.members, experiment.seed)[1] for kind in KINDS
    }
    print(f"components, {setting.network}: {clock.perf_counter() - began:.0f} s", flush=True)
    names = {kind: "oi" if kind == "oi" else f"gaussian-{kind}" for kind in KINDS}
    stores = {kind: Store(setting.path(names[kind])) for kind in KINDS}
    for time in experiment.scored:
        k = experiment.times.get_loc(time)
        information = posterior.information(k)
        for kind in KINDS:
            states = posterior.states(draws[kind], k, experiment.seed, information)
            stores[kind].append(states)
    for store in stores.values():
        store.close()


def window(
    setting: Setting, first: pd.Timestamp | None = None, last: pd.Timestamp | None = None
) -> xr.Dataset:
    """Return a window without values: all analysis times, or those between two."""
    times = setting.experiment.times
    inside = times[times.slice_indexer(first, last)]
    return blank(setting.truth, inside)


def xappa_filter(setting: Setting) -> None:
    """Assimilate the observations up to each time: those of the last blanket of states."""
    model, experiment = open_bundle(setting), setting.experiment
    store = Store(setting.path(f"{setting.name}-filter"))
    span = experiment.step * (model.blanket - 1)
    for time in experiment.scored[:: setting.stride]:
        states = window(setting, time - span, time)
        obs = select(list(setting.obs), time - span, time)
        analysis = assimilate(states, obs, model, setting)
        if time in experiment.starts:
            analysis.drop_encoding().to_zarr(setting.blanket(time), consolidated=False)
        store.append(analysis.isel(time=[-1]))
    store.close()


def xappa_smoother(setting: Setting, length: str = "10D", halo: str = "1D") -> None:
    """Assimilate windows of some days, with the observations of a halo on both sides of them."""
    model, experiment = open_bundle(setting), setting.experiment
    store, last = Store(setting.path(f"{setting.name}-smoother")), experiment.times[-1]
    first = experiment.scored[0]
    while first <= experiment.scored[-1]:
        stop = min(first + pd.Timedelta(length) - experiment.step, experiment.scored[-1])
        begin = max(first - pd.Timedelta(halo), experiment.times[0])
        end = min(stop + pd.Timedelta(halo), last)
        obs = select(list(setting.obs), begin, end)
        analysis = assimilate(window(setting, begin, end), obs, model, setting)
        store.append(analysis.sel(time=slice(first, stop)))
        first = stop + experiment.step
    store.close()


def xappa_cycle(setting: Setting) -> None:
    """Cycle: each analysis is the last state of a cycle, as a filter's is."""
    model, experiment = open_bundle(setting), setting.experiment
    store, (step, inflation) = Store(setting.path(f"{setting.name}-cycle")), setting.cycling
    own = {"inflation": inflation} if model.has_networks else {}
    analyses = xappa.cycle(
        model,
        list(setting.obs),
        start=experiment.times[0],
        stop=experiment.scored[-1],
        step=step,
        members=experiment.members,
        seed=experiment.seed,
        progress=False,
        **own,
        **setting.settings,
    )
    for analysis in analyses:
        last = analysis.isel(time=[-1]).rename(pressure="level")
        if last.time.values[0] in experiment.scored:
            store.append(last)
    store.close()


def open_bundle(setting: Setting) -> Any:
    """Return the model of the methods ``xappa-…``."""
    if setting.bundle is None:
        raise SystemExit("the methods xappa-… need --model BUNDLE")
    return xappa.open_model(setting.bundle)


def assimilate(
    states: xr.Dataset, obs: list[xr.Dataset], model: Any, setting: Setting
) -> xr.Dataset:
    """Draw an ensemble given observations."""
    experiment = setting.experiment
    analysis: xr.Dataset = states.appa.assimilate(
        obs,
        model,
        members=experiment.members,
        seed=experiment.seed,
        progress=False,
        **setting.settings,
    )
    return analysis


#: What runs a method, and the names under which it writes; {name} is that of the bundle.
METHODS: dict[str, tuple[Callable[[Setting], None], tuple[str, ...]]] = {
    "climatology": (climatology, ("climatology",)),
    "gaussian": (
        gaussian,
        ("oi", "gaussian-filter", "gaussian-smoother"),
    ),
    "letkf": (letkf, ("letkf", "letks")),
    "free": (free, ("free",)),
    "xappa-filter": (xappa_filter, ("{name}-filter",)),
    "xappa-smoother": (xappa_smoother, ("{name}-smoother",)),
    "xappa-cycle": (xappa_cycle, ("{name}-cycle",)),
}
