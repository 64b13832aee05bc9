"""Gauges of the whole database: what one process counted, shown by each. A scrape asks nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# What hasn't been read for so long is shown no more: a database that is away has no number of due actions.
SHOWN_FOR_SECONDS: Final = 60.0

_PENDING: Final = ("timeout_scheduler_pending", "actions that wait for their time, or are due")
_DUE: Final = ("timeout_scheduler_due", "pending actions whose time has come")
_OLDEST: Final = ("timeout_scheduler_oldest_due_seconds", "for how long the oldest due action has been due")
_CLAIMED: Final = ("timeout_scheduler_claimed", "actions that somebody works on")
_ERRORS: Final = ("timeout_scheduler_errors", "actions in error, which wait for an operator")
_AGE: Final = ("timeout_scheduler_counts_age_seconds", "how long ago these were counted")


@dataclass(frozen=True, slots=True)
class BacklogFigures:
    """What a process knows of the database's backlog; ages in seconds, as of when it was read. None: not known."""

    due: int
    claimed: int
    errors: int
    counts_age: float
    oldest_due: float
    pending: int | None = None
    pending_age: float | None = None


class BacklogGauges(Collector):
    """Shows the figures it was last given, for a minute. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._mutex = threading.Lock()
        self._figures: BacklogFigures | None = None
        self._noted_at = 0.0
        registry.register(self)

    def note(self, figures: BacklogFigures) -> None:
        """Show these from now on."""
        with self._mutex:
            self._figures, self._noted_at = figures, time.monotonic()

    def describe(self) -> Iterable[Metric]:
        """The metrics without samples: the registry asks for the names it takes."""
        return self._families(None, 0.0)

    def collect(self) -> Iterable[Metric]:
        """The metrics, without samples where nothing is known, or no longer."""
        with self._mutex:
            figures, since = self._figures, time.monotonic() - self._noted_at
        return self._families(figures if since <= SHOWN_FOR_SECONDS else None, since)

    @staticmethod
    def _families(figures: BacklogFigures | None, since: float) -> Iterator[Metric]:
        yield GaugeMetricFamily(*_PENDING, value=figures.pending if figures else None)
        yield GaugeMetricFamily(*_DUE, value=figures.due if figures else None)
        yield GaugeMetricFamily(*_OLDEST, value=figures.oldest_due if figures else None)
        yield GaugeMetricFamily(*_CLAIMED, value=figures.claimed if figures else None)
        yield GaugeMetricFamily(*_ERRORS, value=figures.errors if figures else None)
        age = GaugeMetricFamily(*_AGE, labels=["counted"])
        if figures is not None:
            age.add_metric(["work"], figures.counts_age + since)
            if figures.pending_age is not None:
                age.add_metric(["pending"], figures.pending_age + since)
        yield age
