"""`check`: what would go wrong, before a deploy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import typer

from scheduler.bootstrap import open_scheduler
from scheduler.cli.checks import (
    check_database,
    check_import_name,
    check_send_handler,
    check_state_manager,
)
from scheduler.cli.failures import FAILED, explain, naming_options
from scheduler.cli.finding import Finding, Verdict
from scheduler.cli.options import JsonFlag
from scheduler.cli.output import write_json, write_line
from scheduler.cli.server_checks import check_file, check_sentry, check_web
from scheduler.cli.session import settings_of, without_imports
from scheduler.domain.errors import SchedulerError
from scheduler.settings import Settings


def check(context: typer.Context, *, as_json: JsonFlag = False) -> None:
    """Look for what would go wrong, before a deploy.

    Settings, database, schema, the server and our rights there, clocks, state manager, send handler, the port of health
    and metrics, Sentry, and whether the import name `scheduler` is taken.
    A line for each, with what to do about it; exits with 1 if any of them FAILED.
    """
    findings = []
    for finding in _findings(context):
        findings.append(finding)
        if not as_json:
            _say(finding)
    is_ok = all(finding.verdict != Verdict.FAILED for finding in findings)
    if as_json:
        write_json({"is_ok": is_ok, "checks": [_document(finding) for finding in findings]})
    if not is_ok:
        raise typer.Exit(FAILED)


def _findings(context: typer.Context) -> Iterator[Finding]:
    yield from check_import_name()
    try:
        settings = settings_of(context)
    except SchedulerError as error:
        yield Finding("settings", Verdict.FAILED, explain(error)[0], "correct it; the other checks need the settings")
        return
    yield Finding("settings", Verdict.OK, f"{len(settings.model_fields_set)} set, the others have their defaults")
    yield from _database_findings(settings)
    yield check_state_manager(settings)
    yield check_send_handler(settings)
    yield check_web(settings)
    yield check_sentry(settings)


def _database_findings(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is None:
        remedy = "set SCHEDULER_DATABASE_URL, unless a file on this machine is enough"
        yield Finding("database", Verdict.WARNING, "none is configured; an SQLite file is used", remedy)
    try:
        with naming_options():
            missing = check_file(settings)
            if missing is not None:
                yield missing
                return
            opened = open_scheduler(without_imports(settings))
    except SchedulerError as error:
        yield Finding("database", Verdict.FAILED, explain(error)[0], "correct SCHEDULER_DATABASE_URL")
        return
    with closing(opened) as timeout_scheduler:
        yield from check_database(timeout_scheduler, settings)


def _say(finding: Finding) -> None:
    write_line(f"{finding.verdict:<8} {finding.name}: {finding.detail}")
    if finding.remedy is not None:
        write_line(f"{'':<8} → {finding.remedy}")


def _document(finding: Finding) -> dict[str, str | None]:
    return {
        "name": finding.name,
        "verdict": finding.verdict.lower(),
        "detail": finding.detail,
        "remedy": finding.remedy,
    }
