"""Database errors, translated at the store's door.

`TRANSIENT_SQLSTATES` is the closed list of what is worth trying again: nothing else is retried without counting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from scheduler.domain.errors import DatabaseUnavailableError, MissingRightError, SchemaOutdatedError

# Here because the same transaction can succeed later without anybody changing it or its rows; everything written is
# fenced or idempotent, so that it doesn't matter whether a lost COMMIT took place (08007). 08P01 is how pgbouncer says
# that it has no server or no room. Left out: 25P02 (follows from an error somebody swallowed: a bug), 53400 and 54000
# (a limit this statement meets every time), 58030 and XX001 (a bad block: only the rows on it fail, and they alone are
# to be parked), XX000 (the server's own bugs; nobody would hear of them), 57000 and 40000 (nothing raises them).
TRANSIENT_SQLSTATES: Final = {
    "40001": "serialization failure",
    "40003": "unknown whether the statement took place",
    "40P01": "deadlock",
    "55P03": "lock not available",
    "57014": "statement canceled",
    "53000": "insufficient resources",
    "53300": "too many connections",
    "53200": "out of memory",
    "53100": "disk full",
    "57P01": "server is shutting down",
    "57P02": "server crashed",
    "57P03": "server is starting",
    "57P04": "database dropped, perhaps for a restore",
    "57P05": "idle session ended",
    "25P03": "idle transaction ended",
    "25P04": "transaction took too long",
    "25006": "read-only server",
    "08000": "connection error",
    "08001": "can't connect",
    "08003": "connection gone",
    "08004": "connection refused",
    "08006": "connection failed",
    "08007": "unknown whether the transaction took place",
    "08P01": "protocol violation",
}
# The server is none to work on, even where the connection to it lives: it and its like in the pool are replaced.
OUTAGE_SQLSTATES: Final = {"25006", "57P01", "57P02", "57P03"}
RETRIED_AT_ONCE: Final = {"40001", "40P01"}
_REMEDY_OF_TENANT: Final = "name the row's tenant in this session: SET LOCAL timeout_scheduler.tenant_id = '...'"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_STATEMENT_CANCELED: Final = "57014"
_MISSING_TABLE: Final = "42P01"
_MISSING_RIGHT: Final = "42501"
_OTHER_TENANT: Final = "row-level security"
REMEDY_OF_RIGHTS: Final = (
    "an administrator gives it with what `timeout-scheduler db roles` prints; the schema is changed by its owner alone"
)
_SQLITE_TRANSIENT: Final = (
    "database is locked",
    "database table is locked",
    "disk is full",
    "disk I/O error",
    "unable to open database file",
    "attempt to write a readonly database",
    "locking protocol",
)


def sqlstate_of(error: DBAPIError) -> str | None:
    """The five-character code PostgreSQL gave, where there is one (psycopg and asyncpg alike)."""
    original = error.orig
    for name in ("sqlstate", "pgcode"):
        state = getattr(original, name, None)
        if isinstance(state, str):
            return state
    return None


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed when tried again."""
    if isinstance(error, (DatabaseUnavailableError, PoolTimeoutError)):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate_of(error)
    if state is not None:
        return state in TRANSIENT_SQLSTATES
    if any(text in str(error.orig) for text in _SQLITE_TRANSIENT):
        return True
    return error.connection_invalidated or (
        isinstance(error, (OperationalError, InterfaceError)) and not _is_sqlite(error)
    )


def is_outage(error: BaseException) -> bool:
    """Whether the driver's error says that this server is none to work on."""
    return getattr(error, "sqlstate", None) in OUTAGE_SQLSTATES


def is_retried_at_once(error: BaseException | None) -> bool:
    """Whether the transaction lost a race and may simply be run again."""
    return isinstance(error, DBAPIError) and sqlstate_of(error) in RETRIED_AT_ONCE


def is_refusal(error: BaseException | None) -> bool:
    """Whether the server is there and gave up on this one transaction, which a smaller one may escape."""
    canceled = isinstance(error, DBAPIError) and sqlstate_of(error) == _STATEMENT_CANCELED
    return canceled or is_retried_at_once(error) or is_lock_timeout(error)


def is_lock_timeout(error: BaseException | None) -> bool:
    """Whether the transaction waited for somebody else's lock for as long as it may."""
    return isinstance(error, DBAPIError) and sqlstate_of(error) == _LOCK_NOT_AVAILABLE


def _is_sqlite(error: DBAPIError) -> bool:
    return type(error.orig).__module__.startswith("sqlite3")


def _is_missing_table(error: DBAPIError) -> bool:
    return sqlstate_of(error) == _MISSING_TABLE or "no such table" in str(error.orig)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the driver raises into this package's own errors, keeping the cause."""
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseUnavailableError("no database connection became free in time") from error
    except DBAPIError as error:
        if _is_missing_table(error):
            raise SchemaOutdatedError(
                f"a table is missing ({describe(error)}): if it is one of timeout-scheduler's, run "
                "`timeout-scheduler db upgrade` (or TimeoutScheduler.migrate())"
            ) from error
        if is_transient(error):
            raise DatabaseUnavailableError(describe(error)) from error
        if sqlstate_of(error) == _MISSING_RIGHT:
            told = describe(error)
            remedy = _REMEDY_OF_TENANT if _OTHER_TENANT in told else REMEDY_OF_RIGHTS
            raise MissingRightError(f"{told}; {remedy}") from error
        raise


def describe(error: BaseException) -> str:
    """One line about a database error: the server's own words, without the statement and its parameters."""
    if not isinstance(error, DBAPIError):
        return f"{type(error).__name__}: {error}"
    lines = str(error.orig).strip().split("\n")
    if "database is locked" in lines[0]:
        return _locked(error)
    # Of several hosts the driver tells the last one's fault first, and then all of them, a line each.
    hosts = [line.removeprefix("- ") for line in lines if line.startswith("- host: ")]
    return f"{type(error.orig).__name__}: {'; '.join(hosts) or lines[0]}"


def _locked(error: DBAPIError) -> str:
    if getattr(error.orig, "sqlite_errorname", None) == "SQLITE_BUSY_SNAPSHOT":
        return (
            "the transaction read before it wrote, and another one has written since: begin it with BEGIN IMMEDIATE, "
            "or call the scheduler before the first read"
        )
    return (
        "another transaction holds this SQLite file's write lock for longer than the busy timeout: end it, or give "
        "its connection"
    )
