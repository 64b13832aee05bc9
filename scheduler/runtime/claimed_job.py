"""A claimed action on its way through APScheduler."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from apscheduler.job import Job

from scheduler.domain.action import ScheduledAction


class ClaimedJob(Job):  # type: ignore[misc]
    """A claimed action as APScheduler hands it over."""

    __slots__ = ("_changed_kwargs", "action")

    action: ScheduledAction
    _changed_kwargs: dict[str, Any]

    @property
    def kwargs(self) -> dict[str, Any]:
        """A TimeoutJob's fields, made when somebody looks: the scheduling loop doesn't."""
        if hasattr(self, "_changed_kwargs"):
            return self._changed_kwargs
        action = self.action
        return {
            "tenant_id": action.tenant_id,
            "campaign_id": action.campaign_id,
            "contact_id": action.contact_id,
            "node_id": action.node_id,
            "event_type": action.event_type,
            "scheduled_at": action.deadline,
            "node_visit": action.node_visit,
        }

    @kwargs.setter
    def kwargs(self, changed: dict[str, Any]) -> None:
        """For `Job._modify`; the job store refuses what it can't keep."""
        self._changed_kwargs = changed


class Submitted(NamedTuple):
    """A claimed job, and the run time APScheduler submitted it for."""

    job: ClaimedJob
    run_time: datetime

    @property
    def job_id(self) -> str:
        """The dedupe key."""
        return self.job.action.dedupe_key
