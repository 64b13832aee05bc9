"""`scheduled_actions`: reading, scheduling and changing actions by hand. What is claimed and fired is in `claims`.

Whoever changes actions of a campaign locks the campaign's row first (`campaigns.lock`), so that a decision about
the campaign and a change of its actions never cross.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.domain.action import ScheduledAction
from scheduler.store.database import Database, Transaction
from scheduler.store.rows import RowSource
from scheduler.store.tables import Instant, Tables

Key = tuple[str, str]

PENDING: Final = literal_column("'pending'", Text)
PAUSED: Final = literal_column("'paused'", Text)
CANCELED: Final = literal_column("'canceled'", Text)
ERROR: Final = literal_column("'error'", Text)


def action_columns(tables: Tables) -> list[ColumnElement[Any]]:
    """The columns of a `ScheduledAction`, in the order of its fields."""
    actions = tables.scheduled_actions.c
    columns: dict[str, ColumnElement[Any]] = {column.name: column for column in actions}
    columns["deadline"] = func.coalesce(actions.deadline, actions.run_at, type_=Instant).label("deadline")
    return [columns[field.name] for field in fields(ScheduledAction)]


def to_action(row: Row[Any]) -> ScheduledAction:
    """One row of `action_columns` as a value."""
    values: Sequence[Any] = row
    return ScheduledAction(*values)


class Actions:
    """Statements on `scheduled_actions` that nobody's claim is needed for. Stateless, thread-safe."""

    def __init__(self, database: Database) -> None:
        self._table = database.tables.scheduled_actions
        self._columns = action_columns(database.tables)
        actions = self._table.c
        name = database.dialect_name
        self._new = RowSource(name, {column: actions[column].type for column in _INSERTED})
        self._insert = self._insert_statement(name)
        self._key = and_(actions.tenant_id == bindparam("tenant"), actions.dedupe_key == bindparam("key"))
        self._unfinished = actions.status.in_([literal_column(f"'{status}'") for status in _UNFINISHED])
        self._keys = RowSource(name, {"tenant_id": Text, "dedupe_key": Text})
        self._campaigns = RowSource(name, {"tenant_id": Text, "campaign_id": Text})
        self._left = RowSource(name, {"tenant_id": Text, "campaign_id": Text, "left_visit": Integer, "fired_key": Text})
        self._visit_events = RowSource(
            name,
            {
                "tenant_id": Text,
                "campaign_id": Text,
                "node_visit": Integer,
                "event_type": Text,
                "instant": Instant,
                "run_at": Instant,
            },
        )

    def _insert_statement(self, dialect_name: str) -> Any:
        make = postgresql.insert if dialect_name == "postgresql" else sqlite.insert
        actions = self._table.c
        return (
            make(self._table)
            .from_select(list(_INSERTED), select(*(self._new.c[name] for name in _INSERTED)).where(true()))
            .on_conflict_do_nothing(index_elements=[actions.tenant_id, actions.dedupe_key])
            .returning(actions.tenant_id, actions.dedupe_key)
        )

    def insert(self, transaction: Transaction, rows: Sequence[Mapping[str, Any]]) -> set[Key]:
        """Insert what is not there yet; returns the keys that are new. A key that exists is left as it is."""
        if not rows:
            return set()
        given = ([row.get(name) for name in _INSERTED] for row in rows)
        return {(tenant, key) for tenant, key in transaction.connection.execute(self._insert, self._new.bind(given))}

    def find(self, transaction: Transaction, key: Key) -> ScheduledAction | None:
        """The action of that key."""
        row = transaction.connection.execute(select(*self._columns).where(self._key), _key(key)).first()
        return None if row is None else to_action(row)

    def find_many(self, transaction: Transaction, keys: Iterable[Key]) -> dict[Key, ScheduledAction]:
        """The actions of those keys that exist."""
        actions = self._table.c
        statement = select(*self._columns).join(
            self._keys.table,
            and_(actions.tenant_id == self._keys.c.tenant_id, actions.dedupe_key == self._keys.c.dedupe_key),
        )
        found = map(to_action, transaction.connection.execute(statement, self._keys.bind(keys)))
        return {action.key: action for action in found}

    def unfinished(self, transaction: Transaction, campaigns: Iterable[Key]) -> list[ScheduledAction]:
        """Everything still to come for those campaigns."""
        actions = self._table.c
        statement = (
            select(*self._columns)
            .join(
                self._campaigns.table,
                and_(
                    actions.tenant_id == self._campaigns.c.tenant_id,
                    actions.campaign_id == self._campaigns.c.campaign_id,
                ),
            )
            .where(self._unfinished)
        )
        return [to_action(row) for row in transaction.connection.execute(statement, self._campaigns.bind(campaigns))]

    def select(
        self,
        transaction: Transaction,
        *,
        tenant_id: str | None = None,
        campaign_id: str | None = None,
        node_id: str | None = None,
        statuses: Sequence[str] = (),
        action_type: str | None = None,
        due_before: datetime | None = None,
        limit: int = 100,
    ) -> list[ScheduledAction]:
        """Actions by what is asked for, the earliest due first."""
        actions = self._table.c
        statement: Select[Any] = select(*self._columns)
        wanted = {"tenant_id": tenant_id, "campaign_id": campaign_id, "node_id": node_id, "action_type": action_type}
        for name, value in wanted.items():
            if value is not None:
                statement = statement.where(actions[name] == value)
        if statuses:
            statement = statement.where(or_(*(actions.status == literal_column(f"'{status}'") for status in statuses)))
        if due_before is not None:
            statement = statement.where(actions.run_at <= due_before)
        statement = statement.order_by(actions.run_at, actions.tenant_id, actions.dedupe_key).limit(limit)
        return [to_action(row) for row in transaction.connection.execute(statement)]

    def cancel(self, transaction: Transaction, key: Key, reason: str | None) -> bool:
        """Cancel one unfinished action; False when there is none."""
        return bool(self._cancel_where(transaction, self._key, reason, **_key(key)))

    def cancel_node(self, transaction: Transaction, campaign: Key, node_id: str) -> int:
        """Cancel all that is unfinished for one node of one campaign."""
        where = and_(self._of_campaign(), self._table.c.node_id == bindparam("node"))
        return self._cancel_where(transaction, where, "node canceled", **_campaign(campaign), node=node_id)

    def cancel_campaign(self, transaction: Transaction, campaign: Key, reason: str = "campaign canceled") -> int:
        """Cancel all that is unfinished for one campaign."""
        return self._cancel_where(transaction, self._of_campaign(), reason, **_campaign(campaign))

    def cancel_left(self, transaction: Transaction, rows: Sequence[tuple[str, str, int, str | None]]) -> int:
        """Cancel what is unfinished of visits left: (tenant, campaign, last visit left, key that fires just now)."""
        if not rows:
            return 0
        actions, left = self._table.c, self._left.c
        where = and_(
            actions.tenant_id == left.tenant_id,
            actions.campaign_id == left.campaign_id,
            actions.node_visit <= left.left_visit,
            or_(left.fired_key.is_(None), actions.dedupe_key != left.fired_key),
        )
        return self._cancel_where(transaction, where, "visit left", **self._left.bind(rows))

    def cancel_answered(self, transaction: Transaction, rows: Sequence[tuple[str, str, int, str, datetime]]) -> int:
        """Cancel timeouts a real event answered: (tenant, campaign, visit, timeout, when the event occurred)."""
        if not rows:
            return 0
        actions = self._table.c
        where = and_(
            self._of_visit_event(), func.coalesce(actions.deadline, actions.run_at) >= self._visit_events.c.instant
        )
        given = self._visit_events.bind([(*row, None) for row in rows])
        return self._cancel_where(transaction, where, "event happened", **given)

    def retime(self, transaction: Transaction, rows: Sequence[tuple[str, str, int, str, datetime, datetime]]) -> int:
        """Move unfinished timeouts: (tenant, campaign, visit, timeout, new deadline, new run_at)."""
        if not rows:
            return 0
        given = self._visit_events.c
        statement = (
            update(self._table)
            .where(self._of_visit_event(), self._unfinished)
            .values(deadline=given.instant, run_at=given.run_at, updated_at=bindparam("at", type_=Instant))
        )
        parameters = {**self._visit_events.bind(rows), "at": transaction.now}
        return transaction.connection.execute(statement, parameters).rowcount

    def reschedule(self, transaction: Transaction, key: Key, run_at: datetime) -> bool:
        """Move a pending or paused action, its deadline with it; False when it is unknown, claimed or finished."""
        statement = (
            update(self._table)
            .where(self._key, self._table.c.status.in_([PENDING, PAUSED]))
            .values(
                run_at=bindparam("instant"), deadline=bindparam("instant"), updated_at=bindparam("at", type_=Instant)
            )
        )
        parameters = {**_key(key), "instant": run_at, "at": transaction.now}
        return transaction.connection.execute(statement, parameters).rowcount == 1

    def reopen(self, transaction: Transaction, key: Key) -> bool:
        """`error` → `pending`, due now, with its attempts forgotten."""
        statement = (
            update(self._table)
            .where(self._key, self._table.c.status == ERROR)
            .values(
                status=PENDING,
                attempts=0,
                outcome=None,
                finished_at=None,
                run_at=bindparam("at", type_=Instant),
                updated_at=bindparam("at", type_=Instant),
            )
        )
        return transaction.connection.execute(statement, {**_key(key), "at": transaction.now}).rowcount == 1

    def hold(self, transaction: Transaction, key: Key) -> bool:
        """`pending` or `claimed` → `paused`, keeping its `run_at`."""
        statement = self._set_status(self._key, [PENDING, literal_column("'claimed'")], PAUSED)
        return transaction.connection.execute(statement, {**_key(key), "at": transaction.now}).rowcount == 1

    def unhold(self, transaction: Transaction, key: Key, run_at: datetime) -> bool:
        """`paused` → `pending`, due at `run_at`."""
        statement = self._set_status(self._key, [PAUSED], PENDING).values(run_at=bindparam("instant", type_=Instant))
        parameters = {**_key(key), "instant": run_at, "at": transaction.now}
        return transaction.connection.execute(statement, parameters).rowcount == 1

    def hold_campaign(self, transaction: Transaction, campaign: Key) -> int:
        """Everything unfinished of a campaign becomes `paused`."""
        statement = self._set_status(self._of_campaign(), [PENDING, literal_column("'claimed'")], PAUSED)
        return transaction.connection.execute(statement, {**_campaign(campaign), "at": transaction.now}).rowcount

    def unhold_many(self, transaction: Transaction, rows: Sequence[tuple[str, str, str, datetime, datetime]]) -> int:
        """Give paused actions new instants: (tenant, key, status, deadline, run_at)."""
        if not rows:
            return 0
        actions = self._table.c
        source = RowSource(
            "postgresql" if transaction.database.is_postgresql else "sqlite",
            {"tenant_id": Text, "dedupe_key": Text, "status": Text, "deadline": Instant, "run_at": Instant},
        )
        statement = (
            update(self._table)
            .where(actions.tenant_id == source.c.tenant_id, actions.dedupe_key == source.c.dedupe_key)
            .where(actions.status == PAUSED)
            .values(
                status=source.c.status,
                deadline=source.c.deadline,
                run_at=source.c.run_at,
                updated_at=bindparam("at", type_=Instant),
            )
        )
        return transaction.connection.execute(statement, {**source.bind(rows), "at": transaction.now}).rowcount

    def _set_status(self, where: ColumnElement[bool], before: Sequence[Any], after: Any) -> Any:
        return (
            update(self._table)
            .where(where, self._table.c.status.in_(before))
            .values(status=after, updated_at=bindparam("at", type_=Instant))
        )

    def _of_campaign(self) -> ColumnElement[bool]:
        actions = self._table.c
        return and_(actions.tenant_id == bindparam("tenant"), actions.campaign_id == bindparam("campaign"))

    def _of_visit_event(self) -> ColumnElement[bool]:
        actions, given = self._table.c, self._visit_events.c
        return and_(
            actions.tenant_id == given.tenant_id,
            actions.campaign_id == given.campaign_id,
            actions.node_visit == given.node_visit,
            actions.event_type == given.event_type,
            actions.action_type == literal_column("'timeout'"),
        )

    def _cancel_where(
        self, transaction: Transaction, where: ColumnElement[bool], reason: str | None, **parameters: Any
    ) -> int:
        at = bindparam("at", type_=Instant)
        statement = (
            update(self._table)
            .where(where, self._unfinished)
            .values(
                status=CANCELED,
                outcome=bindparam("reason", type_=Text),
                finished_at=at,
                updated_at=at,
            )
        )
        given = {**parameters, "reason": reason, "at": transaction.now}
        return transaction.connection.execute(statement, given).rowcount


_UNFINISHED: Final = ("pending", "claimed", "paused")
_INSERTED: Final = (
    "tenant_id",
    "dedupe_key",
    "campaign_id",
    "contact_id",
    "node_id",
    "node_visit",
    "action_type",
    "event_type",
    "deadline",
    "run_at",
    "status",
)


def _key(key: Key) -> dict[str, str]:
    return {"tenant": key[0], "key": key[1]}


def _campaign(key: Key) -> dict[str, str]:
    return {"tenant": key[0], "campaign": key[1]}
