"""`campaign_events`: everything that happened, once per event id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Integer, Text, and_, bindparam, case, func, literal_column, select, true, union_all, update
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.domain.errors import InvalidInputError
from scheduler.store.database import Transaction
from scheduler.store.rows import RowSource, look_up
from scheduler.store.tables import Instant, Layout

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One row of `campaign_events`."""

    tenant_id: str
    event_id: str
    campaign_id: str | None
    message_id: str | None
    node_id: str | None
    node_visit: int | None
    event_type: str
    occurred_at: datetime
    received_at: datetime
    outcome: str
    metadata: str | None
    contact_id: str | None = None

    @property
    def key(self) -> Key:
        """The primary key: tenant and event id."""
        return (self.tenant_id, self.event_id)


@dataclass(frozen=True, slots=True)
class Mail:
    """The send that a message id belongs to."""

    campaign_id: str
    node_id: str
    node_visit: int


_IGNORED: Final = literal_column("'ignored'", Text)
_WAITING: Final = literal_column("'unknown_campaign'", Text)
# Locks one by one up to here: PostgreSQL keeps all of everybody in one table of some thousands.
MOST_MESSAGE_LOCKS: Final = 100
_COLUMNS: Final = tuple(field.name for field in fields(StoredEvent))


class Events:
    """Statements on events. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.tables.campaign_events
        self._actions = layout.tables.scheduled_actions
        name = layout.dialect_name
        events = self._table.c
        self._new = RowSource(name, {column: events[column].type for column in _COLUMNS})
        self._outcomes = RowSource(name, {"tenant_id": Text, "event_id": Text, "outcome": Text})
        self._messages = RowSource(name, {"tenant_id": Text, "message_id": Text})
        self._keys = RowSource(name, {"tenant_id": Text, "event_id": Text})
        campaign = {"tenant_id": Text, "campaign_id": Text}
        self._campaigns = RowSource(name, campaign)
        self._over = RowSource(name, {**campaign, "first_visit": Integer, "contact_id": Text, "since": Instant})
        self._placed = RowSource(
            name,
            {**dict.fromkeys(("tenant_id", "event_id", "campaign_id", "node_id"), Text), "node_visit": Integer},
        )
        message = self._messages.c
        hashed = func.hashtextextended(message.tenant_id.concat("\x1f").concat(message.message_id), 0)
        exclusive, shared = func.pg_advisory_xact_lock(hashed), func.pg_advisory_xact_lock_shared(hashed)
        isolation = func.current_setting("transaction_isolation")
        self._lock_messages = select(isolation, case((message.message_id == "", shared), else_=exclusive))
        self._lock_tenants = select(isolation, exclusive)
        make = postgresql.insert if layout.is_postgresql else sqlite.insert
        self._insert = (
            make(self._table)
            .from_select(list(_COLUMNS), select(*(self._new.c[column] for column in _COLUMNS)).where(true()))
            .on_conflict_do_nothing(index_elements=[events.tenant_id, events.event_id])
            .returning(events.tenant_id, events.event_id)
        )

    def insert(self, transaction: Transaction, events: Sequence[StoredEvent]) -> set[Key]:
        """Store those not known yet; returns their keys. A twin at work on the same event is waited for."""
        if not events:
            return set()
        ordered = sorted(events, key=lambda event: (event.tenant_id, event.event_id))
        rows = [[getattr(event, column) for column in _COLUMNS] for event in ordered]
        return {(tenant, key) for tenant, key in transaction.connection.execute(self._insert, self._new.bind(rows))}

    def waiting(self, transaction: Transaction, messages: Iterable[Key]) -> list[StoredEvent]:
        """Events of those mails that nobody could place when they came, in the order they occurred."""
        events, given = self._table.c, self._messages.c
        of_mail = and_(events.tenant_id == given.tenant_id, events.message_id == given.message_id)
        columns = [events[column] for column in _COLUMNS]
        found = look_up(self._messages, self._table, columns, and_(of_mail, events.outcome == _WAITING)).subquery()
        statement = select(found).order_by(found.c.occurred_at, found.c.received_at, found.c.event_id)
        rows: Any = transaction.connection.execute(statement, self._messages.bind(sorted(set(messages))))
        return [StoredEvent(*row) for row in rows]

    def missed(
        self, transaction: Transaction, campaigns: Iterable[tuple[str, str, int, str, datetime]]
    ) -> list[tuple[str, StoredEvent]]:
        """What came for campaigns once they were over, or was told of their contacts since, in order of arrival.

        Given (tenant, campaign, the first visit of its last start, contact, since when), returns each event with the
        campaign it is about. One of a contact is found, too, where it had reached the campaign.
        """
        events, given = self._table.c, self._over.c
        of_tenant = events.tenant_id == given.tenant_id
        is_ignored = and_(events.outcome == _IGNORED, events.node_visit >= given.first_visit)
        is_own = and_(of_tenant, events.campaign_id == given.campaign_id, is_ignored)
        of_contact = and_(of_tenant, events.contact_id.is_not(None), events.contact_id == given.contact_id)
        is_of_contact = and_(of_contact, events.received_at >= given.since)
        columns = [given.campaign_id.label("about"), *(events[column] for column in _COLUMNS)]
        parts = [look_up(self._over, self._table, columns, where) for where in (is_own, is_of_contact)]
        found = union_all(*parts).subquery()
        statement = select(found).order_by(found.c.received_at, found.c.event_id)
        rows: Any = transaction.connection.execute(statement, self._over.bind(sorted(campaigns)))
        return [(row[0], StoredEvent(*row[1:])) for row in rows]

    def still_waiting(self, transaction: Transaction, keys: Iterable[Key]) -> dict[Key, datetime]:
        """Which of these events nobody could place yet, and when each occurred."""
        wanted = sorted(set(keys))
        if not wanted:
            return {}
        events, given = self._table.c, self._keys.c
        of_key = and_(events.tenant_id == given.tenant_id, events.event_id == given.event_id)
        columns = [events.tenant_id, events.event_id, events.occurred_at]
        statement = look_up(self._keys, self._table, columns, and_(of_key, events.outcome == _WAITING))
        rows = transaction.connection.execute(statement, self._keys.bind(wanted))
        return {(tenant, event_id): occurred_at for tenant, event_id, occurred_at in rows}

    def place(self, transaction: Transaction, rows: Sequence[tuple[str, str, str, str | None, int | None]]) -> set[Key]:
        """Events that waited have a campaign now: (tenant, event id, campaign, node, visit). Returns those that did.

        A twin at work on the same event is waited for, and one of the two gets it.
        """
        if not rows:
            return set()
        events, given = self._table.c, self._placed.c
        of_key = and_(events.tenant_id == given.tenant_id, events.event_id == given.event_id)
        changed = [given[name].label(f"new_{name}") for name in ("campaign_id", "node_id", "node_visit")]
        hits = look_up(self._placed, self._table, [events.tenant_id, events.event_id, *changed], of_key).cte("hits")
        of_hit = and_(events.tenant_id == hits.c.tenant_id, events.event_id == hits.c.event_id)
        statement = (
            update(self._table)
            .where(of_hit, events.outcome == _WAITING)
            .values(
                campaign_id=hits.c.new_campaign_id,
                node_id=hits.c.new_node_id,
                node_visit=hits.c.new_node_visit,
                outcome=literal_column("'recorded'", Text),
            )
            .returning(events.tenant_id, events.event_id)
        )
        placed = transaction.connection.execute(statement, self._placed.bind(sorted(rows)))
        return {(tenant, event_id) for tenant, event_id in placed}

    def lock_messages(self, transaction: Transaction, messages: Iterable[Key]) -> None:
        """Until commit, nobody else confirms these mails or keeps events of them: one of the two sees the other.

        To be taken before any campaign is locked. A few are locked one by one beside others of their tenant, many with
        all of their tenant; everybody in the same order. SQLite has one writer at a time anyway.

        Raises InvalidInputError for a caller's transaction that goes on seeing what was there before.
        """
        wanted = set(messages)
        if not wanted or not transaction.database.is_postgresql:
            return
        tenants = {(tenant_id, "") for tenant_id, _ in wanted}
        (statement, rows) = (self._lock_messages, tenants | wanted)
        if len(wanted) > MOST_MESSAGE_LOCKS:
            (statement, rows) = (self._lock_tenants, tenants)
        isolation = transaction.connection.execute(statement, self._messages.bind(sorted(rows))).all()[0][0]
        if isolation != "read committed":
            remedy = "use READ COMMITTED: an event and the confirmation of its mail must see each other"
            raise InvalidInputError("connection", isolation.upper(), remedy)

    def forget_metadata(self, transaction: Transaction, contact: Key, campaigns: Iterable[Key]) -> bool:
        """Remove what was said beside the events of a contact and its campaigns; whether the contact had any itself."""
        events, given = self._table.c, self._campaigns.c
        of_campaign = and_(events.tenant_id == given.tenant_id, events.campaign_id == given.campaign_id)
        keys = [events.tenant_id, events.event_id]
        hits = look_up(self._campaigns, self._table, keys, and_(of_campaign, events.metadata.is_not(None))).cte("hits")
        of_hit = and_(events.tenant_id == hits.c.tenant_id, events.event_id == hits.c.event_id)
        forget = update(self._table).values(metadata=None)
        transaction.connection.execute(forget.where(of_hit), self._campaigns.bind(sorted(campaigns)))
        of_contact = and_(events.tenant_id == contact[0], events.contact_id == contact[1])
        return transaction.connection.execute(forget.where(of_contact)).rowcount > 0

    def set_outcomes(self, transaction: Transaction, rows: Sequence[tuple[str, str, str]]) -> None:
        """What became of events: (tenant, event id, outcome)."""
        if not rows:
            return
        events, given = self._table.c, self._outcomes.c
        of_key = and_(events.tenant_id == given.tenant_id, events.event_id == given.event_id)
        columns = [events.tenant_id, events.event_id, given.outcome.label("new_outcome")]
        hits = look_up(self._outcomes, self._table, columns, of_key).cte("hits")
        of_hit = and_(events.tenant_id == hits.c.tenant_id, events.event_id == hits.c.event_id)
        statement = update(self._table).where(of_hit).values(outcome=hits.c.new_outcome)
        transaction.connection.execute(statement, self._outcomes.bind(rows))

    def mails(self, transaction: Transaction, messages: Iterable[Key]) -> dict[Key, Mail]:
        """Which send each (tenant, message id) belongs to, where it is known."""
        wanted = sorted(set(messages))
        if not wanted:
            return {}
        actions, given = self._actions.c, self._messages.c
        of_mail = and_(actions.tenant_id == given.tenant_id, actions.message_id == given.message_id)
        names = ("tenant_id", "message_id", "campaign_id", "node_id", "node_visit")
        is_send = actions.action_type == literal_column("'send'")
        statement = look_up(self._messages, self._actions, [actions[name] for name in names], and_(of_mail, is_send))
        rows = transaction.connection.execute(statement, self._messages.bind(wanted))
        return {(row[0], row[1]): Mail(*row[2:]) for row in rows}

    def of_campaign(self, transaction: Transaction, key: Key) -> list[StoredEvent]:
        """All that happened to one campaign, in order of arrival."""
        events = self._table.c
        statement = (
            select(*(events[column] for column in _COLUMNS))
            .where(events.tenant_id == bindparam("tenant"), events.campaign_id == bindparam("campaign"))
            .order_by(events.received_at, events.event_id)
        )
        rows: Any = transaction.connection.execute(statement, {"tenant": key[0], "campaign": key[1]})
        return [StoredEvent(*row) for row in rows]
