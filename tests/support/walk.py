"""One contact walking a plan through the pure state machine alone, and the actions that would be pending for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from scheduler.domain import machine, outcome
from scheduler.domain.action import ActionStatus
from scheduler.domain.campaign import Campaign, CampaignStatus
from scheduler.domain.decision import (
    CampaignEvent,
    Decision,
    PlannedAction,
    RealEvent,
    SendConfirmed,
    SendFailed,
    TimeoutExpired,
)
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.timing import parse_duration

NOON: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)

PendingKey = tuple[int, str, str]


def on(event_type: str, to: str, **bounds: str) -> dict[str, str]:
    """A transition, as a plan has it."""
    return {"on": event_type, "to": to, **bounds}


def send(node_id: str, *transitions: dict[str, str], delay: str | None = None) -> dict[str, Any]:
    """A send node."""
    schedule = {} if delay is None else {"schedule": {"delay": delay}}
    return {"id": node_id, "action": "send", "channel": "email", "transitions": list(transitions), **schedule}


def wait(node_id: str, *transitions: dict[str, str]) -> dict[str, Any]:
    """A wait node."""
    return {"id": node_id, "action": "wait", "transitions": list(transitions)}


def make_document(*nodes: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A plan's document that starts at the first node."""
    return {"version": "1.0", "startNodeId": nodes[0]["id"], "nodes": list(nodes), **members}


def make_campaign(plan: CampaignPlan, **overrides: Any) -> Campaign:
    """A campaign that is about to be enrolled."""
    values: dict[str, Any] = {
        "tenant_id": "acme",
        "campaign_id": "c-1",
        "contact_id": "k-1",
        "plan_hash": plan.hash,
        "status": CampaignStatus.ACTIVE,
        "current_node_id": plan.start_node_id,
        "node_visit": 0,
        "node_entered_at": NOON,
        "anchor_at": NOON,
        "started_at": NOON,
    }
    return Campaign(**{**values, **overrides})


class Walk:
    """A campaign, the present, and what is pending: `decision` is the last one made."""

    def __init__(
        self, *nodes: dict[str, Any], start_at: datetime = NOON, zone: str | None = None, **members: Any
    ) -> None:
        document: Mapping[str, Any] = make_document(*nodes, **members)
        self.plan = CampaignPlan.parse(document)
        self.now = NOON
        self.pending: dict[PendingKey, PlannedAction] = {}
        unborn = make_campaign(self.plan, timezone=zone)
        self.campaign = unborn
        self.decision = self._apply(machine.start(self.plan, unborn, start_at, self.now))

    @classmethod
    def of_document(cls, document: Mapping[str, Any], start_at: datetime = NOON) -> Walk:
        """A walk through the plan of that document."""
        members = {key: value for key, value in document.items() if key not in ("version", "nodes")}
        return cls(*document["nodes"], start_at=start_at, **members)

    @property
    def node(self) -> str:
        """Where the contact stands."""
        return self.campaign.current_node_id

    @property
    def timers(self) -> dict[str, datetime]:
        """The pending timeouts and their deadlines."""
        return {key[2]: action.deadline for key, action in self.pending.items() if key[1] == "timeout"}

    def advance(self, duration: str | timedelta) -> Walk:
        """Let time pass; nothing fires by itself."""
        self.now += parse_duration("duration", duration).exact
        return self

    def deliver(self, event: CampaignEvent) -> Decision:
        """Decide and apply one event."""
        decision = machine.transition(self.plan, self.campaign, event, self.now)
        if isinstance(event, TimeoutExpired) and decision.outcome not in (outcome.PAUSED, outcome.DEFERRED):
            self.pending.pop((event.node_visit, "timeout", event.event_type), None)
        if isinstance(event, SendConfirmed | SendFailed):
            self.pending.pop((event.node_visit, "send", "sent"), None)
        return self._apply(decision)

    def real(self, event_type: str, occurred_at: datetime | None = None, mail: int | None = -1) -> Decision:
        """A real event about the newest mail, or that of visit `mail`."""
        mail_visit = self.campaign.newest_mail if mail == -1 else mail
        return self.deliver(RealEvent(event_type, occurred_at or self.now, mail_visit, f"e-{event_type}"))

    def expire(self, event_type: str, visit: int | None = None, **fields: Any) -> Decision:
        """A timeout of the current node, or of visit `visit` of it, is due."""
        visit = visit or self.campaign.node_visit
        pending = self.pending.get((visit, "timeout", event_type))
        values = {"deadline": pending.deadline if pending else self.now, "dedupe_key": f"{visit}:{event_type}"}
        return self.deliver(TimeoutExpired(event_type, fields.pop("node_id", self.node), visit, **{**values, **fields}))

    def confirm(self, sent_at: datetime | None = None, visit: int | None = None) -> Decision:
        """The mail of the current visit went out."""
        return self.deliver(SendConfirmed(visit or self.campaign.node_visit, sent_at or self.now))

    def fail_send(self, visit: int | None = None) -> Decision:
        """The mail of the current visit will never go out."""
        return self.deliver(SendFailed(visit or self.campaign.node_visit, "k-send"))

    def pause(self) -> Walk:
        """Pause the campaign, as `pausing` does."""
        self.campaign = replace(self.campaign, status=CampaignStatus.PAUSED)
        held = {key: replace(action, status=ActionStatus.PAUSED) for key, action in self.pending.items()}
        self.pending = held
        return self

    def _apply(self, decision: Decision) -> Decision:
        visit = decision.campaign.node_visit
        if decision.ends:
            self.pending = {}
        elif decision.transitions:
            self.pending = {key: action for key, action in self.pending.items() if key[0] >= visit}
        for answer in decision.answered:
            key = (visit, "timeout", answer.timeout_type)
            if key in self.pending and self.pending[key].deadline >= answer.occurred_at:
                del self.pending[key]
        for retiming in decision.retimed:
            key = (visit, "timeout", retiming.event_type)
            if key in self.pending:
                self.pending[key] = replace(self.pending[key], deadline=retiming.deadline)
        for action in decision.actions:
            self.pending[action.node_visit, action.action_type, action.event_type] = action
        self.campaign = decision.campaign
        self.decision = decision
        return decision
