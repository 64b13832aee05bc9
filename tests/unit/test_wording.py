from datetime import UTC, datetime, timedelta, timezone

import pytest

from scheduler.domain.explaining.wording import duration_text, instant_text, list_text, span_text
from scheduler.domain.timing import parse_duration


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (datetime(2026, 3, 2, 12, tzinfo=UTC), "2026-03-02 12:00"),
        (datetime(2026, 3, 2, 12, 0, 5, tzinfo=UTC), "2026-03-02 12:00:05"),
        (datetime(2026, 3, 2, 12, tzinfo=timezone(timedelta(hours=2))), "2026-03-02 10:00"),
    ],
)
def test_an_instant_is_told_in_utc_with_seconds_where_it_has_any(instant: datetime, text: str) -> None:
    assert instant_text(instant) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        ("PT72H", "72 h"),
        ("P3D", "72 h"),
        ("P14D", "14 d"),
        ("PT90M", "1 h 30 min"),
        ("P5DT1H2M3S", "5 d 1 h 2 min 3 s"),
        ("PT0S", "0 h"),
        ("P1M", "P1M"),
    ],
)
def test_a_plans_duration_is_told_exactly(duration: str, text: str) -> None:
    assert duration_text(parse_duration("duration", duration)) == text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(microseconds=5), "1 ms"),
        (timedelta(milliseconds=20), "20 ms"),
        (timedelta(seconds=3), "3 s"),
        (timedelta(days=3, hours=2, minutes=9), "3 d 2 h"),
        (timedelta(hours=-2), "2 h"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(span: timedelta, text: str) -> None:
    assert span_text(span) == text


def test_a_list_is_told_as_people_do() -> None:
    assert [list_text(["a"]), list_text(["a", "b"]), list_text(["a", "b", "c"], "or")] == ["a", "a and b", "a, b or c"]
