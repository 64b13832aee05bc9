"""A list of rows as a table inside one statement, so that a batch is one statement however many rows it has.

The rows travel as one JSON text, an array of arrays: on both systems, and cheaper to make and to send than typed
arrays, one per column (docs/explanation/decisions).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.expression import ColumnCollection, FromClause

from scheduler.store.tables import to_text

Row = Sequence[Any]

# SQLite's instants are a text of fixed width; PostgreSQL reads what orjson writes.
_OWN_INSTANTS: Final = orjson.OPT_PASSTHROUGH_DATETIME
# Anything that isn't a constant: PostgreSQL takes it for a tenth of the rows.
_NO_LIMIT: Final = select(literal_column("2147483647", Integer)).scalar_subquery()


class RowSource:
    """Rows with the given columns (name → SQLAlchemy type), usable as `source.table` in a statement.

    `source.bind(rows)` gives the parameters of one execution.
    """

    def __init__(self, dialect_name: str, columns: Mapping[str, Any], name: str = "given") -> None:
        self.is_postgresql = dialect_name == "postgresql"
        self._name = name
        self.table: FromClause = self._elements(columns)
        self.c: ColumnCollection[str, Any] = self.table.c

    def _elements(self, columns: Mapping[str, Any]) -> FromClause:
        """One row per element.

        The limit is none; it lets PostgreSQL take each element apart once, and not at every mention, and expect ten
        rows in place of a hundred: as long as a table is small it would rather read all of it than look up a hundred.
        """
        if not self.is_postgresql:
            each = func.json_each(bindparam(self._name, type_=Text)).table_valued("value", name="element")
            parts = [
                func.json_extract(each.c.value, f"$[{place}]", type_=type_).label(name)
                for place, (name, type_) in enumerate(columns.items())
            ]
            return select(*parts).subquery(self._name)
        document = cast(bindparam(self._name, type_=Text), JSONB)
        element = func.jsonb_array_elements(document).table_valued(column("value", JSONB), name="element")
        parts = [
            cast(element.c.value.op("->>")(literal_column(str(place))), type_).label(name)
            for place, (name, type_) in enumerate(columns.items())
        ]
        return select(*parts).limit(_NO_LIMIT).subquery(self._name)

    def bind(self, rows: Iterable[Row]) -> dict[str, Any]:
        """The parameters that make the source hold `rows`."""
        given = [*rows]
        document = orjson.dumps(given) if self.is_postgresql else orjson.dumps(given, _to_sqlite, _OWN_INSTANTS)
        return {self._name: document.decode()}


def look_up(
    source: RowSource,
    table: Table,
    columns: Sequence[ColumnElement[Any]],
    where: ColumnElement[bool],
    *,
    lock: bool = False,
    skip_locked: bool = False,
    for_share: bool = False,
    beside: tuple[Table, ColumnElement[bool]] | None = None,
) -> Select[Any]:
    """For each given row, the rows of `table` that match it: always through the index that `where` names.

    `lock` locks them until commit, in the order of the given rows; `skip_locked` leaves out what others have locked.
    `for_share` locks them against deletion alone, for many at once. `beside` is a table with at most one row for each,
    by its primary key, which isn't locked.

    PostgreSQL would rather hash a whole partial index when its statistics lag behind a load of rows; OFFSET 0 keeps
    the lateral query what it is. SQLite has no LATERAL, and joins in the order it is given.
    """
    if not source.is_postgresql:
        joined = source.table.join(table, where)
        return select(*columns).select_from(joined if beside is None else joined.outerjoin(*beside))
    looked_up = table if beside is None else table.outerjoin(*beside)
    inner = select(*columns).select_from(looked_up).where(where).offset(literal_column("0"))
    if lock:
        inner = inner.with_for_update(of=table, skip_locked=skip_locked, read=for_share, key_share=for_share)
    found = inner.lateral("found")
    return select(*found.c).select_from(source.table.join(found, true()))


def _to_sqlite(value: object) -> str:
    if isinstance(value, datetime):
        return to_text(value)
    raise TypeError(f"{value!r} can't be part of a row")
