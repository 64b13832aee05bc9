"""The migrations as Alembic runs them, or prints them. Imported only for that: Alembic takes a tenth of a start."""

from __future__ import annotations

import io
from collections.abc import Sequence

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Executable

from scheduler.store.database import Database
from scheduler.store.version import SCRIPTS


def run_on(
    connection: Connection, database: Database, preparation: Sequence[Executable], version: str = "head"
) -> None:
    """Run what is missing up to a version, in the transaction of this connection, which is prepared."""
    command.upgrade(_config(connection, database, preparation), version)


def print_since(since: str | None, database: Database, preparation: Sequence[Executable]) -> str:
    """The SQL of every migration behind version `since`, and of what goes before it."""
    config = _config(None, database, preparation)
    config.output_buffer = buffer = io.StringIO()
    command.upgrade(config, "head" if since is None else f"{since}:head", sql=True)
    return buffer.getvalue()


def _config(connection: Connection | None, database: Database, preparation: Sequence[Executable]) -> Config:
    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    config.attributes.update(
        connection=connection,
        schema=database.schema,
        metadata=database.tables.metadata,
        preparation=preparation,
        dialect_name=database.dialect_name,
    )
    return config
