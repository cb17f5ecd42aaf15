"""The trajectory of a task: the Dataset's times, and the states around that observations need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xappa.bridge import Layout
from xappa.cf import convert_calendar
from xappa.diffusion.noise import member_keys
from xappa.errors import CoordinateError, MembersError, TimeStepError
from xappa.models.base import Model, Prior
from xappa.observe import ObservationSpec

__all__ = ["Window", "member_numbers"]

DEFAULT_MEMBERS = 16
#: Added to the number of a member for each further copy of it; more than any label.
_COPY = 2**32


@dataclass(frozen=True, eq=False)
class Window:
    """A regular trajectory of T states, of which the Dataset holds some consecutive ones.

    Parameters
    ----------
    seconds
        Valid times of the T states, shape (T,), in the model's calendar.
    first
        Index of the Dataset's first state.
    size
        Number of the Dataset's states.
    has_time
        Whether the Dataset has a time at all.
    """

    seconds: np.ndarray
    first: int
    size: int
    has_time: bool

    @property
    def inside(self) -> slice:
        """The Dataset's states."""
        return slice(self.first, self.first + self.size)

    @property
    def operator_times(self) -> np.ndarray | None:
        """Times as the observation operator wants them."""
        return self.seconds if self.has_time else None

    @classmethod
    def of(cls, layout: Layout, model: Prior, specs: Sequence[ObservationSpec] = ()) -> Window:
        """Return the window of a Dataset, extended to observations up to one blanket outside it.

        Raises
        ------
        CoordinateError
            If the model knows time and the Dataset has none.
        """
        if layout.times is None:
            if model.spec.time_step is not None:
                raise CoordinateError(
                    "the Dataset has no time, but the model's states follow each other in time",
                    where="time",
                    expected="a coordinate with standard_name 'time' (a scalar will do)",
                    remedy="ds.assign_coords(time=...), or start from model.template(start, stop)",
                )
            return cls(np.zeros(1), 0, 1, has_time=False)
        times = in_calendar(layout, model)
        step = model.spec.time_step
        if step is None:
            return cls(times, 0, len(times), has_time=True)
        before = after = 0
        for spec in specs:
            span = spec.span[np.isfinite(spec.span).all(axis=1)]
            early = np.ceil((times[0] - span[:, 0]) / step - 1e-6)
            late = np.ceil((span[:, 1] - times[-1]) / step - 1e-6)
            before = max(before, int(early[early <= model.blanket].max(initial=0)))
            after = max(after, int(late[late <= model.blanket].max(initial=0)))
        start = times[0] - before * step
        count = before + len(times) + after
        return cls(start + step * np.arange(count), before, len(times), has_time=True)


def in_calendar(layout: Layout, model: Model) -> np.ndarray:
    """Return a Dataset's times in the model's calendar, shape (T,), seconds."""
    if layout.times is None:
        return np.zeros(1)
    times = convert_calendar(layout.times, layout.calendar, model.spec.calendar)
    if not np.isfinite(times).all():
        raise TimeStepError(
            "some dates of the Dataset do not exist in the model's calendar",
            where="time",
            expected=model.spec.calendar,
            got=layout.calendar,
            remedy="ds.convert_calendar(...) to the model's calendar",
        )
    return times


def member_numbers(members: int | None, layout: Layout, *, multiple: bool = False) -> list[int]:
    """Return the numbers that key the random streams of members.

    A new ensemble's are 0 to members - 1; those of a Dataset's own members are their labels
    (`xappa.diffusion.noise.member_keys`), and each further copy of them has its own.

    Parameters
    ----------
    members
        The argument of the task; None for the Dataset's own number, or 16.
    layout
        The Dataset's layout.
    multiple
        Whether a multiple of the Dataset's members is allowed.

    Raises
    ------
    MembersError
        If the number is not a positive integer, or not that of the Dataset's own members.
    """
    own = layout.member_size
    if members is None:
        members = own or DEFAULT_MEMBERS
    if isinstance(members, bool) or not isinstance(members, (int, np.integer)) or members < 1:
        raise MembersError(
            "the number of members must be a positive integer",
            where="members=",
            expected="1 or more",
            got=members,
        )
    if own is not None and members != own and not (multiple and members % own == 0):
        raise MembersError(
            "the Dataset has members of its own, and another number was asked for",
            where=f"members= (dimension {layout.roles.member!r})",
            expected=f"{own}" + (f" or a multiple of {own}" if multiple else ""),
            got=members,
            remedy="leave members= out, or select one member of the Dataset first",
        )
    if own is None:
        return list(range(int(members)))
    labels = layout.template.coords.get(layout.roles.member)
    keys = member_keys(None if labels is None else labels.values, own)
    return [keys[k % own] + (k // own) * _COPY for k in range(int(members))]
