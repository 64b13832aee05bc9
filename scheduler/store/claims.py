"""Claims: who fires what, for how long, and how it ends.

A claim is a lease, fenced by (owner, claim number): completing an action takes the very claim it was claimed with,
so a worker that lost its claim changes nothing. Claims use SKIP LOCKED and never wait for anybody. Leases run on
real time (PostgreSQL's own), never on a given clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Integer, Interval, Text, and_, bindparam, case, func, literal_column, select, update

from scheduler.domain.action import ActionType, ScheduledAction
from scheduler.store.actions import CANCELED, ERROR, PAUSED, PENDING, Key, action_columns, to_action
from scheduler.store.database import Database, Transaction
from scheduler.store.rows import RowSource
from scheduler.store.tables import Instant

CLAIMED: Final = literal_column("'claimed'", Text)
COMPLETED: Final = literal_column("'completed'", Text)


@dataclass(frozen=True, slots=True)
class Completion:
    """A claimed action that is done."""

    action: ScheduledAction
    outcome: str
    message_id: str | None = None
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Return:
    """A claimed action that is not done: what becomes of it."""

    action: ScheduledAction
    status: str
    run_at: datetime
    attempts: int
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class NextDue:
    """When the next pending timeout and the next pending send are due, by the clock that read `now`."""

    now: datetime
    timeout: datetime | None
    send: datetime | None


class Claims:
    """Statements on `scheduled_actions` that make, keep and end claims. Stateless, thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._table = database.tables.scheduled_actions
        self._columns = action_columns(database.tables)
        name = database.dialect_name
        key = {"tenant_id": Text, "dedupe_key": Text, "claim_number": Integer}
        self._done = RowSource(name, {**key, "outcome": Text})
        self._sent = RowSource(name, {**key, "outcome": Text, "message_id": Text, "sent_at": Instant})
        self._back = RowSource(
            name,
            {**key, "status": Text, "run_at": Instant, "attempts": Integer, "last_error": Text, "finished_at": Instant},
        )
        self._held = RowSource(name, key)
        self._claim = self._claim_statement()
        self._claim_key = self._claim_key_statement()
        self._next_due = self._next_due_statement()
        self._complete = self._complete_statement(self._done, CLAIMED, CANCELED)
        self._complete_sent = self._complete_statement(self._sent, CLAIMED)
        self._complete_unheld = self._complete_unheld_statement()
        self._note_sent = self._note_sent_statement()
        self._give_back = self._give_back_statement()
        self._lock = self._lock_statement()

    def claim(
        self, transaction: Transaction, action_type: ActionType, limit: int, owner: str, lease: timedelta
    ) -> list[ScheduledAction]:
        """Claim up to `limit` due actions for `owner`, the longest overdue first; none that somebody else holds."""
        parameters = {"kind": action_type, "most": limit, "owner": owner, **self._now(), **self._lease(lease)}
        claimed = [to_action(row) for row in transaction.connection.execute(self._claim, parameters)]
        return sorted(claimed, key=lambda action: (action.run_at, action.key))

    def claim_one(self, transaction: Transaction, key: Key, owner: str, lease: timedelta) -> ScheduledAction | None:
        """Claim one action if it is pending and due; None when it isn't, or somebody has it."""
        parameters = {"tenant": key[0], "key": key[1], "owner": owner, **self._now(), **self._lease(lease)}
        row = transaction.connection.execute(self._claim_key, parameters).first()
        return None if row is None else to_action(row)

    def next_due(self, transaction: Transaction) -> NextDue:
        """When there will be something to claim. Reads two index entries, however much is pending."""
        row = transaction.connection.execute(self._next_due, self._now()).one()
        return NextDue(*row)

    def complete(self, transaction: Transaction, owner: str, completions: Sequence[Completion]) -> set[Key]:
        """Finish timeouts still claimed by `owner` under the claim they were read with; returns their keys."""
        if not completions:
            return set()
        rows = [(*done.action.key, done.action.claim_number, done.outcome) for done in completions]
        return self._fenced(transaction, self._complete, owner, self._done.bind(rows))

    def complete_sent(self, transaction: Transaction, owner: str, completions: Sequence[Completion]) -> set[Key]:
        """Finish sends still claimed by `owner`; all of them get their message id and sent time, whoever holds them."""
        if not completions:
            return set()
        rows = [
            (*done.action.key, done.action.claim_number, done.outcome, done.message_id, done.sent_at)
            for done in completions
        ]
        given = self._sent.bind(rows)
        transaction.connection.execute(self._note_sent, {**given, "at": transaction.now})
        return self._fenced(transaction, self._complete_sent, owner, given)

    def complete_sent_unheld(self, transaction: Transaction, completions: Sequence[Completion]) -> set[Key]:
        """The same whoever claimed them: for an application that sends by itself, with the campaigns locked."""
        rows = [
            (*done.action.key, done.action.claim_number, done.outcome, done.message_id, done.sent_at)
            for done in completions
        ]
        transaction.connection.execute(self._note_sent, {**self._sent.bind(rows), "at": transaction.now})
        return self.complete_unheld(transaction, completions)

    def complete_unheld(self, transaction: Transaction, completions: Sequence[Completion]) -> set[Key]:
        """Finish unfinished actions whoever claimed them: only for whoever holds their campaign's lock."""
        if not completions:
            return set()
        rows = [(*done.action.key, done.action.claim_number, done.outcome) for done in completions]
        parameters = {**self._done.bind(rows), "at": transaction.now}
        return {(tenant, key) for tenant, key in transaction.connection.execute(self._complete_unheld, parameters)}

    def give_back(self, transaction: Transaction, owner: str, returns: Sequence[Return]) -> set[Key]:
        """Hand claims back as pending, paused or error; those no longer held are left alone."""
        if not returns:
            return set()
        now = transaction.now
        rows = [
            (
                *back.action.key,
                back.action.claim_number,
                back.status,
                back.run_at,
                back.attempts,
                back.last_error,
                now if back.status == "error" else None,
            )
            for back in returns
        ]
        return self._fenced(transaction, self._give_back, owner, self._back.bind(rows))

    def lock_held(self, transaction: Transaction, owner: str, actions: Iterable[ScheduledAction]) -> set[Key]:
        """Lock the rows that `owner` still holds and nobody else has locked: until commit they are ours alone."""
        rows = [(*action.key, action.claim_number) for action in actions]
        parameters = {**self._held.bind(rows), "owner": owner}
        return {(tenant, key) for tenant, key in transaction.connection.execute(self._lock, parameters)}

    def release_expired(self, transaction: Transaction) -> int:
        """Claims whose lease ended are due again."""
        return self._release(transaction, self._table.c.claimed_until < self._real_now(), **self._real())

    def release_others(self, transaction: Transaction, owner: str) -> int:
        """Every claim but `owner`'s is due again: only where no other process can be firing."""
        return self._release(transaction, self._table.c.claimed_by != bindparam("owner"), owner=owner)

    def release_own(self, transaction: Transaction, owner: str) -> int:
        """All that `owner` still holds is due again: on the way out."""
        return self._release(transaction, self._table.c.claimed_by == bindparam("owner"), owner=owner)

    def _release(self, transaction: Transaction, where: Any, **parameters: Any) -> int:
        statement = (
            update(self._table)
            .where(self._table.c.status == CLAIMED, where)
            .values(status=PENDING, claimed_by=None, claimed_until=None, updated_at=bindparam("at", type_=Instant))
        )
        return transaction.connection.execute(statement, {**parameters, "at": transaction.now}).rowcount

    def _fenced(self, transaction: Transaction, statement: Any, owner: str, rows: dict[str, Any]) -> set[Key]:
        parameters = {**rows, "owner": owner, "at": transaction.now}
        return {(tenant, key) for tenant, key in transaction.connection.execute(statement, parameters)}

    def _claim_statement(self) -> Any:
        """Lock: the due rows, skipping locked ones. A concurrent twin claims other rows."""
        actions = self._table.c
        due = (
            select(actions.tenant_id, actions.dedupe_key)
            .where(actions.status == PENDING, actions.action_type == bindparam("kind", type_=Text))
            .where(actions.run_at <= self._clock_now())
            .order_by(actions.run_at)
            .limit(bindparam("most", type_=Integer))
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        return self._claiming(and_(actions.tenant_id == due.c.tenant_id, actions.dedupe_key == due.c.dedupe_key))

    def _claim_key_statement(self) -> Any:
        actions = self._table.c
        of_key = and_(actions.tenant_id == bindparam("tenant"), actions.dedupe_key == bindparam("key"))
        return self._claiming(and_(of_key, actions.status == PENDING, actions.run_at <= self._clock_now()))

    def _claiming(self, where: Any) -> Any:
        return (
            update(self._table)
            .where(where)
            .values(
                status=CLAIMED,
                claimed_by=bindparam("owner"),
                claim_number=self._table.c.claim_number + 1,
                claimed_until=self._lease_end(),
            )
            .returning(*self._columns)
        )

    def _next_due_statement(self) -> Any:
        actions = self._table.c

        def earliest(action_type: ActionType) -> Any:
            kind = literal_column(f"'{action_type}'", Text)
            return (
                select(actions.run_at)
                .where(actions.status == PENDING, actions.action_type == kind)
                .order_by(actions.run_at)
                .limit(1)
                .scalar_subquery()
            )

        return select(
            self._clock_now().label("now"),
            earliest(ActionType.TIMEOUT).label("timeout"),
            earliest(ActionType.SEND).label("send"),
        )

    def _complete_statement(self, given: RowSource, *statuses: Any) -> Any:
        """`canceled` counts as held where a state manager cancels a node and what fires of it in one transaction."""
        return self._completing(self._held_as(given, *statuses), given)

    def _complete_unheld_statement(self) -> Any:
        actions, given = self._table.c, self._done.c
        where = and_(
            actions.tenant_id == given.tenant_id,
            actions.dedupe_key == given.dedupe_key,
            actions.status.in_([PENDING, CLAIMED, PAUSED]),
        )
        return self._completing(where, self._done)

    def _completing(self, where: Any, given: RowSource) -> Any:
        at = bindparam("at", type_=Instant)
        return (
            update(self._table)
            .where(where)
            .values(status=COMPLETED, outcome=given.c.outcome, claimed_until=None, finished_at=at, updated_at=at)
            .returning(self._table.c.tenant_id, self._table.c.dedupe_key)
        )

    def _note_sent_statement(self) -> Any:
        actions, given = self._table.c, self._sent.c
        return (
            update(self._table)
            .where(actions.tenant_id == given.tenant_id, actions.dedupe_key == given.dedupe_key)
            .values(
                message_id=func.coalesce(given.message_id, actions.message_id),
                sent_at=given.sent_at,
                updated_at=bindparam("at", type_=Instant),
            )
        )

    def _give_back_statement(self) -> Any:
        given = self._back.c
        return (
            update(self._table)
            .where(self._held_as(self._back, CLAIMED))
            .values(
                status=given.status,
                run_at=given.run_at,
                attempts=given.attempts,
                last_error=func.coalesce(given.last_error, self._table.c.last_error),
                outcome=case((given.status == ERROR, literal_column("'failed'", Text)), else_=None),
                claimed_until=None,
                finished_at=given.finished_at,
                updated_at=bindparam("at", type_=Instant),
            )
            .returning(self._table.c.tenant_id, self._table.c.dedupe_key)
        )

    def _lock_statement(self) -> Any:
        actions = self._table.c
        return (
            select(actions.tenant_id, actions.dedupe_key)
            .join(self._held.table, self._held_as(self._held, CLAIMED))
            .order_by(actions.tenant_id, actions.dedupe_key)
            .with_for_update(of=self._table, skip_locked=True)
        )

    def _held_as(self, given: RowSource, *statuses: Any) -> Any:
        """The fence: this owner, this claim."""
        actions = self._table.c
        return and_(
            actions.tenant_id == given.c.tenant_id,
            actions.dedupe_key == given.c.dedupe_key,
            actions.status.in_(statuses),
            actions.claimed_by == bindparam("owner"),
            actions.claim_number == given.c.claim_number,
        )

    def _clock_now(self) -> Any:
        """The present as it decides what is due: the given clock's, else the database's."""
        given = bindparam("now", type_=Instant)
        if self._database.is_postgresql:
            return func.coalesce(given, func.statement_timestamp(), type_=Instant)
        return given

    def _now(self) -> dict[str, Any]:
        clock = self._database.clock
        if clock is None:
            return {"now": None if self._database.is_postgresql else self._database.real_clock.now()}
        return {"now": clock.now()}

    def _real_now(self) -> Any:
        return func.statement_timestamp() if self._database.is_postgresql else bindparam("real", type_=Instant)

    def _real(self) -> dict[str, Any]:
        return {} if self._database.is_postgresql else {"real": self._database.real_clock.now()}

    def _lease_end(self) -> Any:
        if self._database.is_postgresql:
            return func.statement_timestamp() + bindparam("lease", type_=Interval)
        return bindparam("lease_end", type_=Instant)

    def _lease(self, lease: timedelta) -> dict[str, Any]:
        if self._database.is_postgresql:
            return {"lease": lease}
        return {"lease_end": self._database.real_clock.now() + lease}
