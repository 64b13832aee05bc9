"""Whether a server is one to fire on: its role, its settings, and the rights of ours. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Text, func, literal_column, select

from scheduler.store.database import Transaction
from scheduler.store.rights import missing_rights_of_daemon
from scheduler.store.sessions import is_pooled

_SETTINGS: Final = (
    "autovacuum",
    "track_counts",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "max_connections",
    "superuser_reserved_connections",
)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a PostgreSQL server says of itself, to this role. `missing` are rights, such as `UPDATE on pauses`."""

    is_read_only: bool
    is_pooled: bool
    settings: Mapping[str, str]
    missing: tuple[str, ...]


def server_state(transaction: Transaction) -> ServerState:
    """The state of the PostgreSQL server behind this transaction."""
    connection = transaction.connection
    names = {name: func.current_setting(name, literal_column("true"), type_=Text).label(name) for name in _SETTINGS}
    row = connection.execute(select(func.current_setting("transaction_read_only").label("read_only"), *names.values()))
    found = dict(row.one()._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor
    driver: Any = connection.connection.driver_connection
    is_read_only = found.pop("read_only") == "on"
    settings = {name: value for name, value in found.items() if value is not None}
    return ServerState(is_read_only, is_pooled(driver), settings, tuple(missing_rights_of_daemon(transaction)))
