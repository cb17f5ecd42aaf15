"""One observation array inside an operator: its rows, its observations, its pointwise function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
        if self.only_interpolates:
            return h
        footprint = self.spec.footprint
        if footprint is None or not footprint.is_extreme:
            return self._computed(h, 1, elements)[..., 0, :]
        y = self._computed(h, footprint.nodes, elements)
        return y.amax(-2) if footprint.method == "maximum" else y.amin(-2)

    def _computed(self, h: torch.Tensor, nodes: int, elements: np.ndarray) -> torch.Tensor:
        """Apply the function at each node of an interval: (..., w n) to (..., nodes, n)."""
        widths, columns = self.spec.widths, self.spec.columns
        rows = h.reshape(*h.shape[:-1], sum(widths), -1).split(widths, dim=-2)
        parts = [part.unflatten(-2, (part.shape[-2] // nodes, nodes)) for part in rows]
        if self.function is None:
            plain: torch.Tensor = parts[0][..., 0, :, :]
            return plain
        import torch

        inputs, known = [], dict(self.spec.parameters)
        for k, ((_, wanted), variable, part) in enumerate(
            zip(self.function.inputs, self.spec.inputs, parts, strict=True)
        ):
            whole = bool(columns) and columns[k]
            x = part.movedim(-3, -1) if whole else part[..., 0, :, :]
            inputs.append(x if wanted is None else units.convert(x, variable.units, wanted))
            if whole:
                known["levels"] = torch.as_tensor(variable.levels, dtype=h.dtype, device=h.device)
        for name, values in self.spec.arguments.items():
            known[name] = torch.as_tensor(values[elements], dtype=h.dtype, device=h.device)
        y: torch.Tensor = _called(self.function.function, inputs, known, h)
        shape = (*h.shape[:-1], nodes, len(elements))
        if getattr(y, "shape", None) != shape:
            raise OperatorError(
                f"operator {self.function.name!r} does not return one value per observation",
                where=f"observations {self.spec.name!r}",
                expected=f"a tensor of shape {shape}",
                got=f"{type(y).__name__} of shape {tuple(getattr(y, 'shape', ()))}",
                remedy="let the function act on each element",
            )
        return y

    def check_finite(self, *parts: np.ndarray) -> None:
        """Check that equivalents and their derivatives at a climatology are finite.

        Raises
        ------
        OperatorError
            Otherwise.
        """
        bad = max(int((~np.isfinite(part)).sum()) for part in parts)
        if bad:
            raise OperatorError(
                f"operator {self.spec.operator!r} gives values that are not finite",
                where=f"observations {self.spec.name!r}",
                expected="finite equivalents of the climatology, and derivatives",
                got=f"{bad} are NaN or infinite",
                remedy="correct the operator, or leave out the observations that it cannot treat",
            )

    @property
    def only_interpolates(self) -> bool:
        """Whether equivalents are the rows themselves."""
        return self.function is None and not self.spec.is_extreme

    @property
    def is_linear(self) -> bool:
        """Whether y is linear in the state; an offset between units makes it affine."""
        if self.function is None or self.spec.is_extreme:
            return self.only_interpolates
        pairs = zip(self.function.inputs, self.spec.inputs, strict=True)
        return self.function.linear and all(
            wanted is None or units.factor_offset(variable.units, wanted)[1] == 0
            for (_, wanted), variable in pairs
        )


def _called(
    function: Any, inputs: list[torch.Tensor], known: dict[str, Any], like: torch.Tensor
) -> Any:
    """Call a function; a module in its own dtype and on its own device."""
    import torch

    own = None
    if isinstance(function, torch.nn.Module):
        tensors = (*function.parameters(), *function.buffers())
        own = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    if own is None or (own.dtype == like.dtype and own.device == like.device):
        return function(*inputs, **known)
    moved = {k: v.to(own) if isinstance(v, torch.Tensor) else v for k, v in known.items()}
    y = function(*(x.to(own) for x in inputs), **moved)
    return y.to(like) if isinstance(y, torch.Tensor) else y
