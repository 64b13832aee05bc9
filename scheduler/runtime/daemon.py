"""The daemon: starts, says so, waits for a signal, drains, and is gone.

SIGTERM and SIGINT only wake the main thread, which drains and leaves with 0. A second one leaves without draining, once
what was reported to Sentry is sent, for which a second has to do; a third one at once. SIGHUP lets it read the settings
anew. The watchdog is fed from here, and only while the scheduling loop turns.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from queue import SimpleQueue
from typing import Final

from scheduler.domain.errors import DatabaseUnavailableError, MissingRightError, SchedulerError
from scheduler.runtime.signals import Signals
from scheduler.runtime.systemd import extend_timeout, extending_timeout, notify, notify_reloading, watchdog_interval
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.store.rights import require_rights_of_daemon
from scheduler.telemetry.log import emit
from scheduler.telemetry.sentry import flush

_FIRST_RETRY: Final = 0.5
_LONGEST_RETRY: Final = 5.0
_LONGEST_SILENCE: Final = 10.0
_IDLE: Final = 60.0
# What a stop takes beside SHUTDOWN_TIMEOUT: handing back, threads that hang in the database, Sentry.
_REST_OF_STOP: Final = timedelta(seconds=30)
_LAST_REPORTS: Final = 1.0
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
_FIRING: Final = "firing timeouts"
_ALLOCATIONS_BETWEEN_COLLECTIONS: Final = 50_000


def calm_garbage_collector() -> None:
    """For a process that does nothing but fire: look through what batches leave behind seldom, and never through code.

    A batch makes thousands of values and no cycles. By its defaults the collector takes a fifth of firing's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS, 20, 100)


class Daemon:
    """Runs one `TimeoutScheduler` until it is told to stop. For the main thread of a process.

    `reload` is what SIGHUP does. With `upgrades` the schema is made or brought up to date before anything is fired.
    """

    def __init__(
        self, timeout_scheduler: TimeoutScheduler, reload: Callable[[], None] | None = None, *, upgrades: bool = False
    ) -> None:
        self._scheduler = timeout_scheduler
        self._reload = reload
        self._upgrades = upgrades
        self._signals = Signals()
        # Its `put` may interrupt its `get`, which an event's `set` may not.
        self._hurry: SimpleQueue[int | None] = SimpleQueue()
        self._is_stopping = False
        self._is_hurried = False

    def run(self) -> int:
        """Fire until SIGTERM or SIGINT; returns the exit code. Waits for a database that isn't there yet."""
        calm_garbage_collector()
        heeded = _STOPPING if self._reload is None else (*_STOPPING, signal.SIGHUP)
        # The main thread may hang in a drain, and hold what a flush from within its signal handler would wait for.
        threading.Thread(target=self._leave_in_a_hurry, name="outreach:hurry", daemon=True).start()
        try:
            with self._signals.heeding(heeded, self._heed):
                if self._start():
                    notify("READY=1", f"STATUS={_FIRING}")
                    self._wait()
                notify("STOPPING=1", "STATUS=draining")
                extend_timeout(self._scheduler.settings.shutdown_timeout + _REST_OF_STOP)
                emit("daemon.draining", instance=self._scheduler.instance)
                self._scheduler.shutdown()
        finally:
            self._hurry.put(None)
        emit("daemon.stopped", instance=self._scheduler.instance)
        return 0

    def is_firing(self) -> bool:
        """Whether the scheduling loop was started, and not stopped."""
        return bool(self._scheduler.apscheduler.running)

    def why_not_alive(self) -> str | None:
        """None while the scheduling loop turns (or hasn't begun to); else how long it has been silent."""
        silence = self._scheduler.silence
        if not self._scheduler.apscheduler.running or silence < self._longest_silence:
            return None
        return f"the scheduling loop has not turned for {silence:.0f} seconds"

    @property
    def _longest_silence(self) -> float:
        """A loop that has nothing to do sleeps for POLL_INTERVAL."""
        return _LONGEST_SILENCE + self._scheduler.settings.poll_interval.total_seconds()

    def why_not_ready(self) -> str | None:
        """None while this process fires and its database answers with the right schema; else what is wrong."""
        if self._is_stopping:
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

    def _heed(self, number: int) -> None:
        if number in _STOPPING:
            if self._is_hurried:
                os._exit(128 + number)
            if self._is_stopping:
                self._is_hurried = True
                self._hurry.put(128 + number)
            self._is_stopping = True

    def _leave_in_a_hurry(self) -> None:
        """Once told to stop a second time; not at all when the daemon is gone before."""
        code = self._hurry.get()
        if code is not None:
            flush(_LAST_REPORTS)
            os._exit(code)

    def _start(self) -> bool:
        """Start firing; False when told to stop while the database was still away."""
        delay, told = _FIRST_RETRY, ""
        while not self._is_stopping:
            try:
                if self._upgrades:
                    self._upgrade()
                require_rights_of_daemon(self._scheduler.database)
                self._scheduler.start()
            except DatabaseUnavailableError as error:
                if str(error) != told:
                    told = str(error)
                    emit("database.unavailable", error=told)
                notify("STATUS=waiting for the database")
                if self._signals.next(delay) == signal.SIGHUP:
                    self._reread()
                delay = min(delay * 2, _LONGEST_RETRY)
            else:
                return True
        return False

    def _upgrade(self) -> None:
        notify("STATUS=bringing the schema up to date")
        try:
            with extending_timeout():
                self._scheduler.migrate()
        except MissingRightError as error:
            raise MissingRightError(f"{error}: run `timeout-scheduler db upgrade` as that role") from error

    def _wait(self) -> None:
        interval, said = watchdog_interval(), _FIRING
        while not self._is_stopping:
            if self._signals.next(interval or _IDLE) == signal.SIGHUP:
                notify_reloading()
                self._reread()
                notify("READY=1", f"STATUS={said}")
            silent = self.why_not_alive()
            if silent is None and interval is not None:
                notify("WATCHDOG=1")
            status = silent or (_FIRING if self._scheduler.is_database_up else "waiting for the database")
            if status != said:
                notify(f"STATUS={status}")
                said = status

    def _reread(self) -> None:
        if self._reload is not None:
            self._reload()
