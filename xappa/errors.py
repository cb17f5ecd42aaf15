"""Exceptions and warnings of xappa.

Every error tells five things: *what* is wrong, *where* (the variable, coordinate or file), what was
*expected*, what was *got*, and the *remedy*. Several errors found at once are raised together as an
``ExceptionGroup`` whose message lists them all (`raise_all`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "AmbiguousCoordinateError",
    "ArgumentError",
    "BackgroundError",
    "BundleError",
    "CoordinateError",
    "DataError",
    "ErrorCovarianceError",
    "GridMismatchError",
    "GuessWarning",
    "HandshakeError",
    "MembersError",
    "MissingDependencyError",
    "NoModelError",
    "NoObservationsWarning",
    "ObservationTypeError",
    "OperatorError",
    "TimeStepError",
    "UnitsError",
    "UnknownQuantityError",
    "VariableMismatchError",
    "XappaError",
    "XappaWarning",
    "raise_all",
    "warn",
]


class XappaError(Exception):
    """Base class of all errors raised by xappa.

    Parameters
    ----------
    what
        One sentence: what is wrong.
    where
        The variable, coordinate, argument or file concerned.
    expected, got
        What would have been right, and what was found.
    remedy
        What the user can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: object = None,
        got: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.got, self.remedy = (
            what,
            where,
            expected,
            got,
            remedy,
        )
        details = {"where": where, "expected": expected, "got": got, "remedy": remedy}
        lines = [what]
        lines += [f"  {key}: {value}" for key, value in details.items() if value is not None]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        details = (self.what, self.where, self.expected, self.got, self.remedy)
        return _rebuild, (type(self), *details)


def _rebuild(
    kind: type[XappaError],
    what: str,
    where: str | None,
    expected: object,
    got: object,
    remedy: str | None,
) -> XappaError:
    return kind(what, where=where, expected=expected, got=got, remedy=remedy)


class ArgumentError(XappaError, ValueError):
    """An argument has a value that is not allowed, such as an unknown ``method``."""


class MembersError(ArgumentError):
    """The number of members is not positive, or does not fit the Dataset's own members."""


class UnitsError(XappaError, ValueError):
    """Units are missing, unreadable, or of another physical dimension."""


class UnknownQuantityError(XappaError, LookupError):
    """The observed quantity is neither a state variable nor a registered derived one."""


class CoordinateError(XappaError, ValueError):
    """A coordinate that is needed cannot be recognised, or has impossible values."""


class AmbiguousCoordinateError(CoordinateError):
    """Two or more coordinates are equally good candidates for one role."""


class DataError(XappaError, ValueError):
    """The data cannot be used: too few states, no variance, missing values where none may be."""


class BackgroundError(DataError):
    """A background error was given, but the Dataset holds no usable background."""


class ObservationTypeError(XappaError, TypeError):
    """``obs`` is neither a DataArray, nor a Dataset, nor a list or dict of them."""


class ErrorCovarianceError(XappaError, ValueError):
    """The observation error is missing, negative or of the wrong shape."""


class OperatorError(XappaError, ValueError):
    """An observation operator cannot be built, or not used with the chosen method."""


class NoModelError(XappaError, LookupError):
    """No model was given and none could be resolved."""


class HandshakeError(XappaError, ValueError):
    """The Dataset and the model do not fit together."""


class GridMismatchError(HandshakeError):
    """The Dataset's grid is neither the model's grid nor a sub-region of it."""


class VariableMismatchError(HandshakeError):
    """Variables or levels that the model needs are missing."""


class TimeStepError(HandshakeError):
    """The time axis does not follow the model's time step."""


class BundleError(XappaError, OSError):
    """A bundle on disk is damaged, incomplete or not a bundle at all."""


class MissingDependencyError(XappaError, ImportError):
    """An optional dependency is needed; the message names the extra to install."""


class XappaWarning(UserWarning):
    """Base class of all warnings issued by xappa."""


class GuessWarning(XappaWarning):
    """Metadata were incomplete; the message says what was assumed."""


class NoObservationsWarning(XappaWarning):
    """No observation can be used, so that the result is the prior."""


def warn(message: str, category: type[XappaWarning] = XappaWarning) -> None:
    """Issue a warning that points at the first line outside xappa.

    Parameters
    ----------
    message
        What happened and what the user may do about it.
    category
        One of xappa's warning classes.
    """
    package = str(Path(__file__).parent)
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def raise_all(errors: Sequence[XappaError], message: str) -> None:
    """Raise nothing, the only error, or an ExceptionGroup that lists all errors.

    Parameters
    ----------
    errors
        Errors that were found.
    message
        The heading of the group.

    Raises
    ------
    XappaError
        The error itself if there is exactly one.
    ExceptionGroup
        If there are several; the message lists each of them.
    """
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0]
    listed = "\n".join(f"- {error}" for error in errors)
    raise ExceptionGroup(f"{message}\n{listed}", list(errors))
