"""The kinds of models that a bundle can hold."""

from __future__ import annotations

from xappa.models.appa.model import AppaModel
from xappa.models.base import Model
from xappa.models.corrdiff.model import CorrDiffModel
from xappa.models.gaussian import GaussianModel

__all__ = ["KINDS"]

KINDS: dict[str, type[Model]] = {
    kind.kind: kind for kind in (AppaModel, CorrDiffModel, GaussianModel)
}
