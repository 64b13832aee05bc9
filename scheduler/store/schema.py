"""The schema's version: upgrade it, say which it is, refuse to work on another.

Migrations are SQL files in sql/, applied by Alembic with a version table of our own, in the schema of our own
choice, so that they live beside a host application's tables and its own Alembic.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, Executable, inspect, literal_column, select, text
from sqlalchemy.schema import CreateSchema

from scheduler.domain.errors import InvalidInputError
from scheduler.store.database import Database
from scheduler.store.patience import wait_without_end
from scheduler.store.version import newest_version, require_usable, version_of

__all__ = ["current_version", "newest_version", "require_current", "upgrade", "upgrade_sql"]

_MIGRATION_LOCK: Final = 0x7409_5CED


def upgrade(database: Database) -> str:
    """Create the schema or bring it up to date, in one transaction; returns the version it has now.

    Two processes may do this at once: the second waits, and finds nothing left to do. A role that may only read finds
    that out, too. Raises MissingRightError where there is something to do, and the role isn't the owner's.
    Raises InvalidInputError when foreign tables of the same names are in the way.
    """
    if current_version(database) == newest_version():
        return newest_version()
    with database.unchecked() as transaction:
        connection = transaction.connection
        wait_without_end(connection)  # a large table takes its time, and so does another process that migrates
        _prepare(database, connection)
        version = version_of(connection, database.schema)
        if version is None:
            _refuse_foreign_tables(database, connection)
        if version is not None and version > newest_version():  # upgraded by a newer program: nothing to do for us
            return require_usable(connection, database.schema)
        from scheduler.store.scripts import run_on  # noqa: PLC0415 - Alembic, which nothing else needs

        run_on(connection, database, _preparation(database))
        return newest_version()


def current_version(database: Database) -> str | None:
    """The version the database has; None before the first migration."""
    with database.unchecked(writing=False) as transaction:
        return version_of(transaction.connection, database.schema)


def require_current(database: Database) -> None:
    """Raises SchemaOutdatedError unless the database has the version this program needs, or a newer one that it knows.

    A newer one says itself which programs may work on it.
    """
    with database.unchecked(writing=False) as transaction:
        require_usable(transaction.connection, database.schema)


def upgrade_sql(database: Database, since: str | None = None) -> str:
    """The SQL that makes the schema from nothing, or from version `since`, for a review or an administrator to run."""
    if since is not None and since >= newest_version():
        return ""
    from scheduler.store.scripts import print_since  # noqa: PLC0415 - Alembic, which nothing else needs

    return print_since(since, database, _preparation(database))


def _prepare(database: Database, connection: Connection) -> None:
    """Let one process migrate at a time, into the schema that was asked for."""
    if not database.is_postgresql:
        return
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    # Making a schema takes a right on the database, even where `IF NOT EXISTS` finds that it is there.
    is_there = database.schema is not None and inspect(connection).has_schema(database.schema)
    for statement in _preparation(database)[is_there:]:
        connection.execute(statement)


def _preparation(database: Database) -> list[Executable]:
    """What makes the scripts, which name no schema, run in the one that was asked for."""
    if database.schema is None or not database.is_postgresql:
        return []
    quoted = database.engine.dialect.identifier_preparer.quote_identifier(database.schema)
    text_of_it = quoted.replace("'", "''")
    search_path: ColumnElement[str] = literal_column(f"set_config('search_path', '{text_of_it}', true)")
    return [CreateSchema(database.schema, if_not_exists=True), select(search_path)]


def _refuse_foreign_tables(database: Database, connection: Connection) -> None:
    ours = {table.name for table in database.tables.metadata.tables.values()}
    foreign = sorted(ours.intersection(inspect(connection).get_table_names(schema=database.schema)))
    if foreign:
        raise InvalidInputError(
            "SCHEMA",
            database.schema or "(default)",
            f"choose another schema: it already has foreign tables {', '.join(foreign)}",
        )
