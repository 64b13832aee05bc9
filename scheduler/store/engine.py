"""From a database URL to an engine, with the defaults each system needs."""

from __future__ import annotations

import os
import sqlite3
from datetime import timedelta
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, InvalidatePoolError

from scheduler.domain.errors import InvalidInputError
from scheduler.store import sqlite
from scheduler.store.errors import is_outage
from scheduler.store.hosts import has_several_hosts, read_url
from scheduler.store.patience import NoAnswerError, Patience, PatientConnection, is_doubtful, limit_again
from scheduler.store.sessions import prepare_session

_KEEPALIVES: Final = {
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "timeout-scheduler",
}
_CONNECT_TIMEOUT_SECONDS: Final = 10
# Each of several hosts has its own time, and every new connection asks the first one first, also while that is dead. A
# lost SYN is sent again after 1 and 3 seconds: two losses are borne.
_CONNECT_TIMEOUT_SECONDS_PER_HOST: Final = 4
_SHORTEST_CONNECT_TIMEOUT_SECONDS: Final = 2  # the driver takes no less
_A_MINUTE: Final = timedelta(minutes=1)
# What is read after a lock has to be what is there: no snapshot of the transaction's start, and no autocommit.
_ISOLATION: Final = "READ COMMITTED"
_REMEDY: Final = (
    "give postgresql://user@host/database, postgresql://user@host:5432,other:5432/database "
    "or sqlite:////absolute/path/to/file.db"
)


def default_database_url() -> str:
    """The embedded default: an SQLite file in `$STATE_DIRECTORY`, else below `$XDG_STATE_HOME`."""
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if state:
        return f"sqlite:///{Path(state) / 'timeout-scheduler.db'}"
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return f"sqlite:///{Path(home) / 'timeout-scheduler' / 'timeout-scheduler.db'}"


def parse_database_url(database_url: str) -> URL:
    """The URL with the driver we use; raises InvalidInputError, never showing a password.

    Of several hosts the one that takes writes is used, unless `target_session_attrs` says otherwise: nothing can be
    fired on a standby.
    """
    try:
        url = read_url(database_url)
    except InvalidInputError:
        raise
    except (ArgumentError, ValueError):
        raise InvalidInputError("database_url", "(not shown)", _REMEDY) from None
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return _parse_postgresql_url(url)
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        return _parse_sqlite_url(url)
    raise InvalidInputError("database_url", url.drivername, _REMEDY)


def sqlite_file(database_url: str) -> Path | None:
    """The file of an SQLite URL; None for another database. Nothing is opened or made."""
    url = parse_database_url(database_url)
    return Path(url.database or "").resolve() if url.get_backend_name() == "sqlite" else None


def _parse_postgresql_url(url: URL) -> URL:
    if has_several_hosts(url) and "target_session_attrs" not in url.query:
        url = url.update_query_dict({"target_session_attrs": "read-write"})
    timeout = url.query.get("connect_timeout", "0")
    if not (isinstance(timeout, str) and timeout.isascii() and timeout.isdigit()):
        raise InvalidInputError("database_url", f"connect_timeout={timeout}", "give whole seconds")
    return url.set(drivername="postgresql+psycopg")


def _parse_sqlite_url(url: URL) -> URL:
    if not url.database or ":memory:" in url.database or "mode=memory" in str(url):
        raise InvalidInputError(
            "database_url", str(url), "give a file: a database in memory is lost with the process, and its timeouts too"
        )
    return url.set(drivername="sqlite")


def create_database_engine(
    database_url: str,
    pool_size: int = 10,
    *,
    patience: Patience | None = None,
    idle_limit: timedelta = _A_MINUTE,
) -> Engine:
    """An engine for PostgreSQL or an SQLite file. Nothing is connected yet.

    On PostgreSQL no answer is waited for longer than `patience` has (a minute), a transaction that does nothing for
    `idle_limit` is ended by the server, and connections to a server that went read-only or away are replaced.
    """
    url = parse_database_url(database_url)
    if url.get_backend_name() == "sqlite":
        return _create_sqlite_engine(url)
    limit = patience or Patience(_A_MINUTE)
    engine = create_engine(
        url,
        connect_args=_connect_arguments(url),
        isolation_level=_ISOLATION,
        pool_size=pool_size,
        max_overflow=10,
        pool_use_lifo=True,
        pool_recycle=1800,
        hide_parameters=True,
    )

    def connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> PatientConnection:
        connection = PatientConnection.connect(*arguments, **_with_an_end(options, limit))
        limit.adopt(connection)
        try:
            prepare_session(connection, idle_limit)
        except BaseException:
            connection.close()
            raise
        return connection

    def look_at(connection: Any, _record: object, _fairy: object) -> None:
        # In place of a ping at every use, which is a round trip.
        if limit.is_lost(connection) or (is_doubtful(connection) and not _answers(engine, connection)):
            raise InvalidatePoolError

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "checkout", look_at)
    event.listen(engine, "checkin", limit_again)
    event.listen(engine, "handle_error", _replace_connections)
    return engine


def _answers(engine: Engine, connection: Any) -> bool:
    try:
        return engine.dialect.do_ping(connection)
    except psycopg.Error:
        return False


def _with_an_end(options: dict[str, Any], patience: Patience) -> dict[str, Any]:
    """A new connection is waited for as long as an answer, no longer. The given dict stays: it is the engine's."""
    left = patience.left(monotonic())
    if left <= 0:
        raise NoAnswerError("the database gave no answer in time, and no new connection is waited for")
    longest = max(ceil(left), _SHORTEST_CONNECT_TIMEOUT_SECONDS)
    return {**options, "connect_timeout": min(int(options["connect_timeout"]) or longest, longest)}


def _connect_arguments(url: URL) -> dict[str, Any]:
    timeout = _CONNECT_TIMEOUT_SECONDS_PER_HOST if has_several_hosts(url) else _CONNECT_TIMEOUT_SECONDS
    defaults = {**_KEEPALIVES, "connect_timeout": timeout}
    return {name: value for name, value in defaults.items() if name not in url.query}


def _replace_connections(context: ExceptionContext) -> None:
    """After a failover the session may live on, on a server that is no primary any more: as good as disconnected."""
    if is_outage(context.original_exception):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = True


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
    event.listen(engine, "do_connect", _open_sqlite)
    return engine


def _open_sqlite(dialect: Any, _record: object, arguments: Any, options: Any) -> Any:
    """SQLite says that it can't open its file, but neither which one nor why."""
    try:
        return dialect.connect(*arguments, **options)
    except sqlite3.OperationalError as error:
        file = Path(str(arguments[0])).resolve()
        if not os.access(file.parent, os.W_OK):
            hint = "isn't writable for this user" if file.parent.exists() else "isn't there"
            error.args = (f"{error}: {file}, whose folder {hint}",)
        raise


def _make_parent(file: Path) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError("database_url", str(file), f"make its folder writable ({error.strerror})") from None
