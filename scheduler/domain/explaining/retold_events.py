"""Real events in words: what came when, about which mail, and what it did or why it did nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from scheduler.domain import decision, outcome
from scheduler.domain.action import ActionStatus, ScheduledAction
from scheduler.domain.campaign import Transition
from scheduler.domain.event import counter_event, counts_as, is_synthetic
from scheduler.domain.explaining.explanation import EntryKind, Fact, PastEvent
from scheduler.domain.explaining.story import Rank, Story, Told, told
from scheduler.domain.explaining.wording import instant_text, list_text, span_text

_WORTH_TELLING: Final = timedelta(seconds=1)


def retell_events(story: Story) -> Iterator[Told]:
    """One entry for each event that was stored, at the instant it arrived. A duplicate was not."""
    for event in story.record.events:
        yield _retold(story, event)


def _retold(story: Story, event: PastEvent) -> Told:
    led_on = story.led_on_by(event)
    visit = led_on[0].node_visit if led_on else story.visit_at(event.received_at)
    facts: dict[str, Fact] = {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "occurred_at": event.occurred_at,
        "received_at": event.received_at,
        "message_id": event.message_id,
        "mail_visit": _mail_of(story, event),
        "outcome": event.outcome,
        "is_machine": event.is_machine,
    }
    text = f"{event.event_type}{_occurred(event)}{_about(story, event)}: {_effect(story, event, led_on)}"
    return told(Rank.ARRIVED, visit, event.received_at, EntryKind.ARRIVED, text, **facts)


def _occurred(event: PastEvent) -> str:
    way = event.received_at - event.occurred_at
    if way < _WORTH_TELLING:
        return ""
    return f", which happened {instant_text(event.occurred_at)} and took {span_text(way)} to arrive"


def _about(story: Story, event: PastEvent) -> str:
    mail = _mail_of(story, event)
    if event.is_of_other:
        return " (of the contact, outside of this campaign)"
    if mail is None:
        return f" (mail {event.message_id})" if event.message_id is not None else ""
    return f" (mail of visit {mail})"


def _mail_of(story: Story, event: PastEvent) -> int | None:
    """The visit whose mail an event is about, where there is one."""
    if event.is_of_other or event.node_visit is None:
        return None
    return event.node_visit if story.send_of(event.node_visit) is not None else None


def _effect(story: Story, event: PastEvent, led_on: list[Transition]) -> str:
    match event.outcome:
        case _ if led_on:
            return _led_on(event, led_on)
        case outcome.TRANSITIONED:
            return "it counted"
        case decision.RECORDED:
            return _recorded(story, event)
        case decision.LATE:
            return f"late, {_why_late(story, event)}; it changed nothing"
        case decision.IGNORED:
            return "ignored, the campaign had ended"
        case decision.DUPLICATE:
            return "a duplicate: the same happening had counted already"
        case outcome.UNKNOWN_CAMPAIGN:
            return _unknown(story, event)
        case _:
            return event.outcome


def _led_on(event: PastEvent, led_on: list[Transition]) -> str:
    first, last = led_on[0], led_on[-1]
    counted = "" if first.trigger == event.event_type else f" as {first.trigger}"
    text = f"counted{counted}, it led from {first.from_node_id} to {last.to_node_id}"
    if first.created_at > event.received_at:
        return f"kept until its mail was confirmed ({instant_text(first.created_at)}), then {text}"
    return text


def _recorded(story: Story, event: PastEvent) -> str:
    if not story.is_counted(event):
        return "recorded, not counted: a machine did it, not the contact"
    later = _used_later(story, event)
    if later is not None:
        at = instant_text(later.created_at)
        return f"recorded; it counted as {later.trigger} {at}, and led from {later.from_node_id} to {later.to_node_id}"
    answered = [one.event_type for one in story.record.actions if _is_answered_by(one, event)]
    text = "recorded, no transition wanted it"
    return f"{text}; it canceled the timeout {list_text(answered)}" if answered else text


def _used_later(story: Story, event: PastEvent) -> Transition | None:
    """The transition that a recorded event led to afterwards: a click that came before its open."""
    return next(
        (
            one
            for one in story.record.transitions
            if one.event_id is None
            and one.dedupe_key is None
            and one.trigger in counts_as(event.event_type)
            and one.occurred_at == event.occurred_at
        ),
        None,
    )


def _is_answered_by(action: ScheduledAction, event: PastEvent) -> bool:
    return (
        action.status == ActionStatus.CANCELED
        and action.outcome == "event happened"
        and action.finished_at == event.received_at
        and is_synthetic(action.event_type)
        and counter_event(action.event_type) in counts_as(event.event_type)
    )


def _why_late(story: Story, event: PastEvent) -> str:
    visit = story.visit_at(event.received_at)
    newest = story.mail_before(visit)
    mail = _mail_of(story, event)
    if newest is not None and mail != newest:
        about = "it is about an earlier mail" if mail is None else f"it is about the mail of visit {mail}"
        return f"{about}, and the newest was that of visit {newest}"
    fired = [
        one.trigger
        for one in story.record.transitions
        if is_synthetic(one.trigger)
        and counter_event(one.trigger) == event.event_type
        and one.created_at <= event.received_at
        and one.node_visit >= (newest or 0)
    ]
    return f"its timeout {fired[-1]} had led on already" if fired else "it is about a mail that no longer counts"


def _unknown(story: Story, event: PastEvent) -> str:
    if story.record.transitions and event.received_at < story.record.transitions[0].created_at:
        return "not applied, it came before the enrolment"
    return "kept, to be applied when the mail it names is confirmed"
