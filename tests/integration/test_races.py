"""Several threads and several schedulers at the same campaigns: each ends in exactly one legal history."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any, Final

import pytest
from sqlalchemy import Connection, event

from scheduler import ScheduledAction, SendRequest, SendResult, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.domain.errors import AlreadyRunningError, DatabaseUnavailableError
from scheduler.service.firing import Firing
from scheduler.service.owner import Owner
from scheduler.store.settlements import Completion
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import FAR_AHEAD, LONG_AGO, NOON, execute, make_job, make_jobs, make_settings, query
from tests.support.walk import make_document, on, send, wait

CAMPAIGNS: Final = 60
LEASE: Final = timedelta(minutes=1)
SEED: Final = 20260302
TWO_WAITS: Final = make_document(
    wait("first", on("opened", "stop"), on("no_open", "second", after="PT1H")),
    wait("second", on("opened", "stop"), on("no_open", "stop", after="PT1H")),
)
TWO_TIMEOUTS: Final = make_document(
    wait(
        "choice",
        on("replied", "stop"),
        on("no_click", "late", after="PT2H"),
        on("no_open", "early", after="PT1H"),
    ),
    wait("early", on("replied", "stop"), on("no_reply", "stop", after="PT99H")),
    wait("late", on("replied", "stop"), on("no_reply", "stop", after="PT99H")),
)
ONE_MAIL: Final = make_document(
    send("intro", on("opened", "read"), on("no_open", "reminded", after="PT1H")),
    wait("read", on("clicked", "stop"), on("no_click", "stop", after="PT99H")),
    wait("reminded", on("clicked", "stop"), on("no_click", "stop", after="PT99H")),
)

Work = Callable[[], Any]


def names(count: int = CAMPAIGNS) -> list[str]:
    return [f"c-{number:03}" for number in range(count)]


def enroll(scheduler: TimeoutScheduler, plan: Mapping[str, Any], count: int = CAMPAIGNS, **fields: Any) -> None:
    values: dict[str, Any] = {"tenant_id": "acme", "plan": plan, "start_at": LONG_AGO, **fields}
    scheduler.campaigns.enroll_many({**values, "campaign_id": name, "contact_id": name} for name in names(count))


def at_once(*works: Work) -> list[Any]:
    """Run all of them at the same moment, each in a thread of its own; raises what one of them raises."""
    barrier = threading.Barrier(len(works))

    def run(work: Work) -> Any:
        barrier.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


@contextmanager
def beside(work: Work) -> Iterator[threading.Thread]:
    """`work` goes on in another thread; it has ended when the block has."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def run_due_if_free(scheduler: TimeoutScheduler) -> int:
    """On SQLite one fires at a time, and another is told so."""
    try:
        return scheduler.run_due()
    except AlreadyRunningError:
        return 0


def claim(scheduler: TimeoutScheduler, owner: Owner, limit: int = 1, lease: timedelta = LEASE) -> list[ScheduledAction]:
    with scheduler.stores.database.transaction() as transaction:
        return scheduler.stores.claims.claim(transaction, ActionType.TIMEOUT, limit, owner.id, lease)


def firing_of(scheduler: TimeoutScheduler, owner: Owner) -> Firing:
    return Firing(scheduler.stores, scheduler.campaigns, scheduler.settings, scheduler.metrics, owner)


def histories(scheduler: TimeoutScheduler) -> dict[str, list[tuple[int, str | None, str, str]]]:
    rows = query(
        scheduler,
        "SELECT campaign_id, node_visit, from_node_id, to_node_id, trigger FROM campaign_transitions"
        " ORDER BY campaign_id, node_visit",
    )
    found: dict[str, list[tuple[int, str | None, str, str]]] = {}
    for campaign_id, *rest in rows:
        found.setdefault(campaign_id, []).append((rest[0], rest[1], rest[2], rest[3]))
    return found


def check_whole(scheduler: TimeoutScheduler) -> None:
    """Every visit was entered where the one before was left for, and pending is exactly what the last one needs."""
    pending = {
        (campaign_id, visit)
        for campaign_id, visit in query(
            scheduler,
            "SELECT campaign_id, node_visit FROM scheduled_actions WHERE status IN ('pending', 'claimed', 'paused')",
        )
    }
    alive = set()
    every_history = histories(scheduler)
    for campaign_id, status, node, visit in query(
        scheduler, "SELECT campaign_id, status, current_node_id, node_visit FROM contact_campaigns"
    ):
        history = every_history[campaign_id]
        assert [step[0] for step in history] == list(range(visit))
        assert history[-1][2] == node
        assert all(before[2] == after[1] for before, after in pairwise(history))
        if status in ("active", "paused"):
            alive.add((campaign_id, visit))
    assert pending == alive


def test_an_event_and_a_timeout_at_the_same_instant_leave_a_visit_once(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    schedulers = [open_scheduler(database_url) for _ in range(3)]
    enroll(schedulers[0], TWO_WAITS)
    shuffled = random.Random(SEED).sample(names(), CAMPAIGNS)  # noqa: S311 - a race, not a secret

    def deliver(part: Sequence[str]) -> list[str]:
        process = schedulers[0].campaigns.process_event
        return [process("acme", "opened", campaign_id=name).outcome for name in part]

    answers = at_once(
        lambda: deliver(shuffled[::2]),
        lambda: deliver(shuffled[1::2]),
        lambda: run_due_if_free(schedulers[1]),
        lambda: run_due_if_free(schedulers[2]),
    )

    check_whole(schedulers[0])
    won = Counter(answers[0] + answers[1])
    ways = Counter(tuple(step[3] for step in history) for history in histories(schedulers[0]).values())
    assert won["transitioned"] == ways[("enrolled", "opened")] + ways[("enrolled", "no_open", "opened")]
    assert sum(won.values()) == CAMPAIGNS


@pytest.mark.parametrize("wrong_order", [True, False])
def test_the_earliest_deadline_of_a_visit_decides_whoever_claimed_it(
    postgresql_url: str, open_scheduler: OpenScheduler, *, wrong_order: bool
) -> None:
    first, second = open_scheduler(postgresql_url), open_scheduler(postgresql_url)
    enroll(first, TWO_TIMEOUTS, count=1)
    mine, other = Owner("mine"), Owner("other")
    (no_open,), (no_click,) = claim(first, mine), claim(second, other)
    assert (no_open.event_type, no_click.event_type) == ("no_open", "no_click")

    claims = [(mine, no_open), (other, no_click)]
    for owner, action in reversed(claims) if wrong_order else claims:
        firing_of(first, owner).fire([action])

    assert histories(first)["c-000"] == [(0, None, "choice", "enrolled"), (1, "choice", "early", "no_open")]
    check_whole(first)
    found = [first.find(action.dedupe_key) for action in (no_open, no_click)]
    assert [(a.status, a.outcome) for a in found if a] == [("completed", "transitioned"), ("canceled", "visit left")]


def test_operators_and_timeouts_never_leave_a_campaign_half_done(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    schedulers = [open_scheduler(database_url) for _ in range(2)]
    scheduler = schedulers[0]
    enroll(scheduler, TWO_WAITS)
    campaigns = scheduler.campaigns

    def operate(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - a race, not a secret
        for name in chance.sample(names(), CAMPAIGNS // 2):
            key = f"acme:{name}:first:1:timeout:no_open"
            acts: list[Work] = [
                partial(campaigns.pause, "acme", name),
                partial(campaigns.resume, "acme", name),
                partial(campaigns.stop, "acme", name),
                partial(scheduler.reschedule, key, LONG_AGO),
                partial(scheduler.retry, key),
                partial(campaigns.process_event, "acme", "replied", campaign_id=name),
            ]
            for act in chance.sample(acts, 2):
                act()

    at_once(
        lambda: operate(SEED),
        lambda: operate(SEED + 1),
        lambda: run_due_if_free(schedulers[0]),
        lambda: run_due_if_free(schedulers[1]),
    )
    for name in names():
        campaigns.resume("acme", name)
    eventually(lambda: is_fired(scheduler))

    check_whole(scheduler)


def test_a_cancellation_and_a_firing_at_once_have_one_winner(database_url: str, open_scheduler: OpenScheduler) -> None:
    schedulers = [open_scheduler(database_url) for _ in range(2)]
    jobs = make_jobs(CAMPAIGNS)
    schedulers[0].schedule_many(jobs)

    canceled, _ = at_once(
        lambda: [schedulers[0].cancel(job.dedupe_key) for job in reversed(jobs)],
        lambda: run_due_if_free(schedulers[1]),
    )

    ended = Counter(status for (status,) in query(schedulers[0], "SELECT status FROM scheduled_actions"))
    assert sum(canceled) == ended["canceled"]
    assert ended["canceled"] + ended["completed"] == CAMPAIGNS


def test_the_same_campaign_enrolled_by_many_at_once_is_one(database_url: str, open_scheduler: OpenScheduler) -> None:
    schedulers = [open_scheduler(database_url) for _ in range(4)]

    enrolled = at_once(
        *[lambda each=each: each.campaigns.enroll("acme", "c-1", "k-1", TWO_WAITS) for each in schedulers * 2]
    )

    assert len(set(map(repr, enrolled))) == 1
    assert histories(schedulers[0])["c-1"] == [(0, None, "first", "enrolled")]
    check_whole(schedulers[0])


def test_overlapping_enrolments_in_opposite_orders_end_in_each_campaign_once(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    schedulers = [open_scheduler(database_url) for _ in range(4)]
    rows = [
        {"tenant_id": "acme", "campaign_id": name, "contact_id": f"k-{name[-1]}", "plan": plan}
        for name in names(200)
        for plan in (TWO_WAITS, TWO_TIMEOUTS)
    ]
    orders = [random.Random(SEED + number).sample(rows, len(rows)) for number in range(4)]  # noqa: S311 - no secret

    summaries = at_once(
        *[
            lambda each=each, order=order: each.campaigns.enroll_many(order)
            for each, order in zip(schedulers, orders, strict=True)
        ]
    )

    assert sum(summary.enrolled for summary in summaries) == 200
    assert {1} == {len(history) for history in histories(schedulers[0]).values()}


def test_the_same_event_from_many_threads_counts_once(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url)
    enroll(scheduler, TWO_WAITS, count=1)
    process = scheduler.campaigns.process_event

    results = at_once(*[lambda: process("acme", "opened", campaign_id="c-000", event_id="e-1")] * 8)

    assert Counter(result.outcome for result in results) == {"transitioned": 1, "duplicate": 7}
    check_whole(scheduler)


def test_overlapping_batches_of_events_in_opposite_orders_count_each_event_once(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    schedulers = [open_scheduler(database_url) for _ in range(4)]
    enroll(schedulers[0], TWO_WAITS)
    rows = [
        {"tenant_id": "acme", "event_type": kind, "campaign_id": name, "event_id": f"{kind}-{name}"}
        for name in names()
        for kind in ("delivered", "replied", "opened")
    ]
    orders = [random.Random(SEED + number).sample(rows, len(rows)) for number in range(4)]  # noqa: S311 - no secret

    answers = at_once(
        *[
            lambda each=each, order=order: each.campaigns.process_events(order)
            for each, order in zip(schedulers, orders, strict=True)
        ]
    )

    fresh = [result.event_id for answer in answers for result in answer if result.outcome != "duplicate"]
    assert sorted(str(row["event_id"]) for row in rows) == sorted(fresh)
    check_whole(schedulers[0])


def test_a_campaign_held_by_a_caller_delays_that_campaign_alone(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    """The caller has canceled what is being fired, and not committed."""
    scheduler, owner = open_scheduler(postgresql_url), Owner()
    enroll(scheduler, TWO_WAITS)
    claimed = claim(scheduler, owner, limit=CAMPAIGNS)

    with scheduler.database.engine.begin() as connection:
        scheduler.campaigns.process_event("acme", "opened", campaign_id="c-007", connection=connection)
        with beside(lambda: firing_of(scheduler, owner).fire(claimed)):
            eventually(lambda: len(left(scheduler)) == CAMPAIGNS - 1)

    assert histories(scheduler)["c-007"][-1] == (1, "first", "stop", "opened")
    check_whole(scheduler)


def is_fired(scheduler: TimeoutScheduler) -> bool:
    scheduler.run_due()
    return not query(scheduler, "SELECT 1 FROM contact_campaigns WHERE status = 'active' AND node_visit < 2")


def left(scheduler: TimeoutScheduler) -> list[Any]:
    return query(scheduler, "SELECT campaign_id FROM campaign_transitions WHERE node_visit = 1")


def test_a_caller_who_has_inserted_the_next_key_delays_that_campaign_alone_and_costs_no_attempt(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    enroll(scheduler, TWO_WAITS)
    job = make_job(campaign_id="c-007", node_id="second", node_visit=2, scheduled_at=FAR_AHEAD)

    with scheduler.database.engine.connect() as connection, connection.begin() as open_transaction:
        scheduler.schedule(job, connection=connection)
        with beside(scheduler.run_due):
            eventually(lambda: len(left(scheduler)) == CAMPAIGNS - 1)
        held_up = scheduler.find("acme:c-007:first:1:timeout:no_open")
        open_transaction.rollback()

    assert held_up is not None
    assert (held_up.status, held_up.attempts) == ("pending", 0)
    execute(scheduler, "UPDATE scheduled_actions SET run_at = :at WHERE status = 'pending'", at=LONG_AGO)
    scheduler.run_due()
    assert len(left(scheduler)) == CAMPAIGNS


def test_a_worker_that_lost_its_lease_changes_nothing(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, slow, quick = open_scheduler(postgresql_url), Owner("slow"), Owner("quick")
    enroll(scheduler, TWO_WAITS)
    lost = claim(scheduler, slow, limit=CAMPAIGNS, lease=-LEASE)
    with scheduler.stores.database.transaction() as transaction:
        scheduler.stores.claims.release_expired(transaction, quick.id)
    taken = claim(scheduler, quick, limit=CAMPAIGNS // 2)

    assert firing_of(scheduler, slow).fire(lost) == []
    assert len(firing_of(scheduler, quick).fire(taken)) == CAMPAIGNS // 2

    assert len(left(scheduler)) == CAMPAIGNS // 2
    check_whole(scheduler)


def test_what_is_moved_into_the_future_while_claimed_does_not_fire_early(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    """The mail is confirmed as sent just now while its timeout is already with a worker."""
    clock, owner = SettableClock(NOON), Owner()
    scheduler = open_scheduler(database_url, clock=clock)
    enroll(scheduler, ONE_MAIL, count=1, start_at=NOON)
    clock.advance("PT1H")
    claimed = claim(scheduler, owner)
    assert scheduler.campaigns.confirm_send("acme:c-000:intro:1:send:sent", clock.now())

    firing_of(scheduler, owner).fire(claimed)

    action = scheduler.find(claimed[0].dedupe_key)
    assert action is not None
    assert ("pending", 0, NOON + timedelta(hours=2)) == (action.status, action.attempts, action.run_at)
    assert len(histories(scheduler)["c-000"]) == 1


def test_nothing_fires_before_its_time_when_the_clock_is_set_back(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    clock, owner = SettableClock(NOON), Owner()
    scheduler = open_scheduler(database_url, clock=clock)
    enroll(scheduler, TWO_WAITS, count=3, start_at=NOON)
    clock.advance("PT1H")
    claimed = claim(scheduler, owner, limit=3)
    clock.set(NOON)

    firing_of(scheduler, owner).fire(claimed)

    assert left(scheduler) == []
    assert {("pending", 0)} == set(query(scheduler, "SELECT status, attempts FROM scheduled_actions"))


def test_a_confirmation_and_an_exit_at_once_keep_one_history(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    enroll(scheduler, ONE_MAIL, start_at=NOON)
    campaigns = scheduler.campaigns
    keys = [f"acme:{name}:intro:1:send:sent" for name in names()]

    at_once(
        lambda: [campaigns.confirm_send(key, NOON, f"m-{key}") for key in keys],
        lambda: [campaigns.process_event("acme", "opened", campaign_id=name) for name in names()],
        lambda: [campaigns.stop("acme", name) for name in reversed(names())],
    )

    check_whole(scheduler)
    sent = query(scheduler, "SELECT message_id, sent_at FROM scheduled_actions WHERE action_type = 'send'")
    assert sorted(f"m-{key}" for key in keys) == sorted(message for message, _ in sent)
    assert all(sent_at is not None for _, sent_at in sent)


def test_a_mail_that_went_out_is_not_sent_again_because_its_confirmation_failed(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    sent: list[str] = []

    def handle(request: SendRequest) -> SendResult:
        sent.append(request.dedupe_key)
        return SendResult("m-1")

    scheduler = open_scheduler(database_url, send_handler=handle)
    enroll(scheduler, ONE_MAIL, count=1, start_at=None)
    fail_once(scheduler, "sent_at=")
    scheduler.start()

    key = "acme:c-000:intro:1:send:sent"
    eventually(lambda: (action := scheduler.find(key)) is not None and action.status == "completed")

    assert [key] == sent
    assert query(scheduler, "SELECT message_id FROM scheduled_actions WHERE action_type = 'send'") == [("m-1",)]


def fail_once(scheduler: TimeoutScheduler, part: str) -> None:
    """The next statement with `part` in it meets a database that is away."""
    blips = [DatabaseUnavailableError("gone for a moment")]

    def before(_connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        if part in statement and blips:
            raise blips.pop()

    event.listen(scheduler.database.engine, "before_cursor_execute", before)


def test_a_completion_after_the_claim_was_lost_is_refused(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, slow = open_scheduler(database_url, settings=make_settings()), Owner("slow")
    scheduler.schedule(make_job())
    (action,) = claim(scheduler, slow, lease=-LEASE)
    scheduler.run_due()

    with scheduler.stores.database.transaction() as transaction:
        completed = scheduler.stores.settlements.complete(transaction, slow.id, [Completion(action, "done")])

    assert set() == completed
