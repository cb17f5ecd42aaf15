"""Departures of observations from background and analysis, and what they tell of the errors.

With observations y (error covariance R), background equivalents H(x_b) (ensemble covariance HBHᵀ)
and analysis equivalents H(x_a), let

    d_b = y - H(x_b),     d_a = y - H(x_a).

If the analysis weights y and x_b by their true covariances, then [1]_

    E d_b d_bᵀ = HBHᵀ + R,            E d_a d_bᵀ = R,
    E (d_b - d_a) d_bᵀ = HBHᵀ,        E (d_b - d_a) d_aᵀ = HAHᵀ,

of which the diagonals, averaged over observations, are set against the variances that were
assumed.

References
----------
.. [1] Desroziers, Berre, Chapnik and Poli (2005), Diagnosis of observation, background and
   analysis-error statistics in observation space, doi:10.1256/qj.05.108.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from xappa.errors import ObservationTypeError, VariableMismatchError
from xappa.observe.ancillary import ERROR_MODIFIER, companions, modifier
from xappa.observe.error import (
    ERROR_ATTRIBUTES,
    ERROR_COORDINATE,
    ErrorArgument,
    resolve_error,
)
from xappa.units import convert, dequantify, difference_units, in_units_of, squared_units
from xappa.verify.pairing import Dims, Pair, pair

__all__ = ["departures", "desroziers"]

Operator = Callable[[xr.Dataset], Any]


def departures(
    obs: xr.DataArray,
    background: xr.DataArray | xr.Dataset,
    analysis: xr.DataArray | xr.Dataset,
    *,
    operator: Operator | None = None,
    error: ErrorArgument = None,
) -> xr.Dataset:
    """Departures O-B and O-A with the variances that were assumed.

    Parameters
    ----------
    obs
        One observation array, any dimensions; NaN where there is no observation.
    background, analysis
        Their equivalents of ``obs`` (on the same labels), with or without members; or, with
        ``operator``, Datasets of states.
    operator
        What ``ds.appa.operator(obs)`` returns: maps a Dataset of states to equivalents of ``obs``.
    error
        Standard deviation of the observation errors: a number in the units of ``obs``, a pint
        quantity or a DataArray. By default that of the operator, if it knows it, or else what
        ``obs`` themselves say (coordinate ``error_std`` or one with the modifier
        ``standard_error``, attribute ``error_std`` or ``standard_error``).

    Returns
    -------
    xarray.Dataset
        On the dimensions of ``obs``: ``background_departure`` and ``analysis_departure`` (the
        observation minus the ensemble mean, in the units of ``obs``), and as far as they are known
        ``background_variance`` and ``analysis_variance`` (the diagonals of HBHᵀ and HAHᵀ, from the
        members) and ``observation_variance`` (of R).

    Raises
    ------
    ErrorCovarianceError
        If ``error`` is not positive or does not fit ``obs``.
    GridMismatchError
        If the labels match only in part.
    ObservationTypeError
        If ``obs`` or what the operator returns is not a DataArray.
    UnitsError
        If the units do not convert.

    Examples
    --------
    >>> import xarray as xr
    >>> obs = xr.DataArray([2.0, 4.0], dims="station")
    >>> background = xr.DataArray([[0.0, 1.0], [2.0, 3.0]], dims=("member", "station"))
    >>> d = departures(obs, background, obs - 0.5, error=1.0)
    >>> d.background_departure.values, d.background_variance.values, d.analysis_departure.values
    (array([1., 2.]), array([2., 2.]), array([0.5, 0.5]))
    """
    _check_array("obs", obs)
    result = xr.Dataset(coords=obs.coords, attrs={"long_name": f"departures of {_title(obs)}"})
    for name, states in (("background", background), ("analysis", analysis)):
        equivalents = states
        if operator is not None and isinstance(states, xr.Dataset):
            equivalents = operator(states)
        p = _pair(name, equivalents, obs)
        result[f"{name}_departure"] = _of(obs, p.obs - p.mean, f"observation minus {name}", 1)
        if p.member is not None and p.fcst.sizes[p.member] > 1:
            title = f"ensemble variance of the {name} equivalents"
            result[f"{name}_variance"] = _of(obs, p.variance, title, 2)
    std = _error_std(dequantify(obs), operator, error)
    if std is not None:
        variance = (std**2).where(obs.notnull())
        result["observation_variance"] = _of(obs, variance, "observation error variance", 2)
    return result


def desroziers(
    departures: xr.Dataset, *, reduce_dims: Dims = None, preserve_dims: Dims = None
) -> xr.Dataset:
    """Error variances in observation space, as assumed and as the departures tell them.

    Moments are taken about zero; a bias shows in ``background_bias`` and ``analysis_bias`` and adds
    its square to the variances.

    Parameters
    ----------
    departures
        What `departures` returns.
    reduce_dims, preserve_dims
        Dimensions to average over, or to keep; by default all are averaged over.

    Returns
    -------
    xarray.Dataset
        ``observation_variance`` (R), ``background_variance`` (HBHᵀ), ``analysis_variance`` (HAHᵀ)
        and ``innovation_variance`` (HBHᵀ + R), each along ``source``: ``"assumed"`` (NaN where the
        departures came without it) and ``"diagnosed"``; and the two biases.

    Raises
    ------
    ArgumentError
        If dimensions are unknown.
    VariableMismatchError
        If the Dataset holds no departures.

    References
    ----------
    Desroziers et al. (2005), doi:10.1256/qj.05.108.

    Examples
    --------
    >>> import xarray as xr
    >>> d_b = xr.DataArray([2.0, -2.0], dims="station")
    >>> d = xr.Dataset({"background_departure": d_b, "analysis_departure": d_b / 4})
    >>> desroziers(d).observation_variance.sel(source="diagnosed").item()
    1.0
    """
    missing = {"background_departure", "analysis_departure"} - set(departures.data_vars)
    if missing:
        raise VariableMismatchError(
            "the Dataset holds no departures",
            where="desroziers",
            expected="background_departure and analysis_departure",
            got=f"variables {sorted(map(str, departures.data_vars))}",
            remedy="pass what xappa.verify.departures returns",
        )
    several: Any = []
    if "units" in departures.coords:
        several = np.unique(departures["units"].values.astype(str))
    if len(several) > 1:
        raise VariableMismatchError(
            "observations in several units cannot be averaged",
            where="desroziers",
            expected="one unit",
            got=", ".join(several),
            remedy="take one array: d.where(d.array == 't2m', drop=True)",
        )
    d_b, d_a = departures["background_departure"], departures["analysis_departure"]
    # Every observation counts alike, wherever it was made.
    p = pair(d_b, d_a, reduce_dims=reduce_dims, preserve_dims=preserve_dims, weights=None)
    both = d_b.notnull() & d_a.notnull()

    def mean(values: xr.DataArray) -> xr.DataArray:
        return p.average(values.where(both))

    def assumed(name: str) -> xr.DataArray:
        return mean(departures.get(f"{name}_variance", xr.full_like(d_b, np.nan)))

    pairs = {
        "observation": (assumed("observation"), mean(d_a * d_b), "R"),
        "background": (assumed("background"), mean((d_b - d_a) * d_b), "HBHᵀ"),
        "analysis": (assumed("analysis"), mean((d_b - d_a) * d_a), "HAHᵀ"),
    }
    innovation = pairs["observation"][0] + pairs["background"][0], mean(d_b**2), "HBHᵀ + R"
    result = xr.Dataset(attrs=departures.attrs)
    for name, (given, found, symbol) in {**pairs, "innovation": innovation}.items():
        source = xr.Variable("source", ["assumed", "diagnosed"])
        both_sources = xr.concat([given, found], dim=source, coords="minimal", compat="override")
        result[f"{name}_variance"] = _of(d_b, both_sources, f"{name} variance, {symbol}", 2)
    for name, values in (("background", d_b), ("analysis", d_a)):
        result[f"{name}_bias"] = _of(d_b, mean(values), f"mean {name} departure", 1)
    return result


def _error_std(
    obs: xr.DataArray, operator: Operator | None, error: ErrorArgument
) -> xr.DataArray | None:
    """Return the standard deviation of the errors, in the units of obs; None where nobody says."""
    if error is None:
        error = _operator_error(obs, operator)
    if error is None and not _states_error(obs):
        return None
    names = tuple(str(name) for name in (obs.name or "obs", obs.attrs.get("standard_name")) if name)
    unit = str(obs.attrs.get("units") or "1")
    std = resolve_error(
        obs, None, names=names, obs_units=unit, state_units=unit, error=error
    ).reshape(obs.shape)
    return xr.DataArray(std, obs.coords, obs.dims)


def _operator_error(obs: xr.DataArray, operator: Operator | None) -> xr.DataArray | None:
    """Return the errors that an ObservationOperator of one array was built with."""
    specs: Any = getattr(operator, "specs", ())
    if len(specs) != 1:
        return None
    spec = specs[0]
    std = convert(spec.error_std, spec.state_units, spec.units, difference=True)
    template = spec.template
    labels = {dim: template.indexes[dim] for dim in template.dims if dim in template.indexes}
    errors = xr.DataArray(std.reshape(template.shape), labels, template.dims)
    return errors.reindex_like(obs).assign_attrs(units=spec.units)


def _states_error(obs: xr.DataArray) -> bool:
    """Tell whether observations carry their errors (see `xappa.observe.error`)."""
    stated = any(
        name == ERROR_COORDINATE or modifier(coordinate) == ERROR_MODIFIER
        for name, coordinate in companions(obs, None)
    )
    return stated or any(key in obs.attrs for key in ERROR_ATTRIBUTES)


def _pair(name: str, equivalents: Any, obs: xr.DataArray) -> Pair:
    _check_array(name, equivalents)
    return pair(
        in_units_of(dequantify(obs), dequantify(equivalents), "verification of"), obs, weights=None
    )


def _check_array(name: str, array: Any) -> None:
    if not isinstance(array, xr.DataArray):
        raise ObservationTypeError(
            f"{name} is not one observation array",
            where="departures",
            expected="a DataArray (or states, with operator=)",
            got=type(array).__name__,
            remedy="take the arrays one by one, as in obs['t2m'], each with its own operator",
        )


def _title(array: xr.DataArray) -> str:
    return str(array.attrs.get("long_name", array.attrs.get("standard_name", array.name)))


def _of(like: xr.DataArray, values: xr.DataArray, title: str, power: int) -> xr.DataArray:
    """Give values a long name, and the units of a difference of observations to a power."""
    attrs = {"long_name": title}
    units = difference_units(like.attrs.get("units"))
    if units is not None:
        attrs["units"] = units if power == 1 else squared_units(units)
    values = values.copy()
    values.attrs = attrs
    return values
