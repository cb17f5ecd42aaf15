"""Scores of ensembles and single forecasts.

With members x₁ … x_M, their mean x̄ and variance s² (over M - 1), and the verifying value y:

- rmse = √⟨(x̄ - y)²⟩, bias = ⟨x̄ - y⟩, where ⟨·⟩ is the (area-weighted) average;
- crps = ⟨ Σ|xᵢ - y| / M - Σ|xᵢ - xⱼ| / 2M(M-1) ⟩, the fair form, whose expectation does not depend
  on M [1]_;
- spread = √⟨s²⟩;
- spread-skill ratio = √( ⟨s²⟩ (M+1)/M ) / rmse. If y is exchangeable with the members, then
  E(x̄ - y)² = s² (1 + 1/M), so that the ratio of a calibrated ensemble is 1 for any M [2]_.

References
----------
.. [1] Ferro (2014), Fair scores for ensemble forecasts, doi:10.1002/qj.2270.
.. [2] Fortin et al. (2014), Why should ensemble spread match the RMSE of the ensemble mean?,
   doi:10.1175/JHM-D-14-0008.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from xappa._optional import require
from xappa.cf import find_axes
from xappa.errors import ErrorCovarianceError
from xappa.units import difference_units
from xappa.verify.pairing import (
    Dims,
    Labelled,
    Pair,
    Weights,
    each_variable,
    pair,
)

__all__ = ["bias", "checked_error", "crps", "rmse", "spread", "spread_skill"]

PURPOSE = "verification"


def rmse(
    fcst: Labelled,
    obs: Labelled,
    *,
    reduce_dims: Dims = None,
    preserve_dims: Dims = None,
    weights: Weights = "area",
) -> Labelled:
    """Root-mean-square error of the ensemble mean, or of a single forecast.

    Parameters
    ----------
    fcst
        Forecast or analysis, any dimensions; the member dimension is found by its CF metadata.
    obs
        Values to verify against, in any units that convert to the forecast's; NaN: not verified.
    reduce_dims, preserve_dims
        Dimensions to average over, or to keep (``"all"``, a name or several names); one of the two.
        By default the average is over all dimensions.
    weights
        ``"area"``: by grid-cell area where latitude is averaged over; None: unweighted; or a
        DataArray.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        In the forecast's units (kelvin for a temperature in degrees Celsius), lazy if the input is.

    Raises
    ------
    ArgumentError
        If dimensions or weights are unknown.
    CoordinateError
        If ``obs`` has members.
    GridMismatchError
        If forecast and observations match only in part.
    MissingDependencyError
        If the package scores is not installed.
    ObservationTypeError, VariableMismatchError
        If a DataArray meets a Dataset, or two Datasets share no variable.
    UnitsError
        If the units do not convert.

    Examples
    --------
    >>> import xarray as xr
    >>> fcst = xr.DataArray([[1.0, 3.0], [3.0, 5.0]], dims=("member", "time"))
    >>> obs = xr.DataArray([5.0, 8.0], dims="time")
    >>> round(float(rmse(fcst, obs) ** 2), 12)
    12.5
    """
    continuous = require("scores.continuous", PURPOSE)

    def score(f: xr.DataArray, o: xr.DataArray) -> xr.DataArray:
        p = pair(f, o, reduce_dims=reduce_dims, preserve_dims=preserve_dims, weights=weights)
        return _labelled(continuous.rmse(p.mean, p.obs, **_options(p)), f, "root-mean-square error")

    return each_variable(score, fcst, obs)


def bias(
    fcst: Labelled,
    obs: Labelled,
    *,
    reduce_dims: Dims = None,
    preserve_dims: Dims = None,
    weights: Weights = "area",
) -> Labelled:
    """Mean of forecast minus observation, for the ensemble mean or a single forecast.

    Parameters, result and errors are those of `rmse`.

    Examples
    --------
    >>> import xarray as xr
    >>> fcst = xr.DataArray([[1.0, 3.0], [3.0, 5.0]], dims=("member", "time"))
    >>> obs = xr.DataArray([5.0, 8.0], dims="time")
    >>> float(bias(fcst, obs))
    -3.5
    """
    continuous = require("scores.continuous", PURPOSE)

    def score(f: xr.DataArray, o: xr.DataArray) -> xr.DataArray:
        p = pair(f, o, reduce_dims=reduce_dims, preserve_dims=preserve_dims, weights=weights)
        return _labelled(continuous.additive_bias(p.mean, p.obs, **_options(p)), f, "bias")

    return each_variable(score, fcst, obs)


def crps(
    fcst: Labelled,
    obs: Labelled,
    *,
    reduce_dims: Dims = None,
    preserve_dims: Dims = None,
    weights: Weights = "area",
) -> Labelled:
    """Fair continuous ranked probability score; the mean absolute error of a single forecast.

    Parameters, result and errors are those of `rmse`; a member dimension of size one raises
    CoordinateError, as the fair score of one member does not exist.

    References
    ----------
    Ferro (2014), Fair scores for ensemble forecasts, doi:10.1002/qj.2270.

    Examples
    --------
    >>> import xarray as xr
    >>> fcst = xr.DataArray([[1.0], [3.0]], dims=("member", "time"))
    >>> obs = xr.DataArray([5.0], dims="time")
    >>> float(crps(fcst, obs))  # mean distance 3, minus half the mean distance of two members
    2.0
    """
    continuous = require("scores.continuous", PURPOSE)
    probability = require("scores.probability", PURPOSE)

    def score(f: xr.DataArray, o: xr.DataArray) -> xr.DataArray:
        p = pair(f, o, reduce_dims=reduce_dims, preserve_dims=preserve_dims, weights=weights)
        if p.member is None:
            return _labelled(continuous.mae(p.fcst, p.obs, **_options(p)), f, "mean absolute error")
        values = probability.crps_for_ensemble(
            p.fcst, p.obs, p.require_members(), method="fair", **_options(p)
        )
        return _labelled(values, f, "continuous ranked probability score")

    return each_variable(score, fcst, obs)


def spread(
    fcst: Labelled,
    obs: Labelled | None = None,
    *,
    reduce_dims: Dims = None,
    preserve_dims: Dims = None,
    weights: Weights = "area",
) -> Labelled:
    """Root of the mean ensemble variance.

    Parameters and errors are those of `rmse`, and CoordinateError is raised if there are fewer than
    two members. With ``obs`` the average is over the points where there is something to verify
    against; without, over all points.

    Examples
    --------
    >>> import xarray as xr
    >>> fcst = xr.DataArray([[1.0, 2.0], [3.0, 4.0]], dims=("member", "time"))
    >>> round(float(spread(fcst) ** 2), 12)
    2.0
    """

    def score(f: xr.DataArray, o: xr.DataArray) -> xr.DataArray:
        p = pair(f, o, reduce_dims=reduce_dims, preserve_dims=preserve_dims, weights=weights)
        return _labelled(p.average(p.variance) ** 0.5, f, "ensemble spread")

    if obs is None:
        member = find_axes(fcst, require=()).member
        obs = fcst if member is None else fcst.isel({member: 0}, drop=True)
    return each_variable(score, fcst, obs)


def spread_skill(
    fcst: Labelled,
    obs: Labelled,
    *,
    reduce_dims: Dims = None,
    preserve_dims: Dims = None,
    weights: Weights = "area",
    error: float | xr.DataArray | None = None,
) -> Labelled:
    """Ratio of the spread, corrected for the ensemble size, to the error of the ensemble mean.

    Above 1 the ensemble is too wide, below 1 too narrow.

    Parameters
    ----------
    fcst, obs, reduce_dims, preserve_dims, weights
        As in `rmse`.
    error
        Standard deviation of the error of ``obs``, in the forecast's units, if ``obs`` are
        observations: their variance belongs to what the ensemble has to explain. None: ``obs`` are
        taken as exact.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        Without units.

    Raises
    ------
    CoordinateError
        If there are fewer than two members.
    ErrorCovarianceError
        If ``error`` is negative.
    XappaError
        As in `rmse`.

    References
    ----------
    Fortin et al. (2014), doi:10.1175/JHM-D-14-0008.1.

    Examples
    --------
    >>> import xarray as xr
    >>> fcst = xr.DataArray([[-1.0, 1.0], [1.0, 3.0], [0.0, 2.0]], dims=("member", "time"))
    >>> obs = xr.DataArray([1.0, 3.0], dims="time")
    >>> round(float(spread_skill(fcst, obs) ** 2), 4)  # variance 1, four thirds of it; error 1
    1.3333
    """
    noise = 0.0 if error is None else checked_error(error) ** 2

    def score(f: xr.DataArray, o: xr.DataArray) -> xr.DataArray:
        p = pair(f, o, reduce_dims=reduce_dims, preserve_dims=preserve_dims, weights=weights)
        members = p.fcst.sizes[p.require_members()]
        explained = p.average(p.variance * (1 + 1 / members) + noise)
        ratio = (explained / p.average((p.mean - p.obs) ** 2)) ** 0.5
        return _labelled(ratio, f, "spread-skill ratio", units="1")

    return each_variable(score, fcst, obs)


def checked_error(error: float | xr.DataArray) -> Any:
    """Return the standard deviation of the observation error.

    Raises
    ------
    ErrorCovarianceError
        If it is negative anywhere.
    """
    if bool((np.asarray(error) < 0).any()):
        raise ErrorCovarianceError(
            "the observation error is negative",
            where="argument 'error'",
            expected="a standard deviation, zero or more",
            got=f"a minimum of {np.nanmin(np.asarray(error))}",
            remedy="pass the standard deviation of the errors in the forecast's units",
        )
    return error


def _options(p: Pair) -> dict[str, Any]:
    """Arguments for the package scores, which warns of weights where nothing is averaged."""
    if not p.reduce_dims:
        return {"preserve_dims": "all"}
    return {"reduce_dims": list(p.reduce_dims), "weights": p.weights}


def _labelled(
    values: xr.DataArray, fcst: xr.DataArray, what: str, units: str | None = None
) -> xr.DataArray:
    """Name a score and give it its long name and units."""
    of = fcst.attrs.get("long_name", fcst.name)
    units = units or difference_units(fcst.attrs.get("units"))
    attrs = {"long_name": what if of is None else f"{what} of {of}"}
    if units is not None:
        attrs["units"] = units
    labelled = values.rename(fcst.name)
    labelled.attrs = attrs
    return labelled
