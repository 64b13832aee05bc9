"""Campaigns are paused, go on, and are stopped by hand; while paused nothing fires and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from scheduler.domain import machine
from scheduler.domain.action import ActionStatus
from scheduler.domain.campaign import Campaign, CampaignStatus
from scheduler.domain.errors import UnknownCampaignError
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit

Key = tuple[str, str]


class Pausing:
    """Pauses, resumes and stops campaigns. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter) -> None:
        self._stores = stores
        self._writer = writer

    def pause(self, transaction: Transaction, key: Key, actor: str | None, reason: str | None) -> Campaign:
        """Hold everything unfinished of an active campaign; any other is left as it is."""
        campaign = self._locked(transaction, key)
        if campaign.status != CampaignStatus.ACTIVE:
            return campaign
        paused = replace(campaign, status=CampaignStatus.PAUSED, updated_at=transaction.now)
        self._stores.campaigns.update(transaction, [paused])
        self._stores.changes.hold_campaign(transaction, key)
        self._stores.pauses.begin(transaction, "campaign", key, actor=actor, reason=reason)
        transaction.on_commit(lambda: emit("campaign.paused", tenant_id=key[0], campaign_id=key[1], actor=actor))
        return paused

    def resume(self, transaction: Transaction, key: Key) -> Campaign:
        """Go on where the pause began: anchor, deadlines and due times move by its length.

        A visit entered during the pause, or whose mail went out then, moves by the part of it that it saw. Actions
        paused one by one stay paused.
        """
        campaign = self._locked(transaction, key)
        if campaign.status != CampaignStatus.PAUSED:
            return campaign
        now = transaction.now
        began = self._stores.pauses.end(transaction, "campaign", key) or now
        length = now - max(began, min(_counts_from(campaign), now))
        resumed = replace(campaign, status=CampaignStatus.ACTIVE, anchor_at=campaign.anchor_at + length, updated_at=now)
        self._stores.campaigns.update(transaction, [resumed])
        held = self._stores.pauses.held_actions(transaction, key)
        rows = []
        for action in self._stores.actions.unfinished(transaction, [key]):
            status = ActionStatus.PAUSED if action.dedupe_key in held else ActionStatus.PENDING
            rows.append((*action.key, status, action.deadline + length, action.run_at + length))
        self._stores.changes.unhold(transaction, rows)
        transaction.on_commit(lambda: emit("campaign.resumed", tenant_id=key[0], campaign_id=key[1]))
        return resumed

    def stop(self, transaction: Transaction, key: Key) -> Campaign:
        """End a campaign, with everything pending for it; a finished one is left as it is."""
        campaign = self._locked(transaction, key)
        self._stores.pauses.end(transaction, "campaign", key)
        decision = machine.stop(campaign, machine.STOPPED, transaction.now, transaction.now)
        self._writer.write(transaction, [Decided(campaign, decision)])
        return decision.campaign

    def _locked(self, transaction: Transaction, key: Key) -> Campaign:
        campaign = self._stores.campaigns.lock(transaction, [key]).get(key)
        if campaign is None:
            raise UnknownCampaignError(*key)
        return campaign


def _counts_from(campaign: Campaign) -> datetime:
    """Since when the visit's time runs: its entry as long as it waits for its mail, else its anchor."""
    return campaign.node_entered_at if campaign.awaits_mail else campaign.anchor_at
