"""From a database URL to an engine, with the defaults each system needs."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from scheduler.domain.errors import InvalidInputError
from scheduler.store import sqlite

_KEEPALIVES: Final = {
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "connect_timeout": 10,
    "application_name": "timeout-scheduler",
}
# What is read after a lock has to be what is there: no snapshot of the transaction's start, and no autocommit.
_ISOLATION: Final = "READ COMMITTED"
_REMEDY: Final = "give postgresql://user@host/database or sqlite:////absolute/path/to/file.db"


def default_database_url() -> str:
    """The embedded default: an SQLite file in `$STATE_DIRECTORY`, else below `$XDG_STATE_HOME`."""
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if state:
        return f"sqlite:///{Path(state) / 'timeout-scheduler.db'}"
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return f"sqlite:///{Path(home) / 'timeout-scheduler' / 'timeout-scheduler.db'}"


def parse_database_url(database_url: str) -> URL:
    """The URL with the driver we use; raises InvalidInputError, never showing a password."""
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError):
        raise InvalidInputError("database_url", "(not shown)", _REMEDY) from None
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername == "postgresql+psycopg":
        return url
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        return _parse_sqlite_url(url)
    raise InvalidInputError("database_url", url.drivername, _REMEDY)


def _parse_sqlite_url(url: URL) -> URL:
    if not url.database or ":memory:" in url.database or "mode=memory" in str(url):
        raise InvalidInputError(
            "database_url", str(url), "give a file: a database in memory is lost with the process, and its timeouts too"
        )
    return url.set(drivername="sqlite")


def create_database_engine(database_url: str, pool_size: int = 10) -> Engine:
    """An engine with keepalives (PostgreSQL) or a write-ahead log (SQLite). Nothing is connected yet."""
    url = parse_database_url(database_url)
    if url.get_backend_name() == "sqlite":
        return _create_sqlite_engine(url)
    arguments: dict[str, Any] = {name: value for name, value in _KEEPALIVES.items() if name not in url.query}
    return create_engine(
        url,
        connect_args=arguments,
        isolation_level=_ISOLATION,
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        pool_use_lifo=True,
        pool_recycle=1800,
        hide_parameters=True,
    )


def join_engine(engine: object) -> Engine:
    """An application's own engine, with the isolation our statements are written for; its pool is shared."""
    if not isinstance(engine, Engine):
        raise InvalidInputError("engine", engine, "give a SQLAlchemy Engine (not an AsyncEngine)")
    if engine.dialect.name == "sqlite":
        _parse_sqlite_url(engine.url)
        return engine
    return engine.execution_options(isolation_level=_ISOLATION)


def _create_sqlite_engine(url: URL) -> Engine:
    if sqlite3.sqlite_version_info < sqlite.OLDEST_VERSION:
        oldest = ".".join(map(str, sqlite.OLDEST_VERSION))
        raise InvalidInputError("database_url", f"SQLite {sqlite3.sqlite_version}", f"use SQLite {oldest} or newer")
    _make_parent(Path(url.database or ""))
    engine = create_engine(
        url, connect_args={"timeout": sqlite.BUSY_TIMEOUT_SECONDS, "check_same_thread": False}, hide_parameters=True
    )
    sqlite.configure(engine)
    return engine


def _make_parent(file: Path) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError("database_url", str(file), f"make its folder writable ({error.strerror})") from None
