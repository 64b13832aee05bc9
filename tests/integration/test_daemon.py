"""The daemon in this process: what the watchdog is told, and that a signal reaches it, whatever it is doing."""

import gc
import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from scheduler.runtime import daemon as daemon_module
from scheduler.runtime.daemon import Daemon
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import make_settings


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
    """Signals come to the main thread while it waits; it is this one."""
    scheduler = open_scheduler(empty_database_url)
    reloaded, ended = threading.Event(), threading.Event()
    daemon = Daemon(scheduler, reloaded.set, upgrades=True)
    seen: list[str] = []

    def operate() -> None:
        try:
            eventually(lambda: daemon.why_not_ready() is None)
            os.kill(os.getpid(), signal.SIGHUP)
            seen.append(f"reloaded: {reloaded.wait(10)}")
        finally:
            if not ended.is_set():  # else nobody is there to heed it
                os.kill(os.getpid(), signal.SIGTERM)

    operator = threading.Thread(target=operate)
    operator.start()
    try:
        code = daemon.run()
    finally:
        ended.set()
        operator.join()

    assert (code, seen, daemon.why_not_ready()) == (0, ["reloaded: True"], "draining")
