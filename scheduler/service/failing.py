"""What becomes of an attempt that failed: another one with backoff, or the end as `error`, kept and reported once."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from scheduler.domain.action import ActionStatus, ScheduledAction
from scheduler.domain.retry import retry_delay
from scheduler.settings import Settings
from scheduler.store.errors import describe
from scheduler.store.settlements import Return
from scheduler.telemetry.log import emit
from scheduler.telemetry.metrics import Metrics
from scheduler.telemetry.scrubbing import Scrubber
from scheduler.telemetry.sentry import report

_LONGEST_ERROR: Final = 1000


class Failures:
    """Decides what follows a failed attempt, and tells about it. Thread-safe."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics

    def is_last(self, action: ScheduledAction) -> bool:
        """Whether the attempt that failed was the last one."""
        return action.attempts + 1 >= self._settings.max_attempts

    def after_attempt(
        self, action: ScheduledAction, error: BaseException, now: datetime, delay: timedelta | None = None
    ) -> Return:
        """Back to pending with backoff (or after `delay`), or `error` when no attempt is left."""
        attempts = action.attempts + 1
        if self.is_last(action):
            return self.at_once(action, error)
        if delay is None:
            settings = self._settings
            jitter = random.random()  # noqa: S311 - spreads retries, protects nothing
            delay = retry_delay(attempts, settings.retry_base, settings.retry_max, jitter)
        return Return(action, ActionStatus.PENDING, now + delay, attempts, text_of(error))

    def at_once(self, action: ScheduledAction, error: BaseException) -> Return:
        """The end as `error`, without another attempt."""
        return Return(action, ActionStatus.ERROR, action.run_at, action.attempts + 1, text_of(error))

    def tell(self, returned: Return, error: BaseException, reason: str, personal: Iterable[str] = ()) -> None:
        """Count and log one failed attempt; report it when it was the last. Call it after the transaction.

        What is `personal` isn't logged, as far as it is four letters long.
        """
        action = returned.action
        self._metrics.failed(action.action_type, reason)
        facts = {
            "dedupe_key": action.dedupe_key,
            "tenant_id": action.tenant_id,
            "campaign_id": action.campaign_id,
            "node_id": action.node_id,
            "action_type": action.action_type,
            "event_type": action.event_type,
            "attempt": returned.attempts,
        }
        told = Scrubber(personal).text(returned.last_error or "")
        if returned.status == ActionStatus.ERROR:
            emit("action.failed", **facts, error=told)
            self._metrics.ended(action.action_type, action.event_type, "failed")
            report(error, facts)
        else:
            emit("action.retry_scheduled", **facts, error=told, run_at=returned.run_at.isoformat())


def text_of(error: BaseException) -> str:
    """One line for `last_error`."""
    return describe(error)[:_LONGEST_ERROR].replace("\x00", "")
