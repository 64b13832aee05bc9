"""pgbouncer in transaction mode before a PostgreSQL server: every transaction may be on another session."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.support.eventually import eventually
from tests.support.postgres import free_port
from tests.support.postgres_programs import find_account

_PLACES: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"

_CONFIGURATION: Final = """
[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {sessions}
server_login_retry = 1
"""

# Ends the pooler when its standard input ends: when the test process closes it, or dies, however it dies.
_WATCHDOG: Final = '"$1" -q "$2" & pooler=$!; read -r _; kill "$pooler"; wait "$pooler"'


def why_no_pooler() -> str | None:
    """None where a pooler can be run; else what is missing for it."""
    return None if _find_program() else "there is no pgbouncer here: install the package pgbouncer"


@contextmanager
def pooler(server_port: int, sessions: int = 2) -> Iterator[int]:
    """The port of a pooler whose clients share as many sessions of the server per database."""
    program, account, port = _find_program(), find_account(), free_port()
    assert program is not None, why_no_pooler()
    options: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="pooler-", dir="/tmp" if account else None))  # noqa: S108 - as for a server
    users = folder / "users.txt"
    users.write_text('"postgres" ""\n')
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        _CONFIGURATION.format(server_port=server_port, port=port, users=users, sessions=sessions), "utf-8"
    )
    if account is not None:
        for path in (folder, users, configuration):
            os.chown(path, account.uid, account.gid)
        options = {"user": account.uid, "group": account.gid, "extra_groups": []}
    process = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "watchdog", program, configuration],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        **options,
    )
    try:
        eventually(lambda: process.poll() is None and _is_ready(port))
        yield port
    finally:
        process.communicate()
        shutil.rmtree(folder)


def _find_program() -> str | None:
    return shutil.which("pgbouncer", path=_PLACES)


def _is_ready(port: int) -> bool:
    try:
        psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres").close()
    except psycopg.OperationalError:
        return False
    return True
