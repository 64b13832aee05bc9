"""No call waits endlessly for a PostgreSQL that doesn't answer: its backends are stopped, their wires live on."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import cast

import psutil
import psycopg
import pytest
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait
from sqlalchemy import Connection, Engine, create_engine, text

from scheduler import DatabaseUnavailableError
from scheduler.store.database import Database
from scheduler.store.engine import create_database_engine
from scheduler.store.errors import translated
from scheduler.store.patience import Patience, PatientConnection, wait_without_end
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer
from tests.support.scheduling import make_job, make_settings

SOON = timedelta(milliseconds=300)
NO_ANSWER = r"NoAnswerError: the database gave no answer within 0\.3 s \(DATABASE_TIMEOUT\)"


@pytest.fixture
def engine(postgres_server: PostgresServer) -> Iterator[Engine]:
    """An engine in a hurry, on a database without our tables."""
    engine = create_database_engine(postgres_server.url(), patience=Patience(SOON))
    yield engine
    engine.dispose()


@pytest.fixture
def backends() -> Iterator["Backends"]:
    """Stops backends, and lets them go on at the end."""
    backends = Backends()
    yield backends
    backends.resume()


class Backends:
    """Processes of the server that were stopped."""

    def __init__(self) -> None:
        self._stopped: list[psutil.Process] = []

    def stop(self, connection: Connection) -> int:
        """The server answers nothing more on this connection; returns its backend's id."""
        pid = driver_of(connection).info.backend_pid
        self.stop_process(pid)
        return pid

    def stop_process(self, pid: int) -> None:
        """That process of the server answers nothing more."""
        process = psutil.Process(pid)
        process.suspend()
        self._stopped.append(process)

    def resume(self) -> None:
        """All go on."""
        for process in self._stopped:
            process.resume()
        self._stopped = []


def driver_of(connection: Connection) -> PatientConnection:
    return cast("PatientConnection", connection.connection.driver_connection)


def execute(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


def execute_many(connection: Connection) -> None:
    connection.execute(text("SELECT :n"), [{"n": 1}, {"n": 2}])


def commit(connection: Connection) -> None:
    connection.commit()


def rollback(connection: Connection) -> None:
    connection.rollback()


def savepoint(connection: Connection) -> None:
    connection.begin_nested()


@pytest.mark.parametrize("trip", [execute, execute_many, commit, rollback, savepoint])
def test_a_round_trip_without_an_answer_ends_and_its_connection_is_never_used_again(
    engine: Engine, backends: Backends, trip: Callable[[Connection], None]
) -> None:
    with engine.connect() as connection:
        execute(connection)
        driver = driver_of(connection)
        stopped = backends.stop(connection)

        with pytest.raises(DatabaseUnavailableError, match=NO_ANSWER), translated():
            trip(connection)

        assert driver.closed
    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != stopped


def test_an_idle_connection_without_an_answer_is_replaced_before_it_is_used(engine: Engine, backends: Backends) -> None:
    with engine.connect() as connection:
        driver = driver_of(connection)
        stopped = backends.stop(connection)
    driver.idle_since -= 10

    with engine.connect() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != stopped


def test_a_lock_that_is_never_freed_is_waited_for_within_the_limit(engine: Engine) -> None:
    with engine.begin() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(1)"))
        with pytest.raises(DatabaseUnavailableError, match=NO_ANSWER), translated(), engine.begin() as waiter:
            waiter.execute(text("SELECT pg_advisory_xact_lock(1)"))


def test_an_answer_larger_than_any_buffer_arrives_whole(postgres_server: PostgresServer) -> None:
    engine = create_database_engine(postgres_server.url())
    sent = "x" * 5_000_000
    with engine.connect() as connection:
        assert connection.execute(text("SELECT CAST(:sent AS text)"), {"sent": sent}).scalar_one() == sent
    engine.dispose()


def test_an_answer_that_came_while_this_process_was_stopped_counts(engine: Engine) -> None:
    with engine.connect() as connection:
        driver = driver_of(connection)

        def ask_and_be_stopped() -> PQGen[Ready | int]:
            driver.pgconn.send_query(b"SELECT 1")
            driver.pgconn.flush()
            begun = monotonic()
            eventually(lambda: monotonic() - begun > 2 * SOON.total_seconds())
            return (yield Wait.R)

        assert driver.wait(ask_and_be_stopped()) == Ready.R
        connection.invalidate()


def test_an_interrupted_round_trip_gives_its_connection_up(postgres_server: PostgresServer) -> None:
    engine = create_database_engine(postgres_server.url())

    def interrupt() -> None:
        eventually(lambda: _is_sleeping(engine))
        signal.raise_signal(signal.SIGINT)

    # In the background of a shell it is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with ThreadPoolExecutor() as executor, engine.connect() as connection:
        driver = driver_of(connection)
        interruption = executor.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            connection.execute(text("SELECT pg_sleep(60)"))
        assert driver.closed
        interruption.result()
    signal.signal(signal.SIGINT, before)
    with engine.connect() as connection:
        execute(connection)
    engine.dispose()


def _is_sleeping(engine: Engine) -> bool:
    with engine.connect() as connection:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
        return bool(connection.execute(text(statement)).scalar_one())


@contextmanager
def held_migration_lock(url: str) -> Iterator[None]:
    with psycopg.connect(url.replace("+psycopg", "")) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [0x7409_5CED])
        yield


def test_a_migration_may_take_longer(empty_postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(empty_postgresql_url, settings=make_settings(database_timeout=SOON))
    database = scheduler.database
    with ThreadPoolExecutor() as executor:
        with held_migration_lock(empty_postgresql_url):
            migration = executor.submit(scheduler.migrate)
            eventually(lambda: _waited_for_lock(database) > 2 * SOON)
            assert not migration.done()
        migration.result()

    scheduler.require_current_schema()


def _waited_for_lock(database: Database) -> timedelta:
    statement = "SELECT now() - min(state_change) FROM pg_stat_activity WHERE wait_event = 'advisory'"
    with database.engine.connect() as connection:
        waited: timedelta | None = connection.execute(text(statement)).scalar_one()
    return waited or timedelta(0)


def test_a_connection_that_waited_without_end_waits_within_the_limit_for_its_next_user(engine: Engine) -> None:
    with engine.connect() as connection:
        wait_without_end(connection)
        execute(connection)
        migrating = driver_of(connection)
        assert isinstance(migrating, PatientConnection)
        assert migrating.patience is None

    with engine.connect() as connection:
        assert driver_of(connection) is migrating
        assert migrating.patience is migrating.limit
    assert migrating.limit is not None


def test_an_applications_own_engine_waits_as_it_always_did(postgresql_url: str, open_scheduler: OpenScheduler) -> None:
    engine = create_engine(postgresql_url)
    scheduler = open_scheduler(engine=engine, settings=make_settings(database_timeout=SOON))

    scheduler.migrate()

    with scheduler.database.engine.connect() as connection:
        assert type(driver_of(connection)) is psycopg.Connection
        assert connection.execute(text("SELECT 1 FROM pg_sleep(0.5)")).scalar_one() == 1
    engine.dispose()


def test_a_scheduler_gives_up_a_server_that_was_stopped_and_works_on_once_it_answers(
    postgresql_url: str, open_scheduler: OpenScheduler, backends: Backends
) -> None:
    scheduler = open_scheduler(postgresql_url, settings=make_settings(database_timeout=SOON))
    scheduler.schedule(make_job())
    with scheduler.database.engine.connect() as connection:
        backends.stop(connection)
        with pytest.raises(DatabaseUnavailableError, match=NO_ANSWER), translated():
            execute(connection)

    assert scheduler.schedule(make_job(campaign_id="c-2"))
    assert scheduler.run_due() == 2


def test_a_stop_does_not_wait_for_a_hanging_database_for_as_long_as_the_work_would(
    open_scheduler: OpenScheduler, backends: Backends
) -> None:
    """DATABASE_TIMEOUT is an hour; every session of the scheduler's hangs."""
    settings = make_settings(database_timeout=timedelta(hours=1), shutdown_timeout=timedelta(seconds=2))
    with PostgresServer() as server:
        scheduler = open_scheduler(server.url(), settings=settings)
        scheduler.migrate()
        scheduler.start()
        with psycopg.connect(server.url(driver="postgresql")) as observer:
            sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'timeout-scheduler'"
            for (pid,) in eventually(lambda: observer.execute(sessions).fetchall()):
                backends.stop_process(pid)
            begun = monotonic()
            scheduler.shutdown()

            assert monotonic() - begun < 20
        backends.resume()
