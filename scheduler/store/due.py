"""Whose turn it is: the tenants with something due. Reads no more than it was asked for, however much is pending."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    Integer,
    Select,
    Text,
    bindparam,
    literal_column,
    select,
    true,
)

from scheduler.domain.action import ActionType
from scheduler.store.claim_clock import ClaimClock
from scheduler.store.database import Transaction
from scheduler.store.statuses import PENDING, is_pending_of_tenant
from scheduler.store.tables import Layout

# Tenants that have something pending, in the order of the walk, each with whether any of it is due.
Walked = Sequence[tuple[str, bool]]


class Due:
    """Statements on what is due. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._table = layout.tables.scheduled_actions
        self._clock = ClaimClock(layout)
        self._walk = self._walk_statement()
        self._newest = self._newest_statement()

    def walk(self, transaction: Transaction, action_type: ActionType, after: str, most: int) -> Walked:
        """The next `most` tenants behind `after` ('': from the first). One index probe for each."""
        parameters = {"kind": action_type, "after": after, "most": most, **self._clock.due_parameters(transaction)}
        rows = transaction.connection.execute(self._walk, parameters)
        return [(tenant_id, bool(is_due)) for tenant_id, is_due in rows]

    def newest(self, transaction: Transaction, action_type: ActionType, most: int) -> list[str]:
        """The tenants of the `most` actions that fell due last."""
        parameters = {"kind": action_type, "most": most, **self._clock.due_parameters(transaction)}
        return list(transaction.connection.execute(self._newest, parameters).scalars())

    def _walk_statement(self) -> Any:
        walk = self._lateral_walk() if self._layout.is_postgresql else self._scalar_walk()
        is_due = (walk.c.run_at <= self._clock.due()).label("is_due")
        return select(walk.c.tenant_id, is_due).where(walk.c.tenant_id.is_not(None)).order_by(walk.c.place)

    def _newest_statement(self) -> Any:
        actions = self._table.c
        newest = (
            select(actions.tenant_id)
            .where(actions.status == PENDING, actions.action_type == bindparam("kind", type_=Text))
            .where(actions.run_at <= self._clock.due())
            .order_by(actions.run_at.desc())
            .limit(bindparam("most", type_=Integer))
            .subquery("newest")
        )
        return select(newest.c.tenant_id).distinct()

    def _pending(self, table: Any, *columns: Any) -> Select[Any]:
        kind = bindparam("kind", type_=Text)
        return select(*columns).where(is_pending_of_tenant(table.c.status), table.c.action_type == kind)

    def _lateral_walk(self) -> CTE:
        """Each tenant's first entry leads to the next tenant's."""

        def first_behind(tenant_id: Any) -> Select[Any]:
            table = self._table.alias()
            entries = self._pending(table, table.c.tenant_id, table.c.run_at).where(table.c.tenant_id > tenant_id)
            return entries.order_by(table.c.tenant_id, table.c.run_at).limit(1)

        first = first_behind(bindparam("after", type_=Text)).subquery("first")
        walk = select(first.c.tenant_id, first.c.run_at, literal_column("1", Integer).label("place")).cte(
            "walk", recursive=True
        )
        following = first_behind(walk.c.tenant_id).lateral("following")
        step = select(following.c.tenant_id, following.c.run_at, walk.c.place + literal_column("1"))
        more = walk.c.place < bindparam("most", type_=Integer)
        return walk.union_all(step.select_from(walk.join(following, true())).where(more))

    def _scalar_walk(self) -> CTE:
        """The same without LATERAL: a probe for the tenant, and one for its first entry. Ends with a NULL."""

        def tenant_behind(tenant_id: Any) -> Any:
            table = self._table.alias()
            entries = self._pending(table, table.c.tenant_id).where(table.c.tenant_id > tenant_id)
            return entries.order_by(table.c.tenant_id).limit(1).scalar_subquery()

        after = bindparam("after", type_=Text)
        walk = select(tenant_behind(after).label("tenant_id"), literal_column("1", Integer).label("place")).cte(
            "walk", recursive=True
        )
        step = select(tenant_behind(walk.c.tenant_id), walk.c.place + literal_column("1"))
        more = (walk.c.tenant_id.is_not(None), walk.c.place < bindparam("most", type_=Integer))
        walk = walk.union_all(step.where(*more))
        table = self._table.alias()
        entries = self._pending(table, table.c.run_at).where(table.c.tenant_id == walk.c.tenant_id)
        first = entries.order_by(table.c.run_at).limit(1).scalar_subquery()
        return select(walk.c.tenant_id, walk.c.place, first.label("run_at")).cte("walked")
