"""Statements of the hot path: compiled once, and run on the driver's own cursor where the session is our own.

For a single timeout SQLAlchemy needs as long to find a compiled statement again, and to prepare its result, as the
driver needs to run it. Everywhere else (SQLite, an application's session, an engine that somebody listens to) they go
through SQLAlchemy like any other statement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy import Connection, Executable
from sqlalchemy.exc import DBAPIError

from scheduler.store.errors import is_outage

if TYPE_CHECKING:
    from scheduler.store.database import Transaction
    from scheduler.store.patience import PatientConnection

_PARAMETER: Final = re.compile(r"%(?:\((\w+)\)s|%)")


class Prepared:
    """One statement with named parameters of the driver's own types. Thread-safe."""

    def __init__(self, statement: Executable) -> None:
        self._statement: Any = statement
        self._compiled: tuple[bytes, Sequence[str], Mapping[str, Any]] | None = None

    def rows(self, transaction: Transaction, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """All rows of texts, numbers and instants."""
        driver = transaction.driver
        if driver is None:
            return transaction.rows(self._statement, parameters)
        return self._run(transaction, driver, parameters).fetchall()

    def change(self, transaction: Transaction, parameters: Mapping[str, Any]) -> int:
        """How many rows it changed."""
        driver = transaction.driver
        if driver is None:
            return transaction.connection.execute(self._statement, parameters).rowcount
        return self._run(transaction, driver, parameters).rowcount

    def _run(
        self, transaction: Transaction, driver: PatientConnection, given: Mapping[str, Any]
    ) -> psycopg.Cursor[Any]:
        text, names, constants = self._compiled or self._compile(transaction)
        parameters = [given[name] if name in given else constants[name] for name in names]
        try:
            return driver.hot_cursor.execute(text, parameters)
        except psycopg.Error as error:
            raise _translated(transaction.connection, driver, error) from error
        except BaseException as error:
            # In the midst of a round trip: nobody knows what comes next on this connection.
            transaction.connection.invalidate(error)
            raise

    def _compile(self, transaction: Transaction) -> tuple[bytes, Sequence[str], Mapping[str, Any]]:
        """With PostgreSQL's own parameters: the driver would look for its own at each use of a long statement."""
        compiled = self._statement.compile(dialect=transaction.connection.dialect)
        names = list(compiled.params)
        numbers = {name: f"${place}" for place, name in enumerate(names, 1)}
        text = _PARAMETER.sub(lambda found: numbers[found[1]] if found[1] else "%", str(compiled))
        self._compiled = text.encode(), names, compiled.params
        return self._compiled


def _translated(connection: Connection, driver: PatientConnection, error: psycopg.Error) -> Exception:
    """What SQLAlchemy would raise. A connection that is lost isn't used again, and nor is any other to that server."""
    dialect: Any = connection.dialect
    is_lost = is_outage(error) or dialect.is_disconnect(error, driver, None)
    translated = DBAPIError.instance(
        None,
        None,
        error,
        psycopg.Error,
        hide_parameters=True,
        connection_invalidated=is_lost,
        dialect=dialect,
    )
    if is_lost:
        if driver.limit is not None:
            driver.limit.lose_all()
        connection.invalidate(error)
    return translated
