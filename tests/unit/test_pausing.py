"""How much of a pause counts, and how a resume is asked for."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler import InvalidInputError
from scheduler.domain.pausing import BUCKETS, HORIZONS, DueCounts, Paused, ResumePolicy, Resumption, counted_length
from tests.support.walk import NOON

HOUR = timedelta(hours=1)
SCOPES = ("campaign", "tenant", "all")
PAUSES = st.fixed_dictionaries(
    {}, optional={scope: st.tuples(st.integers(0, 48), st.integers(1, 48)) for scope in SCOPES}
)


def at(hour: int) -> datetime:
    return NOON + hour * HOUR


def test_a_pause_counts_from_its_start() -> None:
    assert counted_length(at(1), at(0), [], at(4)) == 3 * HOUR


def test_of_a_pause_a_visit_counts_what_it_saw() -> None:
    assert counted_length(at(1), at(3), [], at(4)) == HOUR


def test_what_begins_later_than_now_isnt_moved() -> None:
    assert counted_length(at(1), at(9), [], at(4)) == timedelta(0)


def test_what_another_pause_goes_on_holding_counts_when_that_is_lifted() -> None:
    assert counted_length(at(1), at(0), [at(3)], at(4)) == 2 * HOUR
    assert counted_length(at(3), at(0), [at(1)], at(4)) == timedelta(0)


@given(PAUSES, st.integers(0, 96))
def test_overlapping_pauses_count_once_in_whatever_order_they_end(
    pauses: dict[str, tuple[int, int]], entered: int
) -> None:
    """Lifted one after the other, each as it ends, they move the anchor by the hours that any of them held it."""
    spans = {scope: (begin, begin + length) for scope, (begin, length) in pauses.items()}
    lifted = sorted(spans, key=lambda scope: spans[scope][1])
    anchor = at(entered)
    for place, scope in enumerate(lifted):
        begin, end = spans[scope]
        holding = [at(spans[other][0]) for other in lifted[place + 1 :] if spans[other][0] <= end]
        if entered <= end:
            anchor += counted_length(at(begin), anchor, holding, at(end))

    held = {hour for begin, end in spans.values() for hour in range(begin, end) if hour >= entered}
    assert anchor == at(entered + len(held))


@pytest.mark.parametrize(
    ("field", "policy", "spread"),
    [
        ("policy", "later", None),
        ("policy", None, None),
        ("spread", "shift", "1h"),
        ("spread", "shift", "PT0S"),
        ("spread", "shift", timedelta(0)),
        ("spread", "shift", "P1M"),
        ("spread", "shift", "-PT1H"),
        ("spread", "keep", 3600),
    ],
)
def test_a_resume_that_makes_no_sense_is_refused(field: str, policy: str, spread: str | timedelta | None) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Resumption.of(policy, spread)

    assert caught.value.field == field


def test_a_spread_is_text_or_a_timedelta() -> None:
    assert Resumption.of("keep", "PT1H") == Resumption.of("keep", HOUR) == Resumption(ResumePolicy.KEEP, HOUR)


def test_the_scope_is_how_much_is_named() -> None:
    assert [Paused().scope, Paused("acme").scope, Paused("acme", "c-1").scope] == ["all", "tenant", "campaign"]


def test_counts_have_a_bucket_for_every_horizon_and_one_beyond() -> None:
    assert [*HORIZONS, "later"] == list(BUCKETS)
    assert DueCounts.of({"at_once": 2, "later": 3}).total == 5
