"""What one look at the table is good for: until when, and what makes it doubtful."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.action import ActionType
from scheduler.runtime.foresight import Foresight
from tests.support.outlooks import outlook

THERE = datetime(2026, 3, 2, 12, tzinfo=UTC)
# This machine's clock is an hour ahead.
HERE = THERE + timedelta(hours=1)
MOST = 3
TIMEOUT, SEND = ActionType.TIMEOUT, ActionType.SEND


class Stopwatch:
    """Seconds that pass when they are told to."""

    now = 0.0

    def read(self) -> float:
        """The seconds so far."""
        return self.now


def there(second: float) -> datetime:
    return THERE + timedelta(seconds=second)


def here(second: float) -> datetime:
    return HERE + timedelta(seconds=second)


def foresight(
    timeouts: Iterable[float] = (),
    sends: Iterable[float] = (),
    types: Iterable[ActionType] = (TIMEOUT, SEND),
    stopwatch: Stopwatch | None = None,
) -> Foresight:
    """After a look that has seen these, in seconds from then."""
    one = Foresight(list(types), timedelta(seconds=1), (stopwatch or Stopwatch()).read)
    one.begin()
    seen = [[there(second) for second in seconds] for seconds in (timeouts, sends)]
    one.saw(outlook(THERE, seen[0], seen[1], most=MOST), HERE)
    return one


def test_before_the_first_look_nothing_is_known() -> None:
    assert not Foresight([TIMEOUT], timedelta(seconds=1)).holds(HERE)


def test_what_was_seen_is_told_by_this_machines_clock() -> None:
    one = foresight(timeouts=[0.25, 0.5], sends=[0.75])

    assert one.holds(here(0.1))
    assert (one.next_of(TIMEOUT), one.next_of(SEND)) == (here(0.25), here(0.75))


def test_it_holds_while_all_that_came_was_taken() -> None:
    one = foresight(timeouts=[0.25, 0.5])
    one.took(TIMEOUT, [there(0.25)])

    assert one.holds(here(0.3))
    assert one.next_of(TIMEOUT) == here(0.5)


def test_something_that_came_and_was_not_taken_is_a_reason_to_look() -> None:
    one = foresight(timeouts=[0.25, 0.5])
    one.took(TIMEOUT, [there(0.1)])

    assert not one.holds(here(0.25))


def test_two_that_are_due_at_the_same_instant_are_two() -> None:
    one = foresight(timeouts=[0.25, 0.25])
    one.took(TIMEOUT, [there(0.25)])

    assert not one.holds(here(0.3))


def test_behind_the_last_that_was_read_there_may_be_more() -> None:
    cut, whole = foresight(timeouts=[0.1, 0.2, 0.3]), foresight(timeouts=[0.1, 0.2])
    cut.took(TIMEOUT, [there(0.1), there(0.2)])
    assert cut.holds(here(0.25))
    cut.took(TIMEOUT, [there(0.3)])
    whole.took(TIMEOUT, [there(0.1), there(0.2)])

    assert not cut.holds(here(0.3))
    assert whole.holds(here(0.3))
    assert whole.next_of(TIMEOUT) is None


def test_it_holds_for_as_long_as_said_however_much_is_taken() -> None:
    stopwatch = Stopwatch()
    one = foresight(timeouts=[0.25, 5.0], stopwatch=stopwatch)
    stopwatch.now = 0.75
    one.took(TIMEOUT, [there(0.25)])
    assert one.holds(here(0.75))
    assert one.remaining() == timedelta(seconds=0.25)

    stopwatch.now = 1.0
    assert not one.holds(here(1))
    stopwatch.now = 3.0
    assert one.remaining() == timedelta(0)


def test_something_new_is_a_reason_to_look_and_a_look_settles_it() -> None:
    one = foresight(timeouts=[0.25])
    one.doubt()
    assert not one.holds(here(0.1))

    one.begin()
    one.saw(outlook(THERE, [there(0.5)], [], most=MOST), HERE)

    assert one.holds(here(0.1))


def test_what_became_new_during_a_look_may_not_have_been_seen() -> None:
    one = Foresight([TIMEOUT], timedelta(seconds=1), Stopwatch().read)
    one.begin()
    one.doubt()
    one.saw(outlook(THERE, [there(0.5)], [], most=MOST), HERE)

    assert not one.holds(here(0.1))


def test_a_look_that_failed_leaves_nothing_known() -> None:
    one = foresight(timeouts=[0.25])
    one.begin()

    assert not one.holds(here(0.1))


def test_what_nobody_here_fires_is_nobodys_concern() -> None:
    """Overdue mails that an application sends by itself."""
    one = foresight(timeouts=[0.25], sends=[-60.0], types=[TIMEOUT])

    assert one.holds(here(0.1))


def test_it_is_as_old_as_the_question_not_as_the_answer() -> None:
    """What was committed while the answer was on its way needn't be in it."""
    stopwatch = Stopwatch()
    one = Foresight([TIMEOUT], timedelta(seconds=1), stopwatch.read)
    one.begin()
    stopwatch.now = 0.75
    one.saw(outlook(THERE, [there(0.5)], [], most=MOST), HERE)

    assert one.remaining() == timedelta(seconds=0.25)


def test_what_is_taken_in_between_is_not_hoarded() -> None:
    """A loop that goes from claim to claim doesn't ask for a while."""
    one = foresight(timeouts=[0.25, 0.5])
    tracemalloc.start()
    for _ in range(2_000):
        one.took(TIMEOUT, [there(0.1) for _ in range(10)])
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size < 100_000
    assert one.next_of(TIMEOUT) == here(0.25)


@given(
    seen=st.lists(st.integers(0, 9), max_size=8).map(sorted),
    claims=st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=4),
    at=st.integers(0, 9),
)
def test_it_holds_only_if_nothing_seen_was_missed(seen: list[int], claims: list[list[int]], at: int) -> None:
    one = Foresight([TIMEOUT], timedelta(seconds=1), Stopwatch().read)
    one.begin()
    one.saw(outlook(THERE, [there(second) for second in seen], [], most=9), HERE)
    for claim in claims:
        one.took(TIMEOUT, [there(second) for second in claim])
    left = sorted((Counter(seen) - Counter(second for claim in claims for second in claim)).elements())

    assert one.holds(here(at)) == all(second > at for second in left)
    assert one.next_of(TIMEOUT) == (here(left[0]) if left else None)
