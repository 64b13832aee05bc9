"""Who gets which action, for how long, and how a claim ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import event, text

from scheduler import ScheduledAction, TimeoutScheduler
from scheduler.domain.action import ActionStatus, ActionType
from scheduler.store.database import Transaction
from scheduler.store.settlements import Completion, Return
from scheduler.store.stores import Stores
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import FAR_AHEAD, LONG_AGO, NOON, execute, make_job, make_jobs, statuses

LEASE = timedelta(minutes=1)
OVER = timedelta(minutes=-1)
ME, OTHER = "me", "somebody else"


@pytest.fixture
def scheduler(database_url: str, open_scheduler: OpenScheduler) -> TimeoutScheduler:
    return open_scheduler(database_url)


@pytest.fixture
def stores(scheduler: TimeoutScheduler) -> Stores:
    return scheduler.stores


def claim(
    stores: Stores,
    limit: int = 100,
    owner: str = ME,
    lease: timedelta = LEASE,
    action_type: ActionType = ActionType.TIMEOUT,
) -> list[ScheduledAction]:
    with stores.database.transaction() as transaction:
        return stores.claims.claim(transaction, action_type, limit, owner, lease)


def complete(stores: Stores, action: ScheduledAction, owner: str = ME) -> bool:
    with stores.database.transaction() as transaction:
        return bool(stores.settlements.complete(transaction, owner, [Completion(action, "done")]))


def give_back(stores: Stores, action: ScheduledAction, owner: str = ME, **overrides: Any) -> bool:
    values = {"status": ActionStatus.PENDING, "run_at": action.run_at, "attempts": action.attempts, **overrides}
    with stores.database.transaction() as transaction:
        return bool(stores.settlements.give_back(transaction, owner, [Return(action, **values)]))


class RolledBack(Exception):  # noqa: N818 - it is not an error
    """Ends a transaction that was only looked at."""


@contextmanager
def rolled_back(stores: Stores) -> Iterator[Transaction]:
    """A transaction of ours, undone at the end."""
    with suppress(RolledBack), stores.database.transaction() as transaction:
        yield transaction
        raise RolledBack


def release(stores: Stores, how: Callable[[Transaction], int]) -> int:
    with stores.database.transaction() as transaction:
        return how(transaction)


def test_claims_the_longest_overdue_first(scheduler: TimeoutScheduler, stores: Stores) -> None:
    jobs = make_jobs(9)
    scheduler.schedule_many(reversed(jobs))

    batches = [claim(stores, limit=4) for _ in range(4)]

    assert [len(batch) for batch in batches] == [4, 4, 1, 0]
    assert [job.dedupe_key for job in jobs] == [action.dedupe_key for batch in batches for action in batch]


def test_claims_neither_what_is_not_due_nor_what_is_of_another_type(
    scheduler: TimeoutScheduler, stores: Stores
) -> None:
    scheduler.schedule(make_job(scheduled_at=FAR_AHEAD))
    scheduler.schedule(make_job(campaign_id="c-2"))
    execute(scheduler, "UPDATE scheduled_actions SET action_type = 'send' WHERE campaign_id = 'c-2'")

    assert claim(stores) == []
    assert [action.campaign_id for action in claim(stores, action_type=ActionType.SEND)] == ["c-2"]


def test_claims_at_the_very_instant_and_not_before(database_url: str, open_scheduler: OpenScheduler) -> None:
    clock = SettableClock(NOON - timedelta(microseconds=1))
    scheduler = open_scheduler(database_url, clock=clock)
    scheduler.schedule(make_job(scheduled_at=NOON))

    early = claim(scheduler.stores)
    clock.set(NOON)

    assert early == []
    assert [action.run_at for action in claim(scheduler.stores)] == [NOON]


@pytest.mark.parametrize("status", [status for status in ActionStatus if status != ActionStatus.PENDING])
def test_claims_only_what_is_pending(scheduler: TimeoutScheduler, stores: Stores, status: str) -> None:
    scheduler.schedule(make_job())
    finished_at = "run_at" if status in {"completed", "canceled", "error"} else "NULL"
    execute(
        scheduler,
        "UPDATE scheduled_actions SET status = :status, claimed_by = 'x', claimed_until = run_at,"  # noqa: S608
        f" finished_at = {finished_at}",
        status=status,
    )

    assert claim(stores) == []


def test_a_claim_says_whose_it_is_how_often_it_was_claimed_and_until_when(
    scheduler: TimeoutScheduler, stores: Stores
) -> None:
    scheduler.schedule(make_job())

    (first,) = claim(stores)
    give_back(stores, first)
    (second,) = claim(stores, owner=OTHER)

    assert (first.claimed_by, first.claim_number) == (ME, 1)
    assert (second.claimed_by, second.claim_number) == (OTHER, 2)
    assert second.claimed_until is not None
    assert abs(second.claimed_until - scheduler.database.real_clock.now() - LEASE) < timedelta(seconds=30)
    assert second == scheduler.find(second.dedupe_key)


def test_a_lease_runs_on_real_time_whatever_the_given_clock_says(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(database_url, clock=SettableClock(datetime(2050, 1, 1, tzinfo=UTC)))
    scheduler.schedule(make_job())

    (action,) = claim(scheduler.stores)

    assert action.claimed_until is not None
    assert action.claimed_until < datetime(2049, 1, 1, tzinfo=UTC)
    assert release(scheduler.stores, lambda t: scheduler.stores.claims.release_expired(t, but_not_of="")) == 0


def test_what_one_transaction_holds_another_skips_without_waiting(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    scheduler.schedule_many(make_jobs(6))
    stores = scheduler.stores

    with stores.database.transaction() as first, stores.database.transaction() as second:
        second.connection.execute(text("SET LOCAL lock_timeout = '1ms'"))
        held = stores.claims.claim(first, ActionType.TIMEOUT, 4, ME, LEASE)
        others = stores.claims.claim(second, ActionType.TIMEOUT, 4, OTHER, LEASE)

    assert [action.campaign_id for action in held] == ["c-0", "c-1", "c-2", "c-3"]
    assert [action.campaign_id for action in others] == ["c-4", "c-5"]


def test_a_claim_rolled_back_is_none(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule(make_job())

    with rolled_back(stores) as transaction:
        stores.claims.claim(transaction, ActionType.TIMEOUT, 1, ME, LEASE)

    assert statuses(scheduler, [make_job()]) == ["pending"]


def test_threads_that_claim_together_never_get_the_same_action(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule_many(make_jobs(300))

    def claim_all(owner: str) -> list[str]:
        keys: list[str] = []
        while batch := claim(stores, limit=7, owner=owner):
            keys += [action.dedupe_key for action in batch]
        return keys

    with ThreadPoolExecutor(4) as pool:
        claimed = [key for keys in pool.map(claim_all, ["a", "b", "c", "d"]) for key in keys]

    assert len(claimed) == len(set(claimed))
    assert {job.dedupe_key for job in make_jobs(300)} >= set(claimed)
    assert not claim(stores)


def test_claim_one_takes_what_is_due_and_pending_only(scheduler: TimeoutScheduler, stores: Stores) -> None:
    due, early = make_job(), make_job(campaign_id="c-2", scheduled_at=FAR_AHEAD)
    scheduler.schedule_many([due, early])

    def claim_one(job_id: str) -> ScheduledAction | None:
        with stores.database.transaction() as transaction:
            return stores.claims.claim_one(transaction, ("acme", job_id), ME, LEASE)

    assert claim_one(early.dedupe_key) is None
    assert claim_one("acme:x:y:1:timeout:no_open") is None
    assert claim_one(due.dedupe_key) is not None
    assert claim_one(due.dedupe_key) is None


def test_completing_takes_the_very_claim(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule(make_job())
    (stale,) = claim(stores)
    give_back(stores, stale)
    (current,) = claim(stores)

    assert not complete(stores, stale)
    assert not complete(stores, current, owner=OTHER)
    assert complete(stores, current)
    assert not complete(stores, current)


def test_handing_back_takes_the_very_claim(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule(make_job())
    (stale,) = claim(stores)
    give_back(stores, stale)
    (current,) = claim(stores)

    assert not give_back(stores, stale, attempts=9)
    assert not give_back(stores, current, owner=OTHER, attempts=9)
    assert scheduler.find(current.dedupe_key) == current
    assert give_back(stores, current, run_at=NOON, attempts=3, last_error="what happened")
    found = scheduler.find(current.dedupe_key)
    assert found is not None
    assert (found.status, found.run_at, found.attempts, found.last_error) == ("pending", NOON, 3, "what happened")
    assert found.deadline == LONG_AGO


def test_an_action_parked_as_error_is_dated_and_keeps_its_error(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule(make_job())
    (action,) = claim(stores)

    give_back(stores, action, status=ActionStatus.ERROR, attempts=5, last_error="poison")

    found = scheduler.find(action.dedupe_key)
    assert found is not None
    assert (found.status, found.outcome, found.attempts, found.last_error) == ("error", "failed", 5, "poison")
    assert found.finished_at is not None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda ts, key: ts.cancel(key, "changed my mind"), "canceled"),
        (lambda ts, key: ts.apscheduler.pause_job(key), "paused"),
    ],
)
def test_a_claim_ends_when_somebody_cancels_or_pauses_its_action(
    scheduler: TimeoutScheduler, stores: Stores, change: Callable[[TimeoutScheduler, str], object], status: str
) -> None:
    scheduler.schedule(make_job())
    (action,) = claim(stores)

    change(scheduler, action.dedupe_key)

    with stores.database.transaction() as transaction:
        assert stores.settlements.lock_held(transaction, ME, [action]) == set()
    assert not give_back(stores, action)
    assert statuses(scheduler, [make_job()]) == [status]


def test_locks_what_is_held_and_skips_what_somebody_else_has_locked(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    scheduler.schedule_many(make_jobs(3))
    stores = scheduler.stores
    first, second, third = claim(stores)
    give_back(stores, third)

    with stores.database.transaction() as one, stores.database.transaction() as other:
        other.connection.execute(text("SET LOCAL lock_timeout = '1ms'"))
        assert stores.settlements.lock_held(one, ME, [first]) == {first.key}
        assert stores.settlements.lock_held(other, ME, [first, second, third]) == {second.key}


def test_only_claims_past_their_lease_are_released(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule_many(make_jobs(2))
    (dead,) = claim(stores, limit=1, owner="dead", lease=OVER)
    (alive,) = claim(stores, limit=1, owner="alive")

    released = release(stores, lambda transaction: stores.claims.release_expired(transaction, but_not_of=ME))

    assert released == 1
    assert [action.key for action in claim(stores)] == [dead.key]
    assert scheduler.find(alive.dedupe_key) == alive


def test_a_claim_past_its_lease_that_nobody_took_yet_still_completes(
    scheduler: TimeoutScheduler, stores: Stores
) -> None:
    scheduler.schedule(make_job())
    (action,) = claim(stores, lease=OVER)

    assert complete(stores, action)


def test_a_claim_released_and_claimed_by_another_does_not_complete_for_the_first(
    scheduler: TimeoutScheduler, stores: Stores
) -> None:
    scheduler.schedule(make_job())
    (mine,) = claim(stores, lease=OVER)
    release(stores, lambda transaction: stores.claims.release_expired(transaction, but_not_of=""))
    (others,) = claim(stores, owner=OTHER)

    assert not complete(stores, mine)
    assert complete(stores, others, owner=OTHER)


def test_ones_own_claims_past_their_lease_are_told_and_not_released(
    scheduler: TimeoutScheduler, stores: Stores
) -> None:
    scheduler.schedule(make_job())
    (mine,) = claim(stores, lease=OVER)

    assert release(stores, lambda transaction: stores.claims.release_expired(transaction, but_not_of=ME)) == 0
    with stores.database.transaction() as transaction:
        assert stores.claims.expired_own(transaction, ME) == [mine]
        assert stores.claims.expired_own(transaction, OTHER) == []


def test_release_others_keeps_ones_own(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule_many(make_jobs(3))
    (mine,) = claim(stores, limit=1)
    claim(stores, limit=2, owner=OTHER)

    assert release(stores, lambda transaction: stores.claims.release_others(transaction, ME)) == 2
    assert scheduler.find(mine.dedupe_key) == mine


def test_release_of_keeps_those_of_others(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule_many(make_jobs(3))
    claim(stores, limit=2)
    (others,) = claim(stores, owner=OTHER)

    assert release(stores, lambda transaction: stores.claims.release_of(transaction, [ME])) == 2
    assert scheduler.find(others.dedupe_key) == others


def test_release_of_leaves_sends_that_may_be_half_done(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule_many(make_jobs(2))
    execute(scheduler, "UPDATE scheduled_actions SET action_type = 'send' WHERE campaign_id = 'c-1'")
    claim(stores)
    claim(stores, action_type=ActionType.SEND)

    assert release(stores, lambda transaction: stores.claims.release_of(transaction, [ME], sends=False)) == 1
    assert statuses(scheduler, make_jobs(2)) == ["pending", "claimed"]


def test_releasing_never_waits_for_a_row_that_is_being_worked_on(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    scheduler.schedule_many(make_jobs(2))
    stores = scheduler.stores
    busy, idle = claim(stores, lease=OVER)

    with stores.database.transaction() as worker, stores.database.transaction() as other:
        stores.settlements.lock_held(worker, ME, [busy])
        other.connection.execute(text("SET LOCAL lock_timeout = '1ms'"))
        assert stores.claims.release_expired(other, but_not_of="") == 1
        assert stores.claims.release_of(other, [ME]) == 0

    assert [action.key for action in claim(stores)] == [idle.key]


def test_an_outlook_tells_each_type_apart(scheduler: TimeoutScheduler, stores: Stores) -> None:
    scheduler.schedule_many([make_job(scheduled_at=NOON), make_job(campaign_id="c-2", scheduled_at=FAR_AHEAD)])
    with stores.database.reading() as transaction:
        alone = stores.outlooks.read(transaction)
    execute(scheduler, "UPDATE scheduled_actions SET action_type = 'send' WHERE campaign_id = 'c-2'")

    with stores.database.reading() as transaction:
        both = stores.outlooks.read(transaction)

    assert (alone.of(ActionType.TIMEOUT), alone.of(ActionType.SEND)) == (NOON, None)
    assert (both.of(ActionType.TIMEOUT), both.of(ActionType.SEND)) == (NOON, FAR_AHEAD)
    assert abs(both.now - scheduler.database.real_clock.now()) < timedelta(seconds=30)


def test_claiming_the_same_moment_from_schedulers_of_their_own_gives_each_action_once(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    schedulers = [open_scheduler(postgresql_url) for _ in range(3)]
    schedulers[0].schedule_many(make_jobs(500))

    with ThreadPoolExecutor(3) as pool:
        batches = list(pool.map(lambda one: claim(one.stores, limit=200, owner=one.instance), schedulers))

    keys = [action.dedupe_key for batch in batches for action in batch]
    assert len(keys) == len(set(keys)) == 500


ROWS = 50_000
FILL = {
    "postgresql": """
        INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, run_at,
                                       action_type, status, finished_at, claimed_by, claimed_until)
        SELECT 't-' || (n % 10), 't-' || (n % 10) || '\\:c-' || n || '\\:intro\\:1\\:timeout\\:no_open',
               'c-' || n, 'k', 'intro', 'no_open', timestamptz '2020-01-01Z' + n * interval '1 second',
               CASE n % 10 WHEN 9 THEN 'send' ELSE 'timeout' END,
               CASE n % 5 WHEN 4 THEN 'completed' WHEN 3 THEN CASE n % 100 WHEN 3 THEN 'claimed' ELSE 'pending' END
                          ELSE 'pending' END,
               CASE n % 5 WHEN 4 THEN timestamptz '2020-02-01' END, 'x', timestamptz '2200-01-01'
        FROM generate_series(1, :rows) AS n
    """,
    "sqlite": """
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :rows)
        INSERT INTO scheduled_actions (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, run_at,
                                       action_type, status, finished_at, claimed_by, claimed_until)
        SELECT 't-' || (n % 10), 't-' || (n % 10) || '\\:c-' || n || '\\:intro\\:1\\:timeout\\:no_open',
               'c-' || n, 'k', 'intro', 'no_open',
               strftime('%Y-%m-%d %H\\:%M\\:%S', '2020-01-01', n || ' seconds') || '.000000',
               CASE n % 10 WHEN 9 THEN 'send' ELSE 'timeout' END,
               CASE n % 5 WHEN 4 THEN 'completed' WHEN 3 THEN CASE n % 100 WHEN 3 THEN 'claimed' ELSE 'pending' END
                          ELSE 'pending' END,
               CASE n % 5 WHEN 4 THEN '2020-02-01 00\\:00\\:00.000000' END, 'x', '2200-01-01 00\\:00\\:00.000000'
        FROM numbers
    """,
}
HOT: dict[str, tuple[Callable[[Stores, Transaction], object], set[str]]] = {
    "claim": (
        lambda stores, transaction: stores.claims.claim(transaction, ActionType.TIMEOUT, 500, ME, LEASE),
        {"ix_scheduled_actions_due"},
    ),
    "claim a send": (
        lambda stores, transaction: stores.claims.claim(transaction, ActionType.SEND, 1, ME, LEASE),
        {"ix_scheduled_actions_due"},
    ),
    "claim a tenant's sends": (
        lambda stores, transaction: stores.claims.claim(transaction, ActionType.SEND, 100, ME, LEASE, "t-1"),
        {"ix_scheduled_actions_tenant_due"},
    ),
    "claim shares": (
        lambda stores, transaction: stores.claims.claim_shares(
            transaction, ActionType.TIMEOUT, [f"t-{number}" for number in range(10)], 50, ME, LEASE
        ),
        {"ix_scheduled_actions_tenant_due"},
    ),
    "claim shares of sends": (
        lambda stores, transaction: stores.claims.claim_shares(transaction, ActionType.SEND, ["t-9"], 1, ME, LEASE),
        {"ix_scheduled_actions_tenant_due"},
    ),
    "walk": (
        lambda stores, transaction: stores.due.walk(transaction, ActionType.TIMEOUT, "", 100),
        {"ix_scheduled_actions_tenant_due"},
    ),
    "newest": (
        lambda stores, transaction: stores.due.newest(transaction, ActionType.TIMEOUT, 100),
        {"ix_scheduled_actions_due"},
    ),
    "renew": (
        lambda stores, transaction: stores.claims.renew(transaction, ME, some_actions(stores, transaction), LEASE),
        set(),
    ),
    "release expired sends": (
        lambda stores, transaction: stores.claims.release_expired_sends(transaction),
        {"ix_scheduled_actions_claimed"},
    ),
    "next due": (
        lambda stores, transaction: stores.outlooks.read(transaction),
        {"ix_scheduled_actions_due", "ix_scheduled_actions_claimed"},
    ),
    "unfinished": (
        lambda stores, transaction: stores.actions.unfinished(
            transaction, [(f"t-{number % 10}", f"c-{number}") for number in range(500)]
        ),
        {"ix_scheduled_actions_unfinished"},
    ),
    "release expired": (
        lambda stores, transaction: stores.claims.release_expired(transaction, but_not_of=ME),
        {"ix_scheduled_actions_claimed"},
    ),
    "cancel left": (
        lambda stores, transaction: stores.changes.cancel_left(
            transaction, [(f"t-{number % 10}", f"c-{number}", 1, None) for number in range(500)], "visit left"
        ),
        {"ix_scheduled_actions_unfinished"},
    ),
    "complete": (
        lambda stores, transaction: stores.settlements.complete(
            transaction, ME, [Completion(action, "done") for action in some_actions(stores, transaction)]
        ),
        set(),
    ),
    "lock held": (
        lambda stores, transaction: stores.settlements.lock_held(transaction, ME, some_actions(stores, transaction)),
        set(),
    ),
}


# "SCAN ... USING INDEX" walks an index in its order, for as long as the LIMIT lets it.
READS_ALL = r"Seq Scan on scheduled_actions|SCAN scheduled_actions(?! USING)"


def some_actions(stores: Stores, transaction: Transaction) -> list[ScheduledAction]:
    return stores.actions.select(transaction, tenant_id="t-1", limit=500)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "postgresql, analyzed", "sqlite, analyzed"])
def full_stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """50,000 actions, with the statistics of an empty table and with fresh ones; what a test does is rolled back."""
    system, _, statistics = request.param.partition(", ")
    with fresh_database(system, request, tmp_path_factory) as url, closing(TimeoutScheduler(url)) as scheduler:
        scheduler.migrate()
        execute(scheduler, FILL[system], rows=ROWS)
        if statistics:
            execute(scheduler, "ANALYZE")
        yield scheduler.stores


@contextmanager
def fresh_database(
    system: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if system == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('full') / 'full.sqlite'}"
        return
    server = request.getfixturevalue("postgres_server")
    yield server.create_database("full")
    server.drop_database("full")


@pytest.mark.parametrize("name", HOT)
def test_hot_statements_find_their_rows_through_an_index(full_stores: Stores, name: str) -> None:
    work, wanted = HOT[name]

    plans = explain(full_stores, work)

    assert plans
    assert [plan for plan in plans if re.search(READS_ALL, plan)] == []
    used = set(re.findall(r"ix_\w+", plans[-1]))
    assert used == wanted


def explain(stores: Stores, work: Callable[[Stores, Transaction], object]) -> list[str]:
    """The plans of the statements that `work` executes on actions, the last one last."""
    prefix = "EXPLAIN " if stores.database.is_postgresql else "EXPLAIN QUERY PLAN "
    with stores.database.engine.connect() as connection:
        return [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(prefix + statement, parameters))
            for statement, parameters in statements_of(stores, work)
        ]


def statements_of(stores: Stores, work: Callable[[Stores, Transaction], object]) -> list[tuple[str, Any]]:
    """The statements on actions that `work` executes, with their parameters, as the driver gets them."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "scheduled_actions" in statement:
            statements.append((statement, parameters))

    with rolled_back(stores) as transaction:
        event.listen(stores.database.engine, "before_cursor_execute", note)
        try:
            work(stores, transaction)
        finally:
            event.remove(stores.database.engine, "before_cursor_execute", note)
    return statements


# SQLite doesn't tell how many rows it read.
@pytest.mark.parametrize("full_stores", ["postgresql", "postgresql, analyzed"], indirect=True)
@pytest.mark.parametrize("name", ["claim", "claim shares", "walk", "newest"])
def test_what_is_claimed_reads_no_more_than_its_batch(full_stores: Stores, name: str) -> None:
    ((statement, parameters),) = statements_of(full_stores, HOT[name][0])
    with full_stores.database.engine.connect() as connection, connection.begin() as transaction:
        plan = connection.exec_driver_sql("EXPLAIN (ANALYZE, FORMAT TEXT) " + statement, parameters).scalars().all()
        transaction.rollback()

    read = [
        round(float(rows) * int(loops))
        for line in plan
        for rows, loops in re.findall(r"actual time=\S+ rows=(\S+) loops=(\d+)", line)
    ]
    left = [int(removed) for line in plan for removed in re.findall(r"Rows Removed by \w+: (\d+)", line)]
    assert max(read) <= 500, "\n".join(plan)
    assert max(left, default=0) <= 1, "\n".join(plan)


def test_claims_in_order_from_a_full_table(full_stores: Stores) -> None:
    with rolled_back(full_stores) as transaction:
        claimed = full_stores.claims.claim(transaction, ActionType.TIMEOUT, 500, ME, LEASE)

    assert len(claimed) == 500
    assert all(one.run_at <= other.run_at for one, other in pairwise(claimed))
    assert claimed[0].run_at == datetime(2020, 1, 1, 0, 0, 1, tzinfo=UTC)
