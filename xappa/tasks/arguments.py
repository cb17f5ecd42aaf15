"""Arguments that several tasks take, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from xappa.diffusion.sampling import Sampler
from xappa.errors import ArgumentError
from xappa.models.base import Model, Prior
from xappa.models.gaussian import GaussianModel
from xappa.models.settings import METHODS, Guidance
from xappa.observe import ObservationSpec

__all__ = [
    "DEFAULT_SAMPLER",
    "cannot",
    "check_overlap",
    "check_sampling",
    "describe_settings",
    "gaussian_model",
]

#: Third-order accuracy at one denoiser call for each step; see docs/benchmarks.md.
DEFAULT_SAMPLER = Sampler("multistep", steps=32, options={"order": 3})


def check_sampling(method: str | None, sampler: Any, guidance: Any) -> Any:
    """Check what does not depend on data; return the sampler to use."""
    if method is not None and method not in METHODS:
        raise ArgumentError(
            f"unknown method {method!r}",
            where="method=",
            expected=", ".join(METHODS),
            got=repr(method),
            remedy="use one of the expected names",
        )
    if guidance is not None and not isinstance(guidance, Guidance):
        raise ArgumentError(
            "guidance is not a xappa.Guidance",
            where="guidance=",
            expected="xappa.Guidance(...)",
            got=type(guidance).__name__,
        )
    if method == "dps":
        return _ddpm(sampler)
    if sampler is None:
        return DEFAULT_SAMPLER
    if isinstance(sampler, str):
        return Sampler(sampler)
    if not callable(sampler):
        raise ArgumentError(
            "sampler is neither a xappa.Sampler nor a function",
            where="sampler=",
            expected="xappa.Sampler(...), its name, or a function from denoiser to azula sampler",
            got=type(sampler).__name__,
        )
    return sampler


def check_overlap(guidance: Guidance, model: Prior) -> None:
    """Check that the model's blankets can overlap so.

    Raises
    ------
    ArgumentError
        If they are no longer than the overlap.
    """
    if guidance.overlap is not None and guidance.overlap >= model.blanket:
        raise ArgumentError(
            "blankets cannot overlap by their whole length",
            where="guidance=, overlap",
            expected=f"0 to {model.blanket - 1} states",
            got=guidance.overlap,
            remedy="choose less, or leave it out for half a blanket",
        )


def describe_settings(sampler: Any, guidance: Guidance) -> dict[str, Any]:
    """Return how the reverse diffusion was run, in a form that JSON can hold."""
    said = asdict(sampler) if isinstance(sampler, Sampler) else {"name": _named(sampler)}
    return {"sampler": said, "guidance": asdict(guidance)}


def _named(function: Any) -> str:
    """Return the name of a function, without the address in its repr."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _ddpm(sampler: Any) -> Sampler:
    sampler = Sampler("ddpm", steps=64) if sampler is None else sampler
    sampler = Sampler("ddpm") if sampler == "ddpm" else sampler
    if isinstance(sampler, Sampler) and sampler.name == "ddpm" and not sampler.options:
        return sampler
    raise ArgumentError(
        "dps is a change of the steps of DDPM, and of no other sampler",
        where="sampler=",
        expected='xappa.Sampler("ddpm", steps=...), or None',
        got=repr(sampler),
        remedy='leave sampler= out, or use method="mmps", which takes any sampler',
    )


def gaussian_model(model: Prior) -> GaussianModel:
    """Return a Gaussian model; others do not serve every task."""
    if isinstance(model, GaussianModel):
        return model
    raise cannot(model, "do this")


def cannot(model: Model, task: str) -> ArgumentError:
    """Return the error that a model's kind does not serve a task."""
    return ArgumentError(
        f"models of kind {model.kind!r} cannot {task}",
        where="model=",
        got=model.name,
        remedy="take a model of another kind",
    )


def check_correlated(method: str, specs: Sequence[ObservationSpec]) -> None:
    """Check that a method can treat errors that hang together.

    Raises
    ------
    ArgumentError
        If it takes the variances of errors alone, and they have biases or correlations.
    """
    if method in ("sda", "dps") and any(spec.structure is not None for spec in specs):
        raise ArgumentError(
            "biases and correlations of observation errors are beyond this method",
            where="method=",
            expected="exact, mmps or jfps, which take the whole of R",
            got=method,
            remedy="leave method= out, or drop bias_error_std and error_correlation_* of obs",
        )
