"""A list of rows as a table inside one statement, so that a batch is one statement however many rows it has.

PostgreSQL unnests one typed array per column; SQLite reads one JSON text with `json_each`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Integer,
    Select,
    Table,
    Text,
    bindparam,
    column,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.sql.expression import ColumnCollection, FromClause
from sqlalchemy.types import TypeEngine, to_instance

from scheduler.store.tables import Instant, to_text

Row = Sequence[Any]


class RowSource:
    """Rows with the given columns (name → SQLAlchemy type), usable as `source.table` in a statement.

    `source.bind(rows)` gives the parameters of one execution.
    """

    def __init__(self, dialect_name: str, columns: Mapping[str, Any], name: str = "given") -> None:
        self._name = name
        self._columns = dict(columns)
        self.is_postgresql = dialect_name == "postgresql"
        self.table: FromClause = self._unnested() if self.is_postgresql else self._json()
        self.c: ColumnCollection[str, Any] = self.table.c

    def _unnested(self) -> FromClause:
        arrays = [
            bindparam(f"{self._name}_{name}", type_=ARRAY(_array_item(type_))) for name, type_ in self._columns.items()
        ]
        columns: list[Column[Any]] = [column(name, type_) for name, type_ in self._columns.items()]  # type: ignore[misc]
        return func.unnest(*arrays).table_valued(*columns).render_derived(self._name)

    def _json(self) -> FromClause:
        each = func.json_each(bindparam(self._name, type_=Text)).table_valued("value", name=f"{self._name}_json")
        return select(
            *(
                func.json_extract(each.c.value, f"$[{index}]", type_=type_).label(name)
                for index, (name, type_) in enumerate(self._columns.items())
            )
        ).subquery(self._name)

    def bind(self, rows: Iterable[Row]) -> dict[str, Any]:
        """The parameters that make the source hold `rows`."""
        if self.is_postgresql:
            turned = list(zip(*rows, strict=True)) or [()] * len(self._columns)
            return {f"{self._name}_{name}": list(values) for name, values in zip(self._columns, turned, strict=True)}
        return {self._name: json.dumps([list(row) for row in rows], default=_as_text)}


def look_up(
    source: RowSource,
    table: Table,
    columns: Sequence[ColumnElement[Any]],
    where: ColumnElement[bool],
    *,
    lock: bool = False,
    skip_locked: bool = False,
) -> Select[Any]:
    """For each given row, the rows of `table` that match it: always through the index that `where` names.

    `lock` locks them until commit, in the order of the given rows; `skip_locked` leaves out what others have locked.

    PostgreSQL would rather hash a whole partial index when its statistics lag behind a load of rows; OFFSET 0 keeps
    the lateral query what it is. SQLite has no LATERAL, and joins in the order it is given.
    """
    if not source.is_postgresql:
        return select(*columns).select_from(source.table.join(table, where))
    inner = select(*columns).select_from(table).where(where).offset(literal_column("0"))
    if lock:
        inner = inner.with_for_update(of=table, skip_locked=skip_locked)
    found = inner.lateral("found")
    return select(*found.c).select_from(source.table.join(found, true()))


def _array_item(type_: Any) -> TypeEngine[Any]:
    """What the driver gets: no per-value processing in Python."""
    item = to_instance(type_)
    if isinstance(item, Instant):
        return TIMESTAMP(timezone=True)
    return Integer() if isinstance(item, Integer) else Text()


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return to_text(value)
    raise TypeError(f"{value!r} can't be part of a row")
