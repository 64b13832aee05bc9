"""Instants, lengths of time and lists as a person reads them: short, exact, in UTC."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from scheduler.domain.timing import Duration

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_UNITS: Final = ((_DAY, "d"), (_HOUR, "h"), (timedelta(minutes=1), "min"), (timedelta(seconds=1), "s"))
# People say "72 h" rather than "3 d".
_LONGEST_IN_HOURS: Final = timedelta(hours=96)


def instant_text(instant: datetime) -> str:
    """An instant in UTC: `2026-03-05 12:00`, with seconds where there are any."""
    instant = instant.astimezone(UTC)
    precision = "seconds" if instant.second or instant.microsecond else "minutes"
    return instant.replace(tzinfo=None).isoformat(sep=" ", timespec=precision)


def duration_text(duration: Duration) -> str:
    """A plan's duration: `72 h`, `14 d`; ISO-8601 where months make it depend on the calendar."""
    if duration.months:
        return duration.isoformat()
    if duration.exact <= _LONGEST_IN_HOURS and not duration.exact % _HOUR:
        return f"{duration.exact // _HOUR} h"
    return span_text(duration.exact, most=len(_UNITS))


def span_text(span: timedelta, most: int = 2) -> str:
    """How long something took, in its `most` largest units: `3 d 2 h`. Negative ones are told without their sign."""
    rest = abs(span)
    parts: list[str] = []
    for unit, name in _UNITS:
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count} {name}")
    if parts:
        return " ".join(parts[:most])
    return "0 s" if not rest else f"{max(rest // timedelta(milliseconds=1), 1)} ms"


def list_text(items: Iterable[str], word: str = "and") -> str:
    """`a, b and c`."""
    *head, last = items
    return f"{', '.join(head)} {word} {last}" if head else last
