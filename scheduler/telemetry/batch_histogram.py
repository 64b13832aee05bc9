"""A Prometheus histogram that takes the observations of a whole batch."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample


class BatchHistogram(Collector):
    """Shows exactly what a `Histogram` without labels shows. Thread-safe.

    A `Histogram` that stays empty gives the samples their names, labels and order, whatever the client's version and
    settings. Only in the client's multiprocess mode, where values are files, every observation goes into it.
    """

    def __init__(self, name: str, documentation: str, *, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._histogram: Final = Histogram(name, documentation, buckets=buckets, registry=None)
        self._is_multiprocess: Final = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._bounds: Final = tuple(buckets)
        self._lock: Final = threading.Lock()
        self._counts: Final = [0] * (len(buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe_all(self, amounts: Iterable[float]) -> None:
        """Count each amount, as `Histogram.observe` would."""
        if self._is_multiprocess:
            for amount in amounts:
                self._histogram.observe(amount)
            return
        with self._lock:
            for amount in amounts:
                self._counts[bisect_left(self._bounds, amount)] += 1
                self._sum += amount

    def describe(self) -> Iterable[Metric]:
        """The metric without samples: the registry asks for the names it takes."""
        return self._histogram.describe()

    def collect(self) -> Iterable[Metric]:
        """The metric, all of its samples read at one moment."""
        for metric in self._histogram.collect():
            if not self._is_multiprocess:
                metric.samples = list(self._filled(metric.samples))
            yield metric

    def _filled(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        of_buckets = iter(counts)
        for sample in samples:
            if sample.name.endswith("_bucket"):
                yield sample._replace(value=float(next(of_buckets)))
            elif sample.name.endswith("_count"):
                yield sample._replace(value=float(counts[-1]))
            elif sample.name.endswith("_sum"):
                yield sample._replace(value=total)
            else:
                yield sample
