"""The one line that says what became of a due action."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from scheduler.domain.action import ScheduledAction
from scheduler.domain.outcome import BUSY, DEFERRED, PAUSED
from scheduler.telemetry.log import emit_all

# How long an action waits whose campaign somebody else is at work on.
BUSY_DELAY: Final = timedelta(milliseconds=250)

_EVENT_OF: Final = {PAUSED: "action.paused", DEFERRED: "action.deferred", BUSY: "action.released"}


def log_action(action: ScheduledAction, outcome: str, now: datetime, batch: int = 1) -> None:
    """The canonical line of one due action."""
    emit_all((_line(action, outcome, now, batch),))


def log_actions(settled: Iterable[tuple[ScheduledAction, str]], now: datetime, batch: int) -> None:
    """The canonical lines of due actions of one batch, each with its outcome."""
    emit_all(_line(action, outcome, now, batch) for action, outcome in settled)


def _line(action: ScheduledAction, outcome: str, now: datetime, batch: int) -> tuple[str, dict[str, Any]]:
    return _EVENT_OF.get(outcome, "action.completed"), {
        "dedupe_key": action.dedupe_key,
        "tenant_id": action.tenant_id,
        "campaign_id": action.campaign_id,
        "node_id": action.node_id,
        "node_visit": action.node_visit,
        "action_type": action.action_type,
        "event_type": action.event_type,
        "outcome": outcome,
        "lateness_seconds": (now - action.run_at).total_seconds(),
        "attempt": action.attempts + 1,
        "batch": batch,
    }
