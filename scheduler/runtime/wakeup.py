"""Wakes the scheduling loop for what is due soon, as PostgreSQL tells of it. The loop's own poll is the safety net."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime.database_watch import DatabaseWatch
from scheduler.store.database import Database
from scheduler.store.listening import NoSessionError, listen
from scheduler.telemetry.log import emit
from scheduler.telemetry.sentry import report_unexpected

# Keepalives find a dead wire sooner (sessions.py); not one behind a proxy that stays.
_PROBE_EVERY: Final = 15.0
_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 2.0


class Wakeup:
    """A thread with a session of its own: calls `wake` at every notification, `settled` when the session changes.

    `presence` is the advisory lock that the session holds; None while there is no session, or never one to be had.
    """

    def __init__(
        self, database: Database, watch: DatabaseWatch, wake: Callable[[], None], settled: Callable[[], None]
    ) -> None:
        self.presence: int | None = None
        self._database = database
        self._watch = watch
        self._wake = wake
        self._settled = settled
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._interrupt: int | None = None
        self._interruption: int | None = None

    def start(self) -> None:
        """Listen from now on. On SQLite there is nothing to listen to."""
        if not self._database.is_postgresql:
            return
        self._stopping = threading.Event()
        self._interruption, self._interrupt = os.pipe()
        arguments = (self._stopping, self._interruption)
        self._thread = threading.Thread(target=self._run, args=arguments, name="outreach:wakeup", daemon=True)
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Listen no more; the session ends, and with it the presence."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping.set()
        self._close_interrupt()
        thread.join(patience)

    def forget_parent(self) -> None:
        """In a forked child: thread and session are the parent's."""
        if self._thread is not None and self._interruption is not None:
            os.close(self._interruption)
        self._thread = None
        self.presence = None
        self._close_interrupt()

    def _close_interrupt(self) -> None:
        """The reading end of the pipe becomes readable when the writing end closes."""
        if self._interrupt is not None:
            os.close(self._interrupt)
            self._interrupt = None

    def _run(self, stopping: threading.Event, interruption: int) -> None:
        delay = _FIRST_RETRY
        try:
            while not stopping.is_set():
                try:
                    self._listen(stopping, interruption)
                except NoSessionError:
                    emit("wakeup.polling")
                    return
                except DatabaseUnavailableError as error:
                    self._watch.noticed(error)
                except Exception as error:  # noqa: BLE001 - the thread goes on
                    report_unexpected("maintenance.error", error)
                if self._note(None) is not None:
                    delay = _FIRST_RETRY
                stopping.wait(delay)
                delay = min(delay * 2, _LONGEST_RETRY)
        finally:
            self._note(None)
            os.close(interruption)

    def _note(self, presence: int | None) -> int | None:
        """The new presence, unless this thread was left behind by a stop; returns the one before."""
        before = self.presence
        if threading.current_thread() is self._thread:
            self.presence = presence
        return before

    def _listen(self, stopping: threading.Event, interruption: int) -> None:
        with listen(self._database) as ear:
            self._note(ear.presence)
            self._settled()
            emit("wakeup.listening")
            # What was told of before we listened.
            self._wake()
            while not stopping.is_set():
                if ear.wait(interruption, _PROBE_EVERY):
                    self._wake()
