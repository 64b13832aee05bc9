"""What concerns all of a contact's campaigns: an answer, an unsubscribe, told without naming one of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from scheduler.domain.action import require_id
from scheduler.domain.decision import DUPLICATE, RECORDED
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.event import SUPPRESSING_EVENTS, is_synthetic, normalise_event_type
from scheduler.domain.incoming import IncomingEvent, derive_id, metadata_text
from scheduler.domain.timing import parse_instant
from scheduler.service.event_intake import EventIntake
from scheduler.service.results import EventResult
from scheduler.service.suppression import Ending, Suppression
from scheduler.store.database import Transaction
from scheduler.store.events import StoredEvent
from scheduler.store.stores import Stores

Key = tuple[str, str]


class ContactEvents:
    """Takes events of contacts in. Thread-safe."""

    def __init__(self, stores: Stores, intake: EventIntake, suppression: Suppression) -> None:
        self._stores = stores
        self._intake = intake
        self._suppression = suppression

    def take(
        self,
        transaction: Transaction,
        contact: Key,
        event_type: str,
        metadata: Mapping[str, Any] | None,
        occurred_at: datetime | None,
        event_id: str | None,
    ) -> list[EventResult]:
        """Apply the event to every unfinished campaign of the contact, one result each, in key order.

        Once per event id: a campaign enrolled later isn't reached by a repeat. A contact without an unfinished campaign
        has one result, without a campaign.
        """
        event = self._checked(transaction, contact, event_type, metadata, occurred_at, event_id)
        if not self._stores.events.insert(transaction, [event]):
            transaction.vouch()
            return [EventResult(DUPLICATE, event.event_id, event.event_type)]
        campaigns = self._stores.campaigns.of_contacts(transaction, [contact])
        results = self._intake.take(transaction, [for_campaign(event, metadata, key[1]) for key in campaigns])
        if event.event_type in SUPPRESSING_EVENTS:
            ending = Ending(event.event_type, event.occurred_at, event.event_id, set(campaigns))
            self._suppression.suppress(transaction, {contact: ending})
        return results or [EventResult(RECORDED, event.event_id, event.event_type)]

    @staticmethod
    def _checked(
        transaction: Transaction,
        contact: Key,
        event_type: str,
        metadata: Mapping[str, Any] | None,
        occurred_at: datetime | None,
        event_id: str | None,
    ) -> StoredEvent:
        """The event as it is stored; raises InvalidInputError for what can't be taken."""
        name = normalise_event_type("event_type", event_type)
        if is_synthetic(name):
            raise InvalidInputError("event_type", event_type, "give a real event: a timeout belongs to one campaign")
        now = transaction.now
        at = now if occurred_at is None else parse_instant("occurred_at", occurred_at)
        own_id = derive_id("contact", contact[1], name, at.isoformat())
        return StoredEvent(
            tenant_id=contact[0],
            event_id=own_id if event_id is None else require_id("event_id", event_id),
            campaign_id=None,
            message_id=None,
            node_id=None,
            node_visit=None,
            event_type=name,
            occurred_at=min(at, now),
            received_at=now,
            outcome=RECORDED,
            metadata=metadata_text(metadata),
            contact_id=contact[1],
        )


def for_campaign(event: StoredEvent, metadata: Mapping[str, Any] | None, campaign_id: str) -> IncomingEvent:
    """A contact's event, for one of its campaigns; told again, it has the same id."""
    return IncomingEvent(
        tenant_id=event.tenant_id,
        event_type=event.event_type,
        metadata=metadata,
        campaign_id=campaign_id,
        occurred_at=event.occurred_at,
        event_id=derive_id("contact", event.event_id, campaign_id),
    )
