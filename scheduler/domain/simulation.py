"""What a simulation answers: the history, a timeline in words, and where the campaign stands at its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from scheduler.domain.campaign import Campaign, CampaignStatus, Transition
from scheduler.domain.event import is_synthetic
from scheduler.domain.explaining.wording import list_text
from scheduler.domain.machine import SEND_FAILED
from scheduler.domain.plan import CampaignPlan


class What(StrEnum):
    """What a line of the timeline tells."""

    ENTERED = "entered"
    PLANNED = "planned"
    SENT = "sent"
    SEND_FAILED = "send failed"
    MOVED = "moved"
    FIRED = "fired"
    CANCELED = "canceled"
    EVENT = "event"
    PAUSED = "paused"
    RESUMED = "resumed"
    NOTED = "noted"
    ENDED = "ended"


class End(StrEnum):
    """Why a simulation ends."""

    FINISHED = "finished"
    WAITING = "waiting"
    UNTIL = "until"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One thing that happened at `at`, at the visit `node_visit` of `node_id`.

    `event_type` is the event's, or the action's (`sent` for a send); `due_at` is when an action is due; `outcome` is
    what came of an event or a timeout; `why` says the rest in words.
    """

    at: datetime
    what: What
    node_id: str
    node_visit: int
    event_type: str | None = None
    due_at: datetime | None = None
    outcome: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAction:
    """A send or a timeout that is still to come; `is_paused` while the campaign is."""

    dedupe_key: str
    action_type: str
    event_type: str
    node_id: str
    node_visit: int
    deadline: datetime
    run_at: datetime
    is_paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """One contact's way through a plan.

    `history` has the transitions as the state manager keeps them, and `timeline` all that happened, in its order.
    `campaign` and `pending` are as of `ended_at`, where the simulation ended for the reason `end`.
    """

    plan: CampaignPlan
    start_at: datetime
    history: tuple[Transition, ...]
    timeline: tuple[TimelineEntry, ...]
    campaign: Campaign
    pending: tuple[SimulatedAction, ...]
    end: End
    ended_at: datetime

    @property
    def mails(self) -> tuple[TimelineEntry, ...]:
        """The mails that went out."""
        return tuple(entry for entry in self.timeline if entry.what is What.SENT)

    @property
    def verdict(self) -> str:
        """Where it ends, in one sentence."""
        campaign = self.campaign
        match self.end:
            case End.FINISHED:
                return f"the campaign is over: {campaign.status}, at {campaign.current_node_id}"
            case End.WAITING if campaign.status == CampaignStatus.PAUSED:
                return f"the campaign is paused at {campaign.current_node_id}, and nobody resumes it"
            case End.WAITING:
                awaited = f"waits at {campaign.current_node_id} for {self._wanted}"
                return f"nothing more comes by itself: the campaign {awaited}"
            case End.UNTIL:
                return f"the time to simulate is over: the campaign is {campaign.status}, at {campaign.current_node_id}"
            case End.LIMIT:
                return f"stopped after too many steps: the plan goes round, at {campaign.current_node_id}"

    @property
    def _wanted(self) -> str:
        """The events that would lead on from where it stands."""
        edges = self.plan.node(self.campaign.current_node_id).edges
        events = dict.fromkeys(edge.on for edge in edges if not is_synthetic(edge.on) and edge.on != SEND_FAILED)
        return list_text(events or self.plan.exits, "or") if events or self.plan.exits else "nothing"
