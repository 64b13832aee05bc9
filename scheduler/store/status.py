"""How much is waiting, by tenant: read-only questions for operators. Each counts what the partial indexes hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, and_, bindparam, case, func, literal_column, or_, select

from scheduler.store.database import Database, Transaction
from scheduler.store.statuses import CLAIMED, ERROR, PAUSED, PENDING
from scheduler.store.tables import Instant


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
        self._instances = (
            select(actions.claimed_by).where(actions.status == CLAIMED).distinct().order_by(actions.claimed_by)
        )

    def by_tenant(self, transaction: Transaction) -> list[WorkCount]:
        """The tenants that have anything waiting, held or in error, by name."""
        rows = transaction.connection.execute(self._by_tenant, {"now": transaction.now})
        return [WorkCount(*row) for row in rows]

    def instances(self, transaction: Transaction) -> list[str]:
        """Those who hold claims at this moment; one that is idle holds none."""
        return [str(owner) for owner in transaction.connection.execute(self._instances).scalars()]


def _count(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((condition, literal_column("1", Integer)), else_=literal_column("0", Integer)), type_=Integer)
