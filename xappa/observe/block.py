"""One observation array inside an operator: its rows, its observations, its pointwise function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    def from_rows(self, h: torch.Tensor) -> torch.Tensor:
        """Apply the pointwise function to interpolated inputs (..., m * n), giving (..., n)."""
        if self.function is None:
            return h
        m = len(self.spec.inputs)
        inputs = []
        for (_, wanted), variable, x in zip(
            self.function.inputs,
            self.spec.inputs,
            h.reshape(*h.shape[:-1], m, h.shape[-1] // m).unbind(-2),
            strict=True,
        ):
            inputs.append(x if wanted is None else units.convert(x, variable.units, wanted))
        y: torch.Tensor = self.function.function(*inputs, **self.spec.parameters)
        if getattr(y, "shape", None) != inputs[0].shape:
            raise OperatorError(
                f"operator {self.function.name!r} does not return one value per observation",
                where=f"observations {self.spec.name!r}",
                expected=f"a tensor of shape {tuple(inputs[0].shape)}",
                got=f"{type(y).__name__} of shape {tuple(getattr(y, 'shape', ()))}",
                remedy="let the function act on each element",
            )
        return y

    @property
    def is_linear(self) -> bool:
        """Whether y is linear in the state; an offset between units makes it affine."""
        if self.function is None:
            return True
        pairs = zip(self.function.inputs, self.spec.inputs, strict=True)
        return self.function.linear and all(
            wanted is None or units.factor_offset(variable.units, wanted)[1] == 0
            for (_, wanted), variable in pairs
        )
