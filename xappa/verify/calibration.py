"""Calibration of ensembles: the rank histogram.

If the verifying value is exchangeable with the M members, its rank among them is uniform on
1 … M + 1. An observation is not: it is the truth plus an error that the members lack, and its rank
piles up at the ends even for a perfect ensemble. Members are therefore given errors of the same
size before the observation is ranked [1]_.

References
----------
.. [1] Hamill (2001), Interpretation of rank histograms for verifying ensemble forecasts,
   doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from xappa.diffusion.noise import generator
from xappa.verify.pairing import Dims, Labelled, Pair, Weights, each_variable, pair
from xappa.verify.scores import checked_error

__all__ = ["rank_histogram"]


def rank_histogram(
    fcst: Labelled,
    obs: Labelled,
    *,
    reduce_dims: Dims = None,
    preserve_dims: Dims = None,
    weights: Weights = "area",
    error: float | xr.DataArray | None = None,
    seed: int = 0,
) -> Labelled:
    """Relative frequency of the rank of the verifying value among the members.

    Parameters
    ----------
    fcst, obs, reduce_dims, preserve_dims, weights
        As in `xappa.verify.rmse`. A value that equals several members counts for each rank that it
        could have, in equal parts.
    error
        Standard deviation of the error of ``obs``, in the forecast's units, if ``obs`` are
        observations: independent Gaussian noise of that size is added to each member. A number, or
        a DataArray on the dimensions of ``obs``. None: ``obs`` are taken as exact.
    seed
        Seed of that noise; a member's noise does not depend on the number of members.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        With the new dimension ``rank``, 1 to M + 1, along which the frequencies sum to 1.

    Raises
    ------
    CoordinateError
        If there are fewer than two members.
    ErrorCovarianceError
        If ``error`` is negative.
    XappaError
        As in `xappa.verify.rmse`.

    References
    ----------
    Hamill (2001), doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2.

    Examples
    --------
    >>> import xarray as xr
    >>> fcst = xr.DataArray([[1.0, 1.0], [2.0, 2.0]], dims=("member", "time"))
    >>> obs = xr.DataArray([0.0, 1.5], dims="time")
    >>> rank_histogram(fcst, obs).values
    array([0.5, 0.5, 0. ])
    """
    if error is not None:
        error = checked_error(error)

    def score(f: xr.DataArray, o: xr.DataArray) -> xr.DataArray:
        p = pair(f, o, reduce_dims=reduce_dims, preserve_dims=preserve_dims, weights=weights)
        member = p.require_members()
        ensemble = p.fcst if error is None else p.fcst + error * _noise(p, member, seed)
        histogram = p.average(_shares(ensemble, p.obs, member)).rename(f.name)
        histogram.attrs = {"long_name": "relative frequency of ranks", "units": "1"}
        histogram["rank"].attrs = {"long_name": "rank of the verifying value", "units": "1"}
        return histogram

    return each_variable(score, fcst, obs)


def _shares(ensemble: xr.DataArray, obs: xr.DataArray, member: str) -> xr.DataArray:
    """Divide each pair among the ranks that its observation may have.

    The package scores has this too, but looks for missing values in lazy arrays.
    """
    below = (ensemble < obs).sum(member)
    ties = (ensemble == obs).sum(member)
    rank = xr.DataArray(np.arange(1, ensemble.sizes[member] + 2), dims="rank")
    rank = rank.assign_coords(rank=rank)
    shares = ((rank > below) & (rank <= below + ties + 1)) / (ties + 1)
    complete = obs.notnull() & ensemble.notnull().all(member)
    return shares.where(complete)


def _noise(p: Pair, member: str, seed: int) -> xr.DataArray:
    """Draw standard normal noise on the dimensions of the observations, for each member."""
    noise = [
        p.obs.copy(
            data=generator(seed, "rank histogram", str(p.obs.name), k).standard_normal(p.obs.shape)
        )
        for k in range(p.fcst.sizes[member])
    ]
    labels = p.fcst[member] if member in p.fcst.coords else member
    return xr.concat(noise, dim=labels)
