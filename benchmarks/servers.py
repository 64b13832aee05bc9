"""The servers of one run: a PostgreSQL, and a Redis where a contender needs one. Gone at its end."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import parts
from benchmarks.program import pause
from tests.support.postgres import PostgresServer, free_port
from tests.support.postgres_programs import find_programs

# Durable in full, as a server in production is; memory for the working set, and a log that isn't checkpointed every
# minute. `track_commit_timestamp` is what everybody's effects are timed by.
POSTGRESQL: Final[dict[str, str | int]] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "effective_cache_size": "4GB",
    "work_mem": "16MB",
    "track_commit_timestamp": "on",
    "max_connections": 200,
}
# As BullMQ's own guide asks for: an append-only file, and no eviction.
REDIS: Final = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
STATEMENTS: Final = "pg_stat_statements"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one contender runs once. `url` is as libpq takes it, or SQLAlchemy's of an SQLite file."""

    url: str
    folder: Path
    redis_port: int = 0

    @property
    def sqlalchemy_url(self) -> str:
        """The same, for this project."""
        return self.url.replace("postgresql://", "postgresql+psycopg://")


class Servers:
    """Makes places. For the main thread."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self.folder = Path(self._opened.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        self._numbers = itertools.count()
        self._postgresql: PostgresServer | None = None
        self._redis_port = 0

    @property
    def postgresql(self) -> PostgresServer:
        """Started when it is first asked for."""
        if self._postgresql is None:
            settings = dict(POSTGRESQL)
            if has_statement_statistics():
                # Loaded, but silent until a database asks for it: it isn't free.
                settings |= {"shared_preload_libraries": STATEMENTS, f"{STATEMENTS}.track": "none"}
            self._postgresql = self._opened.enter_context(PostgresServer(settings))
        return self._postgresql

    def redis_port(self) -> int:
        """Of a Redis that is started when it is first asked for."""
        if not self._redis_port:
            self._redis_port = self._start_redis()
        return self._redis_port

    def name(self, what: str) -> str:
        """A name nobody has yet."""
        return f"{what}_{next(self._numbers)}"

    def new_folder(self) -> Path:
        """An empty folder."""
        folder = self.folder / self.name("place")
        folder.mkdir()
        return folder

    def close(self) -> None:
        """Everything."""
        self._opened.close()

    def _start_redis(self) -> int:
        port, folder = free_port(), self.folder / "redis"
        folder.mkdir()
        options = [word for name, value in REDIS.items() for word in (f"--{name}", value)]
        command: list[str | Path] = [
            parts.redis_server(),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            folder,
            *options,
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self._opened.callback(process.wait)
        self._opened.callback(process.kill)
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return port
            pause(0.02)
        raise parts.MissingPartError("redis-server did not start")


def has_statement_statistics() -> bool:
    """Whether this PostgreSQL counts statements: Debian's does, the wheel's has no extensions."""
    programs = find_programs()
    library = programs.parent / "lib" / f"{STATEMENTS}.so"
    return library.exists() or any(programs.parent.glob(f"lib*/**/{STATEMENTS}.so"))


def copy_sqlite(source: Path, target: Path) -> None:
    """A copy of a file nobody is working on."""
    shutil.copy(source, target)
