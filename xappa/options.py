"""Options that hold for a session or for a ``with`` block."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from xappa.errors import ArgumentError

__all__ = ["get_option", "set_options"]

_DEFAULTS: Mapping[str, Any] = MappingProxyType({"device": "auto", "model": None, "progress": True})
_CURRENT: ContextVar[Mapping[str, Any]] = ContextVar("xappa_options", default=_DEFAULTS)


def get_option(name: str) -> Any:
    """Return the value of an option in force here.

    >>> get_option("progress")
    True
    """
    return _CURRENT.get()[name]


class set_options:  # noqa: N801 - reads as a function, as in xarray
    """Set options for the session, or for a ``with`` block.

    Parameters
    ----------
    model : model or str, optional
        The model (or the catalogue name of one) used when a task is called without one.
    device : str, optional
        Where learned models run: ``"auto"`` (CUDA where there is one, else the CPU) or a name of
        torch's.
    progress : bool, optional
        Whether progress bars are shown.

    Raises
    ------
    ArgumentError
        If an option is unknown.

    Examples
    --------
    >>> with set_options(progress=False):
    ...     get_option("progress")
    False
    >>> get_option("progress")
    True
    """

    def __init__(self, **options: Any) -> None:
        unknown = sorted(set(options) - set(_DEFAULTS))
        if unknown:
            raise ArgumentError(
                f"unknown option {unknown[0]!r}",
                where="xappa.set_options",
                expected=", ".join(sorted(_DEFAULTS)),
                got=", ".join(unknown),
                remedy="use one of the expected names",
            )
        self._token = _CURRENT.set(MappingProxyType({**_CURRENT.get(), **options}))

    def __enter__(self) -> set_options:
        return self

    def __exit__(self, *exc_info: object) -> None:
        _CURRENT.reset(self._token)
