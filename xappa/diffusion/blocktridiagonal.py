r"""Covariances with block-tridiagonal structure.

A Gaussian Markov chain :math:`z_1, \dots, z_B` has a block-tridiagonal precision

.. math::
    \Lambda = \begin{pmatrix}
        D_1 & L_1^\top \\
        L_1 & D_2 & L_2^\top \\
        & L_2 & D_3 & \ddots
    \end{pmatrix}

with blocks of size n. Its Cholesky factor is block-bidiagonal,

.. math::
    C_1 = \operatorname{chol}(D_1), \quad W_i = L_i C_i^{-\top}, \quad
    C_{i+1} = \operatorname{chol}(D_{i+1} - W_i W_i^\top),

so that products, solves, samples and determinants cost O(B n³) once and O(B n²) for each vector,
whatever the length of the trajectory.

Two members join azula's algebra of covariances: `BlockTridiagonalCovariance`, the matrix itself,
and `InverseBlockTridiagonalCovariance`, its inverse (the covariance of the chain). ``.inv`` swaps
them.

References
----------
Rue & Held (2005), Gaussian Markov Random Fields, doi:10.1201/9780203492024
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from azula.linalg.covariance import Covariance, IsotropicCovariance
from torch import Tensor

__all__ = ["BlockTridiagonalCovariance", "InverseBlockTridiagonalCovariance"]


class BlockTridiagonalCovariance(Covariance):
    r"""Symmetric positive definite block-tridiagonal matrix :math:`C = \Lambda`.

    Parameters
    ----------
    diagonal
        The blocks :math:`D_i`, shape (B, n, n).
    lower
        The blocks :math:`L_i` below the diagonal, shape (B - 1, n, n).
    """

    def __init__(self, diagonal: Tensor, lower: Tensor) -> None:
        self.diagonal, self.lower = diagonal, lower

    @property
    def shape(self) -> Sequence[int]:
        """Shape (B, n) of the vectors that it acts upon."""
        return tuple(self.diagonal.shape[:2])

    @cached_property
    def factor(self) -> tuple[list[Tensor], list[Tensor]]:
        """Blocks (C_i, W_i) of the Cholesky factor."""
        chol = [torch.linalg.cholesky(self.diagonal[0])]
        below: list[Tensor] = []
        for i in range(len(self.lower)):
            w = torch.linalg.solve_triangular(chol[i], self.lower[i].mT, upper=False).mT
            below.append(w)
            chol.append(torch.linalg.cholesky(self.diagonal[i + 1] - w @ w.mT))
        return chol, below

    def __add__(self, other: Covariance) -> BlockTridiagonalCovariance:
        if isinstance(other, IsotropicCovariance):
            eye = torch.eye(self.shape[1], dtype=self.diagonal.dtype, device=self.diagonal.device)
            return BlockTridiagonalCovariance(self.diagonal + other.lmbda * eye, self.lower)
        if isinstance(other, BlockTridiagonalCovariance):
            return BlockTridiagonalCovariance(
                self.diagonal + other.diagonal, self.lower + other.lower
            )
        return NotImplemented

    def __mul__(self, other: Covariance) -> BlockTridiagonalCovariance:
        if isinstance(other, IsotropicCovariance):
            return BlockTridiagonalCovariance(self.diagonal * other.lmbda, self.lower * other.lmbda)
        return NotImplemented

    def __matmul__(self, x: Tensor) -> Tensor:
        """Return C x for x of shape (..., B, n)."""
        y = torch.einsum("bij,...bj->...bi", self.diagonal, x)
        if len(self.lower):
            y[..., 1:, :] += torch.einsum("bij,...bj->...bi", self.lower, x[..., :-1, :])
            y[..., :-1, :] += torch.einsum("bij,...bi->...bj", self.lower, x[..., 1:, :])
        return y

    def color(self, x: Tensor) -> Tensor:
        """Return a vector with covariance C from white noise x of shape (..., B, n)."""
        chol, below = self.factor
        y = torch.einsum("bij,...bj->...bi", torch.stack(chol), x)
        if below:
            y[..., 1:, :] += torch.einsum("bij,...bj->...bi", torch.stack(below), x[..., :-1, :])
        return y

    def solve(self, x: Tensor) -> Tensor:
        """Return the inverse of C times x, for x of shape (..., B, n)."""
        return self._backward(self._forward(x))

    def _forward(self, x: Tensor) -> Tensor:
        chol, below = self.factor
        out: list[Tensor] = []
        for i, c in enumerate(chol):
            rhs = x[..., i, :]
            if i:
                rhs = rhs - out[-1] @ below[i - 1].mT
            out.append(_triangular(c, rhs, upper=False))
        return torch.stack(out, dim=-2)

    def _backward(self, x: Tensor) -> Tensor:
        chol, below = self.factor
        out: list[Tensor] = []
        for i in reversed(range(len(chol))):
            rhs = x[..., i, :]
            if out:
                rhs = rhs - out[-1] @ below[i]
            out.append(_triangular(chol[i].mT, rhs, upper=True))
        return torch.stack(out[::-1], dim=-2)

    @property
    def inv(self) -> InverseBlockTridiagonalCovariance:
        """The inverse, as a covariance."""
        return InverseBlockTridiagonalCovariance(self)

    def logdet(self) -> Tensor:
        """Return the logarithm of the determinant."""
        return 2 * sum((c.diagonal().log().sum() for c in self.factor[0]), torch.zeros(()))


class InverseBlockTridiagonalCovariance(Covariance):
    r"""Covariance :math:`C = \Lambda^{-1}` given by its block-tridiagonal precision.

    Parameters
    ----------
    precision
        The precision :math:`\Lambda`.
    """

    def __init__(self, precision: BlockTridiagonalCovariance) -> None:
        self.precision = precision

    @property
    def shape(self) -> Sequence[int]:
        """Shape (B, n) of the vectors that it acts upon."""
        return self.precision.shape

    def __add__(self, other: Covariance) -> Covariance:
        # A sum with the inverse of a banded matrix is not banded: `(C⁻¹ + D⁻¹)⁻¹` is what exists.
        return NotImplemented

    def __mul__(self, other: Covariance) -> InverseBlockTridiagonalCovariance:
        if isinstance(other, IsotropicCovariance):
            return InverseBlockTridiagonalCovariance(self.precision * other.inv)
        return NotImplemented

    def __matmul__(self, x: Tensor) -> Tensor:
        """Return C x for x of shape (..., B, n); differentiable in x."""
        result: Tensor = _SymmetricSolve.apply(x, self.precision)  # type: ignore[no-untyped-call]
        return result

    def color(self, x: Tensor) -> Tensor:
        """Return a vector with covariance C from white noise x of shape (..., B, n)."""
        return self.precision._backward(x)

    @property
    def inv(self) -> BlockTridiagonalCovariance:
        """The precision."""
        return self.precision

    def logdet(self) -> Tensor:
        """Return the logarithm of the determinant."""
        return -self.precision.logdet()


class _SymmetricSolve(torch.autograd.Function):
    """Solve with a constant symmetric matrix: its derivative is the same solve."""

    generate_vmap_rule = False

    @staticmethod
    def forward(x: Tensor, precision: BlockTridiagonalCovariance) -> Tensor:
        return precision.solve(x)

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx,
        inputs: tuple[Tensor, BlockTridiagonalCovariance],
        output: Tensor,
    ) -> None:
        ctx.precision = inputs[1]  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        precision: BlockTridiagonalCovariance = ctx.precision  # type: ignore[attr-defined]
        result: Tensor = _SymmetricSolve.apply(grads[0], precision)  # type: ignore[no-untyped-call]
        return result, None

    @staticmethod
    def jvp(ctx: torch.autograd.function.FunctionCtx, *tangents: Tensor) -> Tensor:
        precision: BlockTridiagonalCovariance = ctx.precision  # type: ignore[attr-defined]
        return precision.solve(tangents[0])


def _triangular(c: Tensor, rhs: Tensor, *, upper: bool) -> Tensor:
    """Solve c y = rhs for row vectors rhs of shape (..., n)."""
    flat = rhs.reshape(-1, rhs.shape[-1])
    solved: Tensor = torch.linalg.solve_triangular(c, flat.mT, upper=upper)
    return solved.mT.reshape(rhs.shape)
