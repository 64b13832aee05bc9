"""What `check` asks of the database's server, of an SQLite file's folder, of the web server's port, and of Sentry."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from scheduler.cli.failures import explain
from scheduler.cli.finding import Finding, Verdict
from scheduler.domain.errors import InvalidInputError
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.settings import Settings
from scheduler.store.engine import default_database_url, sqlite_file
from scheduler.store.fitness import ServerState, server_state
from scheduler.telemetry.dsn import require_dsn

_CONNECTIONS_BESIDE: Final = 9
_PATIENCE_SECONDS: Final = 2.0


def check_server(timeout_scheduler: TimeoutScheduler, settings: Settings) -> Iterator[Finding]:
    """Whether a daemon could fire on this PostgreSQL server."""
    database = timeout_scheduler.database
    with database.reading() as transaction:
        state = server_state(transaction)
    yield from judge_server(state, settings.workers + settings.send_workers + _CONNECTIONS_BESIDE)


def judge_server(state: ServerState, connections: int) -> Iterator[Finding]:
    """What the state of a server means for a daemon that needs so many connections."""
    if state.is_read_only:
        detail = "it is read-only: a standby, or default_transaction_read_only is on"
        remedy = "give the primary's URL, or all hosts: postgresql://user@one:5432,other:5432/name"
        yield Finding("server", Verdict.FAILED, detail, remedy)
    if state.missing:
        remedy = "run what `timeout-scheduler db roles` prints, or GRANT them to the role of the URL"
        yield Finding("rights", Verdict.FAILED, f"the role lacks {', '.join(state.missing)}", remedy)
    faults = [*_faults(state, connections)]
    yield from faults
    if state.is_pooled:
        detail = "there is a pooler in between, on which LISTEN is silent: what is due is found by polling"
        yield Finding("listen", Verdict.WARNING, detail, "give the daemon a URL of the server itself")
    if not faults and not state.is_read_only:
        yield Finding("server", Verdict.OK, "it takes writes, and keeps what it confirms")
    if not state.missing:
        yield Finding("rights", Verdict.OK, "the role has what a daemon needs")


def _faults(state: ServerState, connections: int) -> Iterator[Finding]:
    given = state.settings
    for name in ("autovacuum", "track_counts"):
        if given.get(name) == "off":
            detail = f"{name} is off: the table of actions grows without end, and every claim gets slower"
            yield Finding("server", Verdict.WARNING, detail, f"set {name} = on in postgresql.conf")
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        if given.get(name) == "off":
            detail = f"{name} is off: after a crash of the server what it confirmed may be gone, and mails go out again"
            yield Finding("server", Verdict.WARNING, detail, f"set {name} = on, unless this is a test")
    room = int(given.get("max_connections", connections)) - int(given.get("superuser_reserved_connections", 0))
    if room < connections:
        detail = f"it takes {room} connections of all, and one daemon may need {connections}"
        remedy = "raise max_connections, or lower SCHEDULER_WORKERS and SCHEDULER_SEND_WORKERS"
        yield Finding("server", Verdict.FAILED, detail, remedy)


def check_file(settings: Settings) -> Finding | None:
    """An SQLite file that isn't there yet: to look into it would make it."""
    url = settings.database_url
    file = sqlite_file(default_database_url() if url is None else url.get_secret_value())
    if file is None or file.exists():
        return None
    nearest = next(folder for folder in file.parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        detail = f"{file} isn't there, and can't be made: {nearest} isn't a folder that is writable for this user"
        return Finding("folder", Verdict.FAILED, detail, "make it so, or correct SCHEDULER_DATABASE_URL")
    return Finding("schema", Verdict.FAILED, f"{file} isn't there yet", "run `timeout-scheduler db upgrade`")


def check_folder(timeout_scheduler: TimeoutScheduler) -> Finding | None:
    """Whether SQLite could write its file, and what it puts beside it."""
    name = timeout_scheduler.database.engine.url.database
    if not name or name == ":memory:" or name.startswith("file:"):
        return None
    file = Path(name).resolve()
    for path in (file.parent, *(one for one in (file, file.with_name(f"{file.name}.lock")) if one.exists())):
        if not os.access(path, os.W_OK):
            detail = f"{path} isn't writable for this user"
            return Finding("folder", Verdict.FAILED, detail, "make it so: SQLite writes beside its file, too")
    return Finding("folder", Verdict.OK, str(file.parent))


def check_web(settings: Settings) -> Finding:
    """Whether health and metrics could be served."""
    from scheduler.web.server import require_token  # noqa: PLC0415 - of the daemon extra, as this command is

    host, port = settings.http_host, settings.http_port
    try:
        require_token(host, None if settings.http_token is None else settings.http_token.get_secret_value())
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with closing(socket.create_server((host, port), family=family)):
            return Finding("web", Verdict.OK, f"{host} port {port} is free")
    except InvalidInputError as error:
        return Finding("web", Verdict.FAILED, explain(error)[0], "the daemon wouldn't start")
    except OSError as error:
        if _is_daemon(host, port):
            return Finding("web", Verdict.OK, f"a daemon listens on {host} port {port} now")
        remedy = "choose another SCHEDULER_HTTP_PORT (or HOST): without it there are no health and no metrics"
        return Finding("web", Verdict.FAILED, f"{host} port {port} can't be listened on: {error.strerror}", remedy)


def _is_daemon(host: str, port: int) -> bool:
    """Whether what has the port is a daemon of ours, which is about to be replaced."""
    shown = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(f"http://{shown}:{port}/healthz", headers={"Connection": "close"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:  # noqa: S310 - http, as written above
            return bool(answer.read(64).strip() == b"ok")
    except urllib.error.HTTPError as error:  # hung or draining, or it wants a token
        return error.code in (401, 503) and error.headers.get("server") == "uvicorn"
    except (OSError, ValueError):
        return False


def check_sentry(settings: Settings) -> Finding:
    """Whether reports would go somewhere."""
    if settings.sentry_dsn is None:
        return Finding("sentry", Verdict.OK, "nothing is reported: there is no DSN")
    try:
        return Finding("sentry", Verdict.OK, f"reports go to {require_dsn(settings.sentry_dsn.get_secret_value())}")
    except InvalidInputError as error:
        return Finding("sentry", Verdict.FAILED, explain(error)[0], "correct it, or leave it out")
