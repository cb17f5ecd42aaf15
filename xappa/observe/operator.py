r"""The observation operator H: trajectories of states to what was observed.

For a trajectory x of states (T, channel, latitude, longitude), in the units of the state,

.. math:: y = f(Wx) + \varepsilon, \qquad \varepsilon \sim \mathcal N(0, R),

where the rows of the sparse matrix W interpolate (`xappa.observe.rows`) and f is the identity, or
a registered pointwise function of several interpolated inputs (`xappa.observe.registry`). Only
`ObservationOperator.apply`, `interpolate` and `from_rows` need torch. They are differentiable, and
because W is one and the same list of weights forwards and backwards, the adjoint is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xappa.errors import OperatorError, raise_all
from xappa.observe.block import Block
from xappa.observe.checks import increasing_times, outside_errors, timeless_errors
from xappa.observe.registry import RegisteredOperator, get_operator
from xappa.observe.rows import Rows, interpolation_rows
from xappa.observe.spec import ObservationSpec, Status, assemble

if TYPE_CHECKING:
    import scipy.sparse
    import torch

    from xappa.bridge import StateSpec

__all__ = ["ObservationOperator"]


class ObservationOperator:
    """What observations' metadata define: how the state is observed, where, when and how well.

    Made by `build` (or ``ds.appa.operator(obs)``). Printing it tells what was understood. Called
    with a Dataset, it gives the noise-free equivalents of the observations, labelled like them.

    Parameters
    ----------
    specs
        The observation arrays.
    state
        Variables and grid of the state.
    times
        (T,) float64, seconds, of the trajectory's states.
    status
        For each array (n,) int8, values of `Status`.
    rows
        Interpolation of the used observations.
    functions
        For each array its registered operator, or None.
    """

    def __init__(
        self,
        specs: Sequence[ObservationSpec],
        state: StateSpec,
        times: np.ndarray,
        status: Sequence[np.ndarray],
        rows: Rows,
        functions: Sequence[RegisteredOperator | None],
    ) -> None:
        self.specs = tuple(specs)
        self.state = state
        self.times = times
        self.status = tuple(status)
        self.rows = rows
        self.functions = tuple(functions)
        self._buffers: dict[tuple[Any, Any], tuple[torch.Tensor, ...]] = {}

    @classmethod
    def build(
        cls,
        specs: Sequence[ObservationSpec],
        state: StateSpec,
        times: np.ndarray | None,
        reject_outside: bool = True,
    ) -> ObservationOperator:
        """Build the operator of observation arrays for a trajectory.

        Parameters
        ----------
        specs
            From `read_observations`; may be empty.
        state
            Variables, levels, units, grid and calendar of the states.
        times
            (T,) seconds since 1970-01-01 in the state's calendar, strictly increasing; None if
            the only state has no time.
        reject_outside
            Whether observations outside domain, levels or window are rejected and counted (True),
            or an error.

        Returns
        -------
        ObservationOperator

        Raises
        ------
        CoordinateError
            If observations without time meet several states, or some lie outside although
            `reject_outside` is False.
        ArgumentError
            If `times` does not increase.
        OperatorError
            If a registered operator is not registered any more.
        """
        times = increasing_times(times)
        functions = [None if s.operator == "identity" else get_operator(s.operator) for s in specs]
        raise_all(timeless_errors(specs, times), "the observations do not fit the trajectory")
        statuses, parts = [], []
        for spec in specs:
            select = np.flatnonzero(spec.status == Status.USED)
            found, rows = interpolation_rows(spec, state, times, select)
            status = spec.status.copy()
            status[select] = found
            statuses.append(status)
            parts.append(rows)
        if not reject_outside:
            raise_all(
                outside_errors(specs, statuses), "observations lie outside what the state covers"
            )
        shape = (len(times), state.n_channels, *state.grid.shape)
        return cls(specs, state, times, statuses, Rows.concatenate(parts, shape), functions)

    # sizes and vectors over the used observations

    @property
    def n_observations(self) -> int:
        """Number of elements of all arrays."""
        return sum(spec.size for spec in self.specs)

    @property
    def n_used(self) -> int:
        """Number of observations that are used."""
        return int(self.used.size)

    @functools.cached_property
    def used(self) -> np.ndarray:
        """(n_used,) int64, which of all elements, arrays one after another, are used."""
        return np.flatnonzero(np.concatenate([np.zeros(0), *self.status]) == Status.USED)

    def _of_used(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(np.concatenate([np.zeros(0), *arrays])[self.used])

    @functools.cached_property
    def values(self) -> np.ndarray:
        """(n_used,) float64, observed values in each array's `state_units`."""
        return self._of_used([spec.values for spec in self.specs])

    @functools.cached_property
    def error_std(self) -> np.ndarray:
        """(n_used,) float64, standard deviations of the errors in each array's `state_units`."""
        return self._of_used([spec.error_std for spec in self.specs])

    @functools.cached_property
    def error_covariance(self) -> scipy.sparse.csr_array:
        """R of the used observations, (n_used, n_used), in the squares of `state_units`."""
        import scipy.sparse

        parts = []
        for spec, status, block in zip(self.specs, self.status, self.blocks, strict=True):
            std = self.error_std[block.used]
            if spec.structure is None:
                parts.append(scipy.sparse.diags_array(std**2))
            else:
                select = np.flatnonzero(status == Status.USED)
                parts.append(spec.structure.covariance(std, select))
        if not parts:
            return scipy.sparse.csr_array((0, 0))
        return scipy.sparse.csr_array(scipy.sparse.block_diag(parts, format="csr"))

    @property
    def errors_are_independent(self) -> bool:
        """Whether R is diagonal."""
        return all(spec.structure is None for spec in self.specs)

    @functools.cached_property
    def latitude(self) -> np.ndarray:
        """(n_used,) degrees north."""
        return self._of_used([spec.latitude for spec in self.specs])

    @functools.cached_property
    def longitude(self) -> np.ndarray:
        """(n_used,) degrees east."""
        return self._of_used([spec.longitude for spec in self.specs])

    @functools.cached_property
    def time(self) -> np.ndarray:
        """(n_used,) seconds in the state's calendar; NaN for observations without time."""
        return self._of_used([spec.time for spec in self.specs])

    @functools.cached_property
    def pressure(self) -> np.ndarray:
        """(n_used,) Pa; NaN for quantities at a single level."""
        nothing = [
            np.full(s.size, np.nan) if s.pressure is None else s.pressure for s in self.specs
        ]
        return self._of_used(nothing)

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """For each array, its share of rows and used observations."""
        blocks, row, used = [], 0, 0
        for spec, status, function in zip(self.specs, self.status, self.functions, strict=True):
            n = int((status == Status.USED).sum())
            rows = n * sum(spec.widths)
            blocks.append(Block(spec, function, slice(row, row + rows), slice(used, used + n)))
            row, used = row + rows, used + n
        return tuple(blocks)

    @property
    def only_interpolates(self) -> bool:
        """Whether y = W x: no functions of the interpolated values."""
        return all(block.only_interpolates for block in self.blocks)

    @property
    def is_linear(self) -> bool:
        """Whether y is a linear function of the state, so that exact methods apply."""
        return all(block.is_linear for block in self.blocks)

    def counts(self) -> dict[str, dict[Status, int]]:
        """For each array, the number of observations per status."""
        return {
            spec.name: {s: int((status == s).sum()) for s in Status}
            for spec, status in zip(self.specs, self.status, strict=True)
        }

    # maps

    def interpolate(self, x: torch.Tensor) -> torch.Tensor:
        """Interpolate the inputs of all operators: W x.

        Parameters
        ----------
        x : (..., T, channel, latitude, longitude)
            Trajectories in the units of the state.

        Returns
        -------
        (..., n_rows)
            Half precision is raised to float32.
        """
        if tuple(x.shape[-4:]) != self.rows.shape:
            raise OperatorError(
                "the trajectory does not have the shape that the operator was built for",
                where="ObservationOperator",
                expected=f"(..., time, channel, latitude, longitude) with {self.rows.shape}",
                got=tuple(x.shape),
                remedy="build the operator for these times and this state",
            )
        if x.dtype.itemsize < 4:
            x = x.float()
        index, weight, row = self._tensors(x)
        entries = x.flatten(-4).index_select(-1, index) * weight
        if row.numel() == 0:  # all rows are equally long
            width = entries.shape[-1] // max(self.rows.n_rows, 1)
            return entries.reshape(*entries.shape[:-1], self.rows.n_rows, width).sum(-1)
        out = entries.new_zeros((*entries.shape[:-1], self.rows.n_rows))
        return out.index_add(-1, row, entries)

    def from_rows(self, h: torch.Tensor) -> torch.Tensor:
        """Apply the pointwise functions to interpolated inputs.

        Parameters
        ----------
        h : (..., n_rows)

        Returns
        -------
        (..., n_used)
            In each array's `state_units`; `h` itself if all operators are interpolations.
        """
        if self.only_interpolates:
            return h
        import torch

        parts = [
            block.from_rows(h[..., block.rows], np.flatnonzero(status == Status.USED))
            for block, status in zip(self.blocks, self.status, strict=True)
        ]
        return torch.cat(parts, dim=-1)

    def linearised(self, h: torch.Tensor) -> tuple[np.ndarray, scipy.sparse.csr_array]:
        """Return `from_rows` at interpolated inputs, and its derivative there.

        Each observation depends on its own rows alone, so that one pull-back of ones holds all
        derivatives.

        Parameters
        ----------
        h : (n_rows,)

        Returns
        -------
        value
            (n_used,)
        jacobian
            (n_used, n_rows).

        Raises
        ------
        OperatorError
            If an operator gives values or derivatives that are not finite; names it.
        """
        import scipy.sparse
        import torch

        at = h.detach().clone().requires_grad_(bool(h.numel()))
        y = self.from_rows(at)
        slopes = torch.zeros_like(at)
        if y.requires_grad and y.numel():
            (given,) = torch.autograd.grad(y.sum(), at, allow_unused=True)
            slopes = slopes if given is None else given
        value, slope = y.detach().cpu().numpy(), slopes.detach().cpu().numpy()
        columns = []
        for block in self.blocks:
            n = block.used.stop - block.used.start
            block.check_finite(value[block.used], slope[block.rows])
            columns.append(block.used.start + np.arange(len(slope[block.rows])) % max(1, n))
        row = np.concatenate([np.zeros(0, np.int64), *columns])
        shape = (self.n_used, self.rows.n_rows)
        return value, scipy.sparse.csr_array((slope, (row, np.arange(shape[1]))), shape=shape)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Observe trajectories without noise: y = f(W x).

        Parameters
        ----------
        x : (..., T, channel, latitude, longitude)
            In the units of the state.

        Returns
        -------
        (..., n_used)
            In each array's `state_units`; differentiable in `x`.

        Raises
        ------
        OperatorError
            If the trailing shape is not that of the trajectory.
        """
        return self.from_rows(self.interpolate(x))

    def __call__(self, ds: xr.Dataset) -> Any:
        """Return the noise-free equivalents of the observations in a Dataset.

        Parameters
        ----------
        ds
            States on the operator's grid (or a part of it), at any times. Only the observed
            variables are needed. Lazy Datasets give lazy results.

        Returns
        -------
        DataArray, Dataset, list, tuple or dict
            As the observations were given, in their units and with their labels; NaN outside
            domain, levels and window. A member dimension of `ds` comes first.
        """
        from xappa.observe.equivalents import equivalents

        return assemble([spec.place for spec in self.specs], equivalents(self, ds))

    def _tensors(self, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return indices, weights and rows of the entries (no rows if all are equally long)."""
        import torch

        key = (like.device, like.dtype)
        if key not in self._buffers:
            counts = self.rows.counts
            row = np.zeros(0, np.int64)
            if counts.size == 0 or counts.min() != counts.max():
                row = np.repeat(np.arange(counts.size), counts)
            index = torch.from_numpy(self.rows.indices).to(like.device)
            weight = torch.from_numpy(self.rows.data).to(like)
            self._buffers[key] = (index, weight, torch.from_numpy(row).to(like.device))
        return self._buffers[key]

    # copies and reports

    def __getstate__(self) -> dict[str, Any]:
        kept = ("specs", "state", "times", "status", "rows", "functions")
        return {**{name: self.__dict__[name] for name in kept}, "_buffers": {}}

    def __dask_tokenize__(self) -> tuple[object, ...]:
        from dask.base import normalize_token

        parts = (self.specs, self.functions, self.times, self.status)
        grid = (self.state.grid.latitude, self.state.grid.longitude)
        return ("xappa.ObservationOperator", repr(self.state), normalize_token((*parts, *grid)))

    def __repr__(self) -> str:
        from xappa.observe.report import text

        return text(self)

    def _repr_html_(self) -> str:
        from xappa.observe.report import html

        return html(self)
