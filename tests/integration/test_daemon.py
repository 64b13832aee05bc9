"""The daemon in this process: what the watchdog is told, and that a signal reaches it, whatever it is doing."""

import gc
import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from scheduler import DatabaseUnavailableError, MissingRightError
from scheduler.runtime import daemon as daemon_module
from scheduler.runtime.daemon import Daemon
from scheduler.store.version import VERSION_TABLE
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.roles import roled_database
from tests.support.scheduling import Gate, make_job, make_settings


def test_a_loop_that_sleeps_for_a_long_poll_interval_is_not_taken_for_hung(
    open_scheduler: OpenScheduler, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "_LONGEST_SILENCE", 0.2)
    scheduler = open_scheduler(sqlite_url, settings=make_settings(poll_interval=timedelta(minutes=1)))
    scheduler.start()

    eventually(lambda: scheduler.silence > 0.3)

    assert Daemon(scheduler).why_not_alive() is None


@pytest.fixture
def collector() -> Iterator[None]:
    """A daemon calms this process's garbage collector; the next test has it as it was."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


@pytest.mark.usefixtures("collector")
def test_it_makes_the_schema_first_reloads_at_sighup_and_leaves_at_sigterm(
    open_scheduler: OpenScheduler, empty_database_url: str
) -> None:
    """The main thread waits for signals; it is this one, and the system interrupts another."""
    scheduler = open_scheduler(empty_database_url)
    reloaded, ended = threading.Event(), threading.Event()
    daemon = Daemon(scheduler, reloaded.set, upgrades=True)
    seen: list[str] = []

    def operate() -> None:
        try:
            eventually(lambda: daemon.why_not_ready() is None)
            signal.raise_signal(signal.SIGHUP)
            seen.append(f"reloaded: {reloaded.wait(10)}")
        finally:
            if not ended.is_set():  # else nobody is there to heed it
                signal.raise_signal(signal.SIGTERM)

    operator = threading.Thread(target=operate)
    operator.start()
    try:
        code = daemon.run()
    finally:
        ended.set()
        operator.join()

    assert (code, seen, daemon.why_not_ready()) == (0, ["reloaded: True"], "draining")


@pytest.mark.usefixtures("collector")
def test_a_database_that_is_away_at_the_start_is_said_once_for_each_reason(
    open_scheduler: OpenScheduler,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    daemon = Daemon(open_scheduler(sqlite_url))
    reasons = iter(["refused", "refused", "refused", "starting up", "starting up", "refused"])

    def start() -> None:
        reason = next(reasons, None)
        if reason is None:
            os.kill(os.getpid(), signal.SIGTERM)
            reason = "refused"
        raise DatabaseUnavailableError(reason)

    monkeypatch.setattr(daemon_module, "_FIRST_RETRY", 0.001)
    monkeypatch.setattr(daemon_module, "_LONGEST_RETRY", 0.001)
    monkeypatch.setattr(daemon._scheduler, "start", start)  # noqa: SLF001 - the database is stood in for

    assert daemon.run() == 0

    told = [record.getMessage() for record in caplog.records if "database.unavailable" in record.getMessage()]
    assert [line.partition("error=")[2] for line in told] == ["refused", '"starting up"', "refused"]


@pytest.mark.usefixtures("collector")
def test_told_a_second_time_it_sends_what_it_reported_and_leaves_without_draining(
    open_scheduler: OpenScheduler, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    scheduler = open_scheduler(sqlite_url, state_manager=gate)
    scheduler.schedule(make_job())
    daemon = Daemon(scheduler)
    done: list[str | int] = []
    left = threading.Event()

    def leave(code: int) -> None:
        done.append(code)
        left.set()

    monkeypatch.setattr(daemon_module, "flush", lambda seconds: done.append(f"flushed within {seconds:g} s"))
    monkeypatch.setattr(os, "_exit", leave)

    def operate() -> None:
        try:
            gate.wait_entered()
            os.kill(os.getpid(), signal.SIGTERM)
            eventually(lambda: daemon.why_not_ready() == "draining")
            os.kill(os.getpid(), signal.SIGTERM)
            left.wait(10)
        finally:
            gate.opened.set()  # this process goes on

    operator = threading.Thread(target=operate)
    operator.start()
    daemon.run()
    operator.join()

    assert done == ["flushed within 1 s", 128 + signal.SIGTERM]


@pytest.mark.usefixtures("collector")
def test_a_role_that_may_not_upgrade_is_told_who_has_to_and_how(postgres_server: PostgresServer) -> None:
    """Before it fires anything. Where there is nothing to upgrade, the same role starts."""
    with roled_database(postgres_server) as database:
        with database.connect("owner") as owner:
            owner.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")  # noqa: S608 - of our own
        with database.opened("daemon") as timeouts, pytest.raises(MissingRightError) as refused:
            Daemon(timeouts, upgrades=True).run()

    assert str(refused.value).endswith("by its owner alone: run `timeout-scheduler db upgrade` as that role")
