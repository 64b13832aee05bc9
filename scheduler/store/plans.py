"""`campaign_plans`: immutable, addressed by the hash of their content, parsed once per process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Text, and_, select, true
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.domain.plan import CampaignPlan, TimerDefaults
from scheduler.store.database import Database, Transaction
from scheduler.store.rows import RowSource

PlanKey = tuple[str, str]

_REMEMBERED: Final = 1000


class Plans:
    """Statements on plans, with a bounded memory of parsed ones. Thread-safe."""

    def __init__(self, database: Database, timer_defaults: TimerDefaults) -> None:
        self._table = database.tables.campaign_plans
        self._timer_defaults = timer_defaults
        self._keys = RowSource(database.dialect_name, {"tenant_id": Text, "plan_hash": Text})
        self._parsed: OrderedDict[PlanKey, CampaignPlan] = OrderedDict()
        self._lock = threading.Lock()
        self._columns = ("tenant_id", "plan_hash", "plan", "name", "created_at")
        self._new = RowSource(database.dialect_name, {name: self._table.c[name].type for name in self._columns})
        make = postgresql.insert if database.is_postgresql else sqlite.insert
        self._insert = (
            make(self._table)
            .from_select(list(self._columns), select(*(self._new.c[name] for name in self._columns)).where(true()))
            .on_conflict_do_nothing(index_elements=[self._table.c.tenant_id, self._table.c.plan_hash])
        )

    def insert(self, transaction: Transaction, plans: Iterable[tuple[str, CampaignPlan]]) -> None:
        """Store each (tenant, plan) that isn't there yet."""
        rows = sorted(
            {(tenant, plan.hash): (tenant, plan.hash, plan.document, plan.name) for tenant, plan in plans}.values(),
            key=lambda row: row[:2],
        )
        if rows:
            transaction.connection.execute(self._insert, self._new.bind([(*row, transaction.now) for row in rows]))

    def load(self, transaction: Transaction, keys: Iterable[PlanKey]) -> dict[PlanKey, CampaignPlan]:
        """Those of the plans that exist; at most one statement, none when all are remembered.

        Raises InvalidPlanError when a stored plan no longer parses (somebody edited the row).
        """
        wanted = set(keys)
        with self._lock:
            found = {key: self._parsed[key] for key in wanted if key in self._parsed}
        missing = sorted(wanted - found.keys())
        if missing:
            found.update(self._read(transaction, missing))
        return found

    def any_sends(self, transaction: Transaction) -> bool:
        """Whether any stored plan has a send node."""
        statement = select(self._table.c.tenant_id).where(self._table.c.plan.like('%"action":"send"%')).limit(1)
        return transaction.connection.execute(statement).first() is not None

    def _read(self, transaction: Transaction, keys: list[PlanKey]) -> dict[PlanKey, CampaignPlan]:
        plans = self._table.c
        statement = select(plans.tenant_id, plans.plan_hash, plans.plan).join(
            self._keys.table,
            and_(plans.tenant_id == self._keys.c.tenant_id, plans.plan_hash == self._keys.c.plan_hash),
        )
        rows = transaction.connection.execute(statement, self._keys.bind(keys)).all()
        read = {(tenant, plan_hash): CampaignPlan.parse(text, self._timer_defaults) for tenant, plan_hash, text in rows}
        with self._lock:
            self._parsed.update(read)
            while len(self._parsed) > _REMEMBERED:
                self._parsed.popitem(last=False)
        return read
