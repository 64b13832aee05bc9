"""A simulated campaign at one instant: what is pending, and what each thing that comes does to it.

What decides is the state machine, as everywhere; here a decision changes values in memory the way the store changes
rows, and each rule of the shell that surrounds a decision (which mail, duplicates, quiet hours at the last moment, the
order of what is due) is followed as `run_due` follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from scheduler.domain import machine, outcome
from scheduler.domain.action import ActionStatus, ActionType, make_dedupe_key
from scheduler.domain.campaign import Transition
from scheduler.domain.decision import Decision, PlannedAction, RealEvent, SendConfirmed, SendFailed, TimeoutExpired
from scheduler.domain.event import SUPPRESSING_EVENTS
from scheduler.domain.explaining.wording import duration_text, span_text
from scheduler.domain.incoming import IncomingEvent
from scheduler.domain.plan import CampaignPlan
from scheduler.domain.simulation import SimulatedAction, TimelineEntry, What

TENANT: Final = "simulation"
CAMPAIGN: Final = "c-1"
CONTACT: Final = "k-1"
SUPPRESSED: Final = "suppressed"
KEPT: Final = "it came before its mail was out"
# What the setting POLL_INTERVAL is by default: a timeout that waits for its mail is looked at no sooner.
POLL_INTERVAL: Final = timedelta(seconds=1)

Test = Callable[[SimulatedAction], bool]


def message_of(visit: int) -> str:
    """The message id of the mail of a visit."""
    return f"m-{CAMPAIGN}-{visit}"


class SimulatedContact:
    """One contact on a clock that somebody else moves. Enrolled, and nothing fired yet.

    `on_sent` is told the visit whose mail just went out: what waited for that mail is taken then.
    """

    def __init__(
        self,
        plan: CampaignPlan,
        start_at: datetime,
        timezone: str | None,
        grace: timedelta,
        on_sent: Callable[[int], None],
    ) -> None:
        self.plan = plan
        self.now = start_at
        self.history: list[Transition] = []
        self.timeline: list[TimelineEntry] = []
        self.pending: dict[str, SimulatedAction] = {}
        self.failing: list[str | None] = []
        self._grace = grace
        self._on_sent = on_sent
        self._confirmed: set[int] = set()
        self.campaign = machine.unborn(plan, (TENANT, CAMPAIGN), CONTACT, start_at, start_at, timezone)
        self.apply(machine.start(plan, self.campaign, start_at, start_at))

    @property
    def next_due(self) -> datetime | None:
        """When the next thing is due."""
        return min((action.run_at for action in self.pending.values() if not action.is_paused), default=None)

    @property
    def confirmed(self) -> frozenset[int]:
        """The visits whose mail went out."""
        return frozenset(self._confirmed)

    def fire_due(self) -> bool:
        """One round of what is due, sends first; False when nothing was."""
        sends = self._due(ActionType.SEND)
        for send in sends:
            self._send(send)
        timeouts = self._due(ActionType.TIMEOUT)
        self._fire(timeouts)
        return bool(sends or timeouts)

    def take(
        self, event: IncomingEvent, event_id: str, occurred_at: datetime, mail_visit: int | None, *, was_kept: bool
    ) -> None:
        """A real event that isn't known yet, or that was kept until its mail was out."""
        real = RealEvent(event.event_type, occurred_at, mail_visit, event_id, event.is_machine)
        decision = machine.transition(self.plan, self.campaign, real, self.now)
        name = decision.outcome
        if name == outcome.FAILED:
            name = outcome.TRANSITIONED if decision.transitions else "recorded"
        why = filter(None, (KEPT if was_kept else "", "a machine did it" if event.is_machine else ""))
        self.note_event(event.event_type, name, occurred_at, "; ".join(why))
        self.apply(decision, why=f"{event.event_type}, and maxTransitions is used up")
        if event.event_type in SUPPRESSING_EVENTS:
            self.campaign = replace(self.campaign, is_suppressed=True)

    def stop(self, trigger: str) -> None:
        """Somebody ends the campaign."""
        self.apply(machine.stop(self.campaign, trigger, self.now, self.now))

    def note(self, what: What, why: str = "", **facts: object) -> None:
        """One more line of the timeline, about the current visit unless told otherwise."""
        values = {"node_id": self.campaign.current_node_id, "node_visit": self.campaign.node_visit, **facts}
        self.timeline.append(TimelineEntry(at=self.now, what=what, why=why, **values))  # type: ignore[arg-type]

    def note_event(self, event_type: str, name: str, occurred_at: datetime, about: str = "") -> None:
        """An event came, and what came of it."""
        early = "" if occurred_at == self.now else f"occurred at {occurred_at.isoformat()}"
        why = "; ".join(filter(None, (_WHY.get(name, ""), about, early)))
        self.note(What.EVENT, why, event_type=event_type, outcome=name)

    def _due(self, action_type: ActionType) -> list[SimulatedAction]:
        """What is due, the earliest deadline first."""
        due = [
            action
            for action in self.pending.values()
            if action.action_type == action_type and not action.is_paused and action.run_at <= self.now
        ]
        return sorted(due, key=lambda action: (action.deadline, action.dedupe_key))

    def _send(self, send: SimulatedAction) -> None:
        if self.campaign.is_suppressed:
            self.note(What.NOTED, "the contact is suppressed: no mail goes out", event_type=send.event_type)
            self.stop(SUPPRESSED)
            return
        allowed = machine.allowed_send_time(self.plan, self.campaign, self.now)
        if allowed > self.now:
            self.pending[send.dedupe_key] = replace(send, run_at=allowed)
            self.note(What.MOVED, "to the end of the quiet hours", event_type=send.event_type, due_at=allowed)
            return
        del self.pending[send.dedupe_key]
        failing = next((node_id for node_id in self.failing if node_id in (None, send.node_id)), "")
        if failing != "":
            self.failing.remove(failing)
            self.note(What.SEND_FAILED, "for good", event_type=send.event_type)
            self._decide(SendFailed(send.node_visit, send.dedupe_key), why="the mail can't be sent")
            return
        self._confirmed.add(send.node_visit)
        self.note(What.SENT, event_type=send.event_type)
        self._decide(SendConfirmed(send.node_visit, self.now), why="maxTransitions is used up")
        self._on_sent(send.node_visit)

    def _fire(self, due: list[SimulatedAction]) -> None:
        """The earliest deadline decides first; one that leads on takes the others of its visit with it."""
        sends = [one for one in self.pending.values() if one.action_type == ActionType.SEND]
        send = next((one for one in sends if one.node_visit == self.campaign.node_visit), None)
        for action in due:
            event = TimeoutExpired(
                action.event_type,
                action.node_id,
                action.node_visit,
                action.deadline,
                action.dedupe_key,
                None if send is None else send.run_at,
            )
            decision = machine.transition(self.plan, self.campaign, event, self.now)
            if decision.outcome == outcome.DEFERRED:
                self._defer(action, decision.run_at)
                continue
            del self.pending[action.dedupe_key]
            self.note(
                What.FIRED, _WHY.get(decision.outcome, ""), event_type=action.event_type, outcome=decision.outcome
            )
            if decision.transitions or decision.ends:
                self.apply(decision, why="maxTransitions is used up")
                return

    def _defer(self, action: SimulatedAction, run_at: datetime | None) -> None:
        soonest = self.now + POLL_INTERVAL
        later = max(run_at or soonest, soonest)
        self.pending[action.dedupe_key] = replace(action, run_at=later)
        self.note(What.MOVED, "its mail isn't out yet", event_type=action.event_type, due_at=later)

    def _decide(self, event: SendConfirmed | SendFailed, why: str) -> None:
        self.apply(machine.transition(self.plan, self.campaign, event, self.now), why=why)

    def apply(self, decision: Decision, why: str = "") -> None:
        """What the store writes; `why` is told where the campaign ends without a transition."""
        self.campaign = decision.campaign
        last = decision.campaign.node_visit - 1
        if decision.ends:
            self._cancel(lambda _: True, "campaign ended" if not decision.transitions else "visit left")
        elif decision.transitions:
            self._cancel(lambda action: action.node_visit <= last, "visit left")
        self._change_current(decision)
        self.history += decision.transitions
        for transition in decision.transitions:
            self._note_entry(transition)
        for action in decision.actions:
            self._plan_action(action)
        if decision.ends:
            reason = decision.transitions[-1].trigger if decision.transitions else why
            self.note(What.ENDED, reason, outcome=decision.campaign.status)

    def _change_current(self, decision: Decision) -> None:
        timers = {
            action.event_type: action
            for action in self.pending.values()
            if action.action_type == ActionType.TIMEOUT and action.node_visit == decision.campaign.node_visit
        }
        answered = {answer.timeout_type: answer.occurred_at for answer in decision.answered}
        in_time = {name for name, at in answered.items() if name in timers and timers[name].deadline >= at}
        self._cancel(lambda action: action in [timers[name] for name in in_time], "event happened")
        for retiming in decision.retimed:
            if (action := timers.get(retiming.event_type)) is not None:
                self._retime(action, retiming.deadline)

    def _retime(self, action: SimulatedAction, deadline: datetime) -> None:
        moved = replace(action, deadline=deadline, run_at=deadline + self._grace)
        self.pending[action.dedupe_key] = moved
        if moved != action:
            self.note(What.MOVED, "with its mail", event_type=action.event_type, due_at=moved.run_at)

    def _cancel(self, is_over: Test, reason: str) -> None:
        for key, action in list(self.pending.items()):
            if is_over(action):
                del self.pending[key]
                self.note(
                    What.CANCELED,
                    reason,
                    event_type=action.event_type,
                    node_id=action.node_id,
                    node_visit=action.node_visit,
                )

    def _note_entry(self, transition: Transition) -> None:
        if transition.to_node_id != machine.STOP_NODE:
            visit = transition.node_visit + 1
            self.note(What.ENTERED, transition.trigger, node_id=transition.to_node_id, node_visit=visit)

    def _plan_action(self, action: PlannedAction) -> None:
        tenant, campaign = self.campaign.key
        key = make_dedupe_key(
            tenant, campaign, action.node_id, action.node_visit, action.action_type, action.event_type
        )
        grace = self._grace if action.action_type == ActionType.TIMEOUT else timedelta(0)
        planned = SimulatedAction(
            dedupe_key=key,
            action_type=action.action_type,
            event_type=action.event_type,
            node_id=action.node_id,
            node_visit=action.node_visit,
            deadline=action.deadline,
            run_at=action.deadline + grace,
            is_paused=action.status == ActionStatus.PAUSED,
        )
        self.pending[key] = planned
        self.note(What.PLANNED, self._why_then(planned), event_type=action.event_type, due_at=planned.run_at)

    def _why_then(self, action: SimulatedAction) -> str:
        """Why it is due when it is."""
        node = self.plan.node(action.node_id)
        timer = node.timer(action.event_type)
        held = ", held by the pause" if action.is_paused else ""
        if timer is None:
            wished = node.delay.add_to(self.campaign.node_entered_at, self.plan.zone)
            moved = "moved to the end of the quiet hours" if action.deadline > wished else ""
            delay = "" if node.delay.is_zero else f"{duration_text(node.delay)} after entering"
            return (", ".join(filter(None, (delay, moved))) or "at once") + held
        begin = "the mail" if node.action == "send" else "entering"
        grace = f", and {span_text(self._grace)} of grace" if self._grace else ""
        return f"{duration_text(timer.delay)} after {begin}{grace}{held}"


_WHY: Final = {
    "recorded": "no transition wants it",
    "late": "too late for its mail",
    "duplicate": "it is known already",
    "ignored": "the campaign is over",
    outcome.UNKNOWN_CAMPAIGN: "kept until its mail is out",
    outcome.EVENT_HAPPENED: "what it waited for had happened",
    outcome.NO_TRANSITION: "no transition wants it",
}
