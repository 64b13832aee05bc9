"""`simulate`: one contact walks a plan on a virtual clock, through the same core as the real ones. Pure.

Time jumps from one thing to the next: an action that is due, or something that comes from outside. What is due at an
instant comes before what arrives at it, so a simulated daemon is never late, and a node is entered exactly when due.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from scheduler.domain.campaign import CampaignStatus
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.explaining.wording import span_text
from scheduler.domain.happening import Happening, Operation
from scheduler.domain.incoming import IncomingEvent
from scheduler.domain.machine import STOPPED
from scheduler.domain.outcome import UNKNOWN_CAMPAIGN
from scheduler.domain.pausing import ResumePolicy, counted_length
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.simulated_contact import CAMPAIGN, TENANT, SimulatedContact, message_of
from scheduler.domain.simulation import End, Simulation, What
from scheduler.domain.timing import parse_instant, parse_zone

LONGEST: Final = timedelta(days=3653)
MOST_STEPS: Final = 20_000


def simulate(
    plan: CampaignPlan,
    happenings: Iterable[Happening | Mapping[str, Any]],
    start_at: datetime,
    *,
    timezone: str | None = None,
    grace: timedelta = timedelta(0),
    until: datetime | None = None,
) -> Simulation:
    """Walk `plan` from `start_at`, with what `happenings` say (in any order; those of one instant in theirs).

    Every mail goes out when it is due. `timezone` is the contact's own, `grace` is the setting TIMEOUT_GRACE. Ends when
    nothing more comes, at `until`, or after ten years. Raises InvalidInputError for what happens before the start.
    """
    begin = parse_instant("start_at", start_at)
    end = begin + LONGEST if until is None else parse_instant("until", until)
    if end < begin:
        raise InvalidInputError("until", until, "give an instant after the start")
    if timezone is not None:
        parse_zone("timezone", timezone)
    if grace < timedelta(0):
        raise InvalidInputError("grace", grace, "a duration can't be negative")
    arriving = [one if isinstance(one, Happening) else Happening.parse(one, begin) for one in happenings]
    for one in arriving:
        if one.at < begin:
            raise InvalidInputError("at", one.at.isoformat(), f"give an instant from the start on, {begin.isoformat()}")
    arriving.sort(key=lambda one: one.at)
    return _Run(plan, begin, end, timezone, grace).go(arriving)


class _Run:
    """One simulation under way."""

    def __init__(
        self, plan: CampaignPlan, start_at: datetime, until: datetime, timezone: str | None, grace: timedelta
    ) -> None:
        self._contact = SimulatedContact(plan, start_at, timezone, grace, self._take_waiting)
        self._start_at = start_at
        self._until = until
        self._seen: set[str] = set()
        self._waiting: dict[str, tuple[IncomingEvent, datetime]] = {}
        self._paused_at: datetime | None = None
        self._steps = 0

    def go(self, arriving: list[Happening]) -> Simulation:
        """To the end."""
        self._settle()
        for happening in arriving:
            if happening.at > self._until or not self._advance(happening.at):
                break
            self._happen(happening)
            self._settle()
        self._advance(self._until)
        return self._answer(is_cut=bool(arriving) and arriving[-1].at > self._until)

    def _advance(self, instant: datetime) -> bool:
        """Fire all that is due by `instant`, each at its own; False when that takes too many steps."""
        contact = self._contact
        while (due := contact.next_due) is not None and due <= instant:
            if self._is_endless:
                return False
            contact.now = max(contact.now, due)
            self._settle()
        if instant < self._until:
            contact.now = instant
        return True

    @property
    def _is_endless(self) -> bool:
        return self._steps >= MOST_STEPS

    def _settle(self) -> None:
        """Fire what is due now, and what becomes due by that, until nothing is."""
        while not self._is_endless and self._contact.fire_due():
            self._steps += 1

    def _happen(self, happening: Happening) -> None:
        contact = self._contact
        match happening.do:
            case None:
                self._arrive(happening)
            case _ if contact.campaign.is_finished:
                contact.note(What.NOTED, f"{happening.do}: the campaign is over")
            case Operation.PAUSE:
                self._pause()
            case Operation.RESUME:
                self._resume(happening.policy or ResumePolicy.SHIFT)
            case Operation.FAIL_SEND:
                contact.failing.append(happening.node_id)
                contact.note(What.NOTED, f"the next send{_of_node(happening.node_id)} will fail")
            case _:
                contact.stop(STOPPED)

    def _arrive(self, happening: Happening) -> None:
        contact, visit = self._contact, happening.visit
        event = IncomingEvent(
            tenant_id=TENANT,
            campaign_id=CAMPAIGN if visit is None else None,
            message_id=None if visit is None else message_of(visit),
            event_type=happening.event_type or "",
            node_id=happening.node_id,
            occurred_at=happening.occurred_at,
            event_id=happening.event_id,
            metadata=happening.metadata,
        )
        is_unknown = visit is not None and visit not in contact.confirmed
        occurred_at = min(event.occurred_at or contact.now, contact.now)
        about = None if is_unknown else event.mail_visit(contact.campaign, visit)
        event_id = event.event_id or event.derived_id(None if is_unknown else contact.campaign, about, occurred_at)
        if is_unknown and event_id not in self._seen:
            self._waiting.setdefault(event_id, (replace(event, event_id=event_id), occurred_at))
            contact.note_event(event.event_type, UNKNOWN_CAMPAIGN, occurred_at)
        elif event_id in self._seen:
            contact.note_event(event.event_type, "duplicate", occurred_at)
        else:
            self._take(event, event_id, occurred_at, about)

    def _take(
        self, event: IncomingEvent, event_id: str, occurred_at: datetime, about: int | None, *, was_kept: bool = False
    ) -> None:
        self._seen.add(event_id)
        _, occurred_at = self._waiting.pop(event_id, (event, occurred_at))
        self._contact.take(event, event_id, occurred_at, about, was_kept=was_kept)

    def _take_waiting(self, visit: int) -> None:
        """The events of a mail that just went out, in the order they occurred."""
        for event_id, (event, occurred_at) in sorted(self._waiting.items(), key=lambda item: (item[1][1], item[0])):
            if event.message_id == message_of(visit):
                self._take(event, event_id, occurred_at, visit, was_kept=True)

    def _pause(self) -> None:
        contact = self._contact
        if contact.campaign.status != CampaignStatus.ACTIVE:
            contact.note(What.NOTED, "pause: it is paused already")
            return
        self._paused_at = contact.now
        contact.campaign = replace(contact.campaign, status=CampaignStatus.PAUSED, updated_at=contact.now)
        contact.pending = {key: replace(action, is_paused=True) for key, action in contact.pending.items()}
        contact.note(What.PAUSED, f"{len(contact.pending)} actions are held")

    def _resume(self, policy: str) -> None:
        contact, campaign = self._contact, self._contact.campaign
        if campaign.status != CampaignStatus.PAUSED:
            contact.note(What.NOTED, "resume: it isn't paused")
            return
        began, length = self._paused_at or contact.now, timedelta(0)
        if policy == ResumePolicy.SHIFT:
            length = counted_length(began, campaign.time_runs_since, (), contact.now)
        contact.campaign = replace(
            campaign, status=CampaignStatus.ACTIVE, anchor_at=campaign.anchor_at + length, updated_at=contact.now
        )
        contact.pending = {
            key: replace(action, is_paused=False, deadline=action.deadline + length, run_at=action.run_at + length)
            for key, action in contact.pending.items()
        }
        contact.note(What.RESUMED, f"everything moves by {span_text(length)}" if length else "nothing moves")
        for action in contact.pending.values():
            contact.note(What.PLANNED, "after the pause", event_type=action.event_type, due_at=action.run_at)

    def _answer(self, *, is_cut: bool) -> Simulation:
        contact = self._contact
        pending = tuple(sorted(contact.pending.values(), key=lambda action: (action.run_at, action.dedupe_key)))
        if contact.campaign.is_finished:
            end = End.FINISHED
        elif self._is_endless:
            end = End.LIMIT
        else:
            end = End.UNTIL if is_cut or contact.next_due is not None else End.WAITING
        return Simulation(
            plan=contact.plan,
            start_at=self._start_at,
            history=tuple(contact.history),
            timeline=tuple(contact.timeline),
            campaign=contact.campaign,
            pending=pending,
            end=end,
            ended_at=self._until if end is End.UNTIL else contact.now,
        )


def _of_node(node_id: str | None) -> str:
    return "" if node_id is None else f" of {node_id}"
