"""Campaigns, actions and transitions as JSON objects; their keys are part of the command's contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scheduler.domain.action import ScheduledAction
from scheduler.domain.campaign import Campaign, Transition

_CAMPAIGN: Final = (
    "tenant_id",
    "campaign_id",
    "contact_id",
    "status",
    "channel",
    "plan_hash",
    "current_node_id",
    "node_visit",
    "node_entered_at",
    "anchor_at",
    "started_at",
    "completed_at",
    "created_at",
    "updated_at",
)
_ACTION: Final = (
    "dedupe_key",
    "tenant_id",
    "campaign_id",
    "contact_id",
    "node_id",
    "node_visit",
    "action_type",
    "event_type",
    "deadline",
    "run_at",
    "status",
    "outcome",
    "attempts",
    "last_error",
    "claimed_by",
    "claimed_until",
    "message_id",
    "sent_at",
    "created_at",
    "updated_at",
    "finished_at",
)
_TRANSITION: Final = (
    "tenant_id",
    "campaign_id",
    "node_visit",
    "from_node_id",
    "to_node_id",
    "trigger",
    "occurred_at",
    "created_at",
    "dedupe_key",
    "event_id",
)


def campaign_document(campaign: Campaign) -> dict[str, Any]:
    """A campaign."""
    return _members(campaign, _CAMPAIGN)


def action_document(action: ScheduledAction) -> dict[str, Any]:
    """A scheduled action."""
    return _members(action, _ACTION)


def transition_document(transition: Transition) -> dict[str, Any]:
    """A transition."""
    return _members(transition, _TRANSITION)


def labelled(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same with names as people read them."""
    return {name.replace("_", " "): value for name, value in document.items()}


def _members(value: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}
