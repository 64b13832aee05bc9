"""The caller's own connection, joined: SQLAlchemy's Connection or Session, or a raw psycopg connection.

From async code `await async_session.run_sync(lambda session: ts.schedule(job, connection=session))` hands over a
plain Session, whatever driver is below it.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Connection, Engine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.pool import StaticPool

from scheduler.domain.errors import InvalidInputError
from scheduler.store.sqlite import begin_immediate

Memory = MutableMapping[Any, Any]

_REMEDY: Final = "give a SQLAlchemy Connection or Session, or a psycopg connection, inside a transaction"
_ASYNC_REMEDY: Final = "call this through run_sync: await session.run_sync(lambda s: ...(connection=s))"
_remembered: WeakKeyDictionary[psycopg.Connection[Any], dict[Any, Any]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Joined:
    """The caller's connection as SQLAlchemy's, with a place to remember things about it."""

    connection: Connection
    memory: Memory
    database_name: str | None


def adopt(engine: Engine, connection: object, *, writing: bool) -> Joined:
    """Join the caller's `connection`; `writing` takes SQLite's write lock, unless a transaction is open already.

    Raises InvalidInputError for a connection of another kind or database system, or one in autocommit mode.
    """
    if isinstance(connection, psycopg.AsyncConnection) or hasattr(connection, "run_sync"):
        raise InvalidInputError("connection", type(connection).__name__, _ASYNC_REMEDY)
    if isinstance(connection, psycopg.Connection):
        return _adopt_psycopg(engine, connection)
    if isinstance(connection, scoped_session):
        connection = connection()
    joined = _connection_of(connection) if isinstance(connection, Session) else connection
    if not isinstance(joined, Connection) or joined.closed:
        raise InvalidInputError("connection", connection, _REMEDY)
    _adopt_sqlalchemy(engine, joined, writing=writing)
    return Joined(joined, joined.info, joined.engine.url.database)


def _connection_of(session: Session) -> Connection:
    try:
        return session.connection()
    except UnboundExecutionError:
        raise InvalidInputError("connection", "an unbound Session", _REMEDY) from None


def _adopt_sqlalchemy(engine: Engine, connection: Connection, *, writing: bool) -> None:
    system = engine.dialect.name
    if connection.dialect.name != system:
        raise InvalidInputError("connection", connection.dialect.name, f"give one to the scheduler's {system} database")
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        _refuse_autocommit()
    if system == "sqlite":
        _join_sqlite(connection, writing=writing)
    elif getattr(connection.connection.dbapi_connection, "autocommit", False) is True:
        _refuse_autocommit()


def _join_sqlite(connection: Connection, *, writing: bool) -> None:
    if not connection.in_transaction():
        connection.begin()
    driver: Any = connection.connection.driver_connection
    is_autocommit = driver.isolation_level is None or getattr(driver, "autocommit", None) is True
    if is_autocommit and not driver.in_transaction:
        _refuse_autocommit()
    if writing:
        begin_immediate(connection)


def _refuse_autocommit() -> None:
    raise InvalidInputError(
        "connection", "AUTOCOMMIT", "give a connection inside a transaction, not in autocommit mode"
    )


def _adopt_psycopg(engine: Engine, connection: psycopg.Connection[Any]) -> Joined:
    if not isinstance(engine.dialect, PGDialect_psycopg):
        raise InvalidInputError("connection", "psycopg", f"give one to the scheduler's {engine.dialect.name} database")
    if connection.closed:
        raise InvalidInputError("connection", connection, _REMEDY)
    if connection.autocommit:
        _refuse_autocommit()
    borrowed = _Borrowed(connection)
    pool = StaticPool(lambda: borrowed, dialect=engine.dialect)
    adopted = Engine(pool, engine.dialect, engine.url).connect()
    return Joined(adopted, _remembered.setdefault(connection, {}), connection.info.dbname)


class _Borrowed:
    """The caller's psycopg connection as SQLAlchemy may use it: everything but ending its transaction or closing it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def cursor(self, *args: Any, **options: Any) -> Any:
        return self._connection.cursor(*args, row_factory=tuple_row, **options)

    def commit(self) -> None:
        """Left to the caller."""

    def rollback(self) -> None:
        """Left to the caller."""

    def close(self) -> None:
        """Left to the caller."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
