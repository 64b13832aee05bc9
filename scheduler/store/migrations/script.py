"""Runs one reviewable SQL file of sql/<system>/ as a migration."""

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

from alembic import op


def run_script(name: str) -> None:
    """Execute every statement of the file, in the transaction of the migration."""
    system = op.get_context().dialect.name
    script = files("scheduler") / "_sql" / system / name
    for statement in split_statements(script.read_text("utf-8")):
        op.execute(statement)


def split_statements(script: str) -> Iterator[str]:
    """The statements of a script; a trigger's body counts as one, as SQLite's own shell sees it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        if not statement and (not line.strip() or line.startswith("--")):
            continue
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip().removesuffix(";")
            statement = ""
