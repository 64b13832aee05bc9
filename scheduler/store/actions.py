"""`scheduled_actions`: schedule and look up. Changes are in `action_changes` and `action_edits`, claims in `claims`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import datetime
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Text, and_, bindparam, func, literal_column, or_, select, true
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.domain.action import NewAction, ScheduledAction, UnfinishedAction
from scheduler.store.database import Transaction
from scheduler.store.prepared import Prepared
from scheduler.store.rows import RowSource, look_up
from scheduler.store.statuses import UNFINISHED
from scheduler.store.tables import Instant, Layout, Tables

Key = tuple[str, str]

_INSERTED: Final = NewAction._fields
_FIELDS: Final = tuple(field.name for field in fields(ScheduledAction))
_BY_KEY: Final = itemgetter(0, 1)
_DATED: Final = ("created_at", "updated_at")
# By the given clock, where there is one. Not named as a column: an update in the same statement would set that.
_CREATED_AT: Final = func.coalesce(bindparam("born_at", type_=Instant), func.current_timestamp(), type_=Instant)


def action_columns(tables: Tables, names: Iterable[str] = _FIELDS) -> list[ColumnElement[Any]]:
    """The columns of a `ScheduledAction`, in the order of its fields (or these of them)."""
    actions = tables.scheduled_actions.c
    columns: dict[str, ColumnElement[Any]] = {column.name: column for column in actions}
    columns["deadline"] = func.coalesce(actions.deadline, actions.run_at, type_=Instant).label("deadline")
    return [columns[name] for name in names]


def to_action(row: Sequence[Any]) -> ScheduledAction:
    """One row of `action_columns` as a value. Set directly: a frozen value's own way is several times as long."""
    action = object.__new__(ScheduledAction)
    action.__dict__.update(zip(_FIELDS, row, strict=True), key=(row[0], row[1]))
    return action


class Actions:
    """Inserts and reads. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.tables.scheduled_actions
        self._columns = action_columns(layout.tables)
        actions = self._table.c
        name = layout.dialect_name
        self._new = RowSource(name, {column: actions[column].type for column in _INSERTED}, "new_actions")
        self.insert_statement = self._insert_statement(name)
        self._insert = Prepared(self.insert_statement)
        self._find = select(*self._columns).where(
            actions.tenant_id == bindparam("tenant"), actions.dedupe_key == bindparam("key")
        )
        self._keys = RowSource(name, {"tenant_id": Text, "dedupe_key": Text})
        of_key = and_(actions.tenant_id == self._keys.c.tenant_id, actions.dedupe_key == self._keys.c.dedupe_key)
        self._find_many = Prepared(look_up(self._keys, self._table, self._columns, of_key))
        key = [actions.tenant_id, actions.dedupe_key]
        self._hold = look_up(self._keys, self._table, key, of_key, lock=True, for_share=True)
        self._campaigns = RowSource(name, {"tenant_id": Text, "campaign_id": Text})
        of_campaign = and_(
            actions.tenant_id == self._campaigns.c.tenant_id,
            actions.campaign_id == self._campaigns.c.campaign_id,
            actions.status.in_(UNFINISHED),
        )
        self._unfinished = look_up(self._campaigns, self._table, self._columns, of_campaign)
        needed = action_columns(layout.tables, UnfinishedAction._fields)
        self._to_decide = Prepared(look_up(self._campaigns, self._table, needed, of_campaign))

    def _insert_statement(self, dialect_name: str) -> Any:
        make = postgresql.insert if dialect_name == "postgresql" else sqlite.insert
        actions = self._table.c
        return (
            make(self._table)
            .from_select(
                [*_INSERTED, *_DATED],
                select(*(self._new.c[name] for name in _INSERTED), *(_CREATED_AT for _ in _DATED)).where(true()),
            )
            .on_conflict_do_nothing(index_elements=[actions.tenant_id, actions.dedupe_key])
            .returning(actions.tenant_id, actions.dedupe_key)
        )

    def insert(self, transaction: Transaction, rows: Sequence[NewAction]) -> set[Key]:
        """Insert what is not there yet; returns the keys that are new. A key that exists is left as it is.

        A twin at work on the same keys is waited for; in key order, so that two don't wait for each other.
        """
        if not rows:
            return set()
        transaction.database.due_at(transaction, min(row.run_at for row in rows))
        inserted = self._insert.rows(transaction, self.insert_parameters(transaction, rows))
        return {(tenant, key) for tenant, key in inserted}

    def insert_parameters(self, transaction: Transaction, rows: Iterable[NewAction]) -> dict[str, Any]:
        """What `insert_statement` needs."""
        ordered = sorted(rows, key=_BY_KEY)
        clock = transaction.database.clock
        return {**self._new.bind(map(tuple, ordered)), "born_at": None if clock is None else transaction.now}

    def find(self, transaction: Transaction, key: Key) -> ScheduledAction | None:
        """The action of that key."""
        row = transaction.connection.execute(self._find, {"tenant": key[0], "key": key[1]}).first()
        return None if row is None else to_action(row)

    def find_many(self, transaction: Transaction, keys: Iterable[Key]) -> dict[Key, ScheduledAction]:
        """The actions of those keys that exist."""
        found = map(to_action, self._find_many.rows(transaction, self._keys.bind(keys)))
        return {action.key: action for action in found}

    def hold(self, transaction: Transaction, keys: Iterable[Key]) -> set[Key]:
        """Those that exist, and can't be removed until we commit. Waits for whoever is removing one."""
        return {(tenant, key) for tenant, key in transaction.rows(self._hold, self._keys.bind(sorted(keys)))}

    def unfinished(self, transaction: Transaction, campaigns: Iterable[Key]) -> list[ScheduledAction]:
        """Everything still to come for those campaigns."""
        return [to_action(row) for row in transaction.rows(self._unfinished, self._campaigns.bind(campaigns))]

    def to_decide(self, transaction: Transaction, campaigns: Iterable[Key]) -> list[UnfinishedAction]:
        """The same, as much of it as a decision needs."""
        rows = self._to_decide.rows(transaction, self._campaigns.bind(campaigns))
        return [UnfinishedAction._make(row) for row in rows]

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
        return [to_action(row) for row in transaction.rows(statement, {})]
