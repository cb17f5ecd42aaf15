"""Quality flags: observations are rejected by what their flags mean, never by bare numbers.

CF gives flags as values that exclude each other (``flag_values``), as bits (``flag_masks``), or as
values within bit fields (both); ``flag_meanings`` names them. The words of a meaning decide:
``probably_bad`` is bad, ``not_good`` is bad, ``not_suspect`` is not. A meaning that none of the
words below explains does not reject anything, and is reported.

References
----------
CF conventions 1.11, section 3.5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from xappa.observe.ancillary import (
    FLAG_NAMES,
    ancillary_names,
    companions,
    modifier,
    on_elements,
    unlinked_flags,
)

__all__ = ["BAD_WORDS", "GOOD_WORDS", "NEGATIONS", "is_bad", "rejected_by_flags"]

BAD_WORDS = frozenset(
    {
        "bad",
        "suspect",
        "suspicious",
        "suspected",
        "reject",
        "rejected",
        "rejection",
        "fail",
        "failed",
        "failure",
        "missing",
        "erroneous",
        "error",
        "errors",
        "wrong",
        "invalid",
        "unusable",
        "questionable",
        "doubtful",
        "doubt",
        "dubious",
        "incorrect",
        "inconsistent",
        "corrupt",
        "corrupted",
        "outlier",
        "blacklisted",
        "blocklisted",
        "spurious",
        "malfunction",
        "defective",
        "contaminated",
    }
)
GOOD_WORDS = frozenset(
    {
        "good",
        "ok",
        "okay",
        "pass",
        "passed",
        "valid",
        "accept",
        "accepted",
        "correct",
        "corrected",
        "nominal",
        "normal",
        "consistent",
        "acceptable",
        "usable",
        "clean",
        "clear",
        "verified",
        "reliable",
        "changed",
        "interpolated",
        "estimated",
        "used",
    }
)
NEGATIONS = frozenset({"not", "no", "non", "never", "without"})


def is_bad(meaning: str) -> bool | None:
    """Tell whether a flag meaning says that the value must not be used; None if it does not tell.

    >>> is_bad("probably_bad_data"), is_bad("not_good"), is_bad("no_errors_found")
    (True, True, False)
    >>> is_bad("good_value"), is_bad("not_evaluated")
    (False, None)
    """
    negated, verdicts = False, []
    for word in re.split(r"[^a-z0-9]+", meaning.lower()):
        if word in NEGATIONS:
            negated = True
        elif word in BAD_WORDS or word in GOOD_WORDS:
            verdicts.append((word in BAD_WORDS) != negated)
            negated = False
    return any(verdicts) if verdicts else None


@dataclass(frozen=True)
class _Flag:
    meaning: str
    value: int | None
    mask: int | None

    def holds(self, flags: np.ndarray) -> np.ndarray:
        if self.mask is None:
            return np.asarray(flags == self.value)
        masked = flags & self.mask
        return np.asarray(masked != 0 if self.value is None else masked == self.value)


@dataclass
class _Verdict:
    rejected: np.ndarray
    guesses: list[str] = field(default_factory=list)


def rejected_by_flags(
    array: xr.DataArray, dataset: xr.Dataset | None
) -> tuple[np.ndarray, list[str]]:
    """Find the elements whose flags say that they must not be used.

    Parameters
    ----------
    array
        The observations.
    dataset
        Where its ancillary variables are, if anywhere.

    Returns
    -------
    rejected : (n,) bool
    guesses : list of str
        What could not be understood.
    """
    verdict = _Verdict(np.zeros(array.size, bool))
    listed = set(ancillary_names(array))
    found = set()
    for name, variable in companions(array, dataset):
        found.add(name)
        known = modifier(variable) in FLAG_NAMES
        if known or (name in listed and "flag_meanings" in variable.attrs):
            _judge(name, variable, array, verdict)
    absent = sorted(listed - found)
    if absent:
        verdict.guesses.append(
            f"ancillary variables {', '.join(absent)} are listed but not there: "
            "any flags and errors that they hold are not known (pass the whole Dataset)"
        )
    loose = [] if dataset is None else unlinked_flags(dataset)
    if loose:
        verdict.guesses.append(
            f"flags {', '.join(loose)} are listed in no ancillary_variables: they reject nothing"
        )
    return verdict.rejected, verdict.guesses


def _judge(name: str, variable: xr.DataArray, array: xr.DataArray, verdict: _Verdict) -> None:
    table = _table(variable)
    if not table:
        verdict.guesses.append(
            f"flags {name!r} have no readable flag_meanings with flag_values or flag_masks: "
            "they reject nothing"
        )
        return
    values = on_elements(variable, array)
    if values is None:
        verdict.guesses.append(
            f"flags {name!r} have dims or labels that the observations lack: they reject nothing"
        )
        return
    absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    flags = np.where(absent, 0, values).astype(np.int64)
    explained = absent.copy()
    for flag in table:
        here = flag.holds(flags) & ~absent
        explained |= here
        bad = is_bad(flag.meaning)
        if bad:
            verdict.rejected |= here
        elif bad is None and here.any():
            verdict.guesses.append(
                f"flag {name}={flag.meaning!r} of {int(here.sum())} observations says neither "
                "good nor bad: they are used"
            )
    if all(flag.mask is None for flag in table) and not explained.all():
        strange = np.unique(flags[~explained])[:3]
        verdict.guesses.append(
            f"{int((~explained).sum())} values of flag {name} have no meaning "
            f"({', '.join(str(value) for value in strange)}): those observations are used"
        )


def _table(variable: xr.DataArray) -> list[_Flag]:
    """Return the flags that a variable defines; empty if its attributes do not fit together."""
    meanings = str(variable.attrs.get("flag_meanings", "")).replace(",", " ").split()
    values, masks = (_integers(variable.attrs.get(f"flag_{key}")) for key in ("values", "masks"))
    lengths = {len(listed) for listed in (values, masks) if listed is not None}
    if not meanings or lengths != {len(meanings)}:
        return []
    nothing: list[int | None] = [None] * len(meanings)
    rows = zip(meanings, values or nothing, masks or nothing, strict=True)
    return [_Flag(meaning, value, mask) for meaning, value, mask in rows]


def _integers(attribute: object) -> list[int] | None:
    """Read ``flag_values`` or ``flag_masks``: numbers, or text such as ``"0b, 1b"``."""
    if attribute is None:
        return None
    if isinstance(attribute, str):
        words = re.findall(r"-?\d+", attribute)
        return [int(word) for word in words]
    try:
        return [int(value) for value in np.atleast_1d(np.asarray(attribute))]
    except (TypeError, ValueError):
        return []
