"""`pauses`: what is paused, since when, and by whom."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.store.database import Database, Transaction

Key = tuple[str, str]


class Pauses:
    """Statements on pauses. Stateless, thread-safe."""

    def __init__(self, database: Database) -> None:
        self._table = database.tables.pauses
        self._make_insert = postgresql.insert if database.is_postgresql else sqlite.insert

    def begin(
        self,
        transaction: Transaction,
        scope: str,
        campaign: Key,
        dedupe_key: str = "",
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Note the start of a pause; one that already holds keeps its start."""
        statement = self._make_insert(self._table).on_conflict_do_nothing()
        values = {
            "tenant_id": campaign[0],
            "campaign_id": campaign[1],
            "scope": scope,
            "dedupe_key": dedupe_key,
            "started_at": transaction.now,
            "actor": actor,
            "reason": reason,
        }
        transaction.connection.execute(statement, values)

    def end(self, transaction: Transaction, scope: str, campaign: Key, dedupe_key: str = "") -> datetime | None:
        """Lift a pause; returns when it began, None where there was none."""
        pauses = self._table.c
        statement = (
            delete(self._table)
            .where(pauses.tenant_id == campaign[0], pauses.campaign_id == campaign[1])
            .where(pauses.scope == scope, pauses.dedupe_key == dedupe_key)
            .returning(pauses.started_at)
        )
        return transaction.connection.execute(statement).scalar_one_or_none()

    def held_actions(self, transaction: Transaction, campaign: Key) -> set[str]:
        """The keys of actions of a campaign that are paused one by one."""
        pauses = self._table.c
        statement = (
            select(pauses.dedupe_key)
            .where(pauses.tenant_id == campaign[0], pauses.campaign_id == campaign[1])
            .where(pauses.scope == "action")
        )
        return set(transaction.connection.execute(statement).scalars())
