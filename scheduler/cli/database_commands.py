"""`db upgrade`, `db current`, `db sql`: the schema."""

from __future__ import annotations

import sys

import typer

from scheduler.cli.options import JsonFlag
from scheduler.cli.output import write_fields, write_json, write_line
from scheduler.cli.session import opened
from scheduler.store import schema

database = typer.Typer(no_args_is_help=True, help="Create, upgrade and inspect the schema.")


@database.command()
def upgrade(context: typer.Context) -> None:
    """Create the schema, or bring it up to date. One transaction; safe to run again, and by several at once."""
    with opened(context) as timeout_scheduler:
        timeout_scheduler.migrate()
        write_line(f"the schema is at version {schema.current_version(timeout_scheduler.database)}")


@database.command()
def current(context: typer.Context, *, as_json: JsonFlag = False) -> None:
    """Show the schema's version. Beside it the one this program needs; exits with 1 where they differ."""
    with opened(context) as timeout_scheduler:
        found, needed = schema.current_version(timeout_scheduler.database), schema.newest_version()
    document = {"version": found, "needed": needed, "is_current": found == needed}
    if as_json:
        write_json(document)
    else:
        write_fields({"version": found or "none (run `timeout-scheduler db upgrade`)", "needed": needed})
    if found != needed:
        raise typer.Exit(1)


@database.command("sql")
def show_sql(context: typer.Context) -> None:
    """Print the SQL of the whole schema. To review, or to run by hand; no database is connected to."""
    with opened(context) as timeout_scheduler:
        sys.stdout.write(schema.upgrade_sql(timeout_scheduler.database))
