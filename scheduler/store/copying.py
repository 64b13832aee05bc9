"""All rows of one installation into another, between PostgreSQL and SQLite, with both locked against everybody else.

What was claimed by a process is pending again, since that process must not fire any more; what an application was given
to send stays its own until its lease ends. Processes, counts and what tells a database from any other aren't copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from psycopg.sql import SQL, Identifier
from sqlalchemy import Table, func, literal, literal_column, select, text, tuple_

from scheduler.store.claims import is_application
from scheduler.store.database import Database, Transaction
from scheduler.store.patience import wait_without_end
from scheduler.store.tables import Instant, to_text

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
Row = Sequence[Any]

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
            transaction.connection.execute(text("PRAGMA cache_size = -131072"))  # 128 MB, for this process alone
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

    def pieces(self, transaction: Transaction, name: str, most: int) -> Iterator[list[Row]]:
        """All rows of a table, as they are to stand on the other side, so many at a time; columns as in the table."""
        table = self._tables[name]
        key = list(table.primary_key.columns)
        places = [list(table.columns).index(column) for column in key]
        statement = select(*table.columns).order_by(*key).limit(most)
        after: Row | None = None
        while True:
            bounded = statement if after is None else statement.where(tuple_(*key) > tuple_(*_typed(key, after)))
            rows = list(transaction.rows(bounded, {}))
            if rows:
                yield _unclaimed(table, rows) if name == "scheduled_actions" else rows
            if len(rows) < most:
                return
            after = [rows[-1][place] for place in places]

    def insert(self, transaction: Transaction, name: str, rows: Sequence[Row]) -> None:
        """Put rows of the other side here, by the fastest way that the driver has."""
        table = self._tables[name]
        if self._database.is_postgresql:
            self._copy_in(transaction, table, rows)
            return
        statement = str(table.insert().compile(dialect=self._database.engine.dialect))
        instants = [place for place, column in enumerate(table.columns) if isinstance(column.type, Instant)]
        transaction.connection.exec_driver_sql(statement, [_as_text(row, instants) for row in rows])

    def _copy_in(self, transaction: Transaction, table: Table, rows: Sequence[Row]) -> None:
        driver: Any = transaction.connection.connection.driver_connection
        parts = [self._database.schema, table.name] if self._database.schema is not None else [table.name]
        names = SQL(", ").join(Identifier(column.name) for column in table.columns)
        statement = SQL("COPY {} ({}) FROM STDIN").format(Identifier(*parts), names)
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)


def _typed(key: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    return [literal(value, column.type) for column, value in zip(key, values, strict=True)]


def _as_text(row: Row, instants: Sequence[int]) -> tuple[Any, ...]:
    values = list(row)
    for place in instants:
        if values[place] is not None:
            values[place] = to_text(values[place])
    return tuple(values)


def _unclaimed(table: Table, rows: Sequence[Row]) -> list[Row]:
    places = {column.name: place for place, column in enumerate(table.columns)}
    status, claimed_by = places["status"], places["claimed_by"]
    changes = {places[name]: value for name, value in _CLAIM.items()}
    return [
        [changes.get(place, value) for place, value in enumerate(row)]
        if row[status] == "claimed" and not is_application(row[claimed_by])
        else row
        for row in rows
    ]
