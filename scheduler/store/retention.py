"""What is over for longer than it is kept: found in slices, and removed.

Nothing here waits for anybody: what somebody has locked stays, and so does the whole campaign that it belongs to.
Every slice reads a bounded number of index entries, whatever the size of the table: beside its LIMIT stands nothing
but conditions of its index, and OFFSET 0 keeps a look at another table from becoming a join with all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Integer,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
)

from scheduler.domain.campaign import FINISHED as ENDED
from scheduler.store.database import Database, Transaction
from scheduler.store.rows import RowSource, look_up
from scheduler.store.statuses import FINISHED, UNFINISHED, still
from scheduler.store.tables import Instant

Key = tuple[str, str]
DatedKey = tuple[datetime, str, str]

FIRST_KEY: Final[Key] = ("", "")
FIRST_DATED_KEY: Final[DatedKey] = (datetime(1, 1, 1, tzinfo=UTC), "", "")

_BEFORE: Final = bindparam("before", type_=Instant)
_MOST: Final = bindparam("most", type_=Integer)
_ENDED: Final = [literal_column(f"'{status}'", Text) for status in ENDED]
_WAITING: Final = literal_column("'unknown_campaign'", Text)
_ACTION: Final = literal_column("'action'", Text)
_OFF: Final = literal_column("'off'", Text)
_BY_INDEX: Final = select(
    *(
        func.set_config(literal_column(f"'enable_{way}'", Text), _OFF, true())
        for way in ("seqscan", "hashjoin", "mergejoin")
    )
)


@dataclass(frozen=True, slots=True)
class Slice:
    """The keys in one piece of an index that are due for removal, and where it ended: None at the index's end."""

    keys: list[Key]
    last: Any


class Removals:
    """Statements of retention. Stateless, thread-safe."""

    def __init__(self, database: Database) -> None:
        tables = database.tables
        self._campaigns = tables.contact_campaigns
        self._actions = tables.scheduled_actions
        self._transitions = tables.campaign_transitions
        self._events = tables.campaign_events
        self._pauses = tables.pauses
        name = database.dialect_name
        self._of_campaigns = RowSource(name, {"tenant_id": Text, "campaign_id": Text})
        self._of_actions = RowSource(name, {"tenant_id": Text, "dedupe_key": Text})
        self._of_events = RowSource(name, {"tenant_id": Text, "event_id": Text})
        self._of_pauses = RowSource(name, {"tenant_id": Text, "campaign_id": Text, "dedupe_key": Text})
        self._slice_campaigns = self._slice_campaigns_statement()
        self._slice_actions = self._slice_actions_statement()
        self._slice_events = self._slice_events_statement()
        self._lock_ended = self._lock_ended_statement()
        actions = self._actions.c
        self._remove_parts = [
            self._removing_of_campaign(self._actions, actions.status.in_(FINISHED)),
            self._removing_of_campaign(self._events),
            self._removing_of_campaign(self._transitions),
            self._removing_of_campaign(self._pauses),
        ]
        self._remove_campaigns = self._remove_campaigns_statement()
        self._remove_actions = self._remove_actions_statement()
        self._remove_events = self._remove_events_statement()
        self._remove_pauses = self._remove_pauses_statement()

    def go_by_index(self, transaction: Transaction) -> None:
        """Until commit rows are found through indexes alone: also where statistics are old, or estimates too high."""
        if transaction.database.is_postgresql:
            transaction.connection.execute(_BY_INDEX)

    def slice_campaigns(self, transaction: Transaction, after: DatedKey, before: datetime, most: int) -> Slice:
        """Campaigns that ended before that, the longest ago first."""
        return _slice(transaction, self._slice_campaigns, after, before, most)

    def slice_actions(self, transaction: Transaction, after: Key, before: datetime, most: int) -> Slice:
        """Actions that finished before that and have no campaign, in key order."""
        return _slice(transaction, self._slice_actions, after, before, most)

    def slice_events(self, transaction: Transaction, after: DatedKey, before: datetime, most: int) -> Slice:
        """Events that came before that and have no campaign, the longest ago first."""
        return _slice(transaction, self._slice_events, after, before, most)

    def lock_ended(self, transaction: Transaction, campaigns: Iterable[Key], before: datetime) -> set[Key]:
        """Those that ended before that and have nothing unfinished, locked in key order; never waits.

        One that begins again at this moment is locked by whoever lets it, or is found begun.
        """
        rows = self._of_campaigns.bind(sorted(set(campaigns)))
        found = transaction.connection.execute(self._lock_ended, {**rows, "before": before})
        return {(tenant, campaign) for tenant, campaign in found}

    def remove_campaigns(self, transaction: Transaction, campaigns: Iterable[Key]) -> tuple[set[Key], int]:
        """Remove locked campaigns with all that belongs to them: those that are gone, and how many rows.

        One that isn't gone has something left: locked by somebody, or scheduled since it was locked here. Its other
        rows are gone, and the transaction must not be committed.
        """
        rows = self._of_campaigns.bind(sorted(set(campaigns)))
        count = sum(_count(transaction, one, rows) for one in self._remove_parts)
        gone = {(tenant, campaign) for tenant, campaign in transaction.connection.execute(self._remove_campaigns, rows)}
        return gone, count + len(gone)

    def remove_actions(self, transaction: Transaction, actions: Sequence[Key], before: datetime) -> int:
        """Remove those that are still finished and without a campaign, with what is left of pauses of them."""
        rows = {**self._of_actions.bind(sorted(actions)), "before": before}
        gone = [tuple(row) for row in transaction.connection.execute(self._remove_actions, rows)]
        if not gone:
            return 0
        return len(gone) + _count(transaction, self._remove_pauses, self._of_pauses.bind(gone))

    def remove_events(self, transaction: Transaction, events: Sequence[Key], before: datetime) -> int:
        """Remove those that are still without a campaign."""
        rows = {**self._of_events.bind(sorted(events)), "before": before}
        return _count(transaction, self._remove_events, rows)

    def _slice_campaigns_statement(self) -> Any:
        campaigns = self._campaigns.c
        order = [campaigns.completed_at, campaigns.tenant_id, campaigns.campaign_id]
        return (
            select(*order, literal_column("1"))
            .where(campaigns.completed_at < _BEFORE, *_beyond(order))
            .order_by(*order)
            .limit(_MOST)
        )

    def _slice_actions_statement(self) -> Any:
        """Along the primary key. The status is looked at outside: no index that knows it is taken instead."""
        actions = self._actions.c
        order = [actions.tenant_id, actions.dedupe_key]
        columns = [*order, actions.campaign_id, actions.status, actions.finished_at]
        piece = select(*columns).where(*_beyond(order)).order_by(*order).limit(_MOST).subquery("piece")
        is_over = and_(piece.c.status.in_(FINISHED), piece.c.finished_at < _BEFORE, ~self._has_campaign(piece.c))
        return select(*(piece.c[one.name] for one in order), is_over.label("is_over")).order_by(
            *(piece.c[one.name] for one in order)
        )

    def _slice_events_statement(self) -> Any:
        """Along the index of the events that were told of no campaign that was known."""
        events = self._events.c
        order = [events.received_at, events.tenant_id, events.event_id]
        where = and_(events.received_at < _BEFORE, self._is_apart(), *_beyond(order))
        piece = select(*order, events.campaign_id).where(where).order_by(*order).limit(_MOST).subquery("piece")
        columns = [piece.c[one.name] for one in order]
        return select(*columns, (~self._has_campaign(piece.c)).label("is_over")).order_by(*columns)

    def _lock_ended_statement(self) -> Any:
        campaigns = self._campaigns.c
        where = and_(
            self._of_campaign(self._campaigns, self._of_campaigns.c),
            campaigns.status.in_(_ENDED),
            campaigns.completed_at < _BEFORE,
            ~self._has_actions(UNFINISHED),
        )
        columns = [campaigns.tenant_id, campaigns.campaign_id]
        return look_up(self._of_campaigns, self._campaigns, columns, where, lock=True, skip_locked=True)

    def _removing_of_campaign(self, table: Table, condition: Any = None) -> Any:
        where = self._of_campaign(table, self._of_campaigns.c)
        return _removing(table, self._of_campaigns, where if condition is None else and_(where, condition))

    def _remove_campaigns_statement(self) -> Any:
        """Those of which nothing is left. Its snapshot is newer than those of what removed the rest."""
        campaigns = self._campaigns.c
        where = and_(
            self._of_campaign(self._campaigns, self._of_campaigns.c),
            ~self._has_actions(UNFINISHED),
            ~self._has_actions(FINISHED),
            ~self._has(self._events),
            ~self._has(self._transitions),
        )
        removing = _removing(self._campaigns, self._of_campaigns, where)
        return removing.returning(campaigns.tenant_id, campaigns.campaign_id)

    def _remove_actions_statement(self) -> Any:
        actions, given = self._actions.c, self._of_actions.c
        where = and_(
            actions.tenant_id == given.tenant_id,
            actions.dedupe_key == given.dedupe_key,
            still(actions.status, *FINISHED),
            actions.finished_at < _BEFORE,
            ~self._has_campaign(actions),
        )
        removing = _removing(self._actions, self._of_actions, where)
        return removing.returning(actions.tenant_id, actions.campaign_id, actions.dedupe_key)

    def _remove_events_statement(self) -> Any:
        events, given = self._events.c, self._of_events.c
        where = and_(
            events.tenant_id == given.tenant_id,
            events.event_id == given.event_id,
            events.received_at < _BEFORE,
            ~self._has_campaign(events),
        )
        return _removing(self._events, self._of_events, where)

    def _remove_pauses_statement(self) -> Any:
        pauses, given = self._pauses.c, self._of_pauses.c
        where = and_(
            self._of_campaign(self._pauses, given), pauses.scope == _ACTION, pauses.dedupe_key == given.dedupe_key
        )
        return _removing(self._pauses, self._of_pauses, where)

    def _is_apart(self) -> ColumnElement[bool]:
        """Word for word the condition of the index."""
        return or_(self._events.c.outcome == _WAITING, self._events.c.contact_id.is_not(None))

    def _has_campaign(self, row: Any) -> ColumnElement[bool]:
        campaigns = self._campaigns.c
        where = and_(campaigns.tenant_id == row.tenant_id, campaigns.campaign_id == row.campaign_id)
        return (
            select(campaigns.tenant_id)
            .where(where)
            .offset(literal_column("0"))
            .correlate_except(self._campaigns)
            .exists()
        )

    def _has_actions(self, statuses: Sequence[Any]) -> ColumnElement[bool]:
        return self._has(self._actions, self._actions.c.status.in_(statuses))

    def _has(self, table: Table, *conditions: Any) -> ColumnElement[bool]:
        """Whether the campaign has any of these."""
        where = and_(self._of_campaign(table, self._campaigns.c), *conditions)
        return select(table.c.tenant_id).where(where).offset(literal_column("0")).correlate_except(table).exists()

    @staticmethod
    def _of_campaign(table: Table, campaign: Any) -> ColumnElement[bool]:
        return and_(table.c.tenant_id == campaign.tenant_id, table.c.campaign_id == campaign.campaign_id)


def _beyond(order: Sequence[ColumnElement[Any]]) -> list[ColumnElement[bool]]:
    """Behind the row that the parameters `after_0`, `after_1`, ... name."""
    last = [bindparam(f"after_{place}", type_=column.type) for place, column in enumerate(order)]
    return [tuple_(*order) > tuple_(*last)]


def _slice(transaction: Transaction, statement: Any, after: Sequence[Any], before: datetime, most: int) -> Slice:
    """Rows are the columns of the order, which end with the key, and whether the row is due for removal."""
    places = {f"after_{place}": value for place, value in enumerate(after)}
    rows = transaction.connection.execute(statement, {**places, "before": before, "most": most}).all()
    keys = [(row[-3], row[-2]) for row in rows if row[-1]]
    return Slice(keys, tuple(rows[-1][:-1]) if len(rows) == most else None)


def _count(transaction: Transaction, removing: Any, rows: dict[str, Any]) -> int:
    """Rows removed; SQLite's driver doesn't count those of a statement that begins with WITH."""
    return len(transaction.connection.execute(removing.returning(literal_column("1")), rows).all())


def _removing(table: Table, source: RowSource, where: ColumnElement[bool]) -> Any:
    """Remove what `where` finds for the given rows, but for what somebody has locked."""
    key = list(table.primary_key.columns)
    hits = look_up(source, table, key, where, lock=True, skip_locked=True).cte("hits")
    return delete(table).where(tuple_(*key).in_(select(*hits.c)))
