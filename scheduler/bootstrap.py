"""Where concrete things meet: settings, logging, Sentry, the scheduler, the daemon."""

from __future__ import annotations

from scheduler.domain.errors import DatabaseUnavailableError, SchemaOutdatedError
from scheduler.runtime.daemon import Daemon
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.settings import Settings
from scheduler.store.schema import require_current
from scheduler.telemetry.log import configure_logging, emit
from scheduler.telemetry.sentry import flush, start_sentry


def open_scheduler(settings: Settings) -> TimeoutScheduler:
    """The scheduler these settings describe; nothing is connected yet."""
    return TimeoutScheduler(settings=settings)


def run_daemon(settings: Settings) -> int:
    """Run the daemon until it is told to stop; returns the exit code.

    Only this configures the process: logging, Sentry, signals. Raises SchemaOutdatedError, AlreadyRunningError and
    InvalidInputError before anything is fired; a database that is away is waited for.
    """
    configure_logging(settings.log_level, settings.log_format)
    timeout_scheduler = open_scheduler(settings)
    if settings.sentry_dsn is not None:
        start_sentry(settings.sentry_dsn.get_secret_value(), settings.sentry_environment, timeout_scheduler.instance)
    try:
        _introduce(timeout_scheduler, settings)
        return Daemon(timeout_scheduler).run()
    finally:
        timeout_scheduler.close()
        flush()


def _introduce(timeout_scheduler: TimeoutScheduler, settings: Settings) -> None:
    """Say what runs here, and what an operator may not have meant."""
    url = timeout_scheduler.database.engine.url
    emit(
        "daemon.starting",
        instance=timeout_scheduler.instance,
        database=url.render_as_string(hide_password=True),
        schema=settings.schema_name,
        batch_size=settings.batch_size,
        workers=settings.workers,
        send_handler=settings.send_handler,
        state_manager=settings.state_manager,
    )
    if settings.database_url is None:
        emit("daemon.default_database", file=url.database)
    if "send_handler" not in settings.model_fields_set and _has_send_nodes(timeout_scheduler):
        emit("daemon.log_handler", remedy="set SCHEDULER_SEND_HANDLER")


def _has_send_nodes(timeout_scheduler: TimeoutScheduler) -> bool:
    """Whether a stored plan sends; unknown counts as no while the database is away."""
    database = timeout_scheduler.database
    try:
        require_current(database)
        with database.reading() as transaction:
            return timeout_scheduler.stores.plans.any_sends(transaction)
    except (DatabaseUnavailableError, SchemaOutdatedError):
        return False
