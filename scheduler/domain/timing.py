"""Instants, durations, time zones and quiet hours.

Every instant is an aware UTC `datetime`, every length a `timedelta` or a `Duration`. What comes from outside
is never guessed: a naive datetime or a bad duration is refused with `InvalidInputError`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import isodate

from scheduler.domain.errors import InvalidInputError

EARLIEST_YEAR: Final = 1970
LATEST_YEAR: Final = 2999

# Stricter than isodate, which reads `P1.5M` as one month, and accepts signs and the form `P0003-01-02`.
DURATION_PATTERN: Final = (
    r"P(?=[0-9]|T[0-9])([0-9]+Y)?([0-9]+M)?([0-9]+([.,][0-9]+)?W)?([0-9]+([.,][0-9]+)?D)?"
    r"(T(?=[0-9])([0-9]+([.,][0-9]+)?H)?([0-9]+([.,][0-9]+)?M)?([0-9]+([.,][0-9]+)?S)?)?"
)
WALL_TIME_PATTERN: Final = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?"
LONGEST_DURATION_TEXT: Final = 64
LONGEST_ZONE_NAME: Final = 64

_DURATION = re.compile(DURATION_PATTERN)
_WALL_TIME = re.compile(WALL_TIME_PATTERN)
_ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
# Files some systems have among their zones, but that mean the machine's own zone, no zone, or leap seconds.
_NOT_A_ZONE = re.compile(r"(?:localtime|posixrules|Factory|(?:posix|right)/.*)")
_DURATION_REMEDY: Final = "write an ISO-8601 duration such as PT72H, P3D or PT1.5S"
_LONGEST: Final = timedelta(days=36_525)
_MOST_MONTHS: Final = 1200
_AVERAGE_MONTH: Final = timedelta(days=365.2425) / 12


class Clock(Protocol):
    """Anything that tells the time."""

    def now(self) -> datetime:
        """The present, aware, in UTC."""


class SystemClock:
    """The machine's clock: the only place that asks it."""

    def now(self) -> datetime:
        """The present, in UTC."""
        return datetime.now(UTC)


def require_aware(field: str, value: object) -> datetime:
    """`value` in UTC. Raises `InvalidInputError` unless it is an aware datetime in the years 1970 to 2999."""
    if not isinstance(value, datetime):
        raise InvalidInputError(field, value, "pass an aware datetime, such as datetime.now(UTC)")
    if value.utcoffset() is None:
        raise InvalidInputError(field, value, "it has no time zone; pass one such as datetime.now(UTC)")
    try:
        instant = value.astimezone(UTC)
    except OverflowError:  # within a day of what a datetime can hold
        instant = datetime.max.replace(tzinfo=UTC)
    if not EARLIEST_YEAR <= instant.year <= LATEST_YEAR:
        raise InvalidInputError(field, value, f"its year must be between {EARLIEST_YEAR} and {LATEST_YEAR}")
    return instant


def parse_instant(field: str, value: object) -> datetime:
    """An aware datetime, or ISO-8601 text with an offset or `Z`, in UTC; else `InvalidInputError`."""
    if not isinstance(value, str):
        return require_aware(field, value)
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidInputError(field, value, "write an instant such as 2026-03-02T12:00:00Z") from None
    if instant.utcoffset() is None:
        raise InvalidInputError(field, value, "it has no offset; write one such as 2026-03-02T12:00:00Z")
    return require_aware(field, instant)


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time: calendar months (a year is twelve), then an exact part (a day is 24 hours)."""

    months: int = 0
    exact: timedelta = timedelta(0)

    @property
    def is_zero(self) -> bool:
        """Whether it is no time at all."""
        return not self.months and not self.exact

    @property
    def nominal(self) -> timedelta:
        """For comparing lengths: a month counts as a twelfth of 365.2425 days."""
        return self.months * _AVERAGE_MONTH + self.exact

    def add_to(self, instant: datetime, zone: ZoneInfo) -> datetime:
        """The instant this much later, in UTC.

        Months are steps of the calendar of `zone` at the same local time: the day is cut to the month's last,
        a time that a clock change skips moves forward by as much, one that occurs twice means the first.
        """
        if self.months:
            instant = _in_utc(_add_months(instant.astimezone(zone).replace(tzinfo=None), self.months), zone)
        elif instant.tzinfo is not UTC:
            instant = instant.astimezone(UTC)
        return instant + self.exact

    def isoformat(self) -> str:
        """ISO-8601 text that `parse_duration` reads back as the same value."""
        years, months = divmod(self.months, 12)
        minutes, seconds = divmod(self.exact.seconds, 60)
        hours, minutes = divmod(minutes, 60)
        fraction = f".{self.exact.microseconds:06}".rstrip("0") if self.exact.microseconds else ""
        whole = f"{seconds}{fraction}" if fraction or seconds else ""
        day_part = _designated(years, "Y") + _designated(months, "M") + _designated(self.exact.days, "D")
        time_part = _designated(hours, "H") + _designated(minutes, "M") + _designated(whole, "S")
        if not day_part and not time_part:
            return "PT0S"
        return f"P{day_part}T{time_part}" if time_part else f"P{day_part}"

    def __str__(self) -> str:
        return self.isoformat()


def parse_duration(field: str, value: object) -> Duration:
    """A `Duration` from ISO-8601 text, a `timedelta` or a `Duration`, neither negative nor over 100 years.

    Weeks, days, hours, minutes and seconds may have fractions and are exact; months and years may not.
    """
    duration = _read_duration(field, value)
    if duration.months < 0 or duration.exact < timedelta(0):
        raise InvalidInputError(field, value, "a duration can't be negative")
    if duration.months > _MOST_MONTHS or duration.exact > _LONGEST or duration.nominal > _LONGEST:
        raise InvalidInputError(field, value, "a duration can't be longer than 100 years")
    return duration


def _read_duration(field: str, value: object) -> Duration:
    if isinstance(value, Duration):
        return value
    if isinstance(value, timedelta):
        return Duration(exact=value)
    if not isinstance(value, str):
        raise InvalidInputError(field, value, _DURATION_REMEDY)
    if len(value) > LONGEST_DURATION_TEXT or _DURATION.fullmatch(value) is None:
        raise InvalidInputError(field, value, _why_no_duration(value))
    try:
        parsed = isodate.parse_duration(value)
    except (ValueError, ArithmeticError):  # OverflowError among them: more days than a timedelta holds
        raise InvalidInputError(field, value, "a duration can't be longer than 100 years") from None
    if isinstance(parsed, timedelta):
        return Duration(exact=parsed)
    return Duration(months=int(parsed.years) * 12 + int(parsed.months), exact=parsed.tdelta)


def _why_no_duration(text: str) -> str:
    if text.startswith("-"):
        return "a duration can't be negative"
    if text in ("P", "PT"):
        return f"it is empty; {_DURATION_REMEDY}"
    if re.match(r"P[^T]*[.,][0-9]+[YM]", text):
        return "months and years can't have fractions; use days, as in P45D"
    if _DURATION.fullmatch(text.upper()):
        return f"the letters must be capitals; {_DURATION_REMEDY}"
    return _DURATION_REMEDY


def _designated(amount: int | str, letter: str) -> str:
    return f"{amount}{letter}" if amount else ""


def _add_months(local: datetime, months: int) -> datetime:
    years, month = divmod(local.month - 1 + months, 12)
    year, month = local.year + years, month + 1
    first_of_next = date(year + month // 12, month % 12 + 1, 1)
    last_day = (first_of_next - timedelta(days=1)).day
    return local.replace(year=year, month=month, day=min(local.day, last_day))


def _in_utc(local: datetime, zone: ZoneInfo, fold: int = 0) -> datetime:
    # PEP 495: in a gap, fold=0 uses the offset from before the change, which moves the time forward.
    return local.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def parse_zone(field: str, name: object) -> ZoneInfo:
    """The IANA time zone of that name; else `InvalidInputError`, also for a machine's own `localtime`."""
    if not isinstance(name, str) or not name:
        raise InvalidInputError(field, name, "write an IANA time zone such as Europe/Berlin, or UTC")
    zone = _find_zone(name)
    if zone is None:
        raise InvalidInputError(field, name, _why_no_zone(name))
    return zone


@lru_cache(maxsize=1024)
def _find_zone(name: str) -> ZoneInfo | None:
    if len(name) > LONGEST_ZONE_NAME or _ZONE_NAME.fullmatch(name) is None or _NOT_A_ZONE.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # unknown; a file that isn't zone data; a directory
        return None


def _why_no_zone(name: str) -> str:
    known = available_timezones()
    if not known:
        return "this machine has no time zone data: pip install tzdata"
    remedy = "it isn't a known IANA time zone; write one such as Europe/Berlin, or UTC"
    by_lower_case = {zone.lower(): zone for zone in known if not _NOT_A_ZONE.fullmatch(zone)}
    close = difflib.get_close_matches(name.lower()[:LONGEST_ZONE_NAME], by_lower_case, n=1)
    return f"{remedy}; did you mean {by_lower_case[close[0]]}?" if close else remedy


@dataclass(frozen=True, slots=True)
class QuietHours:
    """The local times of day, `start` included and `end` not, when nothing is sent; may cross midnight."""

    start: time
    end: time

    def contains(self, wall: time) -> bool:
        """Whether that local time of day is quiet."""
        if self.start < self.end:
            return self.start <= wall < self.end
        return wall >= self.start or wall < self.end

    def next_allowed(self, instant: datetime, zone: ZoneInfo) -> datetime:
        """`instant` itself when it isn't quiet in `zone`, else the end of the quiet hours; never earlier.

        In UTC. An end that a clock change skips means the first instant after the gap (should that be quiet
        again, the next end); one that occurs twice means the first that isn't earlier than `instant`.
        """
        instant = instant.astimezone(UTC)
        local = instant.astimezone(zone)
        while self.contains(local.time()):
            instant = self._end_after(instant, local, zone)
            local = instant.astimezone(zone)
        return instant

    def _end_after(self, instant: datetime, local: datetime, zone: ZoneInfo) -> datetime:
        ends_tomorrow = self.end <= local.time()
        end = datetime.combine(local.date() + timedelta(days=ends_tomorrow), self.end)
        first, second = _in_utc(end, zone), _in_utc(end, zone, fold=1)
        if first.astimezone(zone).replace(tzinfo=None) != end:
            return _first_instant_at_or_past(end, second, first, zone)
        return first if first >= instant else second


def _first_instant_at_or_past(local: datetime, before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Where the gap that swallows `local` ends, to the second; `before` lies before it, `after` doesn't."""
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).replace(tzinfo=None) < local:
            low = middle
        else:
            high = middle
    return before + timedelta(seconds=high)


def parse_quiet_hours(field: str, value: object) -> QuietHours:
    """Quiet hours from `{"start": "21:00", "end": "07:30"}`; `InvalidInputError` at the first fault."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(field, value, 'write quiet hours as {"start": "21:00", "end": "07:30"}')
    start = parse_wall_time(f"{field}.start", value.get("start"))
    end = parse_wall_time(f"{field}.end", value.get("end"), is_end=True)
    if start == end:
        raise InvalidInputError(field, value, "start and end must differ; leave quiet hours out to have none")
    return QuietHours(start, end)


def parse_wall_time(field: str, value: object, *, is_end: bool = False) -> time:
    """A local time of day from `HH:MM` or `HH:MM:SS`; `24:00` is midnight, and only an end can be that."""
    if value in ("24:00", "24:00:00"):
        if is_end:
            return time(0)
        raise InvalidInputError(field, value, "24:00 can only be an end; write 00:00")
    if not isinstance(value, str) or _WALL_TIME.fullmatch(value) is None:
        raise InvalidInputError(field, value, "write a local time of day as HH:MM or HH:MM:SS, such as 07:30")
    return time.fromisoformat(value)
