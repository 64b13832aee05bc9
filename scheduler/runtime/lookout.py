"""Looks at the table, for the loop, and keeps what the last look told, for whom that is fresh enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.store.outlook import Outlook
from scheduler.store.stores import Stores


@dataclass(frozen=True, slots=True)
class Look:
    """An outlook, and when it was asked for and answered by this machine's clock.

    `second` is when it was asked for on a clock that nobody sets.
    """

    outlook: Outlook
    asked_at: datetime
    answered_at: datetime
    second: float

    @property
    def at(self) -> datetime:
        """When the database answered, as near as can be told."""
        return self.asked_at + (self.answered_at - self.asked_at) / 2


class Lookout:
    """One statement for each look. Thread-safe."""

    def __init__(self, stores: Stores, seconds: Callable[[], float] = time.monotonic) -> None:
        self._stores = stores
        self._seconds = seconds
        self._last: Look | None = None

    def look(self) -> Look:
        """Raises DatabaseUnavailableError, and where nothing can be written too."""
        database, clock = self._stores.database, self._stores.database.real_clock
        with database.one_statement(writing=False) as transaction:
            second, asked_at = self._seconds(), clock.now()
            outlook = self._stores.outlooks.read(transaction)
            if outlook.is_read_only:
                # It answers, but nothing can be fired there. A session that began so may stay so: it isn't used again.
                transaction.connection.invalidate()
                raise DatabaseUnavailableError("the server is read-only")
            look = Look(outlook, asked_at, clock.now(), second)
        self._last = look  # only now: a connection that broke at the end would pass for one that recovered
        return look

    def last(self, within: timedelta) -> Outlook | None:
        """What the last look told, unless that is longer ago."""
        last = self._last
        if last is None or self._seconds() - last.second > within.total_seconds():
            return None
        return last.outlook

    def glance(self, within: timedelta) -> Outlook:
        """The same, or a look. Raises DatabaseUnavailableError."""
        return self.last(within) or self.look().outlook
