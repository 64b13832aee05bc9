"""One firing process per SQLite file: SQLite has no SKIP LOCKED, so two would fight over every batch."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from scheduler.domain.errors import AlreadyRunningError


class FileLock:
    """A lock beside the database file, held by one process until it lets go or dies, however it dies."""

    def __init__(self, database: Path, holder: str) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._holder = holder
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process holds it."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock; raises AlreadyRunningError, naming the process that has it."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            first = os.read(descriptor, 1024).decode("utf-8", "replace").strip() or "another process"
            os.close(descriptor)
            raise AlreadyRunningError(
                f"{first} already fires the timeouts of this SQLite file, and only one process may: "
                "stop it, or use PostgreSQL"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, self._holder.encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def forget(self) -> None:
        """In a forked child: the lock is the parent's, and stays with it."""
        self.release()
