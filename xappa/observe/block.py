"""One observation array inside an operator: its rows, its observations, its pointwise function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xappa import units
from xappa.errors import OperatorError
from xappa.observe.registry import RegisteredOperator
from xappa.observe.spec import ObservationSpec

if TYPE_CHECKING:
    import torch

__all__ = ["Block"]


@dataclass(frozen=True, eq=False)
class Block:
    """One array's share of the rows and of the used observations.

    Parameters
    ----------
    spec
        The array.
    function
        Its registered operator, or None for interpolation alone.
    rows, used
        Its slice of the n_rows rows (input-major: all observations of the first input, then of
        the second) and of the n_used observations.
    """

    spec: ObservationSpec
    function: RegisteredOperator | None
    rows: slice
    used: slice

    def from_rows(self, h: torch.Tensor, elements: np.ndarray) -> torch.Tensor:
        """Apply the pointwise function to interpolated inputs.

        Parameters
        ----------
        h
            Shape (..., w n): n observations of each of the w rows that the inputs take.
        elements
            (n,) which elements of the array they are.

        Returns
        -------
        Tensor
            Shape (..., n).
        """
        if self.spec.is_extreme and self.spec.footprint is not None:
            nodes = h.reshape(*h.shape[:-1], self.spec.footprint.nodes, -1)
            return nodes.amax(-2) if self.spec.footprint.method == "maximum" else nodes.amin(-2)
        if self.function is None:
            return h
        import torch

        widths, columns = self.spec.widths, self.spec.columns
        parts = h.reshape(*h.shape[:-1], sum(widths), -1).split(widths, dim=-2)
        inputs, known = [], dict(self.spec.parameters)
        for k, ((_, wanted), variable, part) in enumerate(
            zip(self.function.inputs, self.spec.inputs, parts, strict=True)
        ):
            whole = bool(columns) and columns[k]
            x = part.movedim(-2, -1) if whole else part[..., 0, :]
            inputs.append(x if wanted is None else units.convert(x, variable.units, wanted))
            if whole:
                known["levels"] = torch.as_tensor(variable.levels, dtype=h.dtype, device=h.device)
        for name, values in self.spec.arguments.items():
            known[name] = torch.as_tensor(values[elements], dtype=h.dtype, device=h.device)
        y: torch.Tensor = self.function.function(*inputs, **known)
        shape = (*h.shape[:-1], len(elements))
        if getattr(y, "shape", None) != shape:
            raise OperatorError(
                f"operator {self.function.name!r} does not return one value per observation",
                where=f"observations {self.spec.name!r}",
                expected=f"a tensor of shape {shape}",
                got=f"{type(y).__name__} of shape {tuple(getattr(y, 'shape', ()))}",
                remedy="let the function act on each element",
            )
        return y

    @property
    def only_interpolates(self) -> bool:
        """Whether equivalents are the rows themselves."""
        return self.function is None and not self.spec.is_extreme

    @property
    def is_linear(self) -> bool:
        """Whether y is linear in the state; an offset between units makes it affine."""
        if self.function is None:
            return not self.spec.is_extreme
        pairs = zip(self.function.inputs, self.spec.inputs, strict=True)
        return self.function.linear and all(
            wanted is None or units.factor_offset(variable.units, wanted)[1] == 0
            for (_, wanted), variable in pairs
        )
