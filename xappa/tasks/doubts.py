"""Observations that the prior holds for impossible: said, and used all the same."""

from __future__ import annotations

import numpy as np

from xappa.errors import DepartureWarning, warn
from xappa.models.base import Prior
from xappa.observe import ObservationOperator

__all__ = ["warn_of_departures"]

#: Standard deviations of climate and error together; weather stays within 6 of them.
_FAR = 10.0


def warn_of_departures(model: Prior, operator: ObservationOperator, seconds: np.ndarray) -> None:
    """Warn of observations that are far from the climatology, as wrong units make them.

    Parameters
    ----------
    model
        Gives the climatology and its standard deviation.
    operator
        The observations. Those that are functions of several variables are not looked at.
    seconds
        Valid times of the operator's states, shape (T,).
    """
    if not operator.n_used:
        return
    rows = operator.rows
    time, point = np.divmod(rows.indices, rows.state_size)
    means, stds = model.expected(seconds[time], point)
    mean = rows.sums(rows.data * means)
    # Fully correlated, as neighbouring points nearly are: an upper bound.
    std = rows.sums(np.abs(rows.data) * stds)
    for block in operator.blocks:
        if not block.only_interpolates:
            continue
        values, errors = operator.values[block.used], operator.error_std[block.used]
        scaled = np.abs(values - mean[block.rows]) / np.hypot(std[block.rows], errors)
        far = np.flatnonzero(scaled > _FAR)
        if not len(far):
            continue
        worst = int(np.argmax(scaled))
        spec = block.spec
        warn(
            f"observations {spec.name!r}: {len(far)} of {len(values)} are more than {_FAR:g} "
            f"standard deviations from the climatology; the worst is {values[worst]:.6g} "
            f"{spec.state_units} where {mean[block.rows][worst]:.6g} is expected. They are used "
            "all the same: check their units and their quality.",
            DepartureWarning,
        )
