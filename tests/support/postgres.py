"""A real PostgreSQL server for tests: made in a moment, crashed at will, gone with the test process."""

import os
import random
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil
import psycopg
from psycopg import sql

from tests.support.eventually import eventually
from tests.support.postgres_programs import find_account, find_programs, make_reachable

ADMIN_DATABASE: Final = "postgres"
_STRATEGY_SINCE: Final = 150_000

DEFAULT_SETTINGS: Final[Mapping[str, str | int]] = {
    "autovacuum": "off",  # its moments are not the test's
    "fsync": "off",  # a crash of the machine is not tested,
    "full_page_writes": "off",
    "synchronous_commit": "on",  # but one of the server is: with this off, kill9() loses committed rows
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "max_connections": 100,
    "shared_buffers": "32MB",
    "timezone": "America/Los_Angeles",  # instants have to come back as UTC wherever the server stands
    "unix_socket_directories": "",
}

# Below every system's range for outgoing connections: nobody takes the port while the server is down, and no
# client that tries to reconnect meets itself.
_PORTS: Final = range(15_000, 32_000)

# Acts when its standard input ends: when the test process closes it, or dies, however it dies. A line is the
# server to kill then; an empty one says that there is none.
_WATCHDOG: Final = """
while read -r line; do server=$line; done
if [ -n "$server" ]; then
    kill -QUIT "$server"
    while kill -0 "$server"; do sleep 0.05; done
fi 2>/dev/null
rm -rf "$1"
"""


class PostgresServer:
    """One throw-away server on 127.0.0.1, of a data folder of its own, with one superuser and no password.

    `settings` overrides DEFAULT_SETTINGS. Use it as a context manager, or call `start`, and `close` at last.
    However the test process dies, a watchdog ends the server and removes its folder. It is a process, and not
    Linux's PR_SET_PDEATHSIG, because that way it works on macOS too, cleans up, and doesn't mind which thread
    started the server. Not for use by several threads at once.
    """

    def __init__(self, settings: Mapping[str, str | int] | None = None) -> None:
        programs, account = find_programs(), find_account()
        self.port = free_port()
        self._settings = {**DEFAULT_SETTINGS, **(settings or {}), "port": self.port}
        shared = "/tmp" if account else None  # noqa: S108 - root's own TMPDIR may be closed to the account
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=shared))
        self._data = self.folder / "data"
        self._log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        # Not our environment: PGDATA and its like would have a say. The C locale is everywhere.
        self._options: dict[str, Any] = {
            "cwd": self.folder,
            "env": {"PATH": os.defpath, "LC_ALL": "C"},
            "stdin": subprocess.DEVNULL,
        }
        if account is not None:
            os.chown(self.folder, account.uid, account.gid)
            self._options |= {"user": account.uid, "group": account.gid, "extra_groups": []}
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", self.folder],
            start_new_session=True,
            **{**self._options, "cwd": "/", "stdin": subprocess.PIPE},
        )
        self._programs = make_reachable(programs, account, self.folder)
        self._make_data()

    def url(self, database: str = ADMIN_DATABASE, driver: str = "postgresql+psycopg") -> str:
        """A SQLAlchemy URL; with `driver` "postgresql", one that libpq takes."""
        return f"{driver}://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, and return when it takes connections."""
        arguments = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the tests is no business of the server
                **self._options,
            )
        self._tell_watchdog(self._process.pid)
        eventually(self._is_ready, timeout=30)

    def stop(self) -> None:
        """Shut the server down in order, cutting off its clients; no change when it isn't running."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._forget_process()

    def kill9(self) -> None:
        """SIGKILL the server and all its backends: what was committed is there after the next `start`."""
        if self._process is None:
            return
        server = psutil.Process(self._process.pid)
        server.suspend()  # so that it starts no backend between our look and the blow
        backends = server.children()
        for process in (server, *backends):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._forget_process()
        psutil.wait_procs(backends, timeout=10)

    def close(self) -> None:
        """End the server and remove all it left behind."""
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        if self._process is not None:
            self._process.wait(30)
            self._process = None
        self._watchdog.wait(30)

    def execute(self, statement: str | sql.Composed) -> None:
        """Run one statement as superuser, outside of any transaction."""
        with psycopg.connect(self.url(driver="postgresql"), autocommit=True) as connection:
            connection.execute(statement if isinstance(statement, sql.Composed) else sql.SQL(statement))

    def create_database(self, name: str, template: str = "template0") -> str:
        """Make a database, a copy of `template`, to which nobody may be connected; its URL."""
        with psycopg.connect(self.url(driver="postgresql"), autocommit=True) as connection:
            # Files are copied faster than pages are written to the log, which is the default where there is a choice.
            has_choice = connection.info.server_version >= _STRATEGY_SINCE
            strategy = sql.SQL(" STRATEGY file_copy" if has_choice else "")
            names = sql.Identifier(name), sql.Identifier(template)
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names) + strategy)
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_data(self) -> None:
        options = ("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
        self._make_data_with("initdb", *options)

    def _make_data_with(self, program: str, *options: str) -> None:
        """Let one of PostgreSQL's programs make the data folder."""
        command: list[str | Path] = [self._programs / program, "-D", self._data, "-U", "postgres", *options]
        made = subprocess.run(command, capture_output=True, text=True, check=False, **self._options)
        if made.returncode != 0:
            self.close()
            raise RuntimeError(f"{program} of {self._programs}: {made.stdout}{made.stderr}")

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            self._forget_process()
            raise RuntimeError(f"PostgreSQL ended while it started: {self._log.read_text()[-2000:]}")
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        # The server writes its pid first, and "ready" into the eighth line once it takes connections.
        return lines[:1] == [str(self._process.pid)] and [line.strip() for line in lines[7:8]] == ["ready"]

    def _forget_process(self) -> None:
        assert self._process is not None
        self._process.wait(30)
        self._process = None
        self._tell_watchdog(None)

    def _tell_watchdog(self, server: int | None) -> None:
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(f"{server or ''}\n".encode())
        self._watchdog.stdin.flush()


def free_port() -> int:
    """A port nobody listens at now."""
    for port in random.sample(_PORTS, k=100):
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port among 100 of {_PORTS}")
