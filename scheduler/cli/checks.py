"""What `check` looks at, one function per question. None of them changes anything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import scheduler
from scheduler.cli.failures import explain
from scheduler.cli.finding import Finding, Verdict
from scheduler.cli.import_name import find_clashes
from scheduler.cli.server_checks import check_folder, check_server
from scheduler.domain.errors import SchedulerError
from scheduler.runtime.loading import load_send_handler, load_state_manager
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.settings import Settings
from scheduler.store.schema import current_version, newest_version, require_current

TOLERATED_SKEW: Final = timedelta(seconds=1)
HARMFUL_SKEW: Final = timedelta(minutes=1)


def check_import_name() -> Iterator[Finding]:
    """Whether `import scheduler` means this package, for everybody in this environment."""
    package = Path(scheduler.__file__).parent
    clashes = find_clashes(package, sys.path)
    for clash in clashes:
        yield Finding("import name", Verdict.FAILED if clash.is_fatal else Verdict.WARNING, clash.message, clash.remedy)
    if not clashes:
        yield Finding("import name", Verdict.OK, f"`scheduler` is {package}")


def check_database(timeout_scheduler: TimeoutScheduler, settings: Settings) -> Iterator[Finding]:
    """Whether the database answers, is one to fire on, and has the schema this program needs, and the time."""
    database = timeout_scheduler.database
    shown = database.engine.url.render_as_string(hide_password=True)
    folder = None if database.is_postgresql else check_folder(timeout_scheduler)
    if folder is not None and folder.verdict == Verdict.FAILED:
        yield folder
        return
    try:
        version = current_version(database)
    except SchedulerError as error:
        remedy = "see that it runs and takes this user, or correct SCHEDULER_DATABASE_URL"
        yield Finding("database", Verdict.FAILED, f"{shown}: {error}", remedy)
        return
    yield Finding("database", Verdict.OK, shown)
    try:
        require_current(database)
    except SchedulerError as error:
        yield _unusable_schema(version, error)
        return
    yield Finding("schema", Verdict.OK, f"version {version}")
    if database.is_postgresql:
        yield from check_server(timeout_scheduler, settings)
    elif folder is not None:
        yield folder
    if settings.send_handler == "log":
        yield from _check_sends(timeout_scheduler)
    yield _check_clock(timeout_scheduler)


def _unusable_schema(version: str | None, error: SchedulerError) -> Finding:
    if version is not None and version > newest_version():
        return Finding("schema", Verdict.FAILED, str(error), "install the newer timeout-scheduler here")
    detail = (
        "the tables are missing" if version is None else f"it is at version {version}, {newest_version()} is needed"
    )
    return Finding("schema", Verdict.FAILED, detail, "run `timeout-scheduler db upgrade`")


def judge_skew(skew: timedelta) -> Finding:
    """What it means that the database's clock is `skew` ahead of this machine's."""
    seconds = skew.total_seconds()
    detail = f"the database's clock is {abs(seconds):.3f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    if abs(skew) <= TOLERATED_SKEW:
        return Finding("clock", Verdict.OK, detail)
    verdict = Verdict.FAILED if abs(skew) > HARMFUL_SKEW else Verdict.WARNING
    return Finding("clock", verdict, detail, "let both machines follow the same time servers (NTP)")


def check_state_manager(settings: Settings) -> Finding:
    """Whether the state manager can be imported."""
    chosen = settings.state_manager
    if chosen is None:
        return Finding("state manager", Verdict.OK, "the built-in one")
    return _loaded("state manager", chosen, lambda: load_state_manager("SCHEDULER_STATE_MANAGER", chosen))


def check_send_handler(settings: Settings) -> Finding:
    """Whether the send handler can be imported, and has the settings it needs."""
    chosen = settings.send_handler
    return _loaded("send handler", chosen, lambda: load_send_handler("SCHEDULER_SEND_HANDLER", chosen, settings))


def _check_clock(timeout_scheduler: TimeoutScheduler) -> Finding:
    database = timeout_scheduler.database
    if not database.is_postgresql:
        return Finding("clock", Verdict.OK, "this machine's own; SQLite has none")
    before = database.real_clock.now()
    with database.reading() as transaction:
        there = transaction.now
    after = database.real_clock.now()
    return judge_skew(there - (before + (after - before) / 2))


def _check_sends(timeout_scheduler: TimeoutScheduler) -> Iterator[Finding]:
    """The `log` handler sends nothing, which is seldom meant where plans have mails."""
    with timeout_scheduler.database.reading() as transaction:
        if timeout_scheduler.stores.plans.any_sends(transaction):
            detail = "stored plans have send nodes, and the send handler `log` only logs them"
            remedy = "set SCHEDULER_SEND_HANDLER to smtp, webhook, external or module:callable"
            yield Finding("sends", Verdict.WARNING, detail, remedy)


def _loaded(name: str, chosen: str, load: Callable[[], Any]) -> Finding:
    try:
        load()
    except SchedulerError as error:
        return Finding(name, Verdict.FAILED, explain(error)[0], "correct the setting, or install what it names")
    except Exception as error:  # noqa: BLE001 - whatever the user's module raises when it is imported
        detail = f"{chosen} can't be imported: {type(error).__name__}: {error}"
        return Finding(name, Verdict.FAILED, detail, "correct the module")
    return Finding(name, Verdict.OK, chosen)
