"""The APScheduler instance, so that its calls work on the table in every state: before start, running, after shutdown.

Stock APScheduler keeps jobs in a list in memory until it is started, and looks nowhere else when it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Any, Final

from apscheduler.events import EVENT_JOB_REMOVED, JobEvent
from apscheduler.job import Job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import STATE_STOPPED, SchedulerNotRunningError

from scheduler.runtime.job_store import TimeoutJobStore

ALIAS: Final = "outreach:timeout"
SEND_ALIAS: Final = "outreach:send"


class CampaignScheduler(BackgroundScheduler):  # type: ignore[misc]
    """APScheduler on the table. Starting and stopping it is starting and stopping the `TimeoutScheduler`."""

    def __init__(
        self, before_start: Callable[[], None], drain: Callable[[bool], None], after_stop: Callable[[], None]
    ) -> None:
        self._before_start = before_start
        self._drain = drain
        self._after_stop = after_stop
        super().__init__(timezone=UTC)

    def use(self, store: TimeoutJobStore) -> None:
        """Work on this store."""
        self.add_jobstore(store, ALIAS)
        store.start(self, ALIAS)

    def start(self, paused: bool = False) -> None:
        """Fire in this process, in the background."""
        if self.state == STATE_STOPPED:
            self._before_start()
        try:
            super().start(paused)
        except BaseException:
            self._after_stop()
            raise

    def shutdown(self, wait: bool = True) -> None:
        """Stop firing. Our executors are drained first: APScheduler holds its locks while it shuts down."""
        if self.state == STATE_STOPPED:
            raise SchedulerNotRunningError
        self._drain(wait)
        try:
            super().shutdown(wait=False)
        finally:
            self._after_stop()

    def wakeup(self) -> None:
        """Let the loop turn now."""
        if self._event is not None:
            super().wakeup()

    def add_job(self, func: Any, trigger: Any = None, *args: Any, **options: Any) -> Job:
        """Schedule a timeout: `TimeoutScheduler.fire` with a TimeoutJob's fields, in whatever state this is."""
        for option in ("jobstore", "executor"):
            if options.get(option) in (None, "default"):
                options[option] = ALIAS
        job = super().add_job(func, trigger, *args, **options)
        with self._jobstores_lock:
            waiting, self._pending_jobs[:] = list(self._pending_jobs), []
            for kept, alias, replace_existing in waiting:
                self._real_add_job(kept, alias, replace_existing)
        return job

    def get_jobs(self, jobstore: str | None = None, pending: Any = None) -> list[Job]:
        """Every unfinished action as a job; raises SchedulerError when there are more than 10,000."""
        if self.state == STATE_STOPPED and jobstore in (None, ALIAS):
            with self._jobstores_lock:
                return self._table.get_all_jobs()
        return list(super().get_jobs(jobstore, pending))

    def remove_job(self, job_id: str, jobstore: str | None = None) -> None:
        """Cancel an action; raises JobLookupError when there is no unfinished one of that id."""
        if self.state != STATE_STOPPED:
            super().remove_job(job_id, jobstore)
            return
        with self._jobstores_lock:
            self._table.remove_job(job_id)
        self._dispatch_event(JobEvent(EVENT_JOB_REMOVED, job_id, ALIAS))

    def remove_all_jobs(self, jobstore: str | None = None) -> None:  # noqa: ARG002 - as APScheduler names it
        """Refused: it would cancel every tenant's timeouts."""
        self._table.remove_all_jobs()

    def _lookup_job(self, job_id: str, jobstore_alias: str | None) -> tuple[Job, str]:  # noqa: ARG002 - the same
        """What `get_job`, `modify_job`, `reschedule_job`, `pause_job` and `resume_job` look jobs up with."""
        job = self._table.lookup_job(job_id)
        if job is None:
            raise JobLookupError(job_id)
        return job, ALIAS

    @property
    def _table(self) -> TimeoutJobStore:
        return self._lookup_jobstore(ALIAS)  # type: ignore[no-any-return]
