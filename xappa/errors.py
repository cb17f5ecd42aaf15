"""Exceptions and warnings of xappa.

Every error tells five things: *what* is wrong, *where* (the variable, coordinate or file), what was
*expected*, what was *got*, and the *remedy*. Several errors found at once are raised together as
`XappaErrors`, an ``ExceptionGroup`` whose message lists them all (`raise_all`).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = [
    "AmbiguousCoordinateError",
    "ArgumentError",
    "BackgroundError",
    "BundleError",
    "CheckpointError",
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
    "TrainingError",
    "UnitsError",
    "UnknownQuantityError",
    "VariableMismatchError",
    "XappaError",
    "XappaErrors",
    "XappaWarning",
    "check_settings",
    "forget_warnings",
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


class XappaErrors(ExceptionGroup[XappaError], XappaError):  # noqa: N818  # it is several errors
    """Several errors found at once, caught by ``except XappaError`` and ``except*`` alike.

    Parameters
    ----------
    what
        One sentence: what could not be done.
    errors
        The errors, at least one; those inside other groups are taken out of them.
    """

    def __new__(cls, what: str, errors: Sequence[XappaError]) -> XappaErrors:
        """Make the group; its message lists all errors."""
        flat = list(_leaves(errors))
        listed = "\n".join(f"- {error}" for error in flat)
        return super().__new__(cls, f"{what}\n{listed}", flat)

    def __init__(self, what: str, errors: Sequence[XappaError]) -> None:
        ExceptionGroup.__init__(self, what, errors)
        self.what = what
        self.where = self.expected = self.got = self.remedy = None

    @property
    def errors(self) -> list[XappaError]:
        """The errors, one after another."""
        return list(_leaves(self.exceptions))

    def derive(self, errors: Sequence[XappaError]) -> XappaErrors:  # type: ignore[override]
        """Return a group of some of the errors, as ``except*`` and ``split`` ask for."""
        return XappaErrors(self.what, errors)

    def __reduce__(self) -> tuple[object, ...]:
        return XappaErrors, (self.what, list(self.exceptions))


def _leaves(errors: Sequence[XappaError | ExceptionGroup[XappaError]]) -> Iterator[XappaError]:
    for error in errors:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error.exceptions)
        else:
            yield error


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


class CheckpointError(XappaError, OSError):
    """A checkpoint of a training cannot be written, or what was written cannot be read."""


class TrainingError(XappaError, RuntimeError):
    """A training cannot go on: its loss is not finite, or its processes cannot share the work."""


class MissingDependencyError(XappaError, ImportError):
    """An optional dependency is needed; the message names the extra to install."""


class XappaWarning(UserWarning):
    """Base class of all warnings issued by xappa."""


class GuessWarning(XappaWarning):
    """Metadata were incomplete; the message says what was assumed."""


class DepartureWarning(XappaWarning):
    """Observations are so far from the prior that they are hardly what they say they are."""


class NoObservationsWarning(XappaWarning):
    """No observation can be used, so that the result is the prior."""


_SAID: set[tuple[str, str, int]] = set()
"""Guesses that were told: the message, and the file and line of the user's call."""


def forget_warnings() -> None:
    """Let guesses that were told once in this session be told again."""
    _SAID.clear()


def warn(message: str, category: type[XappaWarning] = XappaWarning) -> None:
    """Issue a warning that points at the first line outside xappa.

    Python forgets what it has said on a line whenever a library changes the warning filters. So
    that a loop does not repeat itself, a `GuessWarning` is issued once for each line.

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
    said = (message, frame.f_code.co_filename, frame.f_lineno)
    once = issubclass(category, GuessWarning)
    if once and said in _SAID:
        return
    warnings.warn(message, category, stacklevel=level)
    if once:
        _SAID.add(said)  # only now: where warnings are errors, each call raises


def check_settings(
    settings: object,
    checks: Mapping[str, bool],
    *,
    what: str,
    where: str,
    expected: str,
    remedy: str | None = None,
) -> None:
    """Raise an error that names the first bad field of a settings class, if there is one.

    Parameters
    ----------
    settings
        Holds the fields.
    checks
        For each field by name, whether it is good.
    what
        What the settings are of, as the subject of the sentence.
    where, expected, remedy
        As for `XappaError`.

    Raises
    ------
    ArgumentError
        If a field is bad.
    """
    for name, good in checks.items():
        if not good:
            raise ArgumentError(
                f"{what} has a bad {name}",
                where=where,
                expected=expected,
                got=f"{name}={getattr(settings, name)!r}",
                remedy=remedy,
            )


def raise_all(errors: Sequence[XappaError], message: str) -> None:
    """Raise nothing, the only error, or a group that lists all errors.

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
    XappaErrors
        If there are several: an ``ExceptionGroup`` whose message lists each of them.
    """
    flat = list(_leaves(errors))
    if len(flat) == 1:
        raise flat[0]
    if flat:
        raise XappaErrors(message, flat)
