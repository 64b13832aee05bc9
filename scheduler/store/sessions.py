"""What our own sessions ask of PostgreSQL, so that it frees the locks of a client that was cut off or stopped."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import psycopg

# A client whose host is gone is found gone within 6 seconds when the session is idle, 10 when an answer is on its way,
# and also while the server is busy for it: a backend that waits for a lock looks after its client only when told to.
_SETTINGS: Final = {
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    # Instants arrive as they are used; any other zone is converted value by value.
    "TimeZone": "UTC",
}
_CLIENT_CHECK: Final = {"client_connection_check_interval": "5000"}
_CLIENT_CHECK_SINCE: Final = 140_000
# A stopped client answers keepalives. Shorter than this, a pause of the machine would cost transactions.
_SHORTEST_IDLE: Final = timedelta(seconds=10)

_BACKEND: Final = "SELECT pg_backend_pid()"
_SET: Final = (
    "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)"  # session-wide
)


def is_pooled(driver_connection: psycopg.Connection[Any]) -> bool:
    """Whether a pooler (pgbouncer) is in between: the server that answers isn't the one that was connected to.

    A session has no meaning there then: what is set, listened to or locked in it is another client's a moment later.
    One round trip; begins a transaction unless the connection is in autocommit mode.
    """
    row = driver_connection.execute(_BACKEND).fetchone()
    return row is None or row[0] != driver_connection.info.backend_pid


def prepare_session(connection: psycopg.Connection[Any], idle_limit: timedelta) -> None:
    """Make a new connection ready for our pool. It mustn't be in a transaction, and is in none afterwards.

    `idle_limit` is how long a transaction may do nothing before the server ends it and frees its locks. Behind a pooler
    nothing is set, and no statement is prepared: both would be some other client's.
    """
    was_autocommit = connection.autocommit
    connection.autocommit = True
    if is_pooled(connection):
        connection.prepare_threshold = None
    else:
        _set_what_it_knows(connection, _settings(connection.info.server_version, idle_limit))
    connection.autocommit = was_autocommit


def _settings(server_version: int, idle_limit: timedelta) -> dict[str, str]:
    milliseconds = int(max(idle_limit, _SHORTEST_IDLE).total_seconds() * 1000)
    watching = _CLIENT_CHECK if server_version >= _CLIENT_CHECK_SINCE else {}
    return {**_SETTINGS, **watching, "idle_in_transaction_session_timeout": str(milliseconds)}


def _set_what_it_knows(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """All in one round trip; one by one where the server refuses one, as some platforms and relatives do."""
    try:
        _set(connection, settings)
    except psycopg.Error:
        if connection.closed:
            raise
        for name, value in settings.items():
            with suppress(psycopg.DatabaseError):
                _set(connection, {name: value})


def _set(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    connection.execute(_SET, (list(settings), list(settings.values())))
