"""No endless wait for an answer of PostgreSQL: connections that are given up when none comes.

A server that was stopped, or a proxy that swallows what it is sent, keeps the wire alive: no TCP setting and no timeout
of the server notices. The wait itself is the one place that does.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from math import inf
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.waiting import Ready, Wait
from sqlalchemy import Connection

_POLLED: Final = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}
# The driver's own: how soon the main thread sees a signal that another thread was given.
_INTERVAL_SECONDS: Final = 0.1
# A connection in constant use is sound, as far as anybody can tell.
_UNDOUBTED_SECONDS: Final = 5.0
_READY: Final = {select.POLLIN: Ready.R, select.POLLOUT: Ready.W, select.POLLIN | select.POLLOUT: Ready.RW}


class NoAnswerError(psycopg.OperationalError):
    """The database didn't answer in time; the connection was closed, and whether a COMMIT took place is unknown."""


class Patience:
    """How long answers are waited for, by all connections of an engine. Thread-safe."""

    def __init__(self, limit: timedelta) -> None:
        self._seconds = limit.total_seconds()
        self._mutex = threading.Lock()
        self._hurries: tuple[tuple[float, float], ...] = ()
        self._connections: WeakSet[PatientConnection] = WeakSet()
        self._lost_at = -inf

    def lose_all(self) -> None:
        """No connection made until now is used again, once whoever uses it gives it back: their server is gone."""
        self._lost_at = monotonic()

    def is_lost(self, connection: PatientConnection) -> bool:
        """Whether it was made before the last loss."""
        return connection.made_at <= self._lost_at

    def adopt(self, connection: PatientConnection) -> None:
        """From now on this connection waits so, and is let go of in a forked child."""
        connection.limit = connection.patience = self
        connection.made_at = connection.idle_since = monotonic()
        self._connections.add(connection)

    def forget_parent(self) -> None:
        """In a forked child: the sessions are the parent's, and end with it, not with whoever has their sockets, too.

        Put out of use in place: closing the connection would say goodbye to the server in the parent's name.
        """
        self._mutex = threading.Lock()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for connection in list(self._connections):
            with suppress(psycopg.Error, OSError):
                os.dup2(nowhere, connection.fileno())
        os.close(nowhere)
        self._connections = WeakSet()

    @property
    def seconds(self) -> float:
        """The longest wait at this moment; it holds for the waits that are under way, too."""
        return min((self._seconds, *(seconds for seconds, _ in self._hurries)))

    def left(self, begun: float) -> float:
        """For how long a wait that began then goes on, in seconds: nothing or less when it is over."""
        return min((begun + self.seconds, *(end for _, end in self._hurries))) - monotonic()

    @contextmanager
    def at_most(self, limit: timedelta, in_all: timedelta) -> Iterator[None]:
        """Wait no longer than this during the block, whoever waits; and for nothing at all after `in_all`."""
        hurry = (limit.total_seconds(), monotonic() + in_all.total_seconds())
        with self._mutex:
            self._hurries += (hurry,)
        try:
            yield
        finally:
            with self._mutex:
                place = self._hurries.index(hurry)
                self._hurries = self._hurries[:place] + self._hurries[place + 1 :]


class PatientConnection(psycopg.Connection[Any]):
    """A connection whose every round trip ends in time: with the answer, or with NoAnswerError and closed."""

    limit: Patience | None = None
    patience: Patience | None = None
    reads_binary = False
    made_at = 0.0
    idle_since = 0.0

    @cached_property
    def hot_cursor(self) -> psycopg.RawCursor[Any]:
        """One for all prepared statements, one after the other: rows come in binary, and are taken at once."""
        cursor = psycopg.RawCursor(self)
        cursor.format = psycopg.pq.Format.BINARY
        return cursor

    @property
    def is_in_utc(self) -> bool:
        """Whether the session speaks of instants in UTC."""
        return self.pgconn.parameter_status(b"TimeZone") == b"UTC"

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """As the driver's; with `reads_binary` its rows come in binary."""
        if self.reads_binary and not arguments:
            options.setdefault("binary", True)
        return super().cursor(*arguments, **options)

    def wait(self, gen: PQGen[RV], *arguments: Any, **options: Any) -> RV:
        """The driver's own wait, with an end. Who says how long to wait (`notifies`) is left to the driver."""
        if self.patience is None or arguments or options:
            return super().wait(gen, *arguments, **options)
        try:
            return _drive(gen, self.pgconn.socket, self.patience)
        except (NoAnswerError, KeyboardInterrupt, SystemExit):
            # In the midst of a round trip: nobody knows what comes next on this connection.
            self.close()
            raise


def is_doubtful(connection: PatientConnection) -> bool:
    """Whether a pooled connection has to be tried before it is used.

    It was idle for a while, or something came meanwhile: mostly the server's goodbye, or its host's end.
    """
    if connection.closed or monotonic() - connection.idle_since > _UNDOUBTED_SECONDS:
        return True
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


def wait_without_end(connection: Connection) -> None:
    """Until it is back in its pool this connection waits for as long as an answer takes: for migrations."""
    driver = connection.connection.driver_connection
    if isinstance(driver, PatientConnection):
        driver.patience = None


def limit_again(dbapi_connection: object, _record: object) -> None:
    """The connection is back in its pool (an event of SQLAlchemy): its next user waits within the limit."""
    if isinstance(dbapi_connection, PatientConnection):
        dbapi_connection.patience = dbapi_connection.limit
        dbapi_connection.idle_since = monotonic()


def _drive(generator: PQGen[RV], socket: int, patience: Patience) -> RV:
    """Run one of the driver's generators to its end: it yields what it waits for, and is told what is ready.

    The driver has such a loop itself; not all releases tell the generator that time passes, or take an end.
    """
    try:
        wanted = next(generator)
        begun, poll = monotonic(), select.poll()
        while True:
            poll.register(socket, _POLLED[wanted])
            remaining = patience.left(begun)
            happened = poll.poll(min(max(remaining, 0), _INTERVAL_SECONDS) * 1000)
            if not happened and remaining > 0:
                continue
            # The last look is after the end: an answer that came while this process was stopped counts.
            if not happened:
                raise NoAnswerError(
                    f"the database gave no answer within {patience.seconds:g} s (DATABASE_TIMEOUT), "
                    "and the connection was given up"
                )
            # Anything else is a broken wire: the driver finds out how when it reads or writes.
            wanted = generator.send(_READY.get(happened[0][1], Ready(wanted)))
    except StopIteration as end:
        answer: RV = end.value
        return answer
