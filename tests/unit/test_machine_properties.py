"""What no plan and no sequence of events can do to a campaign."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scheduler.domain import machine
from scheduler.domain.action import ActionStatus
from scheduler.domain.campaign import Campaign, CampaignStatus, MailEvents
from scheduler.domain.decision import CampaignEvent, Decision, RealEvent, SendConfirmed, SendFailed, TimeoutExpired
from scheduler.domain.event import MAIL_EVENTS, counter_event, counts_as, is_synthetic
from scheduler.domain.plan import CampaignPlan
from tests.strategies import REAL_EVENTS, SYNTHETIC_EVENTS, plans
from tests.support.walk import NOON, Walk, make_document, on, send, wait

AT_ONCE = timedelta(0)
STEPS = tuple(timedelta(seconds=seconds) for seconds in (0, 1, 1800, 3600, 86_400, 259_200, 2_592_000))
SHIFTS = (*STEPS, *(-step for step in STEPS))
EVENT_TYPES = ("opened", "opened", "clicked", "clicked", *REAL_EVENTS, "meeting_booked", "unsubscribed")
TIMEOUT_TYPES = (*SYNTHETIC_EVENTS, "opened")
KINDS = (*["real"] * 4, *["wanted"] * 6, *["due"] * 4, *["sent"] * 4, "timeout", "failed")
OUTCOMES: dict[type, set[str]] = {
    RealEvent: {"transitioned", "recorded", "late", "duplicate", "ignored", "failed"},
    TimeoutExpired: {
        "transitioned",
        "stale",
        "event_happened",
        "campaign_inactive",
        "no_transition",
        "paused",
        "deferred",
        "failed",
    },
    SendConfirmed: {"sent", "transitioned", "failed"},
    SendFailed: {"stale", "transitioned", "failed"},
}


@dataclass(frozen=True)
class Step:
    """Some time passes, then something happens: to the current visit, or (`aim`) to an earlier or later one.

    `shift` is when it occurred, counted from then; `is_sent` whether the visit's mail is out when a timeout is due.
    What is `wanted` is an event that the current node has a transition on.
    """

    kind: str
    event_type: str = "opened"
    passed: timedelta = AT_ONCE
    shift: timedelta = AT_ONCE
    aim: int = 0
    is_sent: bool = True

    def event(self, walk: Walk) -> CampaignEvent:
        """What it means where the contact stands; a timeout that becomes due takes the time until then."""
        visit = max(walk.campaign.node_visit + self.aim, 1)
        mail = None if walk.campaign.mail_visit is None else max(walk.campaign.mail_visit + self.aim, 1)
        match self.kind:
            case "real":
                return RealEvent(self.event_type, walk.now + self.shift, mail, "e-1")
            case "wanted":
                return RealEvent(self._wanted(walk), walk.now + self.shift, walk.campaign.mail_visit, "e-1")
            case "sent":
                return SendConfirmed(visit, walk.now + self.shift)
            case "failed":
                return SendFailed(visit, "k-send")
            case "due":
                return self._due(walk)
            case _:
                return TimeoutExpired(self.event_type, walk.node, visit, walk.now + self.shift, "k-timeout")

    def _wanted(self, walk: Walk) -> str:
        edges = walk.plan.node(walk.node).edges
        wanted = [edge.on for edge in edges if not is_synthetic(edge.on)] or [self.event_type]
        return wanted[EVENT_TYPES.index(self.event_type) % len(wanted)]

    def _due(self, walk: Walk) -> TimeoutExpired:
        due = sorted((deadline, event_type) for event_type, deadline in walk.timers.items())
        deadline, event_type = due[0] if due else (walk.now, self.event_type)
        walk.now = max(walk.now, deadline)
        send_run_at = None if self.is_sent else walk.now
        return TimeoutExpired(event_type, walk.node, walk.campaign.node_visit, deadline, "k-timeout", send_run_at)


@dataclass(frozen=True)
class Moment:
    """One event, the campaign before it, and what was decided."""

    now: datetime
    before: Campaign
    event: CampaignEvent
    decision: Decision

    @property
    def after(self) -> Campaign:
        """The campaign afterwards."""
        return self.decision.campaign


@dataclass(frozen=True)
class Journey:
    """A contact's whole way through a plan."""

    document: dict[str, Any]
    start_at: datetime
    is_paused: bool
    steps: list[Step]

    def walk(self) -> Walk:
        """At its beginning."""
        walk = Walk.of_document(self.document, start_at=self.start_at)
        return walk.pause() if self.is_paused and not walk.campaign.is_finished else walk

    def moments(self, walk: Walk) -> Iterator[Moment]:
        """One after the other; `walk` is at each of them while it is looked at."""
        for step in self.steps:
            walk.advance(step.passed)
            before, event = walk.campaign, step.event(walk)
            decision = walk.deliver(event)
            yield Moment(walk.now, before, event, decision)


def steps() -> st.SearchStrategy[Step]:
    """Real events, timeouts, confirmations and failures, out of order, from the future, of any visit."""

    def of_kind(kind: str) -> st.SearchStrategy[Step]:
        return st.builds(
            Step,
            st.just(kind),
            st.sampled_from(TIMEOUT_TYPES if kind == "timeout" else EVENT_TYPES),
            st.sampled_from(STEPS),
            st.sampled_from(SHIFTS),
            st.sampled_from((0, 0, 0, 0, -1, -2, 1)),
            st.sampled_from((True, True, False)),
        )

    return st.sampled_from(KINDS).flatmap(of_kind)


def documents() -> st.SearchStrategy[dict[str, Any]]:
    """Valid plans, some with few transitions allowed."""
    limits = st.sampled_from(({}, {}, {"maxTransitions": 1}, {"maxTransitions": 3}))
    return st.builds(lambda document, limit: {**document, **limit}, plans(), limits)


def journeys() -> st.SearchStrategy[Journey]:
    """Ways through generated plans."""
    starts = st.sampled_from((NOON, NOON, NOON + STEPS[-2], NOON - STEPS[-2]))
    return st.builds(
        Journey, documents(), starts, st.sampled_from((False, False, True)), st.lists(steps(), min_size=2, max_size=12)
    )


def journey(*nodes: dict[str, Any], steps: tuple[Step, ...]) -> Journey:
    """One that was once found to go wrong."""
    return Journey(make_document(*nodes), NOON, is_paused=False, steps=list(steps))


BOUNCED = journey(send("a", on("bounced", "b")), send("b", on("no_open", "stop")), steps=(Step("real", "bounced"),))
"""The bounce leads on; taken again at the next mail, it would end the campaign."""
REPLIED = journey(
    wait("a", on("replied", "b")),
    wait("b", on("replied", "stop"), on("no_open", "stop")),
    steps=(Step("real", "replied"),),
)
"""The reply leads on; taken again at the next node, it would lead on once more."""
CLICKED = journey(
    wait("a", on("opened", "b")), wait("b", on("no_open", "stop", after="P1D")), steps=(Step("real", "clicked"),)
)
"""The click counts as an open; taken again, it would be recorded as one more click."""
NOT_SYNTHETIC = journey(send("a", on("no_open", "stop")), steps=(Step("real", "opened"), Step("timeout", "opened")))
"""A timeout of a real event, as a row from elsewhere may be, has no counter-event."""
CLICKED_LATE = journey(
    send("a", on("no_open", "b", after="PT1S")),
    wait("b", on("opened", "stop"), on("no_open", "stop", after="PT1S")),
    steps=(Step("due"), Step("real", "clicked"), Step("due")),
)
"""The click isn't taken as an open whose timeout fired, and so must not stop the second such timeout."""

checked = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@checked
@given(journeys())
@example(NOT_SYNTHETIC)
def test_no_sequence_leaves_the_set_of_states(way: Journey) -> None:
    walk = way.walk()
    for moment in way.moments(walk):
        after = moment.after
        assert moment.decision.outcome in OUTCOMES[type(moment.event)]
        assert after.status in set(CampaignStatus)
        assert after.is_finished == (after.completed_at is not None)
        assert (walk.plan.node(after.current_node_id).action == "stop") == (
            after.status in (CampaignStatus.COMPLETED, CampaignStatus.STOPPED)
        )
        assert 1 <= after.node_visit <= walk.plan.max_transitions + 2
        assert (after.mail_visit is None) == (after.mail_node_id is None)
        assert (after.mail_visit or 0) <= after.node_visit


@checked
@given(journeys())
def test_terminal_states_absorb(way: Journey) -> None:
    for moment in way.moments(way.walk()):
        if moment.before.is_finished:
            kept = replace(moment.before, sent_visit=moment.after.sent_visit, updated_at=moment.after.updated_at)
            assert moment.after == kept
            assert moment.decision == Decision(moment.after, moment.decision.outcome)


@checked
@given(journeys())
@example(BOUNCED)
@example(REPLIED)
@example(CLICKED)
@example(CLICKED_LATE)
def test_delivering_anything_twice_changes_nothing(way: Journey) -> None:
    walk = way.walk()
    for moment in way.moments(walk):
        again = machine.transition(walk.plan, moment.after, moment.event, moment.now)
        assert again.campaign == moment.after
        assert (again.transitions, again.actions, again.ends) == ((), (), False)
        if again.retimed:
            assert again.retimed == moment.decision.retimed


@checked
@given(journeys())
def test_a_visit_is_left_at_most_once_and_visits_grow_by_one(way: Journey) -> None:
    walk = way.walk()
    (enrolment,) = [left for left in walk.decision.transitions if left.node_visit == 0]
    assert (enrolment.from_node_id, enrolment.to_node_id) == (None, walk.plan.start_node_id)
    for moment in way.moments(walk):
        left = moment.decision.transitions
        first = moment.before.node_visit
        assert [one.node_visit for one in left] == list(range(first, first + len(left)))
        assert moment.after.node_visit == first + len(left)
        stations = [moment.before.current_node_id, *(one.to_node_id for one in left)]
        assert [one.from_node_id for one in left] == stations[:-1]
        assert moment.after.current_node_id == stations[-1]


@checked
@given(journeys())
def test_new_actions_are_exactly_those_of_the_new_visit(way: Journey) -> None:
    walk = way.walk()
    for moment in way.moments(walk):
        decision, after = moment.decision, moment.after
        if not decision.transitions or after.is_finished:
            assert decision.actions == ()
        else:
            assert decision.actions == tuple(machine.visit_actions(walk.plan, after))
        keys = [(one.node_id, one.node_visit, one.action_type, one.event_type) for one in decision.actions]
        assert len(keys) == len(set(keys))
        assert {key[:2] for key in keys} <= {(after.current_node_id, after.node_visit)}


@checked
@given(journeys())
def test_what_is_canceled_is_exactly_what_no_longer_applies(way: Journey) -> None:
    walk = way.walk()
    for moment in way.moments(walk):
        decision, after = moment.decision, moment.after
        assert decision.ends == (after.is_finished and not moment.before.is_finished)
        assert {visit for visit, _, _ in walk.pending} <= (
            {after.node_visit} - {after.is_finished and after.node_visit}
        )
        if decision.transitions or decision.ends:
            assert (decision.answered, decision.retimed) == ((), ())
        node = walk.plan.node(after.current_node_id)
        for answer in decision.answered:
            assert isinstance(moment.event, RealEvent)
            assert counter_event(answer.timeout_type) in counts_as(moment.event.event_type)
            assert answer.occurred_at == min(moment.event.occurred_at, moment.now)
            assert node.timer(answer.timeout_type) is not None
        if decision.retimed:
            assert isinstance(moment.event, SendConfirmed)
            deadlines = {one.event_type: one.delay.add_to(after.anchor_at, walk.plan.zone) for one in node.timers}
            assert {one.event_type: one.deadline for one in decision.retimed} == deadlines


@checked
@given(journeys())
@example(CLICKED_LATE)
def test_an_event_takes_a_timeout_away_only_where_the_node_has_no_transition_on_it(way: Journey) -> None:
    walk = way.walk()
    for moment in way.moments(walk):
        node = walk.plan.node(moment.before.current_node_id)
        gone = [answer.timeout_type for answer in moment.decision.answered]
        if isinstance(moment.event, TimeoutExpired) and moment.decision.outcome == "event_happened":
            gone.append(moment.event.event_type)
        assert [event_type for event_type in gone if node.edges_on(counter_event(event_type))] == []


@checked
@given(journeys())
def test_who_did_it_in_time_isnt_moved_by_its_timeout(way: Journey) -> None:
    walk = way.walk()
    done: set[tuple[int, str, datetime]] = set()
    for moment in way.moments(walk):
        event, visit = moment.event, moment.before.node_visit
        if isinstance(event, RealEvent) and moment.decision.outcome == "recorded":
            done |= {(visit, name, min(event.occurred_at, moment.now)) for name in counts_as(event.event_type)}
        if isinstance(event, TimeoutExpired) and moment.decision.transitions:
            counter = counter_event(event.event_type)
            in_time = [
                at for at_visit, name, at in done if (at_visit, name) == (visit, counter) and at <= event.deadline
            ]
            node = walk.plan.node(moment.before.current_node_id)
            assert in_time == [] or {edge.on for edge in node.edges} & {counter, "clicked"}


@checked
@given(journeys())
def test_what_is_about_an_earlier_mail_moves_nobody(way: Journey) -> None:
    for moment in way.moments(way.walk()):
        event, mail_visit = moment.event, moment.before.mail_visit
        if not isinstance(event, RealEvent) or event.event_type not in MAIL_EVENTS or moment.before.is_finished:
            continue
        if mail_visit is not None and event.mail_visit != mail_visit:
            assert moment.decision == Decision(moment.before, "late")


@checked
@given(journeys())
def test_a_paused_campaign_makes_nothing_pending_and_an_active_one_nothing_paused(way: Journey) -> None:
    for moment in way.moments(way.walk()):
        if moment.before.status == CampaignStatus.PAUSED:
            assert moment.after.status != CampaignStatus.ACTIVE
            assert not (isinstance(moment.event, TimeoutExpired) and moment.decision.transitions)
        if moment.before.status == CampaignStatus.ACTIVE:
            assert moment.after.status != CampaignStatus.PAUSED
        wanted = ActionStatus.PAUSED if moment.after.status == CampaignStatus.PAUSED else ActionStatus.PENDING
        assert {action.status for action in moment.decision.actions} <= {wanted}


@checked
@given(journeys())
def test_time_never_goes_backwards(way: Journey) -> None:
    for moment in way.moments(way.walk()):
        before, after, decision = moment.before, moment.after, moment.decision
        assert all(left.created_at == moment.now for left in decision.transitions)
        if isinstance(moment.event, RealEvent):
            assert all(left.occurred_at <= moment.now for left in decision.transitions)
        if decision.transitions:
            assert after.node_entered_at == moment.now
            assert all(action.deadline >= moment.now for action in decision.actions)
        else:
            assert after.node_entered_at == before.node_entered_at
        assert after.node_entered_at <= max(moment.now, way.start_at)
        is_anchored = isinstance(moment.event, SendConfirmed) and after.anchor_at != before.anchor_at
        if is_anchored and not decision.transitions:  # the next node may plan its own mail for later
            assert after.anchor_at <= moment.now


@checked
@given(journeys())
def test_a_decision_depends_on_nothing_but_its_arguments(way: Journey) -> None:
    walk = way.walk()
    plan = CampaignPlan.parse(walk.plan.document)
    for moment in way.moments(walk):
        assert machine.transition(plan, moment.before, moment.event, moment.now) == moment.decision


@checked
@given(journeys())
def test_what_is_known_of_a_mail_survives_being_stored(way: Journey) -> None:
    for moment in way.moments(way.walk()):
        known = moment.after.mail_events
        assert MailEvents.from_json(known.to_json()) == known
