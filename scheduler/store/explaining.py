"""What explaining a campaign reads beside its own rows, and which campaigns wait for nothing. Nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, Select, Text, and_, bindparam, literal_column, null, or_, select, text

from scheduler.domain.action import ScheduledAction
from scheduler.domain.explaining.explanation import OperatorAct
from scheduler.domain.pausing import Pause, Scope
from scheduler.store.actions import action_columns, to_action
from scheduler.store.database import Transaction
from scheduler.store.events import StoredEvent
from scheduler.store.pauses import pause_columns, to_pause
from scheduler.store.rights import may_read
from scheduler.store.rows import RowSource, look_up
from scheduler.store.statuses import EACH_INDEX, UNFINISHED
from scheduler.store.tables import Layout

Key = tuple[str, str]
Visit = tuple[str, str, int]

_SNAPSHOT: Final = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_BEGIN: Final = text("BEGIN")
_ACTIVE: Final = literal_column("'active'", Text)


@dataclass(frozen=True, slots=True)
class ContactState:
    """What an explanation needs to know of a contact. The address is known only so that it isn't shown."""

    suppressed_at: datetime | None = None
    suppressed_reason: str | None = None
    address: str | None = None


class Explaining:
    """Statements that look at one campaign from all sides. Stateless, thread-safe."""

    def __init__(self, layout: Layout) -> None:
        tables = layout.tables
        self._actions = tables.scheduled_actions
        self._acts = tables.operator_actions
        self._campaigns = tables.contact_campaigns
        self._contacts = tables.contacts
        self._events = tables.campaign_events
        self._pauses = tables.pauses
        name = layout.dialect_name
        keys = self._event_keys = RowSource(name, {"tenant_id": Text, "event_id": Text})
        events = self._events.c
        of_key = and_(events.tenant_id == keys.c.tenant_id, events.event_id == keys.c.event_id)
        event_columns = [events[field.name] for field in fields(StoredEvent)]
        self._events_by_key = look_up(keys, self._events, event_columns, of_key)
        self._keys = RowSource(name, {"tenant_id": Text, "campaign_id": Text})
        self._visits = RowSource(name, {"tenant_id": Text, "campaign_id": Text, "node_visit": Integer})
        columns = action_columns(tables)
        status = self._actions.c.status
        of_visit = and_(self._of(self._visits), self._actions.c.node_visit == self._visits.c.node_visit)
        self._all_actions = [
            look_up(self._keys, self._actions, columns, and_(self._of(self._keys), status.in_(statuses)))
            for statuses in EACH_INDEX
        ]
        self._visit_actions = [
            look_up(self._visits, self._actions, columns, and_(of_visit, status.in_(statuses)))
            for statuses in EACH_INDEX
        ]

    def _of(self, given: RowSource) -> ColumnElement[bool]:
        actions = self._actions.c
        return and_(actions.tenant_id == given.c.tenant_id, actions.campaign_id == given.c.campaign_id)

    @staticmethod
    def hold_still(transaction: Transaction) -> None:
        """Let all reads of a transaction of ours see one state; to be called before the first of them."""
        transaction.connection.execute(_SNAPSHOT if transaction.database.is_postgresql else _BEGIN)

    def events(self, transaction: Transaction, keys: Iterable[Key]) -> list[StoredEvent]:
        """Events by (tenant, event id): those that happened to a contact, and not to one campaign of it."""
        rows = sorted(set(keys))
        if not rows:
            return []
        found: Any = transaction.connection.execute(self._events_by_key, self._event_keys.bind(rows))
        return [StoredEvent(*row) for row in found]

    def actions(self, transaction: Transaction, key: Key) -> list[ScheduledAction]:
        """Everything that was ever scheduled for a campaign, by visit."""
        found = self._read(transaction, self._all_actions, self._keys.bind([key]))
        return sorted(found, key=lambda one: (one.node_visit, one.dedupe_key))

    def actions_of_visits(self, transaction: Transaction, visits: Iterable[Visit]) -> list[ScheduledAction]:
        """What was scheduled for these visits: (tenant, campaign, visit)."""
        rows = sorted(visits)
        if not rows:
            return []
        return self._read(transaction, self._visit_actions, self._visits.bind(rows))

    @staticmethod
    def _read(
        transaction: Transaction, statements: Sequence[Select[Any]], rows: dict[str, Any]
    ) -> list[ScheduledAction]:
        return [to_action(row) for one in statements for row in transaction.connection.execute(one, rows)]

    def acts(
        self, transaction: Transaction, key: Key, contact_id: str, since: datetime, moved_to: str | None
    ) -> list[OperatorAct]:
        """What was done by hand to one campaign and, since it began, to its contact or to all it belongs to.

        `moved_to` is the hash of the plan it was migrated to, if it was: many campaigns are, in one act.
        """
        acts = self._acts.c
        is_wider = and_(acts.campaign_id.is_(None), acts.created_at >= since)
        is_pause = or_(acts.act.like("%paused"), acts.act.like("%resumed"))
        name = json.dumps(contact_id, ensure_ascii=False)
        is_of_contact = and_(acts.act.like("contact.%"), acts.details.contains(name, autoescape=True))
        is_move = and_(acts.act == "campaign.migrated", acts.details.contains(moved_to or "", autoescape=True))
        is_of_it = or_(is_pause, is_of_contact, is_move) if moved_to is not None else or_(is_pause, is_of_contact)
        statement = (
            select(acts.created_at, acts.act, acts.actor, acts.details)
            .where(
                or_(
                    and_(acts.tenant_id == key[0], acts.campaign_id == key[1]),
                    and_(acts.tenant_id == key[0], is_wider, is_of_it),
                    and_(acts.tenant_id.is_(None), is_wider, is_pause),
                )
            )
            .order_by(acts.created_at, acts.operator_action_id)
        )
        found = [_to_act(*row) for row in transaction.connection.execute(statement)]
        return [one for one in found if one.details.get("contact_id", contact_id) == contact_id]

    def pauses(self, transaction: Transaction, key: Key) -> list[Pause]:
        """Every pause that holds a campaign at present, the widest first."""
        pauses = self._pauses.c
        of_one = and_(pauses.tenant_id == key[0], pauses.campaign_id.in_(("", key[1])))
        of_all = and_(pauses.tenant_id == "", pauses.campaign_id == "", pauses.scope.in_(("all", "sends")))
        statement = select(*pause_columns(self._pauses)).where(or_(of_one, of_all))
        found = [to_pause(row) for row in transaction.connection.execute(statement)]
        widths = list(Scope)
        return sorted(found, key=lambda one: (widths.index(Scope(one.scope)), one.started_at))

    def contact(self, transaction: Transaction, key: Key) -> ContactState:
        """Whether a contact is suppressed. Nothing is known of one without a row, nor an address we may not read."""
        contacts = self._contacts.c
        address = contacts.address if may_read(transaction, contacts.address) else null()
        statement = select(contacts.suppressed_at, contacts.suppressed_reason, address).where(
            contacts.tenant_id == key[0], contacts.contact_id == key[1]
        )
        row = transaction.connection.execute(statement).first()
        return ContactState() if row is None else ContactState(*row)

    def stuck(self, transaction: Transaction, tenant_id: str | None, limit: int) -> list[Key]:
        """Active campaigns without an unfinished action, in key order.

        Walks the campaigns in the order of their primary key until enough are found, and asks the index of unfinished
        actions once for each active one: OFFSET 0 keeps the question from becoming a join over all actions.
        """
        campaigns, actions = self._campaigns.c, self._actions.c
        is_coming = (
            select(actions.tenant_id)
            .where(actions.tenant_id == campaigns.tenant_id, actions.campaign_id == campaigns.campaign_id)
            .where(actions.status.in_(UNFINISHED))
            .offset(literal_column("0"))
            .correlate(self._campaigns)
            .exists()
        )
        statement = select(campaigns.tenant_id, campaigns.campaign_id).where(campaigns.status == _ACTIVE, ~is_coming)
        parameters: dict[str, Any] = {"most": limit}
        if tenant_id is not None:
            statement = statement.where(campaigns.tenant_id == bindparam("tenant"))
            parameters["tenant"] = tenant_id
        statement = statement.order_by(campaigns.tenant_id, campaigns.campaign_id).limit(bindparam("most"))
        return [(tenant, campaign) for tenant, campaign in transaction.connection.execute(statement, parameters)]


def _to_act(at: datetime, act: str, actor: str | None, document: str | None) -> OperatorAct:
    details = _object(document)
    reason = details.pop("reason", None)
    return OperatorAct(at, act, actor, None if reason is None else str(reason), details)


def _object(document: str | None) -> dict[str, Any]:
    """A JSON object as stored; what is none, somebody else wrote."""
    try:
        found = json.loads(document or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
