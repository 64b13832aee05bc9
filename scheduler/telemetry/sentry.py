"""Errors and alerts to Sentry. Only the daemon initialises it; in a host application the host's own set-up is used.

Reports are queued and sent by a thread of the SDK: a Sentry that is slow or away holds up nobody, and what doesn't fit
the queue is dropped. Nothing is sent that the daemon doesn't say here: no traces, sessions, breadcrumbs or log lines.

The SDK takes a good part of a start: whoever sets Sentry up imports it, and nothing here does before that.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final

from scheduler.domain.errors import InvalidInputError
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import package_version
from scheduler.telemetry.scrubbing import Scrubber

if TYPE_CHECKING:
    import sentry_sdk

_US: Final = "timeout-scheduler"
_LONGEST_TAG: Final = 200
_LONGEST_TEXT: Final = 500
_WINDOW_SECONDS: Final = 60.0
_MOST_CAUSES: Final = 1000

# Of one cause in a minute; as many as the queue holds.
MOST_REPORTS: Final = 100

CHECK_IN_SECONDS: Final = 60.0
_MONITOR: Final[Any] = {
    "schedule": {"type": "interval", "value": 1, "unit": "minute"},
    # In minutes: one check-in that is lost, and a start that takes its time, are no reason to wake anybody.
    "checkin_margin": 2,
    "max_runtime": 1,
    "failure_issue_threshold": 1,
    "recovery_threshold": 1,
}


def start_sentry(dsn: str, environment: str | None, instance_name: str, scrubber: Scrubber) -> None:
    """Report to this DSN from now on. Raises InvalidInputError for one that is none.

    No contact data and no secrets: no locals, no source lines, no command line, and every text goes through `scrubber`.
    """
    import sentry_sdk  # noqa: PLC0415 - see above
    from sentry_sdk.integrations import Integration  # noqa: PLC0415 - see above
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration  # noqa: PLC0415 - see above
    from sentry_sdk.integrations.threading import ThreadingIntegration  # noqa: PLC0415 - see above
    from sentry_sdk.scrubber import EventScrubber  # noqa: PLC0415 - see above
    from sentry_sdk.utils import BadDsn  # noqa: PLC0415 - see above

    integrations: list[Integration] = [
        # Uncaught errors of other people's threads. The logging integration would report our ERROR lines a second time.
        ExcepthookIntegration(),
        ThreadingIntegration(propagate_scope=False),
    ]
    try:
        sentry_sdk.init(
            dsn=dsn,
            environment=environment,
            release=f"{_US}@{package_version()}",
            server_name=instance_name,
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=integrations,
            before_send=lambda event, _hint: _scrubbed(event, scrubber),
            event_scrubber=EventScrubber(recursive=True),
            include_local_variables=False,
            include_source_context=False,
            auto_session_tracking=False,
            spotlight=False,
            # A trail of requests would show the webhook's query, which may hold a token; its receiver isn't ours.
            max_breadcrumbs=0,
            trace_propagation_targets=[],
        )
    except BadDsn:
        raise InvalidInputError(
            "SCHEDULER_SENTRY_DSN", "(not shown)", "give the DSN as Sentry shows it: https://key@host/number"
        ) from None


def name_instance(instance: str) -> None:
    """Put this identity on every report from now on."""
    if not _is_imported():
        return
    import sentry_sdk  # noqa: PLC0415 - see above

    sentry_sdk.Scope.get_global_scope().set_tag("instance", instance)


def report(error: BaseException, facts: Mapping[str, Any]) -> None:
    """Report one error with what is known about it; does nothing where Sentry isn't set up.

    Errors of one cause are one issue: of the same type, from the same place, at the same kind of action. Of more than
    `MOST_REPORTS` a minute the rest is left out; the log has them all.
    """
    if not _is_imported():
        return
    import sentry_sdk  # noqa: PLC0415 - see above

    kind = (str(facts.get(name, "")) for name in ("action_type", "event_type", "reason"))
    cause = (*cause_of(error), *kind)
    if not sentry_sdk.is_initialized() or not _errors.lets_through(cause):
        return
    with sentry_sdk.new_scope() as scope:
        _describe(scope, facts, "action" if "dedupe_key" in facts else "circumstances")
        scope.fingerprint = [_US, *cause]
        sentry_sdk.capture_exception(error)


def report_message(text: str, level: Any, facts: Mapping[str, Any]) -> None:
    """Report an incident, or its end. Incidents of one kind are one issue, and their ends another."""
    if not _is_imported():
        return
    import sentry_sdk  # noqa: PLC0415 - see above

    with sentry_sdk.new_scope() as scope:
        _describe(scope, facts, "incident")
        scope.fingerprint = [_US, str(facts.get("alert", "")), str(facts.get("action_type", "")), level]
        sentry_sdk.capture_message(text, level=level)


def _describe(scope: sentry_sdk.Scope, facts: Mapping[str, Any], title: str) -> None:
    """Texts as tags, which Sentry searches and cuts; all of it, whole, beside the report."""
    known = {name: value for name, value in facts.items() if value is not None}
    for name, value in known.items():
        if isinstance(value, str) and name != "error":
            scope.set_tag(name, value[:_LONGEST_TAG])
    scope.set_context(title, known)


def cause_of(error: BaseException) -> tuple[str, str]:
    """The type of an error, and where it was raised: what tells its cause from others, without any id."""
    place = ""
    for frame, _ in walk_tb(error.__traceback__):
        place = f"{frame.f_globals.get('__name__', '')}:{frame.f_code.co_name}"
    return f"{type(error).__module__}.{type(error).__qualname__}", place


class _Throttle:
    """Lets each cause through so many times a minute. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._mutex = threading.Lock()
        self._windows: dict[tuple[str, ...], tuple[float, int]] = {}

    def lets_through(self, cause: tuple[str, ...]) -> bool:
        """Whether this one goes; it counts."""
        now = time.monotonic()
        with self._mutex:
            begun, count = self._windows.get(cause, (now, 0))
            if now - begun >= _WINDOW_SECONDS:
                begun, count = now, 0
            if len(self._windows) >= _MOST_CAUSES:
                self._windows.clear()
            self._windows[cause] = begun, count + 1
            return count < self._most


# What goes wrong with every turn of a loop is told with every turn to the log, and once a minute to Sentry.
_unexpected = _Throttle(1)
# Where whole cohorts die of one cause, a report of each would cost more than firing, and be dropped by the queue.
_errors = _Throttle(MOST_REPORTS)


def report_unexpected(event: str, error: BaseException) -> None:
    """Log an error nobody thought of under this event of the vocabulary, and report it: the thread goes on."""
    first_line = str(error).partition("\n")[0]
    emit(event, error=f"{type(error).__name__}: {first_line}")
    if not _is_imported():
        return
    import sentry_sdk  # noqa: PLC0415 - see above

    if sentry_sdk.is_initialized() and _unexpected.lets_through((event, *cause_of(error))):
        report(error, {"reason": event})


def check_in(slug: str, *, is_well: bool) -> None:
    """Tell Sentry's monitor of that name, which is made with the first call, that this daemon lives, or how."""
    if not _is_imported():
        return
    from sentry_sdk.crons import capture_checkin  # noqa: PLC0415 - see above

    capture_checkin(monitor_slug=slug, status="ok" if is_well else "error", monitor_config=_MONITOR)


def flush(timeout: float = 2.0) -> None:
    """Wait until what was reported is sent, for so long at most: before the process ends."""
    if not _is_imported():
        return
    import sentry_sdk  # noqa: PLC0415 - see above

    sentry_sdk.flush(timeout)


def _is_imported() -> bool:
    """Whether somebody set Sentry up in this process, we or the application, or at least may have."""
    return "sentry_sdk" in sys.modules


def _scrubbed(event: Any, scrubber: Scrubber) -> Any:
    """What may be sent of an event. A hook that raises would lose it, and with it that anything happened."""
    try:
        for one in (event.get("exception") or {}).get("values") or ():
            one["value"] = _first_line(one.get("value"))
        # These are of our own making, and a version may look like an address.
        ours = {name: event[name] for name in ("release", "server_name") if name in event}
        return {**scrubber.value(event), **ours}
    except Exception as error:  # noqa: BLE001 - whatever an event may hold
        kept = ("event_id", "timestamp", "platform", "level", "release", "environment", "server_name", "fingerprint")
        bare = {name: event[name] for name in kept if name in event}
        return {**bare, "message": f"an error whose report could not be cleaned: {type(error).__name__}"}


def _first_line(text: Any) -> str:
    """A database's further lines show the row, those of a driver the statement with its parameters."""
    return str(text or "").partition("\n")[0][:_LONGEST_TEXT]
