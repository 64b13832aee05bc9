"""Actions as APScheduler jobs, and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from apscheduler.job import Job
from apscheduler.triggers.date import DateTrigger

from scheduler.domain.action import ActionStatus, ScheduledAction, TimeoutJob
from scheduler.domain.errors import InvalidInputError
from scheduler.runtime.claimed_job import ClaimedJob


class JobMaker:
    """Makes APScheduler jobs of actions. `fire` is the one job function there is."""

    def __init__(self, fire: Callable[..., Any], alias: str, send_alias: str) -> None:
        self._fire = fire
        self._alias = alias
        self._send_alias = send_alias

    def make(self, scheduler: Any, action: ScheduledAction, next_run_time: datetime | None) -> ClaimedJob:
        """The job of an action. Attributes are set directly: checking each again would cost more than firing it."""
        job: ClaimedJob = ClaimedJob.__new__(ClaimedJob)
        job._scheduler = scheduler  # noqa: SLF001 - as every job store does
        job._jobstore_alias = self._alias  # noqa: SLF001
        job.id = action.dedupe_key
        job.name = action.dedupe_key
        job.func = self._fire
        job.func_ref = None
        job.args = ()
        job.trigger = _date_trigger(action.run_at)
        job.executor = self._alias if action.action_type == "timeout" else self._send_alias
        job.misfire_grace_time = None
        job.coalesce = True
        job.max_instances = 1
        job.next_run_time = next_run_time
        job.action = action
        return job

    def stored(self, scheduler: Any, action: ScheduledAction) -> ClaimedJob:
        """The job of a stored action; a paused one has no next run time."""
        return self.make(scheduler, action, None if action.status == ActionStatus.PAUSED else action.run_at)

    def read(self, job: Job) -> tuple[TimeoutJob, datetime | None]:
        """The timeout a job means, and its next run time (None: paused). Raises InvalidInputError for anything else."""
        self._check_kind(job)
        run_date = job.trigger.run_date.astimezone(UTC)
        timeout = TimeoutJob.from_mapping({"scheduled_at": run_date, **job.kwargs})
        if timeout.scheduled_at != run_date:
            raise InvalidInputError("scheduled_at", timeout.scheduled_at, f"make it the trigger's run_date, {run_date}")
        if job.id != timeout.dedupe_key:
            raise InvalidInputError("id", job.id, f"make it the dedupe key, {timeout.dedupe_key}")
        return timeout, None if job.next_run_time is None else job.next_run_time.astimezone(UTC)

    def check_change(self, job: Job, action: ScheduledAction) -> None:
        """A stored action may get another instant, and nothing else. Raises InvalidInputError."""
        self._check_kind(job)
        kwargs = self.stored(None, action).kwargs
        for name, value in kwargs.items():
            if name != "scheduled_at" and job.kwargs.get(name, value) != value:
                raise InvalidInputError(name, job.kwargs[name], f"leave it {value!r}: it is what the timeout is")

    def _check_kind(self, job: Job) -> None:
        if job.func != self._fire:
            raise InvalidInputError(
                "func",
                job.func,
                "this job store holds campaign timeouts only: schedule TimeoutScheduler.fire with a TimeoutJob's "
                "fields, and run other jobs in a scheduler of their own",
            )
        if not isinstance(job.trigger, DateTrigger):
            raise InvalidInputError("trigger", job.trigger, "a timeout happens once: use the date trigger")
        if job.args:
            raise InvalidInputError("args", job.args, "pass a TimeoutJob's fields as kwargs")


def _date_trigger(run_date: datetime) -> DateTrigger:
    trigger = DateTrigger.__new__(DateTrigger)
    trigger.run_date = run_date
    return trigger
