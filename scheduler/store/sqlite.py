"""What SQLite needs to be a dependable store for several threads and processes."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from sqlalchemy import Connection, Engine, event, text

BUSY_TIMEOUT_SECONDS: Final = 10.0
OLDEST_VERSION: Final = (3, 35)


def configure(engine: Engine) -> None:
    """Set every new connection of `engine` up: write-ahead log, full durability, a busy timeout."""

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()


def begin_immediate(connection: Connection) -> None:
    """Take the write lock now, unless a transaction is already open: what is read from here on can't change."""
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:
        connection.execute(text("BEGIN IMMEDIATE"))
