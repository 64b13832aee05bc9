"""MAX_RATE and MAX_RATE_PER_TENANT: how many are claimed in seconds that a test tells, and fired in real ones."""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from scheduler import InvalidInputError, Settings, TimeoutScheduler
from scheduler.domain.action import ActionType
from scheduler.runtime.claim_turns import ClaimTurns, Taken
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import LONG_AGO, Recorder, are_completed, execute, make_job, make_jobs, make_settings

LEASE = timedelta(minutes=1)
RECENT = LONG_AGO + timedelta(days=365)


class Paced:
    """Claims as a scheduling loop does, in seconds that a test tells."""

    def __init__(self, scheduler: TimeoutScheduler, **rates: float) -> None:
        self.seconds = 1000.0
        self._stores = scheduler.stores
        self.turns = ClaimTurns(scheduler.stores, ActionType.TIMEOUT, make_settings(**rates), lambda: self.seconds)

    def claim(self, limit: int = 100) -> Taken:
        """One batch."""
        with self._stores.database.transaction() as transaction:
            taken = self.turns.claim(transaction, limit, "me", LEASE)
        return self.turns.took(taken)

    def claim_for(self, seconds: float, limit: int = 100) -> Counter[str]:
        """What is claimed by a loop that comes back whenever it is told to."""
        found: Counter[str] = Counter()
        end = self.seconds + seconds
        while self.seconds <= end:
            taken = self.claim(limit)
            found.update(action.tenant_id for action in taken.actions)
            held_back = self.turns.wait_of_held_back or 0.0
            self.seconds += 0.0 if taken.has_more else max(self.turns.wait, held_back, 0.001)
        return found


@pytest.fixture
def scheduler(database_url: str, open_scheduler: OpenScheduler) -> TimeoutScheduler:
    return open_scheduler(database_url)


def test_a_herd_is_claimed_at_the_rate(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(400))
    paced = Paced(scheduler, max_rate=50)

    found = [paced.claim_for(1).total(), paced.claim_for(4).total()]

    assert 95 <= found[0] <= 100
    assert 195 <= found[1] <= 205


def test_once_the_rate_is_used_up_the_loop_is_told_when_to_come_back(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(100))
    paced = Paced(scheduler, max_rate=50)

    taken = paced.claim()

    assert (len(taken.actions), taken.has_more) == (50, False)
    assert paced.turns.wait == pytest.approx(0.1)
    paced.seconds += 0.1
    assert len(paced.claim().actions) == 5


def test_a_tenant_keeps_to_its_rate_while_others_go_on_at_full_speed(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(400, tenant_id="big"))
    for number in range(40):
        scheduler.schedule_many(make_jobs(10, tenant_id=f"t-{number}", scheduled_at=RECENT))
    paced = Paced(scheduler, max_rate_per_tenant=10)

    at_once = paced.claim_for(0.0)
    then = paced.claim_for(3)

    assert at_once == {"big": 10, **{f"t-{number}": 10 for number in range(40)}}
    assert 28 <= then["big"] <= 31
    assert then.keys() == {"big"}


def test_tenants_that_wait_are_served_by_turns_where_a_claim_takes_few(scheduler: TimeoutScheduler) -> None:
    for number in range(6):
        scheduler.schedule_many(make_jobs(10, tenant_id=f"t-{number}"))
    paced = Paced(scheduler, max_rate_per_tenant=5)

    found = Counter(action.tenant_id for _ in range(12) for action in paced.claim(1).actions)

    assert found == {f"t-{number}": 2 for number in range(6)}


def test_both_rates_hold_together(scheduler: TimeoutScheduler) -> None:
    for number in range(4):
        scheduler.schedule_many(make_jobs(100, tenant_id=f"t-{number}"))
    paced = Paced(scheduler, max_rate=20, max_rate_per_tenant=10)

    found = paced.claim_for(3)

    assert 75 <= found.total() <= 82
    assert max(found.values()) <= 40
    assert min(found.values()) >= 10


def test_more_tenants_than_one_claim_looks_at_are_all_found_while_a_big_one_waits(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(300, tenant_id="big"))
    tomorrow = scheduler.database.real_clock.now() + timedelta(days=1)
    scheduler.schedule_many(make_job(tenant_id=f"t-{number:03}", scheduled_at=tomorrow) for number in range(300))
    due = [make_job(tenant_id=f"t-{number:03}", node_id="due", scheduled_at=LONG_AGO) for number in range(0, 300, 50)]
    scheduler.schedule_many(due)
    paced = Paced(scheduler, max_rate_per_tenant=1)

    taken = [paced.claim()]
    while taken[-1].has_more:
        taken.append(paced.claim())

    assert Counter(action.tenant_id for one in taken for action in one.actions) == {
        "big": 1,
        **{job.tenant_id: 1 for job in due},
    }
    assert len(taken) < 40


def test_instances_take_equal_shares(scheduler: TimeoutScheduler) -> None:
    scheduler.schedule_many(make_jobs(200))
    paced = Paced(scheduler, max_rate=40)
    paced.turns.instances = 4

    assert 28 <= paced.claim_for(2).total() <= 31


def test_only_instances_that_are_at_work_are_counted(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url)
    instances, silent_for = scheduler.stores.instances, timedelta(minutes=2)
    with scheduler.database.transaction() as transaction:
        for name in ("me", "alive", "stopped", "silent"):
            instances.note_alive(transaction, name, name, 1, None, None)
        instances.note_stopped(transaction, "stopped")
    execute(
        scheduler,
        "UPDATE timeout_scheduler_instances SET seen_at = '2020-01-01 00:00:00+00:00' WHERE instance_id = 'silent'",
    )

    with scheduler.database.reading() as transaction:
        assert instances.count_others(transaction, "me", silent_for) == 1


def test_an_instance_whose_session_is_gone_is_not_counted(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(postgresql_url)
    with scheduler.database.transaction() as transaction:
        scheduler.stores.instances.note_alive(transaction, "dead", "dead", 1, None, 4711)

    with scheduler.database.reading() as transaction:
        assert scheduler.stores.instances.count_others(transaction, "me", timedelta(minutes=2)) == 0


def test_a_running_scheduler_keeps_to_the_rate_and_sleeps_in_between(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    recorder = Recorder()
    settings = make_settings(max_rate=50, poll_interval=timedelta(minutes=1))
    scheduler = open_scheduler(database_url, settings=settings, state_manager=recorder)
    jobs = make_jobs(70)
    scheduler.schedule_many(jobs)
    began = time.monotonic()
    with look_aheads(scheduler) as looks:
        scheduler.start()
        eventually(lambda: len(recorder.keys) == 70)
    elapsed = time.monotonic() - began

    eventually(are_completed(scheduler, jobs))
    assert elapsed >= 0.35
    # A batch for each tenth of a second, and not one for each action, however slow the machine is.
    assert len(recorder.batches) <= 5 + elapsed / 0.1
    assert len(looks) <= 4 * len(recorder.batches) + 4


def test_a_running_scheduler_wakes_for_others_while_a_tenant_waits_for_its_rate(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    settings = make_settings(max_rate_per_tenant=0.01, poll_interval=timedelta(minutes=1))
    scheduler = open_scheduler(database_url, settings=settings, state_manager=Recorder())
    scheduler.schedule_many(make_jobs(10, tenant_id="big"))
    soon = scheduler.database.real_clock.now() + timedelta(milliseconds=300)
    later = [make_job(tenant_id="small", scheduled_at=soon)]
    scheduler.schedule_many(later)

    scheduler.start()

    eventually(are_completed(scheduler, later))
    completed = scheduler.list_actions(statuses=["completed"], tenant_id="big")
    assert len(completed) == 1


def test_run_due_keeps_to_the_rate_and_comes_back_when_all_is_fired(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(database_url, settings=make_settings(max_rate=100), state_manager=Recorder())
    scheduler.schedule_many(make_jobs(130))
    began = time.monotonic()

    assert scheduler.run_due() == 130
    assert time.monotonic() - began >= 0.25


def test_run_due_keeps_to_the_rate_of_each_tenant(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url, settings=make_settings(max_rate_per_tenant=50), state_manager=Recorder())
    for name in ("a", "b"):
        scheduler.schedule_many(make_jobs(60, tenant_id=name))
    began = time.monotonic()

    assert scheduler.run_due() == 120
    assert time.monotonic() - began >= 0.15


def test_run_due_does_not_wait_for_a_rate_when_nothing_is_due(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url, settings=make_settings(max_rate=0.001), state_manager=Recorder())
    scheduler.schedule(make_job())

    assert scheduler.run_due() == 1
    assert scheduler.run_due() == 0


def test_run_due_beside_another_instance_takes_half_of_the_rate(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url, settings=make_settings(max_rate=60), state_manager=Recorder())
    scheduler.schedule_many(make_jobs(40))
    with scheduler.database.transaction() as transaction:
        scheduler.stores.instances.note_alive(transaction, "another", "another", 1, None, None)
    began = time.monotonic()

    assert scheduler.run_due() == 40
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("name", ["max_rate", "max_rate_per_tenant"])
@pytest.mark.parametrize("value", [0, -1, "fast", float("inf"), float("nan")])
def test_a_rate_is_a_number_above_nothing(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Settings(**{name: value})

    assert refused.value.field == f"SCHEDULER_{name.upper()}"


class look_aheads:  # noqa: N801 - reads as a verb
    """How often the loop asks what is due next during the block."""

    def __init__(self, scheduler: TimeoutScheduler) -> None:
        self._engine = scheduler.database.engine
        self._statements: list[str] = []

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "later_timeout" in statement:
            self._statements.append(statement)

    def __enter__(self) -> list[str]:
        event.listen(self._engine, "before_cursor_execute", self._note)
        return self._statements

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._note)
