"""A synthetic event by hand: it fires the visit's pending timeout, when that is due."""

from __future__ import annotations

from scheduler.domain.action import ActionType, ScheduledAction
from scheduler.domain.campaign import Campaign
from scheduler.domain.decision import IGNORED, RECORDED
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.incoming import IncomingEvent
from scheduler.domain.outcome import TRANSITIONED, UNKNOWN_CAMPAIGN
from scheduler.service.deciding import GONE, decide_timeouts
from scheduler.service.persist import DecisionWriter
from scheduler.service.results import EventResult
from scheduler.store.database import Transaction
from scheduler.store.settlements import Completion
from scheduler.store.stores import Stores


class SyntheticEvents:
    """Fires timeouts on request. Thread-safe."""

    def __init__(self, stores: Stores, writer: DecisionWriter) -> None:
        self._stores = stores
        self._writer = writer

    def fire(self, transaction: Transaction, event: IncomingEvent) -> EventResult:
        """Fire the current visit's timeout of that type; raises InvalidInputError before its `run_at`."""
        if event.campaign_id is None:
            raise InvalidInputError("campaign_id", None, "give the campaign whose timeout is meant")
        key = (event.tenant_id, event.campaign_id)
        campaign = self._stores.campaigns.lock(transaction, [key]).get(key)
        if campaign is None:
            return EventResult(UNKNOWN_CAMPAIGN, event.event_id or "", event.event_type)
        if campaign.is_finished:
            return EventResult(IGNORED, event.event_id or "", event.event_type, campaign)
        action = None if campaign.is_held else self._pending(transaction, campaign, event)
        if action is None:
            return EventResult(RECORDED, event.event_id or "", event.event_type, campaign)
        if action.run_at > transaction.now:
            raise InvalidInputError("event_type", event.event_type, f"wait: it is due at {action.run_at.isoformat()}")
        name = self._fire(transaction, action)
        after = self._stores.campaigns.read(transaction, [key])[key]
        return EventResult(
            TRANSITIONED if name == TRANSITIONED else RECORDED, action.dedupe_key, event.event_type, after
        )

    def _pending(self, transaction: Transaction, campaign: Campaign, event: IncomingEvent) -> ScheduledAction | None:
        for action in self._stores.actions.unfinished(transaction, [campaign.key]):
            is_asked = action.action_type == ActionType.TIMEOUT and action.event_type == event.event_type
            is_current = action.node_visit == campaign.node_visit and event.node_id in (None, action.node_id)
            if is_asked and is_current and action.status != "paused":
                return action
        return None

    def _fire(self, transaction: Transaction, action: ScheduledAction) -> str | None:
        (answer,) = decide_timeouts(self._stores, self._writer, transaction, [action])
        if isinstance(answer, Exception):
            raise answer
        if answer.is_final and answer is not GONE:
            self._stores.settlements.complete_unheld(transaction, [Completion(action, answer.name)])
        return answer.name
