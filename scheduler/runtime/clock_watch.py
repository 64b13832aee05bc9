"""How far the database's clock is from this machine's. The database's decides; a difference only confuses people."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics

TOLERATED: Final = timedelta(seconds=1)


class ClockWatch:
    """Compares both clocks at every reading; warns when they part, and says when they agree again. For one thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._is_apart = False

    def compare(self, before: datetime, there: datetime, after: datetime) -> None:
        """`there` was read by the database between these two instants of this machine's clock."""
        skew = there - (before + (after - before) / 2)
        self._metrics.clock_skew(skew.total_seconds())
        # A slow answer makes the reading so much less sure.
        tolerated = TOLERATED if self._is_apart else TOLERATED + abs(after - before) / 2
        is_apart = abs(skew) > tolerated
        if is_apart != self._is_apart:
            emit("clock.skewed" if is_apart else "clock.agrees", seconds=round(skew.total_seconds(), 3))
        self._is_apart = is_apart
