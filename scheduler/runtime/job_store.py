"""`scheduled_actions` as APScheduler's job store: one date-trigger job per dedupe key, claimed when it is due.

What APScheduler does to its jobs, and what follows here:

* it removes a date job right after submitting it, before it ran: a job handed over is let go, and nothing is canceled;
* it skips what isn't due by the `now` it took before: jobs are handed over with `next_run_time = min(run_at, now)`;
* an error in `get_next_run_time` or `remove_job` ends its loop: neither lets one out;
* it holds its job store lock through all of this: nothing here waits for a worker.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore, ConflictingIdError, JobLookupError

from scheduler.domain.action import ActionStatus
from scheduler.domain.errors import InvalidInputError, SchedulerError
from scheduler.runtime.jobs import JobMaker
from scheduler.runtime.loop_turn import LoopTurn
from scheduler.service.timeouts import Timeouts

MOST_JOBS: Final = 10_000


class TimeoutJobStore(BaseJobStore):  # type: ignore[misc]
    """The table as a job store. What the scheduling loop calls runs in its thread; the rest in any."""

    def __init__(self, timeouts: Timeouts, jobs: JobMaker, turn: LoopTurn) -> None:
        super().__init__()
        self._timeouts = timeouts
        self._jobs = jobs
        self._turn = turn

    def lookup_job(self, job_id: str) -> Job | None:
        """The job of an unfinished action."""
        try:
            action = self._timeouts.find(job_id)
        except InvalidInputError:
            return None
        return None if action is None or action.is_finished else self._jobs.stored(self._scheduler, action)

    def get_all_jobs(self) -> list[Job]:
        """Every unfinished action, paused ones last; raises SchedulerError when there are more than 10,000."""
        actions = self._timeouts.unfinished(MOST_JOBS + 1)
        if len(actions) > MOST_JOBS:
            raise SchedulerError(
                f"there are more than {MOST_JOBS} unfinished actions: ask for a part with TimeoutScheduler.pending()"
            )
        jobs = [self._jobs.stored(self._scheduler, action) for action in actions]
        return sorted(jobs, key=lambda job: job.next_run_time is None)

    def add_job(self, job: Job) -> None:
        """Schedule a timeout; raises ConflictingIdError when its key exists, in whatever state."""
        timeout, next_run_time = self._jobs.read(job)
        if not self._timeouts.add(timeout, next_run_time):
            raise ConflictingIdError(job.id)

    def update_job(self, job: Job) -> None:
        """Move, pause or resume. A finished key is never reopened: ConflictingIdError."""
        action = self._timeouts.find(job.id)
        if action is None:
            raise JobLookupError(job.id)
        if action.is_finished:
            raise ConflictingIdError(job.id)
        self._jobs.check_change(job, action)
        if job.next_run_time is None:
            if not self._timeouts.pause(job.id) and action.status == ActionStatus.CLAIMED:
                raise SchedulerError(f"{job.id} is being fired and can't be paused any more")
        elif action.status == ActionStatus.PAUSED:
            self._timeouts.resume(job.id, job.next_run_time.astimezone(UTC))
        elif job.next_run_time != action.run_at and not self._timeouts.reschedule(job.id, job.next_run_time):
            raise SchedulerError(f"{job.id} is being fired and can't be moved any more")

    def remove_job(self, job_id: str) -> None:
        """Cancel an unfinished action."""
        try:
            canceled = self._timeouts.cancel(job_id, "removed through APScheduler")
        except InvalidInputError:
            canceled = False
        if not canceled:
            raise JobLookupError(job_id)

    def let_go(self, job_id: str) -> bool:
        """Whether APScheduler removes a job because it has just submitted it: then nothing is canceled."""
        return self._turn.let_go(job_id)

    def remove_all_jobs(self) -> None:
        """Refused: it would cancel every tenant's timeouts."""
        raise SchedulerError("remove_all_jobs would cancel every tenant's timeouts: cancel by campaign instead")

    def get_due_jobs(self, now: datetime) -> list[Job]:
        """Claim what is due, as much as the executors take. Errors are logged; the loop goes on within a moment."""
        return [self._jobs.make(self._scheduler, action, min(action.run_at, now)) for action in self._turn.claim()]

    def get_next_run_time(self) -> datetime:
        """When the loop is to turn again: never None, at most one poll interval away."""
        return self._turn.finish()
