"""Keyed randomness: the same numbers whatever the batch, the chunks or the device.

A stream of random numbers is identified by what it is *for*, never by when it is drawn. The key is

    (seed, purpose, member, valid time, ...)

hashed into a `numpy.random.SeedSequence`. Member 3 at noon therefore receives the same noise in an
ensemble of 4 or of 400, in one batch or in ten, on one device or on many. There is no global state.

This module does not import torch, so that observation errors can be drawn without it;
`xappa.diffusion.memberwise` brings these streams to the samplers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from xappa.errors import ArgumentError

__all__ = ["draw_seed", "generator", "member_keys", "seed_of", "standard_normal"]

Key = int | float | str | np.integer | np.floating


def _entropy(key: Key) -> int:
    """Map one part of a key to a non-negative integer, injectively for practical purposes."""
    if isinstance(key, (float, np.floating)):
        # Valid times are seconds since 1970: microseconds keep them apart and survive rounding.
        key = int(np.rint(float(key) * 1e6))
    text = f"{'i' if isinstance(key, (int, np.integer)) else 's'}:{key}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def generator(seed: int, purpose: str, *keys: Key) -> np.random.Generator:
    """Return the random generator that belongs to a key.

    Parameters
    ----------
    seed
        The user's seed.
    purpose
        What the numbers are for, such as ``"observation"`` or ``"sampler"``; streams of different
        purposes are independent.
    *keys
        Further parts of the key: member number, valid time in seconds, name of an array.

    Examples
    --------
    >>> a = generator(0, "sampler", 3, 0.0).standard_normal(2)
    >>> b = generator(0, "sampler", 3, 0.0).standard_normal(2)
    >>> bool((a == b).all())
    True
    >>> bool((a == generator(0, "sampler", 4, 0.0).standard_normal(2)).any())
    False
    """
    words = [_entropy(int(seed)), _entropy(purpose), *(_entropy(key) for key in keys)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def standard_normal(
    seed: int,
    purpose: str,
    members: Sequence[int],
    times: Sequence[float] | np.ndarray,
    size: int,
) -> np.ndarray:
    """Draw independent standard normal numbers for each member and valid time.

    Parameters
    ----------
    seed, purpose
        See `generator`.
    members
        Member numbers (B of them).
    times
        Valid times in seconds (T of them).
    size
        Numbers per member and time (L).

    Returns
    -------
    numpy.ndarray
        Array of shape (B, T, L), float64.
    """
    noise = np.empty((len(members), len(times), size))
    for b, member in enumerate(members):
        for t, time in enumerate(times):
            noise[b, t] = generator(seed, purpose, member, float(time)).standard_normal(size)
    return noise


def member_keys(labels: Any, size: int) -> list[int]:
    """Return the integers that stand for an ensemble's members in the keys of random streams.

    Labels that are distinct integers stand for themselves, so that a member keeps its numbers when
    others are taken away; else positions do.

    Parameters
    ----------
    labels
        The values of the realization coordinate, shape (size,), or None.
    size
        Number of members.

    Examples
    --------
    >>> member_keys(np.array([3, 7]), 2), member_keys(np.array(["a", "b"]), 2), member_keys(None, 2)
    ([3, 7], [0, 1], [0, 1])
    """
    values = np.asarray([] if labels is None else labels)
    if values.shape == (size,) and values.dtype.kind in "iuf" and np.isfinite(values).all():
        whole = [int(value) for value in values]
        if np.array_equal(whole, values) and len(set(whole)) == size:
            return whole
    return list(range(size))


def draw_seed() -> int:
    """Draw a fresh seed from the operating system's entropy, to be recorded with the result."""
    return int(np.random.SeedSequence().entropy % 2**32)  # type: ignore[operator]


def seed_of(seed: Any) -> int:
    """Return the seed to use, drawn afresh for None.

    Raises
    ------
    ArgumentError
        If it is no integer.
    """
    if seed is None:
        return draw_seed()
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ArgumentError(
            "the seed is no integer",
            where="seed=",
            expected="an integer, or None to draw one",
            got=repr(seed),
        )
    return int(seed)
