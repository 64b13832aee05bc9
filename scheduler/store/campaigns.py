"""`contact_campaigns` and `campaign_transitions`: locked in key order, moved together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Table,
    Text,
    and_,
    bindparam,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from scheduler.domain.campaign import Campaign, CampaignStatus, MailEvents, Transition
from scheduler.store.database import Transaction
from scheduler.store.prepared import Prepared
from scheduler.store.rows import RowSource, look_up
from scheduler.store.tables import Layout

Key = tuple[str, str]

_FIELDS: Final = tuple(field.name for field in fields(Campaign))
# Read with a campaign, and kept elsewhere: with its contact, and in `pauses`.
_BESIDE: Final = ("timezone", "is_suppressed", "is_held")
_STORED: Final = tuple(name for name in _FIELDS if name not in _BESIDE)
_MOVED: Final = (
    "channel",
    "status",
    "current_node_id",
    "node_visit",
    "node_entered_at",
    "anchor_at",
    "started_at",
    "completed_at",
    "updated_at",
    "mail_node_id",
    "mail_visit",
    "sent_visit",
    "first_visit",
    "mail_events",
)
_KEY: Final = ("tenant_id", "campaign_id")
_PLAN: Final = ("plan_hash",)
_TRANSITION: Final = tuple(field.name for field in fields(Transition))


def _reader(names: Sequence[str]) -> Callable[[Campaign], tuple[Any, ...]]:
    """Takes these columns of a campaign, as they are stored."""
    return attrgetter(*("mail_events_json" if name == "mail_events" else name for name in names))


_READ_STORED: Final = _reader(_STORED)
_READ_MOVED: Final = _reader((*_KEY, *_MOVED))
_READ_REPLANNED: Final = _reader((*_KEY, *_MOVED, *_PLAN))
_READ_TRANSITION: Final = attrgetter(*_TRANSITION)


class Campaigns:
    """Statements on campaigns. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        self._table = layout.tables.contact_campaigns
        self._contacts = layout.tables.contacts
        self._pauses = layout.tables.pauses
        self._transitions = layout.tables.campaign_transitions
        name = layout.dialect_name
        columns = self._table.c
        self._keys = RowSource(name, {"tenant_id": Text, "campaign_id": Text})
        self._of_contacts = RowSource(name, {"tenant_id": Text, "contact_id": Text})
        self._new = RowSource(name, {column: columns[column].type for column in _STORED})
        self._moved = RowSource(name, {column: columns[column].type for column in (*_KEY, *_MOVED)}, "moved")
        history = {column: self._transitions.c[column].type for column in _TRANSITION}
        self._left = RowSource(name, history, "visits_left")
        self._select = self._select_statement()
        self._lock = self._select_statement(lock=True)
        self._lock_free = self._select_statement(lock=True, skip_locked=True)
        self._insert = self._insert_statement(name)
        self.update_statement = self._update_statement(self._moved, _MOVED)
        self._update = Prepared(self.update_statement)
        self._replanned = RowSource(name, {column: columns[column].type for column in (*_KEY, *_MOVED, *_PLAN)})
        self._update_with_plan = self._update_statement(self._replanned, (*_MOVED, *_PLAN))
        self.transitions_statement = self._transitions.insert().from_select(
            list(_TRANSITION), select(*(self._left.c[column] for column in _TRANSITION))
        )
        self._insert_transitions = Prepared(self.transitions_statement)

    def _select_statement(self, *, lock: bool = False, skip_locked: bool = False) -> Prepared:
        """Locks are taken in the order of the given keys, which `_load` sorts."""
        campaigns = self._table.c
        contacts = self._contacts.c
        of_contact = and_(contacts.tenant_id == campaigns.tenant_id, contacts.contact_id == campaigns.contact_id)
        beside = {
            "timezone": contacts.timezone,
            "is_suppressed": contacts.suppressed_at.is_not(None).label("is_suppressed"),
            "is_held": is_held(self._pauses, campaigns.tenant_id).label("is_held"),
        }
        stored = {**beside, **{column.name: column for column in campaigns}}
        of_key = and_(campaigns.tenant_id == self._keys.c.tenant_id, campaigns.campaign_id == self._keys.c.campaign_id)
        columns = [stored[name] for name in _FIELDS]
        contact = (self._contacts, of_contact)
        locks = {"lock": lock, "skip_locked": skip_locked}
        return Prepared(look_up(self._keys, self._table, columns, of_key, beside=contact, **locks))

    def _insert_statement(self, dialect_name: str) -> Prepared:
        make = postgresql.insert if dialect_name == "postgresql" else sqlite.insert
        campaigns = self._table.c
        return Prepared(
            make(self._table)
            .from_select(list(_STORED), select(*(self._new.c[name] for name in _STORED)).where(true()))
            .on_conflict_do_nothing(index_elements=[campaigns.tenant_id, campaigns.campaign_id])
            .returning(campaigns.tenant_id, campaigns.campaign_id)
        )

    def _update_statement(self, given: RowSource, changed: Sequence[str]) -> Any:
        campaigns, moved = self._table.c, given.c
        return (
            update(self._table)
            .where(campaigns.tenant_id == moved.tenant_id, campaigns.campaign_id == moved.campaign_id)
            .values({name: moved[name] for name in changed})
        )

    def read(self, transaction: Transaction, keys: Iterable[Key]) -> dict[Key, Campaign]:
        """Those of the campaigns that exist, without a lock."""
        return self._load(transaction, self._select, keys)

    def lock(self, transaction: Transaction, keys: Iterable[Key]) -> dict[Key, Campaign]:
        """Those that exist, locked in key order until commit; waits for whoever holds one."""
        return self._load(transaction, self._lock, keys)

    def lock_free(self, transaction: Transaction, keys: Iterable[Key]) -> dict[Key, Campaign]:
        """Those that exist and nobody holds, locked in key order until commit; never waits."""
        return self._load(transaction, self._lock_free, keys)

    def of_contacts(self, transaction: Transaction, contacts: Iterable[Key], *, finished: bool = False) -> list[Key]:
        """The unfinished campaigns of these contacts (with `finished`, all of them), in key order."""
        wanted = sorted(set(contacts))
        if not wanted:
            return []
        campaigns, given = self._table.c, self._of_contacts.c
        of_contact = and_(campaigns.tenant_id == given.tenant_id, campaigns.contact_id == given.contact_id)
        if not finished:
            of_contact = and_(of_contact, campaigns.status.in_([CampaignStatus.ACTIVE, CampaignStatus.PAUSED]))
        statement = look_up(self._of_contacts, self._table, [campaigns.tenant_id, campaigns.campaign_id], of_contact)
        rows = transaction.connection.execute(statement, self._of_contacts.bind(wanted))
        return sorted((tenant, campaign) for tenant, campaign in rows)

    def _load(self, transaction: Transaction, statement: Prepared, keys: Iterable[Key]) -> dict[Key, Campaign]:
        wanted = sorted(set(keys))
        if not wanted:
            return {}
        rows = statement.rows(transaction, self._keys.bind(wanted))
        return {campaign.key: campaign for campaign in map(_to_campaign, rows)}

    def insert(self, transaction: Transaction, campaigns: Sequence[Campaign]) -> set[Key]:
        """Insert those that don't exist yet; returns their keys."""
        if not campaigns:
            return set()
        rows = self._new.bind(map(_READ_STORED, campaigns))
        return {(tenant, key) for tenant, key in self._insert.rows(transaction, rows)}

    def update(self, transaction: Transaction, campaigns: Sequence[Campaign]) -> None:
        """Store the new state of locked campaigns."""
        if campaigns:
            self._update.change(transaction, self.update_parameters(campaigns))

    def update_parameters(self, campaigns: Iterable[Campaign]) -> dict[str, Any]:
        """What `update_statement` needs."""
        return self._moved.bind(map(_READ_MOVED, campaigns))

    def update_with_plan(self, transaction: Transaction, campaigns: Sequence[Campaign]) -> None:
        """The same for locked campaigns that go on, or begin again, on another plan."""
        if campaigns:
            rows = self._replanned.bind(map(_READ_REPLANNED, campaigns))
            transaction.connection.execute(self._update_with_plan, rows)

    def insert_transitions(self, transaction: Transaction, transitions: Sequence[Transition]) -> None:
        """Append to the history. A visit left before is refused by the primary key."""
        if transitions:
            self._insert_transitions.change(transaction, self.transitions_parameters(transitions))

    def transitions_parameters(self, transitions: Iterable[Transition]) -> dict[str, Any]:
        """What `transitions_statement` needs."""
        return self._left.bind(map(_READ_TRANSITION, transitions))

    def history(self, transaction: Transaction, key: Key) -> list[Transition]:
        """The visits left, in order; the enrolment first."""
        transitions = self._transitions.c
        statement = (
            select(*(transitions[name] for name in _TRANSITION))
            .where(transitions.tenant_id == bindparam("tenant"), transitions.campaign_id == bindparam("campaign"))
            .order_by(transitions.node_visit)
        )
        rows = transaction.connection.execute(statement, {"tenant": key[0], "campaign": key[1]})
        return [Transition(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's documented accessor


def is_held(pauses: Table, tenant_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a pause of the tenant, or of everything, holds. Both are found by the primary key."""

    def holds(tenant: Any, scope: str) -> ColumnElement[bool]:
        wanted = and_(
            pauses.c.tenant_id == tenant,
            pauses.c.campaign_id == literal_column("''", Text),
            pauses.c.scope == literal_column(f"'{scope}'", Text),
        )
        return select(pauses.c.scope).where(wanted).exists()

    return or_(holds(literal_column("''", Text), "all"), holds(tenant_id, "tenant"))


def _to_campaign(row: Sequence[Any]) -> Campaign:
    """Set directly: a frozen value's own way is several times as long."""
    campaign = object.__new__(Campaign)
    values = campaign.__dict__
    values.update(zip(_FIELDS, row, strict=True))
    values["mail_events"] = MailEvents.from_json(values["mail_events"])
    values["is_suppressed"] = bool(values["is_suppressed"])
    values["is_held"] = bool(values["is_held"])
    return campaign
