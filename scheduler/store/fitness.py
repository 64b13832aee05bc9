"""Whether a server is one to fire on: its role, its settings, and the rights of ours. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Text, bindparam, func, literal_column, select

from scheduler.store.database import Database, Transaction
from scheduler.store.sessions import is_pooled
from scheduler.store.version import VERSION_TABLE

_SETTINGS: Final = (
    "autovacuum",
    "track_counts",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "max_connections",
    "superuser_reserved_connections",
)
_ALL: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
# What a daemon does to each table; a lock for share needs UPDATE.
_NEEDED: Final[Mapping[str, Sequence[str]]] = {
    VERSION_TABLE: ("SELECT",),
    "timeout_scheduler_installation": ("SELECT",),
    "timeout_scheduler_instances": _ALL,
    "campaign_plans": ("SELECT",),
    "contacts": ("SELECT",),
    "contact_campaigns": ("SELECT", "UPDATE"),
    "scheduled_actions": ("SELECT", "INSERT", "UPDATE"),
    "campaign_transitions": ("SELECT", "INSERT"),
    "campaign_events": ("SELECT",),
    "pauses": ("SELECT", "UPDATE"),
}


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a PostgreSQL server says of itself, to this role. `missing` are rights, such as `UPDATE on pauses`."""

    is_read_only: bool
    is_pooled: bool
    settings: Mapping[str, str]
    missing: tuple[str, ...]


def server_state(database: Database, transaction: Transaction) -> ServerState:
    """The state of the PostgreSQL server behind this transaction."""
    connection = transaction.connection
    names = {name: func.current_setting(name, literal_column("true"), type_=Text).label(name) for name in _SETTINGS}
    row = connection.execute(select(func.current_setting("transaction_read_only").label("read_only"), *names.values()))
    found = dict(row.one()._mapping)  # noqa: SLF001 - SQLAlchemy's documented accessor
    driver: Any = connection.connection.driver_connection
    is_read_only = found.pop("read_only") == "on"
    settings = {name: value for name, value in found.items() if value is not None}
    return ServerState(is_read_only, is_pooled(driver), settings, tuple(_missing(database, transaction)))


def _missing(database: Database, transaction: Transaction) -> list[str]:
    quote = database.engine.dialect.identifier_preparer.quote_identifier
    prefix = "" if database.schema is None else f"{quote(database.schema)}."
    has = select(
        func.has_table_privilege(func.to_regclass(bindparam("name", type_=Text)), bindparam("right", type_=Text))
    )
    missing = []
    for table, rights in _NEEDED.items():
        for right in rights:
            may = transaction.connection.execute(has, {"name": f"{prefix}{table}", "right": right}).scalar_one()
            if may is False:
                missing.append(f"{right} on {table}")
    return missing
