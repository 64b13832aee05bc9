"""Where concrete things meet: settings, logging, Sentry, the scheduler, the daemon."""

from __future__ import annotations

from scheduler.domain.errors import DatabaseUnavailableError, SchemaOutdatedError
from scheduler.runtime.daemon import Daemon
from scheduler.runtime.reloading import Reloading, Reread
from scheduler.runtime.reporting import checking_in, reporting
from scheduler.runtime.timeout_scheduler import TimeoutScheduler
from scheduler.settings import Settings
from scheduler.store.schema import require_current
from scheduler.telemetry.log import configure_logging, emit
from scheduler.web.application import Health, create_application
from scheduler.web.server import WebServer, require_token


def open_scheduler(settings: Settings) -> TimeoutScheduler:
    """The scheduler these settings describe; nothing is connected yet."""
    return TimeoutScheduler(settings=settings)


def run_daemon(settings: Settings, reread: Reread, *, upgrades: bool = False) -> int:
    """Run the daemon until it is told to stop; returns the exit code.

    SIGHUP lets it `reread` its settings. With `upgrades` it makes the schema, or brings it up to date, first.

    Only this configures the process: logging, Sentry, signals. Raises SchemaOutdatedError, AlreadyRunningError and
    InvalidInputError before anything is fired; a database that is away is waited for.
    """
    require_token(settings.http_host, _http_token(settings))
    _configure(settings)
    with reporting(settings):
        return _run(settings, reread, upgrades=upgrades)


def _run(settings: Settings, reread: Reread, *, upgrades: bool) -> int:
    timeout_scheduler = open_scheduler(settings)
    web_server = None
    try:
        _introduce(timeout_scheduler, settings)
        daemon = Daemon(timeout_scheduler, Reloading(settings, reread, _configure).reload, upgrades=upgrades)
        web_server = _serve(daemon, timeout_scheduler, settings)
        with checking_in(settings, timeout_scheduler.instance, daemon.is_firing, daemon.why_not_alive):
            return daemon.run()
    finally:
        if web_server is not None:
            web_server.stop()
        timeout_scheduler.close()


def _configure(settings: Settings) -> None:
    """How lines are logged: at the start, and with every reload."""
    configure_logging(settings.log_level, settings.log_format)


def _serve(daemon: Daemon, timeout_scheduler: TimeoutScheduler, settings: Settings) -> WebServer | None:
    """Health and metrics; a port that is taken is said, and doesn't keep timeouts from firing."""
    token = _http_token(settings)
    health = Health(daemon.why_not_alive, daemon.why_not_ready, timeout_scheduler.metrics.registry)
    try:
        server = WebServer(create_application(health, token), settings.http_host, settings.http_port)
    except OSError as error:
        emit("http.unavailable", host=settings.http_host, port=settings.http_port, error=error.strerror)
        return None
    server.start()
    emit("http.listening", host=settings.http_host, port=server.port)
    return server


def _http_token(settings: Settings) -> str | None:
    return None if settings.http_token is None else settings.http_token.get_secret_value()


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
