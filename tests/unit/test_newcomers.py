"""When to look for who has no backlog beside others' backlog. Seconds after noon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.runtime.newcomers import Newcomers

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
REST = 0.05


def second(number: float) -> datetime:
    return NOON + timedelta(seconds=number)


def due_in(newcomers: Newcomers, number: float) -> float | None:
    wait = newcomers.due_in(second(number))
    return None if wait is None else wait.total_seconds()


@pytest.fixture
def newcomers() -> Newcomers:
    """Searched at noon, after a look that saw something in ten seconds."""
    newcomers = Newcomers()
    newcomers.saw(second(10), second(0))
    newcomers.search(second(0))
    return newcomers


def test_who_has_never_looked_nor_searched_searches_at_once() -> None:
    assert Newcomers().have_come(second(0))
    assert due_in(Newcomers(), 0) == 0


def test_the_next_search_is_at_the_first_instant_that_was_seen_ahead(newcomers: Newcomers) -> None:
    assert [due_in(newcomers, number) for number in (1, 9, 10, 11)] == [9, 1, 0, 0]
    assert [newcomers.have_come(second(number)) for number in (9, 10)] == [False, True]


def test_nothing_ahead_is_nothing_to_search_for() -> None:
    newcomers = Newcomers()
    newcomers.saw(None, second(0))
    newcomers.search(second(0))

    assert due_in(newcomers, 5) is None
    assert not newcomers.have_come(second(5))


def test_what_has_come_isnt_forgotten_by_a_look_that_sees_the_next(newcomers: Newcomers) -> None:
    """Until it was searched for; then the next search is for the next."""
    newcomers.saw(second(20), second(11))
    assert due_in(newcomers, 11) == 0

    newcomers.search(second(11))
    assert due_in(newcomers, 11) == 9


def test_a_look_before_anything_has_come_says_what_is_ahead_now(newcomers: Newcomers) -> None:
    newcomers.saw(second(4), second(2))

    assert due_in(newcomers, 3) == 1


def test_after_a_search_whose_look_is_older_than_what_it_saw_nobody_knows(newcomers: Newcomers) -> None:
    newcomers.search(second(12))

    assert due_in(newcomers, 13) == 0


def test_something_new_may_be_due_until_somebody_is_asked(newcomers: Newcomers) -> None:
    newcomers.doubt()
    assert (due_in(newcomers, 1), newcomers.have_come(second(1))) == (0, False)

    newcomers.everybody_is_asked(second(1))
    assert due_in(newcomers, 2) == 8


@pytest.mark.parametrize(("at", "wait"), [(0, REST), (0.02, 0.03), (1, 0), (-60, REST)])
def test_searches_are_some_time_apart_but_no_longer_if_the_clock_is_set_back(
    newcomers: Newcomers, at: float, wait: float
) -> None:
    newcomers.doubt()

    assert due_in(newcomers, at) == pytest.approx(wait)


def test_what_comes_at_once_after_a_search_waits_for_its_rest() -> None:
    newcomers = Newcomers()
    newcomers.saw(second(0.01), second(0))
    newcomers.search(second(0))

    assert due_in(newcomers, 0.02) == pytest.approx(0.03)
    assert [newcomers.have_come(second(number)) for number in (0.02, 0.05)] == [False, True]
