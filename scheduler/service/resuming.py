"""What was paused goes on: where it was, or overdue, at once or spread out; and what that would do, beforehand.

A resume is one transaction, so that one cut short has changed nothing. It waits for whoever has one of the campaigns
locked, and campaigns it has locked are skipped by whoever fires.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

from scheduler.domain.campaign import Campaign, CampaignStatus
from scheduler.domain.pausing import DueCounts, Paused, ResumePreview, ResumeSummary, Resumption
from scheduler.domain.timing import Duration
from scheduler.service.pausing import locked
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit

Key = tuple[str, str]


class Resumes:
    """Lifts pauses, and previews it. Thread-safe."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def resume(
        self, transaction: Transaction, key: Key, how: Resumption, actor: str | None, reason: str | None
    ) -> Campaign:
        """Let a paused campaign go on; any other is left as it is. Actions paused one by one stay so."""
        campaign = locked(self._stores, transaction, key)
        if campaign.status != CampaignStatus.PAUSED:
            return campaign
        active = replace(campaign, status=CampaignStatus.ACTIVE, updated_at=transaction.now)
        self._stores.campaigns.update(transaction, [active])
        paused = Paused(*key)
        pause = self._stores.pauses.find(transaction, paused)
        summary = ResumeSummary(
            scope=paused.scope,
            tenant_id=key[0],
            policy=how.policy,
            spread=how.spread,
            started_at=transaction.now if pause is None else pause.started_at,
            campaigns=1,
        )
        self._lift(transaction, paused, how, summary, actor, reason)
        return self._stores.campaigns.read(transaction, [key])[key]

    def resume_wide(
        self, transaction: Transaction, paused: Paused, how: Resumption, actor: str | None, reason: str | None
    ) -> ResumeSummary:
        """Let a tenant, or everything, go on; nothing changes where it isn't paused."""
        pause = self._stores.pauses.lock(transaction, paused)
        summary = ResumeSummary(
            scope=paused.scope,
            tenant_id=paused.tenant_id,
            policy=how.policy,
            spread=how.spread,
            started_at=None if pause is None else pause.started_at,
        )
        if pause is None:
            return summary
        count = self._stores.resuming.lock_campaigns(transaction, paused)
        return self._lift(transaction, paused, how, replace(summary, campaigns=count), actor, reason)

    def preview(self, transaction: Transaction, paused: Paused, how: Resumption) -> ResumePreview:
        """What `resume` would do now. Nothing is locked or written."""
        pause = self._stores.pauses.find(transaction, paused)
        by_type: dict[str, Counter[str]] = defaultdict(Counter)
        held = 0
        started_at = None if pause is None else pause.started_at
        if started_at is not None:
            counts = self._stores.resuming.preview(transaction, paused, how, started_at)
            for action_type, is_held, bucket, count in counts:
                if is_held:
                    held += count
                else:
                    by_type[action_type][bucket] += count
        return ResumePreview(
            scope=paused.scope,
            tenant_id=paused.tenant_id,
            campaign_id=paused.campaign_id,
            policy=how.policy,
            spread=how.spread,
            as_of=transaction.now,
            started_at=started_at,
            due=DueCounts.of(sum(by_type.values(), Counter())),
            by_type={name: DueCounts.of(counts) for name, counts in sorted(by_type.items())},
            still_held=held,
        )

    def _lift(
        self,
        transaction: Transaction,
        paused: Paused,
        how: Resumption,
        summary: ResumeSummary,
        actor: str | None,
        reason: str | None,
    ) -> ResumeSummary:
        moved = 0
        if how.moves and summary.started_at is not None:
            moved = self._stores.resuming.move(transaction, paused, how, summary.started_at)
        self._stores.pauses.end(transaction, paused.scope, paused.key)
        woken = self._stores.resuming.wake(transaction, paused)
        done = replace(summary, moved=moved, woken=woken)
        self._record(transaction, paused, done, actor, reason)
        return done

    def _record(
        self, transaction: Transaction, paused: Paused, done: ResumeSummary, actor: str | None, reason: str | None
    ) -> None:
        act = f"{paused.scope}.resumed"
        ids = {"tenant_id": paused.tenant_id, "campaign_id": paused.campaign_id}
        facts = {
            "policy": str(done.policy),
            "spread": None if done.spread is None else Duration(exact=done.spread).isoformat(),
            "campaigns": done.campaigns,
            "moved": done.moved,
            "woken": done.woken,
        }
        started_at = None if done.started_at is None else done.started_at.isoformat()
        details = {"reason": reason, "started_at": started_at, **facts}
        self._stores.operator_actions.record(transaction, act, **ids, actor=actor, details=details)
        known = {name: value for name, value in ids.items() if value is not None}
        transaction.on_commit(lambda: emit(act, **known, actor=actor, **facts))
