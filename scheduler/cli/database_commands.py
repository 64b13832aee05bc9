"""`db upgrade`, `db current`, `db sql`: the schema. `db roles`, `db rls`: who may do what with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from scheduler.cli.copy_command import copy
from scheduler.cli.failures import naming_options
from scheduler.cli.options import JsonFlag
from scheduler.cli.output import write_fields, write_json, write_line
from scheduler.cli.session import opened, settings_of
from scheduler.domain.errors import InvalidInputError
from scheduler.settings import Settings
from scheduler.store import rights, schema
from scheduler.store.engine import parse_database_url

database = typer.Typer(no_args_is_help=True, help="Create, upgrade and inspect the schema.")


database.command()(copy)


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


PendingFlag = Annotated[
    bool,
    typer.Option("--pending", help="Only what `db upgrade` would run on the database now; nothing when it is current."),
]


@database.command("sql")
def show_sql(context: typer.Context, *, pending: PendingFlag = False) -> None:
    """Print the SQL of the whole schema. To review, or to run by hand; without --pending no database is asked."""
    with opened(context) as timeout_scheduler:
        since = schema.current_version(timeout_scheduler.database) if pending else None
        sys.stdout.write(schema.upgrade_sql(timeout_scheduler.database, since))


PrefixOption = Annotated[
    str, typer.Option("--prefix", metavar="NAME", help="What the roles' names begin with, such as outreach.")
]


@database.command("roles")
def show_roles(context: typer.Context, prefix: PrefixOption = rights.PREFIX) -> None:
    """Print the SQL that makes roles with the least rights. For a superuser to run; no database is connected to."""
    _print_for(context, rights.roles_sql, prefix)


@database.command("rls")
def show_row_level_security(context: typer.Context, prefix: PrefixOption = rights.PREFIX) -> None:
    """Print the SQL of row-level security by tenant. An option, to be run after `db roles`."""
    _print_for(context, rights.row_level_security_sql, prefix)


def _print_for(context: typer.Context, write: Callable[[str | None, str], str], prefix: str) -> None:
    with naming_options():
        settings = settings_of(context)
        _require_postgresql(settings)
    with naming_options({"prefix": "--prefix"}):
        sys.stdout.write(write(settings.schema_name, prefix))


def _require_postgresql(settings: Settings) -> None:
    url = settings.database_url
    if url is not None and parse_database_url(url.get_secret_value()).get_backend_name() != "postgresql":
        raise InvalidInputError("database_url", "SQLite", "roles are PostgreSQL's; an SQLite file has its permissions")
