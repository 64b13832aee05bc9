"""The schema's version: upgrade it, say which it is, refuse to work on another.

Migrations are SQL files in sql/, applied by Alembic with a version table of our own, in the schema of our own
choice, so that they live beside a host application's tables and its own Alembic.
"""

from __future__ import annotations

import io
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.schema import CreateSchema

from scheduler.domain.errors import InvalidInputError, SchemaOutdatedError
from scheduler.store.database import Database

VERSION_TABLE: Final = "timeout_scheduler_version"
_MIGRATION_LOCK: Final = 0x7409_5CED
_SCRIPTS: Final = "scheduler.store:migrations"


def upgrade(database: Database) -> str:
    """Create the schema or bring it up to date, in one transaction; returns the version it has now.

    Two processes may do this at once: the second waits, and finds nothing left to do.
    Raises InvalidInputError when foreign tables of the same names are in the way.
    """
    with database.transaction() as transaction:
        connection = transaction.connection
        _prepare(database, connection)
        if _version(database, connection) is None:
            _refuse_foreign_tables(database, connection)
        command.upgrade(_config(database, connection), "head")
        return newest_version()


def current_version(database: Database) -> str | None:
    """The version the database has; None before the first migration."""
    with database.reading() as transaction:
        return _version(database, transaction.connection)


def newest_version() -> str:
    """The version this program needs."""
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    head = ScriptDirectory.from_config(config).get_current_head()
    assert head is not None  # noqa: S101 - there is always a first migration
    return head


def require_current(database: Database) -> None:
    """Raises SchemaOutdatedError unless the database has exactly the version this program needs."""
    version = current_version(database)
    if version != newest_version():
        raise SchemaOutdatedError(
            f"the database's schema is {version or 'missing'}, this version needs {newest_version()}: "
            "run `timeout-scheduler db upgrade` (or TimeoutScheduler.migrate())"
        )


def upgrade_sql(database: Database) -> str:
    """The SQL that makes the schema from nothing, for a review or for an administrator to run."""
    config = _config(database, None)
    config.output_buffer = buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)
    return buffer.getvalue()


def _config(database: Database, connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes.update(
        connection=connection,
        schema=database.schema,
        metadata=database.tables.metadata,
        dialect_name=database.dialect_name,
    )
    return config


def _prepare(database: Database, connection: Connection) -> None:
    """Let one process migrate at a time, into the schema that was asked for."""
    if not database.is_postgresql:
        return
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    if database.schema is not None:
        connection.execute(CreateSchema(database.schema, if_not_exists=True))
        connection.execute(
            text("SELECT set_config('search_path', quote_ident(:schema), true)"), {"schema": database.schema}
        )


def _version(database: Database, connection: Connection) -> str | None:
    options: dict[str, Any] = {"version_table": VERSION_TABLE, "version_table_schema": database.schema}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _refuse_foreign_tables(database: Database, connection: Connection) -> None:
    ours = {table.name for table in database.tables.metadata.tables.values()}
    foreign = sorted(ours.intersection(inspect(connection).get_table_names(schema=database.schema)))
    if foreign:
        raise InvalidInputError(
            "SCHEMA",
            database.schema or "(default)",
            f"choose another schema: it already has foreign tables {', '.join(foreign)}",
        )
