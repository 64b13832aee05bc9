"""Real events: which campaign and which mail they are about, whether they are new, and what they do.

Order within one transaction: messages that nobody knows yet are locked, then the campaigns' rows; the events are stored
(once per event id), then decided one after the other as they came, and what they did is written round by round. At
last, contacts who want no more mail are suppressed, and their other campaigns stop.

An event of a mail that nobody has confirmed yet is kept, and applied in the transaction that confirms that mail.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from scheduler.domain import machine
from scheduler.domain.action import SENT_EVENT, ActionStatus, ActionType, make_dedupe_key
from scheduler.domain.campaign import Campaign
from scheduler.domain.decision import DUPLICATE, LATE, RECORDED, Decision, RealEvent
from scheduler.domain.errors import InvalidInputError, SchedulerError
from scheduler.domain.event import SUPPRESSING_EVENTS, is_synthetic
from scheduler.domain.incoming import IncomingEvent
from scheduler.domain.outcome import FAILED, TRANSITIONED, UNKNOWN_CAMPAIGN
from scheduler.domain.plan import CampaignPlan
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.service.results import EventResult
from scheduler.service.suppression import Ending, Suppression
from scheduler.store.database import Transaction
from scheduler.store.events import Mail, StoredEvent
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics

Key = tuple[str, str]


@dataclass(slots=True)
class _Placed:
    """An event, the campaign it is about and the mail it belongs to."""

    incoming: IncomingEvent
    event_id: str
    occurred_at: datetime
    campaign: Campaign | None
    mail_visit: int | None
    outcome: str = RECORDED
    is_taken_up: bool = False

    @property
    def key(self) -> Key:
        return (self.incoming.tenant_id, self.event_id)


class EventIntake:
    """Takes real events in. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter, metrics: Metrics) -> None:
        self._stores = stores
        self._writer = writer
        self._metrics = metrics
        self._suppression = Suppression(stores, writer)

    def take(self, transaction: Transaction, events: Sequence[IncomingEvent]) -> list[EventResult]:
        """Apply events in their order; one result each. The same event again is a `duplicate` and changes nothing."""
        for event in events:
            if is_synthetic(event.event_type):
                raise InvalidInputError("event_type", event.event_type, "process a synthetic event by itself")
        mails = self._mails(transaction, events)
        campaigns = self._lock(transaction, events, mails)
        going_out = self._going_out(transaction, events, campaigns, mails)
        placed = [_place(event, campaigns, mails, going_out, transaction.now) for event in events]
        plans = self._plans(transaction, placed)
        fresh = self._store_new(transaction, placed)
        self._decide(transaction, fresh, campaigns, plans)
        changed = [(*one.key, one.outcome) for one in fresh if one.outcome != RECORDED]
        self._stores.events.set_outcomes(transaction, changed)
        self._suppress(transaction, fresh)
        transaction.on_commit(lambda: self._tell(placed))
        return [
            EventResult(
                one.outcome, one.event_id, one.incoming.event_type, one.campaign and campaigns[one.campaign.key]
            )
            for one in placed
        ]

    def take_waiting(self, transaction: Transaction, messages: Sequence[Key]) -> None:
        """Apply what came for these mails before they were confirmed; `lock_messages` was called for them before."""
        waiting = self._stores.events.waiting(transaction, messages) if messages else []
        if waiting:
            self.take(transaction, [as_it_came(event) for event in waiting])

    def _mails(self, transaction: Transaction, events: Sequence[IncomingEvent]) -> dict[Key, Mail]:
        """The mails the events are about. One that isn't known is looked for again once nobody can be confirming it."""
        store = self._stores.events
        messages = {_message(event) for event in events if event.message_id}
        mails = store.mails(transaction, messages)
        unknown = messages - mails.keys()
        if unknown:
            store.lock_messages(transaction, unknown)
            mails.update(store.mails(transaction, unknown))
        return mails

    def _lock(
        self, transaction: Transaction, events: Sequence[IncomingEvent], mails: Mapping[Key, Mail]
    ) -> dict[Key, Campaign]:
        """The campaigns the events are about, and those that stop with them, in one lock in key order."""
        store = self._stores.campaigns
        about = {key for event in events if (key := _about(event, mails))}
        ending = {key for event in events if event.event_type in SUPPRESSING_EVENTS and (key := _about(event, mails))}
        if ending:
            contacts = [(one.tenant_id, one.contact_id) for one in store.read(transaction, ending).values()]
            about.update(store.of_contacts(transaction, contacts))
        return store.lock(transaction, about)

    def _going_out(
        self,
        transaction: Transaction,
        events: Sequence[IncomingEvent],
        campaigns: Mapping[Key, Campaign],
        mails: Mapping[Key, Mail],
    ) -> set[Key]:
        """The campaigns whose mail somebody is sending now: a message id that nobody knows may well be its."""
        sends: dict[Key, Key] = {}
        for event in events:
            campaign = campaigns.get((event.tenant_id, event.campaign_id or ""))
            if event.message_id and _message(event) not in mails and campaign is not None and campaign.awaits_mail:
                visit = (campaign.current_node_id, campaign.node_visit)
                key = make_dedupe_key(*campaign.key, *visit, ActionType.SEND, SENT_EVENT)
                sends[campaign.tenant_id, key] = campaign.key
        found = self._stores.actions.find_many(transaction, sends) if sends else {}
        return {sends[key] for key, send in found.items() if send.status == ActionStatus.CLAIMED}

    def _plans(self, transaction: Transaction, placed: Iterable[_Placed]) -> dict[Key, CampaignPlan]:
        """The plans of the events' campaigns; one that can't be read is told before anything is written."""
        campaigns = [one.campaign for one in placed if one.campaign is not None]
        plans = self._stores.plans.load(transaction, {(one.tenant_id, one.plan_hash) for one in campaigns})
        for campaign in campaigns:
            if (campaign.tenant_id, campaign.plan_hash) not in plans:
                raise SchedulerError(f"plan {campaign.plan_hash} of {campaign.campaign_id!r} is missing")
        return plans

    def _store_new(self, transaction: Transaction, placed: Sequence[_Placed]) -> list[_Placed]:
        """Store what wasn't known, and take up what waited for its campaign; everything else is a duplicate."""
        first: dict[Key, _Placed] = {}
        for one in placed:
            one.outcome = DUPLICATE if one.key in first else RECORDED
            first.setdefault(one.key, one)
        inserted = self._stores.events.insert(transaction, [_row(one, transaction.now) for one in first.values()])
        known = {key: one for key, one in first.items() if key not in inserted}
        if known:
            transaction.vouch()
            self._take_up(transaction, known)
        return [one for one in placed if one.is_taken_up or (one.outcome == RECORDED and one.key not in known)]

    def _take_up(self, transaction: Transaction, known: Mapping[Key, _Placed]) -> None:
        """Of events stored before, those that nobody could place then: the campaign may be known by now."""
        store = self._stores.events
        waiting = store.still_waiting(transaction, known)
        rows = []
        for key, one in known.items():
            if key in waiting and one.campaign is not None:
                row = _row(one, transaction.now)
                rows.append((*key, one.campaign.campaign_id, row.node_id, row.node_visit))
        placed = store.place(transaction, rows)
        for key, one in known.items():
            one.outcome = DUPLICATE
            if key in placed:
                one.outcome, one.is_taken_up, one.occurred_at = RECORDED, True, waiting[key]
            elif key in waiting and one.campaign is None:
                one.outcome = UNKNOWN_CAMPAIGN

    def _suppress(self, transaction: Transaction, fresh: Sequence[_Placed]) -> None:
        """Contacts who said that they want no more mail get none, in no campaign."""
        ends: dict[Key, Ending] = {}
        for one in fresh:
            if one.campaign is not None and one.incoming.event_type in SUPPRESSING_EVENTS:
                contact = (one.campaign.tenant_id, one.campaign.contact_id)
                ending = Ending(one.incoming.event_type, one.occurred_at, one.event_id, set())
                ends.setdefault(contact, ending).spared.add(one.campaign.key)
        if ends:
            self._suppression.suppress(transaction, ends)

    def _decide(
        self,
        transaction: Transaction,
        fresh: Sequence[_Placed],
        campaigns: dict[Key, Campaign],
        plans: Mapping[Key, CampaignPlan],
    ) -> None:
        """Rounds of at most one event per campaign; each round is written before the next is decided."""
        waiting = list(fresh)
        while waiting:
            decided: dict[Key, Decided] = {}
            later: list[_Placed] = []
            for one in waiting:
                if one.campaign is None:
                    one.outcome = UNKNOWN_CAMPAIGN
                elif one.campaign.key in decided:
                    later.append(one)
                else:
                    campaign = campaigns[one.campaign.key]
                    plan = plans[campaign.tenant_id, campaign.plan_hash]
                    event = RealEvent(
                        one.incoming.event_type,
                        one.occurred_at,
                        one.mail_visit,
                        one.event_id,
                        one.incoming.is_machine,
                    )
                    decision = machine.transition(plan, campaign, event, transaction.now)
                    one.outcome = _outcome(decision)
                    decided[campaign.key] = Decided(campaign, decision)
            self._writer.write(transaction, list(decided.values()))
            campaigns.update((key, one.decision.campaign) for key, one in decided.items())
            waiting = later

    def _tell(self, placed: Iterable[_Placed]) -> None:
        for one in placed:
            if one.outcome == LATE:
                self._metrics.late_event()
            emit(
                "event.processed",
                tenant_id=one.incoming.tenant_id,
                campaign_id=one.campaign.campaign_id if one.campaign else one.incoming.campaign_id,
                event_type=one.incoming.event_type,
                event_id=one.event_id,
                outcome=one.outcome,
            )


def _place(
    event: IncomingEvent,
    campaigns: Mapping[Key, Campaign],
    mails: Mapping[Key, Mail],
    going_out: set[Key],
    now: datetime,
) -> _Placed:
    key = _about(event, mails)
    campaign = campaigns.get(key) if key is not None else None
    mail = mails.get(_message(event)) if event.message_id else None
    occurred_at = min(event.occurred_at or now, now)
    mail_visit = event.mail_visit(campaign, _visit_of(mail, campaign))
    if campaign is not None and mail is None and event.message_id and campaign.key in going_out:
        mail_visit = campaign.mail_visit
    event_id = event.event_id or event.derived_id(campaign, mail_visit, occurred_at)
    return _Placed(event, event_id, occurred_at, campaign, mail_visit)


def _outcome(decision: Decision) -> str:
    """What the sender is told; a campaign that ran out of transitions ended, with the event recorded."""
    if decision.outcome == FAILED:
        return TRANSITIONED if decision.transitions else RECORDED
    return decision.outcome


def as_it_came(event: StoredEvent) -> IncomingEvent:
    """A stored event as it came."""
    return IncomingEvent(
        tenant_id=event.tenant_id,
        event_type=event.event_type,
        message_id=event.message_id,
        metadata=None if event.metadata is None else json.loads(event.metadata),
        campaign_id=event.campaign_id,
        node_id=event.node_id,
        occurred_at=event.occurred_at,
        event_id=event.event_id,
    )


def _message(event: IncomingEvent) -> Key:
    return (event.tenant_id, event.message_id or "")


def _about(event: IncomingEvent, mails: Mapping[Key, Mail]) -> Key | None:
    """The campaign an event is about: the one it names, else the one its mail was sent for."""
    if event.campaign_id is not None:
        return (event.tenant_id, event.campaign_id)
    mail = mails.get(_message(event))
    return None if mail is None else (event.tenant_id, mail.campaign_id)


def _visit_of(mail: Mail | None, campaign: Campaign | None) -> int | None:
    """The send visit of a mail, where it is this campaign's."""
    is_its = mail is not None and campaign is not None and mail.campaign_id == campaign.campaign_id
    return mail.node_visit if mail is not None and is_its else None


def _row(one: _Placed, now: datetime) -> StoredEvent:
    incoming, campaign = one.incoming, one.campaign
    return StoredEvent(
        tenant_id=incoming.tenant_id,
        event_id=one.event_id,
        campaign_id=campaign.campaign_id if campaign is not None else incoming.campaign_id,
        message_id=incoming.message_id,
        node_id=incoming.node_id or (campaign.current_node_id if campaign is not None else None),
        node_visit=one.mail_visit or (campaign.node_visit if campaign is not None else None),
        event_type=incoming.event_type,
        occurred_at=one.occurred_at,
        received_at=now,
        outcome=RECORDED,
        metadata=incoming.metadata_text,
    )
