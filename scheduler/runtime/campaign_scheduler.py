"""The APScheduler instance, so that its calls work on the table in every state: before start, running, after shutdown.

Stock APScheduler keeps jobs in a list in memory until it is started, and looks nowhere else when it is stopped.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from datetime import UTC, timedelta
from typing import Any, Final, Protocol

from apscheduler.events import EVENT_JOB_MODIFIED, EVENT_JOB_REMOVED, JobEvent
from apscheduler.job import Job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import (
    STATE_RUNNING,
    STATE_STOPPED,
    SchedulerAlreadyRunningError,
    SchedulerNotRunningError,
)

from scheduler.domain.errors import InvalidInputError
from scheduler.runtime.job_store import TimeoutJobStore
from scheduler.telemetry.sentry import report_unexpected

ALIAS: Final = "outreach:timeout"
SEND_ALIAS: Final = "outreach:send"

_CHANGEABLE: Final = ("func", "args", "kwargs", "trigger", "next_run_time")


class Lifecycle(Protocol):
    """What has to happen around APScheduler's own start and shutdown."""

    def before_start(self) -> None:
        """Raises what forbids a start."""

    def before_wakeup(self) -> None:
        """There may be something new."""

    def hurrying(self) -> AbstractContextManager[None]:
        """Wait for no answer of the database for long during the block."""

    def announce_stop(self) -> None:
        """The turn that is under way is the last one, and asks nothing more than it must."""

    def stop_claiming(self) -> None:
        """Claim nothing from now on."""

    def drain(self, wait: bool) -> None:
        """Let what is being fired end."""

    def after_stop(self) -> None:
        """Hand back what was claimed."""


class CampaignScheduler(BackgroundScheduler):  # type: ignore[misc]
    """APScheduler on the table. Starting and stopping it is starting and stopping the `TimeoutScheduler`.

    Calls about one job go to the table without APScheduler's lock, which the loop holds while it claims: so they work
    from inside a state manager or a listener too, whatever the loop is doing.
    """

    _event: threading.Event | None
    _thread: threading.Thread | None

    def __init__(self, lifecycle: Lifecycle, longest_sleep: timedelta) -> None:
        self._lifecycle = lifecycle
        self._longest_sleep = longest_sleep.total_seconds()
        # One starts or stops at a time; the others wait, and find it done.
        self._changing = threading.RLock()
        super().__init__(timezone=UTC)

    def use(self, store: TimeoutJobStore) -> None:
        """Work on this store."""
        self.add_jobstore(store, ALIAS)
        store.start(self, ALIAS)

    def start(self, paused: bool = False) -> None:
        """Fire in this process, in the background."""
        with self._changing:
            if self.state != STATE_STOPPED:
                raise SchedulerAlreadyRunningError
            self._lifecycle.before_start()
            try:
                super().start(paused)
            except BaseException:
                self._lifecycle.after_stop()
                raise

    def shutdown(self, wait: bool = True) -> None:
        """Stop firing. Our executors are drained first: APScheduler holds its locks while it shuts down."""
        with self._changing, self._lifecycle.hurrying():
            if self.state == STATE_STOPPED:
                raise SchedulerNotRunningError
            self._lifecycle.announce_stop()
            with self._jobstores_lock:
                # A turn that is under way hands over what it claimed; the next one claims nothing.
                self._lifecycle.stop_claiming()
            self._lifecycle.drain(wait)
            try:
                self._leave_loop()
            finally:
                self._lifecycle.after_stop()

    def _leave_loop(self) -> None:
        """End the loop's thread; from a listener that it has called, without waiting for itself."""
        if threading.current_thread() is not self._thread:
            super().shutdown(wait=False)
        else:
            super(BackgroundScheduler, self).shutdown(wait=False)
            self._thread = None

    def _process_jobs(self) -> float:
        """One turn of the loop. Whatever happens in it, the next one comes, and within the longest sleep.

        APScheduler's own ends the loop's thread with any error of its job store's but one, and computes its sleep from
        the wall clock, which may have jumped.
        """
        try:
            wait: float | None = super()._process_jobs()
        except BaseException as error:  # noqa: BLE001 - the loop goes on
            report_unexpected("loop.error", error)
            return self._longest_sleep
        return self._longest_sleep if wait is None else min(wait, self._longest_sleep)

    @property
    def has_listeners(self) -> bool:
        """Whether anybody is told of events."""
        return bool(self._listeners)

    def _dispatch_event(self, event: Any) -> None:
        """Most schedulers have no listener, and there are three events an action."""
        if self._listeners:
            super()._dispatch_event(event)

    def wakeup(self) -> None:
        """Let the loop turn now, and look at the table."""
        self._lifecycle.before_wakeup()
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

    def get_job(self, job_id: str, jobstore: str | None = None) -> Job | None:  # noqa: ARG002 - as APScheduler's
        """The job of an unfinished action; None when there is none of that id."""
        return self._table.lookup_job(job_id)

    def get_jobs(self, jobstore: str | None = None, pending: Any = None) -> list[Job]:
        """Every unfinished action as a job; raises SchedulerError when there are more than 10,000."""
        if jobstore in (None, "default", ALIAS):
            return self._table.get_all_jobs()
        return list(super().get_jobs(jobstore, pending))

    def modify_job(self, job_id: str, jobstore: str | None = None, **changes: Any) -> Job:
        """Move, pause or resume an action. Nothing else of it can be changed: raises InvalidInputError."""
        for name, value in changes.items():
            if name not in _CHANGEABLE:
                raise InvalidInputError(name, value, "leave it: of a timeout only the instant can be changed")
        job, alias = self._lookup_job(job_id, jobstore)
        job._modify(**changes)  # noqa: SLF001 - as APScheduler does
        self._table.update_job(job)
        self._dispatch_event(JobEvent(EVENT_JOB_MODIFIED, job_id, alias))
        if self.state == STATE_RUNNING:
            self.wakeup()
        return job

    def resume_job(self, job_id: str, jobstore: str | None = None) -> Job:
        """Let a paused action go on, at its own instant; it stays paused while its campaign is."""
        job, _ = self._lookup_job(job_id, jobstore)
        return self.modify_job(job_id, jobstore, next_run_time=job.trigger.run_date)

    def remove_job(self, job_id: str, jobstore: str | None = None) -> None:  # noqa: ARG002 - as APScheduler's
        """Cancel an action; raises JobLookupError when there is no unfinished one of that id."""
        if threading.current_thread() is self._thread and self._table.let_go(job_id):
            return
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

    def forget_parent(self) -> None:
        """In a forked child: the loop is the parent's, and so may be who holds the locks."""
        self._changing = threading.RLock()
        self._executors_lock, self._jobstores_lock, self._listeners_lock = (self._create_lock() for _ in range(3))
        self.state = STATE_STOPPED
        self._event = None
        self._thread = None
