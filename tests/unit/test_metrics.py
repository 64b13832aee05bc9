"""A histogram that takes whole batches shows what the client's own shows, observation by observation."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import prometheus_client
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from scheduler.telemetry.batch_histogram import BatchHistogram
from scheduler.telemetry.metrics import Metrics

BOUNDS: Final = (0.001, 0.25, 1, 30, 86400)
EXPOSITIONS: Final = [generate_latest, generate_openmetrics]


def page(registry: CollectorRegistry, expose: Callable[[CollectorRegistry], bytes]) -> str:
    """What a scrape reads, but for the instant at which the histogram was made."""
    return re.sub(r"(_created) \S+", r"\1 T", expose(registry).decode())


def one_by_one(amounts: list[float]) -> CollectorRegistry:
    registry = CollectorRegistry()
    histogram = Histogram("lateness_seconds", "how late", buckets=BOUNDS, registry=registry)
    for amount in amounts:
        histogram.observe(amount)
    return registry


def in_batches(batches: list[list[float]]) -> CollectorRegistry:
    registry = CollectorRegistry()
    histogram = BatchHistogram("lateness_seconds", "how late", buckets=BOUNDS, registry=registry)
    for batch in batches:
        histogram.observe_all(batch)
    return registry


_amounts = st.sampled_from(BOUNDS) | st.floats(min_value=0, max_value=1e9) | st.floats(allow_nan=False)


@pytest.mark.parametrize("expose", EXPOSITIONS)
@given(batches=st.lists(st.lists(_amounts, max_size=8), max_size=4))
@example([[0.1, 0.2], [0.3]])
@example([])
def test_a_scrape_can_not_tell_batches_from_single_observations(expose: Any, batches: list[list[float]]) -> None:
    expected = page(one_by_one([amount for batch in batches for amount in batch]), expose)

    assert expected == page(in_batches(batches), expose)


@pytest.mark.parametrize("expose", EXPOSITIONS)
def test_a_scrape_shows_no_creation_where_the_host_wants_none(expose: Any) -> None:
    if not hasattr(prometheus_client, "disable_created_metrics"):
        pytest.skip("prometheus_client before 0.18 has no disable_created_metrics")
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        shown = page(in_batches([[0.5]]), expose)
        assert page(one_by_one([0.5]), expose) == shown
        assert "_created" not in shown
    finally:
        prometheus_client.enable_created_metrics()  # type: ignore[no-untyped-call]


def test_a_scrape_of_one_name_is_answered_and_a_second_of_the_name_refused() -> None:
    registry = in_batches([[0.5, 2]])

    restricted = generate_latest(registry.restricted_registry(["lateness_seconds_sum"])).decode()
    assert "lateness_seconds_sum 2.5" in restricted
    assert "_bucket" not in restricted
    with pytest.raises(ValueError, match="Duplicated"):
        BatchHistogram("lateness_seconds", "again", buckets=BOUNDS, registry=registry)


def test_batches_of_many_threads_are_all_counted() -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram("lateness_seconds", "how late", buckets=BOUNDS, registry=registry)

    def work() -> None:
        for _ in range(200):
            histogram.observe_all([0.0005, 0.5] * 50)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert registry.get_sample_value("lateness_seconds_count") == 100_000
    assert registry.get_sample_value("lateness_seconds_bucket", {"le": "0.001"}) == 50_000


def test_a_batch_counts_its_size_and_every_lateness_and_none_is_early() -> None:
    metrics = Metrics()
    metrics.fired_batch([0.004, -0.5, 2.0], 0.1)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"timeout_scheduler_{name}", labels)

    assert [
        value("lateness_seconds_count"),
        value("lateness_seconds_sum"),
        value("lateness_seconds_bucket", le="0.001"),
        value("lateness_seconds_bucket", le="0.005"),
    ] == [3, 2.004, 1, 2]
    assert [value("batch_size_count"), value("batch_size_sum")] == [1, 3]


_HOST: Final = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from scheduler.telemetry.metrics import Metrics
Metrics().fired_batch([0.004, 2.0], 0.1)
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""


def test_a_host_in_multiprocess_mode_sees_lateness_too(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", _HOST], env=environment, capture_output=True, text=True, check=True)

    assert "timeout_scheduler_lateness_seconds_count 2.0" in done.stdout
    assert 'timeout_scheduler_lateness_seconds_bucket{le="0.005"} 1.0' in done.stdout
