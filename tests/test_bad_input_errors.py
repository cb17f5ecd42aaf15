"""Errors that come together, and guesses that are told once."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest

from xappa.errors import (
    DataError,
    ErrorCovarianceError,
    GuessWarning,
    UnitsError,
    XappaError,
    XappaErrors,
    XappaWarning,
    forget_warnings,
    raise_all,
    warn,
)


@pytest.fixture
def several() -> XappaErrors:
    first = UnitsError("metres", where="t2m", remedy="convert them")
    second = DataError("too few", got=3)
    with pytest.raises(XappaErrors) as caught:
        raise_all([first, second], "two problems")
    return caught.value


def test_several_errors_are_caught_as_ours_and_as_a_group(several) -> None:
    assert isinstance(several, XappaError)
    assert isinstance(several, ExceptionGroup)
    assert several.what == "two problems"
    assert [type(error) for error in several.exceptions] == [UnitsError, DataError]
    listed = "two problems\n- metres\n  where: t2m\n  remedy: convert them\n- too few\n  got: 3"
    assert several.message == listed
    assert str(several).startswith(listed)


def test_except_star_takes_its_share(several) -> None:
    taken: list[str] = []

    def take_units() -> None:
        try:
            raise several
        except* UnitsError as units:
            taken.extend(error.what for error in units.exceptions)

    with pytest.raises(XappaErrors, match=r"two problems\n- too few\n  got: 3") as rest:
        take_units()
    assert taken == ["metres"]
    assert [error.what for error in rest.value.exceptions] == ["too few"]
    assert "metres" not in str(rest.value)


def test_the_whole_group_is_one_of_our_errors_for_except_star(several) -> None:
    taken: list[str] = []
    try:
        raise several
    except* XappaError as group:
        taken += [str(error) for error in group.exceptions]
    assert len(taken) == 2


@pytest.mark.parametrize("through", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_groups_survive_pickling(several, through) -> None:
    again = through(several)
    assert type(again) is XappaErrors
    assert str(again) == str(several)
    assert [str(error) for error in again.exceptions] == [str(e) for e in several.exceptions]


def test_groups_in_groups_are_flat(several) -> None:
    with pytest.raises(XappaErrors, match=r"all[\s\S]*- metres[\s\S]*- no error") as caught:
        raise_all([several, ErrorCovarianceError("no error")], "all")
    kinds = [type(error) for error in caught.value.exceptions]
    assert kinds == [UnitsError, DataError, ErrorCovarianceError]
    with pytest.raises(UnitsError, match="metres"):
        raise_all([XappaErrors("one", [several.exceptions[0]])], "only one")


def _said(count: int, category: type[XappaWarning]) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(count):
            warn("t2m: taken for K", category)
    return [str(warning.message) for warning in said]


def test_a_loop_tells_a_guess_once() -> None:
    # The filter "always" is what libraries leave behind when they reset Python's own memory.
    assert _said(3, GuessWarning) == ["t2m: taken for K"]
    assert _said(3, GuessWarning) == []
    forget_warnings()
    assert _said(1, GuessWarning) == ["t2m: taken for K"]
    with pytest.warns(GuessWarning, match="taken for K"):
        warn("t2m: taken for K", GuessWarning)  # another line
    assert _said(3, XappaWarning) == ["t2m: taken for K"] * 3


def test_guesses_that_are_errors_are_raised_each_time() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(GuessWarning, match="a guess"):
                warn("a guess", GuessWarning)
