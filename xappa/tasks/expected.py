"""What a prior expects of observations before it sees them: equivalents of its climatology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from xappa.models.base import Prior
from xappa.observe import ObservationOperator, ObservationSpec, Status
from xappa.observe.airmass import with_air_mass
from xappa.observe.equivalents import equivalents
from xappa.tasks.window import Window

__all__ = ["expected_equivalents", "with_predictors", "with_true_predictors"]


def expected_equivalents(
    specs: Sequence[ObservationSpec],
    model: Prior,
    window: Window,
    background: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Return equivalents of the mean state, for all elements wherever the trajectory reaches.

    Parameters
    ----------
    specs
        The observation arrays.
    model
        The prior.
    window
        The trajectory.
    background
        Packed states (T, channel, latitude, longitude) of the window's inside, which go before the
        climatology.

    Returns
    -------
    list of ndarray
        (n,) each, in ``state_units``; NaN outside domain, levels and trajectory.
    """
    everywhere = [replace(s, status=np.zeros(s.size, np.int8), structure=None) for s in specs]
    operator = ObservationOperator.build(everywhere, model.spec, window.operator_times)
    rows = operator.rows
    time, point = np.divmod(rows.indices, rows.state_size)
    values, _ = model.expected(window.seconds[time], point)
    if background is not None:
        inside = range(*window.inside.indices(len(window.seconds)))
        known = (time >= inside.start) & (time < inside.stop)
        values = np.array(values, dtype=np.float64)
        flat = background.reshape(len(background), -1)
        values[known] = flat[time[known] - inside.start, point[known]]
    h = rows.sums(rows.data * values)
    if not operator.only_interpolates:
        import torch

        with torch.no_grad():
            h = operator.from_rows(torch.as_tensor(h)).numpy()
    result = []
    for block, status in zip(operator.blocks, operator.status, strict=True):
        own = np.full(block.spec.size, np.nan)
        own[status == Status.USED] = h[block.used]
        result.append(own)
    return result


def with_predictors(
    specs: Sequence[ObservationSpec],
    model: Prior,
    window: Window,
    background: np.ndarray | None = None,
) -> tuple[ObservationSpec, ...]:
    """Return observations with the air-mass predictors of their biases.

    They are taken of the background, or else of the climatology, as in variational bias correction.

    Parameters
    ----------
    specs, model, window, background
        As of `expected_equivalents`.
    """
    result = []
    for spec in specs:
        bias = None if spec.structure is None else spec.structure.bias
        if bias is None or not bias.air_mass:
            result.append(spec)
            continue
        values = expected_equivalents(list(bias.air_mass.values()), model, window, background)
        result.append(with_air_mass(spec, values))
    return tuple(result)


def with_true_predictors(operator: ObservationOperator, ds: xr.Dataset) -> ObservationOperator:
    """Return an operator whose air-mass predictors are those of known states.

    Parameters
    ----------
    operator
        Of the observations.
    ds
        The states, of which members are averaged.
    """
    specs = []
    for spec in operator.specs:
        bias = None if spec.structure is None else spec.structure.bias
        if bias is None or not bias.air_mass:
            specs.append(spec)
            continue
        own = ObservationOperator.build(
            list(bias.air_mass.values()), operator.state, _times(operator)
        )
        arrays = [a.values.reshape(-1, spec.size).mean(axis=0) for a in equivalents(own, ds)]
        specs.append(with_air_mass(spec, arrays))
    if all(new is old for new, old in zip(specs, operator.specs, strict=True)):
        return operator
    return ObservationOperator.build(specs, operator.state, _times(operator))


def _times(operator: ObservationOperator) -> np.ndarray | None:
    """Return times as `ObservationOperator.build` takes them."""
    return None if np.isnan(operator.times).all() else operator.times
