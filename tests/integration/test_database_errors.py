"""Which errors of a database pass by themselves, shown by the errors themselves."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from scheduler import DatabaseUnavailableError, TimeoutScheduler
from scheduler.store.engine import create_database_engine
from scheduler.store.errors import describe, is_transient, translated
from tests.support.postgres import PostgresServer, free_port

PASS_BY_THEMSELVES = [
    *("08000", "08001", "08003", "08004", "08006", "08007", "08P01"),
    *("25006", "25P03", "25P04", "40001", "40003", "40P01", "53000", "53100", "53200", "53300", "55P03"),
    *("57014", "57P01", "57P02", "57P03", "57P04", "57P05"),
]
ARE_SOMEBODYS_FAULT = [
    *("22P02", "23505", "25001", "25P02", "40000", "40002", "42601", "42P01", "53400", "54000", "55000", "55006"),
    *("57000", "58030", "XX000", "XX001", "0A000", "26000", "P0001"),
]


def fail(engine: Engine, statement: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as raised, engine.begin() as connection:
        connection.execute(text(statement))
    return raised.value


@pytest.fixture(scope="module")
def engine(postgres_server: PostgresServer) -> Iterator[Engine]:
    """On a database without our tables."""
    engine = create_database_engine(postgres_server.url())
    yield engine
    engine.dispose()


@pytest.mark.parametrize("sqlstate", PASS_BY_THEMSELVES)
def test_what_passes_by_itself_is_transient(engine: Engine, sqlstate: str) -> None:
    assert is_transient(fail(engine, f"DO $$ BEGIN RAISE 'so it goes' USING ERRCODE = '{sqlstate}'; END $$"))


@pytest.mark.parametrize("sqlstate", ARE_SOMEBODYS_FAULT)
def test_what_is_somebodys_fault_is_not(engine: Engine, sqlstate: str) -> None:
    assert not is_transient(fail(engine, f"DO $$ BEGIN RAISE 'so it goes' USING ERRCODE = '{sqlstate}'; END $$"))


def refuse(_engine: Engine) -> DBAPIError:
    """Nobody listens at that port."""
    nobody = create_database_engine(f"postgresql://postgres@127.0.0.1:{free_port()}/nothing")
    return fail(nobody, "SELECT 1")


def close(engine: Engine) -> DBAPIError:
    """Somebody closed the connection under us."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.close()
        with pytest.raises(DBAPIError) as raised:
            connection.execute(text("SELECT 1"))
    return raised.value


def terminate(engine: Engine) -> DBAPIError:
    """An administrator ended the session."""
    return fail(engine, "SELECT pg_terminate_backend(pg_backend_pid())")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (refuse, "Connection refused"),
        (close, "OperationalError: the connection is closed"),
        (terminate, ": terminating connection due to administrator command"),
    ],
)
def test_a_lost_connection_is_transient_and_told_in_one_line(
    engine: Engine, end: Callable[[Engine], DBAPIError], said: str
) -> None:
    error = end(engine)

    assert is_transient(error)
    assert said in describe(error)
    assert "\n" not in describe(error)


@pytest.mark.parametrize(
    "words",
    [
        "server closed the connection unexpectedly",
        "consuming input failed: SSL connection has been closed unexpectedly",
        "consuming input failed: could not receive data from server: Connection timed out",
        "sending query failed: no connection to the server",
    ],
)
def test_an_error_of_the_wire_without_a_state_is_transient(engine: Engine, words: str) -> None:
    """The driver's words for ends that depend on the moment, wrapped as SQLAlchemy wraps them."""
    error = DBAPIError.instance(None, None, psycopg.OperationalError(words), psycopg.Error, dialect=engine.dialect)

    assert isinstance(error, DBAPIError)
    assert is_transient(error)
    assert describe(error) == f"OperationalError: {words}"


def test_every_host_that_was_tried_is_told() -> None:
    first, second = free_port(), free_port()
    engine = create_database_engine(f"postgresql://postgres:hidden@127.0.0.1:{first},127.0.0.1:{second}/nothing")

    with pytest.raises(DatabaseUnavailableError) as raised, translated():
        fail_to_connect(engine)

    said = str(raised.value)
    assert f"port {first} failed: Connection refused; " in said
    assert f"port {second} failed: Connection refused" in said
    assert "\n" not in said
    assert "hidden" not in said


def fail_to_connect(engine: Engine) -> None:
    engine.connect()


def test_a_full_sqlite_file_is_transient(tmp_path: Path) -> None:
    engine = create_database_engine(f"sqlite:///{tmp_path / 'full.db'}")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE a (b)"))
        connection.exec_driver_sql("PRAGMA max_page_count = 2")
        with pytest.raises(DBAPIError) as raised:
            connection.execute(text("CREATE TABLE c (d)"))

    assert getattr(raised.value.orig, "sqlite_errorname", None) == "SQLITE_FULL"
    assert is_transient(raised.value)
    assert describe(raised.value) == "OperationalError: database or disk is full"
    engine.dispose()


def test_a_busy_sqlite_file_is_transient(tmp_path: Path) -> None:
    file = tmp_path / "busy.db"
    engine = create_database_engine(f"sqlite:///{file}")
    with closing(sqlite3.connect(file, isolation_level=None)) as writer, engine.connect() as connection:
        writer.execute("BEGIN IMMEDIATE")
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        with pytest.raises(DBAPIError) as raised:
            connection.execute(text("CREATE TABLE a (b)"))

    assert getattr(raised.value.orig, "sqlite_errorname", None) == "SQLITE_BUSY"
    assert is_transient(raised.value)
    assert describe(raised.value).startswith("another transaction holds this SQLite file's write lock")
    engine.dispose()


def test_a_bug_on_sqlite_is_not_transient(tmp_path: Path) -> None:
    engine = create_database_engine(f"sqlite:///{tmp_path / 'bug.db'}")

    assert not is_transient(fail(engine, "SELECT nonsense"))
    engine.dispose()


# A process of its own, since the limit holds for a whole one.
_WRITE_BEYOND_A_LIMIT = """
import resource, sys
from sqlalchemy import text
from scheduler.store.engine import create_database_engine
from scheduler.store.errors import is_transient
engine = create_database_engine("sqlite:///" + sys.argv[1])
with engine.connect() as connection:
    connection.execute(text("CREATE TABLE a (b)"))
    connection.commit()
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
    try:
        connection.execute(text("INSERT INTO a VALUES (zeroblob(100000))"))
        connection.commit()
    except Exception as error:
        print(error.orig.sqlite_errorname, is_transient(error))
"""


def test_a_disk_that_fails_under_an_sqlite_file_is_transient(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="no limits on files on this system")

    done = subprocess.run(
        [sys.executable, "-c", _WRITE_BEYOND_A_LIMIT, tmp_path / "failing.db"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout == "SQLITE_IOERR_WRITE True\n"


def test_a_file_that_sqlite_cant_open_is_named_with_what_is_in_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with closing(TimeoutScheduler(f"sqlite:///{folder / 'timeouts.db'}")) as timeouts:
        folder.rmdir()
        with pytest.raises(DatabaseUnavailableError) as refused:
            timeouts.migrate()

    told = f"unable to open database file: {folder / 'timeouts.db'}, whose folder isn't there"
    assert str(refused.value).endswith(told)
