"""Whatever is done to the scheduler, in whatever order, whenever its process dies: it does what a simple model does.

Hypothesis draws schedules, cancels, events, pauses, clock steps, deaths and restarts, on both databases, and compares
everything that can be seen after each step. The suite draws the same few examples each time. To look for new faults,
let it draw more, from another number on (a round is 10 examples):

    STATEFUL_ROUNDS=100 STATEFUL_FIRST_ROUND=1000 pytest tests/integration/test_stateful.py

The steps that fail are printed; with STATEFUL_SHRINK=1 fewer of them, after some minutes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial, wraps
from pprint import pformat
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, delete, select, text

from scheduler import InvalidInputError, TimeoutJob, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.dying import Died, Mortal
from tests.support.eventually import eventually
from tests.support.model import EVERYTHING, Key, Model, RefusedError
from tests.support.scheduling import make_settings
from tests.support.walk import NOON, make_document, on, send, wait

Answer = TypeVar("Answer")

_OPEN_TRANSACTIONS: Final = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND backend_type = 'client backend'"
    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
)

# PostgreSQL takes twice as long for one.
ROUNDS: Final = {name: int(os.environ.get("STATEFUL_ROUNDS", few)) for name, few in (("sqlite", 3), ("postgresql", 2))}
FIRST_ROUND: Final = int(os.environ.get("STATEFUL_FIRST_ROUND", "1"))
# Hypothesis makes more examples than these out of the first ones, which brings less than fresh ones.
EXAMPLES: Final = 10
STEPS: Final = 40

SETTINGS: Final = make_settings(max_attempts=2)
OVER: Final = timedelta(microseconds=1)
DEAD_OWNER: Final = "host:1:dead"

LOOP: Final = make_document(
    wait(
        "look",
        on("opened", "read", within="PT30M"),
        on("no_open", "nudge", after="PT60M"),
        on("no_reply", "read", after="PT90M"),
    ),
    wait(
        "nudge",
        on("replied", "farewell", after="PT0M"),
        on("opened", "look", after="PT10M"),
        on("no_click", "look", after="PT30M"),
    ),
    wait(
        "read",
        on("unsubscribed", "farewell"),
        on("no_click", "nudge", after="PT20M"),
        on("no_reply", "farewell", after="PT60M"),
    ),
    wait("farewell", on("replied", "look"), on("no_reply", "stop", after="PT30M")),
    maxTransitions=9,
)
MAILS: Final = make_document(
    send(
        "intro",
        on("opened", "visit", within="PT60M"),
        on("bounced", "stop"),
        on("no_open", "bump", after="PT60M"),
        delay="PT10M",
    ),
    wait("visit", on("clicked", "stop", within="PT60M"), on("replied", "bump"), on("no_click", "bump", after="PT60M")),
    send(
        "bump",
        on("clicked", "visit", after="PT10M"),
        on("send_failed", "visit"),
        on("unsubscribed", "intro"),
        on("no_open", "intro", after="PT30M"),
        on("no_reply", "stop", after="PT90M"),
    ),
)
PLANS: Final = {"loop": LOOP, "mails": MAILS}
CONTACTS: Final = {"c-1": "k-1", "c-2": "k-1", "c-3": "k-2"}

# Much happens to few: the first of each is drawn more often.
TENANTS: Final = st.sampled_from(["acme", "acme", "acme", "bolt"])
CAMPAIGNS: Final = st.sampled_from(
    [*[("acme", "c-1")] * 4, *[("acme", "c-3")] * 4, ("acme", "c-2"), ("bolt", "c-1"), ("bolt", "c-3")]
)
SCOPES: Final = st.sampled_from(
    [("acme", "c-1"), ("acme", "c-3"), ("acme", ""), ("acme", "c-1"), EVERYTHING, ("acme", ""), ("bolt", "c-1")]
)
EVENTS: Final = st.sampled_from(
    ["opened", "clicked", "replied", "opened", "clicked", "replied", "delivered", "bounced", "unsubscribed"]
)
SYNTHETIC: Final = st.sampled_from(["no_open", "no_click", "no_reply"])
OFFSETS: Final = st.sampled_from([timedelta(minutes=minutes) for minutes in (0, -10, -30, -60, 10, 30, 60, 90, 1440)])
WISHES: Final = st.tuples(
    st.sampled_from([1, 0, 0, 1, 2, -1]),
    st.sampled_from([0, 0, 1, 2, 3, 4]),
    SYNTHETIC,
    st.sampled_from([timedelta(minutes=minutes) for minutes in (90, 60, 30, 90, 0, -10)]),
)
STEPS_OF_TIME: Final = st.sampled_from([timedelta(minutes=minutes) for minutes in (10, 30, 60, 0, 20, 90, -10, 1440)])
PACES: Final = st.sampled_from(
    [(timedelta(minutes=minutes), False) for minutes in (0, 0, 0, 20, 30, 60)]
    + [(timedelta(minutes=minutes), True) for minutes in (0, 10, 30, 60, 90, 240, 240)]
)
REACTIONS: Final = st.none() | st.tuples(
    CAMPAIGNS, st.integers(0, 5), st.sampled_from(["now", "now", "before", "at a deadline"])
)
STEPS_TO_DEATH: Final = st.integers(0, 12)
PLACES: Final = st.integers(0, 30)
FATES: Final = st.sampled_from(["sent", "sent", "sent", "sent", "again", "forgotten", "failed"])


Act = Callable[..., None]
Reaction = tuple[Key, int, str]


def step(**drawn: Any) -> Callable[[Act], Any]:
    """A rule, what a contact does then, and the time that passes: nothing comes of most things before it is time."""

    def make(act: Act) -> Any:
        @rule(pace=PACES, reaction=REACTIONS, **drawn)
        @wraps(act)
        def act_and_go_on(
            self: StoreAgainstModel, pace: tuple[timedelta, bool], reaction: Reaction | None, **given: Any
        ) -> None:
            act(self, **given)
            if reaction is not None:
                self.react(*reaction)
            length, is_run = pace
            self.let_time_pass(length)
            if is_run:
                self._run_due()

        return act_and_go_on

    return make


class Process:
    """One scheduler after the other, on one engine and one clock."""

    def __init__(self, engine: Engine) -> None:
        self.mortal = Mortal(engine)
        self.clock = SettableClock(NOON)
        self.begin()

    def begin(self) -> None:
        """The one before leaves nothing but what is in the database."""
        self.mortal.begin()
        self.scheduler = TimeoutScheduler(engine=self.mortal.engine, clock=self.clock, settings=SETTINGS)


class StoreAgainstModel(RuleBasedStateMachine):
    """The real scheduler and the model, told the same things. The observer looks at the database from outside."""

    def __init__(self, observer: TimeoutScheduler, process: Process) -> None:
        super().__init__()
        self.observer = observer
        self.process = process
        process.clock.set(NOON)
        self.model = Model(NOON, SETTINGS.poll_interval, SETTINGS.max_attempts)
        self.fired_in_background = False
        self.has_died = False
        _empty(observer)

    def teardown(self) -> None:
        """The public door tells the same histories as the tables."""
        self.process.mortal.spare()
        for key, walk in self.model.walks.items():
            steps = self.ts.campaigns.history(*key)
            told = [(one.node_visit, one.from_node_id, one.to_node_id, one.trigger, one.occurred_at) for one in steps]
            assert told == walk.history

    # The process

    @property
    def ts(self) -> TimeoutScheduler:
        """The scheduler of the process that lives now."""
        return self.process.scheduler

    def _call(self, work: Callable[[TimeoutScheduler], Answer]) -> Answer:
        """Let the process do it. Where it dies over it, whoever asked it asks the next one."""
        self.has_died = False
        try:
            return work(self.ts)
        except Died:
            self.process.mortal.spare()
            self.process.begin()
            eventually(self._is_rolled_back)
            self.has_died = True
            return work(self.ts)
        finally:
            self.process.mortal.spare()

    def _expect(self, answer: object, expected: object, *, if_died: object) -> None:
        """The second process may find everything done."""
        assert answer == expected or (self.has_died and answer == if_died)

    @rule(
        trouble=st.sampled_from(["dies", "dies", "dies", "loses an answer", "claims and dies", "restarts"]),
        after=STEPS_TO_DEATH,
    )
    def trouble(self, trouble: str, after: int) -> None:
        """What becomes of processes. One that is to die does so over what it is asked next, if that takes so long."""
        self.process.mortal.spare()
        if trouble == "dies":
            self.process.mortal.die_before(after)
        elif trouble == "loses an answer":
            self.process.mortal.die_after(after % 2)
        elif trouble == "restarts":
            self.ts.close()
            self.process.begin()
        else:
            self._claim_and_die()

    def _claim_and_die(self) -> None:
        """What is due was claimed by a process that is dead, and its claims are over."""
        with self.observer.database.transaction() as transaction:
            self.observer.stores.claims.claim(transaction, ActionType.TIMEOUT, 500, DEAD_OWNER, -OVER)
        self.model.claim_due()

    # Time

    @rule(length=STEPS_OF_TIME)
    def let_time_pass(self, length: timedelta) -> None:
        """The clock is set, forwards or backwards."""
        self.model.now += length
        self.process.clock.set(self.model.now)

    def _run_due(self) -> None:
        """All that is due fires, in this thread."""
        if self.model.has_claims():  # a process that has just looked for claims that are over doesn't look again
            self.process.begin()
        ended = self._call(lambda ts: ts.run_due())
        expected = self.model.run_due()
        assert ended == expected or self.has_died
        assert not self._has_claims()

    @precondition(lambda self: not self.fired_in_background)
    @rule()
    def run_in_background(self) -> None:
        """All that is due fires, in the threads of APScheduler."""
        self.process.mortal.spare()
        self.fired_in_background = True
        self.model.run_due()
        expected = self.model.picture()
        self.ts.start()
        try:
            eventually(lambda: self._picture() == expected, timeout=20)
        except AssertionError:
            _compare(self._picture(), expected)
            raise
        finally:
            self.ts.shutdown()

    # Campaigns

    @initialize()
    def begin(self) -> None:
        """There is a campaign of each kind, and one of the other tenant."""
        self._enroll(("acme", "c-1"), "loop", restart=False)
        self._enroll(("acme", "c-3"), "mails", restart=False)
        self._enroll(("bolt", "c-1"), "loop", restart=False)

    @step(key=CAMPAIGNS, plan=st.sampled_from(sorted(PLANS)), restart=st.sampled_from([True, True, False]))
    def enroll(self, key: Key, plan: str, restart: bool) -> None:  # noqa: FBT001 - Hypothesis gives it by name
        """Perhaps again."""
        self._enroll(key, plan, restart=restart)

    def _enroll(self, key: Key, plan: str, *, restart: bool) -> None:
        contact = CONTACTS[key[1]]
        self._agree(
            lambda ts: ts.campaigns.enroll(*key, contact, PLANS[plan], restart=restart),
            lambda: self.model.enroll(key, contact, PLANS[plan], restart=restart),
        )

    def react(self, key: Key, place: int, when: str) -> None:
        """The contact does what its node waits for, or something else."""
        walk = self.model.walks.get(key)
        if walk is not None:
            events = [*walk.real_events, "clicked", "replied"]
            over = [
                row.deadline - self.model.now for row in self.model.of_campaign(key) if row.deadline <= self.model.now
            ]
            ago = {
                "now": timedelta(0),
                "before": timedelta(minutes=-10),
                "at a deadline": max(over, default=timedelta(0)),
            }
            self._process_event(key, events[place % len(events)], ago[when], None, None)

    @step(
        key=CAMPAIGNS,
        event=EVENTS,
        offset=st.none() | OFFSETS,
        number=st.none() | st.integers(1, 2),
        of_mail=st.none() | PLACES,
    )
    def process_event(
        self, key: Key, event: str, offset: timedelta | None, number: int | None, of_mail: int | None
    ) -> None:
        """Now, before or later; new or known; about the newest mail or another one."""
        self._process_event(key, event, offset, number, of_mail)

    def _process_event(
        self, key: Key, event: str, offset: timedelta | None, number: int | None, of_mail: int | None
    ) -> None:
        sent = [] if of_mail is None else [row for row in self.model.rows.values() if row.owner == key and row.message]
        mail = sent[(of_mail or 0) % len(sent)] if sent else None
        is_in_error = key in self.model.walks and self.model.walks[key].status == "error"
        if number is None and (mail is not None or is_in_error or self.process.mortal.is_doomed):
            number = 3  # what comes at one instant is taken in the order of its ids once the campaign goes on
        event_id = None if number is None else f"{event} {key[1]} {number}"
        occurred_at = None if offset is None else self.model.now + offset
        result = self._call(
            lambda ts: ts.campaigns.process_event(
                key[0],
                event,
                message_id=None if mail is None else mail.message,
                campaign_id=key[1],
                occurred_at=occurred_at,
                event_id=event_id,
            )
        )
        expected = self.model.event(key, event, occurred_at, event_id, None if mail is None else mail.visit)
        self._expect(result.outcome, expected, if_died="duplicate")

    @step(key=CAMPAIGNS, event=SYNTHETIC)
    def process_synthetic_event(self, key: Key, event: str) -> None:
        """A timeout fires by hand, not before its time."""
        self.process.mortal.spare()  # asked again, the next visit's would be meant
        self._agree(
            lambda ts: ts.campaigns.process_event(key[0], event, campaign_id=key[1]).outcome,
            lambda: self.model.fire_by_hand(key, event),
        )

    def _agree(self, work: Callable[[TimeoutScheduler], object], told: Callable[[], object]) -> None:
        """Both refuse it, or neither does."""
        try:
            answer = self._call(work)
        except InvalidInputError:
            answer = RefusedError
        try:
            expected = told()
        except RefusedError:
            expected = RefusedError
        assert answer == expected or (expected is None and answer is not RefusedError)

    # Pauses

    @step(scope=SCOPES)
    def pause(self, scope: Key) -> None:
        """A campaign, a tenant, or everything."""
        if scope[1] and scope not in self.model.walks:
            return
        self._call(partial(_pause, scope))
        self.model.pause(scope)

    @precondition(lambda self: self.model.pauses)
    @step(
        place=PLACES,
        policy=st.sampled_from(["shift", "shift", "keep"]),
        spread=st.sampled_from([None, timedelta(minutes=20)]),
    )
    def resume(self, place: int, policy: str, spread: timedelta | None) -> None:
        """One of the pauses is lifted."""
        scopes = sorted(self.model.pauses)
        scope = scopes[place % len(scopes)]
        self._call(partial(_resume, scope, policy=policy, spread=spread))
        self.model.resume(scope, policy, spread)

    # Mails

    @step(tenant=TENANTS, fates=st.lists(FATES, min_size=3, max_size=3), offset=OFFSETS)
    def send_mails(self, tenant: str, fates: list[str], offset: timedelta) -> None:
        """The application takes what is due, and sends it, or not; what it forgets is due again."""
        taken = self._call(lambda ts: ts.campaigns.take_sends(tenant_id=tenant, lease=OVER))
        keys = sorted(request.dedupe_key for request in taken)
        assert keys == self.model.take_sends(tenant)
        for key, fate in zip(keys, fates, strict=False):
            self._tell(key, fate, self.model.now + offset)

    @precondition(lambda self: self._keys("send"))
    @step(place=PLACES, offset=OFFSETS, fate=FATES)
    def tell_of_a_mail(self, place: int, offset: timedelta, fate: str) -> None:
        """A mail went out, or didn't, whatever became of its send since."""
        keys = self._keys("send")
        self._tell(keys[place % len(keys)], fate, self.model.now + offset)

    def _tell(self, key: str, fate: str, sent_at: datetime) -> None:
        if fate == "sent":
            self._confirm(key, sent_at)
        elif fate != "forgotten":
            self._fail(key, timedelta(minutes=10) if fate == "again" else None)

    def _confirm(self, key: str, sent_at: datetime) -> None:
        assert self._call(lambda ts: ts.campaigns.confirm_send(key, sent_at, f"mail of {key}"))
        self.model.confirm_send(key, sent_at, f"mail of {key}")

    def _fail(self, key: str, after: timedelta | None) -> None:
        is_last = after is None
        answer = self._call(lambda ts: ts.campaigns.fail_send(key, "no route", retry_after=after, permanent=is_last))
        self._expect(answer, self.model.fail_send(key, after), if_died=False)

    # By hand

    @step(key=CAMPAIGNS, wishes=st.lists(WISHES, min_size=1, max_size=3))
    def schedule(self, key: Key, wishes: list[tuple[int, int, str, timedelta]]) -> None:
        """Timeouts of the visit, of one that is over, or of one to come; or of a campaign that nobody knows."""
        jobs = [self._make_job(key, *wish) for wish in wishes]
        if len(jobs) == 1:
            assert self._call(lambda ts: ts.schedule(jobs[0])) == jobs[0].dedupe_key
        else:
            self._call(lambda ts: ts.schedule_many(jobs))
        for job in sorted(jobs, key=lambda one: one.dedupe_key):
            self.model.schedule(key, job.node_id, job.node_visit, job.event_type, job.scheduled_at)

    def _make_job(self, key: Key, ahead: int, place: int, event: str, offset: timedelta) -> TimeoutJob:
        walk = self.model.walks.get(key)
        nodes = ["look"] if walk is None else [walk.node, *(one["id"] for one in walk.plan["nodes"])]
        return TimeoutJob(
            tenant_id=key[0],
            campaign_id=key[1],
            contact_id=CONTACTS[key[1]],
            node_id=nodes[place % len(nodes) if ahead else 0],
            event_type=event,
            scheduled_at=self.model.now + offset,
            node_visit=max(1, ahead + (1 if walk is None else walk.visit)),
        )

    @precondition(lambda self: self._keys())
    @step(place=PLACES, offset=OFFSETS)
    def reschedule(self, place: int, offset: timedelta) -> None:
        """An action moves, if it still can."""
        keys = self._keys()
        key, at = keys[place % len(keys)], self.model.now + offset
        assert self._call(lambda ts: ts.reschedule(key, at)) == self.model.reschedule(key, at)

    @precondition(lambda self: self._keys())
    @step(place=PLACES, what=st.sampled_from(["action", "action", "action", "actions", "campaign"]))
    def give_up(self, place: int, what: str) -> None:
        """An action is canceled, if it still can be; or all of its campaign; or the campaign is stopped."""
        keys = self._keys()
        row = self.model.rows[keys[place % len(keys)]]
        if what == "action":
            canceled = self._call(lambda ts: ts.cancel(row.key, "by hand"))
            self._expect(canceled, self.model.cancel(row.key, "by hand"), if_died=False)
        elif what == "actions":
            count = self._call(lambda ts: ts.cancel_campaign(*row.owner))
            self._expect(count, self.model.cancel_campaign(row.owner), if_died=0)
        elif row.owner in self.model.walks:
            self._call(lambda ts: ts.campaigns.stop(*row.owner))
            self.model.stop(row.owner)

    @precondition(lambda self: self._failed())
    @step(place=PLACES)
    def retry(self, place: int) -> None:
        """A send that failed for good is tried again, where that makes sense."""
        keys = self._failed()
        self._retry(keys[place % len(keys)])

    @precondition(lambda self: self._unsent())
    @step(place=PLACES, meanwhile=st.lists(REACTIONS, max_size=2), length=STEPS_OF_TIME)
    def fail_and_retry(self, place: int, meanwhile: list[Reaction | None], length: timedelta) -> None:
        """A mail that waits can't go out, something happens, and it is tried again."""
        keys = self._unsent()
        key = keys[place % len(keys)]
        self._fail(key, None)
        for reaction in filter(None, meanwhile):
            self.react(*reaction)
        self.let_time_pass(length)
        self._retry(key)

    def _retry(self, key: str) -> None:
        self._expect(self._call(lambda ts: ts.retry(key)), self.model.retry(key), if_died=False)

    def _unsent(self) -> list[str]:
        return sorted(key for key, row in self.model.rows.items() if row.kind == "send" and row.is_unfinished)

    def _failed(self) -> list[str]:
        return sorted(key for key, row in self.model.rows.items() if row.status == "error")

    # What must be true after each step

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        """Campaigns, histories, actions, events and pauses, of all tenants; and each visit is left once."""
        store = self._picture()
        _compare(store, self.model.picture())
        for steps in store["history"].values():
            assert [step[0] for step in steps] == list(range(len(steps)))
        assert all(row[1] for row in store["actions"].values() if row[0] in ("completed", "canceled"))

    def _keys(self, kind: str | None = None) -> list[str]:
        return sorted(key for key, row in self.model.rows.items() if kind in (None, row.kind))

    def _is_rolled_back(self) -> bool:
        """Whether the server has noticed that who had a transaction open is gone."""
        if not self.observer.database.is_postgresql:
            return True
        with self.observer.database.engine.connect() as connection:
            return not connection.execute(_OPEN_TRANSACTIONS).scalar_one()

    def _has_claims(self) -> bool:
        actions = self.observer.database.tables.scheduled_actions.c
        with self.observer.database.engine.connect() as connection:
            return connection.execute(select(actions.status).where(actions.status == "claimed")).first() is not None

    def _picture(self) -> dict[str, Any]:
        return _read_picture(self.observer)


def _compare(store: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Both are the same; else what isn't is told in full."""
    found = {}
    for name, parts in model.items():
        for key in parts.keys() | store[name].keys():
            if parts.get(key) != store[name].get(key):
                found[f"{name} {key}"] = {"store": store[name].get(key), "model": parts.get(key)}
    assert not found, pformat(found, width=150)


def _read_picture(ts: TimeoutScheduler) -> dict[str, Any]:
    """What `Model.picture` says, from the tables."""
    tables = ts.database.tables
    campaigns, steps, actions = tables.contact_campaigns.c, tables.campaign_transitions.c, tables.scheduled_actions.c
    events, pauses = tables.campaign_events.c, tables.pauses.c
    with ts.database.engine.connect() as connection:
        rows = connection.execute(
            select(
                campaigns.tenant_id,
                campaigns.campaign_id,
                campaigns.status,
                campaigns.current_node_id,
                campaigns.node_visit,
                campaigns.anchor_at,
                campaigns.sent_visit,
            )
        )
        walks = {(row[0], row[1]): tuple(row[2:]) for row in rows}
        history: dict[Key, list[tuple[Any, ...]]] = {key: [] for key in walks}
        rows = connection.execute(
            select(
                steps.tenant_id,
                steps.campaign_id,
                steps.node_visit,
                steps.from_node_id,
                steps.to_node_id,
                steps.trigger,
                steps.occurred_at,
            ).order_by(steps.node_visit)
        )
        for row in rows:
            history[row[0], row[1]].append(tuple(row[2:]))
        rows = connection.execute(
            select(
                actions.dedupe_key,
                actions.status,
                actions.outcome,
                actions.deadline,
                actions.run_at,
                actions.message_id,
            )
        )
        return {
            "campaigns": walks,
            "history": history,
            "actions": {row[0]: tuple(row[1:]) for row in rows},
            "events": Counter(
                tuple(row) for row in connection.execute(select(events.tenant_id, events.event_type, events.outcome))
            ),
            "pauses": {
                (row[0], row[1]): row[2]
                for row in connection.execute(select(pauses.tenant_id, pauses.campaign_id, pauses.started_at))
            },
        }


def _pause(scope: Key, ts: TimeoutScheduler) -> object:
    if scope == EVERYTHING:
        return ts.campaigns.pause_all()
    return ts.campaigns.pause(*scope) if scope[1] else ts.campaigns.pause_tenant(scope[0])


def _resume(scope: Key, ts: TimeoutScheduler, **how: Any) -> object:
    if scope == EVERYTHING:
        return ts.campaigns.resume_all(**how)
    return ts.campaigns.resume(*scope, **how) if scope[1] else ts.campaigns.resume_tenant(scope[0], **how)


def _empty(ts: TimeoutScheduler) -> None:
    """No rows of the example before; plans may stay."""
    tables = ts.database.tables
    with ts.database.engine.begin() as connection:
        for table in (
            tables.scheduled_actions,
            tables.campaign_transitions,
            tables.campaign_events,
            tables.pauses,
            tables.contact_campaigns,
            tables.contacts,
        ):
            connection.execute(delete(table))


def test_the_scheduler_does_what_the_model_does(database_url: str, open_scheduler: OpenScheduler) -> None:
    process = Process(open_scheduler(database_url, settings=SETTINGS).database.engine)
    observer = open_scheduler(database_url, clock=process.clock, settings=SETTINGS)
    drawn = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if "STATEFUL_SHRINK" in os.environ else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    class Example(StoreAgainstModel):
        def __init__(self) -> None:
            super().__init__(observer, process)

    for number in range(FIRST_ROUND, FIRST_ROUND + ROUNDS[process.mortal.engine.dialect.name]):
        run_state_machine_as_test(seed(number)(Example), settings=drawn)
