"""Statements that run on the driver's own cursor are, to everybody else, statements like any other."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Integer, bindparam, event, func, literal_column, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from scheduler import DatabaseUnavailableError, TimeoutScheduler
from scheduler.store.database import Database, Transaction
from scheduler.store.errors import is_lock_timeout
from scheduler.store.prepared import Prepared
from tests.integration.conftest import OpenScheduler
from tests.support.scheduling import make_job

ONE_MORE = Prepared(select(bindparam("number", type_=Integer) + literal_column("1"), literal_column("'100 %'")))
DIVISION = Prepared(select(literal_column("1") / bindparam("number", type_=Integer)))
OWN_PID = Prepared(select(func.pg_backend_pid()))


@pytest.fixture
def scheduler(postgresql_url: str, open_scheduler: OpenScheduler) -> TimeoutScheduler:
    """One on PostgreSQL, with an engine of its own."""
    return open_scheduler(postgresql_url)


@pytest.fixture
def database(scheduler: TimeoutScheduler) -> Database:
    """Its database."""
    return scheduler.database


def failure_of(database: Database, work: Callable[[Transaction], None]) -> Exception:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it is, it is looked at
        database.run(work)
    return raised.value


def pid_of(transaction: Transaction) -> int:
    return int(OWN_PID.rows(transaction, {})[0][0])


def end_session(url: str, pid: int) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_parameters_and_percent_signs_come_through(database: Database) -> None:
    with database.transaction() as transaction:
        assert transaction.driver is not None
        assert [tuple(row) for row in ONE_MORE.rows(transaction, {"number": 41})] == [(42, "100 %")]


def test_the_same_answer_on_both_databases(database_url: str, open_scheduler: OpenScheduler) -> None:
    with open_scheduler(database_url).database.transaction() as transaction:
        assert [tuple(row) for row in ONE_MORE.rows(transaction, {"number": 1})] == [(2, "100 %")]


def test_whoever_listens_to_the_engine_hears_of_them(database: Database) -> None:
    heard: list[str] = []

    def hear(*facts: Any) -> None:
        heard.append(facts[2])

    event.listen(database.engine, "before_cursor_execute", hear)
    with database.transaction() as transaction:
        ONE_MORE.rows(transaction, {"number": 1})
    event.remove(database.engine, "before_cursor_execute", hear)
    with database.transaction() as transaction:
        ONE_MORE.rows(transaction, {"number": 1})
    assert len([statement for statement in heard if "100 %" in statement]) == 1


def test_an_error_is_what_sqlalchemy_would_raise_and_the_session_lives_on(database: Database) -> None:
    def divide_plainly(transaction: Transaction) -> None:
        transaction.connection.execute(text("SELECT 1 / 0"))

    def divide(transaction: Transaction) -> None:
        pids.append(pid_of(transaction))
        DIVISION.rows(transaction, {"number": 0})

    pids: list[int] = []
    expected, raised = failure_of(database, divide_plainly), failure_of(database, divide)
    assert isinstance(raised, DBAPIError)
    assert isinstance(expected, DBAPIError)
    assert type(raised) is type(expected)
    assert type(raised.orig) is type(expected.orig)
    assert not raised.connection_invalidated
    assert database.run(pid_of) == pids[0]


def test_what_is_unique_stays_an_integrity_error(database: Database) -> None:
    def insert_twice(transaction: Transaction) -> None:
        assert insert.change(transaction, {}) == 1
        insert.change(transaction, {})

    values = {"tenant_id": "acme", "plan_hash": "one", "plan": "{}", "created_at": func.current_timestamp()}
    insert = Prepared(database.tables.campaign_plans.insert().values(values))
    assert isinstance(failure_of(database, insert_twice), IntegrityError)


def test_waiting_for_a_lock_ends_as_a_lock_timeout(scheduler: TimeoutScheduler, postgresql_url: str) -> None:
    def wait(transaction: Transaction) -> None:
        transaction.wait_at_most(timedelta(milliseconds=50))
        lock.rows(transaction, {})

    scheduler.schedule(make_job())
    lock = Prepared(select(scheduler.database.tables.scheduled_actions.c.dedupe_key).with_for_update())
    with psycopg.connect(postgresql_url.replace("+psycopg", "")) as holder:
        holder.execute("SELECT 1 FROM scheduled_actions FOR UPDATE")
        raised = failure_of(scheduler.database, wait)
    assert isinstance(raised, DatabaseUnavailableError)
    assert is_lock_timeout(raised.__cause__)


def test_a_batch_begins_when_its_transaction_does(database: Database) -> None:
    with database.transaction() as transaction:
        transaction.wait_at_most(timedelta(seconds=2))
        start, limit = transaction.connection.execute(select(func.now(), func.current_setting("lock_timeout"))).one()
        assert transaction.now == start
    assert limit == "2s"


def test_in_a_callers_transaction_the_present_is_later_than_its_start(database: Database) -> None:
    with database.engine.connect() as caller, database.transaction(caller) as transaction:
        before = caller.execute(select(func.now(), func.clock_timestamp())).one()
        transaction.wait_at_most(timedelta(seconds=1))
        with transaction.waiting_at_most(timedelta(seconds=2)):
            within = caller.execute(select(func.current_setting("lock_timeout"))).scalar_one()
        assert transaction.now >= before[1] > before[0]
        after = caller.execute(select(func.current_setting("lock_timeout"))).scalar_one()
    assert (within, after) == ("2s", "1s")


def test_a_session_that_was_ended_is_replaced(database: Database, postgresql_url: str) -> None:
    def be_ended(transaction: Transaction) -> None:
        pids.append(pid_of(transaction))
        end_session(postgresql_url, pids[0])
        ONE_MORE.rows(transaction, {"number": 1})

    pids: list[int] = []
    raised = failure_of(database, be_ended)
    assert isinstance(raised, DatabaseUnavailableError)
    assert isinstance(raised.__cause__, OperationalError)
    assert raised.__cause__.connection_invalidated
    assert database.run(pid_of) != pids[0]


def test_a_server_that_went_read_only_is_left(database: Database) -> None:
    def write_in_vain(transaction: Transaction) -> None:
        pids.append(pid_of(transaction))
        transaction.connection.execute(text("SET TRANSACTION READ ONLY"))
        write.change(transaction, {})

    pids: list[int] = []
    actions = database.tables.scheduled_actions
    write = Prepared(actions.update().values(attempts=actions.c.attempts))
    assert "read-only" in str(failure_of(database, write_in_vain))
    assert database.run(pid_of) != pids[0]


def test_after_a_single_statement_the_session_is_in_transactions_again(scheduler: TimeoutScheduler) -> None:
    """An error, too, leaves no session behind that commits each statement by itself."""

    def delete_and_fail(transaction: Transaction) -> None:
        transaction.connection.execute(text("DELETE FROM scheduled_actions"))
        raise ZeroDivisionError

    with pytest.raises(DBAPIError), scheduler.database.one_statement() as transaction:
        DIVISION.rows(transaction, {"number": 0})
    scheduler.schedule(make_job())
    assert isinstance(failure_of(scheduler.database, delete_and_fail), ZeroDivisionError)
    assert scheduler.find(make_job().dedupe_key) is not None
