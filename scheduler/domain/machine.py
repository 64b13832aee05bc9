"""The campaign state machine: `transition(plan, campaign, event, now) -> Decision`. Pure: no I/O, no clock.

The rules are those of docs/reference/semantics.md. What each branch may change is stated in `Decision`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from scheduler.domain import outcome
from scheduler.domain.action import SENT_EVENT, ActionStatus, ActionType
from scheduler.domain.campaign import NO_MAIL_EVENTS, Campaign, CampaignStatus, Transition
from scheduler.domain.decision import (
    DUPLICATE,
    IGNORED,
    LATE,
    RECORDED,
    CampaignEvent,
    CounterEvent,
    Decision,
    PlannedAction,
    RealEvent,
    Retiming,
    SendConfirmed,
    SendFailed,
    TimeoutExpired,
)
from scheduler.domain.event import MACHINE_EVENTS, MAIL_EVENTS, counter_event, counts_as, is_synthetic
from scheduler.domain.plan import CampaignPlan, Edge, Node
from scheduler.domain.timing import parse_zone

ENROLLED = "enrolled"
RESTARTED = "restarted"
MIGRATED = "migrated"
STOPPED = "stopped"
SEND_FAILED = "send_failed"
STOP_NODE = "stop"


def unborn(
    plan: CampaignPlan,
    key: tuple[str, str],
    contact_id: str,
    entered_at: datetime,
    now: datetime,
    timezone: str | None = None,
) -> Campaign:
    """A campaign that is about to be enrolled: visit 0 of nothing, for `start`."""
    return Campaign(
        tenant_id=key[0],
        campaign_id=key[1],
        contact_id=contact_id,
        plan_hash=plan.hash,
        status=CampaignStatus.ACTIVE,
        current_node_id=plan.start_node_id,
        node_visit=0,
        node_entered_at=entered_at,
        anchor_at=entered_at,
        started_at=entered_at,
        created_at=now,
        updated_at=now,
        timezone=timezone,
    )


def start(plan: CampaignPlan, campaign: Campaign, entered_at: datetime, now: datetime) -> Decision:
    """The enrolment: `campaign` as visit 0 of nothing, entering the plan's start node at `entered_at`."""
    return _enter(plan, campaign, None, plan.start_node_id, ENROLLED, entered_at, entered_at, now)


def restart(plan: CampaignPlan, campaign: Campaign, entered_at: datetime, now: datetime) -> Decision:
    """A finished campaign begins again, on this plan. Its visits go on counting, so that no key is used twice."""
    fresh = campaign.but(
        plan_hash=plan.hash,
        status=CampaignStatus.ACTIVE,
        started_at=entered_at,
        completed_at=None,
        first_visit=campaign.node_visit + 1,
        mail_node_id=None,
        mail_visit=None,
        sent_visit=None,
        mail_events=NO_MAIL_EVENTS,
    )
    left = campaign.current_node_id
    return _enter(plan, fresh, left, plan.start_node_id, RESTARTED, entered_at, entered_at, now)


def reopen(campaign: Campaign, now: datetime) -> Campaign:
    """One that ended in `error` because its send failed goes on at the same visit: the send is tried again."""
    return campaign.but(status=CampaignStatus.ACTIVE, completed_at=None, updated_at=now)


def migrate(
    plan: CampaignPlan, campaign: Campaign, to_node_id: str, now: datetime, send_run_at: datetime | None = None
) -> Decision:
    """An unfinished campaign goes on at that node of another plan: a new visit that keeps entry, anchor and mail.

    Timeouts are planned from the old anchor, and may be due at once. `send_run_at` is when the unfinished send of the
    visit is due: the new one is due then, too. Without one no mail is planned: it went out, or was canceled. What is
    known of the mail may lead on in the same decision.
    """
    left = _leave(campaign, campaign.current_node_id, to_node_id, MIGRATED, now, now)
    node = plan.node(to_node_id)
    moved = campaign.but(
        plan_hash=plan.hash, current_node_id=node.id, node_visit=campaign.node_visit + 1, updated_at=now
    )
    if node.action == "stop":
        done = moved.but(status=CampaignStatus.COMPLETED, node_entered_at=now, anchor_at=now, completed_at=now)
        return Decision(done, outcome.TRANSITIONED, transitions=(left,), ends=True)
    if send_run_at is not None:
        moved = moved.but(channel=node.channel, mail_node_id=node.id, mail_visit=moved.node_visit)
    early = None if moved.awaits_mail else _recorded_edge(plan, node, moved)
    if early is not None:
        onward = _follow(plan, moved, *early, now)
        return replace(onward, transitions=(left, *onward.transitions))
    planned = tuple(
        replace(action, run_at=send_run_at) if action.action_type == ActionType.SEND else action
        for action in visit_actions(plan, moved)
    )
    return Decision(moved, outcome.TRANSITIONED, transitions=(left,), actions=planned)


def transition(plan: CampaignPlan, campaign: Campaign, event: CampaignEvent, now: datetime) -> Decision:
    """What `event` does to `campaign`, at the instant `now`."""
    match event:
        case TimeoutExpired():
            return _timeout_expired(plan, campaign, event, now)
        case RealEvent():
            return _real_event(plan, campaign, event, now)
        case SendConfirmed():
            return _send_confirmed(plan, campaign, event, now)
        case SendFailed():
            return _send_failed(plan, campaign, event, now)


def stop(
    campaign: Campaign, trigger: str, occurred_at: datetime, now: datetime, event_id: str | None = None
) -> Decision:
    """The campaign ends before its plan does (an unsubscribe, an operator)."""
    if campaign.is_finished:
        return Decision(campaign, IGNORED)
    left = _leave(campaign, campaign.current_node_id, STOP_NODE, trigger, occurred_at, now, event_id=event_id)
    stopped = campaign.but(
        status=CampaignStatus.STOPPED,
        current_node_id=STOP_NODE,
        node_visit=campaign.node_visit + 1,
        node_entered_at=now,
        anchor_at=now,
        completed_at=now,
        updated_at=now,
    )
    return Decision(stopped, outcome.TRANSITIONED, transitions=(left,), ends=True)


def _timeout_expired(plan: CampaignPlan, campaign: Campaign, event: TimeoutExpired, now: datetime) -> Decision:
    if campaign.is_finished:
        return Decision(campaign, outcome.CAMPAIGN_INACTIVE)
    if event.node_visit != campaign.node_visit or event.node_id != campaign.current_node_id:
        return Decision(campaign, outcome.STALE)
    if campaign.status == CampaignStatus.PAUSED or campaign.is_held:
        return Decision(campaign, outcome.PAUSED)
    node = plan.node(campaign.current_node_id)
    timer = node.timer(event.event_type)
    if _is_answered(node, campaign, event):
        return Decision(campaign, outcome.EVENT_HAPPENED)
    if timer is None:
        return Decision(campaign, outcome.NO_TRANSITION)
    if event.send_run_at is not None:
        return Decision(campaign, outcome.DEFERRED, run_at=timer.delay.add_to(event.send_run_at, plan.zone))
    fired = campaign.but(mail_events=campaign.mail_events.fire(event.event_type))
    return _enter(
        plan, fired, node.id, timer.to, event.event_type, event.deadline, now, now, dedupe_key=event.dedupe_key
    )


def _real_event(plan: CampaignPlan, campaign: Campaign, event: RealEvent, now: datetime) -> Decision:
    if campaign.is_finished:
        return Decision(campaign, IGNORED)
    occurred_at = min(event.occurred_at, now)
    if _is_late(campaign, event):
        return Decision(campaign, LATE)
    if event.is_machine and event.event_type in MACHINE_EVENTS and plan.machine_opens == "ignore":
        return Decision(campaign, RECORDED)
    if campaign.mail_events.is_used(event.event_type, occurred_at):
        return Decision(campaign, DUPLICATE)
    node = plan.node(campaign.current_node_id)
    edge = _wanted(plan, node, campaign, event.event_type, occurred_at)
    if edge is not None:
        return _follow(plan, campaign, edge, event.event_type, occurred_at, now, event.event_id)
    if event.event_type in plan.exits:
        return stop(campaign, event.event_type, occurred_at, now, event.event_id)
    answered = tuple(_answers(node, event.event_type, occurred_at))
    mail_events = campaign.mail_events.record(event.event_type, occurred_at)
    if mail_events == campaign.mail_events:
        return Decision(campaign, RECORDED, answered=answered)
    return Decision(campaign.but(mail_events=mail_events, updated_at=now), RECORDED, answered=answered)


def _send_confirmed(plan: CampaignPlan, campaign: Campaign, event: SendConfirmed, now: datetime) -> Decision:
    if event.node_visit < campaign.first_visit:  # a mail from before the last start is none of this run's
        return Decision(campaign, outcome.SENT)
    newest = event.node_visit if campaign.sent_visit is None else max(campaign.sent_visit, event.node_visit)
    sent = campaign.but(sent_visit=newest, updated_at=now)
    if campaign.is_finished or event.node_visit != campaign.node_visit:
        return Decision(sent, outcome.SENT)
    sent_at = min(event.sent_at, now)
    anchored = sent.but(anchor_at=sent_at)
    node = plan.node(campaign.current_node_id)
    early = _recorded_edge(plan, node, anchored)
    if early is not None:
        return _follow(plan, anchored, *early, now)
    retimed = tuple(Retiming(timer.event_type, timer.delay.add_to(sent_at, plan.zone)) for timer in node.timers)
    return Decision(anchored, outcome.SENT, retimed=retimed)


def _send_failed(plan: CampaignPlan, campaign: Campaign, event: SendFailed, now: datetime) -> Decision:
    if campaign.is_finished or event.node_visit != campaign.node_visit:
        return Decision(campaign, outcome.STALE)
    node = plan.node(campaign.current_node_id)
    for edge in node.edges_on(SEND_FAILED):
        if edge.holds(now, campaign.anchor_at, plan.zone):
            return _enter(plan, campaign, node.id, edge.to, SEND_FAILED, now, now, now, dedupe_key=event.dedupe_key)
    return _fail(campaign, now)


def _fail(campaign: Campaign, now: datetime, transitions: tuple[Transition, ...] = ()) -> Decision:
    """The campaign stays where it is, as `error`: a send that will never go out, or `maxTransitions` used up."""
    failed = campaign.but(status=CampaignStatus.ERROR, completed_at=now, updated_at=now)
    return Decision(failed, outcome.FAILED, transitions=transitions, ends=True)


def _follow(
    plan: CampaignPlan,
    campaign: Campaign,
    edge: Edge,
    event_type: str,
    occurred_at: datetime,
    now: datetime,
    event_id: str | None = None,
) -> Decision:
    used = campaign.but(mail_events=campaign.mail_events.use(event_type, occurred_at, edge.on))
    return _enter(plan, used, campaign.current_node_id, edge.to, edge.on, occurred_at, now, now, event_id=event_id)


def _enter(
    plan: CampaignPlan,
    campaign: Campaign,
    from_node_id: str | None,
    to_node_id: str,
    trigger: str,
    occurred_at: datetime,
    entered_at: datetime,
    now: datetime,
    *,
    dedupe_key: str | None = None,
    event_id: str | None = None,
) -> Decision:
    """Leave the current visit for `to_node_id`; go on at once where an event already recorded leads on from there."""
    transitions = [_leave(campaign, from_node_id, to_node_id, trigger, occurred_at, now, dedupe_key, event_id)]
    while True:
        if campaign.node_visit - campaign.first_visit >= plan.max_transitions:
            return _fail(campaign, now, tuple(transitions[:-1]))
        node = plan.node(to_node_id)
        campaign = _arrive(plan, campaign, node, entered_at, now)
        early = _recorded_edge(plan, node, campaign) if node.action == "wait" else None
        if early is None:
            break
        edge, event_type, at = early
        campaign = campaign.but(mail_events=campaign.mail_events.use(event_type, at, edge.on))
        to_node_id = edge.to
        transitions.append(_leave(campaign, node.id, to_node_id, edge.on, at, now))
    actions = () if campaign.is_finished else tuple(visit_actions(plan, campaign))
    return Decision(
        campaign, outcome.TRANSITIONED, transitions=tuple(transitions), actions=actions, ends=campaign.is_finished
    )


def _leave(
    campaign: Campaign,
    from_node_id: str | None,
    to_node_id: str,
    trigger: str,
    occurred_at: datetime,
    now: datetime,
    dedupe_key: str | None = None,
    event_id: str | None = None,
) -> Transition:
    return Transition(
        tenant_id=campaign.tenant_id,
        campaign_id=campaign.campaign_id,
        node_visit=campaign.node_visit,
        from_node_id=from_node_id,
        to_node_id=to_node_id,
        trigger=trigger,
        occurred_at=occurred_at,
        created_at=now,
        dedupe_key=dedupe_key,
        event_id=event_id,
    )


def _arrive(plan: CampaignPlan, campaign: Campaign, node: Node, entered_at: datetime, now: datetime) -> Campaign:
    visit = campaign.node_visit + 1
    arrived = campaign.but(
        current_node_id=node.id,
        node_visit=visit,
        node_entered_at=entered_at,
        anchor_at=entered_at,
        updated_at=now,
    )
    if node.action == "stop":
        return arrived.but(status=CampaignStatus.COMPLETED, completed_at=now)
    if node.action == "send":
        planned = planned_send_time(plan, campaign, node, entered_at)
        return arrived.but(
            anchor_at=planned,
            channel=node.channel,
            mail_node_id=node.id,
            mail_visit=visit,
            mail_events=campaign.mail_events.of_next_mail(),
        )
    # Without a mail, a timeout that fired is about its own visit alone.
    return arrived if arrived.mail_visit is not None else arrived.but(mail_events=arrived.mail_events.forget_fired())


def planned_send_time(plan: CampaignPlan, campaign: Campaign, node: Node, entered_at: datetime) -> datetime:
    """Entry plus the node's delay, moved to the end of quiet hours."""
    return allowed_send_time(plan, campaign, node.delay.add_to(entered_at, plan.zone))


def allowed_send_time(plan: CampaignPlan, campaign: Campaign, wished: datetime) -> datetime:
    """That instant, moved to the end of quiet hours in the contact's zone, else the plan's; never earlier.

    Asked when a send is planned, and once more when it goes out: an outage, a resume or a backoff may have moved it.
    """
    if plan.quiet_hours is None:
        return wished
    zone = plan.zone if campaign.timezone is None else parse_zone("timezone", campaign.timezone)
    return plan.quiet_hours.next_allowed(wished, zone)


def visit_actions(plan: CampaignPlan, campaign: Campaign) -> Iterator[PlannedAction]:
    """The actions a fresh visit needs: the send of a send node, and one timeout per synthetic event."""
    node = plan.node(campaign.current_node_id)
    status = ActionStatus.PAUSED if campaign.status == CampaignStatus.PAUSED else ActionStatus.PENDING
    if campaign.awaits_mail:
        yield PlannedAction(ActionType.SEND, SENT_EVENT, node.id, campaign.node_visit, campaign.anchor_at, status)
    for timer in node.timers:
        deadline = timer.delay.add_to(campaign.anchor_at, plan.zone)
        yield PlannedAction(ActionType.TIMEOUT, timer.event_type, node.id, campaign.node_visit, deadline, status)


def _is_late(campaign: Campaign, event: RealEvent) -> bool:
    """Opened, clicked and delivered of an earlier mail, or whose timeout already fired. Nothing else is ever late."""
    if event.event_type not in MAIL_EVENTS:
        return False
    if event.mail_visit is not None and event.mail_visit < campaign.first_visit:  # before the last start
        return True
    if campaign.mail_visit is not None and event.mail_visit != campaign.mail_visit:
        return True
    return _has_fired(campaign, event.event_type)


def _has_fired(campaign: Campaign, event_type: str) -> bool:
    return any(counter_event(fired) == event_type for fired in campaign.mail_events.fired)


def _wanted(plan: CampaignPlan, node: Node, campaign: Campaign, event_type: str, occurred_at: datetime) -> Edge | None:
    """The first transition that takes the event: on the event itself, else (a click) on what it also counts as."""
    for effective in counts_as(event_type):
        known = campaign.mail_events
        is_over = _has_fired(campaign, effective) or known.is_used_as(event_type, effective, occurred_at)
        if is_over and effective != event_type:
            continue
        for edge in node.edges_on(effective):
            if edge.holds(occurred_at, campaign.anchor_at, plan.zone):
                return edge
    return None


def _recorded_edge(plan: CampaignPlan, node: Node, campaign: Campaign) -> tuple[Edge, str, datetime] | None:
    """The earliest event already recorded for this mail that leads on from `node`."""
    if not campaign.mail_events.first:
        return None
    for event_type, occurred_at in sorted(campaign.mail_events.first.items(), key=lambda item: (item[1], item[0])):
        edge = _wanted(plan, node, campaign, event_type, occurred_at)
        if edge is not None:
            return edge, event_type, occurred_at
    return None


def _answers(node: Node, event_type: str, occurred_at: datetime) -> Iterator[CounterEvent]:
    """The timeouts of the visit that the event answers, unless its own transitions exist and none of them holds."""
    for timer in node.timers:
        counter = counter_event(timer.event_type)
        if counter in counts_as(event_type) and not _has_edges_on(node, counter, event_type):
            yield CounterEvent(timer.event_type, occurred_at)


def _is_answered(node: Node, campaign: Campaign, event: TimeoutExpired) -> bool:
    """Whether a recorded event answers the timeout, judged as of its deadline.

    One that the node has transitions on would have left the visit if it could: then the timeout must lead on.
    """
    if not campaign.mail_events.first or not is_synthetic(event.event_type):  # the latter: a row from elsewhere
        return False
    counter = counter_event(event.event_type)
    in_time = [name for name, occurred_at in campaign.mail_events.first.items() if occurred_at <= event.deadline]
    return any(counter in counts_as(name) and not _has_edges_on(node, counter, name) for name in in_time)


def _has_edges_on(node: Node, *event_types: str) -> bool:
    return any(node.edges_on(event_type) for event_type in event_types)
