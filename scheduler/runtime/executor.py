"""An APScheduler executor that fires claimed actions in batches, and says how many more it can take.

APScheduler submits one job after the other; they are collected until the job store seals the hand-over, and then go
to a worker as one batch. Nothing here ever takes APScheduler's job store lock: that is held through its shutdown.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_REMOVED, JobEvent, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor

from scheduler.domain.action import ScheduledAction
from scheduler.domain.errors import DatabaseUnavailableError
from scheduler.runtime.claimed_job import ClaimedJob, Submitted
from scheduler.runtime.database_watch import DatabaseWatch
from scheduler.runtime.failure_watch import FailureWatch
from scheduler.runtime.in_hand import InHand
from scheduler.runtime.shift import Batch, Shift
from scheduler.service.results import Ended

_FIRST_RETRY: Final = 0.1
_LONGEST_RETRY: Final = 2.0
# A claim of fewer can't tell a newcomer with one timeout from the beginning of a backlog.
_FEWEST_FIRST: Final = 4


class Work(Protocol):
    """What is done with claimed actions."""

    def fire(self, claimed: Sequence[ScheduledAction], *, may_wait: bool = False) -> list[Ended]:
        """Fire them; returns what became of each. Raises DatabaseUnavailableError."""

    def leave(self, claimed: Sequence[ScheduledAction]) -> list[ScheduledAction]:
        """Nobody works on these any more; returns those whose claims have to stay in hand until `record_rest`."""

    def record_rest(self) -> list[Ended]:
        """Record what was left; returns what is recorded now."""


class BatchExecutor(BaseExecutor):  # type: ignore[misc]
    """Fires batches of up to `batch_size` in `workers` threads; takes one batch more than it has workers.

    With `has_express` what goes first has a thread more, of its own.

    A claim leaves `in_hand` when it is worked off, and also when it never will be.
    """

    def __init__(
        self,
        work: Work,
        workers: int,
        batch_size: int,
        name: str,
        jobstore_alias: str,
        in_hand: InHand,
        watch: DatabaseWatch,
        failure_watch: FailureWatch,
        *,
        has_express: bool = False,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self._work = work
        self._in_hand = in_hand
        self._watch = watch
        self._failure_watch = failure_watch
        self._workers = workers
        self._has_express = has_express
        self._name = name
        self._jobstore_alias = jobstore_alias
        self._capacity = (workers + 1) * batch_size
        self._incoming: list[Submitted] = []
        self._shift: Shift | None = None
        self._is_awaited = False
        self._is_first_awaited = False
        # With a rate per tenant another's may have fallen due between the claim and the look at what is next.
        self.wakes_always = False

    def start(self, scheduler: Any, alias: str) -> None:
        """Called by APScheduler; may be called again after a shutdown."""
        super().start(scheduler, alias)
        if self._shift is not None:
            self._shift.end()
        self._incoming = []
        self._shift = Shift(
            self._run, self._finish, self._workers, self._name, self.batch_size, has_express=self._has_express
        )

    @property
    def free(self) -> int:
        """How many more actions may be claimed for this executor. Whoever finds less than a batch is woken for more.

        None where there is room for less than half a batch: a claim of a handful takes as long.
        """
        shift = self._shift
        if shift is None or shift.stopping.is_set():
            return 0
        if self._room(shift) < self.batch_size:
            self._is_awaited = True
        # Only now: what has ended before that told nobody.
        return self._room(shift)

    @property
    def room_first(self) -> int:
        """How many may be claimed of what goes first, a batch more than of anything else; none without an express.

        Whoever finds no room is woken when there is some.
        """
        shift = self._shift
        if not self._has_express or shift is None or shift.stopping.is_set():
            return 0
        if not self._more_room(shift):
            self._is_first_awaited = True
        return self._more_room(shift)

    def has_room_beside(self, claimed: int) -> bool:
        """Whether more may be claimed when so many have been, and are still to be submitted."""
        return self._shift is not None and self._room(self._shift, claimed) > 0

    def _room(self, shift: Shift, coming: int = 0) -> int:
        room = self._capacity - shift.outstanding - coming
        return room if 2 * room >= self.batch_size else 0

    def _more_room(self, shift: Shift) -> int:
        room = min(self._capacity + self.batch_size - shift.outstanding, self.batch_size)
        return room if room >= _FEWEST_FIRST else 0

    def submit_job(self, job: ClaimedJob, run_times: list[datetime]) -> None:
        """Collect a claimed job. `max_instances` doesn't apply: the claim keeps an action single."""
        self._do_submit_job(job, run_times)

    def _do_submit_job(self, job: ClaimedJob, run_times: list[datetime]) -> None:
        self._incoming.append(Submitted(job, run_times[-1]))

    def seal(self, goes_first: Collection[str] = ()) -> set[str]:
        """Send what was collected to the workers; returns the job ids. Called once per turn of the scheduling loop.

        What these tenants have goes first, in a batch of its own.
        """
        collected, self._incoming = self._incoming, []
        shift = self._shift
        if shift is None:
            return set()
        first = [one for one in collected if one.job.action.tenant_id in goes_first] if goes_first else []
        rest = [one for one in collected if one.job.action.tenant_id not in goes_first] if first else collected
        # In this order: a worker that is idle takes the rest, and what goes first is left to the express.
        for jobs, is_first in ((rest, False), (first, True)):
            for start in range(0, len(jobs), self.batch_size):
                shift.submit(jobs[start : start + self.batch_size], goes_first=is_first)
        return {one.job_id for one in collected}

    def discard(self) -> None:
        """Forget what was collected and never sealed."""
        self._incoming = []

    def _finish(self, batch: Batch, *, is_over: bool) -> None:
        """A batch leaves the hand, but for what must stay. At the end of a shift its claims may still stand."""
        actions = [one.job.action for one in batch]
        kept = {action.key for action in self._work.leave(actions)}
        self._in_hand.drop([action for action in actions if action.key not in kept])
        if is_over:
            self._in_hand.doubt()
        if self.wakes_always or self._is_room_awaited():
            self._is_awaited = self._is_first_awaited = False
            self._scheduler.wakeup()

    def _is_room_awaited(self) -> bool:
        """Whether somebody waits for room, and there is some, or nothing to wait for any more."""
        shift = self._shift
        if shift is None:
            return self._is_awaited
        return (self._is_awaited and self._room(shift) > 0) or (self._is_first_awaited and self._more_room(shift) > 0)

    def record_rest(self) -> None:
        """Record what was left of batches that are over."""
        for ended in self._work.record_rest():
            self._in_hand.drop([ended.action])
            self._failure_watch.note([ended])
            self._tell(ended.action.dedupe_key, ended.action.run_at, ended)

    def _run(self, shift: Shift, batch: Batch) -> None:
        ended = self._fire_until_answered([one.job.action for one in batch], shift.stopping)
        self._failure_watch.note(ended)
        if not self._scheduler.has_listeners:
            return
        results = {one.action.dedupe_key: one for one in ended}
        for one in batch:
            if one.job_id in results:
                self._tell(one.job_id, one.run_time, results[one.job_id])

    def _fire_until_answered(self, actions: Sequence[ScheduledAction], stopping: threading.Event) -> list[Ended]:
        """While the database is away the claims are kept and tried again; the fence decides whether they still hold."""
        delay = _FIRST_RETRY
        while True:
            try:
                return self._work.fire(actions)
            except DatabaseUnavailableError as error:
                self._watch.noticed(error)
                if stopping.wait(delay):
                    return []
                delay = min(delay * 2, _LONGEST_RETRY)

    def _tell(self, job_id: str, run_time: datetime, ended: Ended) -> None:
        """APScheduler's listeners hear of what was fired, and of its end; not of what only waits for another turn."""
        dispatch = self._scheduler._dispatch_event  # noqa: SLF001 - what APScheduler's own executors call
        alias = self._jobstore_alias
        if ended.error is not None:
            dispatch(JobExecutionEvent(EVENT_JOB_ERROR, job_id, alias, run_time, exception=ended.error))
        elif ended.is_final:
            dispatch(JobExecutionEvent(EVENT_JOB_EXECUTED, job_id, alias, run_time, retval=ended.outcome))
        if ended.is_final:
            dispatch(JobEvent(EVENT_JOB_REMOVED, job_id, alias))

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
