"""What fires: the lanes of timeouts and sends, APScheduler on the table, the file lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from scheduler.domain.action import ActionType, ScheduledAction, TimeoutJob
from scheduler.domain.errors import DatabaseUnavailableError, InvalidInputError, SchedulerError
from scheduler.domain.outcome import GONE
from scheduler.domain.sending import SendHandler
from scheduler.runtime.campaign_scheduler import ALIAS, SEND_ALIAS, CampaignScheduler
from scheduler.runtime.database_watch import DatabaseWatch
from scheduler.runtime.executor import BatchExecutor, Work
from scheduler.runtime.failure_watch import FailureWatch
from scheduler.runtime.file_lock import FileLock
from scheduler.runtime.forking import watch
from scheduler.runtime.job_store import TimeoutJobStore
from scheduler.runtime.jobs import JobMaker
from scheduler.runtime.keeping import Keeping
from scheduler.runtime.lookout import Lookout
from scheduler.runtime.loop_turn import Lane, LoopTurn
from scheduler.runtime.own_claims import OwnClaims
from scheduler.service.firing import Firing
from scheduler.service.owner import Owner
from scheduler.service.persist import DecisionWriter
from scheduler.service.results import Ended
from scheduler.service.sends import Sends
from scheduler.service.state_manager import StateManager
from scheduler.service.timeouts import Timeouts
from scheduler.settings import Settings
from scheduler.store.schema import require_current
from scheduler.store.stores import Stores
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics
from scheduler.telemetry.sentry import report_unexpected

_SHORTEST_WAIT: Final = timedelta(seconds=1)
_HANDING_BACK: Final = timedelta(seconds=5)
_KEEPERS_PATIENCE_SECONDS: Final = 5.0


class FiringEngine:
    """Fires in the background (`apscheduler.start`), or in the calling thread (`run_due`)."""

    def __init__(
        self,
        stores: Stores,
        timeouts: Timeouts,
        state_manager: StateManager,
        send_handler: SendHandler | None,
        settings: Settings,
        metrics: Metrics,
        fire: Callable[..., str] | None = None,
    ) -> None:
        self._stores = stores
        self._settings = settings
        self.owner = Owner(settings.instance_name)
        self._lock = _file_lock(stores, self.owner)
        self._firing = Firing(stores, state_manager, settings, metrics, self.owner)
        self._work_of: dict[ActionType, Work] = {ActionType.TIMEOUT: self._firing}
        self._claims = OwnClaims(stores, settings, self.owner)
        self.watch = DatabaseWatch(metrics)
        self._failure_watch = FailureWatch(metrics, settings.alert_consecutive_failures, self.owner)
        lookout = Lookout(stores)
        self._keeping = Keeping(stores, settings, self.owner, self._claims, self.watch, lookout, self, metrics)
        self.apscheduler = CampaignScheduler(self, settings.poll_interval)
        lanes = [self._lane(ActionType.TIMEOUT, self._firing, settings.workers, settings.batch_size, ALIAS)]
        if send_handler is not None:
            writer = DecisionWriter(stores, settings.timeout_grace, metrics)
            sends = Sends(stores, writer, send_handler, settings, metrics, self.owner)
            self._work_of[ActionType.SEND] = sends
            lanes.append(self._lane(ActionType.SEND, sends, settings.send_workers, sends.batch_size, SEND_ALIAS))
        self._lanes = lanes
        self.turn = LoopTurn(stores, lanes, settings, metrics, self._claims, self.watch, lookout)
        jobs = JobMaker(fire or self.fire, ALIAS, SEND_ALIAS)
        self.apscheduler.use(TimeoutJobStore(timeouts, jobs, self.turn))
        watch(self)

    def _lane(self, action_type: ActionType, work: Work, workers: int, batch_size: int, alias: str) -> Lane:
        watches = self.watch, self._failure_watch
        # With one worker all is fired by one thread, of sends no more go on at a time than was asked for, and SQLite
        # has one writer at a time.
        has_express = action_type == ActionType.TIMEOUT and workers > 1 and self._stores.database.is_postgresql
        in_hand = self._claims.in_hand
        executor = BatchExecutor(work, workers, batch_size, alias, ALIAS, in_hand, *watches, has_express=has_express)
        executor.wakes_always = self._settings.max_rate_per_tenant is not None
        self.apscheduler.add_executor(executor, alias)
        return Lane(action_type, executor)

    def wakeup(self) -> None:
        """Let the loop turn now, if it turns at all."""
        if self.apscheduler.running:
            self.apscheduler.wakeup()

    def fire(
        self,
        tenant_id: str,
        campaign_id: str,
        contact_id: str,
        node_id: str,
        event_type: str,
        scheduled_at: datetime,
        node_visit: int = 1,
    ) -> str:
        """Fire one due timeout now, in this thread; returns its outcome. The one job function of the job store.

        Raises SchedulerError when it isn't due, isn't pending, or somebody else is firing it.
        """
        job = TimeoutJob(
            tenant_id=tenant_id,
            campaign_id=campaign_id,
            contact_id=contact_id,
            node_id=node_id,
            event_type=event_type,
            scheduled_at=scheduled_at,
            node_visit=node_visit,
        )
        with self._alone():
            action = self._claims.claim_one((job.tenant_id, job.dedupe_key))
            if action is None:
                raise SchedulerError(f"{job.dedupe_key} is not due, not pending, or being fired by somebody else")
            (ended,) = self._fire_in_hand(self._firing, [action])
        if ended.error is not None:
            raise ended.error
        return ended.outcome or GONE

    def run_due(self) -> int:
        """Fire all that is due, sends first, in this thread; returns how many actions ended. Keeps to the rates."""
        require_current(self._stores.database)
        total = 0
        with self._alone():
            self.record_rest()
            self._keeping.recover()
            while True:
                ended = [one for kind in (ActionType.SEND, ActionType.TIMEOUT) for one in self._fire_due(kind)]
                total += sum(1 for one in ended if one.is_final)
                if not ended and not self._wait_for_rates():
                    return total

    def _fire_due(self, action_type: ActionType) -> list[Ended]:
        work = self._work_of.get(action_type)
        return [] if work is None else self._fire_in_hand(work, self._claim(action_type))

    def _claim(self, action_type: ActionType) -> Sequence[ScheduledAction]:
        """A batch of what is due; what is paused gives way to what comes behind it."""
        while True:
            taken = self._claims.claim(action_type, self._settings.batch_size)
            if taken.actions or not (taken.held or taken.is_searching):
                return taken.actions

    def _wait_for_rates(self) -> bool:
        """Wait until something may be fired that is due, and that the rates have held back; False: there is none."""
        cut = [action_type for action_type in self._work_of if self._claims.was_cut(action_type)]
        if not cut:
            return False
        with self._stores.database.reading() as transaction:
            known = self._stores.outlooks.read(transaction)
        waits = [
            max(self._claims.wait(action_type), self._claims.wait_of_held_back(action_type) or 0.0)
            for action_type in cut
            if (at := known.of(action_type)) is not None and at <= known.now
        ]
        if waits:
            threading.Event().wait(min(waits))
        return bool(waits)

    def _fire_in_hand(self, work: Work, claimed: Sequence[ScheduledAction]) -> list[Ended]:
        """Fire what was claimed in this thread; what an error leaves over waits for its lease."""
        try:
            ended = work.fire(claimed, may_wait=True)
            self._failure_watch.note(ended)
            return ended or [Ended(action, GONE) for action in claimed]
        finally:
            kept = {action.key for action in work.leave(claimed)}
            self._claims.in_hand.drop([action for action in claimed if action.key not in kept])

    def record_rest(self) -> None:
        """Record what is known of sends and couldn't be recorded when they ended."""
        for lane in self._lanes:
            lane.executor.record_rest()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """On SQLite, as the one process that fires. Leases are extended meanwhile."""
        self._take_lock()
        try:
            with self._keeping.renewal():
                yield
        finally:
            self._release_lock()

    def _take_lock(self) -> None:
        """Whoever takes the lock is the only one firing: every claim that isn't his is a dead process's."""
        if self._lock is None or not self._lock.acquire():
            return
        try:
            with self._stores.database.transaction() as transaction:
                recovered = self._stores.claims.release_others(transaction, self.owner.id)
        except BaseException:
            self._lock.release()
            raise
        if recovered:
            emit("claims.recovered", count=recovered)

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def before_start(self) -> None:
        """Raises SchemaOutdatedError, AlreadyRunningError, DatabaseUnavailableError; nothing is taken then."""
        require_current(self._stores.database)
        self._take_lock()
        try:
            self.turn.enable()
            self._keeping.start()
        except BaseException:
            self.turn.disable()
            self._keeping.stop(_KEEPERS_PATIENCE_SECONDS)
            self._release_lock()
            raise
        emit("scheduler.started", instance=self.owner.id, database=self._stores.database.dialect_name)

    def before_wakeup(self) -> None:
        """What the loop knows of what is due next may be old."""
        self.turn.doubt()

    def hurrying(self) -> AbstractContextManager[None]:
        """A stop must not take as long as a database that hangs: what it waits for is a part of SHUTDOWN_TIMEOUT."""
        timeout = self._settings.shutdown_timeout
        # What took all of the time is handed back after it.
        return self._stores.database.patience.at_most(max(timeout / 4, _SHORTEST_WAIT), timeout + _HANDING_BACK)

    def announce_stop(self) -> None:
        """The turn that is under way is the last one, and asks nothing more than it must."""
        self.turn.disable()

    def stop_claiming(self) -> None:
        """Take nothing from now on."""
        for lane in self._lanes:
            lane.executor.stop_taking()

    def drain(self, wait: bool) -> None:
        """Let what is being fired end, for up to SHUTDOWN_TIMEOUT."""
        timeout = self._settings.shutdown_timeout.total_seconds() if wait else 0.0
        last = time.monotonic() + timeout
        for lane in self._lanes:
            drained = lane.executor.wait_idle(max(last - time.monotonic(), 0.0))
            if wait and not drained:
                emit("daemon.drain_timeout", lane=lane.action_type, seconds=timeout)

    def after_stop(self) -> None:
        """Hand back what was claimed, and let the file go."""
        self._keeping.stop(_KEEPERS_PATIENCE_SECONDS if self.watch.is_up else 0.0)
        self._hand_back()
        self._release_lock()
        emit("scheduler.stopped", instance=self.owner.id)

    def before_fork(self) -> None:
        """No write of ours to an SQLite file is under way while its process is copied."""
        self._stores.database.before_fork()

    def after_fork(self) -> None:
        """In the parent everything goes on."""
        self._stores.database.after_fork()

    def forget_parent(self) -> None:
        """In a forked child: connections, locks, threads and claims are the parent's."""
        self.owner.renew()
        self._stores.database.forget_parent()
        self.apscheduler.forget_parent()
        self._keeping.forget_parent()
        self._claims.in_hand.forget_parent()
        self.watch.forget_parent()
        self._failure_watch.forget_parent()
        for lane in self._lanes:
            lane.executor.forget_parent()
        if self._lock is not None:
            self._lock.forget_parent()

    def _hand_back(self) -> None:
        """What is still claimed is due again at once; where the database is away, when its lease ends.

        One that didn't answer before is tried, but hardly waited for.
        """
        patience = self._stores.database.patience
        try:
            with nullcontext() if self.watch.is_up else patience.at_most(_SHORTEST_WAIT, _SHORTEST_WAIT):
                self.record_rest()
                self._claims.hand_back_all()
        except DatabaseUnavailableError as error:
            self.watch.noticed(error)
        except SchedulerError as error:
            report_unexpected("maintenance.error", error)


def _file_lock(stores: Stores, owner: Owner) -> FileLock | None:
    database = stores.database
    if database.is_postgresql:
        return None
    file = database.engine.url.database
    if not file:
        raise InvalidInputError("database_url", "sqlite", "give a file")
    return FileLock(Path(file), lambda: f"process {owner.process_id} ({owner.instance_name})")
