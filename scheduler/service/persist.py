"""Decisions into the database: set-based, however many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from scheduler.domain.action import MAX_VISIT, ActionType, NewAction, make_dedupe_key
from scheduler.domain.campaign import Campaign, CampaignStatus
from scheduler.domain.decision import Decision, PlannedAction
from scheduler.store.action_changes import CAMPAIGN_ENDED, LeftVisit
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit_all, is_logged
from scheduler.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision about a campaign whose row is locked; `fired_key` is the action that led to it, if one did."""

    before: Campaign
    decision: Decision
    fired_key: str | None = None


class DecisionWriter:
    """Writes what was decided, in the transaction that holds the campaigns' locks. At most one decision a campaign.

    The order is the lock order of the whole package: campaigns are locked already, then their actions.
    """

    def __init__(self, stores: Stores, grace: timedelta, metrics: Metrics) -> None:
        self._stores = stores
        self._grace = grace
        self._metrics = metrics

    def write(self, transaction: Transaction, decided: Sequence[Decided]) -> None:
        """Transitions, cancellations, the campaigns' new state and their new actions: all of it or nothing."""
        changes, campaigns = self._stores.changes, self._stores.campaigns
        changes.cancel_left(transaction, [_left(one) for one in decided if _ends_here(one)], CAMPAIGN_ENDED)
        changes.cancel_answered(transaction, [row for one in decided for row in _answered(one)])
        changes.retime(transaction, [row for one in decided for row in self._retimed(one)])
        changed = [one for one in decided if one.decision.campaign is not one.before]
        campaigns.update_with_plan(transaction, [one.decision.campaign for one in changed if _changes_plan(one)])
        for one in decided:
            if one.decision.ends and one.before.status == CampaignStatus.PAUSED:
                self._stores.pauses.end(transaction, "campaign", one.before.key)
        left = [_left(one) for one in decided if one.decision.transitions]
        moved = [one.decision.campaign for one in changed if not _changes_plan(one)]
        self._write_new(transaction, [one.decision for one in decided], left, moved)

    def write_enrolled(self, transaction: Transaction, decisions: Sequence[Decision]) -> None:
        """The history and the first actions of campaigns just inserted.

        A key scheduled before its campaign was enrolled stays as it is, and is held until commit: retention doesn't
        see the campaign before, and would remove one that finished long ago.
        """
        existing = self._write_new(transaction, decisions)
        while existing:
            held = self._stores.actions.hold(transaction, (row.key for row in existing))
            gone = [row for row in existing if row.key not in held]
            inserted = self._stores.actions.insert(transaction, gone)
            existing = [row for row in gone if row.key not in inserted]

    def _write_new(
        self,
        transaction: Transaction,
        decisions: Sequence[Decision],
        left: Sequence[LeftVisit] = (),
        moved: Sequence[Campaign] = (),
    ) -> list[NewAction]:
        """Transitions and new actions, with the visits left and the campaigns moved.

        Returns the new actions if the key of any was there already.
        """
        transitions = [transition for decision in decisions for transition in decision.transitions]
        planned = [self._row(decision.campaign, action) for decision in decisions for action in decision.actions]
        inserted = self._stores.moves.write(transaction, left, moved, transitions, planned)
        triggers = Counter(transition.trigger for transition in transitions)
        # A bulk call that kept its decisions until the commit would need memory for all of them.
        logged = decisions if is_logged("campaign.transitioned") else ()
        transaction.on_commit(partial(self._tell, triggers, logged))
        return [] if inserted == len(planned) else planned

    def _row(self, campaign: Campaign, action: PlannedAction) -> NewAction:
        grace = self._grace if action.action_type == ActionType.TIMEOUT else timedelta(0)
        key = make_dedupe_key(
            campaign.tenant_id,
            campaign.campaign_id,
            action.node_id,
            action.node_visit,
            action.action_type,
            action.event_type,
        )
        return NewAction(
            campaign.tenant_id,
            key,
            campaign.campaign_id,
            campaign.contact_id,
            action.node_id,
            action.node_visit,
            action.action_type,
            action.event_type,
            action.deadline,
            action.run_at or action.deadline + grace,
            action.status,
        )

    def _retimed(self, one: Decided) -> Iterable[tuple[Any, ...]]:
        campaign = one.decision.campaign
        for retiming in one.decision.retimed:
            run_at = retiming.deadline + self._grace
            yield (*campaign.key, campaign.node_visit, retiming.event_type, retiming.deadline, run_at)

    def _tell(self, triggers: Mapping[str, int], logged: Iterable[Decision]) -> None:
        for trigger, count in triggers.items():
            self._metrics.transitioned(trigger, count)
        emit_all(line for decision in logged for line in _lines(decision))


def _left(one: Decided) -> LeftVisit:
    """The visits that are over: all of them when the campaign is."""
    last = MAX_VISIT if one.decision.ends else one.decision.campaign.node_visit - 1
    return (*one.before.key, last, one.fired_key)


def _changes_plan(one: Decided) -> bool:
    return one.decision.campaign.plan_hash != one.before.plan_hash


def _ends_here(one: Decided) -> bool:
    """Whether the campaign ends at the node where it stands: a send that will never go out."""
    return one.decision.ends and not one.decision.transitions


def _answered(one: Decided) -> Iterable[tuple[Any, ...]]:
    campaign = one.decision.campaign
    for answer in one.decision.answered:
        yield (*campaign.key, campaign.node_visit, answer.timeout_type, answer.occurred_at)


def _lines(decision: Decision) -> Iterable[tuple[str, dict[str, Any]]]:
    for transition in decision.transitions:
        yield (
            "campaign.transitioned",
            {
                "tenant_id": transition.tenant_id,
                "campaign_id": transition.campaign_id,
                "left_visit": transition.node_visit,
                "from_node_id": transition.from_node_id,
                "to_node_id": transition.to_node_id,
                "trigger": transition.trigger,
                "dedupe_key": transition.dedupe_key,
            },
        )
    if decision.ends:
        campaign = decision.campaign
        yield (
            "campaign.finished",
            {"tenant_id": campaign.tenant_id, "campaign_id": campaign.campaign_id, "status": campaign.status},
        )
