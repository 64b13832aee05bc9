"""What a process says of itself in the database: how many it has ended, how many a second, and how late."""

from __future__ import annotations

import time

from scheduler.service.owner import Owner
from scheduler.store.stores import Stores
from scheduler.telemetry.metrics import Metrics


class ProgressNotes:
    """Notes it each time it is asked to, as long as something ends. For one thread."""

    def __init__(self, stores: Stores, owner: Owner, metrics: Metrics) -> None:
        self._stores = stores
        self._owner = owner
        self._progress = metrics.progress
        self._last = (time.monotonic(), 0)
        self._is_noted_idle = True

    def note(self) -> None:
        """One small statement; none while nothing ends, but for the first time. Raises DatabaseUnavailableError."""
        now, (ended, latest) = time.monotonic(), self._progress.read()
        before, ended_before = self._last
        is_idle = ended == ended_before
        if is_idle and self._is_noted_idle:
            self._last = (now, ended)
            return
        rate = (ended - ended_before) / max(now - before, 0.001)
        with self._stores.database.transaction() as transaction:
            self._stores.instances.note_progress(transaction, self._owner.id, ended, rate, latest)
        self._last, self._is_noted_idle = (now, ended), is_idle
