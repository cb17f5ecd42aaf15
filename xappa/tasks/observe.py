"""Observing a Dataset: the operator that metadata define, and simulated observations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import Layout, describe, find_orography
from xappa.cf import to_seconds
from xappa.diffusion.noise import seed_of
from xappa.errors import GuessWarning, warn
from xappa.models.base import Model
from xappa.models.catalogue import resolve
from xappa.observe import ObservationOperator, read_observations
from xappa.observe import simulate as _simulate
from xappa.tasks.expected import with_true_predictors
from xappa.tasks.window import Window

__all__ = ["observation_operator", "observe"]


def observation_operator(
    ds: xr.Dataset, obs: Any, *, model: Model | str | Path | None = None, error: Any = None
) -> ObservationOperator:
    """Return the operator that the metadata of observations define; see ``ds.appa.operator``.

    Parameters
    ----------
    ds
        Gives variables, grid and times.
    obs
        A DataArray, a Dataset, or a list or dict of them.
    model
        With a model, the operator is the one that ``assimilate`` uses: on the model's whole grid,
        also where ``ds`` is a part of it, and at times up to one blanket outside the window.
    error
        Standard deviation of the observation errors, where the metadata do not say it.

    Returns
    -------
    ObservationOperator
        Printable; ``H(ds)`` gives the noise-free equivalents, labelled like ``obs``.
    """
    if model is not None:
        model, _ = resolve(model, ds)
        layout = Layout.of(ds, model.spec)
        altitude = find_orography(ds, model.spec.grid)
        specs = read_observations(obs, model.spec, error=error, altitude=altitude)
        window = Window.of(layout, model, specs)
        return ObservationOperator.build(specs, model.spec, window.operator_times)
    spec, axes = describe(ds)
    times = None
    if axes.time is not None:
        seconds, _ = to_seconds(ds[axes.time])
        times = np.atleast_1d(seconds)
    altitude = find_orography(ds, spec.grid)
    specs = read_observations(obs, spec, error=error, altitude=altitude)
    return ObservationOperator.build(specs, spec, times)


def observe(ds: xr.Dataset, network: Any, *, seed: int | None = None, error: Any = None) -> Any:
    """Simulate observations of a Dataset with noise drawn from R; see ``ds.appa.observe``.

    Parameters
    ----------
    ds
        The true states.
    network
        Observations or a network (an array whose values are all NaN).
    seed
        Seed of the noise; None draws one, which is recorded.
    error
        Standard deviation of the observation errors, where the metadata do not say it.

    Returns
    -------
    like ``network``
        Simulated observations, in the network's units, with their errors.
    """
    seed = seed_of(seed)
    operator = with_true_predictors(observation_operator(ds, network, error=error), ds)
    for spec in operator.specs:
        for guess in spec.guesses:
            warn(guess, GuessWarning)
    return _simulate(operator, ds, seed=seed)
