"""On what it was measured."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from benchmarks import parts
from benchmarks.contenders import Contender, Kind
from benchmarks.options import Options
from benchmarks.reading import Reader
from benchmarks.servers import POSTGRESQL, REDIS, Servers
from scheduler.domain.timing import SystemClock

_SYNCS: Final = 200
_OWN: Final = ("timeout-scheduler", "APScheduler", "SQLAlchemy", "psycopg", "asyncpg")
_PEERS: Final = ("apscheduler", "sqlalchemy", "procrastinate", "pgqueuer", "asyncpg", "uvloop", "psycopg")


def facts(servers: Servers, options: Options, contenders: Sequence[Contender]) -> dict[str, str]:
    """Machine, versions, settings, and how much was asked for; in the order of the report."""
    found = {
        "measured": f"{SystemClock().now():%Y-%m-%d %H:%M} UTC",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB, "
        f"{platform.system()} {platform.release()}",
        "fsync of 8 kB": f"{_sync_microseconds(servers.folder):.0f} µs (median)",
        "Python": platform.python_version(),
        "packages": _listed({name: version(name) for name in _OWN if _is_installed(name)}),
    }
    if any(one.system == "postgresql" for one in contenders):
        with Reader(servers.postgresql.url(driver="postgresql")) as reader:
            found["PostgreSQL"] = str(reader.value("SHOW server_version"))
        found["PostgreSQL's settings"] = _listed(POSTGRESQL)
    if any(one.system == "sqlite" for one in contenders):
        with Reader("sqlite:///:memory:") as reader:
            found["SQLite"] = str(reader.value("SELECT sqlite_version()"))
    with suppress(parts.MissingPartError):
        found |= _peer_facts(contenders)
    found["rounds"] = f"{options.rounds}, contenders in turn within each"
    found["sizes"] = (
        f"{options.size:,} campaigns with two pending timeouts each; {options.singles:,} single and {options.bulk:,} "
        f"bulk rows (this project and the limits; peers less); a backlog of {options.backlog:,}"
    )
    return found


def _peer_facts(contenders: Sequence[Contender]) -> dict[str, str]:
    found: dict[str, str] = {}
    peers = [one for one in contenders if one.kind is Kind.PEER]
    if any(one.in_database for one in peers):
        versions = parts.peer_versions()
        found["peers' packages"] = _listed({name: versions[name] for name in _PEERS if name in versions})
    if any(one.needs_redis for one in peers):
        found["BullMQ"] = f"{parts.bullmq_version()}, Node.js {parts.node_version()}"
        found["Redis"] = f"{parts.redis_version()}; {_listed(REDIS)}"
    return found


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _is_installed(name: str) -> bool:
    with suppress(ModuleNotFoundError):
        version(name)
        return True
    return False


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _sync_microseconds(folder: Path) -> float:
    taken = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(bytes(8192))
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - began) * 1e6)
    return sorted(taken)[_SYNCS // 2]
