"""Campaigns that ended in `error` because their send failed go on, when that send is tried again.

What ended with the campaign comes back with it, in the same transaction: its timeouts, and what it was told meanwhile,
which is decided now. Else the next mail would go to somebody who has answered.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

from scheduler.domain import machine
from scheduler.domain.campaign import Campaign
from scheduler.domain.incoming import IncomingEvent
from scheduler.domain.outcome import UNKNOWN_CAMPAIGN
from scheduler.service.contact_events import for_campaign
from scheduler.service.event_intake import EventIntake, as_it_came
from scheduler.service.persist import DecisionWriter
from scheduler.settings import Settings
from scheduler.store.database import Transaction
from scheduler.store.events import StoredEvent
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit_all
from scheduler.telemetry.metrics import Metrics

# Between the clocks of who ended the campaign and who took an event of its contact.
_SKEW: Final = timedelta(minutes=1)


class Reopening:
    """Lets campaigns go on. Thread-safe."""

    def __init__(self, stores: Stores, settings: Settings, metrics: Metrics) -> None:
        self._stores = stores
        self._intake = EventIntake(stores, DecisionWriter(stores, settings.timeout_grace, metrics), metrics)

    def reopen(self, transaction: Transaction, campaigns: Sequence[Campaign]) -> None:
        """Campaigns in error go on where they stand; their rows are locked, and their sends are due again already.

        What they were told meanwhile may move one on at once, and cancel its send.
        """
        if not campaigns:
            return
        reopened = [machine.reopen(campaign, transaction.now) for campaign in campaigns]
        self._stores.campaigns.update(transaction, reopened)
        over = [(*one.key, one.completed_at) for one in campaigns if one.completed_at is not None]
        self._stores.changes.restore_ended(transaction, over)
        transaction.on_commit(partial(_tell, reopened))
        self._take_missed(transaction, campaigns)

    def _take_missed(self, transaction: Transaction, campaigns: Sequence[Campaign]) -> None:
        over = [
            (*one.key, one.first_visit, one.contact_id, one.completed_at - _SKEW)
            for one in campaigns
            if one.completed_at is not None
        ]
        missed = self._stores.events.missed(transaction, over)
        if not missed:
            return
        own = [event for _, event in missed if event.contact_id is None]
        self._stores.events.set_outcomes(transaction, [(*event.key, UNKNOWN_CAMPAIGN) for event in own])
        messages = {(event.tenant_id, event.message_id) for event in own if event.message_id is not None}
        mails = self._stores.events.mails(transaction, messages)
        nodes = {one.key: one.current_node_id for one in campaigns}
        events = []
        for campaign_id, event in missed:
            if event.contact_id is not None:
                metadata = None if event.metadata is None else json.loads(event.metadata)
                events.append(for_campaign(event, metadata, campaign_id))
                continue
            is_of_mail = (event.tenant_id, event.message_id or "") in mails
            at_node = event.node_id == nodes[event.tenant_id, campaign_id]
            events.append(_as_it_came(event, is_of_mail=is_of_mail, at_node=at_node))
        self._intake.take(transaction, events)


def _as_it_came(event: StoredEvent, *, is_of_mail: bool, at_node: bool) -> IncomingEvent:
    """Without a message id that no mail has, whose mail would be waited for with campaigns locked.

    And without the node where the campaign stands: that is noted for want of another, and its mail hasn't gone out.
    """
    came = as_it_came(event)
    return replace(came, message_id=came.message_id if is_of_mail else None, node_id=None if at_node else came.node_id)


def _tell(campaigns: Sequence[Campaign]) -> None:
    emit_all(
        (
            "campaign.reopened",
            {"tenant_id": one.tenant_id, "campaign_id": one.campaign_id, "node_id": one.current_node_id},
        )
        for one in campaigns
    )
