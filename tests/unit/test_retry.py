from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.retry import retry_delay

BASE = timedelta(seconds=2)
LONGEST = timedelta(minutes=10)


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 2), (2, 4), (3, 8), (9, 512), (10, 600), (41, 600), (10_000_000, 600)]
)
def test_the_delay_doubles_up_to_the_longest(attempts: int, seconds: int) -> None:
    assert retry_delay(attempts, BASE, LONGEST, 0) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("jitter", "seconds"), [(0, 4), (0.5, 3.5), (1, 3)])
def test_jitter_takes_up_to_a_quarter_off(jitter: float, seconds: float) -> None:
    assert retry_delay(2, BASE, LONGEST, jitter) == timedelta(seconds=seconds)


def test_the_longest_holds_for_the_first_attempt_too() -> None:
    assert retry_delay(1, LONGEST, BASE, 0) == BASE


def test_no_base_is_no_delay() -> None:
    assert retry_delay(5, timedelta(0), LONGEST, 0) == timedelta(0)


@given(
    st.integers(-5, 10_000),
    st.timedeltas(timedelta(microseconds=1), timedelta(days=36_525)),
    st.timedeltas(timedelta(microseconds=1), timedelta(days=36_525)),
    st.floats(0, 1),
)
def test_the_delay_never_shrinks_with_attempts_nor_leaves_its_bounds(
    attempts: int, base: timedelta, longest: timedelta, jitter: float
) -> None:
    delay = retry_delay(attempts, base, longest, jitter)
    assert timedelta(0) <= delay <= longest
    assert retry_delay(attempts + 1, base, longest, jitter) >= delay
