"""A clock you set."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from scheduler.domain.timing import parse_duration, parse_instant, require_aware

_UTC: Final = ZoneInfo("UTC")


class SettableClock:
    """A clock that stands still until it is told to move. Thread-safe."""

    def __init__(self, start: datetime) -> None:
        self._now = require_aware("start", start)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The instant it was set to."""
        with self._lock:
            return self._now

    def set(self, instant: datetime) -> None:
        """Go to this instant."""
        moved = parse_instant("instant", instant)
        with self._lock:
            self._now = moved

    def advance(self, duration: timedelta | str) -> datetime:
        """Go forward by a `timedelta` or ISO-8601 text such as `PT72H`; returns the new instant."""
        step = parse_duration("duration", duration)

        with self._lock:
            self._now = step.add_to(self._now, _UTC)
            return self._now
