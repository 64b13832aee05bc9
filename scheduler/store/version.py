"""Which version of the schema a database has, and which one this program needs."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from scheduler.domain.errors import SchemaOutdatedError

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


def require_newest(version: str | None) -> None:
    """Raises SchemaOutdatedError unless this is exactly the version this program needs."""
    if version != newest_version():
        raise SchemaOutdatedError(
            f"the database's schema is {version or 'missing'}, this version needs {newest_version()}: "
            "run `timeout-scheduler db upgrade` (or TimeoutScheduler.migrate())"
        )
