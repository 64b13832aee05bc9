"""An APScheduler executor that fires claimed actions in batches, and says how many more it can take.

APScheduler submits one job after the other; they are collected until the job store seals the hand-over, and then go
to a worker as one batch. Nothing here ever takes APScheduler's job store lock: that is held through its shutdown.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_REMOVED, JobEvent, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor

from scheduler.domain.action import ScheduledAction
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime.claimed_job import ClaimedJob, Submitted
from scheduler.runtime.database_watch import DatabaseWatch
from scheduler.runtime.in_hand import InHand
from scheduler.runtime.shift import Batch, Shift
from scheduler.service.results import Ended

_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 2.0

Fire = Callable[[Sequence[ScheduledAction]], list[Ended]]


class BatchExecutor(BaseExecutor):  # type: ignore[misc]
    """Fires batches of up to `batch_size` in `workers` threads; takes one batch more than it has workers.

    A claim leaves `in_hand` when it is worked off, and also when it never will be.
    """

    def __init__(
        self,
        fire: Fire,
        workers: int,
        batch_size: int,
        name: str,
        jobstore_alias: str,
        in_hand: InHand,
        watch: DatabaseWatch,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._fire = fire
        self._in_hand = in_hand
        self._watch = watch
        self._workers = workers
        self._name = name
        self._jobstore_alias = jobstore_alias
        self._capacity = (workers + 1) * batch_size
        self._incoming: list[Submitted] = []
        self._shift: Shift | None = None

    def start(self, scheduler: Any, alias: str) -> None:
        """Called by APScheduler; may be called again after a shutdown."""
        super().start(scheduler, alias)
        if self._shift is not None:
            self._shift.end()
        self._incoming = []
        self._shift = Shift(self._run, self._finish, self._workers, self._name)

    @property
    def free(self) -> int:
        """How many more actions may be claimed for this executor."""
        shift = self._shift
        return 0 if shift is None or shift.stopping.is_set() else max(self._capacity - shift.outstanding, 0)

    def submit_job(self, job: ClaimedJob, run_times: list[datetime]) -> None:
        """Collect a claimed job. `max_instances` doesn't apply: the claim keeps an action single."""
        self._do_submit_job(job, run_times)

    def _do_submit_job(self, job: ClaimedJob, run_times: list[datetime]) -> None:
        self._incoming.append(Submitted(job, run_times[-1]))

    def seal(self) -> set[str]:
        """Send what was collected to the workers; returns the job ids. Called once per turn of the scheduling loop."""
        collected, self._incoming = self._incoming, []
        shift = self._shift
        if shift is None:
            return set()
        for start in range(0, len(collected), self.batch_size):
            shift.submit(collected[start : start + self.batch_size])
        return {one.job_id for one in collected}

    def discard(self) -> None:
        """Forget what was collected and never sealed."""
        self._incoming = []

    def _finish(self, batch: Batch, *, was_begun: bool) -> None:
        self._in_hand.drop([one.job.action for one in batch])
        if not was_begun:
            self._in_hand.is_in_doubt = True
        self._scheduler.wakeup()

    def _run(self, shift: Shift, batch: Batch) -> None:
        ended = self._fire_until_answered([one.job.action for one in batch], shift.stopping)
        results = {one.action.dedupe_key: one for one in ended}
        for one in batch:
            if one.job_id in results:
                self._tell(one, results[one.job_id])

    def _fire_until_answered(self, actions: Sequence[ScheduledAction], stopping: threading.Event) -> list[Ended]:
        """While the database is away the claims are kept and tried again; the fence decides whether they still hold."""
        delay = _FIRST_RETRY
        while True:
            try:
                return self._fire(actions)
            except DatabaseUnavailableError as error:
                self._watch.noticed(error)
                if stopping.wait(delay):
                    self._in_hand.is_in_doubt = True
                    return []
                delay = min(delay * 2, _LONGEST_RETRY)

    def _tell(self, one: Submitted, ended: Ended) -> None:
        """APScheduler's listeners hear of what was fired, and of its end; not of what only waits for another turn."""
        dispatch = self._scheduler._dispatch_event  # noqa: SLF001 - what APScheduler's own executors call
        alias = self._jobstore_alias
        if ended.error is not None:
            dispatch(JobExecutionEvent(EVENT_JOB_ERROR, one.job_id, alias, one.run_time, exception=ended.error))
        elif ended.is_final:
            dispatch(JobExecutionEvent(EVENT_JOB_EXECUTED, one.job_id, alias, one.run_time, retval=ended.outcome))
        if ended.is_final:
            dispatch(JobEvent(EVENT_JOB_REMOVED, one.job_id, alias))

    def stop_taking(self) -> None:
        """Take nothing more; what is being tried again while the database is away is given up."""
        if self._shift is not None:
            self._shift.stopping.set()

    def wait_idle(self, timeout: float) -> bool:
        """Wait for what is being fired; False when that takes longer than `timeout` seconds."""
        return self._shift is None or self._shift.wait_idle(timeout)

    def shutdown(self, wait: bool = True) -> None:  # noqa: ARG002 - as APScheduler calls it
        """Called by APScheduler, holding its locks: what can be waited for was waited for before."""
        if self._shift is not None:
            self._shift.end()
            self._shift = None

    def forget_parent(self) -> None:
        """In a forked child: the threads are the parent's."""
        self._shift = None
