"""Contacts who must not be approached any more: all their campaigns stop, and no new one begins.

Whoever suppresses holds the contact's row, and so does whoever enrols: either the enrolment sees the suppression, or
the suppression sees what was enrolled. A send looks once more before it goes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from scheduler.domain import machine
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit

Key = tuple[str, str]

SUPPRESSED = "suppressed"
ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a contact's campaigns stop: `trigger` is what their history says, `spared` are those that don't."""

    trigger: str
    occurred_at: datetime
    event_id: str | None = None
    spared: set[Key] = field(default_factory=set)
    reason: str | None = None


class Suppression:
    """Suppresses contacts, lets them be approached again, and forgets them. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter) -> None:
        self._stores = stores
        self._writer = writer

    def suppress(self, transaction: Transaction, ends: Mapping[Key, Ending]) -> set[Key]:
        """Suppress contacts and stop their campaigns; returns the contacts that weren't suppressed before.

        Their campaigns are locked before their own rows; what was enrolled meanwhile is found afterwards.
        """
        self._lock_campaigns(transaction, ends)
        fresh = self._stores.contacts.suppress(
            transaction, {contact: end.reason or end.trigger for contact, end in ends.items()}
        )
        self._stop_campaigns(transaction, ends)
        transaction.on_commit(lambda: _tell(fresh, ends))
        return fresh

    def suppress_one(self, transaction: Transaction, contact: Key, reason: str, actor: str | None) -> bool:
        """Suppress a contact by hand; False when it was already."""
        ending = Ending(SUPPRESSED, transaction.now, reason=reason)
        is_new = contact in self.suppress(transaction, {contact: ending})
        if is_new:
            self._note(transaction, "contact.suppressed", contact, actor, reason=reason)
        return is_new

    def unsuppress(self, transaction: Transaction, contact: Key, actor: str | None) -> bool:
        """Let a contact be approached again; its campaigns stay stopped. False when it wasn't suppressed."""
        was_suppressed = self._stores.contacts.unsuppress(transaction, contact)
        if was_suppressed:
            self._note(transaction, "contact.unsuppressed", contact, actor)
            transaction.on_commit(lambda: emit("contact.unsuppressed", tenant_id=contact[0], contact_id=contact[1]))
        return was_suppressed

    def erase(self, transaction: Transaction, contact: Key, actor: str | None) -> bool:
        """Forget a contact's personal data; its campaigns stop, and what is counted stays. False when it is unknown."""
        ends = {contact: Ending(ERASED, transaction.now)}
        self._lock_campaigns(transaction, ends, finished=True)
        is_known = self._stores.contacts.erase(transaction, contact)
        self._stop_campaigns(transaction, ends)
        campaigns = self._stores.campaigns.of_contacts(transaction, [contact], finished=True)
        has_events = self._stores.events.forget_metadata(transaction, contact, campaigns)
        if not (is_known or campaigns or has_events):
            return False
        self._stores.changes.forget_errors(transaction, campaigns)
        self._note(transaction, "contact.erased", contact, actor)
        transaction.on_commit(lambda: emit("contact.erased", tenant_id=contact[0], contact_id=contact[1]))
        return True

    def _lock_campaigns(
        self, transaction: Transaction, contacts: Mapping[Key, Ending], *, finished: bool = False
    ) -> None:
        """With `finished` those that are over, too: whoever changes their rows, and retention, never cross."""
        campaigns = self._stores.campaigns
        campaigns.lock(transaction, campaigns.of_contacts(transaction, contacts, finished=finished))

    def _stop_campaigns(self, transaction: Transaction, ends: Mapping[Key, Ending]) -> None:
        """One decision for each campaign, written together."""
        campaigns = self._stores.campaigns
        locked = campaigns.lock(transaction, campaigns.of_contacts(transaction, ends))
        decided = []
        for campaign in locked.values():
            end = ends[campaign.tenant_id, campaign.contact_id]
            if campaign.key not in end.spared and not campaign.is_finished:
                decision = machine.stop(campaign, end.trigger, end.occurred_at, transaction.now, end.event_id)
                decided.append(Decided(campaign, decision))
        self._writer.write(transaction, decided)

    def _note(
        self, transaction: Transaction, act: str, contact: Key, actor: str | None, reason: str | None = None
    ) -> None:
        details = {"contact_id": contact[1]} if reason is None else {"contact_id": contact[1], "reason": reason}
        self._stores.operator_actions.record(transaction, act, contact[0], None, actor, details)


def _tell(fresh: set[Key], ends: Mapping[Key, Ending]) -> None:
    for tenant_id, contact_id in sorted(fresh):
        trigger = ends[tenant_id, contact_id].trigger
        emit("contact.suppressed", tenant_id=tenant_id, contact_id=contact_id, trigger=trigger)
