"""PgQueuer 1: one process, jobs enqueued and canceled in the application's own transaction."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import timedelta
from typing import Any, Final

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.queries import Queries

from benchmarks import effect
from benchmarks.programs.child import answer, job, wait_for_go

BATCH: Final = 100
CONNECTIONS: Final = 16
_CHUNK: Final = 1000
_ENTRYPOINT: Final = "fire"
_STATEMENTS: Final = {name: effect.numbered(statement) for name, statement in effect.STATEMENTS.items()}
_CANCEL: Final = effect.numbered(effect.CANCEL_JOB)
_SCHEDULE: Final = effect.numbered(effect.SCHEDULE_JOB)
_NUMBER: Final = (
    "UPDATE scheduled_actions SET job_id = wanted.job FROM unnest($1::text[], $2::text[], $3::bigint[]) "
    "AS wanted (tenant, key, job) WHERE tenant_id = wanted.tenant AND dedupe_key = wanted.key"
)
# PgQueuer takes a delay from now on; what it is filled with is due to the microsecond.
_PLACE_IN_TIME: Final = "UPDATE pgqueuer SET execute_after = run_at FROM scheduled_actions WHERE job_id = pgqueuer.id"
_MISSING: Final = (
    "SELECT count(*) FROM scheduled_actions AS action LEFT JOIN pgqueuer AS job ON job.id = job_id "
    "WHERE action.status = 'pending' AND node_visit = 2 AND job.id IS NULL"
)


class Worker:
    """Connections of this process: a pool for what jobs do, one for the queue."""

    def __init__(self, pool: Any, queue: Any) -> None:
        self.pool = pool
        self.queuer = PgQueuer(AsyncpgDriver(queue))
        self.queries = Queries(AsyncpgPoolDriver(pool))

    async def fire(self, given: Any) -> None:
        """The entry point."""
        timeout = effect.Timeout(**json.loads(given.payload))
        parameters: dict[str, Any] = timeout.parameters
        async with self.pool.acquire() as connection, connection.transaction():
            queries = Queries(AsyncpgDriver(connection))

            async def run(statement: tuple[str, tuple[str, ...]]) -> list[Any]:
                rows: list[Any] = await connection.fetch(statement[0], *(parameters[name] for name in statement[1]))
                return rows

            (campaign,) = await run(_STATEMENTS["lock"])
            if campaign["status"] != "active" or campaign["node_visit"] != 1:
                return
            for name in ("complete", "move", "record"):
                await run(_STATEMENTS[name])
            canceled = await run(_CANCEL)
            await queries.mark_job_as_cancelled([row["job_id"] for row in canceled])
            seconds = timedelta(hours=effect.NEXT_DELAY_HOURS)
            payload = _payload(timeout, timeout.next_key)
            ids = await queries.enqueue(_ENTRYPOINT, payload, execute_after=seconds, dedupe_key=timeout.next_key)
            parameters["job"] = ids[0]
            await run(_SCHEDULE)

    async def load(self) -> None:
        """Every pending timeout as a job."""
        await self.queries.install()
        async with self.pool.acquire() as connection:
            await connection.execute(effect.JOB_COLUMN)
            rows = [tuple(row.values()) for row in await connection.fetch(effect.PENDING)]
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                payloads = [_payload(effect.Timeout(*row[:4]), row[3]) for row in chunk]
                ids = await self._enqueue(payloads, [timedelta(days=1)] * len(chunk), [row[3] for row in chunk])
                await connection.execute(_NUMBER, [row[0] for row in chunk], [row[3] for row in chunk], ids)
            await connection.execute(_PLACE_IN_TIME)
        answer()

    async def schedule(self, one: int, bulk: int) -> None:
        """Jobs per second: each durable before the next, and in batches."""
        await self.queries.install()
        day = timedelta(days=1)
        singles, many = [_example("one", number) for number in range(one)], [_example("bulk", n) for n in range(bulk)]
        wait_for_go()
        began = time.perf_counter()
        for payload, key in singles:
            await self.queries.enqueue(_ENTRYPOINT, payload, execute_after=day, dedupe_key=key)
        between = time.perf_counter()
        for start in range(0, bulk, _CHUNK):
            chunk = many[start : start + _CHUNK]
            await self._enqueue([payload for payload, _ in chunk], [day] * len(chunk), [key for _, key in chunk])
        ended = time.perf_counter()
        stored = sum(each.count for each in await self.queries.queue_size())
        answer(one=one / (between - began), bulk=bulk / (ended - between), stored=stored)

    async def run(self) -> None:
        """Fire until told to stop."""
        self.queuer.entrypoint(_ENTRYPOINT)(self.fire)
        wait_for_go()
        await self.queuer.run(batch_size=BATCH)

    async def _enqueue(self, payloads: list[bytes], after: list[timedelta], keys: list[str]) -> list[int]:
        names = [_ENTRYPOINT] * len(payloads)
        ids = await self.queries.enqueue(names, payloads, [0] * len(payloads), after, keys)
        return [int(one) for one in ids]


def _payload(timeout: effect.Timeout, key: str) -> bytes:
    fields = {"tenant": timeout.tenant, "campaign": timeout.campaign, "contact": timeout.contact, "key": key}
    return json.dumps(fields).encode()


def _example(name: str, number: int) -> tuple[bytes, str]:
    timeout = effect.Timeout(f"{name}-{number % 10}", f"campaign-{number}", f"contact-{number}", "")
    return _payload(timeout, timeout.next_key), timeout.next_key


async def start(wanted: dict[str, Any]) -> None:
    """Connect, and do the job."""
    async with asyncpg.create_pool(wanted["url"], min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        worker = Worker(pool, await asyncpg.connect(wanted["url"]))
        match wanted["mode"]:
            case "load":
                wait_for_go()
                await worker.load()
            case "schedule":
                await worker.schedule(wanted["one"], wanted["bulk"])
            case "missing":
                wait_for_go()
                answer(missing=await pool.fetchval(_MISSING))
            case "fire":
                await worker.run()
            case mode:
                raise ValueError(mode)


def main() -> None:
    """Do the job."""
    logging.basicConfig(level=logging.WARNING)
    uvloop.install()
    asyncio.run(start(job()))


if __name__ == "__main__":
    main()
