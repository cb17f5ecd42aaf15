r"""Krylov solvers that stop member by member and keep what guidance needs.

Guidance solves, for each member of a batch,

.. math:: (R + A V A^\top) \, u = b

and then needs :math:`V A^\top u`. Both solvers here build u from vectors :math:`v_j` for which
:math:`V A^\top v_j` was computed on the way to the matrix-vector product; the same combination of
those gives :math:`V A^\top u` without another product. A member stops at its own iteration, when
its relative residual falls below ``rtol``: the batch that it is computed in does not change its
numbers.

References
----------
Saad (2003), Iterative Methods for Sparse Linear Systems, doi:10.1137/1.9780898718003
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Solution", "cg", "gmres"]

Product = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Solution:
    """What a solver returns.

    Parameters
    ----------
    solution
        u, shape (B, n).
    by_product
        The same combination of the by-products, shape (B, ...).
    iterations
        Iterations that each member took, shape (B,), int64.
    residual
        Relative residual of each member, shape (B,).
    """

    solution: Tensor
    by_product: Tensor
    iterations: Tensor
    residual: Tensor


def _expand(x: Tensor, like: Tensor) -> Tensor:
    return x.reshape(-1, *[1] * (like.ndim - 1))


def _in(dtype: torch.dtype, product: Product) -> Product:
    """Apply a product in a dtype of lower precision, between vectors of float64."""
    if dtype == torch.float64:
        return product

    def wrapped(v: Tensor) -> tuple[Tensor, Tensor]:
        mv, by = product(v.to(dtype))
        return mv.double(), by.double()

    return wrapped


def cg(product: Product, b: Tensor, *, iterations: int, rtol: float) -> Solution:
    r"""Solve with conjugate gradients; the matrix must be symmetric positive definite.

    Parameters
    ----------
    product
        Maps v of shape (B, n) to the product (shape (B, n)) and to a by-product linear in v.
    b
        Right-hand sides, shape (B, n).
    iterations
        The most iterations.
    rtol
        A member stops when :math:`\|b - Mu\| \le \mathrm{rtol} \, \|b\|`.
    """
    working, b = b.dtype, b.double()
    product = _in(working, product)
    norm = torch.linalg.vector_norm(b, dim=-1)
    r, p = b, b
    u, by = torch.zeros_like(b), None
    rr = (r * r).sum(-1)
    active = norm > 0
    count = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    residuals = (r / norm.clamp(min=1e-300)[:, None])[None]
    for _ in range(iterations):
        if not bool(active.any()):
            break
        mp, aux = product(p)
        curvature = (p * mp).sum(-1)
        step = torch.where(active & (curvature > 0), rr / curvature.clamp(min=1e-300), 0.0)
        u = u + step[:, None] * p
        term = _expand(step, aux) * aux
        by = term if by is None else by + term
        r = r - step[:, None] * mp
        # Rounding makes residuals lose their orthogonality, and with it the exactness after n
        # iterations; they live in observation space, where orthogonalising again costs little.
        r = r - torch.einsum("jb,jbn->bn", torch.einsum("jbn,bn->jb", residuals, r), residuals)
        rr_next = (r * r).sum(-1)
        residuals = torch.cat([residuals, (r / rr_next.sqrt().clamp(min=1e-300)[:, None])[None]])
        count = count + active
        active = active & (curvature > 0) & (rr_next.sqrt() > rtol * norm)
        p = torch.where(active[:, None], r + (rr_next / rr.clamp(min=1e-300))[:, None] * p, p)
        rr = rr_next
    if by is None:
        by = torch.zeros_like(product(b)[1])
    residual = rr.sqrt() / norm.clamp(min=1e-300)
    return Solution(u.to(working), by.to(working), count, residual)


def gmres(product: Product, b: Tensor, *, iterations: int, rtol: float) -> Solution:
    r"""Solve with generalised minimal residuals; the matrix need not be symmetric.

    Stitched or learned Jacobians are not exactly symmetric, which conjugate gradients do not
    forgive. Takes the same arguments as `cg`.
    """
    working, b = b.dtype, b.double()
    product = _in(working, product)
    norm = torch.linalg.vector_norm(b, dim=-1)
    basis = [b / norm.clamp(min=1e-300)[:, None]]
    auxiliary: list[Tensor] = []
    hessenberg = b.new_zeros(len(b), iterations + 1, iterations)
    coefficients = b.new_zeros(len(b), iterations)
    residual = torch.ones_like(norm)
    active = norm > 0
    count = torch.zeros(len(b), dtype=torch.int64, device=b.device)
    for j in range(iterations):
        if not bool(active.any()):
            break
        w, aux = product(basis[j])
        auxiliary.append(aux)
        for i, v in enumerate(basis):
            hessenberg[:, i, j] = (w * v).sum(-1)
            w = w - hessenberg[:, i, j, None] * v
        hessenberg[:, j + 1, j] = torch.linalg.vector_norm(w, dim=-1)
        basis.append(w / hessenberg[:, j + 1, j, None].clamp(min=1e-300))
        target = b.new_zeros(len(b), j + 2, 1)
        target[:, 0, 0] = norm
        h = hessenberg[:, : j + 2, : j + 1]
        y = torch.linalg.pinv(h) @ target
        misfit = torch.linalg.vector_norm(h @ y - target, dim=(1, 2)) / norm.clamp(min=1e-300)
        coefficients[:, : j + 1] = torch.where(active[:, None], y[..., 0], coefficients[:, : j + 1])
        residual = torch.where(active, misfit, residual)
        count = count + active
        active = active & (misfit > rtol)
    used = len(auxiliary)
    if not used:
        nothing = torch.zeros_like(product(b)[1]).to(working)
        return Solution(torch.zeros_like(b).to(working), nothing, count, residual)
    u = torch.einsum("bj,jbn->bn", coefficients[:, :used], torch.stack(basis[:used]))
    by = sum(
        (_expand(coefficients[:, j], a) * a for j, a in enumerate(auxiliary)),
        torch.zeros_like(auxiliary[0]),
    )
    return Solution(u.to(working), by.to(working), count, residual)
