"""A tenant with very much that is overdue holds up nobody else: bounds in batches, not in time."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from scheduler import Outcome, ScheduledAction, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.domain.timing import SystemClock
from scheduler.runtime.claim_turns import ClaimTurns
from scheduler.store.database import Transaction
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import (
    FAR_AHEAD,
    LONG_AGO,
    Recorder,
    are_completed,
    execute,
    make_job,
    make_jobs,
    make_settings,
)

LEASE = timedelta(minutes=1)
RECENT = LONG_AGO + timedelta(days=365)


@pytest.fixture
def scheduler(database_url: str, open_scheduler: OpenScheduler) -> TimeoutScheduler:
    return open_scheduler(database_url)


class Claimant:
    """Claims one batch after the other, each in a transaction of its own."""

    def __init__(
        self, scheduler: TimeoutScheduler, action_type: ActionType = ActionType.TIMEOUT, owner: str = "me"
    ) -> None:
        self._scheduler = scheduler
        self._owner = owner
        self._turns = ClaimTurns(scheduler.stores, action_type, scheduler.settings)
        self.go_first: frozenset[str] = frozenset()
        self.is_searching = False

    def claim(self, limit: int) -> Sequence[ScheduledAction]:
        """The next batch."""
        with self._scheduler.stores.database.transaction() as transaction:
            return self.claim_in(transaction, limit)

    def claim_in(self, transaction: Transaction, limit: int) -> Sequence[ScheduledAction]:
        """The next batch, in a transaction of the caller's."""
        taken = self._turns.took(self._turns.claim(transaction, limit, self._owner, LEASE))
        self.go_first = taken.go_first
        return taken.actions

    def claim_for_newcomers(self, limit: int, then: Callable[[], object] = int) -> Sequence[ScheduledAction]:
        """Of those who have no backlog."""
        with self._scheduler.stores.database.transaction() as transaction:
            taken = self._turns.claim_for_newcomers(transaction, limit, self._owner, LEASE)
            then()
        self.go_first, self.is_searching = self._turns.took(taken).go_first, taken.is_searching
        return taken.actions

    def claim_all(self, limit: int) -> list[ScheduledAction]:
        """Batch after batch, until there is none."""
        found: list[ScheduledAction] = []
        while batch := self.claim(limit):
            found += batch
        return found


def tenants(actions: Sequence[ScheduledAction]) -> Counter[str]:
    return Counter(action.tenant_id for action in actions)


class Scheduling(Recorder):
    """Has one more timeout scheduled while the first batch is being fired."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Callable[[Connection], object] = lambda _: None

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """All are done."""
        if not self.batches:
            self.schedule(connection)
        return super().process(connection, jobs)


def test_a_timeout_that_falls_due_beside_many_overdue_ones_waits_for_two_batches_at_most(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    size, recorder = 10, Scheduling()
    scheduler = open_scheduler(
        database_url, state_manager=recorder, settings=make_settings(batch_size=size, workers=1), send_handler=None
    )
    many, one = make_jobs(20 * size, tenant_id="big"), make_job(tenant_id="small", scheduled_at=RECENT)
    recorder.schedule = lambda connection: scheduler.schedule(one, connection)
    scheduler.schedule_many(many)

    scheduler.start()

    eventually(are_completed(scheduler, [*many, one]))
    (place,) = [place for place, batch in enumerate(recorder.batches) if one.dedupe_key in batch]
    assert place <= 2
    # Not in the middle of as many of the other's as a batch takes: its commit waits for none of them.
    assert recorder.batches[place] == [one.dedupe_key]
    assert recorder.threads == {"outreach:timeout-0"}
    assert sorted(recorder.keys) == sorted(job.dedupe_key for job in [*many, one])


class HoldingBig(Recorder):
    """Works on each batch of the big tenant until that may end."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_end = threading.Semaphore(0), threading.Semaphore(0)

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """All are done."""
        answers = super().process(connection, jobs)
        if jobs[0].tenant_id == "big":
            self.begun.release()
            assert self.may_end.acquire(timeout=30)
        return answers

    def wait_begun(self, batches: int) -> None:
        """So many more have begun."""
        assert all(self.begun.acquire(timeout=30) for _ in range(batches))


@pytest.mark.parametrize("is_new", [True, False], ids=["due at once", "seen ahead"])
def test_who_has_no_backlog_waits_for_no_batch(
    postgresql_url: str, open_scheduler: OpenScheduler, *, is_new: bool
) -> None:
    """Both workers have begun a batch that doesn't end, and there is no room for another."""
    size, holding = 10, HoldingBig()
    settings = make_settings(batch_size=size, workers=2, poll_interval=timedelta(minutes=1))
    scheduler = open_scheduler(postgresql_url, state_manager=holding, settings=settings, send_handler=None)
    scheduler.schedule_many(make_jobs(10 * size, tenant_id="big"))
    scheduler.start()
    try:
        holding.wait_begun(2)
        soon = SystemClock().now() + timedelta(seconds=0.3)
        one = make_job(tenant_id="small", scheduled_at=RECENT if is_new else soon)
        scheduler.schedule(one)

        eventually(are_completed(scheduler, [one]))

        assert [batch for batch in holding.batches if one.dedupe_key in batch] == [[one.dedupe_key]]
    finally:
        holding.may_end.release(100)
    eventually(lambda: len(holding.keys) == 10 * size + 1)
    assert len(set(holding.keys)) == 10 * size + 1


def test_there_is_an_express_for_timeouts_only_and_not_beside_a_single_worker(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    """A state manager may count on it that `WORKERS=1` is one thread; SQLite has one writer."""

    def expresses(workers: int) -> list[str]:
        settings = make_settings(workers=workers, send_workers=2)
        scheduler = open_scheduler(database_url, settings=settings, send_handler=lambda _: None)
        before = threading.enumerate()
        scheduler.start()
        found = [one.name for one in threading.enumerate() if one not in before and one.name.endswith("-express")]
        scheduler.close()
        return found

    is_postgresql = database_url.startswith("postgresql")
    assert [expresses(1), expresses(2)] == [[], ["outreach:timeout-express"] * is_postgresql]


def test_tenants_share_a_batch_equally_once_more_is_due_than_one_takes(scheduler: TimeoutScheduler) -> None:
    for number in range(5):
        overdue_since = LONG_AGO + timedelta(days=number)
        scheduler.schedule_many(make_jobs(40, tenant_id=f"t-{number}", scheduled_at=overdue_since))
    claimant = Claimant(scheduler)

    first, second, third = (claimant.claim(20) for _ in range(3))

    assert tenants(first) == {"t-0": 20}
    assert tenants(second) == tenants(third) == {f"t-{number}": 4 for number in range(5)}
    assert second == sorted(second, key=lambda action: (action.run_at, action.key))


def test_what_others_leave_of_their_share_goes_to_the_longest_overdue(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(60, tenant_id="big"))
    scheduler.schedule_many(make_jobs(3, tenant_id="small", scheduled_at=RECENT))
    claimant = Claimant(scheduler)

    batches = [claimant.claim(20) for _ in range(5)]

    assert [dict(tenants(batch)) for batch in batches] == [
        {"big": 20},
        {"big": 17, "small": 3},
        {"big": 20},
        {"big": 3},
        {},
    ]


def test_who_has_nothing_left_while_others_have_is_caught_up(scheduler: TimeoutScheduler) -> None:
    for tenant_id in ("big", "other"):
        scheduler.schedule_many(make_jobs(60, tenant_id=tenant_id))
    scheduler.schedule_many(make_jobs(3, tenant_id="small", scheduled_at=RECENT))
    claimant = Claimant(scheduler)

    caught_up = [(claimant.claim(20), claimant.go_first)[1] for _ in range(8)]

    # Once no more is left than a claim takes, everybody's goes together.
    assert caught_up == [frozenset(), {"small"}, *[frozenset()] * 6]


def test_newcomers_are_those_who_had_less_than_their_share(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(80, tenant_id="big"))
    claimant = Claimant(scheduler)
    claimant.claim(20), claimant.claim(20)
    for days, (tenant_id, count) in enumerate([("many", 30), ("few", 3), ("one", 1)]):
        scheduler.schedule_many(make_jobs(count, tenant_id=tenant_id, scheduled_at=RECENT + timedelta(days=days)))

    first, go_first = claimant.claim_for_newcomers(20), claimant.go_first
    second = claimant.claim_for_newcomers(20)

    # A fourth is left for whoever has a backlog; of those who have one now no more is taken before their turn.
    assert tenants(first) == {"many": 5, "few": 3, "one": 1}
    assert go_first == {"few", "one"}
    assert second == []
    assert tenants(claimant.claim(20)) == {"big": 10, "many": 10}


def test_newcomers_are_served_in_turn_when_there_is_room_for_one_of_them(scheduler: TimeoutScheduler) -> None:
    """Each has two: as many as its share, which might be the beginning of a backlog."""
    scheduler.schedule_many(make_jobs(20, tenant_id="big"))
    claimant = Claimant(scheduler)
    claimant.claim(4), claimant.claim(4)
    for tenant_id in ("a", "b", "c"):
        scheduler.schedule_many(make_jobs(2, tenant_id=tenant_id, scheduled_at=RECENT))
    found = [(dict(tenants(claimant.claim_for_newcomers(4))), claimant.is_searching) for _ in range(4)]

    assert found == [({"a": 2}, True), ({"b": 2}, True), ({"c": 2}, False), ({}, False)]


def test_newcomers_with_a_backlog_put_off_no_other_for_long(scheduler: TimeoutScheduler) -> None:
    """They are served once: after that they have one, as far as is known."""
    scheduler.schedule_many(make_jobs(20, tenant_id="big"))
    claimant = Claimant(scheduler)
    claimant.claim(4), claimant.claim(4)
    for tenant_id in ("a", "b"):
        scheduler.schedule_many(make_jobs(20, tenant_id=tenant_id, scheduled_at=RECENT))
    scheduler.schedule(make_job(tenant_id="c", scheduled_at=RECENT))
    found = [dict(tenants(claimant.claim_for_newcomers(4))) for _ in range(4)]

    assert found == [{"a": 2}, {"b": 2}, {"c": 1}, {}]


def test_a_newcomer_gets_a_tenth_of_a_batch_at_most(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(20, tenant_id="big"))
    claimant = Claimant(scheduler)
    claimant.claim(4), claimant.claim(4)
    scheduler.schedule_many(make_jobs(80, tenant_id="many", scheduled_at=RECENT))

    assert tenants(claimant.claim_for_newcomers(500)) == {"many": 50}
    assert claimant.go_first == frozenset()


def test_two_processes_that_search_at_the_same_time_claim_each_once_and_wait_for_nobody(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    scheduler.schedule_many(make_jobs(20, tenant_id="big"))
    one, other = Claimant(scheduler, owner="one"), Claimant(scheduler, owner="other")
    one.claim(4), one.claim(4), other.claim(4), other.claim(4)
    scheduler.schedule(make_job(tenant_id="small", scheduled_at=RECENT))
    found: list[dict[str, int]] = []

    first = one.claim_for_newcomers(4, then=lambda: found.append(dict(tenants(other.claim_for_newcomers(4)))))

    assert (dict(tenants(first)), found) == ({"small": 1}, [{}])


def test_what_a_search_learned_is_forgotten_when_it_is_rolled_back(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(20, tenant_id="big"))
    claimant = Claimant(scheduler)
    claimant.claim(4), claimant.claim(4)
    scheduler.schedule_many(make_jobs(20, tenant_id="a", scheduled_at=RECENT))

    with pytest.raises(ZeroDivisionError):
        claimant.claim_for_newcomers(4, then=lambda: 1 // 0)

    assert tenants(claimant.claim_for_newcomers(4)) == {"a": 2}


@pytest.mark.parametrize("others", [0, 150], ids=["few tenants", "many tenants"])
def test_a_newcomer_is_found_beside_a_backlog_that_fell_due_last(scheduler: TimeoutScheduler, others: int) -> None:
    """Among more tenants than a claim looks at it has to be among what fell due last itself."""
    for number in range(others):
        scheduler.schedule(make_job(tenant_id=f"a-{number:03}", scheduled_at=FAR_AHEAD))
    scheduler.schedule_many(make_jobs(200, tenant_id="big", scheduled_at=RECENT))
    claimant = Claimant(scheduler)
    claimant.claim(20), claimant.claim(20)
    at = RECENT + timedelta(days=1) if others else LONG_AGO
    scheduler.schedule(make_job(tenant_id="one", scheduled_at=at))

    assert tenants(claimant.claim_for_newcomers(20)) == {"one": 1}


def test_who_had_a_backlog_is_a_newcomer_again_once_it_is_caught_up(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(80, tenant_id="big"))
    scheduler.schedule_many(make_jobs(25, tenant_id="late", scheduled_at=RECENT))
    claimant = Claimant(scheduler)
    claimed = [tenants(claimant.claim(20))["late"] for _ in range(4)]
    scheduler.schedule(make_job(tenant_id="late", scheduled_at=RECENT, campaign_id="another"))

    assert claimed == [0, 10, 10, 5]
    assert tenants(claimant.claim_for_newcomers(20)) == {"late": 1}


def test_more_newcomers_than_there_is_room_for_are_served_by_the_next_search(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(20, tenant_id="big"))
    claimant = Claimant(scheduler)
    claimant.claim(4), claimant.claim(4)
    for number in range(3):
        scheduler.schedule(make_job(tenant_id=f"t-{number}", scheduled_at=RECENT))

    found = [(len(claimant.claim_for_newcomers(4)), claimant.is_searching) for _ in range(3)]

    assert found == [(1, True), (1, True), (1, False)]


def test_nobody_has_a_backlog_any_more_once_a_claim_was_not_full(scheduler: TimeoutScheduler) -> None:
    """Another process has worked off the rest."""
    scheduler.schedule_many(make_jobs(60, tenant_id="big"))
    claimant = Claimant(scheduler)
    claimant.claim(20), claimant.claim(20)
    Claimant(scheduler, owner="you").claim(20)
    last = claimant.claim(20)
    scheduler.schedule(make_job(tenant_id="big", campaign_id="another"))

    assert last == []
    assert tenants(claimant.claim_for_newcomers(20)) == {"big": 1}


def test_a_batch_that_was_not_full_is_followed_by_the_longest_overdue_again(scheduler: TimeoutScheduler) -> None:
    claimant = Claimant(scheduler)
    scheduler.schedule_many(make_jobs(21, tenant_id="big"))
    claimant.claim(20), claimant.claim(20)
    scheduler.schedule_many(make_jobs(20, tenant_id="late", scheduled_at=RECENT))
    scheduler.schedule_many(make_jobs(20, tenant_id="early", scheduled_at=LONG_AGO))

    assert tenants(claimant.claim(20)) == {"early": 20}


def test_nobody_starves_among_a_thousand_tenants(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(3_000, tenant_id="big"))
    scheduler.schedule_many(
        make_job(tenant_id=f"t-{number:03}", scheduled_at=RECENT + timedelta(seconds=number)) for number in range(1_000)
    )
    claimant = Claimant(scheduler)

    batches = [claimant.claim(200) for _ in range(14)]

    # A fifth of a batch is looked at by turns, and as many of what fell due last.
    assert len(tenants([action for batch in batches for action in batch])) == 1_001
    assert all(len(batch) == 200 for batch in batches)


def test_one_that_fell_due_last_is_found_among_thousands_of_tenants_that_wait(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(400, tenant_id="big"))
    scheduler.schedule_many(
        make_job(tenant_id=f"t-{number}", scheduled_at=scheduler.database.real_clock.now() + timedelta(days=1))
        for number in range(2_000)
    )
    claimant = Claimant(scheduler)
    claimant.claim(50)
    scheduler.schedule(make_job(tenant_id="z-small", scheduled_at=RECENT))

    assert tenants(claimant.claim(50))["z-small"] == 1


def test_claims_of_one_action_each_serve_everybody_in_turn(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(30, tenant_id="big"))
    for name in ("a", "b", "c"):
        scheduler.schedule_many(make_jobs(2, tenant_id=name, scheduled_at=RECENT))
    execute(scheduler, "UPDATE scheduled_actions SET action_type = 'send'")
    claimant = Claimant(scheduler, ActionType.SEND)

    served = [claimant.claim(1)[0].tenant_id for _ in range(12)]

    assert {"a", "b", "c"} <= set(served[:8])


def test_claimants_that_share_out_at_the_same_time_never_get_the_same_action(scheduler: TimeoutScheduler) -> None:
    for number in range(10):
        scheduler.schedule_many(make_jobs(60, tenant_id=f"t-{number}"))
    claimants = [Claimant(scheduler, owner=owner) for owner in ("a", "b", "c")]

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda one: one.claim_all(17), claimants))
    rest = Claimant(scheduler).claim_all(100)  # what one skipped because another had it locked, who then let it be

    keys = [action.dedupe_key for actions in [*found, rest] for action in actions]
    assert len(keys) == len(set(keys)) == 600


def test_what_one_has_shared_out_another_skips_without_waiting(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    for name in ("a", "b"):
        scheduler.schedule_many(make_jobs(40, tenant_id=name))
    one, other = Claimant(scheduler, owner="one"), Claimant(scheduler, owner="other")
    one.claim(10), other.claim(10)

    with scheduler.stores.database.transaction() as first, scheduler.stores.database.transaction() as second:
        second.connection.execute(text("SET LOCAL lock_timeout = '1ms'"))
        mine, others = one.claim_in(first, 20), other.claim_in(second, 20)

    assert tenants(mine) == tenants(others) == {"a": 10, "b": 10}
    assert not {action.key for action in mine} & {action.key for action in others}


def test_a_big_tenant_that_is_paused_holds_up_nobody(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(500, tenant_id="big"))
    scheduler.schedule_many(make_jobs(5, tenant_id="small", scheduled_at=RECENT))
    scheduler.campaigns.pause_tenant("big")
    claimant = Claimant(scheduler)

    batches = [claimant.claim(20) for _ in range(3)]

    assert [dict(tenants(batch)) for batch in batches] == [{}, {"small": 5}, {}]


def test_a_tenant_whose_rows_are_locked_by_somebody_holds_up_nobody(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url)
    scheduler.schedule_many(make_jobs(100, tenant_id="big"))
    scheduler.schedule_many(make_jobs(40, tenant_id="small", scheduled_at=RECENT))
    claimant = Claimant(scheduler)
    claimant.claim(20)

    with scheduler.database.engine.connect() as holder:
        holder.execute(text("SELECT * FROM scheduled_actions WHERE tenant_id = 'big' FOR UPDATE"))
        batch = claimant.claim(20)

    assert tenants(batch) == {"small": 20}
