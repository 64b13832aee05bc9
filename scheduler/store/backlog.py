"""How much is waiting: counted now and then by one process, kept in a row that all read.

A count reads an index entry for each action it counts, and no table. What it costs is part of what is kept, so that
who counts next can leave the database alone for a multiple of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Double, Integer, Text, bindparam, func, literal_column, select, true
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.domain.action import ActionType
from scheduler.store.claim_clock import ClaimClock
from scheduler.store.database import Transaction
from scheduler.store.statuses import CLAIMED, ERROR, PENDING
from scheduler.store.tables import Instant, Layout

# Nor does a count take the processors of those who fire.
_LIMITS: Final = select(
    func.set_config("statement_timeout", bindparam("milliseconds", type_=Text), true()),
    func.set_config("max_parallel_workers_per_gather", "0", true()),
)


@dataclass(frozen=True, slots=True)
class BacklogRow:
    """What was last counted, and what is remembered of the alert. Instants are real time, durations seconds."""

    due: int
    claimed: int
    errors: int
    counted_at: datetime
    took: float
    pending: int | None = None
    pending_counted_at: datetime | None = None
    pending_took: float | None = None
    lowest_due: int | None = None
    lowest_at: datetime | None = None
    alerted_at: datetime | None = None


_NAMES: Final = [field.name for field in fields(BacklogRow)]


class BacklogRows:
    """Statements on `timeout_scheduler_backlog`, and what fills it. Stateless, thread-safe; nothing waits for locks."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._table = layout.tables.backlog
        self._actions = layout.tables.scheduled_actions.c
        self._clock = ClaimClock(layout)
        self._read = select(*(self._table.c[name] for name in _NAMES))
        self._count_work = self._count_work_statement()
        self._count_pending = select(func.count()).where(self._actions.status == PENDING)
        self._write = self._write_statement()

    def read(self, transaction: Transaction) -> BacklogRow | None:
        """What was last counted; None before the first count."""
        row = transaction.connection.execute(self._read).first()
        return None if row is None else BacklogRow(*row)

    def count_work(self, transaction: Transaction) -> tuple[int, int, int]:
        """How many are due, claimed, and in error."""
        due, claimed, errors = transaction.connection.execute(
            self._count_work, self._clock.due_parameters(transaction)
        ).one()
        return due, claimed, errors

    def count_pending(self, transaction: Transaction) -> int:
        """How many are pending, due or not."""
        return int(transaction.connection.execute(self._count_pending).scalar_one())

    def limit(self, transaction: Transaction, longest: timedelta) -> None:
        """Until commit no statement takes longer, or more than one process. SQLite knows no such limits."""
        if self._layout.is_postgresql:
            milliseconds = max(int(longest.total_seconds() * 1000), 1)
            transaction.connection.execute(_LIMITS, {"milliseconds": str(milliseconds)})

    def replace(self, transaction: Transaction, before: BacklogRow | None, row: BacklogRow) -> bool:
        """Put `row` in the place of `before`; False where somebody else was faster. Lock: the row."""
        values = {name: getattr(row, name) for name in _NAMES}
        seen = None if before is None else before.counted_at
        written = transaction.connection.execute(self._write, {**values, "seen": seen})
        return written.first() is not None

    def _count_work_statement(self) -> Any:
        """Each from its partial index. Both kinds are counted apart: the index of what is due begins with the kind."""
        actions = self._actions
        due = [
            select(func.count())
            .where(actions.status == PENDING, actions.action_type == literal_column(f"'{kind}'", Text))
            .where(actions.run_at <= self._clock.due())
            .scalar_subquery()
            for kind in (ActionType.TIMEOUT, ActionType.SEND)
        ]
        claimed, errors = (
            select(func.count()).where(actions.status == status).scalar_subquery() for status in (CLAIMED, ERROR)
        )
        return select((due[0] + due[1]).label("due"), claimed.label("claimed"), errors.label("errors"))

    def _write_statement(self) -> Any:
        insert = postgresql.insert if self._layout.is_postgresql else sqlite.insert
        columns = self._table.c
        values = {name: bindparam(name, type_=_bound(columns[name].type)) for name in _NAMES}
        statement = insert(self._table).values(only_row=literal_column("1", Integer), **values)
        return statement.on_conflict_do_update(
            index_elements=["only_row"],
            set_={name: statement.excluded[name] for name in _NAMES},
            where=columns.counted_at == bindparam("seen", type_=Instant),
        ).returning(columns.only_row)


def _bound(type_: Any) -> Any:
    return type_ if isinstance(type_, (Instant, Double)) else BigInteger()
