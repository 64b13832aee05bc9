"""Which version of the schema a database has, and which one this program needs."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select

from scheduler.domain.errors import SchemaOutdatedError
from scheduler.store.tables import tables_of

VERSION_TABLE: Final = "timeout_scheduler_version"
SCRIPTS: Final = "scheduler.store:migrations"


@cache
def newest_version() -> str:
    """The version this program needs."""
    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    head = ScriptDirectory.from_config(config).get_current_head()
    assert head is not None  # noqa: S101 - there is always a first migration
    return head


def version_of(connection: Connection, schema: str | None) -> str | None:
    """The version that stands in the database; None before the first migration."""
    options: dict[str, Any] = {"version_table": VERSION_TABLE, "version_table_schema": schema}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


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
