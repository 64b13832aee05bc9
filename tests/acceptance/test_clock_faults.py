"""Wall clocks that are wrong, and jump while a daemon runs.

On PostgreSQL the database's clock decides what is due, whatever the daemons' clocks say. On SQLite the machine's does.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest

from scheduler import TimeoutJob, TimeoutScheduler
from tests.support.daemon import DaemonProcess, environment, running
from tests.support.eventually import eventually
from tests.support.gated import Gate
from tests.support.scheduling import are_completed, make_job, make_settings, query, statuses
from tests.support.walk import make_document, on, send, wait
from tests.support.wall_clock import WallClock

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
NOW: Final = timedelta(0)
STEP: Final = timedelta(milliseconds=100)
# A loaded machine may be so late; a loop that slept through a jump would be later by the whole jump.
LATE: Final = timedelta(seconds=20)
TWO_WAITS: Final = make_document(
    wait("first", on("opened", "stop"), on("no_open", "second", after="PT1H")),
    wait("second", on("opened", "stop"), on("no_open", "stop", after="PT1H")),
)
SENDS: Final = {"SCHEDULER_SEND_HANDLER": "tests.support.gated:send", "SCHEDULER_SEND_WORKERS": "1"}
ONE_MAIL: Final = make_document(send("intro", on("opened", "stop"), on("no_open", "stop", after="P36500D")))


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[TimeoutScheduler]:
    """Schedules and looks; never fires."""
    with closing(TimeoutScheduler(postgresql_url, settings=make_settings())) as scheduler:
        yield scheduler


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[TimeoutScheduler]:
    """Schedules and looks; never fires."""
    settings = make_settings(send_handler="log")
    with closing(TimeoutScheduler(sqlite_url, settings=settings)) as scheduler:
        yield scheduler


def now_of(scheduler: TimeoutScheduler) -> datetime:
    """The present, as it decides what is due."""
    with scheduler.database.reading() as transaction:
        return transaction.now


def due_one_after_the_other(scheduler: TimeoutScheduler, name: str, count: int = 10) -> list[TimeoutJob]:
    """Timeouts that fall due soon, one every `STEP`."""
    start = now_of(scheduler) + STEP
    jobs = [make_job(campaign_id=f"{name}-{number}", scheduled_at=start + number * STEP) for number in range(count)]
    scheduler.schedule_many(jobs)
    return jobs


def check_punctual(scheduler: TimeoutScheduler, jobs: Sequence[TimeoutJob]) -> None:
    """They fire, none before its time, and none much later."""
    eventually(are_completed(scheduler, jobs), timeout=20)
    for action in map(scheduler.find, [job.dedupe_key for job in jobs]):
        assert action is not None
        assert action.finished_at is not None
        assert NOW <= action.finished_at - action.run_at < LATE


# PostgreSQL


def test_a_daemon_whose_clock_is_wrong_or_jumps_fires_nothing_early_and_nothing_late(
    postgresql: TimeoutScheduler, postgresql_url: str, tmp_path: Path
) -> None:
    """Shaken, it jumps between the moment the loop computes when to wake and the moment it goes to sleep, too."""
    clock = WallClock(tmp_path, -HOUR)
    later = make_job(campaign_id="later", scheduled_at=now_of(postgresql) + HOUR / 2)
    postgresql.schedule(later)
    # So many turns that some jumps surely hit the worst moment.
    env = environment(postgresql_url, **clock.environment, SCHEDULER_POLL_INTERVAL="PT0.02S")
    with running(tmp_path, env) as daemon:
        check_punctual(postgresql, due_one_after_the_other(postgresql, "behind"))
        daemon.wait_until('"event": "clock.skewed"')
        assert abs(skew_of(daemon) - HOUR) < LATE
        for number, ahead in enumerate([HOUR, DAY, -DAY]):
            jobs = due_one_after_the_other(postgresql, f"jump-{number}", count=3)
            clock.set(ahead)
            check_punctual(postgresql, jobs)
        with clock.shaken(HOUR):
            check_punctual(postgresql, due_one_after_the_other(postgresql, "shaken", count=15))
        assert statuses(postgresql, [later]) == ["pending"]
        clock.set(NOW)
        eventually(lambda: abs(skew_of(daemon)) < LATE)
        assert daemon.terminate() == 0


def skew_of(daemon: DaemonProcess) -> timedelta:
    """How far the database's clock is ahead of the daemon's, as it tells Prometheus."""
    lines = map(json.loads, daemon.log.read_text("utf-8").splitlines())
    (port,) = (line["port"] for line in lines if line["event"] == "http.listening")
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        metrics = answer.read().decode()
    (seconds,) = re.findall(r"^timeout_scheduler_clock_skew_seconds (\S+)$", metrics, re.MULTILINE)
    return timedelta(seconds=float(seconds))


# SQLite


def test_a_jump_forwards_fires_what_is_due_by_the_new_clock_and_one_backwards_repeats_nothing(
    sqlite: TimeoutScheduler, sqlite_url: str, tmp_path: Path
) -> None:
    """What is in a worker during the jump back is finished once, too."""
    clock, gate = WallClock(tmp_path), Gate(tmp_path / "gate")
    enroll(sqlite, TWO_WAITS, [f"c-{number}" for number in range(50)])
    with running(tmp_path, environment(sqlite_url, **SENDS, **clock.environment, **gate.environment)) as daemon:
        clock.set(1.5 * HOUR)
        eventually(lambda: visits_left(sqlite) == 50, timeout=20)
        enroll(sqlite, ONE_MAIL, ["m-1", "m-2"])
        eventually(lambda: sends(sqlite) == {"claimed": 2}, timeout=20)
        gate.wait_for("sends")
        clock.set(NOW)
        gate.open()
        eventually(lambda: sends(sqlite) == {"completed": 2}, timeout=20)
        check_punctual(sqlite, due_one_after_the_other(sqlite, "back"))
        assert visits_left(sqlite) == 50

        clock.set(3 * HOUR)
        eventually(lambda: visits_left(sqlite) == 100, timeout=20)
        assert daemon.terminate() == 0
    assert len(gate.begun("sends")) == 2
    ended = query(sqlite, "SELECT DISTINCT action_type, status, outcome, attempts FROM scheduled_actions")
    assert sorted(tuple(row) for row in ended if row[1] != "pending") == [
        ("send", "completed", "sent", 0),
        ("timeout", "completed", "transitioned", 0),
        ("timeout", "completed", "unknown_campaign", 0),
    ]


def test_what_a_dead_process_had_claimed_before_a_jump_backwards_is_not_stuck(
    sqlite: TimeoutScheduler, sqlite_url: str, tmp_path: Path
) -> None:
    """By the clock of whoever comes next, that lease ends in a day."""
    clock, gate = WallClock(tmp_path, DAY), Gate(tmp_path / "gate")
    enroll(sqlite, ONE_MAIL, ["m-1", "m-2"])
    with running(tmp_path, environment(sqlite_url, **SENDS, **clock.environment, **gate.environment)) as daemon:
        gate.wait_for("sends")
        eventually(lambda: sends(sqlite) == {"claimed": 2}, timeout=20)
        daemon.kill()
    assert sqlite.run_due() == 2
    assert sends(sqlite) == {"completed": 2}


def enroll(scheduler: TimeoutScheduler, plan: dict[str, Any], names: Sequence[str]) -> None:
    scheduler.campaigns.enroll_many(
        {"tenant_id": "acme", "campaign_id": name, "contact_id": name, "plan": plan} for name in names
    )


def visits_left(scheduler: TimeoutScheduler) -> int:
    ((count,),) = query(scheduler, "SELECT count(*) FROM campaign_transitions WHERE node_visit > 0")
    return int(count)


def sends(scheduler: TimeoutScheduler) -> Counter[str]:
    rows = query(scheduler, "SELECT status FROM scheduled_actions WHERE action_type = 'send'")
    return Counter(status for (status,) in rows)
