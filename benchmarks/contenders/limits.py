"""What the database would carry: the same writes on the same tables, without semantics, logs, or a queue."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import parts
from benchmarks.contenders.contender import Contender, Kind, module


def _pgbench() -> Callable[[], Sequence[str | Path]]:
    def command() -> Sequence[str | Path]:
        parts.pgbench()
        return module("pgbench")()

    return command


_FIRE = frozenset({"fire"})

LIMITS = (
    Contender(
        key="set-based",
        label="set-based SQL, 1 thread",
        kind=Kind.LIMIT,
        settings="psycopg; claims 500 with SKIP LOCKED, then one transaction of 1 locking select, 3 updates, 2 inserts "
        "with arrays through unnest; nested loops only. Scheduling: one row and commit; 5,000 rows a statement. "
        "Lateness: a thread that sleeps until the next of the hundred instants it knows claims, two fire",
        command=module("set_based"),
        workloads=frozenset({"fire", "schedule", "depth", "lateness"}),
        is_quick=True,
        options={"threads": 1},
    ),
    Contender(
        key="set-based-two",
        label="set-based SQL, 2 threads",
        kind=Kind.LIMIT,
        settings="the same from two threads of one process, a connection each",
        command=module("set_based"),
        workloads=_FIRE,
        options={"threads": 2},
    ),
    Contender(
        key="pgbench-1",
        label="pgbench, 1 client",
        kind=Kind.LIMIT,
        settings="the statements of one timeout one by one in a transaction, prepared (-M prepared); no queue",
        command=_pgbench(),
        workloads=_FIRE,
        share=0.15,
        options={"clients": 1, "function": False},
    ),
    Contender(
        key="pgbench-8",
        label="pgbench, 8 clients",
        kind=Kind.LIMIT,
        settings="the same from 8 connections",
        command=_pgbench(),
        workloads=_FIRE,
        share=0.5,
        options={"clients": 8, "function": False},
    ),
    Contender(
        key="pgbench-function",
        label="pgbench, stored function, 8 clients",
        kind=Kind.LIMIT,
        settings="the same statements in one PL/pgSQL function, called from 8 connections",
        command=_pgbench(),
        workloads=_FIRE,
        options={"clients": 8, "function": True},
    ),
    Contender(
        key="asyncpg-rows",
        label="asyncpg, a transaction per row",
        kind=Kind.LIMIT,
        settings="one asyncio process, uvloop where installed, 16 connections, prepared statements; no queue",
        command=module("asyncpg_rows"),
        workloads=_FIRE,
        share=0.3,
        options={"connections": 16},
    ),
    Contender(
        key="set-based-sqlite",
        label="set-based SQL, SQLite",
        kind=Kind.LIMIT,
        settings="sqlite3 (WAL, synchronous FULL); claims 500, then one transaction of the same statements through "
        "executemany. Scheduling: one row and commit; 5,000 rows a transaction",
        command=module("sqlite_rows"),
        workloads=frozenset({"fire", "schedule"}),
        system="sqlite",
    ),
)
