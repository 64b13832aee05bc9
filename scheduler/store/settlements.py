"""How claims end: fenced by the claim itself, so that a worker that lost its claim changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Integer, Text, and_, bindparam, case, func, literal_column, update
from sqlalchemy.exc import DBAPIError

from scheduler.domain.action import ActionStatus, ScheduledAction
from scheduler.store.actions import Key
from scheduler.store.database import Transaction
from scheduler.store.errors import is_lock_timeout
from scheduler.store.instants import InstantArithmetic
from scheduler.store.prepared import Prepared
from scheduler.store.rows import RowSource, look_up
from scheduler.store.statuses import CANCELED, CLAIMED, COMPLETED, ERROR, UNFINISHED, still
from scheduler.store.tables import Instant, Layout

_AT: Final = bindparam("at", type_=Instant)
# Nobody who fires waits longer for a row that somebody else has locked.
PATIENCE: Final = timedelta(milliseconds=250)


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


class Settlements:
    """Statements that end claims. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.tables.scheduled_actions
        self._instants = InstantArithmetic(layout)
        name = layout.dialect_name
        key = {"tenant_id": Text, "dedupe_key": Text}
        claim = {**key, "claim_number": Integer, "owner": Text}
        self._done = RowSource(name, {**claim, "outcome": Text})
        self._over = RowSource(name, {**key, "outcome": Text})
        self._mails = RowSource(name, {**key, "message_id": Text, "sent_at": Instant})
        self._back = RowSource(
            name,
            {
                **claim,
                "status": Text,
                "run_at": Instant,
                "attempts": Integer,
                "last_error": Text,
                "finished_at": Instant,
            },
        )
        self._held = RowSource(name, claim)
        # `canceled` counts as held where a state manager cancels a node, and what fires of it, in one transaction.
        self._complete = self._completing(self._done, self._held_as(self._done, CLAIMED, CANCELED))
        # A mail that went out is done, also when its campaign was paused (and perhaps resumed) meanwhile.
        self._complete_sent = self._completing(self._done, self._held_as(self._done, *UNFINISHED))
        self._complete_unheld = self._completing(self._over, self._of_key(self._over, *UNFINISHED))
        self._note_statement = self._note_sent_statement()
        self._give_back = self._give_back_statement()
        actions = self._table.c
        key_columns, held = [actions.tenant_id, actions.dedupe_key], self._held_as(self._held, CLAIMED)
        self._lock_held = look_up(self._held, self._table, key_columns, held, lock=True, skip_locked=True)
        self._wait_for_held = look_up(self._held, self._table, key_columns, held, lock=True)

    def complete(self, transaction: Transaction, owner: str, completions: Sequence[Completion]) -> set[Key]:
        """Finish timeouts still claimed by `owner` under the claim they were read with; returns their keys."""
        return self._complete_as(transaction, self._complete, owner, completions)

    def complete_sent(self, transaction: Transaction, owner: str, completions: Sequence[Completion]) -> set[Key]:
        """Finish sends still claimed by `owner`; each gets its message id and sent time, whoever holds it by now."""
        self.note_sent(transaction, completions)
        return self._complete_as(transaction, self._complete_sent, owner, completions)

    def complete_sent_unheld(self, transaction: Transaction, completions: Sequence[Completion]) -> set[Key]:
        """The same whoever claimed them: for an application that sends by itself, with the campaigns locked."""
        self.note_sent(transaction, completions)
        return self.complete_unheld(transaction, completions)

    def complete_unheld(self, transaction: Transaction, completions: Sequence[Completion]) -> set[Key]:
        """Finish unfinished actions whoever claimed them: only for whoever holds their campaign's lock."""
        return self.finish_unheld(transaction, [(*done.action.key, done.outcome) for done in completions])

    def finish_unheld(self, transaction: Transaction, rows: Sequence[tuple[str, str, str]]) -> set[Key]:
        """The same for (tenant, dedupe key, outcome)."""
        return self._run(transaction, self._complete_unheld, self._over.bind(rows)) if rows else set()

    def give_back(self, transaction: Transaction, owner: str, returns: Sequence[Return]) -> set[Key]:
        """Hand claims back as pending, paused or error; returns their keys. Those no longer held are left alone.

        A row that somebody else has locked is waited for a moment, as in `lock_held`; one that stays locked stays
        claimed, until its lease ends or its owner tries again.
        """
        given_back = self._give_back_free(transaction, owner, returns)
        missing = [back.action for back in returns if back.action.key not in given_back]
        if missing and transaction.database.is_postgresql:
            held = self._wait_for(transaction, [_claim(action, owner) for action in missing])
            late = [back for back in returns if back.action.key in held]
            given_back |= self._give_back_free(transaction, owner, late)
        return given_back

    def _give_back_free(self, transaction: Transaction, owner: str, returns: Sequence[Return]) -> set[Key]:
        if not returns:
            return set()
        now = transaction.now
        rows = [
            (
                *_claim(back.action, owner),
                back.status,
                back.run_at,
                back.attempts,
                back.last_error,
                now if back.status == ActionStatus.ERROR else None,
            )
            for back in returns
        ]
        put_off = [back.run_at for back in returns if back.run_at > back.action.run_at and _is_pending(back)]
        if put_off:
            transaction.database.due_at(transaction, min(put_off))
        return self._run(transaction, self._give_back, self._back.bind(rows))

    def lock_held(self, transaction: Transaction, owner: str, actions: Sequence[ScheduledAction]) -> set[Key]:
        """Lock the rows that `owner` still holds: until commit they are ours alone.

        A row that somebody else has locked is waited for a moment: a claim that comes second keeps the rows that it
        found taken locked until it commits. One that stays locked counts as lost.
        """
        rows = [_claim(action, owner) for action in sorted(actions, key=lambda action: action.key)]
        held = self._keys_of(transaction, self._lock_held, rows)
        missing = [row for row in rows if row[:2] not in held]
        if missing and transaction.database.is_postgresql:
            held |= self._wait_for(transaction, missing)
        return held

    def _wait_for(self, transaction: Transaction, rows: Sequence[tuple[Any, ...]]) -> set[Key]:
        try:
            with transaction.all_or_nothing(), transaction.waiting_at_most(PATIENCE):
                return self._keys_of(transaction, self._wait_for_held, rows)
        except DBAPIError as error:
            if not is_lock_timeout(error):
                raise
            return set()

    def _keys_of(self, transaction: Transaction, statement: Any, rows: Sequence[tuple[Any, ...]]) -> set[Key]:
        return {(tenant, key) for tenant, key in transaction.rows(statement, self._held.bind(rows))}

    def _complete_as(
        self, transaction: Transaction, statement: Prepared, owner: str, completions: Sequence[Completion]
    ) -> set[Key]:
        if not completions:
            return set()
        rows = [(*_claim(done.action, owner), done.outcome) for done in completions]
        return self._run(transaction, statement, self._done.bind(rows))

    def note_sent(self, transaction: Transaction, completions: Sequence[Completion]) -> None:
        """Store message id and sent time of mails, whatever became of their sends; an id isn't replaced by none."""
        rows = [(*done.action.key, done.message_id, done.sent_at) for done in completions]
        if rows:
            parameters = {**self._mails.bind(rows), "at": transaction.now}
            self._note_statement.change(transaction, parameters)

    @staticmethod
    def _run(transaction: Transaction, statement: Prepared, rows: dict[str, Any]) -> set[Key]:
        return {(tenant, key) for tenant, key in statement.rows(transaction, {**rows, "at": transaction.now})}

    def _completing(self, given: RowSource, where: Any) -> Prepared:
        return Prepared(
            update(self._table)
            .where(where)
            .values(status=COMPLETED, outcome=given.c.outcome, claimed_until=None, finished_at=_AT, updated_at=_AT)
            .returning(self._table.c.tenant_id, self._table.c.dedupe_key)
        )

    def _note_sent_statement(self) -> Prepared:
        actions, given = self._table.c, self._mails.c
        return Prepared(
            update(self._table)
            .where(actions.tenant_id == given.tenant_id, actions.dedupe_key == given.dedupe_key)
            .values(
                message_id=func.coalesce(given.message_id, actions.message_id), sent_at=given.sent_at, updated_at=_AT
            )
        )

    def _give_back_statement(self) -> Prepared:
        """Lock: the rows nobody else has locked. A campaign that is held may have had its actions changed too.

        One that was moved since it was claimed (its mail went out later than planned) keeps its new instant.
        """
        actions, given = self._table.c, self._back.c
        changed = ("status", "run_at", "attempts", "last_error", "finished_at")
        columns = [actions.tenant_id, actions.dedupe_key, *(given[name].label(f"new_{name}") for name in changed)]
        held = self._held_as(self._back, CLAIMED)
        free = look_up(self._back, self._table, columns, held, lock=True, skip_locked=True).cte("free")
        return Prepared(
            update(self._table)
            .where(actions.tenant_id == free.c.tenant_id, actions.dedupe_key == free.c.dedupe_key)
            .values(
                status=free.c.new_status,
                run_at=self._instants.latest(free.c.new_run_at, actions.run_at),
                attempts=free.c.new_attempts,
                last_error=func.coalesce(free.c.new_last_error, actions.last_error),
                outcome=case((free.c.new_status == ERROR, literal_column("'failed'", Text)), else_=None),
                claimed_until=None,
                finished_at=free.c.new_finished_at,
                updated_at=_AT,
            )
            .returning(actions.tenant_id, actions.dedupe_key)
        )

    def _of_key(self, given: RowSource, *statuses: Any) -> Any:
        actions = self._table.c
        return and_(
            actions.tenant_id == given.c.tenant_id,
            actions.dedupe_key == given.c.dedupe_key,
            still(actions.status, *statuses),
        )

    def _held_as(self, given: RowSource, *statuses: Any) -> Any:
        """The fence: this owner, this claim. Owner and number come with the rows, so that the key finds them."""
        actions = self._table.c
        return and_(
            self._of_key(given, *statuses),
            actions.claimed_by == given.c.owner,
            actions.claim_number == given.c.claim_number,
        )


def _is_pending(back: Return) -> bool:
    return back.status == ActionStatus.PENDING


def _claim(action: ScheduledAction, owner: str) -> tuple[str, str, int, str]:
    return (*action.key, action.claim_number, owner)
