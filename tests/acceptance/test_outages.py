"""A daemon whose database goes away: it stays up, says so, comes back by itself, and loses or repeats nothing."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from scheduler import TimeoutScheduler
from tests.support.cohort import Cohort
from tests.support.daemon import DaemonProcess, environment, running
from tests.support.daemon_log import Pages, said
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.scheduling import make_settings
from tests.support.wire import Wire

CONTACTS: Final = 200
ROLE: Final = "clerk"
BACK_WITHIN: Final = 8.0
"""Seconds from the end of an outage until the daemon works again."""

Change = Callable[["Place"], None]


@dataclass(frozen=True, slots=True)
class Place:
    """A database on a server of this module's own, and the daemon's wire to it."""

    server: PostgresServer
    wire: Wire
    database: str
    cohort: Cohort
    folder: Path

    @contextmanager
    def daemon(self, **settings: str) -> Iterator[DaemonProcess]:
        """A daemon at the end of the wire, that gives up an answer after a second."""
        url = f"postgresql://{ROLE}@127.0.0.1:{self.wire.port}/{self.database}"
        quick = {"SCHEDULER_DATABASE_TIMEOUT": "PT1S", "SCHEDULER_SHUTDOWN_TIMEOUT": "PT8S"}
        with running(self.folder, environment(url, **{**quick, **settings})) as daemon:
            yield daemon

    def end_sessions(self) -> None:
        """The daemon's connections are gone; it may make new ones, if it is let."""
        self.server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")  # noqa: S608


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server to be killed, with a migrated database to copy, and a role that is no superuser."""
    with PostgresServer() as server:
        url = server.create_database("migrated")
        server.execute(f"CREATE ROLE {ROLE} LOGIN")
        with closing(TimeoutScheduler(url)) as scheduler:
            scheduler.migrate()
        yield server


@pytest.fixture
def place(server: PostgresServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    database = f"outage_{abs(hash(request.node.name))}"
    url = server.create_database(database, "migrated")
    with closing(TimeoutScheduler(url, settings=make_settings())) as scheduler, Wire(lambda: server.port) as wire:
        with scheduler.database.engine.begin() as connection:
            connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}")
        yield Place(server, wire, database, Cohort(scheduler, CONTACTS), tmp_path)
    server.drop_database(database)


def kill(place: Place) -> None:
    place.server.kill9()


def stop(place: Place) -> None:
    place.server.stop()


def start(place: Place) -> None:
    place.server.start()


def cut(place: Place) -> None:
    place.wire.cut()


def fall_silent(place: Place) -> None:
    place.wire.hang()


def heal(place: Place) -> None:
    place.wire.heal()


def forbid_writing(place: Place) -> None:
    place.server.execute(f"ALTER DATABASE {place.database} SET default_transaction_read_only = on")
    place.end_sessions()


def allow_writing(place: Place) -> None:
    """For sessions to come: those that the daemon has stay as they are."""
    place.server.execute(f"ALTER DATABASE {place.database} SET default_transaction_read_only = off")


def forbid_connections(place: Place) -> None:
    place.server.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    place.end_sessions()


def allow_connections(place: Place) -> None:
    place.server.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


OUTAGES: Final = {
    "killed": (kill, start),
    "restarted": (stop, start),
    "unreachable": (cut, heal),
    "silent": (fall_silent, heal),
    "read-only": (forbid_writing, allow_writing),
    "out of connections": (forbid_connections, allow_connections),
}


@pytest.mark.parametrize(("begin", "end"), OUTAGES.values(), ids=OUTAGES.keys())
def test_a_daemon_outlives_an_outage_of_its_database_says_so_and_goes_on_by_itself(
    place: Place, begin: Change, end: Change
) -> None:
    place.cohort.enroll()
    with place.daemon() as daemon:
        pages = Pages(daemon.log)
        place.cohort.wait_for_some()
        begin(place)
        eventually(lambda: pages.readiness() == 503)
        eventually(lambda: pages.database_up() == 0)
        eventually(lambda: said(daemon.log, "database.unavailable") > 0)
        # And it stays so: more turns of the loop than one.
        assert {(pages.readiness(), pages.database_up()) for _ in range(50)} == {(503, 0)}
        assert daemon.process.poll() is None

        end(place)
        eventually(lambda: said(daemon.log, "database.recovered") > 0, BACK_WITHIN)
        eventually(lambda: pages.readiness() == 200)
        eventually(lambda: pages.database_up() == 1)
        place.cohort.wait_for_all()
        assert daemon.terminate() == 0
    place.cohort.check()


def test_a_slow_database_makes_a_daemon_slower_and_nothing_else(place: Place) -> None:
    """Every packet takes a while, so that a batch takes longer than its lease."""
    place.cohort.enroll()
    with place.daemon(SCHEDULER_BATCH_SIZE="200", SCHEDULER_LEASE="PT1S", SCHEDULER_DATABASE_TIMEOUT="PT5S") as daemon:
        pages = Pages(daemon.log)
        place.wire.slow_down(0.05, 0.1, random.Random(1))  # noqa: S311 - a wire's luck
        eventually(lambda: place.cohort.visits_left() >= CONTACTS, 30)
        assert pages.readiness() == 200
        place.wire.heal()
        place.cohort.wait_for_all()
        assert daemon.terminate() == 0
        assert said(daemon.log, "database.unavailable") == 0
    place.cohort.check()


def test_commits_whose_answers_are_lost_again_and_again_are_neither_repeated_nor_forgotten(place: Place) -> None:
    place.cohort.enroll()
    with place.daemon() as daemon:
        place.wire.lose_commit_answers(0.3, random.Random(2))  # noqa: S311 - a wire's luck
        place.cohort.wait_for_all()
        assert place.wire.lost_answers > 5
        place.wire.heal()
        assert daemon.terminate() == 0
    place.cohort.check()


@pytest.mark.parametrize("begin", [cut, fall_silent], ids=["unreachable", "silent"])
def test_a_daemon_told_to_stop_while_its_database_is_away_leaves_in_time_and_with_0(
    place: Place, begin: Change
) -> None:
    place.cohort.enroll()
    with place.daemon(SCHEDULER_DATABASE_TIMEOUT="PT1M") as daemon:
        place.cohort.wait_for_some()
        begin(place)
        told_at = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - told_at < 8 + 5, "it took longer than SHUTDOWN_TIMEOUT and a moment to end"


def test_a_daemon_whose_database_was_never_there_waits_for_it_and_leaves_with_0_when_told_to(place: Place) -> None:
    place.wire.cut()
    url = f"postgresql://{ROLE}@127.0.0.1:{place.wire.port}/{place.database}"
    daemon = DaemonProcess(place.folder, environment(url))
    daemon.wait_until("database.unavailable")
    assert Pages(daemon.log).readiness() == 503
    assert daemon.terminate() == 0
