"""What APScheduler 3 does to its jobs, fact by fact, and that a timeout doesn't suffer it.

Where it is cheap, the fact itself is shown first, on APScheduler's own job store: a release of it that behaves
otherwise then tells us here.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_MISSED
from apscheduler.executors.base import BaseExecutor, MaxInstancesReachedError
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Connection

from scheduler import Outcome, ScheduledAction, TimeoutScheduler
from scheduler.domain.timing import SystemClock
from scheduler.runtime.campaign_scheduler import ALIAS
from scheduler.testing import SettableClock
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.scheduling import (
    LONG_AGO,
    NOON,
    WAIT_PLAN,
    Gate,
    Recorder,
    are_completed,
    execute,
    make_job,
    make_jobs,
    make_settings,
    query,
    statuses,
)

CHECKOUT = Path(__file__).parents[2]

FIRE_AND_HANG = """
import sys, threading
from datetime import timedelta
from scheduler import Settings, TimeoutScheduler
class Hanging:
    def process(self, connection, jobs):
        print("entered", flush=True)
        threading.Event().wait()
settings = Settings(poll_interval=timedelta(milliseconds=50), lease=timedelta(seconds=2), send_handler="external")
TimeoutScheduler(sys.argv[1], settings=settings, state_manager=Hanging()).start()
threading.Event().wait()
"""


SCHEDULE = """
import sys
from scheduler import TimeoutScheduler
from tests.support.scheduling import make_job
TimeoutScheduler(sys.argv[1]).schedule(make_job())
"""


def now() -> datetime:
    return SystemClock().now()


@contextmanager
def stock_scheduler() -> Iterator[BackgroundScheduler]:
    """APScheduler as it comes."""
    stock = BackgroundScheduler(timezone="UTC")
    stock.start()
    try:
        yield stock
    finally:
        stock.shutdown(wait=False)


def test_stock_apscheduler_forgets_a_date_job_before_it_ran() -> None:
    began, ended = threading.Event(), threading.Event()

    def run() -> None:
        began.set()
        ended.wait(30)

    with stock_scheduler() as stock:
        stock.add_job(run, "date", id="once")
        assert began.wait(10)
        assert stock.get_job("once") is None
        ended.set()


def test_a_timeout_stays_in_the_table_until_it_has_fired(database_url: str, open_scheduler: OpenScheduler) -> None:
    gate, job = Gate(), make_job()
    scheduler = open_scheduler(database_url, state_manager=gate)
    scheduler.schedule(job)

    scheduler.start()
    gate.wait_entered()
    while_firing = statuses(scheduler, [job])
    found = scheduler.apscheduler.get_job(job.dedupe_key)
    gate.opened.set()

    assert while_firing == ["claimed"]
    assert found is not None
    eventually(are_completed(scheduler, [job]))
    assert gate.keys == [job.dedupe_key]


def test_a_process_killed_between_submission_and_effect_loses_nothing(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    recorder, jobs = Recorder(), make_jobs(3)
    scheduler = open_scheduler(
        database_url, state_manager=recorder, settings=make_settings(lease=timedelta(milliseconds=200))
    )
    scheduler.schedule_many(jobs)
    with subprocess.Popen(
        [sys.executable, "-c", FIRE_AND_HANG, database_url], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as doomed:
        assert doomed.stdout is not None
        assert doomed.stdout.readline() == "entered\n"
        killed_at = statuses(scheduler, jobs)
        doomed.kill()

    scheduler.start()

    assert killed_at == ["claimed"] * 3
    eventually(are_completed(scheduler, jobs))
    assert sorted(recorder.keys) == [job.dedupe_key for job in jobs]


class Refusing(BaseExecutor):  # type: ignore[misc]
    """An executor that takes nothing, and counts how often it was asked."""

    def __init__(self, refusal: Callable[[Any], Exception]) -> None:
        super().__init__()
        self.refused: list[str] = []
        self._refusal = refusal

    def submit_job(self, job: Any, run_times: list[datetime]) -> None:  # noqa: ARG002
        """Refuse."""
        self.refused.append(job.id)
        raise self._refusal(job)

    def _do_submit_job(self, *_: Any) -> None:
        raise AssertionError


@contextmanager
def replaced_executor(scheduler: TimeoutScheduler, executor: BaseExecutor | None) -> Iterator[None]:
    """Another executor under the alias of timeouts (None: none at all), and then the right one again.

    Between two turns of the loop, which holds this lock through each: an executor started anew in the middle of one
    forgets what it was just given.
    """
    apscheduler = scheduler.apscheduler
    between_turns = apscheduler._jobstores_lock  # noqa: SLF001 - there is no other way to ask
    right = apscheduler._lookup_executor(ALIAS)  # noqa: SLF001 - the same
    with between_turns:
        apscheduler.remove_executor(ALIAS, shutdown=False)
        if executor is not None:
            apscheduler.add_executor(executor, ALIAS)
    yield
    with between_turns:
        if executor is not None:
            apscheduler.remove_executor(ALIAS)
        apscheduler.add_executor(right, ALIAS)


@pytest.mark.parametrize(
    "refusal",
    [lambda _job: RuntimeError("no thread left"), MaxInstancesReachedError],
    ids=["submission failed", "max_instances reached"],
)
def test_a_timeout_that_could_not_be_submitted_is_due_again(
    database_url: str, open_scheduler: OpenScheduler, refusal: Callable[[Any], Exception]
) -> None:
    recorder, refusing, jobs = Recorder(), Refusing(refusal), make_jobs(3)
    scheduler = open_scheduler(database_url, state_manager=recorder)
    scheduler.start()

    with replaced_executor(scheduler, refusing):
        scheduler.schedule_many(jobs)
        eventually(lambda: len(refusing.refused) > len(jobs))

    eventually(are_completed(scheduler, jobs))
    assert sorted(recorder.keys) == [job.dedupe_key for job in jobs]
    assert [scheduler.find(job.dedupe_key).attempts for job in jobs] == [0, 0, 0]  # type: ignore[union-attr]


def test_a_timeout_whose_executor_is_missing_is_not_removed(
    database_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job()
    scheduler = open_scheduler(database_url, state_manager=Recorder())
    scheduler.start()

    with replaced_executor(scheduler, None):
        scheduler.schedule(job)
        eventually(lambda: "Executor lookup" in caplog.text)

    eventually(are_completed(scheduler, [job]))


def test_stock_apscheduler_skips_a_job_that_is_late() -> None:
    missed = threading.Event()
    with stock_scheduler() as stock:
        stock.add_listener(lambda _event: missed.set(), EVENT_JOB_MISSED)
        stock.add_job(lambda: None, "date", run_date=now() - timedelta(days=1))
        assert missed.wait(10)


@pytest.mark.parametrize("lateness", [timedelta(seconds=2), timedelta(days=1), timedelta(days=3650)])
def test_a_timeout_fires_however_late_it_is(
    database_url: str, open_scheduler: OpenScheduler, lateness: timedelta
) -> None:
    job = make_job(scheduled_at=now() - lateness)
    scheduler = open_scheduler(database_url, state_manager=Recorder())
    heard: list[Any] = []
    scheduler.apscheduler.add_listener(heard.append, EVENT_JOB_EXECUTED | EVENT_JOB_MISSED)
    scheduler.schedule(job)

    scheduler.start()

    eventually(lambda: heard)
    assert [(event.code, event.job_id) for event in heard] == [(EVENT_JOB_EXECUTED, job.dedupe_key)]


def test_a_row_nobody_understands_is_kept(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN)
    for number, event_type in enumerate(("no_such_thing", "opened", "☃", "")):
        execute(
            scheduler,
            "INSERT INTO scheduled_actions"
            " (tenant_id, dedupe_key, campaign_id, contact_id, node_id, event_type, run_at)"
            " VALUES ('acme', :key, 'c-1', 'k-1', 'wait', :event_type, '2020-01-01T00:00:00+00:00')",
            key=f"not a key {number}",
            event_type=event_type,
        )

    scheduler.start()

    eventually(lambda: not scheduler.list_actions(statuses=["pending", "claimed"], due_before=LONG_AGO))
    rows = query(scheduler, "SELECT status, outcome FROM scheduled_actions WHERE dedupe_key LIKE 'not a key%'")
    assert rows == [("completed", "no_transition")] * 4
    campaign = scheduler.campaigns.find("acme", "c-1")
    assert campaign is not None
    assert campaign.current_node_id == "wait"


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM campaign_plans", "UPDATE campaign_plans SET plan = '{'", "UPDATE campaign_plans SET plan = '{}'"],
)
def test_a_timeout_whose_plan_is_gone_is_parked_as_error_and_holds_up_nobody(
    database_url: str, open_scheduler: OpenScheduler, damage: str
) -> None:
    clock = SettableClock(NOON)
    scheduler = open_scheduler(database_url, clock=clock, settings=make_settings(max_attempts=2))
    scheduler.campaigns.enroll("acme", "c-1", "k-1", WAIT_PLAN)
    execute(scheduler, damage)
    scheduler.campaigns.enroll("other", "c-1", "k-1", WAIT_PLAN)
    afterwards = open_scheduler(database_url, clock=clock, settings=make_settings(max_attempts=2))
    clock.advance("PT73H")

    first = afterwards.run_due()
    clock.advance("PT1H")
    second = afterwards.run_due()

    assert (first, second) == (1, 1)
    rows = query(scheduler, "SELECT tenant_id, status, attempts FROM scheduled_actions ORDER BY tenant_id")
    assert rows == [("acme", "error", 2), ("other", "completed", 0)]
    assert afterwards.retry("acme:c-1:wait:1:timeout:no_open")


def test_what_is_due_is_claimed_in_bounded_batches(database_url: str, open_scheduler: OpenScheduler) -> None:
    gate, jobs = Gate(), make_jobs(40)
    scheduler = open_scheduler(database_url, state_manager=gate, settings=make_settings(batch_size=5, workers=1))
    scheduler.schedule_many(jobs)

    scheduler.start()
    gate.wait_entered()
    if scheduler.database.is_postgresql:  # on SQLite the loop can't claim while a batch is being fired
        eventually(lambda: statuses(scheduler, jobs).count("claimed") == 10)
    while_busy = statuses(scheduler, jobs).count("claimed")
    gate.opened.set()

    assert while_busy <= 10

    eventually(are_completed(scheduler, jobs))
    assert {len(batch) for batch in gate.batches} == {5}
    assert gate.keys == [job.dedupe_key for job in jobs]


def test_schedulers_that_share_a_database_fire_each_timeout_once(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    recorders, jobs = [Recorder(), Recorder()], make_jobs(400)
    schedulers = [
        open_scheduler(postgresql_url, state_manager=recorder, settings=make_settings(batch_size=7))
        for recorder in recorders
    ]
    for scheduler in schedulers:
        scheduler.start()

    schedulers[0].schedule_many(jobs)

    eventually(are_completed(schedulers[0], jobs), timeout=30)
    assert sorted(key for recorder in recorders for key in recorder.keys) == sorted(job.dedupe_key for job in jobs)


class Saboteur(BaseExecutor):  # type: ignore[misc]
    """Passes a job on, but breaks something first: after the claim, before APScheduler goes on."""

    def __init__(self, executor: BaseExecutor, sabotage: Callable[[], None]) -> None:
        super().__init__()
        self._executor = executor
        self._sabotage = sabotage

    def submit_job(self, job: Any, run_times: list[datetime]) -> None:
        """Sabotage."""
        self._sabotage()
        self._executor.submit_job(job, run_times)

    def _do_submit_job(self, *_: Any) -> None:
        raise AssertionError


class Broken(BaseJobStore):  # type: ignore[misc]
    """A job store that fails where APScheduler doesn't survive it."""

    def get_due_jobs(self, _now: datetime) -> list[Any]:
        """Nothing."""
        return []

    def get_next_run_time(self) -> datetime | None:
        """Fail."""
        raise RuntimeError("the database is away")

    def lookup_job(self, job_id: str) -> Any:
        """None."""

    def get_all_jobs(self) -> list[Any]:
        """None."""
        return []

    def add_job(self, job: Any) -> None:
        """Not used."""

    def update_job(self, job: Any) -> None:
        """Not used."""

    def remove_job(self, job_id: str) -> None:
        """Not used."""

    def remove_all_jobs(self) -> None:
        """Not used."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_stock_apscheduler_dies_of_an_error_in_get_next_run_time() -> None:
    stock = BackgroundScheduler(timezone="UTC")
    stock.add_jobstore(Broken(), "broken")

    stock.start()

    eventually(lambda: not stock._thread.is_alive())  # noqa: SLF001
    stock.shutdown(wait=False)


@contextmanager
def events_logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], int]]:
    """How often an event was logged, to be asked."""
    with caplog.at_level(logging.INFO, logger="timeout_scheduler"):
        yield lambda event: sum(f"event={event}" in record.getMessage() for record in list(caplog.records))


def test_the_loop_outlives_a_table_that_vanishes_for_a_while(
    database_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_jobs(2)
    scheduler = open_scheduler(database_url, state_manager=Recorder())
    scheduler.start()

    with events_logged(caplog) as count:
        execute(scheduler, "ALTER TABLE scheduled_actions RENAME TO moved")
        eventually(lambda: count("loop.error") > 2)
        execute(scheduler, "ALTER TABLE moved RENAME TO scheduled_actions")

    scheduler.schedule_many(jobs)
    eventually(are_completed(scheduler, jobs))


def test_the_loop_outlives_a_database_that_breaks_while_jobs_are_handed_over(
    database_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, jobs, is_broken = Recorder(), make_jobs(3), threading.Event()
    scheduler = open_scheduler(database_url, state_manager=recorder)

    def rename() -> None:
        if not is_broken.is_set():
            is_broken.set()
            execute(scheduler, "ALTER TABLE scheduled_actions RENAME TO moved")

    right = scheduler.apscheduler._lookup_executor(ALIAS)  # noqa: SLF001
    scheduler.start()
    with events_logged(caplog) as count, replaced_executor(scheduler, Saboteur(right, rename)):
        scheduler.schedule_many(jobs)
        eventually(lambda: is_broken.is_set() and count("loop.error"))
        execute(scheduler, "ALTER TABLE moved RENAME TO scheduled_actions")
        execute(scheduler, "UPDATE scheduled_actions SET claimed_until = :past", past="2020-01-01T00:00:00+00:00")

    scheduler.shutdown()
    scheduler.start()
    eventually(are_completed(scheduler, jobs))


def test_the_loop_outlives_an_outage_and_says_so_once(
    open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_jobs(5)
    with PostgresServer() as server, closing(TimeoutScheduler(server.url())) as setup:
        setup.migrate()
        scheduler = open_scheduler(server.url(), state_manager=Recorder())
        scheduler.start()
        with events_logged(caplog) as count:
            turned = scheduler.last_turn
            server.kill9()
            eventually(lambda: count("database.unavailable"))
            turned = scheduler.last_turn
            eventually(lambda: scheduler.last_turn > turned)
            eventually(lambda: scheduler.last_turn > turned + 0.3)
            server.start()
            eventually(lambda: count("database.recovered"))

            assert (count("database.unavailable"), count("database.recovered")) == (1, 1)
        setup.schedule_many(jobs)
        eventually(are_completed(scheduler, jobs))
        scheduler.close()


def test_the_loop_outlives_the_end_of_its_connections(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    jobs = make_jobs(30)
    scheduler = open_scheduler(postgresql_url, state_manager=Recorder(), settings=make_settings(batch_size=2))
    other = open_scheduler(postgresql_url)
    scheduler.start()
    scheduler.schedule_many(jobs)

    for _ in range(5):
        query(other, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    execute(
        other, "UPDATE scheduled_actions SET claimed_until = now() - interval '1 h' WHERE claimed_until IS NOT NULL"
    )
    scheduler.shutdown()
    scheduler.start()
    eventually(are_completed(other, jobs), timeout=20)


def test_a_clock_ahead_of_the_machines_fires_what_is_due_by_it(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    job = make_job(scheduled_at=now() + timedelta(hours=23))
    recorder = Recorder()
    scheduler = open_scheduler(database_url, state_manager=recorder, clock=SettableClock(now() + timedelta(days=1)))
    scheduler.schedule(job)

    scheduler.start()

    eventually(are_completed(scheduler, [job]))
    assert recorder.keys == [job.dedupe_key]


def test_a_clock_behind_the_machines_fires_nothing_before_its_time(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    early, late = make_job(scheduled_at=NOON + timedelta(seconds=1)), make_job(campaign_id="c-2", scheduled_at=NOON)
    clock = SettableClock(NOON)
    scheduler = open_scheduler(database_url, state_manager=Recorder(), clock=clock)
    scheduler.schedule_many([early, late])

    scheduler.start()
    eventually(are_completed(scheduler, [late]))

    assert statuses(scheduler, [early]) == ["pending"]
    clock.advance("PT1S")
    eventually(are_completed(scheduler, [early]))


def test_a_job_added_before_start_is_really_in_the_table(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, other = open_scheduler(database_url), open_scheduler(database_url)
    job = make_job()

    scheduler.apscheduler.add_job(
        scheduler.fire,
        "date",
        run_date=LONG_AGO,
        id=job.dedupe_key,
        kwargs={
            "tenant_id": "acme",
            "campaign_id": "c-1",
            "contact_id": "k-1",
            "node_id": "intro",
            "event_type": "no_open",
            "scheduled_at": LONG_AGO,
        },
    )

    assert statuses(other, [job]) == ["pending"]
    assert other.run_due() == 1


def test_what_another_process_inserts_is_picked_up_within_the_poll_interval(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    recorder = Recorder()
    scheduler = open_scheduler(database_url, state_manager=recorder)
    scheduler.start()
    turned = scheduler.last_turn
    eventually(lambda: scheduler.last_turn > turned)

    subprocess.run([sys.executable, "-c", SCHEDULE, database_url], cwd=CHECKOUT, check=True)

    eventually(are_completed(scheduler, [make_job()]), timeout=5)


def test_what_is_far_away_does_not_keep_the_loop_from_looking(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler, other = open_scheduler(database_url, state_manager=Recorder()), open_scheduler(database_url)
    other.schedule(make_job(campaign_id="far", scheduled_at=now() + timedelta(days=400)))
    scheduler.start()
    turned = scheduler.last_turn
    eventually(lambda: scheduler.last_turn > turned)

    other.schedule(make_job())

    eventually(are_completed(scheduler, [make_job()]), timeout=5)


class Curious(Gate):
    """A state manager that asks APScheduler about what it fires."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler: TimeoutScheduler | None = None
        self.found: list[Any] = []

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """Ask, once the gate is open."""
        answers = super().process(connection, jobs)
        assert self.scheduler is not None
        apscheduler = self.scheduler.apscheduler
        found = [apscheduler.get_job(job.dedupe_key) for job in jobs] + apscheduler.get_jobs()
        self.found += [None if job is None else job.id for job in found]
        return answers


def test_shutting_down_does_not_deadlock_with_a_state_manager_that_asks_apscheduler(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    curious, job = Curious(), make_job()
    scheduler = open_scheduler(database_url, state_manager=curious)
    curious.scheduler = scheduler
    scheduler.schedule(job)
    scheduler.start()
    curious.wait_entered()

    stopping = threading.Thread(target=scheduler.shutdown)
    stopping.start()
    curious.opened.set()
    stopping.join(20)

    assert not stopping.is_alive()
    assert curious.found == [job.dedupe_key, job.dedupe_key]
    assert statuses(scheduler, [job]) == ["completed"]


def test_shutting_down_does_not_deadlock_with_a_listener_that_asks_apscheduler(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, job = open_scheduler(database_url, state_manager=Recorder()), make_job()
    heard, go_on, found = threading.Event(), threading.Event(), []

    def listen(event: Any) -> None:
        heard.set()
        go_on.wait(30)
        found.append(scheduler.apscheduler.get_job(event.job_id))
        found.extend(scheduler.apscheduler.get_jobs())

    scheduler.apscheduler.add_listener(listen, EVENT_JOB_EXECUTED)
    scheduler.schedule(job)
    scheduler.start()
    assert heard.wait(10)

    stopping = threading.Thread(target=scheduler.shutdown)
    stopping.start()
    go_on.set()
    stopping.join(20)

    assert not stopping.is_alive()
    assert found == [None]
