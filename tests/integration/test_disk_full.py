"""The disk is full: that is said, nothing is lost or counted as an attempt, and work goes on once there is room."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from psycopg import sql
from sqlalchemy import event

from scheduler import DatabaseUnavailableError, TimeoutScheduler
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.postgres_programs import find_account
from tests.support.scheduling import FAR_AHEAD, LONG_AGO, make_job, query
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.walk import make_document, on, wait

CAMPAIGNS: Final = 200
# Long ids, so that little of it fills a page.
LONG: Final = "x" * 100
TWO_WAITS: Final = make_document(
    wait("first", on("opened", "stop"), on("no_open", "second", after="PT1H"), on("no_click", "stop", after="PT99H")),
    wait("second", on("opened", "stop"), on("no_open", "stop", after="P36500D")),
)


class PageLimit:
    """How large an SQLite file may become, for one scheduler."""

    def __init__(self, scheduler: TimeoutScheduler) -> None:
        self._most = 0
        self._scheduler = scheduler
        event.listen(scheduler.database.engine, "checkout", self._apply)

    def close_disk(self) -> None:
        """Not a page more than there is."""
        ((self._most,),) = query(self._scheduler, "PRAGMA page_count")

    def open_disk(self) -> None:
        """As much as anybody likes."""
        self._most = 1 << 30

    def _apply(self, connection: Any, *_: Any) -> None:
        if self._most:
            connection.execute(f"PRAGMA max_page_count = {self._most}")


def enroll(scheduler: TimeoutScheduler) -> None:
    names = [f"c-{number}-{LONG}" for number in range(CAMPAIGNS)]
    scheduler.campaigns.enroll_many(
        {"tenant_id": "acme", "campaign_id": name, "contact_id": name, "plan": TWO_WAITS, "start_at": LONG_AGO}
        for name in names
    )


def visits_left(scheduler: TimeoutScheduler) -> int:
    ((left,),) = query(scheduler, "SELECT count(*) FROM campaign_transitions WHERE node_visit > 0")
    return int(left)


def check_all_fired_once(scheduler: TimeoutScheduler) -> None:
    eventually(lambda: visits_left(scheduler) >= CAMPAIGNS, timeout=30)
    rows = query(
        scheduler,
        "SELECT node_visit, event_type, status, attempts, count(*) FROM scheduled_actions GROUP BY 1, 2, 3, 4",
    )
    assert sorted(tuple(row) for row in rows if row[0] < 3) == [
        (1, "no_click", "canceled", 0, CAMPAIGNS),
        (1, "no_open", "completed", 0, CAMPAIGNS),
        (2, "no_open", "pending", 0, CAMPAIGNS),
    ]
    assert visits_left(scheduler) == CAMPAIGNS


@contextmanager
def told(caplog: pytest.LogCaptureFixture, *words: str) -> Iterator[None]:
    """In the block the log says that the database isn't available, in one of these words."""
    with caplog.at_level(logging.WARNING, logger="timeout_scheduler"):
        yield

        def is_there() -> bool:
            said = [record.getMessage() for record in list(caplog.records)]
            return any("database.unavailable" in line and any(word in line for word in words) for line in said)

        eventually(is_there)


def schedule_until_full(scheduler: TimeoutScheduler) -> str:
    """What the call that finds no room says."""
    for number in range(100_000):
        try:
            scheduler.schedule(make_job(campaign_id=f"s-{number}-{LONG}", scheduled_at=FAR_AHEAD, node_visit=3))
        except DatabaseUnavailableError as error:
            return str(error)
    raise AssertionError("it never became full")


def test_an_sqlite_file_that_may_not_grow_stops_the_firing_and_loses_nothing(
    sqlite_url: str, open_scheduler: OpenScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite's own limit raises the same error as a full disk, everywhere."""
    enroll(open_scheduler(sqlite_url))
    scheduler = open_scheduler(sqlite_url)
    limit = PageLimit(scheduler)
    limit.close_disk()
    assert "database or disk is full" in schedule_until_full(scheduler)

    with told(caplog, "database or disk is full"):
        scheduler.start()
    assert visits_left(scheduler) < CAMPAIGNS
    assert scheduler.apscheduler.running
    limit.open_disk()
    check_all_fired_once(scheduler)


def test_firing_by_hand_goes_on_where_a_full_disk_stopped_it(sqlite_url: str, open_scheduler: OpenScheduler) -> None:
    enroll(open_scheduler(sqlite_url))
    scheduler = open_scheduler(sqlite_url)
    limit = PageLimit(scheduler)
    limit.close_disk()
    with pytest.raises(DatabaseUnavailableError, match="database or disk is full"):
        scheduler.run_due()
    limit.open_disk()
    scheduler.close()

    open_scheduler(sqlite_url).run_due()

    check_all_fired_once(scheduler)


def test_sqlite_on_a_full_disk_goes_on_once_there_is_room(
    sqlite_url: str, open_scheduler: OpenScheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", megabytes=4) as disk:
        file = shutil.copy(sqlite_url.removeprefix("sqlite:///"), disk.folder)
        scheduler = open_scheduler(f"sqlite:///{file}")
        enroll(scheduler)
        go_through_a_full_disk(scheduler, disk, caplog, "database or disk is full", "disk I/O error")
        scheduler.close()


def test_postgresql_on_a_full_disk_goes_on_once_there_is_room(
    postgres_server: PostgresServer,
    migrated_postgres_template: str,
    open_scheduler: OpenScheduler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its tables are on the small disk, its log is not: a server without room for that one ends itself."""
    with (
        small_disk(postgres_server.folder / "disk", megabytes=24) as disk,
        on_disk(postgres_server, migrated_postgres_template, disk) as url,
    ):
        scheduler = open_scheduler(url)
        enroll(scheduler)
        go_through_a_full_disk(scheduler, disk, caplog, "No space left on device")
        scheduler.close()


@contextmanager
def on_disk(server: PostgresServer, template: str, disk: SmallDisk) -> Iterator[str]:
    """A database whose tables are on that disk."""
    account, folder = find_account(), disk.folder / "tables"
    folder.mkdir()
    if account is not None:
        os.chown(folder, account.uid, account.gid)
    server.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(folder))))
    names = sql.Identifier("on_small_disk"), sql.Identifier(template)
    server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} TABLESPACE small").format(*names))
    try:
        yield server.url("on_small_disk")
    finally:
        with suppress(FileNotFoundError):
            disk.make_room()
        server.drop_database("on_small_disk")
        server.execute("DROP TABLESPACE small")


def go_through_a_full_disk(
    scheduler: TimeoutScheduler, disk: SmallDisk, caplog: pytest.LogCaptureFixture, *words: str
) -> None:
    disk.fill()
    assert disk.is_full()
    error = schedule_until_full(scheduler)
    assert any(word in error for word in words)
    with told(caplog, *words):
        scheduler.start()
    assert visits_left(scheduler) < CAMPAIGNS
    disk.make_room()
    check_all_fired_once(scheduler)
