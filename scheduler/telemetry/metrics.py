"""Prometheus metrics. Labels come from closed sets, never ids."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from scheduler.domain.event import EXIT_EVENTS, MAIL_EVENTS
from scheduler.telemetry.backlog_gauges import BacklogFigures, BacklogGauges
from scheduler.telemetry.batch_histogram import BatchHistogram
from scheduler.telemetry.progress import Progress

__all__ = ["CollectorRegistry", "Metrics", "event_label", "package_version"]

OTHER: Final = "other"
_KNOWN_EVENTS: Final = frozenset(
    {
        "sent",
        "no_open",
        "no_click",
        "no_reply",
        "no_delivery",
        "replied",
        "soft_bounced",
        "send_failed",
        "enrolled",
        "restarted",
        "migrated",
        "stopped",
        *MAIL_EVENTS,
        *EXIT_EVENTS,
    }
)
_KNOWN_OUTCOMES: Final = frozenset(
    {
        "transitioned",
        "stale",
        "event_happened",
        "campaign_inactive",
        "no_transition",
        "unknown_campaign",
        "sent",
        "failed",
        "canceled",
        "paused",
    }
)
_LATENESS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86400)


def package_version() -> str:
    """The installed version; `unknown` when run from a checkout that isn't installed."""
    try:
        return version("timeout-scheduler")
    except PackageNotFoundError:
        return "unknown"


def event_label(event_type: str) -> str:
    """An event type as a label: plans may invent their own, and those are `other`."""
    return event_type if event_type in _KNOWN_EVENTS else OTHER


class Metrics:
    """The counters and histograms of one `TimeoutScheduler`, in the given registry or one of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        target = self.registry
        self.progress = Progress()
        self._actions = Counter(
            "timeout_scheduler_actions", "actions that ended", ["action_type", "event_type", "outcome"], registry=target
        )
        self._failures = Counter(
            "timeout_scheduler_failures", "failed attempts", ["action_type", "reason"], registry=target
        )
        self._transitions = Counter("timeout_scheduler_transitions", "visits left", ["trigger"], registry=target)
        self._late_events = Counter(
            "timeout_scheduler_late_events", "events that came too late to count", registry=target
        )
        self._lateness = BatchHistogram(
            "timeout_scheduler_lateness_seconds", "start of firing minus run_at", buckets=_LATENESS, registry=target
        )
        self._batch_seconds = Histogram("timeout_scheduler_batch_seconds", "time to fire one batch", registry=target)
        self._batch_size = Histogram(
            "timeout_scheduler_batch_size",
            "actions in one batch",
            buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000),
            registry=target,
        )
        self._send_seconds = Histogram("timeout_scheduler_send_seconds", "time in the send handler", registry=target)
        self._database_up = Gauge("timeout_scheduler_database_up", "1 while the database answers", registry=target)
        self._clock_skew = Gauge(
            "timeout_scheduler_clock_skew_seconds",
            "how far the database's clock is ahead of this machine's",
            registry=target,
        )
        self._last_loop = Gauge(
            "timeout_scheduler_last_loop_timestamp_seconds", "when the scheduling loop last turned", registry=target
        )
        self._backlog = BacklogGauges(target)
        self._consecutive_failures = Gauge(
            "timeout_scheduler_consecutive_failures",
            "distinct actions whose attempts failed with no success between",
            registry=target,
        )
        build = Gauge("timeout_scheduler_build_info", "always 1", ["version", "python"], registry=target)
        build.labels(package_version(), platform.python_version()).set(1)

    def ended(self, action_type: str, event_type: str, outcome: str, count: int = 1) -> None:
        """Count actions that ended."""
        known = outcome if outcome in _KNOWN_OUTCOMES else OTHER
        self._actions.labels(action_type, event_label(event_type), known).inc(count)
        self.progress.ended(count)

    def failed(self, action_type: str, reason: str) -> None:
        """Count one failed attempt; `reason` is `error`, `database`, `permanent` or `retry_later`."""
        self._failures.labels(action_type, reason).inc()

    def transitioned(self, trigger: str, count: int = 1) -> None:
        """Count visits left."""
        self._transitions.labels(event_label(trigger)).inc(count)

    def late_event(self) -> None:
        """Count an event that came too late."""
        self._late_events.inc()

    def fired_batch(self, latenesses: list[float], seconds: float) -> None:
        """Note one batch: how late each of its actions was, and how long it took."""
        self._batch_size.observe(len(latenesses))
        self._batch_seconds.observe(seconds)
        late = [max(lateness, 0.0) for lateness in latenesses]
        self._lateness.observe_all(late)
        self.progress.was_late(max(late, default=0.0))

    def sent(self, seconds: float) -> None:
        """Note the time one send took."""
        self._send_seconds.observe(seconds)

    def backlog(self, figures: BacklogFigures) -> None:
        """Note how much is waiting in the whole database."""
        self._backlog.note(figures)

    def consecutive_failures(self, count: int) -> None:
        """Note how many distinct actions have failed in a row."""
        self._consecutive_failures.set(count)

    def database_is_up(self, *, up: bool) -> None:
        """Note whether the database answers."""
        self._database_up.set(1 if up else 0)

    def clock_skew(self, seconds: float) -> None:
        """Note how far the database's clock is ahead of this machine's."""
        self._clock_skew.set(seconds)

    def loop_turned(self) -> None:
        """Note that the scheduling loop turned."""
        self._last_loop.set_to_current_time()
