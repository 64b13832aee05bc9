"""The threads that fire: how much they take, what they do while the database is away, how they start and stop."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from scheduler import AlreadyRunningError, Outcome, ScheduledAction, SendRequest, TimeoutScheduler
from scheduler.domain.action import ActionType
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.scheduling import (
    FAR_AHEAD,
    LONG_AGO,
    Gate,
    Recorder,
    are_completed,
    execute,
    make_job,
    make_jobs,
    make_settings,
    statuses,
)

CHECKOUT = Path(__file__).parents[2]
HOUR = timedelta(hours=1)

SEND_PLAN = {
    "version": "1.0",
    "startNodeId": "intro",
    "nodes": [{"id": "intro", "action": "send", "transitions": [{"on": "opened", "to": "stop"}]}],
}

HOLD = """
import sys, threading
from scheduler import Settings, TimeoutScheduler
TimeoutScheduler(sys.argv[1], settings=Settings(instance_name="the-first", send_handler="external")).start()
print("started", flush=True)
threading.Event().wait()
"""

# SQLite remembers in memory who holds the file's lock: a child must not inherit it.
FORK_IN_A_WRITE = """
import os, sys, threading
from tests.support.scheduling import make_job, make_settings
from scheduler import TimeoutScheduler

scheduler = TimeoutScheduler(sys.argv[1], settings=make_settings())
began = threading.Event()

def write():
    with scheduler.database.transaction() as transaction:
        scheduler.schedule(make_job(), connection=transaction.connection)
        began.set()
        threading.Event().wait(0.5)

writer = threading.Thread(target=write)
writer.start()
began.wait()
child = os.fork()
if child == 0:
    code = 1
    try:
        scheduler.schedule(make_job(campaign_id="scheduled by the child"))
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
writer.join()
scheduler.schedule(make_job(campaign_id="after"))
assert len(scheduler.pending()) == 3
scheduler.close()
print("done")
"""
FORK = """
import os, sys
from tests.support.eventually import eventually
from tests.support.scheduling import Recorder, are_completed, make_job, make_settings, query
from scheduler import AlreadyRunningError, TimeoutScheduler

recorder = Recorder()
scheduler = TimeoutScheduler(sys.argv[1], settings=make_settings(), state_manager=recorder)
scheduler.start()
scheduler.schedule(make_job(campaign_id="before"))
eventually(are_completed(scheduler, [make_job(campaign_id="before")]))
parents_instance = scheduler.instance
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    code = 1
    try:
        assert not scheduler.apscheduler.running
        assert scheduler.instance != parents_instance
        scheduler.shutdown()
        scheduler.schedule(make_job(campaign_id="scheduled by the child"))
        if scheduler.database.is_postgresql:
            scheduler.start()
            assert scheduler.apscheduler.running
            scheduler.schedule(make_job(campaign_id="fired by somebody"))
            eventually(are_completed(scheduler, [make_job(campaign_id="fired by somebody")]))
            (own,) = query(scheduler, "SELECT pg_backend_pid()")
            os.write(writing, str(own[0]).encode())
        else:
            try:
                scheduler.start()
            except AlreadyRunningError as error:
                assert str(os.getppid()) in str(error)
                os.write(writing, b"refused")
        scheduler.close()
        code = 0
    finally:
        os._exit(code)
os.close(writing)
assert os.waitpid(child, 0)[1] == 0
told = os.read(reading, 100).decode()
assert scheduler.apscheduler.running
assert scheduler.instance == parents_instance
jobs = [make_job(campaign_id=name) for name in ("scheduled by the child", "after")]
scheduler.schedule(jobs[1])
eventually(are_completed(scheduler, jobs))
if scheduler.database.is_postgresql:
    connected = query(scheduler, "SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    parents = {row[0] for row in connected}
    assert int(told) not in parents
else:
    assert told == "refused"
scheduler.close()
print("done", flush=True)
"""


class Slow(Gate):
    """A gate that counts how many batches are in it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0
        self.most_inside = 0
        self._lock = threading.Lock()

    def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
        """Count."""
        with self._lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            return super().process(connection, jobs)
        finally:
            with self._lock:
                self.inside -= 1


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], int]]:
    """How often an event was logged, to be asked."""
    with caplog.at_level(logging.INFO, logger="timeout_scheduler"):
        yield lambda name: sum(f"event={name}" in record.getMessage() for record in list(caplog.records))


def count_claimed(scheduler: TimeoutScheduler) -> int:
    return len(scheduler.list_actions(statuses=["claimed"], limit=1000))


def turn(scheduler: TimeoutScheduler, times: int = 1) -> None:
    """Wait for turns of the scheduling loop."""
    for _ in range(times):
        turned = scheduler.last_turn
        scheduler.apscheduler.wakeup()
        eventually(lambda turned=turned: scheduler.last_turn > turned)  # type: ignore[misc]


def test_never_claims_more_than_it_can_take(database_url: str, open_scheduler: OpenScheduler) -> None:
    gate, jobs = Slow(), make_jobs(100)
    scheduler = open_scheduler(database_url, state_manager=gate, settings=make_settings(batch_size=4, workers=2))
    scheduler.schedule_many(jobs)

    scheduler.start()
    gate.wait_entered()
    if scheduler.database.is_postgresql:  # on SQLite the loop can't claim while a batch is being fired
        eventually(lambda: count_claimed(scheduler) == 12)
        turn(scheduler, times=3)
    while_busy = count_claimed(scheduler)
    gate.opened.set()

    assert while_busy <= 12
    eventually(are_completed(scheduler, jobs))
    assert gate.most_inside <= 2
    assert max(map(len, gate.batches)) == 4


def test_a_full_executor_does_not_keep_the_other_from_claiming(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    """Sends have threads, capacity and claims of their own."""
    entered, opened, sent = threading.Semaphore(0), threading.Event(), []

    def send(request: SendRequest) -> None:
        entered.release()
        opened.wait(30)
        sent.append(request.campaign_id)

    scheduler = open_scheduler(database_url, send_handler=send, settings=make_settings(send_workers=1, batch_size=10))
    for number in range(5):
        scheduler.campaigns.enroll("acme", f"send-{number}", "k-1", SEND_PLAN)
    scheduler.start()
    assert entered.acquire(timeout=10)

    scheduler.schedule(make_job())
    eventually(are_completed(scheduler, [make_job()]))
    claimed = count_claimed(scheduler)
    opened.set()

    assert claimed == 2
    eventually(lambda: len(sent) == 5)


def test_an_outage_while_firing_is_waited_out_and_the_batch_fires_once(
    open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    with PostgresServer() as server, closing(TimeoutScheduler(server.url(), settings=make_settings())) as other:
        other.migrate()
        gate, jobs = Gate(), make_jobs(3)
        scheduler = open_scheduler(server.url(), state_manager=gate)
        other.schedule_many(jobs)
        scheduler.start()
        gate.wait_entered()

        with logged(caplog) as count:
            server.kill9()
            gate.opened.set()
            eventually(lambda: count("database.unavailable"))
            server.start()

        eventually(are_completed(other, jobs))
        assert [other.find(job.dedupe_key).attempts for job in jobs] == [0, 0, 0]  # type: ignore[union-attr]
        scheduler.close()


def test_a_stop_during_an_outage_does_not_wait_for_its_end(
    open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    with PostgresServer() as server, closing(TimeoutScheduler(server.url(), settings=make_settings())) as other:
        other.migrate()
        gate = Gate()
        scheduler = open_scheduler(server.url(), state_manager=gate)
        other.schedule(make_job())
        scheduler.start()
        gate.wait_entered()
        with logged(caplog) as count:
            server.kill9()
            gate.opened.set()
            eventually(lambda: count("database.unavailable"))

            scheduler.shutdown()
            assert count("daemon.drain_timeout") == 0

        server.start()
        # Its claim may not have been on disk when the server died: then the timeout is due again.
        assert statuses(other, [make_job()]) in (["claimed"], ["pending"])
        scheduler.close()


def test_shutting_down_finishes_what_is_being_fired_and_takes_nothing_more(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    gate, jobs = Gate(), make_jobs(10)
    scheduler = open_scheduler(database_url, state_manager=gate, settings=make_settings(batch_size=2, workers=1))
    scheduler.schedule_many(jobs)
    scheduler.start()
    gate.wait_entered()
    if scheduler.database.is_postgresql:
        eventually(lambda: count_claimed(scheduler) == 4)

    stopping = threading.Thread(target=scheduler.shutdown)
    stopping.start()
    stopping.join(0.1)
    was_waiting = stopping.is_alive()
    gate.opened.set()
    stopping.join(20)

    assert was_waiting
    assert not stopping.is_alive()
    fired = len(gate.keys)
    assert fired in {2, 4}
    assert statuses(scheduler, jobs) == ["completed"] * fired + ["pending"] * (10 - fired)


def test_no_batch_begins_after_shutdown_has_returned(database_url: str, open_scheduler: OpenScheduler) -> None:
    recorder = Recorder()
    scheduler = open_scheduler(database_url, state_manager=recorder, settings=make_settings(batch_size=1))
    scheduler.schedule_many(make_jobs(60))

    for _ in range(5):
        scheduler.start()
        fired = len(recorder.batches)
        eventually(lambda fired=fired: len(recorder.batches) > fired or not scheduler.pending())  # type: ignore[misc]
        scheduler.shutdown()
        at_return = len(recorder.batches)

        assert count_claimed(scheduler) == 0
        assert len(recorder.batches) == at_return


@pytest.mark.parametrize("wait", [True, False])
def test_a_worker_that_hangs_keeps_nobody_from_leaving(
    database_url: str,
    open_scheduler: OpenScheduler,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    wait: bool,  # noqa: FBT001 - as APScheduler's
) -> None:
    monkeypatch.setattr("scheduler.store.database.BUSY_TIMEOUT_SECONDS", 0.2)
    gate, jobs = Gate(), make_jobs(4)
    settings = make_settings(batch_size=2, workers=1, shutdown_timeout=timedelta(milliseconds=50))
    scheduler = open_scheduler(database_url, state_manager=gate, settings=settings)
    scheduler.schedule_many(jobs)
    scheduler.start()
    gate.wait_entered()
    if scheduler.database.is_postgresql:
        eventually(lambda: count_claimed(scheduler) == 4)

    with logged(caplog) as count:
        stopping = threading.Thread(target=scheduler.shutdown, args=[wait])
        stopping.start()
        stopping.join(15)
        has_stopped = not stopping.is_alive()
        timed_out = count("daemon.drain_timeout")
    gate.opened.set()

    assert has_stopped
    assert timed_out == int(wait)
    eventually(are_completed(scheduler, jobs[:2]))
    assert gate.keys == [job.dedupe_key for job in jobs[:2]]
    if scheduler.database.is_postgresql:
        assert statuses(scheduler, jobs[2:]) == ["pending"] * 2


def test_a_scheduler_starts_again_after_a_shutdown(database_url: str, open_scheduler: OpenScheduler) -> None:
    recorder, jobs = Recorder(), make_jobs(3)
    scheduler = open_scheduler(database_url, state_manager=recorder)

    for job in jobs:
        scheduler.start()
        scheduler.schedule(job)
        eventually(are_completed(scheduler, [job]))
        scheduler.shutdown()
        scheduler.shutdown()

    assert recorder.keys == [job.dedupe_key for job in jobs]


def test_a_start_after_a_hung_shutdown_claims_no_more_than_it_can_take(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    gate, jobs = Gate(), make_jobs(12)
    settings = make_settings(batch_size=2, workers=1, shutdown_timeout=timedelta(0))
    scheduler = open_scheduler(postgresql_url, state_manager=gate, settings=settings)
    scheduler.schedule_many(jobs)
    scheduler.start()
    gate.wait_entered()
    scheduler.shutdown()

    scheduler.start()
    gate.wait_entered()
    eventually(lambda: count_claimed(scheduler) == 6)
    turn(scheduler, times=2)
    both_busy = count_claimed(scheduler)
    gate.opened.set()

    assert both_busy == 6
    eventually(are_completed(scheduler, jobs))
    assert sorted(gate.keys) == sorted(job.dedupe_key for job in jobs)


def test_it_may_be_used_as_a_context_manager(database_url: str, open_scheduler: OpenScheduler) -> None:
    with TimeoutScheduler(database_url, settings=make_settings(), state_manager=Recorder()) as scheduler:
        scheduler.schedule(make_job())
        eventually(are_completed(scheduler, [make_job()]))

    assert not scheduler.apscheduler.running
    assert statuses(open_scheduler(database_url), [make_job()]) == ["completed"]


def test_a_thread_outlives_a_state_manager_that_asks_it_to_exit(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    class Exiting(Recorder):
        """Exits on one campaign."""

        def process(self, connection: Connection, jobs: Sequence[ScheduledAction]) -> Sequence[Outcome | Exception]:
            """Exit."""
            answers = super().process(connection, jobs)
            if any(job.campaign_id == "exit" for job in jobs):
                sys.exit("as a script would")
            return answers

    scheduler = open_scheduler(database_url, state_manager=Exiting(), settings=make_settings(workers=1, batch_size=1))
    scheduler.start()
    scheduler.schedule(make_job(campaign_id="exit"))
    scheduler.schedule(make_job())

    eventually(are_completed(scheduler, [make_job()]))


def run_script(script: str, database_url: str) -> None:
    """In a process of its own, which says `done` at last."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, database_url],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_a_fork_waits_for_a_write_to_the_sqlite_file(sqlite_url: str) -> None:
    run_script(FORK_IN_A_WRITE, sqlite_url)


def test_a_forked_child_opens_connections_of_its_own_and_leaves_the_parents_alone(database_url: str) -> None:
    run_script(FORK, database_url)


def test_a_second_process_is_refused_on_sqlite_and_told_of_the_first(
    sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(sqlite_url, state_manager=Recorder())
    scheduler.schedule(make_job(campaign_id="c-2", scheduled_at=LONG_AGO))
    job = scheduler.apscheduler.get_job(make_job(campaign_id="c-2").dedupe_key)
    assert job is not None
    scheduler.cancel(job.id)
    firing: list[Callable[[], object]] = [scheduler.start, scheduler.run_due, lambda: job.func(**job.kwargs)]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, sqlite_url], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "started\n"

        for fire in firing:
            with pytest.raises(AlreadyRunningError, match=rf"process {first.pid} \(the-first\)"):
                fire()
        scheduler.schedule(make_job())
        first.kill()

    scheduler.start()
    eventually(are_completed(scheduler, [make_job()]))


def test_a_second_scheduler_in_the_same_process_is_refused_on_sqlite(
    sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    first, second = open_scheduler(sqlite_url), open_scheduler(sqlite_url)
    first.start()

    with pytest.raises(AlreadyRunningError):
        second.start()
    first.shutdown()

    second.start()


def test_another_name_of_the_same_file_is_the_same_file(
    sqlite_url: str, tmp_path: Path, open_scheduler: OpenScheduler
) -> None:
    link = tmp_path / "link.sqlite"
    link.symlink_to(sqlite_url.removeprefix("sqlite:///"))
    first, second = open_scheduler(sqlite_url), open_scheduler(f"sqlite:///{link}")
    first.start()

    with pytest.raises(AlreadyRunningError):
        second.start()


def test_threads_that_fire_by_hand_share_the_file_until_the_last_is_done(
    sqlite_url: str, open_scheduler: OpenScheduler
) -> None:
    gate = Gate()
    scheduler, other = open_scheduler(sqlite_url, state_manager=gate), open_scheduler(sqlite_url)
    scheduler.schedule(make_job())

    with ThreadPoolExecutor(2) as pool:
        firing = pool.submit(scheduler.run_due)
        gate.wait_entered()
        beside = pool.submit(scheduler.run_due)
        with pytest.raises(AlreadyRunningError):
            other.run_due()
        gate.opened.set()
        assert firing.result(20) + beside.result(20) == 1

    assert other.run_due() == 0


def test_firing_by_hand_takes_over_what_a_dead_process_had_claimed(
    database_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler, jobs = open_scheduler(database_url, state_manager=Recorder()), make_jobs(2)
    scheduler.schedule_many(jobs)
    with scheduler.database.transaction() as transaction:
        scheduler.stores.claims.claim(transaction, ActionType.TIMEOUT, 10, "dead", -HOUR)

    assert scheduler.run_due() == 2


def test_firing_by_hand_beside_a_running_loop_fires_each_once(database_url: str, open_scheduler: OpenScheduler) -> None:
    recorder, jobs = Recorder(), make_jobs(200)
    scheduler = open_scheduler(database_url, state_manager=recorder, settings=make_settings(batch_size=5))
    scheduler.start()

    scheduler.schedule_many(jobs)
    scheduler.run_due()

    eventually(are_completed(scheduler, jobs))
    assert sorted(recorder.keys) == sorted(job.dedupe_key for job in jobs)


class Statements:
    """Counts what a scheduler's loop says to its database, and when."""

    def __init__(self, scheduler: TimeoutScheduler) -> None:
        self.at: list[float] = []
        self.said: list[str] = []
        event.listen(scheduler.database.engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.current_thread().name == "APScheduler":
            self.at.append(time.monotonic())
            self.said.append(statement)


def test_an_idle_loop_asks_once_per_poll_interval(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url)
    scheduler.schedule(make_job(scheduled_at=LONG_AGO + timedelta(days=100_000)))
    scheduler.start()
    turn(scheduler, times=2)

    statements = Statements(scheduler)
    eventually(lambda: len(statements.at) > 10)

    assert statements.at[10] - statements.at[0] > 10 * 0.05 * 0.9
    assert {said.split()[0] for said in statements.said} == {"SELECT"}


def test_beside_an_idle_loop_hardly_anything_is_asked(database_url: str, open_scheduler: OpenScheduler) -> None:
    """Whoever keeps order takes what the loop saw, if that is young; once per lease the process says that it lives."""
    others: list[str] = []
    settings = make_settings(lease=timedelta(seconds=1), send_handler="external")
    scheduler = open_scheduler(database_url, settings=settings)
    scheduler.start()
    eventually(lambda: scheduler.metrics.registry.get_sample_value("timeout_scheduler_due") == 0)

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        is_look = "is_anything_claimed" in statement or statement == "BEGIN IMMEDIATE"
        if threading.current_thread().name != "APScheduler" and not is_look:
            others.append(statement)

    event.listen(scheduler.database.engine, "before_cursor_execute", note)
    lives = "INSERT INTO timeout_scheduler_instances"
    eventually(lambda: any(said.startswith(lives) for said in others))
    others.clear()
    eventually(lambda: len(others) >= 2)

    assert [said.startswith(lives) for said in others] == [True, True]


def test_what_is_due_and_held_by_somebody_else_is_asked_for_ever_less_often(
    postgresql_url: str, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(postgresql_url, state_manager=Recorder(), settings=make_settings(poll_interval=HOUR))
    scheduler.schedule_many(make_jobs(3))
    with ExitStack() as stack:
        holder = stack.enter_context(open_scheduler(postgresql_url).database.engine.connect())
        holder.execute(text("SELECT * FROM scheduled_actions FOR UPDATE"))
        statements = Statements(scheduler)
        scheduler.start()
        eventually(lambda: sum("held AS" in said for said in statements.said) > 6)
        claims = [at for at, said in zip(statements.at, statements.said, strict=True) if "held AS" in said]

        assert claims[6] - claims[1] > 0.04 + 0.08 + 0.16 + 0.32
        holder.rollback()

    eventually(are_completed(scheduler, make_jobs(3)))


def test_a_completion_wakes_a_loop_that_sleeps(database_url: str, open_scheduler: OpenScheduler) -> None:
    recorder, jobs = Recorder(), make_jobs(50)
    settings = make_settings(poll_interval=HOUR, batch_size=3, workers=1)
    scheduler = open_scheduler(database_url, state_manager=recorder, settings=settings)
    scheduler.schedule_many(jobs)

    scheduler.start()

    eventually(are_completed(scheduler, jobs))


def test_a_loop_that_sleeps_wakes_for_what_is_due_sooner(database_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(database_url, state_manager=Recorder(), settings=make_settings(poll_interval=HOUR))
    scheduler.start()
    turn(scheduler)
    soon = scheduler.database.real_clock.now() + timedelta(milliseconds=300)

    scheduler.schedule(make_job(scheduled_at=soon))

    eventually(are_completed(scheduler, [make_job()]))
    action = scheduler.find(make_job().dedupe_key)
    assert action is not None
    assert action.finished_at is not None
    assert timedelta(0) <= action.finished_at - soon < timedelta(seconds=2)


def test_claims_whose_lease_ended_are_taken_over_by_a_running_loop(
    database_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = make_jobs(3, scheduled_at=FAR_AHEAD)
    scheduler = open_scheduler(
        database_url, state_manager=Recorder(), settings=make_settings(lease=timedelta(milliseconds=400))
    )
    scheduler.start()
    turn(scheduler)
    with logged(caplog) as count:
        claim_as_somebody(scheduler, jobs)
        eventually(are_completed(scheduler, jobs))

        assert count("claims.recovered") == 1


def claim_as_somebody(scheduler: TimeoutScheduler, jobs: Sequence[Any]) -> None:
    """As if a process claimed them, and died."""
    scheduler.schedule_many(jobs)
    execute(
        scheduler,
        "UPDATE scheduled_actions SET status = 'claimed', claimed_by = 'dead', claim_number = 1,"
        " claimed_until = :past, run_at = :past WHERE status = 'pending'",
        past="2020-01-01 00:00:00.000000" if scheduler.database.dialect_name == "sqlite" else LONG_AGO,
    )
