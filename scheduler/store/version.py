"""Which version of the schema a database has, and which one this program needs."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from sqlalchemy import Connection, Text, column, inspect, select, table

from scheduler.domain.errors import SchemaOutdatedError
from scheduler.store.tables import tables_of

VERSION_TABLE: Final = "timeout_scheduler_version"
SCRIPTS: Final = "scheduler.store:migrations"


@cache
def newest_version() -> str:
    """The version this program needs."""
    # By the names of the migrations, v0001_engine.py and so on: asking Alembic would be a tenth of a start.
    names = [entry.name for entry in (files("scheduler.store.migrations") / "versions").iterdir()]
    return max(name[1:5] for name in names if name.startswith("v") and name.endswith(".py"))


def version_of(connection: Connection, schema: str | None) -> str | None:
    """The version that stands in the database; None before the first migration."""
    if not inspect(connection).has_table(VERSION_TABLE, schema):
        return None
    versions = table(VERSION_TABLE, column("version_num", Text), schema=schema)
    return connection.execute(select(versions.c.version_num)).scalar_one_or_none()


def require_usable(connection: Connection, schema: str | None) -> str:
    """The version of the schema that stands in the database. Raises SchemaOutdatedError unless we may work on it.

    That is the one this program needs, or a newer one that says it may: while an upgrade is rolled out, programs of
    the version before go on, and start anew.
    """
    version, needed = version_of(connection, schema), newest_version()
    if version is None or version < needed:
        raise SchemaOutdatedError(
            f"the database's schema is {version or 'missing'}, this version needs {needed}: "
            "run `timeout-scheduler db upgrade` (or TimeoutScheduler.migrate())"
        )
    oldest = _oldest_program(connection, schema) if version > needed else needed
    if oldest is None or oldest > needed:
        raise SchemaOutdatedError(
            f"the database's schema is {version}, newer than this version knows, which needs {needed}: "
            "install the newer timeout-scheduler here, too"
        )
    return version


def _oldest_program(connection: Connection, schema: str | None) -> str | None:
    installation = tables_of(schema).installation.c
    return connection.execute(select(installation.oldest_program)).scalar_one_or_none()
