"""Procrastinate 3: one worker, jobs deferred and canceled in the application's own transaction."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any, Final

import procrastinate
from procrastinate.jobs import Job

from benchmarks import effect
from benchmarks.programs.child import answer, job, wait_for_go

CONCURRENCY: Final = 20
POLL_SECONDS: Final = 0.2
_CHUNK: Final = 1000
_NAME: Final = "fire"
_STATEMENTS: Final = {name: effect.named(statement) for name, statement in effect.STATEMENTS.items()}
_CANCEL: Final = effect.named(effect.CANCEL_JOB)
_SCHEDULE: Final = effect.named(effect.SCHEDULE_JOB)
_NUMBER: Final = (
    "UPDATE scheduled_actions SET job_id = wanted.job FROM unnest(%s::text[], %s::text[], %s::bigint[]) "
    "AS wanted (tenant, key, job) WHERE tenant_id = wanted.tenant AND dedupe_key = wanted.key"
)
_MISSING: Final = (
    "SELECT count(*) FROM scheduled_actions AS action LEFT JOIN procrastinate_jobs AS job ON job.id = job_id "
    "AND job.status = 'todo' WHERE action.status = 'pending' AND node_visit = 2 AND job.id IS NULL"
)


class Worker:
    """The app of this process."""

    def __init__(self, url: str) -> None:
        connector = procrastinate.PsycopgConnector(conninfo=url, min_size=5, max_size=25, timeout=60)
        self.app = procrastinate.App(connector=connector)
        self.app.task(name=_NAME)(self.fire)
        self.jobs = self.app.job_manager

    @property
    def pool(self) -> Any:
        """The connections of the app, which the application's own work uses too."""
        return self.app.connector.pool

    async def fire(self, tenant: str, campaign: str, contact: str, key: str) -> None:
        """The task."""
        timeout = effect.Timeout(tenant, campaign, contact, key)
        parameters = timeout.parameters
        async with self.pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(_STATEMENTS["lock"], parameters)
            status, visit = _values(await cursor.fetchone())
            if status != "active" or visit != 1:
                return
            for name in ("complete", "move", "record"):
                await connection.execute(_STATEMENTS[name], parameters)
            canceled = await (await connection.execute(_CANCEL, parameters)).fetchall()
            for row in canceled:
                await self.jobs.cancel_job_by_id_async(_values(row)[0], connection=connection)
            follow_up = _job(timeout, timeout.next_key, _in_hours(effect.NEXT_DELAY_HOURS))
            deferred = await self.jobs.defer_job_async(follow_up, connection=connection)
            await connection.execute(_SCHEDULE, {**parameters, "job": deferred.id})

    async def load(self) -> None:
        """Every pending timeout as a job."""
        await self.app.schema_manager.apply_schema_async()
        async with self.pool.connection() as connection:
            await connection.execute(effect.JOB_COLUMN)
            rows = [_values(row) for row in await (await connection.execute(effect.PENDING)).fetchall()]
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                made = [_job(effect.Timeout(*row[:4]), row[3], row[4]) for row in chunk]
                ids = [one.id for one in await self.jobs.batch_defer_jobs_async(made)]
                await connection.execute(_NUMBER, [[row[0] for row in chunk], [row[3] for row in chunk], ids])
        answer()

    async def schedule(self, one: int, bulk: int) -> None:
        """Jobs per second: each durable before the next, and in batches."""
        await self.app.schema_manager.apply_schema_async()
        singles = [_example("one", number) for number in range(one)]
        many = [_example("bulk", number) for number in range(bulk)]
        wait_for_go()
        began = time.perf_counter()
        for each in singles:
            await self.jobs.defer_job_async(each)
        between = time.perf_counter()
        for start in range(0, bulk, _CHUNK):
            await self.jobs.batch_defer_jobs_async(many[start : start + _CHUNK])
        ended = time.perf_counter()
        stored = len(list(await self.jobs.list_jobs_async()))
        answer(one=one / (between - began), bulk=bulk / (ended - between), stored=stored)

    async def run(self, wanted: dict[str, Any]) -> None:
        """Do the job."""
        async with self.app.open_async():
            match wanted["mode"]:
                case "load":
                    wait_for_go()
                    await self.load()
                case "schedule":
                    await self.schedule(wanted["one"], wanted["bulk"])
                case "missing":
                    wait_for_go()
                    async with self.pool.connection() as connection:
                        answer(missing=_values(await (await connection.execute(_MISSING)).fetchone())[0])
                case "fire":
                    wait_for_go()
                    await self.app.run_worker_async(concurrency=CONCURRENCY, fetch_job_polling_interval=POLL_SECONDS)
                case mode:
                    raise ValueError(mode)


def _in_hours(hours: float) -> float:
    return time.clock_gettime(time.CLOCK_REALTIME) + hours * 3600


def _job(timeout: effect.Timeout, key: str, epoch: float) -> Any:
    due_at = datetime.fromtimestamp(epoch, tz=UTC)
    arguments = {"tenant": timeout.tenant, "campaign": timeout.campaign, "contact": timeout.contact, "key": key}
    return Job(
        queue="default", lock=None, queueing_lock=key, task_name=_NAME, task_kwargs=arguments, scheduled_at=due_at
    )


def _example(name: str, number: int) -> Any:
    timeout = effect.Timeout(f"{name}-{number % 10}", f"campaign-{number}", f"contact-{number}", "")
    return _job(timeout, timeout.next_key, _in_hours(24))


def _values(row: Any) -> tuple[Any, ...]:
    """The app's connections give rows as mappings, in the order that was asked for."""
    return tuple(row.values()) if isinstance(row, dict) else tuple(row)


def main() -> None:
    """Do the job."""
    logging.basicConfig(level=logging.WARNING)
    wanted = job()
    asyncio.run(Worker(wanted["url"]).run(wanted))


if __name__ == "__main__":
    main()
