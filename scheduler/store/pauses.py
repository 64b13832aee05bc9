"""`pauses`: what is paused, since when, and by whom.

A pause of a tenant, or of everything, is one row, and touches no action when it begins: whoever meets a due action
turns it `paused` then. Nobody may do so once the pause is lifted, or the action would wait for ever; so he holds the
pause's row by a lock (FOR KEY SHARE) until he commits, and lifting, which deletes that row, waits for him.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Row, Table, Text, and_, bindparam, delete, literal_column, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.domain.pausing import Pause, Paused, Scope
from scheduler.store.database import Transaction
from scheduler.store.rows import RowSource, look_up
from scheduler.store.tables import Layout

Key = tuple[str, str]

_ALL_TENANTS = ""
SENDS = literal_column("'sends'", Text)
WIDE = (literal_column("'all'", Text), literal_column("'tenant'", Text))


class Pauses:
    """Statements on pauses. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.tables.pauses
        self._make_insert = postgresql.insert if layout.is_postgresql else sqlite.insert
        pauses = self._table.c
        self._tenants = RowSource(layout.dialect_name, {"tenant_id": Text})
        of_tenant = and_(pauses.tenant_id == self._tenants.c.tenant_id, is_wide(self._table))
        self._hold_wide = self._holding(of_tenant)
        sends = and_(pauses.tenant_id == self._tenants.c.tenant_id, holds_sends(self._table))
        self._hold_sends = self._holding(sends)

    def begin(
        self,
        transaction: Transaction,
        scope: str,
        campaign: Key,
        dedupe_key: str = "",
        actor: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Note the start of a pause; one that already holds keeps its start. Whether it is new."""
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
        begun = transaction.connection.execute(statement.returning(self._table.c.scope), values)
        return begun.first() is not None

    def end(self, transaction: Transaction, scope: str, campaign: Key, dedupe_key: str = "") -> datetime | None:
        """Lift a pause; returns when it began, None where there was none. Waits for whoever turns an action paused."""
        statement = delete(self._table).where(self._is_one(scope, campaign, dedupe_key))
        return transaction.connection.execute(statement.returning(self._table.c.started_at)).scalar_one_or_none()

    def find(self, transaction: Transaction, paused: Paused) -> Pause | None:
        """The pause of that scope."""
        statement = select(*pause_columns(self._table)).where(self._is_one(paused.scope, paused.key))
        row = transaction.connection.execute(statement).first()
        return None if row is None else to_pause(row)

    def lock(self, transaction: Transaction, paused: Paused) -> Pause | None:
        """The pause of that scope, for whoever is to lift it: another who wants to waits, and finds none.

        Until it is lifted actions go on being turned `paused`.
        """
        statement = select(*pause_columns(self._table)).where(self._is_one(paused.scope, paused.key))
        row = transaction.connection.execute(statement.with_for_update(key_share=True)).first()
        return None if row is None else to_pause(row)

    def _holding(self, where: ColumnElement[bool]) -> Any:
        tenant_id = self._table.c.tenant_id
        return look_up(self._tenants, self._table, [tenant_id], where, lock=True, skip_locked=True, for_share=True)

    def hold_wide(self, transaction: Transaction, tenant_ids: Iterable[str]) -> set[str]:
        """Those of the tenants that are paused, by themselves or with everything, and stay so until we commit.

        Never waits: a pause that is being lifted holds nobody.
        """
        return self._hold(transaction, self._hold_wide, tenant_ids)

    def hold_sends(self, transaction: Transaction, tenant_ids: Iterable[str]) -> set[str]:
        """The same, of those whose mails are paused by themselves."""
        return self._hold(transaction, self._hold_sends, tenant_ids)

    def _hold(self, transaction: Transaction, statement: Any, tenant_ids: Iterable[str]) -> set[str]:
        wanted = set(tenant_ids)
        if not wanted:
            return wanted
        rows = [(tenant_id,) for tenant_id in sorted({*wanted, _ALL_TENANTS})]
        held = set(transaction.connection.execute(statement, self._tenants.bind(rows)).scalars())
        return wanted if _ALL_TENANTS in held else wanted & held

    def select(self, transaction: Transaction, tenant_id: str | None) -> list[Pause]:
        """What is paused, the widest first; of one tenant: what holds anything of it."""
        pauses = self._table.c
        statement = select(*pause_columns(self._table))
        if tenant_id is not None:
            statement = statement.where(or_(pauses.tenant_id == bindparam("tenant"), pauses.tenant_id == _ALL_TENANTS))
        parameters = {} if tenant_id is None else {"tenant": tenant_id}
        found = [to_pause(row) for row in transaction.connection.execute(statement, parameters)]
        widths = list(Scope)
        return sorted(
            found,
            key=lambda one: (
                widths.index(Scope(one.scope)),
                one.tenant_id or "",
                one.campaign_id or "",
                one.dedupe_key or "",
            ),
        )

    def _is_one(self, scope: str, campaign: Key, dedupe_key: str = "") -> ColumnElement[bool]:
        pauses = self._table.c
        return and_(
            pauses.tenant_id == campaign[0],
            pauses.campaign_id == campaign[1],
            pauses.scope == scope,
            pauses.dedupe_key == dedupe_key,
        )


def is_wide(pauses: Table) -> ColumnElement[bool]:
    """The pause is a tenant's, or of everything: found by the tenant ('' for all) through the primary key."""
    return and_(pauses.c.campaign_id == literal_column("''", Text), pauses.c.scope.in_(WIDE))


def holds_sends(pauses: FromClause) -> ColumnElement[bool]:
    """The pause is one of mails alone, a tenant's or everybody's ('')."""
    return and_(pauses.c.campaign_id == literal_column("''", Text), pauses.c.scope == SENDS)


def pause_columns(pauses: Table) -> list[ColumnElement[Any]]:
    """The columns of a `Pause`, as `to_pause` takes them."""
    names = ("scope", "started_at", "actor", "reason", "dedupe_key", "tenant_id", "campaign_id")
    return [pauses.c[name] for name in names]


def to_pause(row: Row[Any]) -> Pause:
    """One row of `pause_columns` as a value."""
    values: Sequence[Any] = row
    scope, started_at, actor, reason, *keys = values
    return Pause(scope, started_at, actor, reason, *(key or None for key in keys))
