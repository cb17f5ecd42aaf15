r"""The weights of regridding as a differentiable linear map of tensors.

.. math:: y = W x, \qquad \bar x = W^\top \bar y

Targets that the source does not cover are missing: NaN in :math:`y`, whatever :math:`x` is. The
adjoint takes nothing from them, so that
:math:`\langle W x, y \rangle = \langle x, W^\top y \rangle` over the other targets. A missing value
in :math:`x` spreads to the targets whose weights touch it, and to no others.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xappa.errors import ArgumentError
from xappa.regrid.weights import Booleans

__all__ = ["RegridOperator"]

# where torch multiplies compressed rows; elsewhere their entries are gathered and added
_COMPRESSED = ("cpu", "cuda")


class RegridOperator:
    """A sparse linear map from fields on one domain to fields on another.

    Parameters
    ----------
    weights
        scipy.sparse.csr_array (target, source).
    source, target
        Shapes of the fields on both sides.
    missing
        (target,) targets that have no value.

    Examples
    --------
    >>> import torch
    >>> from xappa.grid import Grid
    >>> from xappa.regrid import Places, Regridder
    >>> operator = Regridder.build(Grid([0, 10], [0, 10]), Places([5, 2.5], [0, 5])).operator()
    >>> operator(torch.tensor([[0.0, 0.0], [1.0, 3.0]]))
    tensor([0.5000, 0.5000])
    >>> operator.adjoint(torch.tensor([1.0, 0.0]))
    tensor([[0.5000, 0.0000],
            [0.5000, 0.0000]])
    """

    def __init__(
        self, weights: Any, source: tuple[int, ...], target: tuple[int, ...], missing: Booleans
    ) -> None:
        self.source, self.target = source, target
        self._missing = missing
        # rows in the order of the points that they read: neighbours are in the cache already
        entry = np.minimum(weights.indptr[:-1], max(weights.nnz - 1, 0))
        first = weights.indices[entry] if weights.nnz else entry
        self._order = np.argsort(first, kind="stable")
        self._weights = weights[self._order]
        self._made: dict[tuple[Any, ...], Any] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Regrid fields.

        Parameters
        ----------
        x : (..., source)
            Of any floating or complex dtype, on any device.

        Returns
        -------
        (..., target)
            On the same device, of the same dtype; half precision is summed in float32.

        Raises
        ------
        ArgumentError
            If the shape or dtype is another.
        """
        y = self._flat(x, self.source, False)
        if self._missing.any():
            y = torch.where(self._mask(y), torch.nan, y)
        return y.reshape(*y.shape[:-1], *self.target)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the transposed weights: the vector-Jacobian product of `__call__`.

        Parameters
        ----------
        y : (..., target)
            Of any floating or complex dtype, on any device; uncovered targets are not looked at.

        Returns
        -------
        (..., source)
            On the same device, of the same dtype.

        Raises
        ------
        ArgumentError
            If the shape or dtype is another.
        """
        x = self._flat(y, self.target, True)
        return x.reshape(*x.shape[:-1], *self.source)

    def _flat(self, x: Tensor, shape: tuple[int, ...], transposed: bool) -> Tensor:
        lead = x.ndim - len(shape)
        fits = lead >= 0 and tuple(x.shape[lead:]) == shape
        if not fits or not (x.is_floating_point() or x.is_complex()):
            raise ArgumentError(
                "the tensor does not fit the weights",
                where="y" if transposed else "x",
                expected=f"floating-point numbers of shape (..., {', '.join(map(str, shape))})",
                got=f"{x.dtype} of shape {tuple(x.shape)}",
                remedy="order its dimensions as the grid that the weights are for",
            )
        flat = x.flatten(lead)
        if transposed and self._missing.any():
            flat = torch.where(self._mask(flat), 0.0, flat)
        exact = flat.float() if x.dtype.itemsize < 4 else flat
        out: Tensor = _Product.apply(exact, self, transposed)  # type: ignore[no-untyped-call]
        return out.to(x.dtype)

    def _mask(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self._missing, device=like.device)

    def product(self, x: Tensor, transposed: bool) -> Tensor:
        """Multiply (..., n) tensors by the weights, or by their transpose; without gradients."""
        matrix = self._matrix(x, transposed)
        rows = x.reshape(-1, x.shape[-1])
        order, back = self._orders(x.device)
        if isinstance(matrix, Tensor) and transposed:
            out = (matrix @ rows.T.index_select(0, order)).T
        elif isinstance(matrix, Tensor):
            out = (matrix @ rows.T.contiguous()).index_select(0, back).T
        else:
            row, col, value, size = matrix
            rows = rows.index_select(1, order) if transposed else rows
            out = rows.new_zeros((rows.shape[0], size))
            out = out.index_add(1, row, rows.index_select(1, col) * value)
            out = out if transposed else out.index_select(1, back)
        return out.reshape(*x.shape[:-1], out.shape[-1])

    def _orders(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the order of the rows, and the way back."""
        key = ("order", device)
        if key not in self._made:
            order = torch.as_tensor(self._order, device=device)
            self._made[key] = order, order.argsort()
        orders: tuple[Tensor, Tensor] = self._made[key]
        return orders

    def _matrix(self, x: Tensor, transposed: bool) -> Any:
        """Return W or its transpose: compressed rows, or (row, column, value, number of rows)."""
        key = (x.device, x.dtype, transposed, x.device.type in _COMPRESSED)
        if key not in self._made:
            weights = (self._weights.T if transposed else self._weights).tocsr()
            if key[-1]:
                begin, col = (
                    torch.tensor(part.astype(np.int64), device=x.device)
                    for part in (weights.indptr, weights.indices)
                )
                value = torch.tensor(weights.data, device=x.device).to(x.dtype)
                with warnings.catch_warnings():
                    # compressed rows are "in beta state"; multiplying by them is all we need
                    warnings.simplefilter("ignore", UserWarning)
                    self._made[key] = torch.sparse_csr_tensor(
                        crow_indices=begin, col_indices=col, values=value, size=weights.shape
                    )
            else:
                entries = weights.tocoo()
                row, col = (
                    torch.tensor(part.astype(np.int64), device=x.device)
                    for part in (entries.row, entries.col)
                )
                # to the dtype before the device: not every device has float64
                value = torch.tensor(entries.data).to(x.dtype).to(x.device)
                self._made[key] = row, col, value, weights.shape[0]
        return self._made[key]

    def __getstate__(self) -> dict[str, Any]:
        # what was made for a device is made again there
        return self.__dict__ | {"_made": {}}

    def __repr__(self) -> str:
        return f"RegridOperator {self.source} -> {self.target}, {self._weights.nnz} weights"


class _Product(torch.autograd.Function):
    """W x or its transpose, either one being the other's gradient."""

    @staticmethod
    def forward(x: Tensor, operator: RegridOperator, transposed: bool) -> Tensor:
        return operator.product(x, transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, ctx.operator, ctx.transposed = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        back = _Product.apply(grads[0], ctx.operator, not ctx.transposed)  # type: ignore[no-untyped-call]
        return back, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _Product.apply(tangents[0], ctx.operator, ctx.transposed)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, operator: Any, transposed: bool) -> Any:
        first = x.movedim(in_dims[0], 0)
        return _Product.apply(first, operator, transposed), 0  # type: ignore[no-untyped-call]
