"""An APScheduler executor that fires claimed actions in batches, and says how many more it can take.

APScheduler submits one job after the other; they are collected until the job store seals the hand-over, and then go
to a worker as one batch. Nothing here ever takes APScheduler's job store lock: that is held through its shutdown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job

from scheduler.domain.action import ScheduledAction
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.service.results import Ended
from scheduler.telemetry.log import emit

_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 2.0

Fire = Callable[[Sequence[ScheduledAction]], list[Ended]]


class ClaimedJob(Job):  # type: ignore[misc]
    """A claimed action as APScheduler hands it over."""

    __slots__ = ("action",)

    action: ScheduledAction


class BatchExecutor(BaseExecutor):  # type: ignore[misc]
    """Fires batches of up to `batch_size` in `workers` threads; takes one batch more than it has workers."""

    def __init__(self, fire: Fire, workers: int, batch_size: int, name: str, jobstore_alias: str) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._fire = fire
        self._workers = workers
        self._name = name
        self._jobstore_alias = jobstore_alias
        self._capacity = (workers + 1) * batch_size
        self._state = threading.Condition()
        self._outstanding = 0
        self._incoming: list[tuple[ClaimedJob, list[datetime]]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._stopping = threading.Event()

    def start(self, scheduler: Any, alias: str) -> None:
        """Called by APScheduler; may be called again after a shutdown, and in a forked child."""
        super().start(scheduler, alias)
        self._stopping.clear()
        self._state = threading.Condition()
        self._outstanding = 0
        self._incoming = []
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix=self._name)

    @property
    def free(self) -> int:
        """How many more actions may be claimed for this executor."""
        with self._state:
            return 0 if self._stopping.is_set() else self._capacity - self._outstanding

    def submit_job(self, job: ClaimedJob, run_times: list[datetime]) -> None:
        """Collect a claimed job. `max_instances` doesn't apply: the claim keeps an action single."""
        self._do_submit_job(job, run_times)

    def _do_submit_job(self, job: ClaimedJob, run_times: list[datetime]) -> None:
        self._incoming.append((job, run_times))

    def seal(self) -> set[str]:
        """Send what was collected to the workers; returns the job ids. Called once per turn of the scheduling loop."""
        collected, self._incoming = self._incoming, []
        if self._pool is None or not collected:
            return set()
        remaining = iter(collected)
        while batch := list(islice(remaining, self.batch_size)):
            with self._state:
                self._outstanding += len(batch)
            future = self._pool.submit(self._run, batch)
            future.add_done_callback(partial(self._finished, len(batch)))
        return {job.id for job, _ in collected}

    def _run(self, batch: list[tuple[ClaimedJob, list[datetime]]]) -> None:
        results = {
            ended.action.dedupe_key: ended for ended in self._fire_until_answered([job.action for job, _ in batch])
        }
        for job, run_times in batch:
            ended = results.get(job.id)
            if ended is not None:
                self._scheduler._dispatch_event(self._event(job, run_times, ended))  # noqa: SLF001

    def _fire_until_answered(self, actions: Sequence[ScheduledAction]) -> list[Ended]:
        """While the database is away the claims are kept and tried again; the fence decides whether they still hold."""
        delay = _FIRST_RETRY
        while True:
            try:
                return self._fire(actions)
            except DatabaseUnavailableError as error:
                emit("database.unavailable", error=str(error), waiting=len(actions))
                if self._stopping.wait(delay):
                    return []
                delay = min(delay * 2, _LONGEST_RETRY)

    def _event(self, job: ClaimedJob, run_times: list[datetime], ended: Ended) -> JobExecutionEvent:
        if ended.error is not None:
            return JobExecutionEvent(EVENT_JOB_ERROR, job.id, self._jobstore_alias, run_times[0], exception=ended.error)
        return JobExecutionEvent(EVENT_JOB_EXECUTED, job.id, self._jobstore_alias, run_times[0], retval=ended.outcome)

    def _finished(self, size: int, done: Future[None]) -> None:
        with self._state:
            self._outstanding -= size
            self._state.notify_all()
        error = done.exception()
        if error is not None:
            emit("loop.error", error=f"{type(error).__name__}: {error}")
        self._scheduler.wakeup()

    def drain(self, timeout: float | None) -> bool:
        """Take nothing more and wait for what is being fired; False when that took longer than `timeout` seconds."""
        self._stopping.set()
        with self._state:
            return self._state.wait_for(lambda: self._outstanding == 0, timeout)

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002 - as APScheduler calls it
        """Called by APScheduler, holding its locks: everything was drained before, so nothing is waited for."""
        self._stopping.set()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
