"""Where a campaign stands, what would move it on, and why nothing comes where nothing does. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from scheduler.domain import machine
from scheduler.domain.action import ActionStatus, ActionType, ScheduledAction
from scheduler.domain.campaign import Campaign, CampaignStatus
from scheduler.domain.decision import LATE, RealEvent
from scheduler.domain.event import SUPPRESSING_EVENTS, counts_as, is_synthetic
from scheduler.domain.explaining.explanation import (
    Awaited,
    AwaitedKind,
    CampaignRecord,
    Fact,
    Standing,
    StuckCampaign,
)
from scheduler.domain.explaining.wording import instant_text, list_text
from scheduler.domain.node import Edge, Node
from scheduler.domain.outcome import CANCELED_BY_HAND
from scheduler.domain.pausing import Pause
from scheduler.domain.plan import CampaignPlan

_PAUSED: Final = {
    "all": "everything is paused",
    "tenant": "its tenant is paused",
    "sends": "its mails are paused",
    "campaign": "it is paused",
    "action": "one of its actions is paused",
}
_SEND_FAILED: Final = machine.SEND_FAILED


def stand(record: CampaignRecord) -> Standing:
    """Where the campaign is, and what holds it there."""
    campaign, suppression = record.campaign, record.suppression
    since = f"since {instant_text(campaign.node_entered_at)}"
    parts = [f"{campaign.status}, at {campaign.current_node_id} (visit {campaign.node_visit}) {since}"]
    if campaign.is_finished and campaign.completed_at is not None:
        parts.append(f"ended {instant_text(campaign.completed_at)}")
    parts += [_pause_text(pause) for pause in record.pauses]
    if suppression is not None:
        why = f" ({suppression.reason})" if suppression.reason is not None else ""
        parts.append(f"its contact is suppressed since {instant_text(suppression.at)}{why}")
    return Standing(
        status=campaign.status,
        node_id=campaign.current_node_id,
        node_visit=campaign.node_visit,
        since=campaign.node_entered_at,
        anchor_at=campaign.anchor_at,
        completed_at=campaign.completed_at,
        pauses=tuple(record.pauses),
        suppressed_at=None if suppression is None else suppression.at,
        suppressed_reason=None if suppression is None else suppression.reason,
        text="; ".join(parts),
    )


def _pause_text(pause: Pause) -> str:
    by = f" by {pause.actor}" if pause.actor is not None else ""
    why = f": {pause.reason}" if pause.reason is not None else ""
    return f"{_PAUSED.get(pause.scope, pause.scope)} since {instant_text(pause.started_at)}{by}{why}"


def look_ahead(record: CampaignRecord) -> tuple[Awaited, ...]:
    """All that would move the campaign on, its own actions first; `nothing`, with the reason, where nothing would."""
    campaign = record.campaign
    if campaign.is_finished:
        why = f": {why_it_failed(record)}" if campaign.status == CampaignStatus.ERROR else ""
        return (_nothing(f"nothing: the campaign is over ({campaign.status}){why}"),)
    actions = sorted((one for one in record.actions if not one.is_finished), key=lambda one: one.run_at)
    found = [*_hands(record), *(_action(record, one) for one in actions)]
    if not actions:
        current = [one for one in record.actions if one.node_visit == campaign.node_visit]
        reason = why_nothing_comes(campaign, record.plan, current).reason
        found.append(_nothing(f"nothing that comes by itself: {reason}"))
    if record.plan is not None:
        found += _events(record.plan, campaign, record.now)
    return tuple(found)


def why_it_failed(record: CampaignRecord) -> str:
    """Why a campaign ended as `error`: a send that can't go out, or `maxTransitions`."""
    campaign, plan = record.campaign, record.plan
    for action in record.actions:
        is_failed_send = action.action_type == ActionType.SEND and action.status == ActionStatus.ERROR
        if is_failed_send and action.node_visit == campaign.node_visit:
            return f"its mail can't be sent ({action.last_error or 'no error is known'})"
    if plan is not None and campaign.node_visit - campaign.first_visit >= plan.max_transitions:
        return f"it used up its {plan.max_transitions} transitions (maxTransitions)"
    return "nothing more is known"


def why_nothing_comes(
    campaign: Campaign, plan: CampaignPlan | None, actions: Sequence[ScheduledAction]
) -> StuckCampaign:
    """Why an unfinished campaign has no unfinished action; `actions` are those of its current visit."""
    node = None if plan is None else plan.nodes.get(campaign.current_node_id)
    failed = next((one for one in actions if one.status == ActionStatus.ERROR), None)
    if failed is not None:
        what = "mail" if failed.action_type == ActionType.SEND else f"timeout {failed.event_type}"
        error = failed.last_error or "no error is known"
        return StuckCampaign(campaign, f"its {what} failed for good: {error}", failed)
    if plan is None:
        return StuckCampaign(campaign, f"its plan {campaign.plan_hash[:12]} is missing or can't be read")
    if node is None:
        return StuckCampaign(campaign, f"its plan has no node {campaign.current_node_id}")
    return StuckCampaign(campaign, "; ".join(_why_each(node, actions)))


def _why_each(node: Node, actions: Sequence[ScheduledAction]) -> Iterator[str]:
    """Why each thing that the node should have waited for is over, and what is left to wait for."""
    by_event = {one.event_type: one for one in actions}
    names = [timer.event_type for timer in node.timers]
    if node.action == "send":
        mail = next((one for one in actions if one.action_type == ActionType.SEND), None)
        if mail is not None and mail.status == ActionStatus.CANCELED:
            yield f"its mail was canceled ({_why_canceled(mail)})"
    for name in names:
        yield f"its timeout {name} {_how_it_ended(by_event.get(name))}"
    real = list_text(sorted({edge.on for edge in _real_edges(node)}), "or") if _real_edges(node) else None
    if not names:
        yield f"{node.id} has no timeout"
    yield f"only {real} can move it" if real is not None else "no event moves it, other than one that ends it"


def _why_canceled(action: ScheduledAction) -> str:
    reason = action.outcome
    return "by hand, without a reason" if reason is None or reason == CANCELED_BY_HAND else reason


def _how_it_ended(action: ScheduledAction | None) -> str:
    if action is None:
        return "was never scheduled"
    if action.status == ActionStatus.CANCELED and action.outcome == "event happened":
        return "was answered by an event that no transition wanted"
    if action.status == ActionStatus.CANCELED:
        return f"was canceled ({_why_canceled(action)})"
    if action.outcome == "event_happened":
        return "fired without effect, since an event had answered it"
    return f"fired without effect ({action.outcome or 'no outcome is known'})"


def _real_edges(node: Node) -> list[Edge]:
    return [edge for edge in node.edges if not is_synthetic(edge.on) and edge.on != _SEND_FAILED]


def _hands(record: CampaignRecord) -> Iterable[Awaited]:
    """Pauses, which somebody has to lift before anything fires."""
    for pause in record.pauses:
        facts: dict[str, Fact] = {"scope": pause.scope, "actor": pause.actor, "reason": pause.reason}
        if pause.dedupe_key is not None:
            facts["dedupe_key"] = pause.dedupe_key
        yield Awaited(AwaitedKind.HAND, f"somebody to resume it: {_pause_text(pause)}", None, None, facts)


def _action(record: CampaignRecord, action: ScheduledAction) -> Awaited:
    what = "mail" if action.action_type == ActionType.SEND else f"timeout {action.event_type}"
    text = f"{what} of {action.node_id} (visit {action.node_visit})"
    if action.run_at > action.deadline:
        text += f", with its deadline {instant_text(action.deadline)}"
    if action.status == ActionStatus.PAUSED:
        text += ", paused"
    elif action.status == ActionStatus.CLAIMED:
        text += ", being fired"
    elif action.run_at <= record.now:
        text += ", overdue"
    if action.node_visit != record.campaign.node_visit:
        text += ", of another visit: it will have no effect"
    elif (target := _target(record.plan, action)) is not None:
        text += f": leads to {target}"
    facts: dict[str, Fact] = {
        "dedupe_key": action.dedupe_key,
        "status": action.status,
        "deadline": action.deadline,
        "run_at": action.run_at,
        "attempts": action.attempts,
        "last_error": action.last_error if action.attempts else None,
    }
    return Awaited(AwaitedKind.ACTION, text, action.run_at, None, facts)


def _target(plan: CampaignPlan | None, action: ScheduledAction) -> str | None:
    """Where a timeout leads."""
    node = None if plan is None else plan.nodes.get(action.node_id)
    timer = None if node is None else node.timer(action.event_type)
    return None if timer is None else timer.to


def _events(plan: CampaignPlan, campaign: Campaign, now: datetime) -> Iterator[Awaited]:
    """The real events that would count if they happened now, or will once their guard's time has come."""
    node = plan.nodes.get(campaign.current_node_id)
    if node is None:
        return
    for edge in _real_edges(node):
        if not _comes_too_late(plan, campaign, edge.on, now):
            yield from _window(plan, campaign, edge, node, now)
    named = {edge.on for edge in _real_edges(node)}
    exits = [name for name in dict.fromkeys((*plan.exits, *SUPPRESSING_EVENTS)) if name not in named]
    if exits:
        facts: dict[str, Fact] = {"event_types": tuple(exits), "leads_to": machine.STOP_NODE}
        yield Awaited(AwaitedKind.EVENT, f"{list_text(exits, 'or')}: ends it", None, None, facts)


def _comes_too_late(plan: CampaignPlan, campaign: Campaign, event_type: str, now: datetime) -> bool:
    """Whether the state machine would call such an event late: its timeout has led on already."""
    event = RealEvent(event_type, now, campaign.mail_visit)
    return machine.transition(plan, campaign, event, now).outcome == LATE


def _window(plan: CampaignPlan, campaign: Campaign, edge: Edge, node: Node, now: datetime) -> Iterator[Awaited]:
    """From when until when an event takes this transition; nothing once that is over."""
    opens = edge.after.add_to(campaign.anchor_at, plan.zone) if edge.after and not edge.after.is_zero else None
    closes = edge.within.add_to(campaign.anchor_at, plan.zone) if edge.within is not None else None
    if closes is not None and closes < now:
        return
    opens = opens if opens is not None and opens > now else None
    names = [edge.on]
    if edge.on in counts_as("clicked") and not node.edges_on("clicked"):
        names.append("clicked")
    facts: dict[str, Fact] = {"event_types": tuple(names), "leads_to": edge.to}
    yield Awaited(AwaitedKind.EVENT, f"{list_text(names, 'or')}: leads to {edge.to}", opens, closes, facts)


def _nothing(text: str) -> Awaited:
    return Awaited(AwaitedKind.NOTHING, text, None, None, {})
