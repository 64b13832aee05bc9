"""Timeouts and sends in words: why they were scheduled, what became of them, and what ended them early."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from scheduler.domain import outcome
from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction
from scheduler.domain.campaign import Transition
from scheduler.domain.event import counter_event, counts_as, is_synthetic
from scheduler.domain.explaining.explanation import EntryKind, Fact, PastEvent
from scheduler.domain.explaining.story import Rank, Story, Told, told
from scheduler.domain.explaining.wording import duration_text, instant_text, span_text
from scheduler.domain.machine import MIGRATED
from scheduler.domain.node import Timer

_NO_EFFECT: Final = {
    outcome.STALE: "nothing: its visit had been left",
    outcome.CAMPAIGN_INACTIVE: "nothing: the campaign had ended",
    outcome.NO_TRANSITION: "nothing: its node has no transition on it",
    outcome.UNKNOWN_CAMPAIGN: "nothing: there was no such campaign",
}
_NOT_SENT: Final = {
    outcome.STALE: "its visit had been left",
    outcome.CAMPAIGN_INACTIVE: "the campaign had ended",
    outcome.UNKNOWN_CAMPAIGN: "there was no such campaign",
}
_VISIT_LEFT: Final = "visit left"
_EVENT_HAPPENED: Final = "event happened"
# What the outcome of a canceled action says; any other is the reason somebody gave.
_CANCELED_BY: Final = {
    "campaign ended": "the campaign ended",
    outcome.CANCELED_BY_HAND: "by hand, without a reason",
    "campaign canceled": "by hand, with everything of the campaign",
    "node canceled": "by hand, with everything of its node",
    "removed through APScheduler": "by hand, through APScheduler",
}


def retell_actions(story: Story) -> Iterator[Told]:
    """Everything that is told of the campaign's actions."""
    for action in story.record.actions:
        retold = _Retold(story, action)
        yield retold.scheduled()
        yield from retold.what_became_of_it()


def name_of(action: ScheduledAction) -> str:
    """An action as people call it."""
    what = "mail" if action.action_type == ActionType.SEND else f"timeout {action.event_type}"
    return f"{what} of {action.node_id} (visit {action.node_visit})"


def timer_anchor(story: Story, action: ScheduledAction, timer: Timer, deadline: datetime) -> str | None:
    """From what a deadline counts: the first instant that lies the timer's delay before it; None if none does."""
    entering, send = story.entering(action.node_visit), story.send_of(action.node_visit)
    candidates: list[tuple[datetime | None, str]] = []
    if send is not None:
        candidates += [(send.sent_at, "its mail went out"), (send.deadline, "its mail was to go out")]
    if entering is not None:
        candidates.append((_entered_at(entering), "the node was entered"))
    campaign = story.record.campaign
    if action.node_visit == campaign.node_visit:
        candidates.append((campaign.anchor_at, f"the anchor, {instant_text(campaign.anchor_at)}"))
    for instant, since in candidates:
        if instant is not None and timer.delay.add_to(instant, story.zone) == deadline:
            return since
    return None


def _entered_at(entering: Transition) -> datetime:
    """A first node is entered when the enrolment says, any other when its transition was made."""
    return entering.occurred_at if entering.from_node_id is None else entering.created_at


class _Retold:
    """One action in words."""

    def __init__(self, story: Story, action: ScheduledAction) -> None:
        self._story = story
        self._action = action
        self._name = name_of(action)
        self._is_send = action.action_type == ActionType.SEND
        node = story.node(action.node_id)
        self._timer = None if node is None else node.timer(action.event_type)

    def _told(self, rank: Rank, at: datetime, kind: EntryKind, text: str, **facts: Fact) -> Told:
        action = self._action
        named: dict[str, Fact] = {
            "dedupe_key": action.dedupe_key,
            "action_type": action.action_type,
            "event_type": action.event_type,
            "node_id": action.node_id,
            "node_visit": action.node_visit,
        }
        return told(rank, action.node_visit, at, kind, text, **named, **facts)

    def scheduled(self) -> Told:
        """What was planned for when, and why for then."""
        action = self._action
        entering = self._story.entering(action.node_visit)
        is_of_visit = entering is not None and entering.to_node_id == action.node_id
        at = entering.created_at if entering is not None and is_of_visit else action.created_at
        text = self._send_planned(entering) if self._is_send else self._timeout_planned()
        facts: dict[str, Fact] = {"deadline": action.deadline, "run_at": action.run_at}
        if not self._is_send and self._timer is not None:
            facts.update(delay=self._timer.delay.isoformat(), leads_to=self._timer.to)
        return self._told(Rank.SCHEDULED, at, EntryKind.SCHEDULED, text, **facts)

    def _send_planned(self, entering: Transition | None) -> str:
        action = self._action
        text = f"{self._name} planned for {instant_text(action.deadline)}"
        node = self._story.node(action.node_id)
        if node is None or entering is None:
            return text
        if entering.trigger == MIGRATED:
            return f"{text} (as under the plan before)"
        asked = node.delay.add_to(_entered_at(entering), self._story.zone)
        after = "at once" if node.delay.is_zero else f"{duration_text(node.delay)} after entering"
        if action.deadline == asked:
            return f"{text} ({after})"
        plan = self._story.record.plan
        if plan is not None and plan.quiet_hours is not None and action.deadline > asked:
            return f"{text} ({after} is {instant_text(asked)}; moved on by quiet hours, a pause or by hand)"
        return f"{text} ({after} is {instant_text(asked)}; moved by a pause or by hand)"

    def _timeout_planned(self) -> str:
        """The deadline it got first, from the planned mail or the entry, and the one it has since."""
        action, timer = self._action, self._timer
        since = None if timer is None else timer_anchor(self._story, action, timer, action.deadline)
        first = self._first_deadline()
        if timer is None or (since is None and first is None):
            return f"{self._name} scheduled for {instant_text(action.deadline)}"
        delay = duration_text(timer.delay)
        if first is None or first[0] == action.deadline:
            since = since if first is None else first[1]
            return f"{self._name} scheduled for {instant_text(action.deadline)} ({delay} after {since})"
        moved = f"moved to {instant_text(action.deadline)}"
        why = f" ({delay} after {since})" if since is not None else " by a pause or by hand"
        return f"{self._name} scheduled for {instant_text(first[0])} ({delay} after {first[1]}); {moved}{why}"

    def _first_deadline(self) -> tuple[datetime, str] | None:
        """When it was due at first: known where its visit's mail or entry is, and the plan fits what is stored."""
        if self._timer is None:
            return None
        send, entering = self._story.send_of(self._action.node_visit), self._story.entering(self._action.node_visit)
        if send is not None and send.node_id == self._action.node_id:
            return self._timer.delay.add_to(send.deadline, self._story.zone), "its mail was to go out"
        if entering is None or entering.to_node_id != self._action.node_id or entering.trigger == MIGRATED:
            return None
        return self._timer.delay.add_to(_entered_at(entering), self._story.zone), "the node was entered"

    def what_became_of_it(self) -> Iterator[Told]:
        """How it ended, if it did, and the attempts that failed before."""
        action = self._action
        if action.sent_at is not None:
            yield self._sent(action.sent_at)
        if action.finished_at is None:
            if action.attempts:
                yield self._failing()
        elif action.status == ActionStatus.CANCELED:
            yield self._canceled(action.finished_at)
        elif action.status == ActionStatus.ERROR:
            yield self._failed(action.finished_at)
        elif not self._is_send:
            yield self._fired(action.finished_at)
        elif action.sent_at is None:
            yield self._not_sent(action.finished_at)

    def _attempts(self) -> str:
        count = self._action.attempts
        if not count:
            return ""
        error = "" if self._action.last_error is None else f" ({self._action.last_error})"
        return f", after {count} failed {'attempt' if count == 1 else 'attempts'}{error}"

    def _sent(self, sent_at: datetime) -> Told:
        action = self._action
        text = f"{self._name} went out"
        if action.message_id is not None:
            text += f" as {action.message_id}"
        text += _compared(sent_at, action.deadline, "planned") + self._attempts()
        if action.status == ActionStatus.CANCELED:
            text += ", although it was canceled: nothing else follows from it"
        facts: dict[str, Fact] = {
            "message_id": action.message_id,
            "sent_at": sent_at,
            "planned_at": action.deadline,
            "late_by": sent_at - action.deadline,
            "attempts": action.attempts,
            "last_error": action.last_error if action.attempts else None,
        }
        return self._told(Rank.SENT, sent_at, EntryKind.SENT, text, **facts)

    def _not_sent(self, finished_at: datetime) -> Told:
        name = self._action.outcome
        why = _NOT_SENT.get(name or "", name or "no reason is known")
        text = f"{self._name} was not sent: {why}"
        return self._told(Rank.CANCELED, finished_at, EntryKind.CANCELED, text, outcome=name)

    def _fired(self, finished_at: datetime) -> Told:
        action = self._action
        late = finished_at - action.run_at
        effect = self._effect()
        text = f"{self._name} fired{_compared(finished_at, action.run_at, 'due')}{self._attempts()}: {effect}"
        facts: dict[str, Fact] = {
            "deadline": action.deadline,
            "run_at": action.run_at,
            "finished_at": finished_at,
            "late_by": late,
            "outcome": action.outcome,
            "attempts": action.attempts,
            "last_error": action.last_error if action.attempts else None,
        }
        return self._told(Rank.FIRED, finished_at, EntryKind.FIRED, text, **facts)

    def _effect(self) -> str:
        action = self._action
        if action.outcome == outcome.TRANSITIONED:
            leaving = self._story.leaving(action.node_visit)
            return "led on" if leaving is None else f"led on to {leaving.to_node_id}"
        if action.outcome == outcome.EVENT_HAPPENED:
            happened = self._answer()
            known = "" if happened is None else f" at {instant_text(happened.occurred_at)}"
            return f"nothing: {_counter(action)} had happened{known}"
        return _NO_EFFECT.get(action.outcome or "", action.outcome or "no outcome is known")

    def _answer(self) -> PastEvent | None:
        """The newest event that answered this timeout: of its mail, by its deadline, known when the timeout ended."""
        action, story = self._action, self._story
        mail = story.mail_before(action.node_visit)
        ended = action.finished_at or story.record.now
        fitting = [
            one
            for one in story.record.events
            if _counter(action) in counts_as(one.event_type)
            and one.occurred_at <= action.deadline
            and one.received_at <= ended
            and one.node_visit in (mail, action.node_visit)
            and not one.is_of_other
            and story.is_counted(one)
        ]
        return max(fitting, key=lambda one: one.received_at, default=None)

    def _canceled(self, finished_at: datetime) -> Told:
        by, facts = self._canceled_by()
        text = f"{self._name} was canceled: {by}"
        facts = {"reason": self._action.outcome, "run_at": self._action.run_at, **facts}
        return self._told(Rank.CANCELED, finished_at, EntryKind.CANCELED, text, **facts)

    def _canceled_by(self) -> tuple[str, dict[str, Fact]]:
        reason = self._action.outcome
        if reason == _VISIT_LEFT:
            leaving = self._story.leaving(self._action.node_visit)
            if leaving is None:
                return "the campaign ended", {}
            by: dict[str, Fact] = {"trigger": leaving.trigger, "event_id": leaving.event_id}
            return f"its visit was left, {leaving.trigger} led on to {leaving.to_node_id}", by
        if reason == _EVENT_HAPPENED:
            event = self._answer()
            happened = "what it waited for" if event is None else f"{event.event_type}, so {_counter(self._action)},"
            if event is not None and event.event_type == _counter(self._action):
                happened = event.event_type
            return f"{happened} happened by its deadline", {} if event is None else {"event_id": event.event_id}
        if reason is None:
            return "by hand, without a reason", {}
        return _CANCELED_BY.get(reason, f"by hand, {reason}"), {}

    def _failed(self, finished_at: datetime) -> Told:
        action = self._action
        count = f"{action.attempts} {'attempt' if action.attempts == 1 else 'attempts'}"
        text = f"{self._name} failed for good after {count}: {action.last_error or 'no error is known'}"
        facts: dict[str, Fact] = {"attempts": action.attempts, "last_error": action.last_error, "is_final": True}
        return self._told(Rank.FAILED, finished_at, EntryKind.FAILED, text, **facts)

    def _failing(self) -> Told:
        """The last of the attempts that failed so far; when the others did isn't stored."""
        action = self._action
        error = action.last_error or "no error is known"
        text = f"{self._name}: attempt {action.attempts} failed, the next is due {instant_text(action.run_at)}: {error}"
        facts: dict[str, Fact] = {"attempts": action.attempts, "last_error": action.last_error, "is_final": False}
        return self._told(Rank.FAILED, action.updated_at, EntryKind.FAILED, text, **facts)


def _counter(action: ScheduledAction) -> str:
    return counter_event(action.event_type) if is_synthetic(action.event_type) else action.event_type


def _compared(actual: datetime, wanted: datetime, word: str) -> str:
    """How an instant relates to the one that was wanted."""
    if actual == wanted:
        return f" when {word}"
    if actual < wanted:
        return f", {span_text(wanted - actual)} before it was {word}"
    late = actual - wanted
    return f", {span_text(late)} after it was {word}" if late >= timedelta(milliseconds=1) else f" when {word}"
