"""Whether the database answers, as far as this process has seen: said once when it doesn't, once when it does again."""

from __future__ import annotations

import threading
import time
from typing import Final

from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics
from scheduler.telemetry.sentry import report

REPORTED_AFTER_SECONDS: Final = 60.0
_NOTICED_EVERY_SECONDS: Final = 30.0
# An answer that comes so soon after another thread got none may have been on its way when the database went.
_ON_ITS_WAY_SECONDS: Final = 5.0


class DatabaseWatch:
    """The scheduling loop says how it fares; other threads what they notice, which alone is no outage. Thread-safe.

    An outage longer than `reported_after` seconds is an error that somebody should look at.
    """

    def __init__(self, metrics: Metrics, reported_after: float = REPORTED_AFTER_SECONDS) -> None:
        self._metrics = metrics
        self._reported_after = reported_after
        self._mutex = threading.Lock()
        self._down_since: float | None = None
        self._is_reported = False
        self._recoveries = 0
        self._next_notice = 0.0
        self._is_announced = False
        self._announced_at = 0.0

    @property
    def recoveries(self) -> int:
        """How often the database came back since this process began."""
        return self._recoveries

    @property
    def is_up(self) -> bool:
        """Whether the database answered when the loop last asked."""
        return self._down_since is None

    def noticed(self, error: DatabaseUnavailableError) -> None:
        """Another thread got no answer; said now and then, unless the loop has said so already."""
        now = time.monotonic()
        with self._mutex:
            is_new = self._down_since is None and now >= self._next_notice
            if is_new:
                self._is_announced, self._announced_at = True, now
                self._next_notice = now + _NOTICED_EVERY_SECONDS
        if is_new:
            emit("database.unavailable", error=str(error))

    def failed(self, error: DatabaseUnavailableError) -> None:
        """The database didn't answer; once per outage that is said, and once reported when it lasts."""
        now = time.monotonic()
        with self._mutex:
            is_first = self._down_since is None and not self._is_announced
            since = self._down_since = now if self._down_since is None else self._down_since
            is_due = not self._is_reported and now - since >= self._reported_after
            self._is_reported = self._is_reported or is_due
        self._metrics.database_is_up(up=False)
        if is_first:
            emit("database.unavailable", error=str(error))
        if is_due:
            emit("database.outage", error=str(error), seconds=round(now - since))
            report(error, {"reason": "database"})

    def answered(self) -> None:
        """The database answered."""
        now = time.monotonic()
        with self._mutex:
            since, self._down_since = self._down_since, None
            self._is_reported = False
            if since is not None or now - self._announced_at >= _ON_ITS_WAY_SECONDS:
                self._is_announced = False
            self._recoveries += since is not None
            if since is not None:
                # A thread that failed before may only now come to say so.
                self._next_notice = now + _NOTICED_EVERY_SECONDS
        self._metrics.database_is_up(up=True)
        if since is not None:
            emit("database.recovered", seconds=round(now - since, 1))

    def forget_parent(self) -> None:
        """In a forked child: the parent may have held the lock."""
        self._mutex = threading.Lock()
