"""Errors to Sentry. Only the daemon initialises it; in a host application the host's own set-up is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration

from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import package_version


def start_sentry(dsn: str, environment: str | None, instance: str) -> None:
    """Report to this DSN from now on. No contact data: no locals, no bodies, no default personal data."""
    sentry_sdk.init(
        dsn=dsn,
        environment=environment,
        release=f"timeout-scheduler@{package_version()}",
        server_name=instance,
        send_default_pii=False,
        include_local_variables=False,
        # A trail of requests would show the webhook's query, which may hold a token; its receiver isn't ours to trace.
        max_breadcrumbs=0,
        trace_propagation_targets=[],
        # One place captures; the logging integration would report every ERROR line a second time.
        integrations=[LoggingIntegration(level=None, event_level=None)],
    )


def report(error: BaseException, tags: Mapping[str, Any]) -> None:
    """Report one error with tags; does nothing where Sentry isn't set up."""
    with sentry_sdk.new_scope() as scope:
        for name, value in tags.items():
            if value is not None:
                scope.set_tag(name, str(value))
        scope.fingerprint = ["timeout-scheduler", type(error).__name__, str(tags.get("action_type", ""))]
        sentry_sdk.capture_exception(error)


def report_unexpected(event: str, error: BaseException) -> None:
    """Log an error nobody thought of under this event of the vocabulary, and report it: the thread goes on."""
    first_line = str(error).partition("\n")[0]
    emit(event, error=f"{type(error).__name__}: {first_line}")
    report(error, {"reason": event})


def flush(timeout: float = 2.0) -> None:
    """Wait until what was reported is sent: before the process ends."""
    sentry_sdk.flush(timeout)
