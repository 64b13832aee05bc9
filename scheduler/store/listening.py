"""A session of its own on PostgreSQL, which hears of new work, and by whose end others see that this process is gone.

LISTEN and advisory locks belong to a session. Behind a pooler there is none that stays: then neither is used.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.store.database import Connection, Database
from scheduler.store.errors import translated
from scheduler.store.instances import assert_presence, new_presence
from scheduler.store.sessions import is_pooled


class NoSessionError(Exception):
    """There is no session of our own to be had: a pooler is in between, or another driver."""


class Ear:
    """An open session that listens, and holds `presence`. For one thread."""

    def __init__(self, connection: psycopg.Connection[Any], presence: int) -> None:
        self.presence = presence
        self._connection = connection
        self._has_heard = False
        connection.add_notify_handler(self._hear)

    def wait(self, interruption: int, timeout: float) -> bool:
        """Whether there is new work. Returns early when file descriptor `interruption` becomes readable.

        Raises DatabaseUnavailableError when the session is gone.
        """
        try:
            readable = self._poll(interruption, timeout)
            if not readable:
                # A wire that was cut tells nothing by itself.
                self._connection.execute("SELECT 1")
            elif interruption not in readable:
                self._take_in()
        except (psycopg.Error, OSError, ValueError) as error:
            raise DatabaseUnavailableError(f"{type(error).__name__}: {error}") from error
        heard, self._has_heard = self._has_heard, False
        return heard

    def _poll(self, interruption: int, timeout: float) -> set[int]:
        """Not `select`, which knows no descriptor above 1023."""
        poll = select.poll()
        for descriptor in (self._connection.fileno(), interruption):
            poll.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(timeout * 1000)}

    def _take_in(self) -> None:
        self._connection.pgconn.consume_input()
        while self._connection.pgconn.notifies() is not None:
            self._has_heard = True

    def _hear(self, _notification: psycopg.Notify) -> None:
        self._has_heard = True


@contextmanager
def listen(database: Database) -> Iterator[Ear]:
    """A session that hears of what is due soon in this database.

    Raises DatabaseUnavailableError; NoSessionError where there is a pooler, or the engine has another driver.
    """
    channel = database.channel
    with translated():
        connection = database.engine.connect()
        driver: Any = connection.connection.driver_connection
        try:
            yield _ear(connection, driver, channel)
        except psycopg.Error as error:
            raise DatabaseUnavailableError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()
            # What is detached is rolled back first, and left open where that fails.
            driver.close()


def _ear(connection: Connection, driver: Any, channel: str) -> Ear:
    own = connection.execution_options(isolation_level="AUTOCOMMIT")
    # The pool is for transactions: this one goes with its session.
    own.detach()
    if not isinstance(driver, psycopg.Connection) or is_pooled(driver):
        raise NoSessionError
    presence = new_presence()
    assert_presence(own, presence)
    driver.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    return Ear(driver, presence)
