"""The demo's clock: real time, unless this machine stalls."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from scheduler.domain.timing import Clock


class PatientClock:
    """Real time that goes on for at most `patience` after the contacts last had the chance to act. Thread-safe.

    A machine that stalls for seconds would otherwise let timeouts expire before a contact could answer, and the demo
    would show another campaign than the one that was cast. The engine's clock stands still for so long.
    """

    def __init__(self, real: Clock, patience: timedelta) -> None:
        self._real = real
        self._patience = patience
        self._lock = threading.Lock()
        self._behind = timedelta(0)
        self._limit = real.now() + patience

    def now(self) -> datetime:
        """The present of the demo; never goes back."""
        with self._lock:
            return self._read()

    def go_on(self) -> None:
        """Every contact had the chance to act."""
        with self._lock:
            self._limit = self._read() + self._patience

    def _read(self) -> datetime:
        instant = self._real.now() - self._behind
        if instant > self._limit:
            self._behind += instant - self._limit
            instant = self._limit
        return instant
