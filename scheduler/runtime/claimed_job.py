"""A claimed action on its way through APScheduler."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from apscheduler.job import Job

from scheduler.domain.action import ScheduledAction


class ClaimedJob(Job):  # type: ignore[misc]
    """A claimed action as APScheduler hands it over."""

    __slots__ = ("action",)

    action: ScheduledAction


class Submitted(NamedTuple):
    """A claimed job, and the run time APScheduler submitted it for."""

    job: ClaimedJob
    run_time: datetime

    @property
    def job_id(self) -> str:
        """The dedupe key."""
        return self.job.action.dedupe_key
