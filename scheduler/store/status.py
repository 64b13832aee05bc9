"""How much is waiting, by tenant: read-only questions for operators. Each counts what the partial indexes hold.

`by_tenant` counts all that is unfinished. What is asked every other second (`now_by_tenant`) counts what is due,
claimed and in error, and of each no more than `MOST_COUNTED`: that costs the same however much is pending.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, Select, Text, and_, bindparam, case, func, literal_column, or_, select

from scheduler.domain.action import ActionType
from scheduler.domain.pausing import Pause, Scope
from scheduler.store.database import Database, Transaction
from scheduler.store.pauses import pause_columns, to_pause
from scheduler.store.statuses import CLAIMED, ERROR, PAUSED, PENDING
from scheduler.store.tables import Instant

MOST_COUNTED: Final = 100_000
_WIDE: Final = (Scope.ALL, Scope.TENANT, Scope.SENDS)


@dataclass(frozen=True, slots=True)
class WorkCount:
    """What one tenant has in `scheduled_actions` that isn't over, or is in error.

    `due` are those of the pending whose time has come, `oldest_due_at` when that of the first came.
    """

    tenant_id: str
    pending: int = 0
    due: int = 0
    oldest_due_at: datetime | None = None
    claimed: int = 0
    paused: int = 0
    error: int = 0


class StatusQueries:
    """Statements that count actions. Stateless, thread-safe; they lock nothing, and read every row they count."""

    def __init__(self, database: Database) -> None:
        actions = self._actions = database.tables.scheduled_actions.c
        is_due = and_(actions.status == PENDING, actions.run_at <= bindparam("now", type_=Instant))
        self._by_tenant = (
            select(
                actions.tenant_id,
                _count(actions.status == PENDING),
                _count(is_due),
                func.min(case((is_due, actions.run_at)), type_=Instant),
                _count(actions.status == CLAIMED),
                _count(actions.status == PAUSED),
                _count(actions.status == ERROR),
            )
            .where(or_(actions.status.in_([PENDING, CLAIMED, PAUSED]), actions.status == ERROR))
            .group_by(actions.tenant_id)
            .order_by(actions.tenant_id)
        )
        self._pauses = database.tables.pauses
        due = [
            self._counted(is_due, actions.action_type == literal_column(f"'{kind}'", Text))
            for kind in (ActionType.TIMEOUT, ActionType.SEND)
        ]
        self._now = (
            *(("due", statement) for statement in due),
            ("claimed", self._counted(actions.status == CLAIMED)),
            ("error", self._counted(actions.status == ERROR)),
        )
        self._instances = (
            select(actions.claimed_by).where(actions.status == CLAIMED).distinct().order_by(actions.claimed_by)
        )

    def by_tenant(self, transaction: Transaction) -> list[WorkCount]:
        """The tenants that have anything waiting, held or in error, by name."""
        rows = transaction.connection.execute(self._by_tenant, {"now": transaction.now})
        return [WorkCount(*row) for row in rows]

    def now_by_tenant(self, transaction: Transaction) -> list[WorkCount]:
        """What is due, claimed and in error, by tenant: what is pending and paused isn't counted."""
        parameters = {"now": transaction.now, "most": MOST_COUNTED}
        counts: dict[str, dict[str, Any]] = {}
        for name, statement in self._now:
            for tenant_id, count, first in transaction.connection.execute(statement, parameters):
                one = counts.setdefault(tenant_id, {})
                one[name] = one.get(name, 0) + count
                if name == "due":
                    one["oldest_due_at"] = min(first, one.get("oldest_due_at", first))
        return [WorkCount(tenant_id, **values) for tenant_id, values in sorted(counts.items())]

    def wide_pauses(self, transaction: Transaction) -> list[Pause]:
        """What is paused of everything, of tenants, and of mails."""
        statement = select(*pause_columns(self._pauses)).where(self._pauses.c.scope.in_(_WIDE))
        ordered = statement.order_by(self._pauses.c.tenant_id, self._pauses.c.scope)
        return [to_pause(row) for row in transaction.connection.execute(ordered)]

    def _counted(self, *where: ColumnElement[bool]) -> Select[Any]:
        """By tenant, of at most so many rows, which an index has in the order of `run_at`, or in none."""
        actions = self._actions
        some = select(actions.tenant_id, actions.run_at).where(*where)
        found = some.limit(bindparam("most", type_=Integer)).subquery("found").c
        first = func.min(found.run_at, type_=Instant)
        return select(found.tenant_id, func.count(), first).group_by(found.tenant_id)

    def instances(self, transaction: Transaction) -> list[str]:
        """Those who hold claims at this moment; one that is idle holds none."""
        return [str(owner) for owner in transaction.connection.execute(self._instances).scalars()]


def _count(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((condition, literal_column("1", Integer)), else_=literal_column("0", Integer)), type_=Integer)
