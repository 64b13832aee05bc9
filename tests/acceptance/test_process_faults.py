"""What happens to a process: told to leave in the middle, told twice, stopped for a while, out of memory."""

from __future__ import annotations

import gzip
import json
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any, Final

import pytest

from scheduler import TimeoutScheduler
from tests.support.daemon import DaemonProcess, environment, run_command, running
from tests.support.eventually import eventually
from tests.support.gated import POISONED, Effects, Gate, create_effects, effects
from tests.support.memory_limit import memory_limit
from tests.support.scheduling import are_completed, make_job, make_jobs, make_settings, query
from tests.support.walk import make_document, on, send
from tests.support.web_receiver import Received, answers, receiving

JOBS: Final = 20
LITTLE_MEMORY: Final = 200 << 20
ONE_MAIL: Final = make_document(send("intro", on("opened", "stop"), on("no_open", "stop", after="P36500D")))
# One thread and small batches, so that what is in a worker and what waits for it can be told apart.
SMALL: Final = {"SCHEDULER_WORKERS": "1", "SCHEDULER_BATCH_SIZE": "5"}
TIMEOUTS: Final = {**SMALL, "SCHEDULER_STATE_MANAGER": "tests.support.gated:Gated"}
SENDS: Final = {"SCHEDULER_SEND_WORKERS": "1", "SCHEDULER_SEND_HANDLER": "tests.support.gated:send"}
NEVER_DUE_AGAIN: Final = {"SCHEDULER_LEASE": "PT1H"}


@pytest.fixture
def scheduler(database_url: str) -> Iterator[TimeoutScheduler]:
    """Schedules and looks; never fires."""
    scheduler = TimeoutScheduler(database_url, settings=make_settings())
    create_effects(scheduler)
    yield scheduler
    scheduler.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


def states(scheduler: TimeoutScheduler, action_type: str = "timeout") -> Counter[str]:
    rows = query(scheduler, "SELECT status FROM scheduled_actions WHERE action_type = :kind", kind=action_type)
    return Counter(status for (status,) in rows)


def schedule(scheduler: TimeoutScheduler, count: int = JOBS) -> list[str]:
    jobs = make_jobs(count)
    scheduler.schedule_many(jobs)
    return sorted(job.dedupe_key for job in jobs)


def enroll(scheduler: TimeoutScheduler, count: int) -> None:
    for number in range(count):
        scheduler.campaigns.enroll("acme", f"m-{number}", f"k-{number}", ONE_MAIL)


def fire_the_rest(url: str, keys: list[str]) -> None:
    """As the process after the one that left or died would; in the end each key has taken effect, and once."""
    with closing(TimeoutScheduler(url, settings=make_settings(), state_manager=Effects())) as scheduler:

        def is_done() -> bool:
            scheduler.run_due()
            return len(effects(scheduler)) >= len(keys)

        eventually(is_done, timeout=20)
        assert effects(scheduler) == keys


def tell_to_leave(daemon: DaemonProcess) -> None:
    """SIGTERM; returns once it is draining."""
    daemon.process.send_signal(signal.SIGTERM)
    daemon.wait_until("daemon.draining")


# SIGTERM


def test_a_batch_that_is_being_fired_is_finished_before_leaving_and_the_rest_is_handed_back(
    scheduler: TimeoutScheduler, database_url: str, tmp_path: Path, gate: Gate
) -> None:
    keys = schedule(scheduler)
    env = environment(database_url, **TIMEOUTS, **NEVER_DUE_AGAIN, **gate.environment)
    with running(tmp_path, env) as daemon:
        gate.wait_for("timeouts")
        tell_to_leave(daemon)
        gate.open()
        assert daemon.process.wait(30) == 0
        assert "daemon.drain_timeout" not in daemon.log.read_text("utf-8")
    finished = effects(scheduler)
    assert len(finished) in {5, 10}  # what was in the worker, and what waited for it
    assert states(scheduler) == {"completed": len(finished), "pending": JOBS - len(finished)}
    fire_the_rest(database_url, keys)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_mail_that_is_going_out_is_finished_before_leaving(
    scheduler: TimeoutScheduler, database_url: str, tmp_path: Path, gate: Gate
) -> None:
    enroll(scheduler, 4)
    env = environment(database_url, **SENDS, **NEVER_DUE_AGAIN, **gate.environment)
    with running(tmp_path, env) as daemon:
        gate.wait_for("sends")
        tell_to_leave(daemon)
        gate.open()
        assert daemon.process.wait(30) == 0
    begun = gate.begun("sends")
    assert len(begun) in {1, 2}
    assert states(scheduler, "send") == {"completed": len(begun), "pending": 4 - len(begun)}


def test_who_is_slower_than_the_shutdown_timeout_is_left_and_its_mail_is_not_handed_back(
    scheduler: TimeoutScheduler, database_url: str, tmp_path: Path, gate: Gate
) -> None:
    """A mail that may be half sent waits for its lease, or until its process is known to be gone; the rest is due."""
    enroll(scheduler, 3)
    given = {**SENDS, **NEVER_DUE_AGAIN, **gate.environment, "SCHEDULER_SHUTDOWN_TIMEOUT": "PT0.2S"}
    keys = []
    if scheduler.database.is_postgresql:  # on SQLite a transaction that hangs leaves nobody else any
        keys = schedule(scheduler)
        given |= TIMEOUTS
    with running(tmp_path, environment(database_url, **given)) as daemon:
        gate.wait_for("sends")
        if keys:
            gate.wait_for("timeouts")
            eventually(lambda: states(scheduler)["claimed"] == 10)
        assert daemon.terminate() == 0
        assert "daemon.drain_timeout" in daemon.log.read_text("utf-8")
    assert states(scheduler, "send") == {"claimed": 1, "pending": 2}
    fire_the_rest(database_url, keys)


def test_who_is_told_twice_leaves_at_once_and_loses_nothing(
    scheduler: TimeoutScheduler, database_url: str, tmp_path: Path, gate: Gate
) -> None:
    keys = schedule(scheduler)
    env = environment(database_url, **TIMEOUTS, **gate.environment)
    with running(tmp_path, env) as daemon:
        gate.wait_for("timeouts")
        tell_to_leave(daemon)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(5) == 128 + signal.SIGTERM
    assert effects(scheduler) == []
    fire_the_rest(database_url, keys)


# SIGSTOP


def test_who_is_stopped_for_longer_than_the_lease_repeats_nothing_and_goes_on_afterwards(
    postgresql_url: str, tmp_path: Path
) -> None:
    """The batch in its worker is its own for as long as its transaction is open; what waits in it, others take."""
    scheduler = TimeoutScheduler(postgresql_url, settings=make_settings())
    create_effects(scheduler)
    first_gate, second_gate = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    second_gate.open()
    given = {**TIMEOUTS, "SCHEDULER_LEASE": "PT1S"}
    keys = schedule(scheduler)
    with ExitStack() as stack:
        stopped = stack.enter_context(
            running(tmp_path, environment(postgresql_url, **given, **first_gate.environment), "stopped")
        )
        first_gate.wait_for("timeouts")
        eventually(lambda: states(scheduler)["claimed"] == 10)
        stopped.process.send_signal(signal.SIGSTOP)
        other = stack.enter_context(
            running(tmp_path, environment(postgresql_url, **given, **second_gate.environment), "other")
        )
        eventually(lambda: len(effects(scheduler)) >= 15, timeout=20)

        first_gate.open()
        stopped.process.send_signal(signal.SIGCONT)
        eventually(lambda: len(effects(scheduler)) >= JOBS)
        assert other.terminate() == 0
        scheduler.schedule(make_job(campaign_id="later"))
        eventually(are_completed(scheduler, [make_job(campaign_id="later")]))
        assert stopped.terminate() == 0
    assert effects(scheduler) == sorted([*keys, make_job(campaign_id="later").dedupe_key])
    scheduler.close()


# Memory


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_who_is_killed_for_want_of_memory_loses_nothing(
    scheduler: TimeoutScheduler, database_url: str, tmp_path: Path, gate: Gate
) -> None:
    keys = schedule(scheduler)
    given = {**SMALL, "SCHEDULER_STATE_MANAGER": "tests.support.gated:Greedy"}
    env = environment(database_url, **given, **gate.environment)
    with memory_limit(LITTLE_MEMORY) as limit:
        daemon = DaemonProcess(tmp_path, env)
        try:
            limit.hold(daemon.process.pid)
            assert daemon.process.wait(60) == -signal.SIGKILL
        finally:
            daemon.kill()
    assert len(effects(scheduler)) == 5
    fire_the_rest(database_url, keys)


@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="needs Linux, where one process can limit another's memory"
)
def test_whatever_a_process_does_when_it_gets_no_memory_nothing_is_lost_or_repeated(
    scheduler: TimeoutScheduler, database_url: str, tmp_path: Path, gate: Gate
) -> None:
    """Each of its threads may fail anywhere, for a second; then there is memory again, if it still lives."""
    keys = schedule(scheduler, 200)
    env = environment(
        database_url,
        SCHEDULER_STATE_MANAGER="tests.support.gated:Starved",
        SCHEDULER_MAX_ATTEMPTS="1000",
        MALLOC_ARENA_MAX="1",  # else each thread has a reserve of its own, which no limit takes away
        **gate.environment,
    )
    with running(tmp_path, env) as daemon:
        gate.wait_for("starved")
        if is_alive_after_a_second(daemon):
            resource.prlimit(daemon.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if is_alive_after_a_second(daemon):
            daemon.kill()
    fire_the_rest(database_url, keys)


def is_alive_after_a_second(daemon: DaemonProcess) -> bool:
    with suppress(TimeoutExpired):
        daemon.process.wait(1)
    return daemon.process.poll() is None


# One that can't be fired


def test_what_cannot_be_fired_is_reported_once_and_fires_when_it_is_reopened(
    scheduler: TimeoutScheduler, database_url: str, tmp_path: Path, gate: Gate
) -> None:
    keys = schedule(scheduler)
    poisoned = make_job(campaign_id=POISONED)
    scheduler.schedule(poisoned)
    given = {
        "SCHEDULER_STATE_MANAGER": "tests.support.gated:Allergic",
        "SCHEDULER_MAX_ATTEMPTS": "3",
        "SCHEDULER_RETRY_BASE": "PT0.01S",
        "SCHEDULER_RETRY_MAX": "PT0.01S",
    }
    with receiving() as sentry:
        sentry.script = [answers(200, b"{}")]
        dsn = f"http://public@localhost:{sentry.port}/1"
        env = environment(database_url, **given, **gate.environment, SCHEDULER_SENTRY_DSN=dsn)
        with running(tmp_path, env) as daemon:
            # Its batch is halved until it is alone: the other halves may come after it.
            eventually(lambda: states(scheduler)["error"] == 1 and len(effects(scheduler)) >= len(keys))
            assert effects(scheduler) == keys
            gate.open()
            run_command(tmp_path, env, "actions", "retry", poisoned.dedupe_key)
            eventually(are_completed(scheduler, [poisoned]))
            assert daemon.terminate() == 0
    assert effects(scheduler) == sorted([*keys, poisoned.dedupe_key])
    reports = [event for request in sentry.requests for event in events_of(request)]
    # Timeouts that have been due for years are an incident, too: a message, and no exception.
    errors = [event for event in reports if "exception" in event]
    assert [event["exception"]["values"][-1]["value"] for event in errors] == ["not this one"]


def events_of(request: Received) -> Iterator[Any]:
    """The events in an envelope: a header, and then a line about each item before the item."""
    is_packed = request.headers.get("content-encoding") == "gzip"
    lines = (gzip.decompress(request.body) if is_packed else request.body).splitlines()
    for about, item in zip(lines[1::2], lines[2::2], strict=True):
        if json.loads(about)["type"] == "event":
            yield json.loads(item)
