"""One firing process per SQLite file: SQLite has no SKIP LOCKED, so two would fight over every batch."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from scheduler.domain.errors import AlreadyRunningError, DatabaseUnavailableError

_LOOKS: Final = 20
_LOOK_SECONDS: Final = 0.02


class FileLock:
    """A lock beside the database file, held by one process until it lets go or dies, however it dies.

    Within the process it may be taken several times, and is let go as often. Thread-safe.
    """

    def __init__(self, database: Path, holder: Callable[[], str]) -> None:
        file = database.resolve()
        self._path = file.with_name(file.name + ".lock")
        self._holder = holder
        self._mutex = threading.Lock()
        self._times_held = 0
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; whether this process didn't have it before.

        Raises AlreadyRunningError, naming the process that has it; DatabaseUnavailableError when it cannot be made.
        """
        with self._mutex:
            is_new = self._descriptor is None
            if is_new:
                self._descriptor = self._lock()
            self._times_held += 1
            return is_new

    def release(self) -> None:
        """Let go once."""
        with self._mutex:
            self._times_held = max(self._times_held - 1, 0)
            if self._times_held == 0 and self._descriptor is not None:
                # Whoever is refused while the next one has it, and hasn't written its name yet, isn't told this one's.
                with suppress(OSError):
                    os.ftruncate(self._descriptor, 0)
                self._close()

    def forget_parent(self) -> None:
        """In a forked child: the lock is the parent's, and stays with it."""
        self._mutex = threading.Lock()
        self._times_held = 0
        self._close()

    def _lock(self) -> int:
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            first = _read_name(descriptor) or "another process"
            os.close(descriptor)
            raise AlreadyRunningError(
                f"{first} already fires the timeouts of this SQLite file, and only one process may: "
                "stop it, or use PostgreSQL"
            ) from None
        with suppress(OSError):  # on a full disk it holds all the same, and only doesn't say who has it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._holder().encode(), 0)
        return descriptor

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DatabaseUnavailableError(f"the lock file {self._path} can't be opened: {error.strerror}") from error

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read_name(descriptor: int) -> str:
    """Who has the lock; a process that has only just taken it needs a moment to write its name."""
    for _ in range(_LOOKS):
        if name := os.pread(descriptor, 1024, 0).decode("utf-8", "replace").strip():
            return name
        threading.Event().wait(_LOOK_SECONDS)
    return ""
