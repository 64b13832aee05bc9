"""The commands of `timeout-scheduler`, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scheduler.bootstrap import run_daemon
from scheduler.cli.action_commands import actions
from scheduler.cli.campaign_commands import campaigns
from scheduler.cli.check_command import check
from scheduler.cli.command_group import PROGRAM, TRACEBACK, CommandGroup
from scheduler.cli.contact_commands import contacts
from scheduler.cli.database_commands import database
from scheduler.cli.demo.command import demo
from scheduler.cli.enroll_command import enroll
from scheduler.cli.event_command import event
from scheduler.cli.failures import naming_options
from scheduler.cli.migrate_command import migrate
from scheduler.cli.output import write_line
from scheduler.cli.pause_commands import pause, resume
from scheduler.cli.plan_commands import plan
from scheduler.cli.schedule_command import schedule
from scheduler.cli.send_commands import sends
from scheduler.cli.session import GlobalOptions, settings_of
from scheduler.cli.status_command import status
from scheduler.telemetry.metrics import package_version

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="The database: postgresql://user@host/name or sqlite:////var/lib/outreach.db. Better in the environment,"
        " as SCHEDULER_DATABASE_URL: a command line is visible to everybody.",
    ),
]
EnvFileOption = Annotated[
    Path | None,
    typer.Option(
        "--env-file", metavar="FILE", help="Where settings are read from, if not from the environment.  [default: .env]"
    ),
]
SchemaOption = Annotated[
    str | None, typer.Option("--schema", metavar="NAME", help="The PostgreSQL schema of the tables, such as outreach.")
]
TracebackFlag = Annotated[
    bool, typer.Option(TRACEBACK, help="After an unexpected error, show where in the program it came from.")
]


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - called by Typer with what was given
    if wanted:
        write_line(f"{PROGRAM} {package_version()}")
        raise typer.Exit


VersionFlag = Annotated[
    bool, typer.Option("--version", help="Print the version, and leave.", is_eager=True, callback=_show_version)
]

app = typer.Typer(
    name=PROGRAM,
    cls=CommandGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The options above may stand before or after the command. Settings (SCHEDULER_*) come from them, the"
    " environment, systemd credentials and .env, in this order."
    " Exit codes: 0 done, 1 failed, 2 wrong usage or bad input, 130 interrupted.",
)


@app.callback()
def choose(
    context: typer.Context,
    database_url: UrlOption = None,
    env_file: EnvFileOption = None,
    schema: SchemaOption = None,
    *,
    traceback: TracebackFlag = False,  # noqa: ARG001 - read where errors end, which is before it is parsed
    version: VersionFlag = False,  # noqa: ARG001 - its callback did it
) -> None:
    """Durable timeouts for outreach campaigns: each fires once, in one database transaction, or is canceled."""
    context.obj = GlobalOptions(database_url, env_file, schema)


UpgradeFlag = Annotated[bool, typer.Option("--upgrade", help="First create the schema, or bring it up to date.")]


@app.command()
def run(context: typer.Context, *, upgrade: UpgradeFlag = False) -> None:
    """Run the daemon. It fires what is due until SIGTERM or SIGINT, and finishes what it is firing before it leaves."""
    with naming_options():
        raise typer.Exit(run_daemon(settings_of(context), lambda: settings_of(context), upgrades=upgrade))


for command in (demo, check, status, enroll, event, schedule, pause, resume):
    app.command()(command)
plan.command()(migrate)
for name, group in {
    "db": database,
    "plan": plan,
    "actions": actions,
    "campaigns": campaigns,
    "contacts": contacts,
    "sends": sends,
}.items():
    app.add_typer(group, name=name)
