"""The daemon: starts, says so, waits for a signal, drains, and is gone.

SIGTERM and SIGINT only wake the main thread, which drains and leaves with 0; a second one leaves at once. The
watchdog is fed from here, and only while the scheduling loop turns.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from types import FrameType
from typing import Final

from scheduler.domain.errors import DatabaseUnavailableError, SchedulerError
from scheduler.runtime.systemd import notify, watchdog_interval
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.telemetry.log import emit

_FIRST_RETRY: Final = 0.5
_LONGEST_RETRY: Final = 5.0
_LONGEST_SILENCE: Final = 10.0
_IDLE: Final = 60.0
_ALLOCATIONS_BETWEEN_COLLECTIONS: Final = 50_000


def calm_garbage_collector() -> None:
    """For a process that does nothing but fire: look through what batches leave behind seldom, and never through code.

    A batch makes thousands of values and no cycles. By its defaults the collector takes a fifth of firing's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS, 20, 100)


class Daemon:
    """Runs one `TimeoutScheduler` until it is told to stop. For the main thread of a process."""

    def __init__(self, timeout_scheduler: TimeoutScheduler) -> None:
        self._scheduler = timeout_scheduler
        self._stop = threading.Event()

    def run(self) -> int:
        """Fire until SIGTERM or SIGINT; returns the exit code. Waits for a database that isn't there yet."""
        calm_garbage_collector()
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            if self._start():
                notify("READY=1", "STATUS=firing timeouts")
                self._wait()
            notify("STOPPING=1", "STATUS=draining")
            emit("daemon.draining", instance=self._scheduler.instance)
            self._scheduler.shutdown()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        emit("daemon.stopped", instance=self._scheduler.instance)
        return 0

    def why_not_alive(self) -> str | None:
        """None while the scheduling loop turns (or hasn't begun to); else how long it has been silent."""
        silence = self._scheduler.silence
        if not self._scheduler.apscheduler.running or silence < _LONGEST_SILENCE:
            return None
        return f"the scheduling loop has not turned for {silence:.0f} seconds"

    def why_not_ready(self) -> str | None:
        """None while this process fires and its database answers with the right schema; else what is wrong."""
        if self._stop.is_set():
            return "draining"
        if not self._scheduler.apscheduler.running:
            return "not started"
        if not self._scheduler.is_database_up:
            # Asking again might take as long as the database may.
            return "the database does not answer"
        try:
            self._scheduler.require_current_schema()
        except SchedulerError as error:
            return str(error)
        return None

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set():
            os._exit(128 + number)
        self._stop.set()

    def _start(self) -> bool:
        """Start firing; False when told to stop while the database was still away."""
        delay = _FIRST_RETRY
        while not self._stop.is_set():
            try:
                self._scheduler.start()
            except DatabaseUnavailableError as error:
                emit("database.unavailable", error=str(error))
                notify("STATUS=waiting for the database")
                self._stop.wait(delay)
                delay = min(delay * 2, _LONGEST_RETRY)
            else:
                return True
        return False

    def _wait(self) -> None:
        interval = watchdog_interval()
        while not self._stop.wait(interval or _IDLE):
            if interval is not None and self.why_not_alive() is None:
                notify("WATCHDOG=1")
