"""What a decision changes about actions: set-based, for campaigns whose rows the transaction holds locked.

Rows are found through their campaign's index entry and changed by their key, on condition that they are still
unfinished: one that somebody claims at this moment is waited for and changed all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Integer, Text, and_, bindparam, func, literal_column, or_, update

from scheduler.store.database import Transaction
from scheduler.store.prepared import Prepared
from scheduler.store.rows import RowSource, look_up
from scheduler.store.statuses import (
    CANCELED,
    EACH_INDEX,
    FINISHED,
    PAUSED,
    PENDING,
    UNFINISHED,
    may_be_held,
    still,
)
from scheduler.store.tables import Instant, Layout

Key = tuple[str, str]

# What an action canceled with its campaign, rather than with its visit, says.
CAMPAIGN_ENDED: Final = "campaign ended"

# Tenant, campaign, the last of its visits that are over, the key that fires now and isn't canceled.
LeftVisit = tuple[str, str, int, str | None]

_AT: Final = bindparam("at", type_=Instant)


class ActionChanges:
    """Statements that change many actions at once. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.tables.scheduled_actions
        name = layout.dialect_name
        campaign = {"tenant_id": Text, "campaign_id": Text}
        self._left = RowSource(name, {**campaign, "left_visit": Integer, "fired_key": Text}, "left_visits")
        self.cancel_left_statement = self._cancel_left_statement()
        self._cancel_left = Prepared(self.cancel_left_statement)
        visit_event = {**campaign, "node_visit": Integer, "event_type": Text}
        self._answers = RowSource(name, {**visit_event, "occurred_at": Instant})
        self._cancel_answered = self._cancel_answered_statement()
        self._new_times = RowSource(name, {**visit_event, "deadline": Instant, "run_at": Instant})
        self._retime = self._retime_statement()
        self._ended = RowSource(name, {**campaign, "ended_at": Instant}, "ended_campaigns")
        self._restore = self._restore_statement()
        self._campaigns = RowSource(name, campaign)
        self._forget_errors = [self._forget_errors_statement(statuses) for statuses in EACH_INDEX]
        of_campaign = and_(
            self._table.c.tenant_id == bindparam("tenant"), self._table.c.campaign_id == bindparam("campaign")
        )
        self._hold = self._set_paused(and_(of_campaign, may_be_held(self._table.c)))
        unfinished = and_(of_campaign, self._table.c.status.in_(UNFINISHED))
        self._cancel_campaign = self._canceling(unfinished)
        self._cancel_node = self._canceling(and_(unfinished, self._table.c.node_id == bindparam("node")))

    def cancel_left(self, transaction: Transaction, rows: Sequence[LeftVisit], reason: str) -> int:
        """Cancel what is unfinished of visits that are over: (tenant, campaign, last of them, key that fires now)."""
        return self._cancel_left.change(transaction, self.left_parameters(transaction, rows, reason)) if rows else 0

    def left_parameters(self, transaction: Transaction, rows: Sequence[LeftVisit], reason: str) -> dict[str, Any]:
        """What `cancel_left_statement` needs."""
        return {**self._left.bind(rows), "reason": reason, "at": transaction.now}

    def cancel_answered(self, transaction: Transaction, rows: Sequence[tuple[str, str, int, str, datetime]]) -> int:
        """Cancel timeouts a real event answered: (tenant, campaign, visit, timeout, when the event occurred)."""
        if not rows:
            return 0
        return self._run(transaction, self._cancel_answered, {**self._answers.bind(rows), "reason": "event happened"})

    def retime(self, transaction: Transaction, rows: Sequence[tuple[str, str, int, str, datetime, datetime]]) -> int:
        """Move unfinished timeouts: (tenant, campaign, visit, timeout, new deadline, new run_at)."""
        if not rows:
            return 0
        transaction.database.due_at(transaction, min(row[5] for row in rows))
        return self._run(transaction, self._retime, self._new_times.bind(rows))

    def restore_ended(self, transaction: Transaction, rows: Sequence[tuple[str, str, datetime]]) -> int:
        """What was canceled with its campaign is pending again, as it was: (tenant, campaign, when it ended)."""
        if not rows:
            return 0
        transaction.database.due_at(transaction, transaction.now)
        return self._run(transaction, self._restore, self._ended.bind(rows))

    def hold_campaign(self, transaction: Transaction, campaign: Key) -> int:
        """Everything unfinished of a campaign becomes `paused`, but for a send that somebody has claimed."""
        return self._run(transaction, self._hold, {"tenant": campaign[0], "campaign": campaign[1]})

    def cancel_campaign(self, transaction: Transaction, campaign: Key) -> int:
        """Cancel all that is unfinished for one campaign."""
        parameters = {"tenant": campaign[0], "campaign": campaign[1], "reason": "campaign canceled"}
        return self._run(transaction, self._cancel_campaign, parameters)

    def cancel_node(self, transaction: Transaction, campaign: Key, node_id: str) -> int:
        """Cancel all that is unfinished for one node of one campaign."""
        parameters = {"tenant": campaign[0], "campaign": campaign[1], "node": node_id, "reason": "node canceled"}
        return self._run(transaction, self._cancel_node, parameters)

    def forget_errors(self, transaction: Transaction, campaigns: Iterable[Key]) -> int:
        """Remove what failed attempts at anything of these campaigns said: it may name an address."""
        rows = sorted(set(campaigns))
        given = self._campaigns.bind(rows)
        return sum(self._run(transaction, one, given) for one in self._forget_errors) if rows else 0

    @staticmethod
    def _run(transaction: Transaction, statement: Any, parameters: dict[str, Any]) -> int:
        return transaction.connection.execute(statement, {**parameters, "at": transaction.now}).rowcount

    def _cancel_left_statement(self) -> Any:
        actions, left = self._table.c, self._left.c
        where = and_(
            actions.tenant_id == left.tenant_id,
            actions.campaign_id == left.campaign_id,
            actions.status.in_(UNFINISHED),
            actions.node_visit <= left.left_visit,
            or_(left.fired_key.is_(None), actions.dedupe_key != left.fired_key),
        )
        return self._canceling(self._found(self._left, where))

    def _cancel_answered_statement(self) -> Any:
        actions = self._table.c
        deadline = func.coalesce(actions.deadline, actions.run_at)
        where = and_(self._of_visit_event(self._answers), deadline >= self._answers.c.occurred_at)
        return self._canceling(self._found(self._answers, where))

    def _retime_statement(self) -> Any:
        actions = self._table.c
        given = self._new_times
        columns = [
            actions.tenant_id,
            actions.dedupe_key,
            given.c.deadline.label("new_deadline"),
            given.c.run_at.label("new_run_at"),
        ]
        found = look_up(given, self._table, columns, self._of_visit_event(given)).cte("moved")
        return (
            update(self._table)
            .where(actions.tenant_id == found.c.tenant_id, actions.dedupe_key == found.c.dedupe_key)
            .where(still(actions.status, *UNFINISHED))
            .values(deadline=found.c.new_deadline, run_at=found.c.new_run_at, updated_at=_AT)
        )

    def _restore_statement(self) -> Any:
        actions, ended = self._table.c, self._ended.c
        where = and_(
            actions.tenant_id == ended.tenant_id,
            actions.campaign_id == ended.campaign_id,
            actions.status.in_(FINISHED),
            actions.finished_at == ended.ended_at,
            actions.outcome == literal_column(f"'{CAMPAIGN_ENDED}'", Text),
        )
        return (
            update(self._table)
            .where(self._found(self._ended, where, CANCELED))
            .values(status=PENDING, outcome=None, finished_at=None, updated_at=_AT)
        )

    def _forget_errors_statement(self, statuses: tuple[Any, ...]) -> Any:
        actions, given = self._table.c, self._campaigns.c
        where = and_(
            actions.tenant_id == given.tenant_id,
            actions.campaign_id == given.campaign_id,
            actions.status.in_(statuses),
            actions.last_error.is_not(None),
        )
        hits = look_up(self._campaigns, self._table, [actions.tenant_id, actions.dedupe_key], where).cte("hits")
        of_key = and_(actions.tenant_id == hits.c.tenant_id, actions.dedupe_key == hits.c.dedupe_key)
        return update(self._table).where(of_key).values(last_error=None, updated_at=_AT)

    def _found(self, source: RowSource, where: Any, *statuses: Any) -> Any:
        """The keys that `where` finds for the given rows, as a condition on the row: still unfinished, or as told."""
        actions = self._table.c
        hits = look_up(source, self._table, [actions.tenant_id, actions.dedupe_key], where).cte("hits")
        return and_(
            actions.tenant_id == hits.c.tenant_id,
            actions.dedupe_key == hits.c.dedupe_key,
            still(actions.status, *(statuses or UNFINISHED)),
        )

    def _of_visit_event(self, given: RowSource) -> Any:
        actions = self._table.c
        return and_(
            actions.tenant_id == given.c.tenant_id,
            actions.campaign_id == given.c.campaign_id,
            actions.status.in_(UNFINISHED),
            actions.node_visit == given.c.node_visit,
            actions.event_type == given.c.event_type,
            actions.action_type == literal_column("'timeout'"),
        )

    def _canceling(self, where: Any) -> Any:
        reason = bindparam("reason", type_=Text)
        return (
            update(self._table)
            .where(where)
            .values(status=CANCELED, outcome=reason, finished_at=_AT, claimed_until=None, updated_at=_AT)
        )

    def _set_paused(self, where: Any) -> Any:
        return update(self._table).where(where).values(status=PAUSED, claimed_until=None, updated_at=_AT)
