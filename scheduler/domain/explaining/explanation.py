"""What is told about one campaign, and what it is told from: plain values.

A `CampaignRecord` is everything stored about a campaign; `retelling` makes the entries of it, `outlook` says where it
stands and what it waits for. Nothing here holds what is known of the contact: no address, variables or metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from scheduler.domain.action import ScheduledAction
from scheduler.domain.campaign import Campaign, Transition
from scheduler.domain.pausing import Pause
from scheduler.domain.plan import CampaignPlan

Fact = str | int | bool | datetime | timedelta | None | Sequence[str] | Mapping[str, Any]


class EntryKind(StrEnum):
    """What an entry tells of."""

    ENROLLED = "enrolled"
    MOVED = "moved"
    SCHEDULED = "scheduled"
    SENT = "sent"
    ARRIVED = "arrived"
    FIRED = "fired"
    CANCELED = "canceled"
    FAILED = "failed"
    OPERATOR = "operator"
    ENDED = "ended"


class AwaitedKind(StrEnum):
    """What a campaign waits for: its own action, a real event, somebody's hand, or nothing at all."""

    ACTION = "action"
    EVENT = "event"
    HAND = "hand"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class ExplanationEntry:
    """One thing that happened to a campaign, in words; `facts` are the values behind them."""

    at: datetime
    kind: EntryKind
    text: str
    facts: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class Awaited:
    """One thing that would move the campaign on.

    An action is due at `at`; a real event would count from `at` (None: already) until `until` (None: without end).
    """

    kind: AwaitedKind
    text: str
    at: datetime | None
    until: datetime | None
    facts: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a campaign is: `text` says it in one sentence."""

    status: str
    node_id: str
    node_visit: int
    since: datetime
    anchor_at: datetime
    completed_at: datetime | None
    pauses: tuple[Pause, ...]
    suppressed_at: datetime | None
    suppressed_reason: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """One campaign explained as of `as_of`: `entries` in order of time, where it stands, what it waits for."""

    tenant_id: str
    campaign_id: str
    contact_id: str
    plan_hash: str
    as_of: datetime
    entries: tuple[ExplanationEntry, ...]
    standing: Standing
    waits_for: tuple[Awaited, ...]


@dataclass(frozen=True, slots=True)
class StuckCampaign:
    """An active campaign for which nothing will come by itself, and why; `error_action` is what failed, if one did."""

    campaign: Campaign
    reason: str
    error_action: ScheduledAction | None = None


@dataclass(frozen=True, slots=True)
class PastEvent:
    """A real event as it was stored, without its metadata.

    `is_machine`: a mail gateway did it; `is_of_other`: it came for the contact, or another campaign of it.
    """

    event_id: str
    event_type: str
    message_id: str | None
    node_id: str | None
    node_visit: int | None
    occurred_at: datetime
    received_at: datetime
    outcome: str
    is_machine: bool = False
    is_of_other: bool = False


@dataclass(frozen=True, slots=True)
class OperatorAct:
    """Something done by hand."""

    at: datetime
    act: str
    actor: str | None
    reason: str | None
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Suppression:
    """Since when, and why, a contact must not be approached."""

    at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRecord:
    """All that is stored about one campaign at `now`. `plan` is None where its row is missing or unreadable."""

    campaign: Campaign
    plan: CampaignPlan | None
    now: datetime
    transitions: Sequence[Transition]
    actions: Sequence[ScheduledAction]
    events: Sequence[PastEvent]
    acts: Sequence[OperatorAct]
    pauses: Sequence[Pause]
    suppression: Suppression | None
