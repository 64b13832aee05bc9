"""Campaigns, tenants, or everything, are paused; campaigns are stopped by hand. How they go on is in `resuming`."""

from __future__ import annotations

from dataclasses import replace

from scheduler.domain import machine
from scheduler.domain.campaign import Campaign, CampaignStatus
from scheduler.domain.errors import UnknownCampaignError
from scheduler.domain.pausing import Pause, Paused
from scheduler.service.persist import Decided, DecisionWriter
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit

Key = tuple[str, str]


class Pausing:
    """Pauses and stops. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter) -> None:
        self._stores = stores
        self._writer = writer

    def pause(self, transaction: Transaction, key: Key, actor: str | None, reason: str | None) -> Campaign:
        """Hold everything unfinished of an active campaign; any other is left as it is."""
        campaign = locked(self._stores, transaction, key)
        if campaign.status != CampaignStatus.ACTIVE:
            return campaign
        paused = replace(campaign, status=CampaignStatus.PAUSED, updated_at=transaction.now)
        self._stores.campaigns.update(transaction, [paused])
        self._stores.changes.hold_campaign(transaction, key)
        self._stores.pauses.begin(transaction, "campaign", key, actor=actor, reason=reason)
        self._record(transaction, "campaign.paused", Paused(*key), actor, reason)
        return paused

    def pause_wide(self, transaction: Transaction, paused: Paused, actor: str | None, reason: str | None) -> Pause:
        """Hold a tenant, or everything: one row, however much it holds. One that is paused stays as it is."""
        pauses, pause = self._stores.pauses, None
        while pause is None:  # again, where somebody lifts the one that was in the way
            if pauses.begin(transaction, paused.scope, paused.key, actor=actor, reason=reason):
                self._record(transaction, f"{paused.scope}.paused", paused, actor, reason)
            pause = pauses.find(transaction, paused)
        return pause

    def stop(self, transaction: Transaction, key: Key, actor: str | None, reason: str | None) -> Campaign:
        """End a campaign, with everything pending for it; a finished one is left as it is."""
        campaign = locked(self._stores, transaction, key)
        self._stores.pauses.end(transaction, "campaign", key)
        decision = machine.stop(campaign, machine.STOPPED, transaction.now, transaction.now)
        self._writer.write(transaction, [Decided(campaign, decision)])
        if decision.ends:
            details = {"reason": reason}
            self._stores.operator_actions.record(transaction, "campaign.stopped", *key, actor, details)
        return decision.campaign

    def _record(
        self, transaction: Transaction, act: str, paused: Paused, actor: str | None, reason: str | None
    ) -> None:
        ids = {"tenant_id": paused.tenant_id, "campaign_id": paused.campaign_id}
        details = {"reason": reason, "started_at": transaction.now.isoformat()}
        self._stores.operator_actions.record(transaction, act, **ids, actor=actor, details=details)
        known = {name: value for name, value in ids.items() if value is not None}
        transaction.on_commit(lambda: emit(act, **known, actor=actor))


def locked(stores: Stores, transaction: Transaction, key: Key) -> Campaign:
    """A campaign that must exist, locked until commit."""
    campaign = stores.campaigns.lock(transaction, [key]).get(key)
    if campaign is None:
        raise UnknownCampaignError(*key)
    return campaign
