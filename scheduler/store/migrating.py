"""Questions and locks of a migration from plan to plan. What it writes, `DecisionWriter` writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Integer, Text, and_, bindparam, literal_column, select, update

from scheduler.domain.campaign import CampaignStatus
from scheduler.store.database import Transaction
from scheduler.store.rows import RowSource, look_up
from scheduler.store.statuses import UNFINISHED
from scheduler.store.tables import Layout

Key = tuple[str, str]

_UNFINISHED_CAMPAIGN: Final = (CampaignStatus.ACTIVE, CampaignStatus.PAUSED)


class Migrating:
    """Statements for moving campaigns to another plan. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        tables = layout.tables
        self._plans = tables.campaign_plans.c
        self._campaigns = tables.contact_campaigns.c
        self._actions = tables.scheduled_actions
        self._pauses = tables.pauses
        name = layout.dialect_name
        self._keys = RowSource(name, {"tenant_id": Text, "campaign_id": Text})
        self._renamed = RowSource(name, {"tenant_id": Text, "campaign_id": Text, "old_key": Text, "new_key": Text})
        self._standing = self._standing_statement()
        self._batch = self._batch_statement()
        self._lock_sends = self._lock_sends_statement()
        self._held = self._held_statement()
        self._rename_held = self._rename_held_statement()

    def standing(self, transaction: Transaction, tenant_id: str, plan_hash: str) -> list[str]:
        """The nodes at which unfinished campaigns of that plan stand."""
        parameters = {"tenant": tenant_id, "hash": plan_hash}
        return list(transaction.connection.execute(self._standing, parameters).scalars())

    def batch(self, transaction: Transaction, tenant_id: str, plan_hash: str, after: str, limit: int) -> list[Key]:
        """The next unfinished campaigns of that plan behind campaign `after`, by key. Locks nothing."""
        parameters = {"tenant": tenant_id, "hash": plan_hash, "after": after, "most": limit}
        return [(tenant_id, key) for key in transaction.connection.execute(self._batch, parameters).scalars()]

    def lock_sends(self, transaction: Transaction, campaigns: Iterable[Key]) -> set[Key]:
        """Lock the unfinished sends of these campaigns; returns the keys of those that nobody else has locked.

        Lock: until commit nobody claims them. A claim skips them; one that was faster has left them as `claimed`, or
        has its row locked and isn't waited for.
        """
        rows = transaction.connection.execute(self._lock_sends, self._keys.bind(sorted(campaigns)))
        return {(tenant, key) for tenant, key in rows}

    def held(self, transaction: Transaction, campaigns: Iterable[Key]) -> dict[Key, set[str]]:
        """The dedupe keys of actions paused one by one, by campaign."""
        found: dict[Key, set[str]] = defaultdict(set)
        rows = transaction.connection.execute(self._held, self._keys.bind(sorted(campaigns)))
        for tenant_id, campaign_id, dedupe_key in rows:
            found[tenant_id, campaign_id].add(dedupe_key)
        return found

    def rename_held(self, transaction: Transaction, rows: Sequence[tuple[str, str, str, str]]) -> None:
        """Pauses of single actions hold for the actions that replace them: (tenant, campaign, old key, new key)."""
        if rows:
            transaction.connection.execute(self._rename_held, self._renamed.bind(rows))

    def plans_like(self, transaction: Transaction, prefix: str, tenant_id: str | None = None) -> list[Key]:
        """The stored plans, of one tenant or all, whose hash begins so: (tenant, hash). `prefix` is hexadecimal."""
        plans = self._plans
        statement = select(plans.tenant_id, plans.plan_hash).where(plans.plan_hash.like(f"{prefix}%"))
        if tenant_id is not None:
            statement = statement.where(plans.tenant_id == tenant_id)
        found = transaction.connection.execute(statement.order_by(plans.tenant_id, plans.plan_hash))
        return [(tenant, plan_hash) for tenant, plan_hash in found]

    def _of_plan(self) -> Any:
        campaigns = self._campaigns
        return and_(
            campaigns.tenant_id == bindparam("tenant", type_=Text),
            campaigns.plan_hash == bindparam("hash", type_=Text),
            campaigns.status.in_(_UNFINISHED_CAMPAIGN),
        )

    def _standing_statement(self) -> Any:
        node = self._campaigns.current_node_id
        return select(node).where(self._of_plan()).group_by(node).order_by(node)

    def _batch_statement(self) -> Any:
        """Through the primary key, from where the last batch ended."""
        key = self._campaigns.campaign_id
        behind = key > bindparam("after", type_=Text)
        return select(key).where(self._of_plan(), behind).order_by(key).limit(bindparam("most", type_=Integer))

    def _lock_sends_statement(self) -> Any:
        actions, given = self._actions.c, self._keys.c
        where = and_(
            actions.tenant_id == given.tenant_id,
            actions.campaign_id == given.campaign_id,
            actions.status.in_(UNFINISHED),
            actions.action_type == literal_column("'send'", Text),
        )
        columns = [actions.tenant_id, actions.dedupe_key]
        return look_up(self._keys, self._actions, columns, where, lock=True, skip_locked=True)

    def _held_statement(self) -> Any:
        pauses, given = self._pauses.c, self._keys.c
        where = and_(
            pauses.tenant_id == given.tenant_id,
            pauses.campaign_id == given.campaign_id,
            pauses.scope == literal_column("'action'", Text),
        )
        return look_up(self._keys, self._pauses, [pauses.tenant_id, pauses.campaign_id, pauses.dedupe_key], where)

    def _rename_held_statement(self) -> Any:
        pauses, given = self._pauses.c, self._renamed.c
        return (
            update(self._pauses)
            .where(pauses.tenant_id == given.tenant_id, pauses.campaign_id == given.campaign_id)
            .where(pauses.scope == literal_column("'action'", Text), pauses.dedupe_key == given.old_key)
            .values(dedupe_key=given.new_key)
        )
