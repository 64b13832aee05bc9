"""Arithmetic on instants inside statements, exact to the microsecond on both systems; lengths are whole microseconds.

PostgreSQL's own difference of two instants counts in days, and adding days follows the clock changes of the session's
time zone; SQLite keeps instants as text.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Integer, Interval, Text, cast, extract, func, literal_column

from scheduler.store.tables import Instant, Layout

_MICROSECOND: Final = timedelta(microseconds=1)
_IN_A_SECOND: Final = literal_column("1000000", BigInteger)
# Seconds from the year 1 to 1970, so that no division meets a negative number.
_BEFORE_1970: Final = literal_column("62135596800", BigInteger)
_WHOLE_SECONDS: Final = literal_column("'%Y-%m-%d %H:%M:%S'", Text)
_UNIX_SECONDS: Final = literal_column("'%s'", Text)


class InstantArithmetic:
    """Makes expressions for one database system."""

    def __init__(self, layout: Layout) -> None:
        self._is_postgresql = layout.is_postgresql

    def between(self, later: Any, earlier: Any) -> Any:
        """The microseconds from `earlier` to `later`."""
        if not self._is_postgresql:
            return _microseconds(later) - _microseconds(earlier)
        difference = later.op("-", precedence=7, return_type=Interval())(earlier)
        return cast(func.round(extract("epoch", difference) * _IN_A_SECOND), BigInteger)

    def plus(self, instant: Any, length: Any) -> Any:
        """The instant that many microseconds later."""
        if self._is_postgresql:
            step = length.op("*", precedence=8, return_type=Interval())(
                literal_column("interval '1 microsecond'", Interval)
            )
            return instant.op("+", precedence=7, return_type=Instant())(step)
        total = _microseconds(instant) + length
        seconds = total // _IN_A_SECOND - _BEFORE_1970
        whole = func.strftime(_WHOLE_SECONDS, seconds, literal_column("'unixepoch'", Text), type_=Text)
        fraction = func.printf(literal_column("'.%06d'", Text), total % _IN_A_SECOND, type_=Text)
        return whole.concat(fraction)

    def earliest(self, first: Any, *others: Any) -> Any:
        """The earliest of several; others that are NULL don't count, the first never is."""
        least = func.least if self._is_postgresql else func.min
        known = [func.coalesce(one, first, type_=Instant) for one in others]
        return least(first, *known, type_=Instant) if known else first

    def latest(self, first: Any, second: Any) -> Any:
        """The later of two, none of them NULL."""
        return (func.greatest if self._is_postgresql else func.max)(first, second, type_=Instant)


def in_microseconds(length: timedelta) -> int:
    """A length as the statements take it."""
    return length // _MICROSECOND


def _microseconds(instant: Any) -> Any:
    """Microseconds since the year 1, of an instant as SQLite stores it; one without a fraction (its own) passes."""
    seconds = cast(func.strftime(_UNIX_SECONDS, func.substr(instant, 1, 19)), Integer) + _BEFORE_1970
    return seconds * _IN_A_SECOND + cast(func.substr(instant, 21, 6), Integer)
