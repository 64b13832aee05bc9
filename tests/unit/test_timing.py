import contextlib
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain import timing
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.timing import (
    Duration,
    QuietHours,
    SystemClock,
    parse_duration,
    parse_instant,
    parse_quiet_hours,
    parse_zone,
    require_aware,
)
from tests.strategies import ZONE_NAMES, durations, instants, quiet_hours, zones

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
LOS_ANGELES = ZoneInfo("America/Los_Angeles")
APIA = ZoneInfo("Pacific/Apia")
NIGHT = QuietHours(time(21), time(7, 30))


def local(zone: tzinfo, *parts: int, fold: int = 0) -> datetime:
    """The instant of that local time, in UTC."""
    year, month, day, hour, minute = parts
    return datetime(year, month, day, hour, minute, tzinfo=zone, fold=fold).astimezone(UTC)


def test_the_system_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


def test_an_aware_datetime_is_converted_to_utc() -> None:
    converted = require_aware("at", NOON.astimezone(BERLIN))
    assert converted == NOON
    assert converted.tzinfo is UTC


@pytest.mark.parametrize(
    "value",
    [
        NOON.replace(tzinfo=None),
        NOON.replace(year=1),
        NOON.replace(year=9999),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
        datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        NOON.date(),
        1772452800,
        "2026-03-02T12:00:00Z",
        None,
    ],
)
def test_anything_but_an_aware_datetime_of_our_times_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        require_aware("scheduled_at", value)
    assert caught.value.field == "scheduled_at"


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-02T12:00:00Z",
        "2026-03-02T13:00:00+01:00",
        "2026-03-02 04:00-08:00",
        "20260302T120000Z",
        NOON.astimezone(BERLIN),
    ],
)
def test_text_with_an_offset_is_an_instant(value: object) -> None:
    assert parse_instant("at", value) == NOON


@pytest.mark.parametrize(
    "value",
    [
        "",
        "now",
        "2026-03-02",
        "2026-03-02T12:00:00",
        "2026-03-02T12:00:00 01:00",
        "0001-01-01T00:00+01:00",
        5,
        True,
    ],
)
def test_text_without_an_offset_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^at: "):
        parse_instant("at", value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PT0S", Duration()),
        ("P0D", Duration()),
        ("PT72H", Duration(exact=timedelta(hours=72))),
        ("P1W", Duration(exact=timedelta(days=7))),
        ("P1.5W", Duration(exact=timedelta(days=10, hours=12))),
        ("P1DT12H", Duration(exact=timedelta(hours=36))),
        ("PT0.5H", Duration(exact=timedelta(minutes=30))),
        ("PT1,5S", Duration(exact=timedelta(seconds=1.5))),
        ("P1M", Duration(months=1)),
        ("P1Y2M3DT4M", Duration(months=14, exact=timedelta(days=3, minutes=4))),
        ("P100Y", Duration(months=1200)),
        (timedelta(hours=1), Duration(exact=timedelta(hours=1))),
        (Duration(months=3), Duration(months=3)),
    ],
)
def test_a_duration_is_read(text: object, expected: Duration) -> None:
    assert expected == parse_duration("after", text)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("-PT1S", "negative"),
        (timedelta(seconds=-1), "negative"),
        (Duration(months=-1), "negative"),
        ("P", "empty"),
        ("PT", "empty"),
        ("P1.5M", "fractions"),
        ("P0.5Y", "fractions"),
        ("pt5s", "capitals"),
        ("P101Y", "100 years"),
        ("P100Y1D", "100 years"),
        ("P36526D", "100 years"),
        ("P99999999999999999D", "100 years"),
        ("P99999999999Y", "100 years"),
        (timedelta.max, "100 years"),
        ("", "ISO-8601"),
        ("72h", "ISO-8601"),
        ("72", "ISO-8601"),
        ("P1DT", "ISO-8601"),
        ("+P1D", "ISO-8601"),
        ("PT5S\n", "ISO-8601"),
        (" PT5S", "ISO-8601"),
        ("PT1S1M", "ISO-8601"),
        ("PT٣S", "ISO-8601"),
        ("P0003-01-02T00:00:00", "ISO-8601"),
        ("PT" + "1" * 100 + "S", "ISO-8601"),
        (72, "ISO-8601"),
        (None, "ISO-8601"),
        (True, "ISO-8601"),
        ({}, "ISO-8601"),
    ],
)
def test_a_bad_duration_is_refused_and_told_why(value: object, remedy: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_duration("$.nodes[0].after", value)
    assert caught.value.field == "$.nodes[0].after"
    assert remedy in caught.value.remedy


def test_a_day_is_24_hours_also_when_the_clocks_change() -> None:
    before_change = local(BERLIN, 2026, 3, 28, 12, 0)
    assert Duration(exact=timedelta(days=1)).add_to(before_change, BERLIN) == local(BERLIN, 2026, 3, 29, 13, 0)


@pytest.mark.parametrize(
    ("start", "months", "expected"),
    [
        (local(BERLIN, 2026, 1, 31, 9, 0), 1, local(BERLIN, 2026, 2, 28, 9, 0)),
        (local(BERLIN, 2024, 1, 31, 9, 0), 1, local(BERLIN, 2024, 2, 29, 9, 0)),
        (local(BERLIN, 2024, 2, 29, 9, 0), 12, local(BERLIN, 2025, 2, 28, 9, 0)),
        (local(BERLIN, 2026, 11, 30, 9, 0), 1, local(BERLIN, 2026, 12, 30, 9, 0)),
        (local(BERLIN, 2026, 12, 15, 9, 0), 25, local(BERLIN, 2029, 1, 15, 9, 0)),
        # The local hour stays through a clock change.
        (local(BERLIN, 2026, 3, 2, 9, 0), 1, local(BERLIN, 2026, 4, 2, 9, 0)),
    ],
)
def test_a_month_is_a_step_of_the_local_calendar(start: datetime, months: int, expected: datetime) -> None:
    assert expected == Duration(months=months).add_to(start, BERLIN)


def test_a_month_that_ends_in_a_gap_moves_forward() -> None:
    start = local(BERLIN, 2026, 2, 28, 2, 30)
    assert Duration(months=1).add_to(start, BERLIN) == local(BERLIN, 2026, 3, 28, 2, 30)
    assert Duration(months=1).add_to(local(BERLIN, 2026, 3, 1, 2, 30), BERLIN) == local(BERLIN, 2026, 4, 1, 2, 30)
    into_the_gap = Duration(months=2).add_to(local(BERLIN, 2026, 1, 29, 2, 30), BERLIN)
    assert into_the_gap == local(BERLIN, 2026, 3, 29, 3, 30)


def test_a_month_that_ends_in_a_fold_takes_the_first_occurrence() -> None:
    start = local(BERLIN, 2026, 9, 25, 2, 30)
    assert Duration(months=1).add_to(start, BERLIN) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_months_come_before_the_exact_part() -> None:
    duration = Duration(months=1, exact=timedelta(days=1))
    assert duration.add_to(local(BERLIN, 2026, 1, 31, 9, 0), BERLIN) == local(BERLIN, 2026, 3, 1, 9, 0)


@settings(deadline=None)
@given(durations())
def test_the_text_of_a_duration_reads_back_as_the_same(duration: Duration) -> None:
    assert duration == parse_duration("after", duration.isoformat())


@settings(deadline=None)
@given(durations(), instants(), zones())
def test_adding_is_in_utc_and_never_goes_back(duration: Duration, instant: datetime, zone: ZoneInfo) -> None:
    later = duration.add_to(instant, zone)
    assert later >= instant
    assert later.tzinfo is UTC
    assert (later == instant) == duration.is_zero


@settings(deadline=None)
@given(st.timedeltas(timedelta(0), timedelta(days=5000)), instants(), zones(), zones())
def test_an_exact_duration_knows_no_zone(
    exact: timedelta, instant: datetime, zone: ZoneInfo, instants_zone: ZoneInfo
) -> None:
    assert Duration(exact=exact).add_to(instant.astimezone(instants_zone), zone) == instant + exact


@settings(deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_an_input_error(text: str) -> None:
    with contextlib.suppress(InvalidInputError):
        assert parse_duration("after", text).exact >= timedelta(0)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+12"])
def test_an_iana_name_is_a_zone(name: str) -> None:
    assert name == parse_zone("timezone", name).key


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "Mars/Base",
        "../UTC",
        "/etc/localtime",
        "Europe",
        "Europe/",
        "Europe//Berlin",
        "localtime",
        "posixrules",
        "Factory",
        "right/UTC",
        "posix/UTC",
        "zone.tab",
        "U\x00TC",
        "Europe/Berlín",
        "\ud800",
        "A" * 5000,
        None,
        2,
    ],
)
def test_anything_but_an_iana_zone_is_refused(name: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^timezone: .*such as Europe/Berlin"):
        parse_zone("timezone", name)


def test_a_close_zone_is_suggested() -> None:
    with pytest.raises(InvalidInputError, match="did you mean Europe/Berlin"):
        parse_zone("timezone", "europe/berlin")


def test_a_machine_without_zone_data_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "available_timezones", frozenset)
    with pytest.raises(InvalidInputError, match="pip install tzdata"):
        parse_zone("timezone", "Not/Here")


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ((2026, 6, 1, 20, 59), (2026, 6, 1, 20, 59)),
        ((2026, 6, 1, 21, 0), (2026, 6, 2, 7, 30)),
        ((2026, 6, 1, 22, 30), (2026, 6, 2, 7, 30)),
        ((2026, 6, 2, 0, 0), (2026, 6, 2, 7, 30)),
        ((2026, 6, 2, 7, 29), (2026, 6, 2, 7, 30)),
        ((2026, 6, 2, 7, 30), (2026, 6, 2, 7, 30)),
    ],
)
def test_quiet_hours_are_half_open_and_cross_midnight_west_of_utc(
    asked: tuple[int, ...], allowed: tuple[int, ...]
) -> None:
    assert NIGHT.next_allowed(local(LOS_ANGELES, *asked), LOS_ANGELES) == local(LOS_ANGELES, *allowed)


def test_a_window_within_one_day_ends_the_same_day() -> None:
    lunch = QuietHours(time(12), time(13, 30))
    assert lunch.next_allowed(local(BERLIN, 2026, 6, 1, 12, 0), BERLIN) == local(BERLIN, 2026, 6, 1, 13, 30)
    assert lunch.next_allowed(local(BERLIN, 2026, 6, 1, 11, 59), BERLIN) == local(BERLIN, 2026, 6, 1, 11, 59)


def test_an_end_of_24_00_is_the_next_midnight() -> None:
    evening = parse_quiet_hours("quietHours", {"start": "21:00", "end": "24:00"})
    assert evening.next_allowed(local(BERLIN, 2026, 6, 1, 23, 0), BERLIN) == local(BERLIN, 2026, 6, 2, 0, 0)
    assert evening.next_allowed(local(BERLIN, 2026, 6, 2, 0, 0), BERLIN) == local(BERLIN, 2026, 6, 2, 0, 0)


def test_an_end_in_a_gap_is_the_first_instant_after_it() -> None:
    window = QuietHours(time(22), time(2, 30))
    assert window.next_allowed(local(BERLIN, 2026, 3, 28, 23, 0), BERLIN) == local(BERLIN, 2026, 3, 29, 3, 0)


def test_an_end_in_a_fold_is_its_first_occurrence_that_isnt_past() -> None:
    window = QuietHours(time(22), time(2, 30))
    first, second = (local(BERLIN, 2026, 10, 25, 2, 30, fold=fold) for fold in (0, 1))
    assert first == window.next_allowed(local(BERLIN, 2026, 10, 24, 23, 0), BERLIN)
    assert first == window.next_allowed(first, BERLIN)
    assert second == window.next_allowed(local(BERLIN, 2026, 10, 25, 2, 10, fold=1), BERLIN)


def test_a_skipped_day_is_quiet_until_the_next_end() -> None:
    # Samoa had no 30 December 2011: the night of the 29th ended on the 31st.
    assert NIGHT.next_allowed(local(APIA, 2011, 12, 29, 22, 0), APIA) == local(APIA, 2011, 12, 31, 7, 30)


@settings(deadline=None)
@given(quiet_hours(), instants(), zones())
def test_the_next_allowed_instant_is_never_earlier_and_never_quiet(
    window: QuietHours, instant: datetime, zone: ZoneInfo
) -> None:
    allowed = window.next_allowed(instant, zone)
    assert allowed >= instant
    assert not window.contains(allowed.astimezone(zone).time())
    assert allowed.tzinfo is UTC


@settings(deadline=None)
@given(quiet_hours(), instants(), zones())
def test_an_instant_outside_quiet_hours_stays_and_one_inside_waits_for_the_end(
    window: QuietHours, instant: datetime, zone: ZoneInfo
) -> None:
    allowed = window.next_allowed(instant, zone)
    if not window.contains(instant.astimezone(zone).time()):
        assert allowed == instant
        return
    just_before = (allowed - timedelta(microseconds=1)).astimezone(zone)
    is_end = allowed.astimezone(zone).time() == window.end
    is_after_gap = just_before.utcoffset() != allowed.astimezone(zone).utcoffset()
    assert is_end or is_after_gap
    assert window.contains(just_before.time())


@settings(deadline=None)
@given(quiet_hours(), st.data())
def test_around_a_clock_change_the_next_allowed_instant_isnt_quiet(window: QuietHours, data: st.DataObject) -> None:
    zone = data.draw(zones())
    change = data.draw(st.sampled_from(_changes_of(zone)))
    instant = change + data.draw(st.timedeltas(timedelta(hours=-30), timedelta(hours=30)))
    allowed = window.next_allowed(instant, zone)
    assert allowed >= instant
    assert not window.contains(allowed.astimezone(zone).time())


def test_in_every_zone_nothing_is_allowed_too_early_or_too_late_on_the_days_of_its_clock_changes() -> None:
    """Every IANA zone there is, one after the other: half an hour at a time, from a day before to a day after."""
    for name in ZONE_NAMES:
        zone = ZoneInfo(name)
        days = [*_changes_between(2011, 2012, zone), *_changes_between(2026, 2027, zone)] or [NOON]
        for instant in (day + timedelta(minutes=30) * step for day in days for step in range(-60, 24)):
            allowed = NIGHT.next_allowed(instant, zone)
            assert allowed >= instant, name
            assert not NIGHT.contains(allowed.astimezone(zone).time()), name
            just_before = (allowed - timedelta(microseconds=1)).astimezone(zone).time()
            assert allowed == instant or NIGHT.contains(just_before), name


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"start": "21:00"},
        {"start": "21:00", "end": "21:00"},
        {"start": "00:00", "end": "24:00"},
        {"start": "24:00", "end": "07:00"},
        {"start": "9:00", "end": "10:00"},
        {"start": "09:60", "end": "10:00"},
        {"start": "25:00", "end": "10:00"},
        {"start": "09:00Z", "end": "10:00"},
        {"start": "09:00\n", "end": "10:00"},
        {"start": "21:00", "end": "24:01"},
        {"start": 21, "end": 7},
        {"start": ["24:00"], "end": "07:00"},
        "21:00-07:30",
        None,
    ],
)
def test_bad_quiet_hours_are_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^\$\.quietHours"):
        parse_quiet_hours("$.quietHours", value)


def test_quiet_hours_may_have_seconds() -> None:
    expected = QuietHours(time(21, 0, 5), time(7, 30))
    assert expected == parse_quiet_hours("quietHours", {"start": "21:00:05", "end": "07:30"})


@cache
def _changes_of(zone: ZoneInfo) -> list[datetime]:
    """The days after that zone's clock changes; an ordinary day for a zone without any."""
    return _changes_between(1971, 2031, zone) or [NOON]


def _changes_between(first_year: int, last_year: int, zone: ZoneInfo) -> list[datetime]:
    first, last = datetime(first_year, 1, 1, tzinfo=UTC), datetime(last_year, 1, 1, tzinfo=UTC)
    days = [first + timedelta(days=day) for day in range((last - first).days)]
    offsets = [day.astimezone(zone).utcoffset() for day in days]
    return [days[index] for index in range(1, len(days)) if offsets[index] != offsets[index - 1]]
