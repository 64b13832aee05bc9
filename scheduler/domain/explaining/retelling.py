"""What happened to one campaign, in order of time and in words. Pure: everything comes from the record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from scheduler.domain import machine
from scheduler.domain.campaign import Campaign, CampaignStatus, Transition
from scheduler.domain.explaining.explanation import CampaignRecord, EntryKind, ExplanationEntry, Fact, OperatorAct
from scheduler.domain.explaining.outlook import why_it_failed
from scheduler.domain.explaining.retold_actions import retell_actions
from scheduler.domain.explaining.retold_events import retell_events
from scheduler.domain.explaining.story import Rank, Story, Told, told
from scheduler.domain.explaining.wording import instant_text

# What an operator's note may hold of a contact; it isn't shown.
_PERSONAL: Final = frozenset({"address", "variables", "metadata", "contact"})


def retell(record: CampaignRecord) -> tuple[ExplanationEntry, ...]:
    """Every entry, the oldest first; what has the same instant in the order in which one thing led to the other."""
    story = Story(record)
    everything = chain(
        (_transition(story, one) for one in record.transitions),
        retell_actions(story),
        retell_events(story),
        (_act(story, one) for one in record.acts),
        _end_in_error(story),
    )
    return tuple(one.entry for one in sorted(everything, key=lambda one: one.place))


def _transition(story: Story, left: Transition) -> Told:
    campaign = story.record.campaign
    facts: dict[str, Fact] = {
        "from_node_id": left.from_node_id,
        "to_node_id": left.to_node_id,
        "left_visit": left.node_visit,
        "entered_visit": left.node_visit + 1,
        "trigger": left.trigger,
        "occurred_at": left.occurred_at,
        "event_id": left.event_id,
        "dedupe_key": left.dedupe_key,
    }
    if left.from_node_id is None:
        text = _enrolled(campaign, left)
        return told(Rank.MOVED, left.node_visit, left.created_at, EntryKind.ENROLLED, text, **facts)
    text = _moved(left)
    if story.is_last(left):
        text += f"; the campaign is {campaign.status}"
    return told(Rank.MOVED, left.node_visit, left.created_at, EntryKind.MOVED, text, **facts)


def _enrolled(campaign: Campaign, entering: Transition) -> str:
    text = f"contact {campaign.contact_id} enrolled at {entering.to_node_id}"
    if entering.occurred_at == entering.created_at:
        return text
    return f"{text}, entered as of {instant_text(entering.occurred_at)}"


def _moved(left: Transition) -> str:
    way = f"from {left.from_node_id} (visit {left.node_visit}) to {left.to_node_id}"
    match left.trigger:
        case machine.STOPPED:
            return f"stopped by hand at {left.from_node_id} (visit {left.node_visit})"
        case "suppressed" | "erased":
            return f"stopped at {left.from_node_id} (visit {left.node_visit}): its contact was {left.trigger}"
        case machine.RESTARTED:
            return f"started again at {left.to_node_id} (visit {left.node_visit + 1})"
        case machine.MIGRATED:
            return f"moved by hand {way} of another plan, with its anchor and mail"
        case machine.SEND_FAILED:
            return f"a mail that can't be sent led {way}"
        case trigger:
            return f"{trigger} led {way}"


def _act(story: Story, act: OperatorAct) -> Told:
    by = "" if act.actor is None else f" by {act.actor}"
    why = "" if act.reason is None else f": {act.reason}"
    facts: dict[str, Fact] = {
        "act": act.act,
        "actor": act.actor,
        "reason": act.reason,
        "details": _impersonal(act.details),
    }
    text = f"{act.act.replace('.', ' ').replace('_', ' ')}{by}{why}"
    return told(Rank.OPERATOR, story.visit_before(act.at), act.at, EntryKind.OPERATOR, text, **facts)


def _impersonal(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if name not in _PERSONAL}


def _end_in_error(story: Story) -> Iterator[Told]:
    """A campaign that ends as `error` makes no transition: it stays where it was."""
    record = story.record
    campaign = record.campaign
    if campaign.status != CampaignStatus.ERROR or campaign.completed_at is None:
        return
    where = f"at {campaign.current_node_id} (visit {campaign.node_visit})"
    text = f"the campaign ended in error {where}: {why_it_failed(record)}"
    yield told(
        Rank.ENDED,
        campaign.node_visit,
        campaign.completed_at,
        EntryKind.ENDED,
        text,
        status=campaign.status,
        node_id=campaign.current_node_id,
        node_visit=campaign.node_visit,
    )
