"""What every training is told: batches, steps, optimiser, reports; one frozen dataclass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Self

from xappa.errors import ArgumentError, check_settings
from xappa.training.optimisers import DECAYS, OPTIMISERS

__all__ = ["TrainingSettings", "between", "unknown_key", "whole", "wholes"]

#: Settings that change neither the batches nor what is made of them.
_FREE = {
    "memory",
    "prefetch",
    "log_every",
    "validate_every",
    "checkpoint_every",
    "validation_states",
}


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a training runs, whatever it trains.

    Parameters
    ----------
    batch
        Samples in a step, over all processes.
    learning_rate
        The largest one, at the end of the warm-up.
    held_out
        Share of the data, its end, that is set aside.
    optimiser
        A key of `xappa.training.optimisers.OPTIMISERS`.
    weight_decay
        Of optimisers that know it.
    clip
        The largest norm of a step's gradient; 0 for any.
    warmup
        Share of the steps in which the learning rate rises.
    decay
        How it falls to zero thereafter: ``"cosine"``, ``"linear"``, or not: ``"constant"``.
    ema
        Decay of the moving average of the weights, which is what is kept; None for a memory of a
        twentieth of the steps, 0 for the last weights.
    accumulate
        Parts that a batch is computed in, one after another, where memory is short.
    recompute
        Whether activations are computed again for the gradient instead of kept.
    precision
        ``"float32"``, or ``"bf16"``: matrix products and convolutions in half precision.
    compile
        Whether ``torch.compile`` is used.
    memory
        GiB of states, or of latents, that may be held in memory; None for at most 4 and half of
        what is free.
    prefetch
        Batches that are made ahead of time.
    log_every, validate_every, checkpoint_every
        Steps from one to the next; 0 for none but at the end.
    validation_states
        States, or blankets, that validation looks at.

    Raises
    ------
    ArgumentError
        If a value cannot be.
    """

    batch: int = 16
    learning_rate: float = 1e-3
    held_out: float = 0.1
    optimiser: str = "adamw"
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: float = 0.05
    decay: str = "cosine"
    ema: float | None = None
    accumulate: int = 1
    recompute: bool = False
    precision: str = "float32"
    compile: bool = False
    memory: float | None = None
    prefetch: int = 2
    log_every: int = 10
    validate_every: int = 500
    checkpoint_every: int = 500
    validation_states: int = 64

    #: Presets by name: what differs from the defaults.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    #: What the settings of a kind of training have to be, in words.
    expected: ClassVar[str]
    #: Whether a training may start from a model.
    can_start: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_settings(
            self,
            {**_common(self), **self._checks()},
            what="the training",
            where=f"xappa.{type(self).__name__}",
            expected=f"{self.expected}; {_EXPECTED}",
        )

    def _checks(self) -> dict[str, bool]:
        """Whether each of the settings of a kind of training is good."""
        return {}

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Return a preset, with changes.

        Parameters
        ----------
        name
            One of ``presets``.
        **changes
            Fields that are to differ.

        Raises
        ------
        ArgumentError
            If there is no such preset or no such field, or a value cannot be.

        Examples
        --------
        >>> from xappa import AppaTraining
        >>> AppaTraining.preset("small", blanket=12).blanket
        12
        """
        if name not in cls.presets:
            raise unknown_key(name, cls.presets, "the preset", "config=")
        known = [entry.name for entry in fields(cls)]
        for key in changes:
            if key not in known:
                raise unknown_key(key, known, "the setting", f"xappa.{cls.__name__}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in {**cls.presets[name], **changes}.items()
        }
        return cls(**values)

    @property
    def defining(self) -> dict[str, Any]:
        """The settings that determine the weights, JSON-able: those that a resume must share."""
        values = {k: v for k, v in asdict(self).items() if k not in _FREE}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def defining_of(self, stage: str) -> dict[str, Any]:
        """Return the settings that determine the weights of a stage."""
        return self.defining


_EXPECTED = (
    "whole numbers of batch, accumulate (which divides it), prefetch and validation_states of 1 or "
    "more, steps between reports of 0 or more, a positive learning_rate, held_out from 0 to 0.9, "
    "warmup from 0 to 1, ema from 0 to below 1, a clip and a weight_decay of 0 or more; optimiser "
    f"one of {', '.join(OPTIMISERS)}; decay one of {', '.join(DECAYS)}; precision 'float32' or "
    "'bf16'"
)


def unknown_key(key: str, known: Iterable[str], what: str, where: str) -> ArgumentError:
    """Return the error that a name is not known, with the nearest one that is."""
    names = list(known)
    near = get_close_matches(key, names, 1, 0.5)
    return ArgumentError(
        f"{what} {key!r} is not known",
        where=where,
        expected=f"one of {', '.join(names)}",
        got=repr(key),
        remedy=f"write {near[0]!r}" if near else "leave it out, or correct it",
    )


def whole(value: Any, least: int = 1) -> bool:
    """Whether a value is a whole number, of so much at least."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def between(value: Any, low: float, high: float) -> bool:
    """Whether a value is a number between two."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def wholes(value: Any, count: int | None = None, least: int = 0) -> bool:
    """Whether a value is a tuple of whole numbers, of so many if that matters."""
    good = isinstance(value, (tuple, list)) and len(value) == (count or len(value)) >= 1
    return good and all(whole(entry, least) for entry in value)


def _common(own: TrainingSettings) -> dict[str, bool]:
    """Whether each of the settings is good that all trainings have."""
    good = {
        name: whole(getattr(own, name))
        for name in ("batch", "accumulate", "prefetch", "validation_states")
    }
    for name in ("log_every", "validate_every", "checkpoint_every"):
        good[name] = whole(getattr(own, name), 0)
    if good["batch"] and good["accumulate"]:
        good["accumulate"] = own.batch % own.accumulate == 0
    return {
        **good,
        "learning_rate": between(own.learning_rate, 1e-12, 1),
        "held_out": between(own.held_out, 0, 0.9),
        "weight_decay": between(own.weight_decay, 0, 10),
        "clip": between(own.clip, 0, 1e12),
        "warmup": between(own.warmup, 0, 1),
        "ema": own.ema is None or (between(own.ema, 0, 1) and own.ema < 1),
        "memory": own.memory is None or between(own.memory, 0, 1e9),
        "optimiser": own.optimiser in OPTIMISERS,
        "decay": own.decay in DECAYS,
        "precision": own.precision in ("float32", "bf16"),
        "recompute": isinstance(own.recompute, bool),
        "compile": isinstance(own.compile, bool),
    }
