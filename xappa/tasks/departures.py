r"""Departures: an analysis in observation space, one row for each observation.

For observations y and their equivalents in background and analysis, O−B is :math:`y - H(x_b)` and
O−A is :math:`y - H(x_a)`, with means over members. Biases that R knows of (`xappa.observe.bias`)
are estimated from the analysis and reported; departures are those of the observations as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xappa import units
from xappa.bridge import Layout, describe, find_orography, pack
from xappa.cf import to_seconds
from xappa.errors import GuessWarning, NoModelError, XappaError, warn
from xappa.models.base import Model, Prior
from xappa.models.catalogue import resolve
from xappa.observe import ObservationOperator, read_observations
from xappa.observe.equivalents import equivalents
from xappa.observe.table import observation_table
from xappa.tasks.background import mean_state, relative_error
from xappa.tasks.expected import expected_equivalents, with_predictors
from xappa.tasks.posterior import posterior_given
from xappa.tasks.quality import QualityControl, controlled
from xappa.tasks.window import Window
from xappa.units import difference_units, squared_units

__all__ = ["departures", "observation_space"]


def departures(
    ens: xr.Dataset,
    obs: Any,
    background: xr.Dataset | None = None,
    *,
    model: Model | str | Path | None = None,
    error: Any = None,
) -> xr.Dataset:
    """Compare an analysis with observations, and say what became of each of them.

    Parameters
    ----------
    ens
        The analysis, with or without members; its attributes say how observations were controlled.
    obs
        The observations, as `assimilate` took them.
    background
        States with or without members, for O−B; by default the mean of the model's prior.
    model
        The prior; by default that which `ens` names. Without any, O−B needs ``background``.
    error
        Standard deviation of the observation errors, as `assimilate` took it.

    Returns
    -------
    xarray.Dataset
        Along ``obs``, all arrays one after the other, in the units of each:

        ``observation``, and ``equivalent`` (member, obs), which is H(x);
        ``background_departure`` and ``analysis_departure``;
        ``background_variance`` and ``analysis_variance`` of the members' equivalents;
        ``error_std`` and ``observation_variance``, the diagonal of the R that was used;
        ``bias``, estimated, and ``status`` with its ``reason``.

        Coordinates say which array, element, quantity, units, place and time. Values are missing
        where the states do not reach. Lazy for a lazy `ens`, unless biases are estimated. What
        `xappa.verify.desroziers` takes.

    Raises
    ------
    NoModelError
        If `ens` was controlled, and the model that it names is not at hand.
    HandshakeError, UnitsError, CoordinateError
        If `ens` or `background` do not fit the model.
    ObservationTypeError, UnknownQuantityError, UnitsError, ErrorCovarianceError
        If the observations cannot be understood.

    Warns
    -----
    GuessWarning
        If the quality control of `ens` used a background that is not known here.

    References
    ----------
    Desroziers et al. (2005), doi:10.1256/qj.05.108.

    Examples
    --------
    >>> import xappa
    >>> ds = xappa.testing.weather(times=60)
    >>> model = xappa.fit_gaussian(ds, modes=6)
    >>> network = xappa.observe.random_stations(ds, 5, variable="t2m", error=0.5, seed=0)
    >>> obs = ds.appa.observe(network, seed=0)
    >>> ens = ds.isel(time=slice(8)).appa.assimilate(obs, model, members=3, seed=0)
    >>> d = ens.appa.departures(obs)
    >>> bool(abs(d.analysis_departure).mean() < abs(d.background_departure).mean())
    True
    """
    recorded = ens.attrs.get("xappa_quality_control")
    try:
        model, _ = resolve(model, ens)
    except NoModelError:
        if recorded is not None:  # which observations it rejected is not known without the prior
            raise
        spec, axes = describe(ens)
        altitude = find_orography(ens, spec.grid)
        specs = read_observations(obs, spec, error=error, altitude=altitude)
        times = None if axes.time is None else np.atleast_1d(to_seconds(ens[axes.time])[0])
        operator = ObservationOperator.build(specs, spec, times)
        return observation_space(operator, ens, background, None)
    layout = Layout.of(ens, model.spec)
    altitude = find_orography(ens, model.spec.grid)
    specs = read_observations(obs, model.spec, error=error, altitude=altitude)
    window = Window.of(layout, model, specs)
    states, relative = _background(ens, background, model)
    specs = with_predictors(specs, model, window, states)
    if recorded is not None and specs:
        if states is None and _used_background(ens):
            warn(
                "the observations were controlled with a background that is not known here: they "
                "are compared with the prior instead (pass background=)",
                GuessWarning,
            )
        check = partial(posterior_given, model, window, states, relative)
        specs = controlled(specs, check, QualityControl(**json.loads(recorded)))
    operator = ObservationOperator.build(specs, model.spec, window.operator_times)
    expected = None
    if background is None:
        expected = expected_equivalents(specs, model, window)
    return observation_space(operator, ens, background, expected)


def _used_background(ens: xr.Dataset) -> bool:
    return any(f"xappa_background_error{kind}" in ens.attrs for kind in ("", "_scale"))


def _background(
    ens: xr.Dataset, background: xr.Dataset | None, model: Prior
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return background states and their relative error, as far as attributes say it."""
    if background is None or not _used_background(ens):
        return None, None
    said = {}
    for kind in ("error", "error_scale"):
        given = ens.attrs.get(f"xappa_background_{kind}")
        said[kind] = json.loads(given) if isinstance(given, str) and given[:1] == "{" else given
    layout = Layout.of(background, model.spec)
    try:
        relative = relative_error(model, layout, said["error"], said["error_scale"])
    except (XappaError, TypeError, ValueError):  # fields are recorded by their means alone
        return None, None
    return mean_state(pack(background, model.spec, layout)).values, relative


def observation_space(
    operator: ObservationOperator,
    analysis: xr.Dataset,
    background: xr.Dataset | None,
    expected: Sequence[np.ndarray] | None,
) -> xr.Dataset:
    """Return departures of an operator's observations; see `departures`.

    Parameters
    ----------
    operator
        The observations as they were used, with their statuses and errors.
    analysis
        States, with or without members.
    background
        States for O−B; None for `expected`.
    expected
        (n,) of each array, equivalents in ``state_units`` that the prior expects; None for none.
    """
    result = observation_table(operator)
    y = result["observation"]
    units_of = difference_units(y.attrs.get("units"))
    about = {} if units_of is None else {"units": units_of}
    h, member = _flat(operator, analysis)
    if member is not None:
        result["equivalent"] = ((member, "obs"), h, {"long_name": "H(x) of the analysis"})
        if member in analysis.coords:
            result = result.assign_coords({member: analysis[member].reset_coords(drop=True)})
    else:
        result["equivalent"] = ("obs", h, {"long_name": "H(x) of the analysis"})
    result["equivalent"].attrs |= dict(y.attrs, long_name="H(x) of the analysis")
    _add(result, "analysis", result["equivalent"], member, about)
    if background is not None:
        b, own = _flat(operator, background)
        dims = ("obs",) if own is None else (own, "obs")
        _add(result, "background", xr.DataArray(b, dims=dims), own, about)
    elif expected is not None:
        parts = [
            units.convert(e, spec.state_units, spec.units)
            for e, spec in zip(expected, operator.specs, strict=True)
        ]
        flat = xr.DataArray(np.concatenate([np.zeros(0), *parts]), dims="obs")
        _add(result, "background", flat, None, about)
    if any(s.structure is not None and s.structure.bias is not None for s in operator.specs):
        bias = _biases(operator, result["analysis_departure"].values)
        said = "bias of the platform, estimated along with the state"
        result["bias"] = ("obs", bias, {"long_name": said, **about})
    kept = ("xappa_model", "xappa_seed", "xappa_method", "xappa_quality_control", "xappa_versions")
    result.attrs |= {key: analysis.attrs[key] for key in kept if key in analysis.attrs}
    return result


def _flat(operator: ObservationOperator, ds: xr.Dataset) -> tuple[Any, str | None]:
    """Return equivalents of all arrays one after the other, (m, n) or (n,), and the member dim."""
    arrays = [units.dequantify(array) for array in equivalents(operator, ds)]
    if not arrays:
        return np.zeros(0), None
    has_member = arrays[0].ndim > len(operator.specs[0].template.dims)
    shape = (arrays[0].shape[0], -1) if has_member else (-1,)
    parts = [array.data.reshape(shape) for array in arrays]
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    return joined, str(arrays[0].dims[0]) if has_member else None


def _add(
    result: xr.Dataset,
    name: str,
    equivalent: xr.DataArray,
    member: str | None,
    about: dict[str, str],
) -> None:
    """Write departure and variance."""
    mean = equivalent if member is None else equivalent.mean(member, skipna=False)
    departure = result["observation"] - mean
    title = f"observation minus {name}"
    result[f"{name}_departure"] = departure.assign_attrs(about, long_name=title)
    if member is not None and equivalent.sizes[member] > 1:
        variance = equivalent.var(member, ddof=1, skipna=False)
        variance.attrs = {"long_name": f"ensemble variance of the {name} equivalents"}
        if "units" in about:
            variance.attrs["units"] = squared_units(about["units"])
        result[f"{name}_variance"] = variance


def _biases(operator: ObservationOperator, departure: np.ndarray) -> np.ndarray:
    """Return the biases of all observations, in their units; missing where R knows of none."""
    parts, first = [], 0
    for spec, status in zip(operator.specs, operator.status, strict=True):
        own = units.convert(
            departure[first : first + spec.size], spec.units, spec.state_units, difference=True
        )
        first += spec.size
        bias = np.full(spec.size, np.nan)
        if spec.structure is not None and spec.structure.bias is not None:
            used = np.flatnonzero((status == 0) & np.isfinite(own))
            random = spec.structure.random_covariance(spec.error_std[used], used)
            beta = spec.structure.bias.estimate(own[used], used, random)
            bias = spec.structure.bias.of(beta)
        parts.append(units.convert(bias, spec.state_units, spec.units, difference=True))
    return np.concatenate(parts)
