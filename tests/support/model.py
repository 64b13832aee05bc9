"""What the scheduler should do, told as simply as possible: dictionaries, and one method per rule.

Nothing of `scheduler` is used here, so that the same mistake can't be in both. There is one thread, no claim that
lasts, no batch and no failure: what is due takes effect one after the other. Plans are JSON documents whose durations
are `PT<minutes>M`; quiet hours, machine opens and events of mails that nobody confirmed yet are left to other tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

MAIL_EVENTS: Final = ("opened", "clicked", "delivered")
EXITS: Final = ("unsubscribed", "bounced")
COUNTERS: Final = {"no_open": "opened", "no_click": "clicked", "no_reply": "replied"}
UNFINISHED: Final = ("pending", "claimed", "paused")
FINISHED: Final = ("completed", "stopped", "error")
MOST_TRANSITIONS: Final = 1000
EVERYTHING: Final = ("", "")
LONGEST_DEFERRAL: Final = timedelta(minutes=1)

Key = tuple[str, str]
Edge = Mapping[str, str]


class RefusedError(Exception):
    """The call is refused, and nothing changes."""


@dataclass
class Walk:
    """A campaign: where it stands, and what is known of its newest mail."""

    contact: str
    plan: Mapping[str, Any]
    status: str = "active"
    node: str = ""
    visit: int = 0
    first_visit: int = 1
    entered_at: datetime | None = None
    anchor: datetime | None = None
    mail_visit: int | None = None
    sent_visit: int | None = None
    recorded: dict[str, datetime] = field(default_factory=dict)
    used: set[tuple[str, str, datetime]] = field(default_factory=set)
    fired: set[str] = field(default_factory=set)
    history: list[tuple[int, str | None, str, str, datetime]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    missed: list[tuple[datetime, Key, str, datetime, int | None]] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        """Whether its life is over."""
        return self.status in FINISHED

    @property
    def real_events(self) -> list[str]:
        """What leads on from its node, guards aside."""
        if self.node == "stop":
            return []
        return [edge["on"] for edge in _node(self)["transitions"] if edge["on"] not in (*COUNTERS, "send_failed")]

    @property
    def awaits_mail(self) -> bool:
        """Whether it stands at a send whose mail is still to go out."""
        return self.mail_visit == self.visit and self.sent_visit != self.visit


@dataclass
class Row:
    """An action."""

    tenant: str
    campaign: str
    node: str
    visit: int
    kind: str
    event: str
    deadline: datetime
    run_at: datetime
    status: str
    created_at: datetime
    outcome: str | None = None
    attempts: int = 0
    message: str | None = None
    sent_at: datetime | None = None

    @property
    def key(self) -> str:
        """The dedupe key."""
        return f"{self.tenant}:{self.campaign}:{self.node}:{self.visit}:{self.kind}:{self.event}"

    @property
    def owner(self) -> Key:
        """The campaign."""
        return (self.tenant, self.campaign)

    @property
    def is_unfinished(self) -> bool:
        """Whether something is still to come of it."""
        return self.status in UNFINISHED

    def end(self, status: str, outcome: str) -> None:
        """Its one end."""
        self.status, self.outcome = status, outcome


class Model:
    """All tenants. The caller sets `now`. What a method answers is what the call of that name should answer."""

    def __init__(self, now: datetime, poll: timedelta, most_attempts: int) -> None:
        self.now = now
        self.poll = poll
        self.most_attempts = most_attempts
        self.walks: dict[Key, Walk] = {}
        self.rows: dict[str, Row] = {}
        self.events: dict[Key, tuple[str, datetime, str]] = {}
        self.pauses: dict[Key, datetime] = {}
        self.suppressed: set[Key] = set()

    # Visits

    def enroll(self, key: Key, contact: str, plan: Mapping[str, Any], *, restart: bool = False) -> None:
        """A campaign begins; one that exists stays as it is, unless it is over and is to begin again."""
        known = self.walks.get(key)
        if known is not None and not (restart and known.is_finished):
            return
        if (key[0], contact) in self.suppressed:
            raise RefusedError
        if known is None:
            self.walks[key] = Walk(contact, plan)
            self._go(key, None, plan["startNodeId"], "enrolled", self.now)
            return
        fresh = Walk(contact, plan, visit=known.visit, first_visit=known.visit + 1, history=known.history)
        self.walks[key] = fresh
        self._go(key, known.node, plan["startNodeId"], "restarted", self.now)

    def _go(self, key: Key, left: str | None, to: str, trigger: str, at: datetime) -> None:
        """Leave the visit, and enter nodes until one holds the campaign."""
        walk = self.walks[key]
        known_steps = len(walk.history)
        step: tuple[str | None, str, str, datetime] | None = (left, to, trigger, at)
        while step is not None:
            if walk.visit - walk.first_visit >= walk.plan.get("maxTransitions", MOST_TRANSITIONS):
                self._end(key, "error", "visit left" if len(walk.history) > known_steps else "campaign ended")
                return
            left, to, trigger, at = step
            walk.history.append((walk.visit, left, to, trigger, at))
            self._cancel(key, "visit left", last_visit=walk.visit)
            self._arrive(walk, to)
            step = self._known_way_on(walk)
        if walk.node == "stop":
            self._end(key, "completed", "visit left")
        else:
            self._plan_visit(key)

    def _arrive(self, walk: Walk, to: str) -> None:
        walk.node, walk.visit = to, walk.visit + 1
        walk.entered_at = walk.anchor = self.now
        if to == "stop":
            return
        node = _node(walk)
        if node["action"] == "send":
            walk.anchor = self.now + _span(node.get("schedule", {}).get("delay", "PT0M"))
            walk.mail_visit = walk.visit
            walk.recorded = {}
            walk.fired = set()
            walk.used = {one for one in walk.used if one[0] not in MAIL_EVENTS}
        elif walk.mail_visit is None:
            walk.fired = set()

    def _known_way_on(self, walk: Walk) -> tuple[str | None, str, str, datetime] | None:
        """A wait node is left at once by what was recorded before, the earliest first."""
        if walk.node == "stop" or _node(walk)["action"] != "wait":
            return None
        found = self._recorded_edge(walk)
        if found is None:
            return None
        edge, event, at = found
        self._use(walk, event, at, edge["on"])
        return walk.node, edge["to"], edge["on"], at

    def _plan_visit(self, key: Key) -> None:
        walk = self.walks[key]
        assert walk.anchor is not None
        status = "paused" if walk.status == "paused" else "pending"
        if walk.awaits_mail:
            self._add(key, walk.node, walk.visit, "send", "sent", walk.anchor, status)
        for event, edge in _timers(_node(walk)).items():
            self._add(key, walk.node, walk.visit, "timeout", event, walk.anchor + _span(edge["after"]), status)

    def _add(self, key: Key, node: str, visit: int, kind: str, event: str, at: datetime, status: str) -> None:
        row = Row(*key, node, visit, kind, event, at, at, status, self.now)
        self.rows.setdefault(row.key, row)

    def _end(self, key: Key, status: str, why: str) -> None:
        walk = self.walks[key]
        if walk.status == "paused":
            self.pauses.pop(key, None)
        walk.status = status
        walk.ended = [row.key for row in self.of_campaign(key)] if why == "campaign ended" else []
        self._cancel(key, why)

    def _cancel(self, key: Key, why: str, *, last_visit: int | None = None) -> int:
        rows = [row for row in self.of_campaign(key) if last_visit is None or row.visit <= last_visit]
        for row in rows:
            row.end("canceled", why)
        return len(rows)

    def of_campaign(self, key: Key) -> list[Row]:
        """What is unfinished of a campaign."""
        return [row for row in self.rows.values() if row.owner == key and row.is_unfinished]

    # Timeouts

    def run_due(self) -> int:
        """Everything due fires; returns how many timeouts ended by firing."""
        self._recover()
        self._hold_due("timeout")
        before = self._completed()
        for key in sorted({row.owner for row in self.rows.values()}):
            while self._fire_due(key):
                pass
        return self._completed() - before

    def _completed(self) -> int:
        return sum(row.kind == "timeout" and row.status == "completed" for row in self.rows.values())

    def _recover(self) -> None:
        """Claims of the dead, and of applications that said nothing, are over."""
        for row in self.rows.values():
            if row.status == "claimed":
                row.status = "pending"

    def _hold_due(self, kind: str) -> None:
        """What is due of a paused tenant, or while everything is paused, is paused."""
        for row in self.due(kind):
            if self._is_held(row.tenant):
                row.status = "paused"

    def _is_held(self, tenant: str) -> bool:
        return EVERYTHING in self.pauses or (tenant, "") in self.pauses

    def claim_due(self) -> None:
        """A process claimed what is due, and is dead; what is held is paused instead."""
        self._hold_due("timeout")
        for row in self.due("timeout"):
            row.status = "claimed"

    def has_claims(self) -> bool:
        """Whether somebody claimed something, and nobody took it back yet."""
        return any(row.status == "claimed" for row in self.rows.values())

    def due(self, kind: str) -> list[Row]:
        """What is pending and due."""
        rows = self.rows.values()
        return [row for row in rows if row.kind == kind and row.status == "pending" and row.run_at <= self.now]

    def _fire_due(self, key: Key) -> bool:
        """The campaign's due timeouts in the order of their deadlines, up to one that moves it; whether one did."""
        due = [row for row in self.due("timeout") if row.owner == key]
        return any(self._fire(row) for row in sorted(due, key=lambda one: (one.deadline, one.key)))

    def _fire(self, row: Row) -> bool:
        """One due timeout; whether it moved its campaign."""
        walk = self.walks.get(row.owner)
        if walk is None:
            row.end("completed", "unknown_campaign")
        elif walk.is_finished:
            row.end("completed", "campaign_inactive")
        elif (row.visit, row.node) != (walk.visit, walk.node):
            row.end("completed", "stale")
        elif walk.status == "paused":
            row.status = "paused"
        elif self._is_answered(walk, row):
            row.end("completed", "event_happened")
        elif row.event not in _timers(_node(walk)):
            row.end("completed", "no_transition")
        else:
            return self._lead_on(walk, row)
        return False

    def _lead_on(self, walk: Walk, row: Row) -> bool:
        edge = _timers(_node(walk))[row.event]
        send = self.rows.get(f"{row.tenant}:{row.campaign}:{walk.node}:{walk.visit}:send:sent")
        if send is not None and send.is_unfinished:
            pause = max(self.poll, min((row.run_at - row.deadline) / 4, LONGEST_DEFERRAL))
            row.run_at = max(send.run_at + _span(edge["after"]), self.now + pause)
            return False
        row.end("completed", "transitioned")
        walk.fired.add(row.event)
        self._go(row.owner, walk.node, edge["to"], row.event, row.deadline)
        if walk.status == "error":
            row.outcome = "failed"
        return True

    @staticmethod
    def _is_answered(walk: Walk, row: Row) -> bool:
        counter = COUNTERS[row.event]
        in_time = [event for event, at in walk.recorded.items() if at <= row.deadline]
        return any(counter in _evidence(event) and not _has_edges(_node(walk), counter, event) for event in in_time)

    def fire_by_hand(self, key: Key, event: str) -> str:
        """A synthetic event: what is due of the campaign fires, where that one is."""
        walk = self.walks.get(key)
        if walk is None:
            return "unknown_campaign"
        if walk.is_finished:
            return "ignored"
        row = self.rows.get(f"{key[0]}:{key[1]}:{walk.node}:{walk.visit}:timeout:{event}")
        if row is None or row.status not in ("pending", "claimed") or self._is_held(key[0]):
            return "recorded"
        if row.run_at > self.now:
            raise RefusedError
        return self._fire_up_to(row)

    def _fire_up_to(self, row: Row) -> str:
        rows = [one for one in self.of_campaign(row.owner) if one.kind == "timeout" and one.status != "paused"]
        for due in sorted(rows, key=lambda one: (one.deadline, one.key)):
            if due.run_at > self.now:
                continue
            before = (due.status, due.run_at)
            moved = self._fire(due)
            if due.is_unfinished:  # nobody asked for it: what waits goes on waiting
                due.status, due.run_at = before
            if moved:
                return "transitioned" if row.outcome == "transitioned" else "recorded"
        return "recorded"

    # Events

    def event(
        self, key: Key, event: str, given: datetime | None, event_id: str | None = None, mail: int | None = None
    ) -> str:
        """A real event, about the mail of that visit or the newest; returns its outcome."""
        walk = self.walks.get(key)
        at = min(given or self.now, self.now)
        if walk is not None and mail is None:
            mail = walk.mail_visit if walk.sent_visit is None else walk.sent_visit
        about = mail or (0 if walk is None else walk.visit)
        name = (key[0], event_id or f"{key[1]} {about} {event} {given or self.now}")
        if name in self.events:
            _, known_at, known = self.events[name]
            if known != "unknown_campaign" or walk is None:
                return "duplicate" if known != "unknown_campaign" else known
            at = known_at
        if walk is None:
            self.events[name] = (event, at, "unknown_campaign")
            return "unknown_campaign"
        if walk.is_finished and about >= walk.first_visit:
            walk.missed.append((self.now, name, event, at, mail))
        return self._happen(key, walk, name, event, at, mail)

    def _happen(self, key: Key, walk: Walk, name: Key, event: str, at: datetime, mail: int | None) -> str:
        outcome = self._take(key, walk, event, at, mail)
        self.events[name] = (event, at, outcome)
        if event == "unsubscribed":
            self._suppress((key[0], walk.contact), key, event, at)
        return outcome

    def _take(self, key: Key, walk: Walk, event: str, at: datetime, mail: int | None) -> str:
        if walk.is_finished:
            return "ignored"
        if event in MAIL_EVENTS and self._is_late(walk, event, mail):
            return "late"
        if any((event, counted, at) in walk.used for counted in _evidence(event)):
            return "duplicate"
        edge = self._wanted_edge(walk, event, at)
        if edge is not None:
            self._use(walk, event, at, edge["on"])
            steps = len(walk.history)
            self._go(key, walk.node, edge["to"], edge["on"], at)
            return "transitioned" if len(walk.history) > steps else "recorded"
        if event in EXITS:
            self._stop(key, event, at)
            return "transitioned"
        walk.recorded[event] = min(at, walk.recorded.get(event, at))
        self._answer(key, walk, event, at)
        return "recorded"

    @staticmethod
    def _is_late(walk: Walk, event: str, mail: int | None) -> bool:
        is_of_before = mail is not None and mail < walk.first_visit
        is_of_another = walk.mail_visit is not None and mail != walk.mail_visit
        return is_of_before or is_of_another or any(COUNTERS[fired] == event for fired in walk.fired)

    @staticmethod
    def _use(walk: Walk, event: str, at: datetime, counted_as: str) -> None:
        walk.used.add((event, counted_as, at))
        if counted_as != event:  # a click that counts as an open is still a click
            walk.recorded[event] = min(at, walk.recorded.get(event, at))
        elif walk.recorded.get(event) == at:
            del walk.recorded[event]

    def _answer(self, key: Key, walk: Walk, event: str, at: datetime) -> None:
        """The event cancels the timeouts it answers, unless its own transitions are all that is left to wait for."""
        for row in self.of_campaign(key):
            is_timer = row.visit == walk.visit and row.kind == "timeout" and row.event in _timers(_node(walk))
            counter = COUNTERS.get(row.event)
            is_answer = counter in _evidence(event) and not _has_edges(_node(walk), counter, event)
            if is_timer and is_answer and row.deadline >= at:
                row.end("canceled", "event happened")

    def _wanted_edge(self, walk: Walk, event: str, at: datetime) -> Edge | None:
        assert walk.anchor is not None
        for counted in _evidence(event):
            is_over = any(COUNTERS[fired] == counted for fired in walk.fired) or (event, counted, at) in walk.used
            if counted != event and is_over:
                continue
            edges: list[Edge] = _node(walk)["transitions"]
            for edge in edges:
                if edge["on"] == counted and _holds(edge, at, walk.anchor):
                    return edge
        return None

    def _recorded_edge(self, walk: Walk) -> tuple[Edge, str, datetime] | None:
        for event, at in sorted(walk.recorded.items(), key=lambda item: (item[1], item[0])):
            edge = self._wanted_edge(walk, event, at)
            if edge is not None:
                return edge, event, at
        return None

    def _suppress(self, contact: Key, spared: Key, why: str, at: datetime) -> None:
        self.suppressed.add(contact)
        for key, walk in self.walks.items():
            if (key[0], walk.contact) == contact and key != spared and not walk.is_finished:
                self._stop(key, why, at)

    # Mails

    def take_sends(self, tenant: str) -> list[str]:
        """The keys of the due sends, which are claimed then."""
        for row in self.rows.values():
            if row.kind == "send" and row.status == "claimed":
                row.status = "pending"
        taken = []
        for row in self.due("send"):
            if row.tenant != tenant or not row.is_unfinished:
                continue
            if self._is_held(tenant):
                row.status = "paused"
            elif (tenant, self.walks[row.owner].contact) in self.suppressed:
                self._stop(row.owner, "suppressed", self.now)
            else:
                row.status = "claimed"
                taken.append(row.key)
        return sorted(taken)

    def confirm_send(self, job_id: str, sent_at: datetime, message: str) -> None:
        """A mail went out: the anchor and the visit's timeouts move to that instant."""
        row = self.rows[job_id]
        if row.sent_at is not None:
            return
        row.message, row.sent_at = message, min(sent_at, self.now)
        if row.is_unfinished:
            row.end("completed", "sent")
        walk = self.walks[row.owner]
        if row.visit < walk.first_visit:
            return
        walk.sent_visit = max(row.visit, walk.sent_visit or 0)
        if walk.is_finished or row.visit != walk.visit:
            return
        walk.anchor = row.sent_at
        known = self._recorded_edge(walk)
        if known is not None:
            edge, event, at = known
            self._use(walk, event, at, edge["on"])
            self._go(row.owner, walk.node, edge["to"], edge["on"], at)
            return
        timers = _timers(_node(walk))
        for one in self.of_campaign(row.owner):
            if one.visit == walk.visit and one.kind == "timeout" and one.event in timers:
                one.deadline = one.run_at = row.sent_at + _span(timers[one.event]["after"])

    def fail_send(self, job_id: str, after: timedelta | None) -> bool:
        """An attempt failed: another one follows `after`, or none."""
        row = self.rows[job_id]
        is_due = row.status == "pending" and row.run_at <= self.now and not self._is_held(row.tenant)
        if not is_due and row.status != "claimed":
            return False
        row.attempts += 1
        if after is not None and row.attempts < self.most_attempts:
            row.status, row.run_at = "pending", self.now + after
            return True
        row.end("error", "failed")
        walk = self.walks[row.owner]
        assert walk.anchor is not None
        for edge in _node(walk)["transitions"]:
            if edge["on"] == "send_failed" and _holds(edge, self.now, walk.anchor):
                self._go(row.owner, walk.node, edge["to"], "send_failed", self.now)
                return True
        self._end(row.owner, "error", "campaign ended")
        return True

    # By hand

    def schedule(self, key: Key, node: str, visit: int, event: str, at: datetime) -> None:
        """A timeout of one's own; one that exists stays as it is."""
        self._add(key, node, visit, "timeout", event, at, "pending")

    def reschedule(self, job_id: str, at: datetime) -> bool:
        """Pending and paused actions can be moved."""
        row = self.rows[job_id]
        if row.status not in ("pending", "paused"):
            return False
        row.run_at = row.deadline = at
        return True

    def retry(self, job_id: str) -> bool:
        """A send in error is tried again, unless its visit was left or its mail went out; its campaign goes on."""
        row, walk = self.rows[job_id], self.walks[self.rows[job_id].owner]
        is_over = walk.status in ("completed", "stopped") or row.visit != walk.visit
        if row.status != "error" or is_over or not walk.awaits_mail:
            return False
        row.status, row.outcome, row.attempts, row.run_at = "pending", None, 0, self.now
        if walk.status == "error":
            walk.status = "active"
            for key in walk.ended:
                self.rows[key].status, self.rows[key].outcome = "pending", None
            missed, walk.missed = sorted(walk.missed), []
            for _, name, event, at, mail in missed:
                self._happen(row.owner, walk, name, event, at, mail)
        return True

    def cancel(self, job_id: str, why: str) -> bool:
        """One action."""
        row = self.rows[job_id]
        if not row.is_unfinished:
            return False
        row.end("canceled", why)
        return True

    def cancel_campaign(self, key: Key) -> int:
        """All actions of a campaign, which goes on."""
        return self._cancel(key, "campaign canceled")

    def stop(self, key: Key) -> None:
        """The campaign is over."""
        self.pauses.pop(key, None)
        if not self.walks[key].is_finished:
            self._stop(key, "stopped", self.now)

    def _stop(self, key: Key, trigger: str, at: datetime) -> None:
        walk = self.walks[key]
        walk.history.append((walk.visit, walk.node, "stop", trigger, at))
        walk.node, walk.visit = "stop", walk.visit + 1
        walk.entered_at = walk.anchor = self.now
        self._end(key, "stopped", "visit left")

    # Pauses: of a campaign, of a tenant (no campaign), of everything (neither)

    def pause(self, scope: Key) -> None:
        """What it holds doesn't fire; one that is paused stays so."""
        if scope[1]:
            walk = self.walks[scope]
            if walk.status != "active":
                return
            walk.status = "paused"
            for row in self.of_campaign(scope):
                row.status = "paused"
        self.pauses.setdefault(scope, self.now)

    def resume(self, scope: Key, policy: str, spread: timedelta | None) -> None:
        """The pause is lifted: with `shift` it doesn't count; `spread` is over how long to fire what is due."""
        if scope not in self.pauses:
            return
        rows = [row for row in self.rows.values() if row.is_unfinished and _covers(scope, row.owner)]
        walks = {key: walk for key, walk in self.walks.items() if _covers(scope, key) and not walk.is_finished}
        if scope[1]:
            self.walks[scope].status = "active"
        if policy == "shift":
            lengths = {key: self._length(scope, key, walk) for key, walk in walks.items()}
            for row in rows:
                length = lengths[row.owner] if row.owner in lengths else self._length_alone(scope, row)
                row.deadline += length
                row.run_at += length
            for key, walk in walks.items():
                assert walk.anchor is not None
                walk.anchor += lengths[key]
        if spread is not None:
            self._spread(scope, rows, spread)
        del self.pauses[scope]
        for row in rows:
            is_stuck = row.status == "paused" or (row.status == "claimed" and row.kind == "timeout")
            if is_stuck and not self._is_paused(row.owner):
                row.status = "pending"

    def _is_paused(self, key: Key) -> bool:
        return key in self.walks and self.walks[key].status == "paused"

    def _others(self, scope: Key, key: Key) -> list[datetime]:
        """When the other pauses that hold the campaign began."""
        holding = {EVERYTHING, (key[0], ""), *([key] if self._is_paused(key) else [])}
        return [began for one, began in self.pauses.items() if one in holding - {scope}]

    def _length(self, scope: Key, key: Key, walk: Walk) -> timedelta:
        """How much of the pause the visit saw that no other pause goes on counting."""
        counts_from = walk.entered_at if walk.awaits_mail else walk.anchor
        assert counts_from is not None
        return self._seen(scope, counts_from, self._others(scope, key))

    def _length_alone(self, scope: Key, row: Row) -> timedelta:
        return self._seen(scope, row.created_at, [began for one, began in self._wider(scope, row.tenant)])

    def _wider(self, scope: Key, tenant: str) -> Iterator[tuple[Key, datetime]]:
        for one in (EVERYTHING, (tenant, "")):
            if one in self.pauses and one != scope:
                yield one, self.pauses[one]

    def _seen(self, scope: Key, counts_from: datetime, others: list[datetime]) -> timedelta:
        until = min([self.now, *others])
        since = max(self.pauses[scope], min(self.now, counts_from))
        return max(until - since, timedelta(0))

    def _spread(self, scope: Key, rows: list[Row], spread: timedelta) -> None:
        """What would be due at once is due one after the other, in its order."""
        held = {row.key for row in rows if any(self._wider(scope, row.tenant)) or self._is_paused(row.owner)}
        flood = [row for row in rows if row.key not in held and row.run_at <= self.now]
        for place, row in enumerate(sorted(flood, key=lambda one: (one.run_at, one.tenant, one.key))):
            row.run_at = self.now + spread * place // len(flood)

    # What there is to compare

    def picture(self) -> dict[str, Any]:
        """Everything that can be seen."""
        return {
            "campaigns": {
                key: (walk.status, walk.node, walk.visit, walk.anchor, walk.sent_visit)
                for key, walk in self.walks.items()
            },
            "history": {key: walk.history for key, walk in self.walks.items()},
            "actions": {
                row.key: (row.status, row.outcome, row.deadline, row.run_at, row.message) for row in self.rows.values()
            },
            "events": Counter((tenant, event, outcome) for (tenant, _), (event, _, outcome) in self.events.items()),
            "pauses": dict(self.pauses),
        }


def _node(walk: Walk) -> Mapping[str, Any]:
    (found,) = [node for node in walk.plan["nodes"] if node["id"] == walk.node]
    return dict(found)


def _timers(node: Mapping[str, Any]) -> dict[str, Edge]:
    return {edge["on"]: edge for edge in node["transitions"] if edge["on"] in COUNTERS}


def _holds(edge: Edge, at: datetime, anchor: datetime) -> bool:
    after, within = _span(edge.get("after", "PT0M")), edge.get("within")
    is_not_early = not after or at >= anchor + after
    return is_not_early and (within is None or at <= anchor + _span(within))


def _span(text: str) -> timedelta:
    return timedelta(minutes=int(text.removeprefix("PT").removesuffix("M")))


def _evidence(event: str) -> tuple[str, ...]:
    """Who clicked has opened."""
    return ("clicked", "opened") if event == "clicked" else (event,)


def _has_edges(node: Mapping[str, Any], *events: str | None) -> bool:
    return any(edge["on"] in events for edge in node["transitions"])


def _covers(scope: Key, key: Key) -> bool:
    return scope in (EVERYTHING, (key[0], ""), key)
