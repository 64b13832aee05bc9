"""All rows of one installation into another, between PostgreSQL and SQLite, with both locked against everybody else.

What was claimed by a process is pending again, since that process must not fire any more; what an application was given
to send stays its own until its lease ends. Processes, counts and what tells a database from any other aren't copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Table, func, literal, literal_column, select, text, tuple_

from scheduler.store.claims import is_application
from scheduler.store.database import Database, Transaction
from scheduler.store.patience import wait_without_end

NAMES: Final = (
    "campaign_plans",
    "contacts",
    "contact_campaigns",
    "scheduled_actions",
    "campaign_transitions",
    "campaign_events",
    "pauses",
    "operator_actions",
)
_PATIENCE: Final = timedelta(seconds=5)
_CLAIM: Final[Mapping[str, Any]] = {"status": "pending", "claimed_by": None, "claimed_until": None}


class Copying:
    """Statements of one side of a copy. Stateless."""

    def __init__(self, database: Database) -> None:
        self._database = database
        tables = {table.name: table for table in database.tables.metadata.tables.values()}
        self._tables: Mapping[str, Table] = {name: tables[name] for name in NAMES}

    def lock(self, transaction: Transaction, *, reading: bool) -> None:
        """Until commit nobody else writes to these tables, nor, unless `reading`, reads them to write.

        Waits some seconds for those who do. On SQLite a transaction that writes has the whole file for itself.
        """
        if not self._database.is_postgresql:
            return
        transaction.wait_at_most(_PATIENCE)
        mode = "SHARE" if reading else "EXCLUSIVE"
        quote = self._database.engine.dialect.identifier_preparer.format_table
        tables = ", ".join(quote(table) for table in self._tables.values())
        transaction.connection.execute(text(f"LOCK TABLE {tables} IN {mode} MODE"))
        wait_without_end(transaction.connection)
        # The other side may be at work for longer than a session may be idle.
        transaction.connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        transaction.connection.execute(text("SET LOCAL statement_timeout = 0"))

    def counts(self, transaction: Transaction) -> dict[str, int]:
        """How many rows each table has."""
        counts = {name: select(func.count()).select_from(table) for name, table in self._tables.items()}
        return {name: int(transaction.connection.execute(one).scalar_one()) for name, one in counts.items()}

    def filled(self, transaction: Transaction) -> list[str]:
        """The tables that hold anything."""
        one: dict[str, Any] = {
            name: select(literal_column("1")).select_from(table).limit(1) for name, table in self._tables.items()
        }
        return [name for name, statement in one.items() if transaction.connection.execute(statement).first()]

    def pieces(self, transaction: Transaction, name: str, most: int) -> Iterator[list[dict[str, Any]]]:
        """All rows of a table, as they are to stand on the other side, so many at a time."""
        table = self._tables[name]
        key = list(table.primary_key.columns)
        statement = select(*table.columns).order_by(*key).limit(most)
        after: Sequence[Any] | None = None
        while True:
            bounded = statement if after is None else statement.where(tuple_(*key) > tuple_(*_typed(key, after)))
            rows = [dict(row) for row in transaction.connection.execute(bounded).mappings()]
            if rows:
                yield [_unclaimed(row) for row in rows] if name == "scheduled_actions" else rows
            if len(rows) < most:
                return
            after = [rows[-1][column.name] for column in key]

    def insert(self, transaction: Transaction, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put rows of the other side here."""
        transaction.connection.execute(self._tables[name].insert(), [*rows])


def _typed(key: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    return [literal(value, column.type) for column, value in zip(key, values, strict=True)]


def _unclaimed(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, **_CLAIM} if row["status"] == "claimed" and not is_application(row["claimed_by"]) else row
