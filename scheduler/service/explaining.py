"""Explains campaigns: reads everything about one in one state of the database, and lets the domain tell it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from scheduler.domain import machine
from scheduler.domain.action import ScheduledAction
from scheduler.domain.campaign import Campaign, Transition
from scheduler.domain.errors import InvalidInputError, InvalidPlanError, UnknownCampaignError
from scheduler.domain.explaining.explanation import CampaignRecord, Explanation, PastEvent, StuckCampaign, Suppression
from scheduler.domain.explaining.outlook import look_ahead, stand, why_nothing_comes
from scheduler.domain.explaining.retelling import retell
from scheduler.domain.incoming import IncomingEvent
from scheduler.domain.plan import CampaignPlan
from scheduler.service.timeouts import LARGEST_LIMIT
from scheduler.store.database import Transaction
from scheduler.store.events import StoredEvent
from scheduler.store.explaining import ContactState
from scheduler.store.stores import Stores

_ADDRESS: Final = re.compile(r"[^\s<>()\[\]:,;'\"]+@[^\s<>()\[\]:,;'\"]+")

Key = tuple[str, str]


class Explainer:
    """Reads, and never writes. Thread-safe."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def explain(self, key: Key, connection: Any = None) -> Explanation:
        """One campaign, in whatever state it is; raises UnknownCampaignError."""
        with self._stores.database.reading(connection) as transaction:
            if connection is None:
                self._stores.explaining.hold_still(transaction)
            record = self._record(transaction, key)
        campaign = record.campaign
        return Explanation(
            tenant_id=campaign.tenant_id,
            campaign_id=campaign.campaign_id,
            contact_id=campaign.contact_id,
            plan_hash=campaign.plan_hash,
            as_of=record.now,
            entries=retell(record),
            standing=stand(record),
            waits_for=look_ahead(record),
        )

    def stuck(self, tenant_id: str | None, limit: int, connection: Any = None) -> list[StuckCampaign]:
        """Active campaigns without an unfinished action, in key order, each with the reason."""
        if type(limit) is not int or not 1 <= limit <= LARGEST_LIMIT:
            raise InvalidInputError("limit", limit, f"give a whole number from 1 to {LARGEST_LIMIT}")
        with self._stores.database.reading(connection) as transaction:
            if connection is None:
                self._stores.explaining.hold_still(transaction)
            keys = self._stores.explaining.stuck(transaction, tenant_id, limit)
            campaigns = self._stores.campaigns.read(transaction, keys)
            visits = [(*one.key, one.node_visit) for one in campaigns.values()]
            actions: dict[Key, list[ScheduledAction]] = defaultdict(list)
            for action in self._stores.explaining.actions_of_visits(transaction, visits):
                actions[action.campaign_key].append(action)
            plans = self._plans(transaction, campaigns.values())
        return [
            why_nothing_comes(campaigns[key], plans.get(_plan_key(campaigns[key])), actions[key])
            for key in keys
            if key in campaigns
        ]

    def _record(self, transaction: Transaction, key: Key) -> CampaignRecord:
        stores, explaining = self._stores, self._stores.explaining
        campaign = stores.campaigns.read(transaction, [key]).get(key)
        if campaign is None:
            raise UnknownCampaignError(*key)
        contact = explaining.contact(transaction, (campaign.tenant_id, campaign.contact_id))
        transitions = stores.campaigns.history(transaction, key)
        since = transitions[0].created_at if transitions else campaign.started_at
        is_migrated = any(one.trigger == machine.MIGRATED for one in transitions)
        moved_to = campaign.plan_hash if is_migrated else None
        return CampaignRecord(
            campaign=campaign,
            plan=self._plans(transaction, [campaign]).get(_plan_key(campaign)),
            now=transaction.now,
            transitions=transitions,
            actions=[_impersonal(one, contact) for one in explaining.actions(transaction, key)],
            events=self._events(transaction, key, transitions),
            acts=explaining.acts(transaction, key, campaign.contact_id, since, moved_to),
            pauses=explaining.pauses(transaction, key),
            suppression=_suppression(contact),
        )

    def _events(self, transaction: Transaction, key: Key, transitions: Sequence[Transition]) -> list[PastEvent]:
        """What came for the campaign, and what came for its contact and ended it."""
        own = self._stores.events.of_campaign(transaction, key)
        known = {one.event_id for one in own}
        missing = {one.event_id for one in transitions if one.event_id is not None} - known
        others = self._stores.explaining.events(transaction, [(key[0], event_id) for event_id in missing])
        return [*map(_past, own), *(replace(_past(one), is_of_other=True) for one in others)]

    def _plans(self, transaction: Transaction, campaigns: Iterable[Campaign]) -> dict[Key, CampaignPlan]:
        """Their plans, but for those that somebody made unreadable: the rest is told all the same."""
        wanted = {_plan_key(one) for one in campaigns}
        try:
            return self._stores.plans.load(transaction, wanted)
        except InvalidPlanError:
            return {key: plan for one in wanted for key, plan in self._readable(transaction, one).items()}

    def _readable(self, transaction: Transaction, key: Key) -> dict[Key, CampaignPlan]:
        try:
            return self._stores.plans.load(transaction, [key])
        except InvalidPlanError:
            return {}


def _plan_key(campaign: Campaign) -> Key:
    return (campaign.tenant_id, campaign.plan_hash)


def _suppression(contact: ContactState) -> Suppression | None:
    return None if contact.suppressed_at is None else Suppression(contact.suppressed_at, contact.suppressed_reason)


def _impersonal(action: ScheduledAction, contact: ContactState) -> ScheduledAction:
    """Mail servers like to repeat the address in their errors. It may be one that we may not read, or a former one."""
    if action.last_error is None:
        return action
    told = action.last_error.replace(contact.address, "(address)") if contact.address else action.last_error
    return replace(action, last_error=_ADDRESS.sub("(address)", told))


def _past(event: StoredEvent) -> PastEvent:
    return PastEvent(
        event_id=event.event_id,
        event_type=event.event_type,
        message_id=event.message_id,
        node_id=event.node_id,
        node_visit=event.node_visit,
        occurred_at=event.occurred_at,
        received_at=event.received_at,
        outcome=event.outcome,
        is_machine=_is_of_machine(event),
    )


def _is_of_machine(event: StoredEvent) -> bool:
    if event.metadata is None:
        return False
    incoming = IncomingEvent(
        tenant_id=event.tenant_id,
        event_type=event.event_type,
        campaign_id=event.campaign_id or event.event_id,
        metadata=json.loads(event.metadata),
    )
    return incoming.is_machine
