"""The public face: schedules timeouts, and fires them in this process when it is asked to."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from apscheduler.schedulers import SchedulerAlreadyRunningError, SchedulerNotRunningError

from scheduler.domain.action import ScheduledAction, TimeoutJob
from scheduler.domain.errors import InvalidInputError
from scheduler.domain.sending import SendHandler
from scheduler.domain.timing import Clock
from scheduler.runtime.campaign_scheduler import CampaignScheduler
from scheduler.runtime.firing_engine import FiringEngine
from scheduler.runtime.loading import load_send_handler, load_state_manager
from scheduler.service.campaigns import CampaignStateManager
from scheduler.service.reopening import Reopening
from scheduler.service.results import ScheduleSummary
from scheduler.service.state_manager import StateManager
from scheduler.service.timeouts import Timeouts
from scheduler.settings import Settings
from scheduler.store import schema
from scheduler.store.database import Database, Engine
from scheduler.store.engine import create_database_engine, default_database_url, join_engine
from scheduler.store.patience import Patience
from scheduler.store.stores import Stores
from scheduler.telemetry.metrics import CollectorRegistry, Metrics


class TimeoutScheduler:
    """Campaign timeouts on one database. Thread-safe; nothing fires in this process until `start` or `run_due`.

    Every writing call is one transaction of its own, or joins the caller's when `connection` is given (a SQLAlchemy
    Connection or Session, or a psycopg connection): then it commits nothing, and is undone with the caller's rollback.

    Raises InvalidInputError (nothing is written), SchemaOutdatedError (migrate first), DatabaseUnavailableError (the
    same call may be made again), AlreadyRunningError (SQLite: another process fires).
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        engine: Engine | None = None,
        settings: Settings | None = None,
        state_manager: StateManager | str | None = None,
        send_handler: SendHandler | str | None = None,
        clock: Clock | None = None,
        metrics_registry: CollectorRegistry | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self._owns_engine = engine is None
        if engine is not None and database_url is not None:
            raise InvalidInputError("engine", engine, "give database_url or engine, not both")
        patience = Patience(self.settings.database_timeout)
        if engine is None:
            url = database_url or _configured_url(self.settings)
            size = _pool_size(self.settings)
            used = create_database_engine(url, size, patience=patience, idle_limit=self.settings.lease)
        else:
            used = join_engine(engine)
        self._database = Database(used, self.settings.schema_name, clock, patience)
        self.metrics = Metrics(metrics_registry)
        stores = Stores.of(self._database, self.settings.timer_defaults)
        self._stores = stores
        handler = load_send_handler("send_handler", send_handler or self.settings.send_handler, self.settings)
        is_external = handler is None
        self._campaigns = CampaignStateManager(stores, self.settings, self.metrics, is_external=is_external)
        self._timeouts = Timeouts(stores, Reopening(stores, self.settings, self.metrics))
        chosen = state_manager if state_manager is not None else self.settings.state_manager
        manager = self._campaigns if chosen is None else load_state_manager("state_manager", chosen)
        self._engine = FiringEngine(stores, self._timeouts, manager, handler, self.settings, self.metrics, self.fire)
        self._database.wake = self._wake_for
        self._database.fires_here = lambda: self.apscheduler.running
        self._database.notice = self.settings.poll_interval

    @property
    def apscheduler(self) -> CampaignScheduler:
        """The APScheduler instance: its job store is the table."""
        return self._engine.apscheduler

    @property
    def campaigns(self) -> CampaignStateManager:
        """The campaigns on the same database."""
        return self._campaigns

    @property
    def database(self) -> Database:
        """The database, for tools beside this one."""
        return self._database

    @property
    def stores(self) -> Stores:
        """Every statement on the database, for tools beside this one."""
        return self._stores

    @property
    def instance(self) -> str:
        """The identity this process claims with."""
        return self._engine.owner.id

    @property
    def last_turn(self) -> float:
        """When the scheduling loop last turned, on the monotonic clock."""
        return self._engine.turn.last_turn

    @property
    def silence(self) -> float:
        """For how many seconds the scheduling loop has been silent, not counting what it waits for the database."""
        return self._engine.turn.silence

    @property
    def is_database_up(self) -> bool:
        """Whether the database answered the last time that this process fired, claimed, or looked."""
        return self._engine.watch.is_up

    def migrate(self) -> None:
        """Create or upgrade the schema, in one transaction."""
        schema.upgrade(self._database)

    def require_current_schema(self) -> None:
        """Raises SchemaOutdatedError unless the database has the schema this version needs."""
        schema.require_current(self._database)

    def schedule(self, job: TimeoutJob, connection: Any = None) -> str:
        """Schedule one timeout; returns its job id, the dedupe key.

        The same key again changes nothing and returns the same id, whatever state it is in.
        """
        return self._timeouts.schedule(job, connection)

    def schedule_many(self, jobs: Iterable[TimeoutJob], connection: Any = None) -> ScheduleSummary:
        """Schedule many in one transaction: all of them or, when one is unusable, none."""
        return self._timeouts.schedule_many(jobs, connection)

    def reschedule(self, job_id: str, run_at: datetime, connection: Any = None) -> bool:
        """Give a pending or paused action another instant; False when it is unknown, claimed or finished."""
        return self._timeouts.reschedule(job_id, run_at, connection)

    def cancel(
        self, job_id: str, reason: str | None = None, connection: Any = None, *, actor: str | None = None
    ) -> bool:
        """Cancel one action; False when unknown or finished. A claimed one is canceled unless it commits first."""
        return self._timeouts.cancel(job_id, reason, connection, actor)

    def cancel_node(self, tenant_id: str, campaign_id: str, node_id: str, connection: Any = None) -> int:
        """Cancel all that is unfinished for one node of a campaign; returns how many."""
        return self._timeouts.cancel_node(tenant_id, campaign_id, node_id, connection)

    def cancel_campaign(self, tenant_id: str, campaign_id: str, connection: Any = None) -> int:
        """Cancel all that is unfinished for a campaign; returns how many. The campaign itself goes on."""
        return self._timeouts.cancel_campaign(tenant_id, campaign_id, connection)

    def retry(self, job_id: str, connection: Any = None, *, actor: str | None = None) -> bool:
        """Reopen an action in `error`, due now; False when it isn't in error, or its visit was left already.

        A campaign that ended because this send failed goes on with it, with its timeouts and all it was told.
        With `actor` it is noted in `operator_actions`.
        """
        return self._timeouts.retry(job_id, connection, actor)

    def find(self, job_id: str, connection: Any = None) -> ScheduledAction | None:
        """The action of that job id, in whatever state it is."""
        return self._timeouts.find(job_id, connection)

    def pending(
        self,
        tenant_id: str | None = None,
        campaign_id: str | None = None,
        due_before: datetime | None = None,
        limit: int = 100,
        connection: Any = None,
    ) -> list[ScheduledAction]:
        """Pending actions, the earliest due first, at most `limit`."""
        return self._timeouts.pending(tenant_id, campaign_id, due_before, limit, connection)

    def list_actions(self, *, limit: int = 100, connection: Any = None, **wanted: Any) -> list[ScheduledAction]:
        """Actions in any state: by `tenant_id`, `campaign_id`, `node_id`, `statuses`, `action_type`, `due_before`."""
        return self._timeouts.select(limit=limit, connection=connection, **wanted)

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
        """Fire one due timeout now, in this thread; returns its outcome. The job function for `apscheduler.add_job`."""
        return self._engine.fire(tenant_id, campaign_id, contact_id, node_id, event_type, scheduled_at, node_visit)

    def run_due(self) -> int:
        """Fire all that is due (sends too), in this thread, and return how many ended: for tests, cron, serverless."""
        return self._engine.run_due()

    def start(self) -> None:
        """Fire in this process, in the background; no change when it does already. Works in a forked child too."""
        with suppress(SchedulerAlreadyRunningError):
            self.apscheduler.start()

    def shutdown(self, wait: bool = True) -> None:
        """Stop firing: take nothing more, finish what is being fired (up to SHUTDOWN_TIMEOUT), hand the rest back."""
        with suppress(SchedulerNotRunningError):
            self.apscheduler.shutdown(wait)

    def close(self) -> None:
        """Shut down, and close the connections this object opened."""
        self.shutdown()
        if self._owns_engine:
            self._database.dispose()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _wake_for(self, instant: datetime) -> None:
        """Let the loop look at what is due sooner than it would look by itself."""
        if self.apscheduler.running:
            soon: timedelta = self.settings.poll_interval
            now = (self._database.clock or self._database.real_clock).now()
            if instant <= now + soon:
                self.apscheduler.wakeup()


def _configured_url(settings: Settings) -> str:
    return default_database_url() if settings.database_url is None else settings.database_url.get_secret_value()


def _pool_size(settings: Settings) -> int:
    """One per worker, for what goes first, for the loop, two beside it, and a few for the caller's threads."""
    return settings.workers + settings.send_workers + 7
