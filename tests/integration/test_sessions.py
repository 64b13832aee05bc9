"""What the scheduler's own connections ask of the server, directly and behind a pooler."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from scheduler import DatabaseUnavailableError
from scheduler.store.engine import create_database_engine
from scheduler.store.errors import translated
from scheduler.store.sessions import is_pooled
from tests.integration.conftest import OpenScheduler
from tests.support.pooler import pooler, why_no_pooler
from tests.support.postgres import PostgresServer
from tests.support.scheduling import WAIT_PLAN, make_job, make_settings

ASKED_FOR: Final = {
    "client_connection_check_interval": "5s",
    "idle_in_transaction_session_timeout": "1min",
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "1",
    "tcp_user_timeout": "10000",
}
# pg_settings, because PostgreSQL 13 doesn't know all of them.
SETTINGS: Final = text("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (:names)")

needs_pooler = pytest.mark.skipif(why_no_pooler() is not None, reason=str(why_no_pooler()))


@pytest.fixture
def pooled_url(postgres_server: PostgresServer, empty_postgresql_url: str) -> Iterator[str]:
    """An empty database behind a pooler with one session, so that every client gets the one the others had."""
    with pooler(postgres_server.port, sessions=1) as port:
        yield make_url(empty_postgresql_url).set(port=port).render_as_string(hide_password=False)


def read_settings(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {row.name: row[1] for row in connection.execute(SETTINGS, {"names": list(ASKED_FOR)})}


def read_defaults(url: str) -> dict[str, str]:
    engine = create_engine(url)
    try:
        return read_settings(engine)
    finally:
        engine.dispose()


def test_the_server_is_asked_to_notice_a_client_that_is_gone(postgres_server: PostgresServer) -> None:
    engine = create_database_engine(postgres_server.url(), idle_limit=timedelta(minutes=1))
    try:
        found = read_settings(engine)
    finally:
        engine.dispose()

    assert found == {name: value for name, value in ASKED_FOR.items() if name in found}
    assert found.keys() >= ASKED_FOR.keys() - {"client_connection_check_interval"}


def test_a_setting_the_server_refuses_costs_none_of_the_others(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.store.sessions._CLIENT_CHECK", {"client_connection_check_interval": "never"})
    engine = create_database_engine(postgres_server.url())
    try:
        found = read_settings(engine)
    finally:
        engine.dispose()

    refused = {"client_connection_check_interval"}
    assert {name: value for name, value in found.items() if name not in refused} == {
        name: value for name, value in ASKED_FOR.items() if name not in refused
    }


@pytest.mark.parametrize(("lease", "expected"), [(timedelta(minutes=5), "5min"), (timedelta(seconds=1), "10s")])
def test_a_transaction_may_do_nothing_for_as_long_as_the_lease(
    postgresql_url: str, open_scheduler: OpenScheduler, lease: timedelta, expected: str
) -> None:
    scheduler = open_scheduler(postgresql_url, settings=make_settings(lease=lease))

    assert read_settings(scheduler.database.engine)["idle_in_transaction_session_timeout"] == expected


def test_the_server_frees_the_locks_of_a_transaction_that_does_nothing(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.store.sessions._SHORTEST_IDLE", timedelta(0))
    engine = create_database_engine(postgres_server.url(), idle_limit=timedelta(milliseconds=100))
    with engine.connect() as idle, engine.connect() as other:
        idle.execute(text("SELECT pg_advisory_xact_lock(1)"))
        other.execute(text("SELECT pg_advisory_xact_lock(1)"))
        other.rollback()
        with pytest.raises(DatabaseUnavailableError, match="idle-in-transaction timeout"), translated():
            idle.execute(text("SELECT 1"))
    engine.dispose()


def test_a_server_connected_to_directly_is_no_pooler(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url(driver="postgresql"), autocommit=True) as connection:
        assert not is_pooled(connection)


@needs_pooler
def test_a_pooler_is_noticed(pooled_url: str) -> None:
    with psycopg.connect(pooled_url.replace("+psycopg", ""), autocommit=True) as connection:
        assert is_pooled(connection)


@needs_pooler
def test_behind_a_pooler_nothing_is_set_in_the_sessions_of_others(pooled_url: str, empty_postgresql_url: str) -> None:
    engine = create_database_engine(pooled_url)
    found = read_settings(engine)
    engine.dispose()

    assert found == read_defaults(pooled_url) == read_defaults(empty_postgresql_url)


@needs_pooler
def test_a_scheduler_migrates_enrols_and_fires_behind_a_pooler(pooled_url: str, open_scheduler: OpenScheduler) -> None:
    scheduler = open_scheduler(pooled_url)
    scheduler.migrate()
    for number in range(10):  # more often than a statement is run before it would be prepared
        scheduler.campaigns.enroll("acme", f"c-{number}", f"k-{number}", WAIT_PLAN)
        scheduler.schedule(make_job(campaign_id=f"c-{number}", node_id="wait", event_type="no_click"))
        scheduler.campaigns.process_event("acme", "opened", campaign_id=f"c-{number}", node_id="wait")
    scheduler.schedule(make_job(campaign_id="elsewhere"))

    assert scheduler.run_due() == 1
    assert _prepared_statements(pooled_url) == 0


def _prepared_statements(url: str) -> Any:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
    finally:
        engine.dispose()
