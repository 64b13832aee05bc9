"""What a resume changes: set-based, however many campaigns and actions a pause held.

One expression, `_changes`, computes the new instants of everything unfinished, and is what a resume writes and what its
preview counts. Whoever resumes holds the pause's row and the campaigns' locks (`lock_campaigns`), then moves, lifts the
pause, and wakes what is paused: in this order, since actions go on becoming `paused` until it is lifted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
    update,
)

from scheduler.domain.pausing import BUCKETS, HORIZONS, Paused, ResumePolicy, Resumption, Scope
from scheduler.store.database import Transaction
from scheduler.store.instants import InstantArithmetic, in_microseconds
from scheduler.store.pauses import holds_sends
from scheduler.store.statuses import CLAIMED, PAUSED, PENDING, UNFINISHED, still
from scheduler.store.tables import Instant, Layout

_NOW = bindparam("now", type_=Instant)
_STARTED = bindparam("started", type_=Instant)
_SPREAD = bindparam("spread", type_=BigInteger)
_TIMEOUT = literal_column("'timeout'", Text)
_SEND = literal_column("'send'", Text)
_NOTHING = literal_column("0", BigInteger)
_RUNNING = (literal_column("'active'", Text), literal_column("'paused'", Text))

Count = tuple[str, bool, str, int]


class Resuming:
    """Statements that let what was paused go on. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._actions = layout.tables.scheduled_actions
        self._campaigns = layout.tables.contact_campaigns
        self._pauses = layout.tables.pauses
        self._time = InstantArithmetic(layout)

    def lock_campaigns(self, transaction: Transaction, paused: Paused) -> int:
        """Lock the unfinished campaigns of that scope, in key order, until commit; returns how many there are."""
        campaigns = self._campaigns.c
        locked = (
            select(campaigns.tenant_id)
            .where(campaigns.status.in_(_RUNNING), *_within(self._campaigns, paused))
            .order_by(campaigns.tenant_id, campaigns.campaign_id)
            .with_for_update()
            .cte("locked")
        )
        statement = select(func.count()).select_from(locked)
        return int(transaction.connection.execute(statement, _key_of(paused)).scalar_one())

    def move(self, transaction: Transaction, paused: Paused, how: Resumption, started_at: datetime) -> int:
        """Give everything unfinished, and the campaigns' anchors, their new instants; returns how many actions moved.

        On PostgreSQL both in one statement, so that they are of one mind about a campaign that begins meanwhile.
        """
        statement = self._moving_actions(self._changes(paused, how))
        anchors = None if how.policy == ResumePolicy.KEEP else self._moving_anchors(paused, how)
        if anchors is not None and self._layout.is_postgresql:
            statement, anchors = statement.add_cte(anchors.cte("anchors")), None
        parameters = self._parameters(transaction, paused, how, started_at)
        moved = transaction.connection.execute(statement, parameters).rowcount
        if not self._layout.is_postgresql:  # whose driver counts no rows where a statement begins with WITH
            moved = transaction.connection.execute(select(func.changes())).scalar_one()
        if anchors is not None:
            transaction.connection.execute(anchors, parameters)
        return moved

    def wake(self, transaction: Transaction, paused: Paused) -> int:
        """Let go on what no campaign's pause and none of its own holds; under a wider one it is paused when due.

        So are claimed timeouts: whoever has one can neither fire it nor give it back while all this is locked.
        """
        actions, campaigns = self._actions.c, self._campaigns.c
        of_paused = exists().where(
            campaigns.tenant_id == actions.tenant_id,
            campaigns.campaign_id == actions.campaign_id,
            campaigns.status == PAUSED,
        )
        statement = (
            update(self._actions)
            .where(actions.status.in_(UNFINISHED), *_within(self._actions, paused))
            .where(or_(actions.status == PAUSED, and_(actions.status == CLAIMED, actions.action_type == _TIMEOUT)))
            .where(not_(of_paused), not_(self._is_held_alone()))
            .values(status=PENDING, claimed_until=None, updated_at=_NOW)
        )
        transaction.database.due_at(transaction, transaction.now)
        return transaction.connection.execute(statement, {**_key_of(paused), "now": transaction.now}).rowcount

    def preview(
        self, transaction: Transaction, paused: Paused, how: Resumption, started_at: datetime
    ) -> Iterable[Count]:
        """What would be due when: (action type, whether something else holds it, bucket, how many)."""
        changes = self._changes(paused, how).c
        ends = [
            (changes.new_run_at <= bindparam(f"until_{name}", type_=Instant), literal_column(f"'{name}'", Text))
            for name in HORIZONS
        ]
        bucket = case(*ends, else_=literal_column(f"'{BUCKETS[-1]}'", Text)).label("bucket")
        shown = select(changes.action_type, changes.is_held, bucket).subquery("shown").c
        statement = select(shown.action_type, shown.is_held, shown.bucket, func.count()).group_by(
            shown.action_type, shown.is_held, shown.bucket
        )
        horizons = {f"until_{name}": transaction.now + length for name, length in HORIZONS.items()}
        parameters = {**self._parameters(transaction, paused, how, started_at), **horizons}
        for action_type, is_held, name, count in transaction.connection.execute(statement, parameters):
            yield action_type, bool(is_held), name, count

    def _moving_actions(self, changes: CTE) -> Any:
        actions = self._actions.c
        return (
            update(self._actions)
            .where(actions.tenant_id == changes.c.tenant_id, actions.dedupe_key == changes.c.dedupe_key)
            .where(changes.c.is_moved, still(actions.status, *UNFINISHED))
            .values(deadline=changes.c.new_deadline, run_at=changes.c.new_run_at, updated_at=_NOW)
        )

    def _moving_anchors(self, paused: Paused, how: Resumption) -> Any:
        campaigns = self._campaigns.c
        length = self._length(paused, how)
        return (
            update(self._campaigns)
            .where(campaigns.status.in_(_RUNNING), length > _NOTHING, *_within(self._campaigns, paused))
            .values(anchor_at=self._time.plus(campaigns.anchor_at, length), updated_at=_NOW)
        )

    def _length(self, paused: Paused, how: Resumption) -> Any:
        """How much of the pause counts for a campaign (`domain.pausing.counted_length`), made of its own row."""
        campaigns = self._campaigns.c
        awaits_mail = and_(
            campaigns.mail_visit == campaigns.node_visit,
            or_(campaigns.sent_visit.is_(None), campaigns.sent_visit != campaigns.node_visit),
        )
        counts_from = case((awaits_mail, campaigns.node_entered_at), else_=campaigns.anchor_at)
        others = [*self._wider(paused.scope, campaigns.tenant_id), *self._own(paused.scope)]
        return self._counted(how, counts_from, others)

    def _changes(self, paused: Paused, how: Resumption) -> CTE:
        """Everything unfinished of the scope with its new instants. What has no campaign counts from its creation.

        Nothing here is joined but by a primary key: with statistics that lag behind, PostgreSQL would compare each
        with each.
        """
        actions, campaigns = self._actions.c, self._campaigns.c
        of_campaign = and_(
            campaigns.tenant_id == actions.tenant_id,
            campaigns.campaign_id == actions.campaign_id,
            campaigns.status.in_(_RUNNING),
        )
        wider = self._wider(paused.scope, actions.tenant_id)
        own = self._counted(how, actions.created_at, wider)
        length = case((campaigns.tenant_id.is_(None), own), else_=self._length(paused, how))
        held_by = [self._is_held_alone(), *(one.is_not(None) for one in wider)]
        if paused.scope != Scope.SENDS:
            held_by.append(self._are_sends_held())
        if paused.scope != Scope.CAMPAIGN:
            held_by.append(func.coalesce(campaigns.status == PAUSED, false()))
        measured = (
            select(
                actions.tenant_id,
                actions.dedupe_key,
                actions.action_type,
                actions.deadline,
                actions.run_at,
                length.label("length"),
                or_(*held_by).label("is_held"),
            )
            .select_from(self._actions.outerjoin(self._campaigns, of_campaign))
            .where(actions.status.in_(UNFINISHED), *_within(self._actions, paused))
            .cte("measured")
        ).c
        shifted = select(
            measured.tenant_id,
            measured.dedupe_key,
            measured.action_type,
            measured.is_held,
            (measured.length > _NOTHING).label("is_shifted"),
            self._time.plus(measured.deadline, measured.length).label("new_deadline"),
            self._time.plus(measured.run_at, measured.length).label("due_at"),
        ).cte("shifted")
        return self._spread(shifted) if how.spread is not None else self._unspread(shifted)

    def _unspread(self, shifted: CTE) -> CTE:
        rows = shifted.c
        columns = (rows.tenant_id, rows.dedupe_key, rows.action_type, rows.is_held, rows.new_deadline)
        return select(*columns, rows.due_at.label("new_run_at"), rows.is_shifted.label("is_moved")).cte("changes")

    def _spread(self, shifted: CTE) -> CTE:
        """What would be due at once follows one after the other, evenly and in its order; the rest is left alone."""
        rows = shifted.c
        is_flood = case((and_(not_(rows.is_held), rows.due_at <= _NOW), true()), else_=false())
        order = (rows.due_at, rows.tenant_id, rows.dedupe_key)
        ranked = select(
            shifted,
            is_flood.label("is_flood"),
            (func.row_number().over(partition_by=is_flood, order_by=order) - 1).label("place"),
            func.count().over(partition_by=is_flood).label("size"),
        ).cte("ranked").c  # fmt: skip
        # place * spread / size, in an order that doesn't overflow.
        delay = (_SPREAD // ranked.size) * ranked.place + (_SPREAD % ranked.size) * ranked.place // ranked.size
        new_run_at = case((ranked.is_flood, self._time.plus(_NOW, delay)), else_=ranked.due_at)
        columns = (ranked.tenant_id, ranked.dedupe_key, ranked.action_type, ranked.is_held, ranked.new_deadline)
        is_moved = or_(ranked.is_shifted, ranked.is_flood)
        return select(*columns, new_run_at.label("new_run_at"), is_moved.label("is_moved")).cte("changes")

    def _counted(self, how: Resumption, counts_from: Any, others: list[Any]) -> Any:
        if how.policy == ResumePolicy.KEEP:
            return _NOTHING
        until = self._time.earliest(_NOW, *others)
        since = self._time.latest(_STARTED, self._time.earliest(_NOW, counts_from))
        return case((until > since, self._time.between(until, since)), else_=_NOTHING)

    def _wider(self, scope: Scope, tenant_id: Any) -> list[Any]:
        """When other pauses of the tenant, and of everything, began; NULL where there is none."""
        wide = {Scope.ALL: literal_column("''", Text), Scope.TENANT: tenant_id}
        nothing = literal_column("''", Text)
        return [self._start_of(one, tenant, nothing) for one, tenant in wide.items() if one != scope]

    def _own(self, scope: Scope) -> list[Any]:
        """When the campaign's own pause began, where another is lifted."""
        if scope == Scope.CAMPAIGN:
            return []
        campaigns = self._campaigns.c
        began = self._start_of(Scope.CAMPAIGN, campaigns.tenant_id, campaigns.campaign_id)
        return [case((campaigns.status == PAUSED, began))]

    def _start_of(self, scope: Scope, tenant_id: Any, campaign_id: Any) -> Any:
        """By the primary key of `pauses`."""
        pauses = self._pauses.alias()
        return (
            select(pauses.c.started_at)
            .where(pauses.c.tenant_id == tenant_id, pauses.c.campaign_id == campaign_id)
            .where(pauses.c.scope == literal_column(f"'{scope}'", Text))
            .where(pauses.c.dedupe_key == literal_column("''", Text))
            .scalar_subquery()
        )

    def _are_sends_held(self) -> ColumnElement[bool]:
        """The action is a mail, and those of its tenant, or all, are paused."""
        actions, pauses = self._actions.c, self._pauses.alias()
        of_tenant = pauses.c.tenant_id.in_([literal_column("''", Text), actions.tenant_id])
        return and_(actions.action_type == _SEND, exists().where(of_tenant, holds_sends(pauses)))

    def _is_held_alone(self) -> ColumnElement[bool]:
        """The action is paused by itself."""
        actions, pauses = self._actions.c, self._pauses.alias().c
        return exists().where(
            pauses.tenant_id == actions.tenant_id,
            pauses.campaign_id == actions.campaign_id,
            pauses.scope == literal_column("'action'", Text),
            pauses.dedupe_key == actions.dedupe_key,
        )

    @staticmethod
    def _parameters(transaction: Transaction, paused: Paused, how: Resumption, started_at: datetime) -> dict[str, Any]:
        spread = {} if how.spread is None else {"spread": in_microseconds(how.spread)}
        return {**_key_of(paused), "now": transaction.now, "started": started_at, **spread}


def _within(table: Any, paused: Paused) -> list[Any]:
    """The rows of a table that the scope covers."""
    where = []
    if paused.sends and "action_type" in table.c:
        where.append(table.c.action_type == _SEND)
    if paused.tenant_id is not None:
        where.append(table.c.tenant_id == bindparam("tenant", type_=Text))
    if paused.campaign_id is not None:
        where.append(table.c.campaign_id == bindparam("campaign", type_=Text))
    return where


def _key_of(paused: Paused) -> dict[str, str]:
    given = {"tenant": paused.tenant_id, "campaign": paused.campaign_id}
    return {name: value for name, value in given.items() if value is not None}
