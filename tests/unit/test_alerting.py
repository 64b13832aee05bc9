from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.alerting import MOST_FAILURES, Backlog, BacklogLimits, BacklogWatch, FailureRun, Turn

NOON: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
LIMITS: Final = BacklogLimits(backlog=1000, oldest_due=timedelta(minutes=5))

# Consecutive failures

Batch = tuple[set[str], bool]


def turns_of_failures(batches: Iterable[Batch], threshold: int = 3) -> list[Turn | None]:
    run, turns = FailureRun(), []
    for failed, succeeded in batches:
        run, turn = run.after([("acme", key) for key in failed], threshold, succeeded=succeeded)
        turns.append(turn)
    return turns


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        pytest.param([({"a"}, False), ({"b"}, False)], [None, None], id="too few"),
        pytest.param([({"a"}, False), ({"b", "c"}, False)], [None, "raised"], id="distinct ones add up"),
        pytest.param([({"a"}, False)] * 9, [None] * 9, id="retries of one action count once"),
        pytest.param([({"a", "b"}, False), (set(), True), ({"c", "d"}, False)], [None] * 3, id="a success between"),
        pytest.param([({"a", "b", "c"}, True)], [None], id="a success in the same batch"),
        pytest.param([({"a", "b", "c"}, False), ({"d"}, False)], ["raised", None], id="told once"),
        pytest.param([({"a", "b", "c"}, False), (set(), True)], ["raised", "recovered"], id="and its end"),
        pytest.param([(set(), True), (set(), True)], [None, None], id="nothing to recover from"),
        pytest.param(
            [({"a", "b", "c"}, False), (set(), True)] * 2, ["raised", "recovered"] * 2, id="a second incident"
        ),
    ],
)
def test_failures_in_a_row(batches: list[Batch], expected: list[str | None]) -> None:
    assert turns_of_failures(batches) == expected


def test_memory_of_failures_is_bounded() -> None:
    run = FailureRun()
    for number in range(3):
        keys = [("acme", f"{number}-{place}") for place in range(MOST_FAILURES)]
        run, _ = run.after(keys, 5, succeeded=False)
    assert len(run.keys) <= 2 * MOST_FAILURES


_batches = st.lists(st.tuples(st.sets(st.sampled_from("abcdefgh"), max_size=4), st.booleans()), max_size=30)


@given(_batches, st.integers(1, 6))
def test_an_incident_is_told_once_when_so_many_failed_since_the_last_success(batches: list[Batch], most: int) -> None:
    turns = turns_of_failures(batches, most)
    since: set[str] = set()
    is_raised = False
    for (failed, succeeded), turn in zip(batches, turns, strict=True):
        since = set() if succeeded else since | failed
        expected = None
        if is_raised and succeeded:
            expected = Turn.RECOVERED
        elif not is_raised and len(since) >= most:
            expected = Turn.RAISED
        assert turn == expected
        is_raised = turn == Turn.RAISED or (is_raised and turn is None)


# Backlog: (minutes since noon, due, age of the oldest in minutes)

Look = tuple[float, int, float]


def turns_of_backlog(looks: Iterable[Look], limits: BacklogLimits = LIMITS) -> list[Turn | None]:
    watch, turns = BacklogWatch(), []
    for minute, due, oldest in looks:
        seen = Backlog(NOON + timedelta(minutes=minute), due, timedelta(minutes=oldest))
        watch, turn = watch.after(seen, limits)
        turns.append(turn)
    return turns


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param([(0, 1, 4.9), (1, 1, 5)], [None, "raised"], id="one that is old is enough"),
        pytest.param([(m, 1000, 0) for m in range(20)], [None] * 20, id="as many as may be"),
        pytest.param([(m, 1001, 0) for m in range(7)], [None] * 5 + ["raised", None], id="more, and not shrinking"),
        pytest.param([(m, 2000 + m, 0) for m in range(7)], [None] * 5 + ["raised", None], id="more and more"),
        pytest.param(
            [(m / 4, 50_000 - 2_600 * m, m / 4) for m in range(19)] + [(5, 0, 0)],
            [None] * 20,
            id="a cohort that drains",
        ),
        pytest.param([(m, 50_000 - m, 4) for m in range(20)], [None] * 20, id="shrinking, however slowly, and young"),
        pytest.param(
            [(0, 0, 5), (1, 0, 4.9), (2, 0, 2.5), (3, 0, 2.4)], ["raised", None, None, "recovered"], id="calm"
        ),
        pytest.param([(0, 0, 5), (1, 0, 4.9), (2, 0, 5.1)], ["raised", None, None], id="hovering is one incident"),
        pytest.param([(0, 5_000, 6), (1, 5_000, 0), (2, 1_000, 0)], ["raised", None, "recovered"], id="still many"),
        pytest.param([(0, 2000, 0), (30, 2000, 0), (31, 2000, 0)], [None] * 3, id="nobody looked for long"),
        pytest.param([(0, 0, 6), (1, 0, 0), (2, 0, 6)], ["raised", "recovered", "raised"], id="a second incident"),
    ],
)
def test_backlog(looks: list[Look], expected: list[str | None]) -> None:
    assert turns_of_backlog(looks) == expected


def test_a_second_cohort_within_minutes_is_no_reason_either() -> None:
    first = [(m / 2, 60_000 - 10_000 * m, m / 2) for m in range(4)]
    second = [(2 + m / 2, 80_000 - 10_000 * m, m / 2) for m in range(9)]
    assert set(turns_of_backlog(first + second)) == {None}


def test_looks_that_are_rarer_than_the_limit_is_long_count_all_the_same() -> None:
    limits = BacklogLimits(backlog=10, oldest_due=timedelta(seconds=1))
    assert turns_of_backlog([(0, 20, 0), (0.2, 20, 0)], limits) == [None, "raised"]


_looks = st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 12)), max_size=40)


@given(_looks)
def test_raised_and_recovered_take_turns_and_age_alone_raises(looks: list[tuple[int, float]]) -> None:
    turns = turns_of_backlog([(minute, due, oldest) for minute, (due, oldest) in enumerate(looks)])
    told = [turn for turn in turns if turn is not None]
    assert told == [Turn.RAISED, Turn.RECOVERED] * (len(told) // 2) + [Turn.RAISED] * (len(told) % 2)
    is_raised = False
    for (_, oldest), turn in zip(looks, turns, strict=True):
        is_raised = turn == Turn.RAISED or (is_raised and turn is None)
        assert is_raised or oldest < 5


@given(st.lists(st.integers(1001, 10**9), min_size=1, max_size=30, unique=True))
def test_a_backlog_that_only_shrinks_and_is_young_stays_silent(sizes: list[int]) -> None:
    assert set(turns_of_backlog([(m, due, 1) for m, due in enumerate(sorted(sizes, reverse=True))])) == {None}
