"""Databases for tests: every test its own, on SQLite and on a real PostgreSQL.

The schema is migrated once per session and backend. On SQLite it is copied for each test; on PostgreSQL a copy is
emptied after a test and lent to the next, see tests/support/database_pool.py. Under pytest-xdist every worker has its
own server: it starts in a second, and workers that share nothing need no lock and can't break each other's server.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from scheduler.telemetry.log import _Rendering
from tests.support.allowed_skips import AllowedSkips
from tests.support.database_pool import DatabasePool
from tests.support.postgres import PostgresServer

_BACKENDS = ("sqlite", "postgresql")
_database_numbers = count(1)


def pytest_configure(config: pytest.Config) -> None:
    """Skips are judged where all reports arrive."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(AllowedSkips.listed(), "allowed-skips")


@pytest.hookimpl(optionalhook=True)  # pytest-xdist may be off
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadgroup`, where some files are a group."""
    from tests.support.xdist_scopes import FileScheduling  # noqa: PLC0415 - the same

    return FileScheduling(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.fixture(params=_BACKENDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """A database with the current schema and no rows; the test runs once on each backend."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(params=_BACKENDS)
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database without any table; the test runs once on each backend."""
    return str(request.getfixturevalue(f"empty_{request.param}_url"))


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_sqlite_file: Path) -> str:
    """An SQLite file with the current schema and no rows."""
    return _sqlite_url(Path(shutil.copy(migrated_sqlite_file, tmp_path / "migrated.sqlite")))


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    """An SQLite file that isn't there yet."""
    return _sqlite_url(tmp_path / "empty.sqlite")


@pytest.fixture
def postgresql_url(postgres_server: PostgresServer, database_pool: DatabasePool) -> Iterator[str]:
    """A PostgreSQL database with the current schema and no rows."""
    name = database_pool.take()
    yield postgres_server.url(name)
    database_pool.give_back(name)


@pytest.fixture
def empty_postgresql_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database without any table."""
    name = f"empty_{next(_database_numbers)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server all tests of this worker share; a test that stops or kills a server makes its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a database to copy."""
    name = "migrated"
    _migrate(postgres_server.create_database(name))
    return name


@pytest.fixture(scope="session")
def database_pool(postgres_server: PostgresServer, migrated_postgres_template: str) -> DatabasePool:
    """The databases all tests of this worker share, one after the other."""
    return DatabasePool(postgres_server, migrated_postgres_template)


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file to copy."""
    file = tmp_path_factory.mktemp("sqlite") / "migrated.sqlite"
    _migrate(_sqlite_url(file))
    left_open = file.with_name(f"{file.name}-wal")
    assert not left_open.exists(), "a copy would lack what close() left in the write-ahead log"
    return file


def _sqlite_url(file: Path) -> str:
    return f"sqlite:///{file}"


def _migrate(url: str) -> None:
    from scheduler import TimeoutScheduler  # noqa: PLC0415 - the tests of the pure core run without the rest

    with closing(TimeoutScheduler(url)) as scheduler:
        scheduler.migrate()


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command run in this process sets logging up for all of it; the next test must not notice."""
    known = logging.root.manager.loggerDict.values()
    loggers = [logging.getLogger(), *(one for one in known if isinstance(one, logging.Logger))]
    before = [(one, one.level, one.disabled, one.propagate, list(one.handlers)) for one in loggers]
    looks = (_Rendering.renderer, _Rendering.stamp, _Rendering.prefixes)
    yield
    for logger, level, disabled, propagate, handlers in before:
        logger.setLevel(level)
        logger.disabled, logger.propagate = disabled, propagate
        logger.handlers[:] = handlers
    _Rendering.renderer, _Rendering.stamp, _Rendering.prefixes = looks
