"""Applications of several processes: workers forked from one that made the scheduler, and others beside a daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from scheduler import TimeoutScheduler
from tests.support.daemon import environment, running
from tests.support.eventually import eventually
from tests.support.gated import create_effects, effects
from tests.support.prefork import CAMPAIGNS, WORKERS
from tests.support.scheduling import LONG_AGO, make_jobs, make_settings, query
from tests.support.walk import make_document, on, wait

CHECKOUT: Final = Path(__file__).parents[2]
JOBS: Final = 300
NEIGHBOURS: Final = 2
VISITORS: Final = 100
TWO_WAITS: Final = make_document(
    wait("first", on("opened", "second"), on("no_open", "second", after="PT1H")),
    wait("second", on("opened", "stop"), on("no_open", "stop", after="PT0.2S")),
)


@pytest.fixture
def scheduler(database_url: str) -> Iterator[TimeoutScheduler]:
    """Schedules and looks; never fires."""
    with closing(TimeoutScheduler(database_url, settings=make_settings())) as scheduler:
        create_effects(scheduler)
        yield scheduler


class Application:
    """A process that speaks in lines of JSON, and is told to go on by a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def hear(self) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def tell(self) -> None:
        """Go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("go on\n")
        self._process.stdin.flush()


@contextmanager
def application(module: str, *words: str) -> Iterator[Application]:
    """The module as a process; after the block it has come to its end, with 0 and without a word of complaint."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", f"tests.support.{module}", *words]
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Application(process)
            _, complaints = process.communicate(timeout=30)
        finally:
            process.kill()
        assert (process.returncode, complaints) == (0, "")


def test_a_scheduler_made_before_the_fork_is_started_by_every_worker(
    scheduler: TimeoutScheduler, database_url: str
) -> None:
    """On PostgreSQL all of them fire, each as itself. On SQLite the first does, and the others are told by whom."""
    jobs = make_jobs(JOBS)
    keys = sorted(job.dedupe_key for job in jobs)
    with application("prefork", database_url) as server:
        workers = [server.hear() for _ in range(WORKERS)]
        firing = [worker for worker in workers if "instance" in worker]
        refused = [worker for worker in workers if "refused" in worker]
        scheduler.schedule_many(jobs)
        if scheduler.database.is_postgresql:
            assert refused == []
            assert len({worker["instance"] for worker in firing}) == WORKERS
        else:
            (first,) = firing
            assert all(f"process {first['process_id']} " in worker["refused"] for worker in refused)
            assert len(refused) == WORKERS - 1
            server.tell()
            answers = [server.hear()["outcomes"] for _ in refused]
            assert answers == [["transitioned", True] * CAMPAIGNS] * len(refused)
        eventually(lambda: len(effects(scheduler)) >= JOBS, timeout=30)
    assert effects(scheduler) == keys
    by_process = Counter(process for (process,) in query(scheduler, "SELECT process_id FROM effects"))
    assert by_process.keys() == {worker["process_id"] for worker in firing}


def test_processes_beside_a_daemon_on_sqlite_meet_neither_a_lock_nor_a_stale_decision(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Events and timeouts race for hundreds of visits; who writes waits for his turn, and decides on what is there."""
    with closing(TimeoutScheduler(sqlite_url, settings=make_settings())) as scheduler, ExitStack() as stack:
        words = [sqlite_url, str(VISITORS)]
        daemon = stack.enter_context(running(tmp_path, environment(sqlite_url, SCHEDULER_BATCH_SIZE="5")))
        neighbours = [stack.enter_context(application("neighbour", *words, str(seed))) for seed in range(NEIGHBOURS)]
        assert [int(neighbour.hear()["ready"]) for neighbour in neighbours] == list(range(NEIGHBOURS))
        enroll(scheduler)
        for neighbour in neighbours:
            neighbour.tell()
        outcomes = sum((Counter(neighbour.hear()) for neighbour in neighbours), Counter[str]())
        eventually(lambda: finished(scheduler) == VISITORS, timeout=30)
        assert daemon.terminate() == 0
        assert outcomes["canceled: True"] == NEIGHBOURS * VISITORS
        check_histories(scheduler, outcomes["transitioned"])
        assert "database.unavailable" not in daemon.log.read_text("utf-8")


def enroll(scheduler: TimeoutScheduler) -> None:
    values: dict[str, Any] = {"tenant_id": "acme", "plan": TWO_WAITS, "start_at": LONG_AGO}
    names = [f"c-{number}" for number in range(VISITORS)]
    scheduler.campaigns.enroll_many({**values, "campaign_id": name, "contact_id": name} for name in names)


def finished(scheduler: TimeoutScheduler) -> int:
    ((count,),) = query(scheduler, "SELECT count(*) FROM contact_campaigns WHERE status = 'completed'")
    return int(count)


def check_histories(scheduler: TimeoutScheduler, by_events: int) -> None:
    """Each visit was left once, and by an event as often as an event was told that it left one."""
    steps = [
        tuple(row)
        for row in query(scheduler, "SELECT node_visit, from_node_id, to_node_id, trigger FROM campaign_transitions")
    ]
    legal: set[tuple[Any, ...]] = {(0, None, "first", "enrolled")}
    legal |= {(1, "first", "second", trigger) for trigger in ("opened", "no_open")}
    legal |= {(2, "second", "stop", trigger) for trigger in ("opened", "no_open")}
    assert set(steps) <= legal
    assert Counter(visit for visit, *_ in steps) == dict.fromkeys(range(3), VISITORS)
    assert Counter(trigger for *_, trigger in steps)["opened"] == by_events
    (unfinished,) = query(
        scheduler, "SELECT count(*) FROM scheduled_actions WHERE status NOT IN ('completed', 'canceled')"
    )
    assert unfinished == (0,)
