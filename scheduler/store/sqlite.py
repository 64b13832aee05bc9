"""What SQLite needs to be a dependable store for several threads and processes."""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import Any, Final

from sqlalchemy import Connection, Engine, event, text

BUSY_TIMEOUT_SECONDS: Final = 10.0
OLDEST_VERSION: Final = (3, 35)
_PAUSE_SECONDS: Final = 0.005


def configure(engine: Engine) -> None:
    """Set every new connection of `engine` up: write-ahead log, full durability, a busy timeout."""

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}")
        _use_write_ahead_log(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()


def _use_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    """Changing the journal of a new file doesn't heed the busy timeout: processes that open one at once wait here."""
    last = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > last:
                raise
            threading.Event().wait(_PAUSE_SECONDS)
        else:
            return


def begin_immediate(connection: Connection) -> None:
    """Take the write lock now, unless a transaction is already open: what is read from here on can't change."""
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:
        connection.execute(text("BEGIN IMMEDIATE"))
