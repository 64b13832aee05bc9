"""The pages of a scheduler over HTTP: wrong when they should be, and answered at once whatever hangs."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import make_url

from scheduler import TimeoutScheduler
from scheduler.runtime import daemon as daemon_module
from scheduler.runtime.daemon import Daemon
from scheduler.web.application import Health, create_application
from scheduler.web.server import WebServer
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.scheduling import execute, make_settings
from tests.support.wire import Wire

Page = tuple[int, str]
AT_ONCE: Final = 1.5


class Pages:
    """A scheduler's three pages, as the daemon serves them."""

    def __init__(self, scheduler: TimeoutScheduler) -> None:
        daemon = Daemon(scheduler)
        health = Health(daemon.why_not_alive, daemon.why_not_ready, scheduler.metrics.registry)
        self.server = WebServer(create_application(health, None), "127.0.0.1", 0)
        self.server.start()

    def get(self, page: str) -> Page:
        """Status and text."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/{page}", timeout=30) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode().strip()

    def status(self, page: str) -> int:
        """The status alone."""
        return self.get(page)[0]

    def metric(self, name: str) -> float | None:
        """A metric of a scrape, which is answered at once; None where it has no sample."""
        began = time.monotonic()
        text = self.get("metrics")[1]
        assert time.monotonic() - began < AT_ONCE
        values = [line.split()[-1] for line in text.splitlines() if line.startswith(f"timeout_scheduler_{name} ")]
        return float(values[0]) if values else None


@pytest.fixture
def serve() -> Iterator[Callable[[TimeoutScheduler], Pages]]:
    served: list[Pages] = []

    def serve_one(scheduler: TimeoutScheduler) -> Pages:
        served.append(Pages(scheduler))
        return served[-1]

    yield serve_one
    for pages in served:
        pages.server.stop()


@pytest.fixture
def wire(postgresql_url: str) -> Iterator[Wire]:
    port = make_url(postgresql_url).port
    assert port is not None
    with Wire(lambda: port) as one:
        yield one


def at_the_wire(open_scheduler: OpenScheduler, url: str, wire: Wire, patience: float) -> TimeoutScheduler:
    settings = make_settings(database_timeout=timedelta(seconds=patience))
    distant = make_url(url).set(host="127.0.0.1", port=wire.port)
    return open_scheduler(distant.render_as_string(hide_password=False), settings=settings)


def test_a_process_that_has_not_begun_lives_and_is_not_ready(
    open_scheduler: OpenScheduler, sqlite_url: str, serve: Callable[[TimeoutScheduler], Pages]
) -> None:
    scheduler = open_scheduler(sqlite_url)
    pages = serve(scheduler)
    assert [pages.get("healthz"), pages.get("readyz")] == [(200, "ok"), (503, "not started")]
    assert pages.metric("database_up") == 0
    scheduler.start()
    assert [pages.get("healthz"), pages.get("readyz")] == [(200, "ok"), (200, "ok")]


def test_a_loop_that_hangs_in_a_process_that_lives(
    open_scheduler: OpenScheduler,
    sqlite_url: str,
    serve: Callable[[TimeoutScheduler], Pages],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon_module, "_LONGEST_SILENCE", 0.5)
    scheduler = open_scheduler(sqlite_url)
    pages = serve(scheduler)
    scheduler.start()
    eventually(lambda: pages.status("healthz") == 200)
    with scheduler.apscheduler._jobstores_lock:  # noqa: SLF001 - what the loop needs for each turn
        eventually(lambda: pages.status("healthz") == 503)
        assert "the scheduling loop has not turned for" in pages.get("healthz")[1]
        last = pages.metric("last_loop_timestamp_seconds")
        assert pages.metric("last_loop_timestamp_seconds") == last
    eventually(lambda: pages.status("healthz") == 200)


def test_a_schema_that_is_behind_is_not_ready_and_no_reason_for_a_restart(
    open_scheduler: OpenScheduler, database_url: str, serve: Callable[[TimeoutScheduler], Pages]
) -> None:
    scheduler = open_scheduler(database_url)
    pages = serve(scheduler)
    scheduler.start()
    assert pages.status("readyz") == 200
    execute(scheduler, "UPDATE timeout_scheduler_version SET version_num = '0001'")
    status, text = pages.get("readyz")
    assert status == 503
    assert "db upgrade" in text
    assert pages.status("healthz") == 200


def test_a_database_that_is_gone_is_not_ready_and_no_reason_for_a_restart(
    open_scheduler: OpenScheduler, postgresql_url: str, wire: Wire, serve: Callable[[TimeoutScheduler], Pages]
) -> None:
    scheduler = at_the_wire(open_scheduler, postgresql_url, wire, 5)
    pages = serve(scheduler)
    scheduler.start()
    eventually(lambda: pages.status("readyz") == 200)
    eventually(lambda: pages.metric("due") == 0)
    wire.cut()
    eventually(lambda: pages.metric("database_up") == 0)
    assert pages.get("readyz") == (503, "the database does not answer")
    assert pages.status("healthz") == 200
    wire.heal()
    eventually(lambda: pages.status("readyz") == 200)
    assert pages.metric("database_up") == 1


def test_a_database_that_hangs_keeps_no_page_from_being_answered(
    open_scheduler: OpenScheduler, postgresql_url: str, wire: Wire, serve: Callable[[TimeoutScheduler], Pages]
) -> None:
    """However many ask meanwhile whether it is ready: the threads that scrapes need are left to them."""
    scheduler = at_the_wire(open_scheduler, postgresql_url, wire, 6)
    pages = serve(scheduler)
    scheduler.start()
    eventually(lambda: pages.status("readyz") == 200)
    wire.hang()
    with ThreadPoolExecutor(60) as askers:
        asked = [askers.submit(pages.get, "readyz") for _ in range(60)]
        assert pages.metric("build_info{") is None  # answered at once
        assert pages.status("healthz") == 200
        assert {one.result() for one in asked} == {(503, "no answer of the database within 2 seconds")}
    eventually(lambda: pages.metric("database_up") == 0, 20)
    eventually(lambda: pages.get("readyz") == (503, "the database does not answer"), 20)
    wire.heal()
    eventually(lambda: pages.status("readyz") == 200, 20)
