"""APScheduler 3 as it comes: SQLAlchemyJobStore, a pool of threads, one job per pending timeout."""

from __future__ import annotations

import importlib
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from benchmarks import effect
from benchmarks.programs.child import answer, job, wait_for_go

THREADS: Final = 20
_CHUNK: Final = 5000
_STATEMENTS: Final = {name: effect.named(statement) for name, statement in effect.STATEMENTS.items()}
_CANCEL: Final = effect.named(f"{effect.CANCEL} RETURNING dedupe_key")
_MISSING: Final = (
    "SELECT count(*) FROM scheduled_actions LEFT JOIN apscheduler_jobs ON id = dedupe_key "
    "WHERE status = 'pending' AND node_visit = 2 AND id IS NULL"
)


class Worker:
    """The scheduler of this process, and a connection per thread for what its jobs do."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = SQLAlchemyJobStore(
            url=url.replace("postgresql://", "postgresql+psycopg://"), engine_options={"pool_size": 10}
        )
        self.scheduler = BackgroundScheduler(
            jobstores={"default": self.store},
            executors={"default": ThreadPoolExecutor(THREADS)},
            job_defaults={"misfire_grace_time": None},
            timezone="UTC",
        )
        self._local = threading.local()

    def connection(self) -> psycopg.Connection[Any]:
        """One for each thread."""
        found: psycopg.Connection[Any] | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = psycopg.connect(self.url, autocommit=True)
        return found

    def add(self, timeout: effect.Timeout, key: str, run_at: datetime) -> None:
        """One job; adding it again changes nothing that matters."""
        arguments = [timeout.tenant, timeout.campaign, timeout.contact, key]
        self.scheduler.add_job(fire, "date", run_date=run_at, args=arguments, id=key, replace_existing=True)


_WORKER: Final[list[Worker]] = []


def fire(tenant: str, campaign: str, contact: str, key: str) -> None:
    """The job function."""
    worker = _WORKER[0]
    connection = worker.connection()
    timeout = effect.Timeout(tenant, campaign, contact, key)
    parameters = timeout.parameters
    with connection.transaction():
        status, visit = connection.execute(_STATEMENTS["lock"], parameters).fetchall()[0]
        if status != "active" or visit != 1:
            return
        for name in ("complete", "move", "record"):
            connection.execute(_STATEMENTS[name], parameters)
        canceled = connection.execute(_CANCEL, parameters).fetchall()
        connection.execute(_STATEMENTS["schedule"], parameters)
        worker.add(timeout, timeout.next_key, _in_hours(effect.NEXT_DELAY_HOURS))
    for (other,) in canceled:
        with suppress(JobLookupError):
            worker.scheduler.remove_job(other)


def load(worker: Worker) -> None:
    """Every pending timeout as a job: the rows `add_job` would write, many in a statement."""
    worker.scheduler.start(paused=True)
    with psycopg.connect(worker.url) as connection, connection.cursor("pending") as cursor:
        cursor.execute(effect.PENDING)
        while rows := cursor.fetchmany(_CHUNK):
            with worker.store.engine.begin() as transaction:
                transaction.execute(worker.store.jobs_t.insert(), list(_job_rows(worker, rows)))
    worker.scheduler.shutdown()
    answer()


def _job_rows(worker: Worker, rows: list[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """What the store's own `add_job` makes of a job."""
    from apscheduler.job import Job  # noqa: PLC0415 - only what fills the store needs it
    from apscheduler.triggers.date import DateTrigger  # noqa: PLC0415
    from apscheduler.util import datetime_to_utc_timestamp  # noqa: PLC0415

    for tenant, campaign, contact, key, epoch in rows:
        run_at = datetime.fromtimestamp(epoch, tz=UTC)
        made = Job(
            worker.scheduler, id=key, func=fire, args=(tenant, campaign, contact, key), kwargs={}, name="fire",
            trigger=DateTrigger(run_at, "UTC"), executor="default", misfire_grace_time=None, coalesce=True,
            max_instances=1, next_run_time=run_at,
        )  # fmt: skip
        state = pickle.dumps(made.__getstate__(), worker.store.pickle_protocol)
        yield {"id": key, "next_run_time": datetime_to_utc_timestamp(run_at), "job_state": state}


def schedule(worker: Worker, one: int) -> None:
    """Jobs per second, each durable before the next; there is no bulk call."""
    worker.scheduler.start(paused=True)
    run_at = _in_hours(24)
    timeouts = [
        effect.Timeout(f"one-{number % 10}", f"campaign-{number}", f"contact-{number}", "") for number in range(one)
    ]
    wait_for_go()
    began = time.perf_counter()
    for timeout in timeouts:
        worker.add(timeout, timeout.next_key, run_at)
    answer(one=one / (time.perf_counter() - began), stored=len(worker.scheduler.get_jobs()))
    worker.scheduler.shutdown()


def _in_hours(hours: float) -> datetime:
    return datetime.fromtimestamp(time.clock_gettime(time.CLOCK_REALTIME), tz=UTC) + timedelta(hours=hours)


def main() -> None:
    """Do the job."""
    logging.basicConfig(level=logging.WARNING)
    wanted = job()
    worker = Worker(wanted["url"])
    _WORKER.append(worker)
    match wanted["mode"]:
        case "load":
            wait_for_go()
            load(worker)
        case "schedule":
            schedule(worker, wanted["one"])
        case "missing":
            wait_for_go()
            answer(missing=worker.connection().execute(_MISSING).fetchall()[0][0])
        case "fire":
            worker.store.engine.connect().close()
            wait_for_go()
            worker.scheduler.start()
            threading.Event().wait()
        case mode:
            raise ValueError(mode)


if __name__ == "__main__":
    # Jobs are stored as `module:function`: under this module's own name, not as __main__'s.
    importlib.import_module("benchmarks.programs.apscheduler_stock").main()
