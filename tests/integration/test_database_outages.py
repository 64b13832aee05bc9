"""A PostgreSQL that is there and doesn't work: read-only, shutting down, full; and one among several that does."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url, text

from scheduler import DatabaseUnavailableError, TimeoutScheduler
from scheduler.store.engine import create_database_engine
from scheduler.store.errors import translated
from tests.integration.conftest import OpenScheduler
from tests.support.eventually import eventually
from tests.support.postgres import PostgresServer, free_port
from tests.support.scheduling import make_job, query

CLERK: Final = "clerk"


@pytest.fixture
def scheduler(postgresql_url: str, open_scheduler: OpenScheduler) -> TimeoutScheduler:
    """A scheduler with several pooled connections."""
    scheduler = open_scheduler(postgresql_url)
    use_connections(scheduler, 3)
    return scheduler


def use_connections(scheduler: TimeoutScheduler, count: int) -> list[int]:
    """Have so many connections in use at once, and leave them in the pool; the ids of their backends."""
    connections = [scheduler.database.engine.connect() for _ in range(count)]
    try:
        return [connection.execute(text("SELECT pg_backend_pid()")).scalar_one() for connection in connections]
    finally:
        for connection in connections:
            connection.close()


def database_of(scheduler: TimeoutScheduler) -> sql.Identifier:
    name = scheduler.database.engine.url.database
    assert name is not None
    return sql.Identifier(name)


def set_read_only(server: PostgresServer, scheduler: TimeoutScheduler, state: str) -> None:
    """What sessions that begin from now on may do."""
    statement = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
    server.execute(statement.format(database_of(scheduler), sql.SQL(state)))


def terminate(server: PostgresServer, backends: list[int]) -> None:
    server.execute(sql.SQL("SELECT pg_terminate_backend(pid) FROM unnest({}) AS pid").format(backends))
    # They are told to end; their clients see it once they have.
    living = sql.SQL("SELECT pid FROM pg_stat_activity WHERE pid = ANY({})").format(backends)
    with psycopg.connect(server.url(driver="postgresql"), autocommit=True) as observer:
        eventually(lambda: observer.execute(living).fetchone() is None)


def refused(call: Callable[[], object]) -> str:
    """What is said of a call that finds no usable database: one line, readable."""
    with pytest.raises(DatabaseUnavailableError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_after_a_read_only_answer_every_pooled_connection_is_replaced(
    postgres_server: PostgresServer, scheduler: TimeoutScheduler
) -> None:
    terminate(postgres_server, use_connections(scheduler, 3))
    set_read_only(postgres_server, scheduler, "on")
    demoted = set(use_connections(scheduler, 3))

    assert refused(lambda: scheduler.schedule(make_job())).startswith("ReadOnlySqlTransaction: cannot execute ")

    set_read_only(postgres_server, scheduler, "off")
    assert scheduler.schedule(make_job())
    assert scheduler.run_due() == 1
    assert demoted.isdisjoint(use_connections(scheduler, 3))


def test_a_read_only_answer_within_a_savepoint_ends_the_whole_transaction_in_order(scheduler: TimeoutScheduler) -> None:
    def write_in_a_savepoint() -> None:
        with scheduler.database.transaction() as transaction:
            transaction.connection.execute(text("SET TRANSACTION READ ONLY"))
            with transaction.all_or_nothing():
                transaction.connection.execute(text("CREATE TABLE forbidden ()"))

    assert "read-only" in refused(write_in_a_savepoint)
    assert scheduler.schedule(make_job())


def test_a_session_that_is_ended_within_a_transaction_costs_that_call_alone(
    postgres_server: PostgresServer, scheduler: TimeoutScheduler
) -> None:
    def be_ended() -> None:
        with scheduler.database.transaction() as transaction:
            terminate(postgres_server, [transaction.connection.execute(text("SELECT pg_backend_pid()")).scalar_one()])
            transaction.connection.execute(text("SELECT 1"))

    assert refused(be_ended).endswith(": terminating connection due to administrator command")
    assert scheduler.schedule(make_job())


def test_sessions_ended_in_the_pool_are_replaced_unnoticed(
    postgres_server: PostgresServer, scheduler: TimeoutScheduler
) -> None:
    terminate(postgres_server, use_connections(scheduler, 3))

    assert scheduler.schedule(make_job())


@pytest.fixture
def clerks_url(postgres_server: PostgresServer, postgresql_url: str) -> Iterator[str]:
    """The database as seen by a role that may have two connections and is no superuser."""
    url = make_url(postgresql_url)
    admin = postgres_server.execute
    admin(f"CREATE ROLE {CLERK} LOGIN CONNECTION LIMIT 2")
    engine = create_database_engine(postgresql_url)
    with engine.begin() as connection:
        connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {CLERK}"))
        connection.execute(text(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {CLERK}"))
    yield url.set(username=CLERK).render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {CLERK}"))
    engine.dispose()
    admin(f"DROP ROLE {CLERK}")


def test_out_of_connections_is_told_and_ends_with_the_crowd(clerks_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(clerks_url)
    crowd = create_database_engine(clerks_url)
    held = [crowd.connect(), crowd.connect()]

    said = refused(lambda: scheduler.schedule(make_job()))

    assert said.startswith("OperationalError: connection failed")
    assert said.endswith(f'too many connections for role "{CLERK}"')
    for connection in held:
        connection.close()
    crowd.dispose()
    assert scheduler.schedule(make_job())
    assert scheduler.run_due() == 1


@pytest.fixture(scope="module")
def another_server() -> Iterator[PostgresServer]:
    """A server of this module's own, to be shut down and demoted."""
    with PostgresServer() as server:
        yield server


def test_a_server_that_is_shut_down_and_started_is_used_again(
    another_server: PostgresServer, open_scheduler: OpenScheduler
) -> None:
    scheduler = open_scheduler(another_server.create_database("restarted"))
    scheduler.migrate()
    use_connections(scheduler, 3)
    another_server.stop()

    assert "Connection refused" in refused(lambda: scheduler.schedule(make_job()))

    another_server.start()
    assert scheduler.schedule(make_job())


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A host that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def with_hosts(url: str, *ports: int, **options: Any) -> str:
    """The URL with a server at each of these ports."""
    hosts = {"host": ",".join(["127.0.0.1"] * len(ports)), "port": ",".join(map(str, ports)), **options}
    return make_url(url)._replace(host=None, port=None).update_query_dict(hosts).render_as_string(hide_password=False)


def test_a_dead_and_a_silent_host_are_passed_over(
    postgresql_url: str, open_scheduler: OpenScheduler, silent_port: int
) -> None:
    port = make_url(postgresql_url).port
    assert port is not None

    scheduler = open_scheduler(with_hosts(postgresql_url, free_port(), silent_port, port, connect_timeout="2"))

    assert query(scheduler, "SELECT inet_server_port()") == [(port,)]


def test_of_several_hosts_the_one_that_takes_writes_is_used(
    postgres_server: PostgresServer, scheduler: TimeoutScheduler, open_scheduler: OpenScheduler
) -> None:
    url = str(scheduler.database.engine.url)
    read_only_first = with_hosts(url, postgres_server.port, free_port())
    set_read_only(postgres_server, scheduler, "on")
    cautious = open_scheduler(read_only_first)

    said = refused(lambda: cautious.schedule(make_job()))

    assert "session is read-only" in said
    assert f"port {postgres_server.port} failed" in said
    assert "Connection refused" in said
    set_read_only(postgres_server, scheduler, "off")
    assert cautious.schedule(make_job())


def test_after_a_failover_every_connection_leads_to_the_new_primary(
    another_server: PostgresServer, scheduler: TimeoutScheduler, open_scheduler: OpenScheduler
) -> None:
    """The first host turns read-only under open sessions, as a demoted primary does; the second takes writes."""
    new = make_url(scheduler.database.engine.url)
    assert new.port is not None
    assert new.database is not None
    with closing(TimeoutScheduler(another_server.create_database(new.database))) as on_the_old_primary:
        on_the_old_primary.migrate()
    follower = open_scheduler(with_hosts(str(new), another_server.port, new.port))
    use_connections(follower, 3)
    another_server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    another_server.execute("SELECT pg_reload_conf()")
    eventually(lambda: query(follower, "SHOW default_transaction_read_only") == [("on",)])

    assert refused(lambda: follower.schedule(make_job())).startswith("ReadOnlySqlTransaction: ")

    job_id = follower.schedule(make_job())
    assert scheduler.find(job_id) is not None
    assert query(follower, "SELECT inet_server_port()") == [(new.port,)]


def test_a_pool_that_is_used_up_is_told(postgres_server: PostgresServer) -> None:
    engine = create_database_engine(postgres_server.url(), pool_size=1)
    engine.pool._timeout = 0.01  # type: ignore[attr-defined]  # noqa: SLF001 - nobody waits half a minute for a test
    with ThreadPoolExecutor() as executor:
        held = [engine.connect() for _ in range(11)]
        with pytest.raises(DatabaseUnavailableError, match="no database connection became free"), translated():
            executor.submit(engine.connect).result()
    for connection in held:
        connection.close()
    engine.dispose()
