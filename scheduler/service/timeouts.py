"""Timeouts by hand: schedule, move, cancel, reopen, pause, look up. What fires them is in `firing`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Any, Final

from scheduler.domain.action import (
    UNFINISHED,
    ActionStatus,
    ActionType,
    NewAction,
    ScheduledAction,
    TimeoutJob,
    require_id,
    tenant_of,
)
from scheduler.domain.campaign import CampaignStatus
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.timing import parse_instant
from scheduler.service.reopening import Reopening
from scheduler.service.results import ScheduleSummary
from scheduler.store.database import Transaction
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit, is_logged

Key = tuple[str, str]

_CHUNK: Final = 5000
LARGEST_LIMIT: Final = 100_000


class Timeouts:
    """Actions of all tenants. Every call is one transaction, or joins the caller's; thread-safe."""

    def __init__(self, stores: Stores, reopening: Reopening) -> None:
        self._stores = stores
        self._reopening = reopening
        self._database = stores.database

    def schedule(self, job: TimeoutJob, connection: Any = None) -> str:
        """Schedule one timeout; returns its job id. The same key again changes nothing, in whatever state it is."""
        if not isinstance(job, TimeoutJob):
            raise InvalidInputError("job", job, "give a TimeoutJob")
        row = _row(job)
        if connection is not None or self._database.is_told(row.run_at) or not self._insert_alone(row):
            self._database.run(lambda transaction: self._insert(transaction, [job]), connection)
        return row.dedupe_key

    def _insert_alone(self, row: NewAction) -> bool:
        """Insert it by a statement of its own, unless its key exists."""
        with self._database.one_statement() as transaction:
            is_new = bool(self._stores.actions.insert(transaction, [row]))
        if is_new and is_logged("action.scheduled"):
            emit("action.scheduled", tenant_id=row.tenant_id, dedupe_key=row.dedupe_key)
        return is_new

    def add(self, job: TimeoutJob, run_at: datetime | None) -> bool:
        """Schedule one timeout for `run_at` (None: held); False when its key exists, in whatever state."""
        key = (job.tenant_id, job.dedupe_key)

        def insert(transaction: Transaction) -> bool:
            if not self._insert(transaction, [job]):
                return False
            if run_at is None:
                self._stores.edits.hold(transaction, key)
                self._stores.pauses.begin(transaction, "action", (job.tenant_id, job.campaign_id), job.dedupe_key)
            elif run_at != job.scheduled_at:
                self._stores.edits.reschedule(transaction, key, run_at)
            return True

        return self._database.run(insert)

    def schedule_many(self, jobs: Iterable[TimeoutJob], connection: Any = None) -> ScheduleSummary:
        """Schedule many in one transaction: all of them or, when one is unusable, none."""
        scheduled = total = 0
        remaining = iter(jobs)
        with self._database.transaction(connection) as transaction, transaction.all_or_nothing():
            while chunk := list(islice(remaining, _CHUNK)):
                for job in chunk:
                    if not isinstance(job, TimeoutJob):
                        raise InvalidInputError("jobs", job, "give TimeoutJob values")
                scheduled += self._insert(transaction, chunk)
                total += len(chunk)
        return ScheduleSummary(scheduled=scheduled, existing=total - scheduled)

    def reschedule(self, job_id: str, run_at: datetime, connection: Any = None) -> bool:
        """Give a pending or paused action another instant; False when it is unknown, claimed or finished."""
        key, instant = _key(job_id), parse_instant("run_at", run_at)

        def move(transaction: Transaction) -> bool:
            self._lock_campaign_of(transaction, key)
            return self._stores.edits.reschedule(transaction, key, instant)

        moved = self._database.run(move, connection)
        if moved:
            emit("action.rescheduled", dedupe_key=job_id, run_at=instant.isoformat())
        return moved

    def cancel(self, job_id: str, reason: str | None = None, connection: Any = None, actor: str | None = None) -> bool:
        """Cancel one action; False when unknown or finished. A claimed one is canceled unless it commits first.

        With an actor it is noted in `operator_actions`.
        """
        key = _key(job_id)

        def cancel(transaction: Transaction) -> bool:
            action = self._lock_campaign_of(transaction, key)
            is_done = self._stores.edits.cancel(transaction, key, reason)
            if is_done and action is not None and actor is not None:
                self._record(transaction, "action.canceled", action, actor, reason)
            return is_done

        canceled = self._database.run(cancel, connection)
        if canceled:
            emit("action.canceled", dedupe_key=job_id, reason=reason, count=1)
        return canceled

    def cancel_node(self, tenant_id: str, campaign_id: str, node_id: str, connection: Any = None) -> int:
        """Cancel all that is unfinished for one node of a campaign; returns how many."""
        key, node = _campaign_key(tenant_id, campaign_id), require_id("node_id", node_id)

        def cancel(transaction: Transaction) -> int:
            self._stores.campaigns.lock(transaction, [key])
            return self._stores.changes.cancel_node(transaction, key, node)

        return self._told(key, self._database.run(cancel, connection), node_id)

    def cancel_campaign(self, tenant_id: str, campaign_id: str, connection: Any = None) -> int:
        """Cancel all that is unfinished for a campaign, in one statement; returns how many."""
        key = _campaign_key(tenant_id, campaign_id)

        def cancel(transaction: Transaction) -> int:
            self._stores.campaigns.lock(transaction, [key])
            return self._stores.changes.cancel_campaign(transaction, key)

        return self._told(key, self._database.run(cancel, connection), None)

    def retry(self, job_id: str, connection: Any = None, actor: str | None = None) -> bool:
        """Reopen an action in `error`, due now; False when it isn't in error, or its visit was left already.

        A campaign that ended because this send failed goes on with it.
        With an actor it is noted in `operator_actions`.
        """
        key = _key(job_id)

        def reopen(transaction: Transaction) -> bool:
            action = self._lock_campaign_of(transaction, key)
            if action is None:
                return False
            campaign = self._stores.campaigns.read(transaction, [action.campaign_key]).get(action.campaign_key)
            if campaign is not None and not campaign.lets_retry(action.action_type, action.node_visit):
                return False
            is_done = self._stores.edits.reopen(transaction, key)
            if is_done and actor is not None:
                self._record(transaction, "action.retried", action, actor, None)
            if is_done and campaign is not None and campaign.is_finished:
                self._reopening.reopen(transaction, [campaign])
            return is_done

        reopened = self._database.run(reopen, connection)
        if reopened:
            emit("action.retried", dedupe_key=job_id)
        return reopened

    def pause(self, job_id: str, connection: Any = None) -> bool:
        """Hold one action; False when it is unknown, held, finished, or a send that somebody is about to send."""
        key = _key(job_id)

        def hold(transaction: Transaction) -> bool:
            action = self._lock_campaign_of(transaction, key)
            held = action is not None and self._stores.edits.hold(transaction, key)
            if action is not None and (held or action.status == ActionStatus.PAUSED):
                self._stores.pauses.begin(transaction, "action", action.campaign_key, action.dedupe_key)
            return held

        return self._database.run(hold, connection)

    def resume(self, job_id: str, run_at: datetime | None = None, connection: Any = None) -> bool:
        """Let a held action go on, at its own instant or moved to `run_at`; it stays held while its campaign is paused.

        False when it is unknown, or stays as it is.
        """
        key = _key(job_id)

        def unhold(transaction: Transaction) -> bool:
            action = self._lock_campaign_of(transaction, key)
            if action is None or action.status != ActionStatus.PAUSED:
                return False
            self._stores.pauses.end(transaction, "action", action.campaign_key, action.dedupe_key)
            if run_at is not None and run_at != action.run_at:
                self._stores.edits.reschedule(transaction, key, run_at)
            campaign = self._stores.campaigns.read(transaction, [action.campaign_key]).get(action.campaign_key)
            if campaign is not None and campaign.status == CampaignStatus.PAUSED:
                return False
            return self._stores.edits.unhold(transaction, key, run_at or action.run_at)

        return self._database.run(unhold, connection)

    def find(self, job_id: str, connection: Any = None) -> ScheduledAction | None:
        """The action of that job id, in whatever state it is."""
        key = _key(job_id)
        with self._database.reading(connection) as transaction:
            return self._stores.actions.find(transaction, key)

    def pending(
        self,
        tenant_id: str | None = None,
        campaign_id: str | None = None,
        due_before: datetime | None = None,
        limit: int = 100,
        connection: Any = None,
    ) -> list[ScheduledAction]:
        """Pending actions, the earliest due first, at most `limit`."""
        return self.select(
            tenant_id=tenant_id,
            campaign_id=campaign_id,
            statuses=[ActionStatus.PENDING],
            due_before=None if due_before is None else parse_instant("due_before", due_before),
            limit=limit,
            connection=connection,
        )

    def select(self, *, limit: int = 100, connection: Any = None, **wanted: Any) -> list[ScheduledAction]:
        """Actions by tenant, campaign, node, statuses, type and due time, the earliest due first."""
        if type(limit) is not int or not 1 <= limit <= LARGEST_LIMIT:
            raise InvalidInputError("limit", limit, f"give a whole number from 1 to {LARGEST_LIMIT}")
        with self._database.reading(connection) as transaction:
            return self._stores.actions.select(transaction, limit=limit, **wanted)

    def unfinished(self, limit: int) -> list[ScheduledAction]:
        """Everything still to come, of all tenants, at most `limit`."""
        return self.select(statuses=list(UNFINISHED), limit=limit)

    def _record(
        self, transaction: Transaction, act: str, action: ScheduledAction, actor: str, reason: str | None
    ) -> None:
        details = {"reason": reason, "dedupe_key": action.dedupe_key}
        self._stores.operator_actions.record(transaction, act, *action.campaign_key, actor, details)

    def _insert(self, transaction: Transaction, jobs: list[TimeoutJob]) -> int:
        inserted = self._stores.actions.insert(transaction, [_row(job) for job in jobs])
        ignored = [job for job in jobs if (job.tenant_id, job.dedupe_key) not in inserted]
        if ignored:
            transaction.vouch()
            self._tell_ignored(transaction, ignored)
        if is_logged("action.scheduled"):
            for tenant_id, dedupe_key in inserted:
                emit("action.scheduled", tenant_id=tenant_id, dedupe_key=dedupe_key)
        return len(inserted)

    def _tell_ignored(self, transaction: Transaction, jobs: list[TimeoutJob]) -> None:
        existing = self._stores.actions.find_many(transaction, ((job.tenant_id, job.dedupe_key) for job in jobs))
        for job in jobs:
            action = existing.get((job.tenant_id, job.dedupe_key))
            if action is not None and (action.deadline != job.scheduled_at or action.status == ActionStatus.CANCELED):
                emit(
                    "action.schedule_ignored",
                    dedupe_key=job.dedupe_key,
                    status=action.status,
                    scheduled_at=action.deadline.isoformat(),
                    given_scheduled_at=job.scheduled_at.isoformat(),
                )

    def _lock_campaign_of(self, transaction: Transaction, key: Key) -> ScheduledAction | None:
        """The action, once its campaign's row is locked: changes and firing of one campaign never cross."""
        action = self._stores.actions.find(transaction, key)
        if action is None:
            return None
        self._stores.campaigns.lock(transaction, [action.campaign_key])
        return self._stores.actions.find(transaction, key)

    @staticmethod
    def _told(key: Key, count: int, node_id: str | None) -> int:
        if count:
            emit("action.canceled", tenant_id=key[0], campaign_id=key[1], node_id=node_id, count=count)
        return count


def _row(job: TimeoutJob) -> NewAction:
    return NewAction(
        job.tenant_id,
        job.dedupe_key,
        job.campaign_id,
        job.contact_id,
        job.node_id,
        job.node_visit,
        ActionType.TIMEOUT,
        job.event_type,
        deadline=job.scheduled_at,
        run_at=job.scheduled_at,
    )


def _key(job_id: str) -> Key:
    return (tenant_of(job_id), job_id)


def _campaign_key(tenant_id: str, campaign_id: str) -> Key:
    return (require_id("tenant_id", tenant_id), require_id("campaign_id", campaign_id))
