"""The stored history of one campaign, indexed for whoever tells it: visits, what they led to, and their order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final
from zoneinfo import ZoneInfo

from scheduler.domain.action import ActionType, ScheduledAction
from scheduler.domain.campaign import CampaignStatus, Transition
from scheduler.domain.event import MACHINE_EVENTS
from scheduler.domain.explaining.explanation import CampaignRecord, EntryKind, ExplanationEntry, Fact, PastEvent
from scheduler.domain.plan import Node

UTC_ZONE: Final = ZoneInfo("UTC")


class Rank(IntEnum):
    """In what order things of one visit are told that have the same instant: causes before what they caused."""

    SCHEDULED = 0
    SENT = 1
    OPERATOR = 2
    ARRIVED = 3
    FIRED = 4
    FAILED = 5
    MOVED = 6
    CANCELED = 7
    ENDED = 8


@dataclass(frozen=True, slots=True)
class Told:
    """An entry and its place: the instant, then the visit, then the rank."""

    visit: int
    rank: Rank
    entry: ExplanationEntry

    @property
    def place(self) -> tuple[datetime, int, int]:
        """What entries are sorted by."""
        return (self.entry.at, self.visit, self.rank)


def told(rank: Rank, visit: int, at: datetime, kind: EntryKind, text: str, **facts: Fact) -> Told:
    """One entry at its place."""
    return Told(visit, rank, ExplanationEntry(at, kind, text, facts))


class Story:
    """Look-ups into a `CampaignRecord`."""

    def __init__(self, record: CampaignRecord) -> None:
        self.record = record
        self._entries = [one.created_at for one in record.transitions]
        self._left = {one.node_visit: one for one in record.transitions}
        self._by_event: dict[str, list[Transition]] = {}
        for transition in record.transitions:
            if transition.event_id is not None:
                self._by_event.setdefault(transition.event_id, []).append(transition)
        self._sends = {one.node_visit: one for one in record.actions if one.action_type == ActionType.SEND}
        self._send_visits = sorted(self._sends)

    def entering(self, visit: int) -> Transition | None:
        """The transition that began a visit."""
        return self._left.get(visit - 1)

    def leaving(self, visit: int) -> Transition | None:
        """The transition that ended a visit, if it is over."""
        return self._left.get(visit)

    def led_on_by(self, event: PastEvent) -> list[Transition]:
        """The visits that an event ended."""
        return self._by_event.get(event.event_id, [])

    def is_last(self, transition: Transition) -> bool:
        """Whether this is where the campaign came to its end by a transition."""
        campaign = self.record.campaign
        is_newest = transition.node_visit + 1 == campaign.node_visit
        return is_newest and campaign.is_finished and campaign.status != CampaignStatus.ERROR

    def send_of(self, visit: int) -> ScheduledAction | None:
        """The send of a visit."""
        return self._sends.get(visit)

    def visit_at(self, instant: datetime) -> int:
        """The visit the campaign was at, at the end of that instant."""
        place = bisect_right(self._entries, instant)
        return self.record.transitions[place - 1].node_visit + 1 if place else 0

    def visit_before(self, instant: datetime) -> int:
        """The visit the campaign was at when that instant began; at least the first."""
        place = max(bisect_left(self._entries, instant), 1)
        return self.record.transitions[place - 1].node_visit + 1 if self._entries else 1

    def mail_before(self, visit: int) -> int | None:
        """The last visit up to `visit` that had a mail."""
        place = bisect_right(self._send_visits, visit)
        return self._send_visits[place - 1] if place else None

    def node(self, node_id: str) -> Node | None:
        """A node of the plan the campaign walks now; an earlier visit may have followed another plan."""
        plan = self.record.plan
        return None if plan is None else plan.nodes.get(node_id)

    @property
    def zone(self) -> ZoneInfo:
        """In which zone months and years of the plan are counted."""
        return UTC_ZONE if self.record.plan is None else self.record.plan.zone

    def is_counted(self, event: PastEvent) -> bool:
        """Whether it is taken for the contact's doing: a mail gateway's isn't, unless the plan says so."""
        plan = self.record.plan
        counts = plan is not None and plan.machine_opens == "count"
        return not event.is_machine or event.event_type not in MACHINE_EVENTS or counts
