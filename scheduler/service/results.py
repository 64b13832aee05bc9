"""What the calls of the API answer with."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.domain.action import ScheduledAction
from scheduler.domain.campaign import Campaign


@dataclass(frozen=True, slots=True)
class ScheduleSummary:
    """What a bulk schedule did: how many keys are new, and how many were there already."""

    scheduled: int
    existing: int


@dataclass(frozen=True, slots=True)
class EnrolSummary:
    """What a bulk enrolment did: how many campaigns began, and how many were there already.

    `suppressed` are those that didn't begin because their contact must not be approached.
    """

    enrolled: int
    existing: int
    suppressed: int = 0


@dataclass(frozen=True, slots=True)
class EventResult:
    """What an event did.

    `outcome` is `transitioned`, `recorded` (no transition wanted it), `late`, `duplicate`, `ignored` (the campaign
    is finished) or `unknown_campaign`. `campaign` is its state afterwards, where there is one.
    """

    outcome: str
    event_id: str
    event_type: str
    campaign: Campaign | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """What one attempt at a claimed action led to: an outcome, or the error that failed it."""

    action: ScheduledAction
    outcome: str | None = None
    error: Exception | None = None
    is_final: bool = False
