"""The peers, each set up as somebody who knows it would.

Campaigns and actions stay in the project's tables, in PostgreSQL: every job does the same six statements there. What
is the peer's own is the queue. A follow-up is enqueued before the commit that asks for it (in the same transaction
where the peer can): a job too many finds nothing to do, one too few would be a timeout that never fires.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import parts
from benchmarks.contenders.contender import Contender, Kind, peer_module
from benchmarks.effect import CANCEL, PENDING, STATEMENTS, numbered


def _bullmq() -> Sequence[str | Path]:
    folder = parts.bullmq_folder()
    return [shutil.which("node") or "node", folder / "worker.mjs"]


_BULLMQ_STATEMENTS = {**STATEMENTS, "cancel": f"{CANCEL} RETURNING dedupe_key"}
_ALL = frozenset({"fire", "schedule", "lateness", "depth", "crash"})

PEERS = (
    Contender(
        key="apscheduler",
        label="APScheduler 3",
        kind=Kind.PEER,
        settings="BackgroundScheduler, stock SQLAlchemyJobStore on the same PostgreSQL, 20 threads with a connection "
        "each, misfire_grace_time=None, job id = dedupe key",
        command=peer_module("apscheduler_stock"),
        workloads=_ALL,
        share=0.05,
        own_queue=True,
        patience=10,
    ),
    Contender(
        key="procrastinate",
        label="Procrastinate 3",
        kind=Kind.PEER,
        settings="one worker, concurrency 20, poll 0.2 s, pool of 25; enqueues and cancels in the "
        "application's own transaction",
        command=peer_module("procrastinate_worker"),
        workloads=_ALL,
        share=0.05,
        own_queue=True,
        patience=15,
    ),
    Contender(
        key="pgqueuer",
        label="PgQueuer 1",
        kind=Kind.PEER,
        settings="one process on uvloop, asyncpg, batches of 100, pool of 16 for the jobs; enqueues and cancels in the "
        "application's own transaction; heartbeat 30 s",
        command=peer_module("pgqueuer_worker"),
        workloads=_ALL,
        share=0.1,
        own_queue=True,
        patience=75,
    ),
    Contender(
        key="bullmq",
        label="BullMQ 5",
        kind=Kind.PEER,
        settings="one worker process, concurrency 50, node-postgres pool of 20 with prepared statements, Redis with "
        "appendonly (appendfsync everysec), removeOnComplete, job id from the dedupe key",
        command=_bullmq,
        workloads=_ALL,
        share=0.2,
        own_queue=True,
        in_database=False,
        needs_redis=True,
        patience=75,
        options={
            "statements": {name: numbered(statement) for name, statement in _BULLMQ_STATEMENTS.items()},
            "pending": PENDING,
        },
    ),
)
