"""The processes that fire: who they are, and which of them are surely gone.

On PostgreSQL an instance's own session holds an advisory lock for as long as it lives, its presence: the server lets go
of it the moment the session ends, however it ends.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Text,
    and_,
    bindparam,
    cast,
    column,
    delete,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.store.database import Connection, Transaction
from scheduler.store.statuses import CLAIMED
from scheduler.store.tables import Instant, Layout

_BITS: Final = 63


@dataclass(frozen=True, slots=True)
class Instance:
    """One process that fires. `is_cut_off`: the session that it held its presence with is gone.

    `ended` actions since it began; `rate` of them a second, and at worst `lateness` seconds late, as of `progress_at`.
    """

    instance_id: str
    instance_name: str
    process_id: int
    process_mark: str | None
    started_at: datetime
    seen_at: datetime
    stopped_at: datetime | None
    ended: int
    rate: float | None
    lateness: float | None
    progress_at: datetime | None
    is_cut_off: bool


def new_presence() -> int:
    """The advisory lock of one session; never used again, so that it can't be somebody else's."""
    return secrets.randbits(_BITS)


def assert_presence(connection: Connection, presence: int) -> None:
    """Hold a presence from now on, for as long as the session lives."""
    connection.execute(select(func.pg_advisory_lock(bindparam("presence", presence, type_=BigInteger))))


class Instances:
    """Statements on `timeout_scheduler_instances`. Stateless, thread-safe. Instants are real time."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._table = layout.tables.instances
        self._claimed_by = self._claimants(layout.tables.scheduled_actions)
        self._note = self._note_statement()
        instances = self._table.c
        self._columns = [
            *(instances[name] for name in Instance.__dataclass_fields__ if name != "is_cut_off"),
            self._is_cut_off().label("is_cut_off"),
        ]

    def note_alive(
        self,
        transaction: Transaction,
        instance_id: str,
        instance_name: str,
        process_id: int,
        process_mark: str | None,
        presence: int | None,
    ) -> None:
        """Such a process fires, and holds this presence (None: none)."""
        values = {
            "instance_id": instance_id,
            "instance_name": instance_name,
            "process_id": process_id,
            "process_mark": process_mark,
            "presence": presence,
        }
        transaction.connection.execute(self._note, {**values, **self._real(transaction)})

    def note_progress(
        self, transaction: Transaction, instance_id: str, ended: int, rate: float, lateness: float
    ) -> None:
        """How it gets on."""
        instances = self._table.c
        statement = update(self._table).where(instances.instance_id == bindparam("noted"))
        values = {"ended": ended, "rate": rate, "lateness": lateness}
        statement = statement.values(**values, progress_at=self._real_now(), seen_at=self._real_now())
        transaction.connection.execute(statement, {"noted": instance_id, **self._real(transaction)})

    def note_stopped(self, transaction: Transaction, instance_id: str) -> None:
        """Such a process fires no more."""
        stopped = update(self._table).where(self._table.c.instance_id == bindparam("gone"))
        transaction.connection.execute(
            stopped.values(stopped_at=self._real_now()), {"gone": instance_id, **self._real(transaction)}
        )

    def select(self, transaction: Transaction, *, with_claims: bool = False) -> list[Instance]:
        """Every instance, the first started first; `with_claims`: only those that hold any."""
        statement = select(*self._columns).order_by(self._table.c.started_at, self._table.c.instance_id)
        if with_claims:
            statement = statement.where(self._table.c.instance_id.in_(self._claimed_by))
        return [Instance(*row) for row in transaction.connection.execute(statement)]

    def count_others(self, transaction: Transaction, instance_id: str, silent_for: timedelta) -> int:
        """How many other processes fire, as far as is known: neither stopped, nor cut off, nor silent for so long."""
        instances = self._table.c
        statement = select(func.count()).where(
            instances.instance_id != bindparam("own"),
            instances.stopped_at.is_(None),
            not_(self._is_cut_off()),
            instances.seen_at >= bindparam("long_ago", type_=Instant),
        )
        parameters = {"own": instance_id, "long_ago": self.read_real(transaction) - silent_for}
        return int(transaction.connection.execute(statement, parameters).scalar_one())

    def forget(self, transaction: Transaction, silent_for: timedelta) -> None:
        """Remove those that are gone and hold no claim any more: said goodbye, are cut off, or long silent.

        One that lives all the same is there again with its next sign of life.
        """
        instances = self._table.c
        silent = instances.seen_at < bindparam("long_ago", type_=Instant)
        gone = or_(instances.stopped_at.is_not(None), self._is_cut_off(), silent)
        statement = delete(self._table).where(gone, instances.instance_id.not_in(self._claimed_by))
        transaction.connection.execute(statement, {"long_ago": self.read_real(transaction) - silent_for})

    def _claimants(self, actions: Any) -> Any:
        return select(actions.c.claimed_by).where(actions.c.status == CLAIMED)

    def _note_statement(self) -> Any:
        insert = postgresql.insert if self._layout.is_postgresql else sqlite.insert
        statement = insert(self._table).values(
            instance_id=bindparam("instance_id", type_=Text),
            instance_name=bindparam("instance_name", type_=Text),
            process_id=bindparam("process_id", type_=Integer),
            process_mark=bindparam("process_mark", type_=Text),
            presence=bindparam("presence", type_=BigInteger),
            started_at=self._real_now(),
            seen_at=self._real_now(),
        )
        new = statement.excluded
        return statement.on_conflict_do_update(
            index_elements=["instance_id"],
            set_={"presence": new.presence, "seen_at": new.seen_at, "stopped_at": None},
        )

    def _is_cut_off(self) -> ColumnElement[bool]:
        """Whether nobody holds the advisory lock any more. One is listed as the two halves of its number."""
        if not self._layout.is_postgresql:
            return false()
        locks: FromClause = table(
            "pg_locks",
            *(column(name) for name in ("locktype", "database", "classid", "objid", "objsubid", "granted")),
            schema="pg_catalog",
        )
        databases = table("pg_database", column("oid"), column("datname"), schema="pg_catalog")
        here = select(databases.c.oid).where(databases.c.datname == func.current_database()).scalar_subquery()
        number = (
            cast(locks.c.classid, BigInteger).op("<<")(literal_column("32")).op("|")(cast(locks.c.objid, BigInteger))
        )
        held = select(number).where(
            locks.c.locktype == literal_column("'advisory'"),
            locks.c.objsubid == literal_column("1"),
            locks.c.granted,
            locks.c.database == here,
        )
        return and_(self._table.c.presence.is_not(None), not_(self._table.c.presence.in_(held)))

    def _real_now(self) -> Any:
        return func.statement_timestamp() if self._layout.is_postgresql else bindparam("real", type_=Instant)

    def _real(self, transaction: Transaction) -> dict[str, Any]:
        return {} if self._layout.is_postgresql else {"real": transaction.database.real_clock.now()}

    def read_real(self, transaction: Transaction) -> datetime:
        """The present in real time."""
        if self._layout.is_postgresql:
            now: datetime = transaction.connection.execute(select(func.statement_timestamp(type_=Instant))).scalar_one()
            return now
        return transaction.database.real_clock.now()
