"""When to look for who has no backlog beside others' backlog. Seconds after noon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.runtime.newcomers import Newcomers

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = 60.0
REST = 0.05


def second(number: float) -> datetime:
    return NOON + timedelta(seconds=number)


class Stage:
    """Looks and searches; this machine's clock is `ahead` of the one that looks read."""

    def __init__(self, ahead: float = 0) -> None:
        self.newcomers = Newcomers(timedelta(seconds=MINUTE))
        self._ahead = timedelta(seconds=ahead)

    def saw(self, later: float | None, at: float) -> None:
        """A look at `at` saw this as the first to come."""
        self.newcomers.saw(second(at), None if later is None else second(later), self._ahead)

    def search(self, at: float) -> None:
        """A search, right now."""
        self.newcomers.search(second(at) + self._ahead)

    def due_in(self, at: float) -> float:
        """Seconds."""
        return self.newcomers.due_in(second(at) + self._ahead).total_seconds()

    def is_due(self, at: float) -> bool:
        """After the last look."""
        return self.newcomers.is_due(second(at) + self._ahead)

    def have_come(self, at: float) -> bool:
        """As far as is known without a look."""
        return self.newcomers.have_come(second(at) + self._ahead)


@pytest.fixture(params=[0, 100, -100], ids=["in step", "ahead", "behind"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """Searched at noon, after a look that saw something in ten seconds."""
    stage = Stage(request.param)
    stage.saw(10, at=0)
    stage.search(0)
    return stage


def test_who_has_never_looked_nor_searched_searches_at_once() -> None:
    stage = Stage()

    assert (stage.have_come(0), stage.is_due(0), stage.due_in(0)) == (True, True, 0)


def test_the_next_search_is_at_the_first_instant_that_was_seen_ahead(stage: Stage) -> None:
    assert [stage.due_in(number) for number in (1, 9)] == [9, 1]
    assert [stage.have_come(number) for number in (9, 10)] == [False, True]

    stage.saw(20, at=10)
    assert stage.is_due(10)


def test_a_turn_a_hair_early_looks_again_and_doesnt_search(stage: Stage) -> None:
    """By this machine it is time, and the look says that it isn't yet."""
    stage.saw(10, at=9.999)

    assert not stage.is_due(10.001)
    assert stage.due_in(10.001) == 0.001


def test_nothing_ahead_is_searched_for_once_in_a_while_all_the_same() -> None:
    stage = Stage()
    stage.saw(None, at=0)
    stage.search(0)

    assert (stage.due_in(5), stage.have_come(5)) == (MINUTE - 5, False)
    assert [stage.is_due(number) for number in (MINUTE - 1, MINUTE)] == [False, True]


def test_what_has_come_isnt_forgotten_by_a_look_that_sees_the_next(stage: Stage) -> None:
    """Until it was searched for; then the next search is for the next."""
    stage.saw(20, at=11)
    stage.saw(20, at=12)
    assert (stage.is_due(12), stage.due_in(12)) == (True, 0)

    stage.search(12)
    assert (stage.is_due(13), stage.due_in(13)) == (False, 7)


def test_a_look_before_anything_has_come_says_what_is_ahead_now(stage: Stage) -> None:
    stage.saw(4, at=2)

    assert stage.due_in(3) == 1


def test_after_a_search_whose_look_is_older_than_what_it_saw_nobody_knows(stage: Stage) -> None:
    stage.search(12)

    assert stage.is_due(13)


def test_something_new_may_be_due_until_somebody_is_asked(stage: Stage) -> None:
    stage.newcomers.doubt()
    assert (stage.due_in(1), stage.is_due(1), stage.have_come(1)) == (0, True, False)

    stage.search(1)
    assert (stage.due_in(2), stage.is_due(2)) == (8, False)


@pytest.mark.parametrize(("at", "wait"), [(0, REST), (0.02, 0.03), (REST, 0), (1, 0), (-60, 0)])
def test_searches_are_some_time_apart_but_not_if_the_clock_was_set_back(stage: Stage, at: float, wait: float) -> None:
    stage.newcomers.doubt()

    assert stage.due_in(at) == pytest.approx(wait)
    assert stage.is_due(at) == (not wait)


def test_what_comes_at_once_after_a_search_waits_for_its_rest() -> None:
    stage = Stage()
    stage.saw(0.01, at=0)
    stage.search(0)

    assert stage.due_in(0) == pytest.approx(REST)
    assert [stage.have_come(number) for number in (0.02, 0.05)] == [False, True]
