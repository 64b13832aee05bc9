"""`db copy`: an installation moves from SQLite to PostgreSQL, or back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from scheduler.bootstrap import open_scheduler
from scheduler.cli.failures import naming_options
from scheduler.cli.options import ActorOption, JsonFlag
from scheduler.cli.output import write_json, write_line, write_message, write_table
from scheduler.cli.session import settings_of, without_imports
from scheduler.cli.texts import who_does_it
from scheduler.domain.errors import InvalidInputError
from scheduler.runtime.file_lock import FileLock
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.service.copying import InstallationCopy
from scheduler.settings import Settings
from scheduler.store.schema import current_version

FromArgument = Annotated[
    str, typer.Argument(metavar="FROM", help="The database that is used now: sqlite:////var/lib/outreach.db.")
]
ToArgument = Annotated[
    str,
    typer.Argument(
        metavar="TO", help="An empty one: postgresql://user@host/name, its password in PGPASSWORD or ~/.pgpass."
    ),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Only look whether it can be done, and count.")]
LeaveFlag = Annotated[
    bool, typer.Option("--leave-source", help="Don't pause FROM in the end: a rehearsal, after which FROM goes on.")
]


def copy(
    context: typer.Context,
    source: FromArgument,
    target: ToArgument,
    actor: ActorOption = None,
    *,
    leave_source: LeaveFlag = False,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Copy an installation into an empty database: all of it, or nothing. Stop the daemon first; FROM is paused."""
    who, settings = who_does_it(actor), settings_of(context)
    _require_file(source)
    with naming_options({"database_url": "FROM"}), _opened(settings, source) as old, ExitStack() as stack:
        with naming_options({"database_url": "TO"}):
            new = stack.enter_context(_opened(settings, target))
        stack.enter_context(_nobody_fires(old))
        work = InstallationCopy(old.stores, new.stores)
        if dry_run:
            copied = work.preview()
        else:
            if current_version(new.database) is None:
                new.migrate()
            copied = work.run(who, _show_progress, pauses_source=not leave_source)
            _clear_progress()
    if as_json:
        write_json({"rows": copied.rows, "is_dry_run": dry_run, "is_source_paused": copied.is_paused})
        return
    write_table(["table", "rows"], copied.rows.items())
    write_line("nothing was copied: this was a dry run" if dry_run else "copied, and compared")
    if copied.is_paused:
        write_message("FROM is paused as a whole, so that nothing fires twice: never start a daemon on it again")


@contextmanager
def _opened(settings: Settings, url: str) -> Iterator[TimeoutScheduler]:
    chosen = without_imports(settings).model_copy(update={"database_url": SecretStr(url)})
    scheduler = open_scheduler(chosen)
    try:
        yield scheduler
    finally:
        scheduler.close()


def _require_file(url: str) -> None:
    """A file that isn't there would be made."""
    if url.startswith("sqlite"):
        name = url.partition(":///")[2].partition("?")[0]
        if name and not Path(name).is_file():
            raise InvalidInputError("FROM", name, "give the file of an installation")


@contextmanager
def _nobody_fires(scheduler: TimeoutScheduler) -> Iterator[None]:
    """On SQLite nobody can begin to fire meanwhile. Raises AlreadyRunningError, naming who does."""
    file = None if scheduler.database.is_postgresql else scheduler.database.engine.url.database
    lock = FileLock(Path(file), lambda: f"`db copy` (process {os.getpid()})") if file else None
    if lock is not None:
        lock.acquire()
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _show_progress(name: str, count: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{name}: {count}")
        sys.stderr.flush()


def _clear_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
