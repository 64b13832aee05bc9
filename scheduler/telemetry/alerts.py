"""Alerts: a line of the log, and a message to Sentry; one when an incident begins, and one when it is over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from scheduler.telemetry.log import emit
from scheduler.telemetry.sentry import report_message


def tell_backlog(*, is_raised: bool, due: int, oldest_due: timedelta, lasted: timedelta | None) -> None:
    """Much is due and isn't getting less, or something has been due for long; or it no longer is."""
    facts = {"due": due, "oldest_due_seconds": round(oldest_due.total_seconds(), 1), "seconds": _rounded(lasted)}
    text = f"{due} actions are due, the oldest for {oldest_due.total_seconds():.0f} s"
    _tell("backlog", is_raised=is_raised, text=f"backlog: {text}", facts=facts)


def tell_failures(
    *, is_raised: bool, action_type: str, instance: str, failures: int, error: str | None, lasted: timedelta | None
) -> None:
    """Attempt after attempt fails on this instance; or one has succeeded again."""
    facts = {
        "action_type": action_type,
        "instance": instance,
        "failures": failures,
        "error": error,
        "seconds": _rounded(lasted),
    }
    text = f"the attempts at {failures} {action_type}s have failed with no success between"
    _tell("consecutive_failures", is_raised=is_raised, text=f"consecutive failures: {text}", facts=facts)


def _tell(alert: str, *, is_raised: bool, text: str, facts: dict[str, Any]) -> None:
    emit("alert.raised" if is_raised else "alert.recovered", alert=alert, **facts)
    level = "error" if is_raised else "info"
    report_message(text if is_raised else f"recovered: {text}", level, {"alert": alert, **facts})


def _rounded(span: timedelta | None) -> float | None:
    return None if span is None else round(span.total_seconds(), 1)
